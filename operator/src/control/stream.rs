//! The stream of one sidecar: its configuration at once and at each change, heartbeats in between.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use chaperone_crds::control::{ControlMessage, HEARTBEAT_SECONDS, MAX_MESSAGE_BYTES};
use futures::stream::{Stream, unfold};
use prometheus::IntGauge;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    index::Plan,
    lifecycle::{Phase, Signals},
    metrics::Metrics,
    plans::PlanReceiver,
};

/// The lines for one sidecar. Ends when the pod is gone or the process stops.
pub(super) fn lines(
    plans: PlanReceiver,
    metrics: Metrics,
    signals: Signals,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let mut heartbeat = interval(Duration::from_secs(HEARTBEAT_SECONDS));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut plans = plans;
    plans.mark_changed();
    let state = State {
        connected: Connected::new(&metrics),
        plans,
        heartbeat,
        metrics,
        signals,
    };
    unfold(state, |mut state| async move {
        let line = state.next().await?;
        Some((Ok(line), state))
    })
}

struct State {
    #[expect(dead_code, reason = "counts for as long as it lives")]
    connected: Connected,
    plans: PlanReceiver,
    heartbeat: Interval,
    metrics: Metrics,
    signals: Signals,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.signals.reached(Phase::Stopping) => return None,
                changed = self.plans.changed() => {
                    changed.ok()?;
                    let plan = self.plans.borrow_and_update().clone();
                    if let Some(line) = plan.and_then(|plan| config_line(&plan)) {
                        self.metrics.pushes.inc();
                        self.heartbeat.reset();
                        return Some(line);
                    }
                }
                _ = self.heartbeat.tick() => return line(&ControlMessage::Heartbeat),
            }
        }
    }
}

/// The line of a configuration. One beyond the limit would make the sidecar drop the stream for ever. The index lets no such plan through (`index/size.rs`); should one come all the same, the
/// sidecar keeps what it has.
fn config_line(plan: &Arc<Plan>) -> Option<Bytes> {
    let config = Box::new(plan.config());
    let line = line(&ControlMessage::Config { config })?;
    if line.len() > MAX_MESSAGE_BYTES {
        let (namespace, pod) = (&plan.identity.namespace, &plan.identity.pod);
        tracing::error!(
            namespace,
            pod,
            bytes = line.len(),
            "configuration too large to send"
        );
        return None;
    }
    Some(line)
}

fn line(message: &ControlMessage) -> Option<Bytes> {
    let mut bytes = serde_json::to_vec(message).ok()?;
    bytes.push(b'\n');
    Some(Bytes::from(bytes))
}

/// Counts a connected sidecar for as long as it lives.
struct Connected(IntGauge);

impl Connected {
    fn new(metrics: &Metrics) -> Self {
        metrics.connected_sidecars.inc();
        Self(metrics.connected_sidecars.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        index::{
            index,
            tests::{namespaced, pod, world},
        },
        lifecycle::Lifecycle,
        plans::Plans,
    };

    fn publish(plans: &Plans, rule: &str) {
        let world = world(
            vec![namespaced("a", "p", json!({}), rule)],
            vec![pod("a", "one", &[])],
        );
        plans.publish(&index(&world, |_| Ok(())));
    }

    fn parse(line: Option<Result<Bytes, Infallible>>) -> Value {
        let line = line.unwrap().unwrap();
        assert!(line.ends_with(b"\n"));
        serde_json::from_slice(&line).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn configuration_comes_at_once_and_at_each_change_and_heartbeats_in_between() {
        let (plans, metrics) = (Plans::default(), Metrics::new());
        let (lifecycle, signals) = Lifecycle::start();
        publish(&plans, "r");
        let receiver = plans.subscribe("uid-one").unwrap();
        let mut lines = Box::pin(lines(receiver, metrics.clone(), signals));
        assert_eq!(metrics.connected_sidecars.get(), 1);
        let first = parse(lines.next().await);
        assert_eq!(first["type"], "config");
        assert_eq!(first["config"]["identity"]["pod"], "one");
        assert_eq!(parse(lines.next().await), json!({"type": "heartbeat"}));
        publish(&plans, "r2");
        let second = parse(lines.next().await);
        assert_ne!(first["config"]["revision"], second["config"]["revision"]);
        lifecycle.enter(Phase::Stopping);
        assert!(lines.next().await.is_none());
        drop(lines);
        assert_eq!(metrics.connected_sidecars.get(), 0);
        assert_eq!(metrics.pushes.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_without_a_good_plan_hears_heartbeats_only_and_one_that_is_gone_the_end() {
        let plans = Plans::default();
        let (_lifecycle, signals) = Lifecycle::start();
        publish(&plans, "broken");
        let receiver = plans.subscribe("uid-one").unwrap();
        let mut lines = Box::pin(lines(receiver, Metrics::new(), signals));
        assert_eq!(parse(lines.next().await)["type"], "heartbeat");
        plans.publish(&crate::index::Index::default());
        assert!(lines.next().await.is_none());
    }
}
