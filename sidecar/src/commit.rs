//! Evidence first: what `audit.commit` of policies asks for.
//!
//! Owns the order "record, sync, acknowledge, forward". Invariant: where a policy in force asks for Disk or Ledger, an operation goes on only once a record of its beginning is on disk, or on the ledger's.

use std::time::Duration;

use chaperone_crds::{record::Event, resources::Commit};
use tokio::time::timeout;

use crate::shared::{Active, Shared};

/// How long an operation waits for the ledger: longer than a ledger needs to start again.
const LEDGER_PATIENCE: Duration = Duration::from_secs(30);

/// Number of the record that an operation began with; none where policy asks for none.
pub(crate) type Begun = Option<u64>;

/// An operation that must not leave, because what policy asks for does not hold its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unheld {
    /// Number of the record, where it is on disk.
    pub begun: Option<u64>,
    /// Why that is not enough.
    pub why: Why,
}

/// Why a record is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The sidecar stops: there is no record, or nobody waits for it any more.
    #[error("the sidecar stopped before the request was recorded")]
    Stopping,
    /// There is none to hold it.
    #[error(
        "a policy asks for audit.commit: Ledger, and there is no ledger: enable it in Chaperone's chart, or ask for Disk"
    )]
    NoLedger,
    /// It did not say so in time.
    #[error(
        "the ledger did not acknowledge the request's record within {} s; nothing of the request left",
        LEDGER_PATIENCE.as_secs()
    )]
    LedgerSlow,
}

impl Why {
    /// The word in answers, records and metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::NoLedger => "no-ledger",
            Self::LedgerSlow => "ledger-slow",
        }
    }

    /// Whether it is Chaperone that refuses.
    pub(crate) fn is_refusal(self) -> bool {
        self != Self::Stopping
    }
}

/// Records that an operation is about to leave, and waits until that is held, where policy asks for it. Made by `event` only then. Gives up when `stop` is ready.
///
/// # Errors
/// When it is not held. Then the operation must not leave.
pub(crate) async fn begin(
    shared: &Shared,
    active: &Active,
    stop: impl Future<Output = ()>,
    event: impl FnOnce() -> Box<Event>,
) -> Result<Begun, Unheld> {
    match active.snapshot.audit_commit() {
        Commit::Async => Ok(None),
        commit => held(shared, commit, stop, event()).await.map(Some),
    }
}

/// Records `event`, which policy asks for anyway, before what it is about goes on; and waits until it is held where policy asks for that, or `stop` is ready.
///
/// # Errors
/// As [`begin`].
pub(crate) async fn record(
    shared: &Shared,
    active: &Active,
    stop: impl Future<Output = ()>,
    event: Box<Event>,
) -> Result<Begun, Unheld> {
    match active.snapshot.audit_commit() {
        Commit::Async => {
            shared.recorder.record(event).await;
            Ok(None)
        }
        commit => held(shared, commit, stop, event).await.map(Some),
    }
}

async fn held(
    shared: &Shared,
    commit: Commit,
    stop: impl Future<Output = ()>,
    event: Box<Event>,
) -> Result<u64, Unheld> {
    let _waited = shared.metrics.commit_seconds.start_timer();
    let mut stop = std::pin::pin!(stop);
    let unheld = |begun, why| Unheld { begun, why };
    let stopped = unheld(None, Why::Stopping);
    let receipt = tokio::select! {
        biased;
        receipt = shared.recorder.record_durable(event) => receipt.map_err(|_| stopped)?,
        () = &mut stop => return Err(stopped),
    };
    let seq = receipt.link().seq;
    if commit == Commit::Disk {
        return Ok(seq);
    }
    let acknowledged = timeout(LEDGER_PATIENCE, shared.recorder.acknowledged(&receipt));
    tokio::select! {
        biased;
        acknowledged = acknowledged => match acknowledged {
            Ok(Ok(())) => Ok(seq),
            Ok(Err(_)) => Err(unheld(Some(seq), Why::NoLedger)),
            Err(_) => Err(unheld(Some(seq), Why::LedgerSlow)),
        },
        () = stop => Err(unheld(Some(seq), Why::Stopping)),
    }
}
