//! Evidence first: what `audit.commit` of policies asks for.
//!
//! Owns the order "record, sync, forward". Invariant: where a policy in force asks for Disk, an operation goes on only once a record of its beginning is on disk.

use chaperone_crds::{record::Event, resources::Commit};

use crate::{
    audit::Closed,
    shared::{Active, Shared},
};

/// Number of the record that an operation began with; none where policy asks for none.
pub(crate) type Begun = Option<u64>;

/// Whether operations that `active` judged wait for their records.
pub(crate) fn is_asked(active: &Active) -> bool {
    active.snapshot.audit_commit() == Commit::Disk
}

/// Records that an operation is about to leave, and waits until that is on disk, where policy asks for it. Made by `event` only then.
///
/// # Errors
/// When there can be no record any more. Then the operation must not leave.
pub(crate) async fn begin(
    shared: &Shared,
    active: &Active,
    event: impl FnOnce() -> Box<Event>,
) -> Result<Begun, Closed> {
    match is_asked(active) {
        true => durable(shared, event()).await,
        false => Ok(None),
    }
}

/// Records `event`, which policy asks for anyway, before what it is about goes on; and waits until it is on disk where policy asks for that.
///
/// # Errors
/// As [`begin`].
pub(crate) async fn record(
    shared: &Shared,
    active: &Active,
    event: Box<Event>,
) -> Result<Begun, Closed> {
    if is_asked(active) {
        return durable(shared, event).await;
    }
    shared.recorder.record(event).await;
    Ok(None)
}

async fn durable(shared: &Shared, event: Box<Event>) -> Result<Begun, Closed> {
    let _waited = shared.metrics.commit_seconds.start_timer();
    let receipt = shared.recorder.record_durable(event).await?;
    Ok(Some(receipt.link().seq))
}
