//! What the sidecar asks of the operator as long as it runs: keys, policies, and to be heard.
//!
//! Invariant: nothing here gives up, and nothing asks more often than its backoff allows.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use chaperone_crds::control::{Ack, ControlMessage, PodConfig};
use tokio::sync::watch;

use crate::{
    authority::{Authority, PendingAuthority},
    control::OperatorClient,
    metrics::Metrics,
    shared::Shared,
};

/// First wait before the operator is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait before the operator is asked again.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What the operator has to give before anything can run: keys and policies.
pub(super) async fn enlist(
    operator: &OperatorClient,
    received: &mut watch::Receiver<Option<PodConfig>>,
) -> anyhow::Result<(Authority, PodConfig)> {
    let authority = retry("certificate", || certify(operator)).await;
    let config = received.wait_for(Option::is_some).await?.clone();
    let config = config.context("the operator sent no configuration")?;
    Ok((authority, config))
}

/// Asks until it succeeds.
async fn retry<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut wait = FIRST_RETRY;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%error, what, "the operator did not answer; asking again"),
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

/// Between half of a wait and all of it, so that sidecars do not return in step.
fn jittered(wait: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    wait / 2 + wait.mul_f64(f64::from(nanos % 1000) / 2000.0)
}

async fn certify(operator: &OperatorClient) -> anyhow::Result<Authority> {
    let pending = PendingAuthority::generate()?;
    let chain = operator.certificate(pending.request()?).await?;
    Ok(pending.signed(&chain)?)
}

/// Renews the intermediate at half of its life.
pub(super) async fn renew(shared: Arc<Shared>, operator: OperatorClient) {
    loop {
        let left = shared.authority.load().not_after() - time::OffsetDateTime::now_utc();
        let wait = Duration::try_from(left / 2)
            .unwrap_or_default()
            .max(Duration::from_secs(60));
        tokio::time::sleep(wait).await;
        let authority = retry("certificate renewal", || certify(&operator)).await;
        shared.authority.store(Arc::new(authority));
    }
}

/// Keeps the control stream; each configuration goes to `configs`, the newest wins.
pub(super) async fn follow(
    operator: OperatorClient,
    configs: watch::Sender<Option<PodConfig>>,
    metrics: Metrics,
) {
    let mut wait = FIRST_RETRY;
    loop {
        let since = tokio::time::Instant::now();
        let ended = operator
            .follow(|message| {
                metrics.control_connected.set(1);
                if let ControlMessage::Config { config } = message {
                    configs.send_replace(Some(*config));
                }
            })
            .await;
        metrics.control_connected.set(0);
        if let Err(error) = ended {
            tracing::info!(%error, "the control stream ended; the policies in force rule on");
        }
        // A stream that ends at once, time and again, must not be asked for five times a second.
        if since.elapsed() > LAST_RETRY {
            wait = FIRST_RETRY;
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

/// Tells the operator what became of the newest revision, until it has heard it.
pub(super) async fn acknowledge(
    operator: OperatorClient,
    mut latest: watch::Receiver<Option<Ack>>,
) {
    let mut wait = FIRST_RETRY;
    while latest.changed().await.is_ok() {
        let Some(ack) = latest.borrow_and_update().clone() else {
            continue;
        };
        match operator.acknowledge(&ack).await {
            Ok(()) => wait = FIRST_RETRY,
            Err(error) => {
                tracing::info!(%error, "cannot acknowledge a revision");
                latest.mark_changed();
                tokio::time::sleep(jittered(wait)).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
        }
    }
}
