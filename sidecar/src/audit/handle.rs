//! What the owner of the evidence path holds: sinks at run time, and an orderly end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use chaperone_crds::control::SinkConfig;
use tokio::{sync::oneshot, time::timeout};

use super::{
    queue::{CloseRequest, Control},
    sinks::{BadSinkName, SinksHandle},
};

/// Owns both threads. Dropping it without [`close`](Self::close) gives the audit thread up: the stream stays open, and what was committed stays in the spool.
#[derive(Debug)]
pub struct AuditHandle {
    control: Arc<Control>,
    sinks: SinksHandle,
}

/// How the evidence path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Whether `stream.close` is on disk.
    pub closed: bool,
    /// Records that the slowest sink has not acknowledged (without sinks: all in the spool). They stay in the spool.
    pub undelivered: u64,
}

impl AuditHandle {
    pub(super) fn new(control: Arc<Control>, sinks: SinksHandle) -> Self {
        Self { control, sinks }
    }

    /// From now on records go to exactly these sinks. A sink that is new (by name) starts at the oldest record in the spool; one that is gone
    /// loses its cursor; one that is there already keeps its cursor and goes on, with new settings if they differ. A sink whose settings turn out unusable
    /// is retried and holds its records; it does not disturb the others. Takes effect shortly after this returns.
    ///
    /// # Errors
    /// When a name is not 1 to 128 of `A-Z a-z 0-9 . _ -`, or is there twice. Nothing changes then.
    pub fn set_sinks(&self, sinks: Vec<SinkConfig>) -> Result<(), BadSinkName> {
        self.sinks.set(sinks)
    }

    /// Ends the stream: takes what is in the queue, writes `stream.close`, and gives the sinks what is left of `patience` to take everything. Events that come
    /// later are in no record, so end all connections first.
    pub async fn close(self, reason: &str, patience: Duration) -> Closing {
        let until = Instant::now() + patience;
        let (done, closed) = oneshot::channel();
        self.control.ask_close(CloseRequest {
            reason: reason.to_owned(),
            done,
        });
        let closed = matches!(timeout(patience, closed).await, Ok(Ok(())));
        let undelivered = self.sinks.flush(until).await;
        Closing {
            closed,
            undelivered,
        }
    }
}

impl Drop for AuditHandle {
    fn drop(&mut self) {
        self.control.abandoned.store(true, Ordering::Relaxed);
        self.control.signal.wake();
    }
}
