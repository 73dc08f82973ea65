//! The one thread that owns the store: takes what waits, commits once for all of it, answers all.
//!
//! Owns the order of records. Refuses to answer before a commit, and to take anything while the disk takes nothing. Invariant: nothing that is answered with `Ok` can be lost by a crash.

mod custody;
mod own;
mod recalled;
mod thread;

pub use recalled::Recalled;

use std::{
    collections::HashSet,
    fmt, io,
    sync::{
        Arc, Mutex,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
};

use bytes::Bytes;
use chaperone_crds::{
    chain::StreamId,
    record::{AgentRef, CheckpointInfo, ErasedInfo, HoldInfo, PodInfo, ReadInfo},
};
use chaperone_ledger::{
    content::{Day, KeyId},
    follow::Cursor,
    gaps::Roster,
    key::SigningKey,
    store::{Config, Keeper, OpenError},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::{
    authenticate::Workload,
    custody::{Custody, Hold},
    metrics::Metrics,
    refusal::{Code, Refusal},
};
use thread::{Tells, Thread};

/// Requests that wait for the thread, at most. Their bodies are bounded by the API's budget.
pub const QUEUE_REQUESTS: usize = 1024;

/// What a request wants.
#[derive(Debug)]
pub enum Want {
    /// Records to be taken.
    Take {
        /// Their lines.
        batch: Bytes,
        /// Number of the first, where the sender has none before it any more.
        from: Option<u64>,
    },
    /// To know which record comes next.
    Next,
}

impl Want {
    /// Bytes of records that it brings.
    fn bytes(&self) -> usize {
        match self {
            Self::Take { batch, .. } => batch.len(),
            Self::Next => 0,
        }
    }
}

/// What it gets, all of it on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the record that the ledger expects next.
    pub next_seq: u64,
    /// Records that were not there before.
    pub added: u64,
}

/// A request of a pod about a stream.
#[derive(Debug)]
pub struct Request {
    /// The stream.
    pub stream: StreamId,
    /// Who asks.
    pub workload: Arc<Workload>,
    /// What for.
    pub want: Want,
    /// Gives the body's room back when the request is answered.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The end of a hold.
#[derive(Clone, Debug)]
pub struct Release {
    /// The hold as it was when it was asked whether it may be ended.
    pub hold: Hold,
    /// Why it ends.
    pub reason: String,
    /// Who ends it.
    pub user: String,
}

type Answered = oneshot::Sender<Result<Answer, Refusal>>;

#[derive(Debug)]
enum Message {
    Request(Request, Answered),
    /// A checkpoint with more signatures, and whether they suffice.
    Cosigned(Vec<u8>, bool),
    /// To be put on record: somebody read.
    Read(Box<ReadInfo>, Answered),
    /// To be put on record: a pod was seen to run, or has ended.
    Pod(Box<(AgentRef, PodInfo)>, Answered),
    /// To be put on record: a checkpoint.
    Checkpoint(Box<CheckpointInfo>, Answered),
    /// Keys of a day to be destroyed, once it is on record that they are.
    Destroy(Box<(Day, HashSet<KeyId>, ErasedInfo)>, Answered),
    /// To be put on record: records are about to be deleted.
    Erased(Box<ErasedInfo>, Answered),
    /// To be put on record, and to be obeyed from then on: a hold.
    Hold(Box<HoldInfo>, Answered),
    /// The same: the end of one.
    Release(Box<Release>, Answered),
    Stop,
}

/// Sends requests to the thread. Clones send to the same.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    messages: SyncSender<Message>,
    metrics: Metrics,
}

/// What the thread runs by.
#[derive(Debug)]
pub struct WriterConfig {
    /// The directory.
    pub store: Config,
    /// What keeps its files.
    pub keeper: Keeper,
    /// What signs checkpoints.
    pub keys: Vec<SigningKey>,
    /// Who the ledger is, in its own records.
    pub agent: AgentRef,
    /// Learns what is recorded of pods and streams.
    pub roster: Arc<Mutex<Roster>>,
    /// Learns whose streams are and what is held.
    pub custody: Custody,
}

/// The thread, from outside.
pub struct WriterThread {
    /// Sends to it.
    pub handle: WriterHandle,
    /// Says when the directory is open, or why it is not.
    pub opened: oneshot::Receiver<Result<(), OpenFailed>>,
    /// Where the committed records end, for who follows them (`chaperone_ledger::follow`): changes with each commit that has records, and is closed when the thread ends.
    /// [`Cursor::START`] before the directory is open.
    pub committed: watch::Receiver<Cursor>,
    /// Records under the newest checkpoint: changes with each one.
    pub signed: watch::Receiver<u64>,
    /// Leaves up to the newest record that is no checkpoint, or a few more: changes with each commit that has such records.
    pub others: watch::Receiver<u64>,
    /// Resolves when it ends, whatever the reason.
    pub ended: oneshot::Receiver<()>,
}

/// Why the thread did not begin.
#[derive(Debug)]
pub enum OpenFailed {
    /// The directory.
    Open(OpenError),
    /// The first record of its own.
    Begin(String),
}

impl fmt::Display for OpenFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Begin(error) => write!(f, "the ledger's own stream: {error}"),
        }
    }
}

impl std::error::Error for OpenFailed {}

/// Starts the thread, which opens the directory first; some of that may have been read before.
///
/// # Errors
/// If the system has no thread to give.
pub fn start(
    config: WriterConfig,
    recalled: Option<Recalled>,
    metrics: Metrics,
) -> io::Result<WriterThread> {
    let recalled = recalled.unwrap_or_else(|| Recalled::nothing(&config));
    let (messages, receiver) = sync_channel(QUEUE_REQUESTS);
    let (opening, opened) = oneshot::channel();
    let (ending, ended) = oneshot::channel::<()>();
    let (end, committed) = watch::channel(Cursor::START);
    let (sign, signed) = watch::channel(0);
    let (other, others) = watch::channel(0);
    let handle = WriterHandle {
        messages,
        metrics: metrics.clone(),
    };
    std::thread::Builder::new()
        .name("chaperone-ledger".to_owned())
        .spawn(move || {
            // Dropped when the thread ends, by a panic too.
            let _ending = ending;
            let tells = Tells { end, sign, other };
            match Thread::open(config, recalled, metrics, tells) {
                Ok(thread) => {
                    let _ = opening.send(Ok(()));
                    thread.run(&receiver);
                }
                Err(error) => {
                    let _ = opening.send(Err(error));
                }
            }
        })?;
    Ok(WriterThread {
        handle,
        opened,
        committed,
        signed,
        others,
        ended,
    })
}

impl WriterHandle {
    /// What the thread counts by.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks the thread. The future resolves once what the answer says is on disk.
    ///
    /// # Errors
    /// [`Refusal`]; `Busy` at once when the queue is full.
    pub async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        self.send(|answered| Message::Request(request, answered))
            .await
    }

    /// Puts on record that somebody read, or was refused. The future resolves once that is on disk.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask).
    pub async fn record_read(&self, read: ReadInfo) -> Result<(), Refusal> {
        self.send(|answered| Message::Read(Box::new(read), answered))
            .await
            .map(|_| ())
    }

    /// Puts on record that a pod was seen to run, or that it has ended. The future resolves once that is on disk.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask).
    pub async fn record_pod(&self, agent: AgentRef, pod: PodInfo) -> Result<(), Refusal> {
        self.send(|answered| Message::Pod(Box::new((agent, pod)), answered))
            .await
            .map(|_| ())
    }

    /// Puts a checkpoint on record. The future resolves once that is on disk.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask).
    pub async fn record_checkpoint(&self, checkpoint: CheckpointInfo) -> Result<(), Refusal> {
        self.send(|answered| Message::Checkpoint(Box::new(checkpoint), answered))
            .await
            .map(|_| ())
    }

    /// Destroys keys of a day that are not held: `info` is put on record first, completed by what goes. How many were; the future resolves once they are gone.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask); `Held` where somebody asked for it and a hold keeps one of them.
    pub async fn destroy(
        &self,
        day: Day,
        keys: HashSet<KeyId>,
        info: ErasedInfo,
    ) -> Result<u64, Refusal> {
        let what = Box::new((day, keys, info));
        let done = self.send(|answered| Message::Destroy(what, answered)).await;
        done.map(|answer| answer.added)
    }

    /// Puts on record that records are about to be deleted. The future resolves once that is on disk.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask).
    pub async fn record_erased(&self, info: ErasedInfo) -> Result<(), Refusal> {
        self.send(|answered| Message::Erased(Box::new(info), answered))
            .await
            .map(|_| ())
    }

    /// Puts a hold on record. The future resolves once that is on disk and obeyed.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask); `Exists` by its name.
    pub async fn record_hold(&self, hold: HoldInfo) -> Result<(), Refusal> {
        self.send(|answered| Message::Hold(Box::new(hold), answered))
            .await
            .map(|_| ())
    }

    /// Puts the end of a hold on record. The future resolves once that is on disk and obeyed.
    ///
    /// # Errors
    /// [`Refusal`], as of [`ask`](Self::ask); `NotFound` by its name, and `Exists` where another hold has the name by now.
    pub async fn record_release(&self, release: Release) -> Result<(), Refusal> {
        self.send(|answered| Message::Release(Box::new(release), answered))
            .await
            .map(|_| ())
    }

    async fn send(&self, message: impl FnOnce(Answered) -> Message) -> Result<Answer, Refusal> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(Code::Stopping, "the ledger is stopping");
        self.metrics.queue.inc();
        match self.messages.try_send(message(answer)) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(stopping())),
            Err(error) => {
                self.metrics.queue.dec();
                Err(match error {
                    TrySendError::Full(_) => {
                        let why = format!("{QUEUE_REQUESTS} requests wait already");
                        Refusal::new(Code::Busy, why)
                    }
                    TrySendError::Disconnected(_) => stopping(),
                })
            }
        }
    }

    /// A checkpoint with signatures of witnesses, which were verified, and whether they suffice. While the queue is full it is let go: the next one comes in seconds.
    pub fn cosigned(&self, note: Vec<u8>, suffices: bool) {
        let _ = self.messages.try_send(Message::Cosigned(note, suffices));
    }

    /// Has the thread finish what it was sent, sign a last checkpoint, and end. Blocks while the queue is full.
    pub fn stop(&self) {
        // Where the thread is gone already, there is nothing to stop.
        let _ = self.messages.send(Message::Stop);
    }
}

#[cfg(test)]
mod tests {
    use chaperone_crds::pod::PodIdentity;

    use super::*;

    fn request() -> Request {
        let workload = Workload {
            identity: PodIdentity::default(),
            image_ids: Vec::new(),
        };
        Request {
            stream: StreamId::from_random([1; 16]),
            workload: Arc::new(workload),
            want: Want::Next,
            room: None,
        }
    }

    #[tokio::test]
    async fn a_full_queue_and_a_thread_that_is_gone_are_refusals_at_once() {
        let (messages, receiver) = sync_channel(1);
        let metrics = Metrics::new();
        let handle = WriterHandle {
            messages,
            metrics: metrics.clone(),
        };
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.ask(request()).await }
        });
        tokio::task::yield_now().await;
        let refused = handle.ask(request()).await.unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        assert_eq!(metrics.queue.get(), 1);
        drop(receiver);
        assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::Stopping);
        let refused = handle.ask(request()).await.unwrap_err();
        assert_eq!(refused.code, Code::Stopping);
    }
}
