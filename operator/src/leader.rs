//! Leader election by a Lease, as the controllers of Kubernetes do it.
//!
//! Owns the Lease. Invariant: who cannot renew stops leading before another may take over. The Lease's own times are never compared with our clock; what
//! counts is how long we saw it unchanged, so clocks may differ.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::timeout};

use crate::{
    lifecycle::{Phase, Signals},
    metrics::Metrics,
};

/// Name of the Lease.
pub const LEASE_NAME: &str = "chaperone-operator";
/// How long a Lease that is not renewed holds.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader that cannot renew goes on: less than the Lease, for calls that are under way.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the leader renews, and how long one call may take.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// How often a follower looks, and a leader tries again after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Takes part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    metrics: Metrics,
    leads: watch::Sender<bool>,
    seen: Option<Seen>,
}

/// A version of the Lease and when we first saw it.
struct Seen {
    resource_version: Option<String>,
    at: Instant,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none: make it.
    Create,
    /// We hold it: renew it.
    Renew,
    /// It is free or has run out: take it.
    Take,
    /// Another holds it.
    Wait,
}

impl Election {
    /// Takes part as `identity`, and what hears whether we lead.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<bool>) {
        let (leads, receiver) = watch::channel(false);
        let election = Self {
            api: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            metrics,
            leads,
            seen: None,
        };
        (election, receiver)
    }

    /// Runs until the process drains, then gives the Lease back so that the next leader need not wait for it to run out.
    pub async fn run(mut self, signals: Signals) {
        let mut renewed = Instant::now();
        loop {
            let started = Instant::now();
            let held = match timeout(self.patience(renewed), self.attempt()).await {
                Ok(Ok(holds)) => Ok(holds),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the API server did not answer in time".to_owned()),
            };
            match &held {
                Ok(true) => renewed = started,
                Ok(false) => {}
                Err(error) => self.report(error),
            }
            let leads = *self.leads.borrow();
            self.lead(
                held.clone()
                    .unwrap_or(leads && renewed.elapsed() < RENEW_DEADLINE),
            );
            let pause = match held {
                Ok(true) => RENEW_INTERVAL,
                _ => RETRY_INTERVAL.min(self.patience(renewed)),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = signals.reached(Phase::Draining) => break,
            }
        }
        let led = *self.leads.borrow();
        self.lead(false);
        if led && !matches!(timeout(RENEW_INTERVAL, self.release()).await, Ok(Ok(()))) {
            tracing::warn!("the Lease could not be given back, it runs out by itself");
        }
    }

    /// One look at the Lease, and what follows. True if we hold it now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(LEASE_NAME).await?;
        let unchanged = self.observe(lease.as_ref());
        let step = decide(lease.as_ref(), &self.identity, unchanged);
        let written = match (step, lease) {
            (Step::Wait, _) => return Ok(false),
            (Step::Create, _) | (_, None) => {
                let lease = self.lease(None);
                self.api.create(&PostParams::default(), &lease).await
            }
            (Step::Renew | Step::Take, Some(lease)) => {
                let lease = self.lease(Some((lease, step)));
                self.api
                    .replace(LEASE_NAME, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(lease) => {
                self.observe(Some(&lease));
                Ok(true)
            }
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(LEASE_NAME).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.api
            .replace(LEASE_NAME, &PostParams::default(), &lease)
            .await?;
        Ok(())
    }

    /// How long this version of the Lease has been seen.
    fn observe(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(|lease| lease.metadata.resource_version.clone());
        match &self.seen {
            Some(seen) if seen.resource_version == version => seen.at.elapsed(),
            _ => {
                self.seen = Some(Seen {
                    resource_version: version,
                    at: Instant::now(),
                });
                Duration::ZERO
            }
        }
    }

    /// The Lease with us as its holder.
    fn lease(&self, before: Option<(Lease, Step)>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let (metadata, before, is_new) = match before {
            Some((lease, step)) => (
                lease.metadata,
                lease.spec.unwrap_or_default(),
                step == Step::Take,
            ),
            None => (
                ObjectMeta {
                    name: Some(LEASE_NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                LeaseSpec::default(),
                true,
            ),
        };
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if is_new {
                Some(now.clone())
            } else {
                before.acquire_time
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(is_new))),
            ..LeaseSpec::default()
        };
        Lease {
            metadata,
            spec: Some(spec),
        }
    }

    /// How long a call or a pause may take: a leader's not beyond the time at which it must stop leading.
    fn patience(&self, renewed: Instant) -> Duration {
        if *self.leads.borrow() {
            RENEW_INTERVAL.min(RENEW_DEADLINE.saturating_sub(renewed.elapsed()))
        } else {
            RENEW_INTERVAL
        }
    }

    fn report(&self, error: &str) {
        self.metrics.failed("lease");
        tracing::warn!(error, "the Lease could not be read or written");
    }

    fn lead(&self, leads: bool) {
        let changed = self
            .leads
            .send_if_modified(|current| std::mem::replace(current, leads) != leads);
        if changed {
            self.metrics.leader.set(i64::from(leads));
            tracing::info!(leads, "leadership changed");
        }
    }
}

/// What to do about a Lease that we have seen unchanged for so long.
fn decide(lease: Option<&Lease>, identity: &str, unchanged: Duration) -> Step {
    let Some(lease) = lease else {
        return Step::Create;
    };
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or_default();
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    match holder {
        "" => Step::Take,
        holder if holder == identity => Step::Renew,
        _ if unchanged > duration => Step::Take,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_was_seen_unchanged_for_its_duration() {
        let seconds = Duration::from_secs;
        let cases = [
            (None, 0, Step::Create),
            (Some(lease(None)), 0, Step::Take),
            (Some(lease(Some(""))), 0, Step::Take),
            (Some(lease(Some("me"))), 0, Step::Renew),
            (Some(lease(Some("me"))), 60, Step::Renew),
            (Some(lease(Some("other"))), 0, Step::Wait),
            (Some(lease(Some("other"))), 15, Step::Wait),
            (Some(lease(Some("other"))), 16, Step::Take),
        ];
        for (lease, unchanged, step) in cases {
            assert_eq!(decide(lease.as_ref(), "me", seconds(unchanged)), step);
        }
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_take_over() {
        assert!(RENEW_DEADLINE < LEASE_DURATION);
        assert!(RENEW_INTERVAL < RENEW_DEADLINE);
    }
}
