//! The queue between the data path and the audit thread, bounded in bytes.
//!
//! Invariant: whoever holds room in the queue puts an event into it, so that a queue whose room is all free is empty.

mod signal;

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, mpsc};

use chaperone_crds::{
    chain::{Link, StreamId},
    record::{BodyInfo, Event},
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

pub(super) use signal::Signal;

use super::{
    acknowledged::{Acknowledged, NoLedger},
    metrics::AuditMetrics,
};

/// Unit of room in the queue, in bytes.
const ROOM_UNIT: usize = 1024;
/// What an event takes in memory besides headers and bodies, in units of room.
const EVENT_UNITS: usize = 2;

/// Takes events from the data path. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    capacity: u32,
    signal: Arc<Signal>,
    metrics: AuditMetrics,
    acknowledged: Arc<Acknowledged>,
}

/// Proof that a record is on disk: only [`Recorder::record_durable`] makes one, after `fdatasync`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what a receipt proves may happen only once there is one"]
pub struct Receipt {
    stream: StreamId,
    link: Link,
}

impl Receipt {
    pub(super) fn new(stream: StreamId, link: Link) -> Self {
        Self { stream, link }
    }

    /// Stream of the record.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// Sequence number and hash.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }
}

/// The stream is closed: the event is in no record.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the audit stream is closed")]
pub struct Closed;

/// Why an event was not taken at once.
#[derive(Debug, Error)]
pub enum TryRecordError {
    /// The queue is full. Here is the event.
    #[error("the audit queue is full")]
    Full(Box<Event>),
    /// The stream is closed.
    #[error("the audit stream is closed")]
    Closed,
}

/// An event on its way to the audit thread.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) event: Box<Event>,
    pub(super) time: Timestamp,
    pub(super) receipt: Option<oneshot::Sender<Receipt>>,
    _room: OwnedSemaphorePermit,
}

/// The audit thread's end.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) receiver: mpsc::Receiver<Entry>,
    pub(super) signal: Arc<Signal>,
    pub(super) control: Arc<Control>,
    room: Arc<Semaphore>,
    capacity: u32,
}

/// What the audit thread is asked besides events.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) signal: Arc<Signal>,
    /// Set when nobody waits for the thread any more: it gives up where it would retry.
    pub(super) abandoned: AtomicBool,
    close: Mutex<Option<CloseRequest>>,
}

/// Ends the stream.
#[derive(Debug)]
pub(super) struct CloseRequest {
    pub(super) reason: String,
    /// Told once `stream.close` is on disk.
    pub(super) done: oneshot::Sender<()>,
}

impl Control {
    pub(super) fn ask_close(&self, request: CloseRequest) {
        *self.close.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
        self.signal.wake();
    }

    pub(super) fn take_close(&self) -> Option<CloseRequest> {
        self.close
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// A queue of `bytes`, both ends.
pub(super) fn new(bytes: u32, metrics: AuditMetrics) -> (Recorder, Queue) {
    let capacity = (bytes / ROOM_UNIT as u32).max(1);
    let room = Arc::new(Semaphore::new(capacity as usize));
    let (sender, receiver) = mpsc::channel();
    let signal = Arc::new(Signal::default());
    let recorder = Recorder {
        sender,
        room: room.clone(),
        capacity,
        signal: signal.clone(),
        metrics,
        acknowledged: Arc::default(),
    };
    let control = Arc::new(Control {
        signal: signal.clone(),
        abandoned: AtomicBool::new(false),
        close: Mutex::new(None),
    });
    let queue = Queue {
        receiver,
        signal,
        control,
        room,
        capacity,
    };
    (recorder, queue)
}

impl Recorder {
    /// Waits while the queue is full. Whoever begins what will need a record asks first, so that what runs unrecorded while the queue is full is only what had begun before.
    pub async fn ready(&self) {
        if self.room.available_permits() == 0 {
            self.metrics.queue_full.inc();
            // An error means that the stream is closed: nothing will be recorded, and nothing waits for it.
            drop(self.room.acquire().await);
        }
    }

    /// Takes the event; waits while the queue is full. The record's time is when it is taken. Dropping the future before it is done drops the event. Once the stream is closed an event is in no record: that is logged as an error and counted,
    /// and who ends a sidecar must end its connections first.
    pub async fn record(&self, event: impl Into<Box<Event>>) {
        let event = event.into();
        match self.reserve(&event).await {
            Ok(room) => self.put(event, room, None),
            Err(Closed) => {
                self.metrics.after_close.inc();
                tracing::error!(kind = event.kind.as_str(), "event after the stream's close");
            }
        }
    }

    /// Takes the event and waits until its record is on disk.
    ///
    /// # Errors
    /// When the stream is closed, or was given up before the record was on disk.
    pub async fn record_durable(&self, event: impl Into<Box<Event>>) -> Result<Receipt, Closed> {
        let event = event.into();
        let room = self.reserve(&event).await?;
        let (sender, receiver) = oneshot::channel();
        self.put(event, room, Some(sender));
        receiver.await.map_err(|_| Closed)
    }

    /// Waits until the ledger has this record on its disk, which it is sent at once then, however few there are to send.
    ///
    /// # Errors
    /// When no ledger is among the sinks.
    pub async fn acknowledged(&self, receipt: &Receipt) -> Result<(), NoLedger> {
        self.acknowledged.wait(receipt).await
    }

    /// For the sinks.
    pub(super) fn acknowledgements(&self) -> Arc<Acknowledged> {
        self.acknowledged.clone()
    }

    /// Takes the event if there is room.
    ///
    /// # Errors
    /// Gives the event back when the queue is full.
    pub fn try_record(&self, event: impl Into<Box<Event>>) -> Result<(), TryRecordError> {
        let event = event.into();
        match self
            .room
            .clone()
            .try_acquire_many_owned(self.weight(&event))
        {
            Ok(room) => {
                self.put(event, room, None);
                Ok(())
            }
            Err(TryAcquireError::Closed) => Err(TryRecordError::Closed),
            Err(TryAcquireError::NoPermits) => {
                self.metrics.queue_full.inc();
                Err(TryRecordError::Full(event))
            }
        }
    }

    async fn reserve(&self, event: &Event) -> Result<OwnedSemaphorePermit, Closed> {
        let weight = self.weight(event);
        match self.room.clone().try_acquire_many_owned(weight) {
            Ok(room) => Ok(room),
            Err(TryAcquireError::Closed) => Err(Closed),
            Err(TryAcquireError::NoPermits) => {
                self.metrics.queue_full.inc();
                let room = self.room.clone().acquire_many_owned(weight).await;
                room.map_err(|_| Closed)
            }
        }
    }

    fn put(
        &self,
        event: Box<Event>,
        room: OwnedSemaphorePermit,
        receipt: Option<oneshot::Sender<Receipt>>,
    ) {
        let hurry = receipt.is_some();
        let entry = Entry {
            event,
            time: Timestamp::now(),
            receipt,
            _room: room,
        };
        if self.sender.send(entry).is_err() {
            self.metrics.after_close.inc();
            tracing::error!("event after the end of the audit thread");
        } else if hurry {
            self.signal.wake();
        } else {
            self.signal.wake_if_idle();
        }
    }

    /// Units of room that the event takes; never more than there are.
    fn weight(&self, event: &Event) -> u32 {
        let units = bytes_of(event) / ROOM_UNIT + EVENT_UNITS;
        u32::try_from(units).unwrap_or(u32::MAX).min(self.capacity)
    }
}

impl Queue {
    /// Refuses further events.
    pub(super) fn refuse(&self) {
        self.room.close();
    }

    /// True when no event is in the queue or about to be put into it. Final after [`refuse`](Self::refuse).
    pub(super) fn is_empty(&self) -> bool {
        self.room.available_permits() == self.capacity as usize
    }
}

/// Bytes of what can be large in an event.
fn bytes_of(event: &Event) -> usize {
    let body = |body: &Option<BodyInfo>| {
        let text = body.as_ref().and_then(|body| body.text.as_ref());
        text.map_or(0, String::len)
    };
    let operation = event.operation.as_ref();
    let resource = operation.map_or(0, |operation| operation.resource.len());
    event.http.as_ref().map_or(resource, |http| {
        let newest = http.newest_messages.as_ref();
        let newest = newest.and_then(|newest| newest.text.as_ref());
        let headers = [&http.request_headers, &http.response_headers];
        let headers = headers.into_iter().flatten().flatten();
        let headers = headers.map(|(name, value)| name.len().saturating_add(value.len()));
        headers
            .chain([
                resource,
                body(&http.request_body),
                newest.map_or(0, String::len),
                body(&http.response_body),
            ])
            .fold(0, usize::saturating_add)
    })
}

#[cfg(test)]
mod tests {
    use chaperone_crds::record::{AgentRef, EventKind, OperationInfo};
    use prometheus::Registry;

    use super::*;

    fn queue(bytes: u32) -> (Recorder, Queue) {
        new(bytes, AuditMetrics::new(&Registry::new()).unwrap())
    }

    fn event() -> Event {
        Event::new(EventKind::Dns, AgentRef::default())
    }

    #[tokio::test]
    async fn a_full_queue_makes_recorders_wait_and_counts_it() {
        let (recorder, queue) = queue(4096);
        recorder.try_record(event()).unwrap();
        recorder.record(event()).await;
        let full = recorder.try_record(event());
        assert!(matches!(full, Err(TryRecordError::Full(_))));
        let waiting = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.record(event()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(queue.receiver.try_recv().unwrap());
        waiting.await.unwrap();
        assert_eq!(recorder.metrics.queue_full.get(), 2);
    }

    #[tokio::test]
    async fn room_is_measured_in_bytes_and_no_event_is_too_large_for_an_empty_queue() {
        let (recorder, queue) = queue(8192);
        let mut large = event();
        large.operation = Some(OperationInfo {
            resource: "x".repeat(1024 * 1024),
            ..OperationInfo::default()
        });
        recorder.record(large).await;
        assert!(recorder.try_record(event()).is_err());
        drop(queue.receiver.try_recv().unwrap());
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_takes_nothing_and_counts_what_it_did_not_take() {
        let (recorder, queue) = queue(8192);
        queue.refuse();
        recorder.record(event()).await;
        assert_eq!(recorder.record_durable(event()).await, Err(Closed));
        assert_eq!(recorder.metrics.after_close.get(), 1);
        assert!(queue.receiver.try_recv().is_err());
    }
}
