//! What the ledger has acknowledged, and whether operations wait for that.
//!
//! Invariant: what counts as acknowledged, the ledger has on its disk: only its sink says so, and only after an answer of 200.

use chaperone_crds::chain::StreamId;
use thiserror::Error;
use tokio::sync::watch;

use super::queue::Receipt;

/// Between those who wait and the ledger's sink.
#[derive(Debug)]
pub(super) struct Acknowledged {
    ledger: watch::Sender<Standing>,
    /// How many operations wait.
    waiting: watch::Sender<usize>,
}

/// Where the ledger stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    is_configured: bool,
    /// The stream that it was sent last, and the number of the first record that it lacks of it.
    next: Option<(StreamId, u64)>,
}

/// No ledger is among the sinks.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("no ledger is configured")]
pub struct NoLedger;

/// One operation that waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Default for Acknowledged {
    fn default() -> Self {
        Self {
            ledger: watch::Sender::new(Standing::default()),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Acknowledged {
    /// Whether a ledger is among the sinks.
    pub(super) fn configure(&self, is_configured: bool) {
        self.ledger.send_if_modified(|standing| {
            let changed = standing.is_configured != is_configured;
            standing.is_configured = is_configured;
            changed
        });
    }

    /// The ledger has all records of this stream before number `next`.
    pub(super) fn taken(&self, stream: &StreamId, next: u64) {
        self.ledger
            .send_modify(|standing| standing.next = Some((stream.clone(), next)));
    }

    /// Waits until the ledger has this record.
    pub(super) async fn wait(&self, receipt: &Receipt) -> Result<(), NoLedger> {
        let mut ledger = self.ledger.subscribe();
        let has_it = |standing: &Standing| {
            let next = standing.next.as_ref();
            next.is_some_and(|(stream, next)| {
                stream == receipt.stream() && *next > receipt.link().seq
            })
        };
        let _waiting = Waiting::new(&self.waiting);
        let standing = ledger.wait_for(|standing| !standing.is_configured || has_it(standing));
        match standing.await {
            Ok(standing) if has_it(&standing) => Ok(()),
            _ => Err(NoLedger),
        }
    }

    /// Whether operations wait, for the ledger's sink.
    pub(super) fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }
}

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|n| *n = n.saturating_add(1));
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chaperone_crds::chain::{Link, RecordHash};
    use tokio::{task::JoinHandle, time::timeout};

    use super::*;

    fn stream(last: char) -> StreamId {
        let name = format!("7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4{last}");
        name.parse().unwrap()
    }

    fn waits(
        acknowledged: &Arc<Acknowledged>,
        last: char,
        seq: u64,
    ) -> JoinHandle<Result<(), NoLedger>> {
        let acknowledged = acknowledged.clone();
        let hash = RecordHash::of(b"");
        let receipt = Receipt::new(stream(last), Link { seq, hash });
        tokio::spawn(async move { acknowledged.wait(&receipt).await })
    }

    #[tokio::test]
    async fn a_record_is_acknowledged_once_the_ledger_expects_the_next_one_of_its_stream() {
        let acknowledged = Arc::new(Acknowledged::default());
        acknowledged.configure(true);
        let waiting = waits(&acknowledged, 'd', 7);
        let mut hurried = acknowledged.waiting();
        assert_eq!(*hurried.wait_for(|n| *n > 0).await.unwrap(), 1);
        acknowledged.taken(&stream('d'), 7);
        acknowledged.taken(&stream('e'), 100);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        acknowledged.taken(&stream('d'), 8);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(*hurried.borrow_and_update(), 0);
        assert_eq!(waits(&acknowledged, 'd', 3).await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn without_a_ledger_nobody_waits_and_who_waited_is_told_when_it_goes() {
        let acknowledged = Arc::new(Acknowledged::default());
        assert_eq!(waits(&acknowledged, 'd', 0).await.unwrap(), Err(NoLedger));
        acknowledged.configure(true);
        let waiting = waits(&acknowledged, 'd', 0);
        tokio::task::yield_now().await;
        acknowledged.configure(false);
        assert_eq!(waiting.await.unwrap(), Err(NoLedger));
    }

    #[tokio::test]
    async fn who_gives_up_does_not_hurry_the_sink_any_more() {
        let acknowledged = Arc::new(Acknowledged::default());
        acknowledged.configure(true);
        let waiting = acknowledged.waiting();
        let wait = waits(&acknowledged, 'd', 0);
        tokio::task::yield_now().await;
        assert_eq!(*waiting.borrow(), 1);
        wait.abort();
        let _ = timeout(Duration::from_secs(5), wait).await.unwrap();
        assert_eq!(*waiting.borrow(), 0);
    }
}
