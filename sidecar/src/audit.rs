//! The evidence path: takes events from the data path, makes records of them, keeps them on disk until every sink has them.
//!
//! Owns the queue, the audit thread, the spool (docs/spool-format.md) and the sinks. Refuses to judge or mask: events come masked. Invariant: a record that
//! was taken is never lost silently. Where it cannot go on (queue full, spool full, disk full, sink away) whoever records waits, and a metric says so.
//!
//! Two threads of its own, so that neither disk nor sinks ever hold up the data path: `chaperone-audit` (queue, chain, spool; blocking I/O) and
//! `chaperone-sinks` (a current-thread runtime).

mod acknowledged;
mod handle;
mod metrics;
mod queue;
mod sinks;
mod spool;
mod writer;

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use chaperone_crds::{
    pod::PodIdentity,
    record::{AgentRef, Event, EventKind, HEARTBEAT_SECONDS, OpenInfo},
};
use prometheus::Registry;
use thiserror::Error;

pub use acknowledged::NoLedger;
pub use chaperone_sinks::net::{HostNet, NetFuture, SinkNet};
pub use handle::{AuditHandle, Closing};
use metrics::AuditMetrics;
pub use queue::{Closed, Receipt, Recorder, TryRecordError};
pub use sinks::BadSinkName;
use spool::Spool;
use writer::Writer;

/// Limit of the spool where nothing else is asked for, in bytes.
pub const DEFAULT_SPOOL_BYTES: u64 = 256 * 1024 * 1024;
/// Smallest limit of the spool, in bytes: four segments that hold a batch of metadata records each.
pub const MIN_SPOOL_BYTES: u64 = 1024 * 1024;
/// Limit of the queue where nothing else is asked for, in bytes: some thousand metadata records, or a few with large bodies. It bounds the memory
/// that waiting records take.
pub const DEFAULT_QUEUE_BYTES: u32 = 8 * 1024 * 1024;

/// Settings of the evidence path.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// Directory of the spool. Made if it is not there (its parent must be).
    pub spool_dir: PathBuf,
    /// Limit of the spool in bytes, at least [`MIN_SPOOL_BYTES`].
    pub max_spool_bytes: u64,
    /// Limit of the queue in bytes.
    pub queue_bytes: u32,
    /// Who the stream is about.
    pub identity: PodIdentity,
    /// Version of the sidecar, for `stream.open`.
    pub version: String,
    /// How long nothing is recorded until the stream says that it goes on: [`HEARTBEAT_SECONDS`], which whoever reads streams relies on; tests have less patience.
    pub heartbeat: Duration,
    /// Where files of `file` sinks lie. `Some`: a sink's path is a plain name in this directory. `None`: it is any path.
    pub file_dir: Option<PathBuf>,
}

impl AuditConfig {
    /// Default limits; `file` sinks may only name files in `spool_dir/files`.
    #[must_use]
    pub fn new(spool_dir: impl Into<PathBuf>, identity: PodIdentity) -> Self {
        let spool_dir = spool_dir.into();
        Self {
            file_dir: Some(spool_dir.join("files")),
            spool_dir,
            max_spool_bytes: DEFAULT_SPOOL_BYTES,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            identity,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat: Duration::from_secs(HEARTBEAT_SECONDS),
        }
    }
}

/// Why the evidence path could not start.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Another process has the spool.
    #[error("the spool {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The limit is below [`MIN_SPOOL_BYTES`].
    #[error("a spool of {0} bytes is too small: at least {MIN_SPOOL_BYTES} are needed")]
    TooSmall(u64),
    /// The spool cannot be read or written.
    #[error("the spool {}: {source}", .path.display())]
    Spool {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread, no random number, or a metric that is registered already.
    #[error("the audit threads could not start: {0}")]
    Start(String),
}

/// Starts both threads. The stream's `stream.open`, or `stream.resume` where the spool holds one that was not closed, is the first record written.
/// Sinks are told later, by [`AuditHandle::set_sinks`]; until then the spool keeps everything.
///
/// # Errors
/// When the spool cannot be used, or the system has no thread to give.
pub fn start(
    config: AuditConfig,
    net: Arc<dyn SinkNet>,
    registry: &Registry,
) -> Result<(Recorder, AuditHandle), AuditError> {
    if config.max_spool_bytes < MIN_SPOOL_BYTES {
        return Err(AuditError::TooSmall(config.max_spool_bytes));
    }
    let metrics = AuditMetrics::new(registry).map_err(|e| AuditError::Start(e.to_string()))?;
    let opened = Spool::open(&config.spool_dir, config.max_spool_bytes, metrics.clone())?;
    let (recorder, queue) = queue::new(config.queue_bytes, metrics.clone());
    let spool = opened.spool.clone();
    spool.wake_on_release(queue.signal.clone());
    let control = queue.control.clone();
    let first = first_event(&config, opened.resumed);
    let writer = Writer::new(opened, queue, metrics, config.heartbeat);
    thread::Builder::new()
        .name("chaperone-audit".to_owned())
        .spawn(move || writer.run(&first))
        .map_err(|e| AuditError::Start(e.to_string()))?;
    let sinks = sinks::start(sinks::Surroundings {
        spool,
        acknowledged: recorder.acknowledgements(),
        net,
        version: config.version,
        file_dir: config.file_dir,
    })
    .map_err(|e| AuditError::Start(e.to_string()))?;
    Ok((recorder, AuditHandle::new(control, sinks)))
}

fn first_event(config: &AuditConfig, resumed: bool) -> Event {
    let kind = match resumed {
        true => EventKind::StreamResume,
        false => EventKind::StreamOpen,
    };
    let mut event = Event::new(kind, AgentRef::from(&config.identity));
    event.open = Some(OpenInfo {
        identity: config.identity.clone(),
        version: config.version.clone(),
    });
    event
}

#[cfg(test)]
mod tests;
