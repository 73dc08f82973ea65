//! Records on disk, their tree, and its signed head. docs/ledger-format.md is the format and its rules.
//!
//! Owns the directory. Refuses clocks, threads and sockets: who calls says when to commit and what time it is. Invariant: only a commit yields a [`Committed`], and only with one does a
//! batch become a [`Receipt`]; no tile and no checkpoint has a record that is not committed.

mod files;
mod head;
mod judge;
pub(crate) mod layout;
mod log;
mod recover;
mod refused;
mod replay;
mod sealer;
pub(crate) mod segments;
mod shelf;
mod streams;
mod sweep;
mod tiles;

use std::{collections::HashSet, fs::File, io, path::PathBuf};

use chaperone_crds::chain::{Chain, MAX_RECORD_BYTES, StreamId};
use jiff::Timestamp;

pub use files::scrub;
pub use head::NotARecord;
pub use recover::OpenError;
pub use refused::{CosignError, Refused, SignError};
pub use replay::{Kept, Replay};
pub use shelf::{Keeper, Shelf};
pub use sweep::{Summary, Sweeper, Swept};
pub use tiles::{ReadError, Tiles};

use crate::{
    checkpoint::{self, Checkpoint, Origin},
    content::{Day, Entry, KeyId},
    cosignature::Time,
    follow::Cursor,
    key::{SigningKey, VerifierKey},
    merkle::Hash,
};
use head::Head;
use judge::{Judge, Judged, Split};
use log::Log;
use sealer::Sealer;
use segments::Segments;
use streams::Known;

/// Usual size of a segment, in bytes, give or take one commit.
pub const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// Most bytes that wait for a commit; a batch may pass it once.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of a batch: the longest record fits.
pub const MAX_BATCH_BYTES: usize = 2 * MAX_RECORD_BYTES;
/// Most streams of a ledger, which are kept in memory (about 200 bytes each).
pub const MAX_STREAMS: usize = 1_000_000;

/// Where and what.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; it is made if it is not there.
    pub dir: PathBuf,
    /// Which log it is.
    pub origin: Origin,
    /// The log's public keys: one of them must have signed the checkpoint on disk.
    pub keys: Vec<VerifierKey>,
    /// Size at which a segment is followed by the next, in bytes.
    pub segment_bytes: u64,
    /// Seconds between two checkpoints that [`Store::tick`] signs, while records come.
    pub checkpoint_seconds: u64,
}

/// The ledger's directory, open.
#[derive(Debug)]
pub struct Store {
    config: Config,
    keeper: Keeper,
    log: Log,
    segments: Segments,
    sealer: Sealer,
    committed: u64,
    signed: Option<Last>,
    /// Locked as long as it is open.
    _lock: File,
}

/// The newest checkpoint on disk.
#[derive(Clone, Copy, Debug)]
struct Last {
    size: u64,
    /// When it was signed; unknown after a start.
    time: Option<Time>,
}

/// A stream of which records are missing goes on with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The stream.
    pub stream: StreamId,
    /// Number of the record.
    pub from: u64,
}

/// A batch that was taken into memory. It is worth nothing before the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a batch is acknowledged by its receipt only"]
pub struct Staged {
    stream: StreamId,
    next_seq: u64,
    /// Leaves that must be committed.
    end: u64,
    added: u64,
}

/// So many leaves are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed(u64);

/// A batch that outlives a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its stream.
    pub stream: StreamId,
    /// Number of the record that the ledger expects after it.
    pub next_seq: u64,
    /// Records of it that were not there before.
    pub added: u64,
}

impl Store {
    /// Opens the directory, cuts what was torn, builds the tree anew and compares it with what was signed.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is mended but a torn end.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_with(config, Keeper::default(), &mut |_| None)
    }

    /// The same, of a directory whose files are kept so; and shows each record that is there, in the order of the leaves. What a record says of a stream that goes on without some of its records is believed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        config: Config,
        keeper: Keeper,
        each: &mut dyn FnMut(Kept<'_>) -> Option<Onward>,
    ) -> Result<Self, OpenError> {
        let replay = Replay::new(&config, keeper);
        Self::open_after(replay, config, each)
    }

    /// The same, of a directory of which some was read before.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_after(
        replay: Replay,
        config: Config,
        each: &mut dyn FnMut(Kept<'_>) -> Option<Onward>,
    ) -> Result<Self, OpenError> {
        recover::open(replay, config, each)
    }

    /// The time by the caller's clock. Content that is staged from here on is sealed under keys of its day.
    pub fn at(&mut self, now: Timestamp) {
        self.sealer.at(now);
    }

    /// Takes a batch of this stream into memory: lines, each with its newline.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the batch is taken then.
    pub fn stage(&mut self, stream: &StreamId, batch: &[u8]) -> Result<Staged, Refused> {
        self.stage_from(stream, batch, None)
    }

    /// The same; the batch may begin with record number `from`, although records before it are missing. Who calls has a record of that staged first.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the batch is taken then.
    pub fn stage_from(
        &mut self,
        stream: &StreamId,
        batch: &[u8],
        from: Option<u64>,
    ) -> Result<Staged, Refused> {
        let judged = self.judge(stream, batch, from)?;
        let added = u64::try_from(judged.fresh.len()).unwrap_or(u64::MAX);
        let bytes = self.sealer.store(&judged.fresh).map_err(Refused::Seal)?;
        for record in judged.fresh {
            self.log.place(record.leaf, record.closes);
        }
        self.segments.push(&bytes);
        Ok(Staged {
            stream: stream.clone(),
            next_seq: judged.next_seq,
            end: judged.end,
            added,
        })
    }

    /// Whether the batch would be taken now. Nothing is.
    ///
    /// # Errors
    /// What [`stage_from`](Self::stage_from) would say.
    pub fn check(&self, stream: &StreamId, batch: &[u8], from: Option<u64>) -> Result<(), Refused> {
        self.judge(stream, batch, from).map(|_| ())
    }

    fn judge<'b>(
        &self,
        stream: &StreamId,
        batch: &'b [u8],
        from: Option<u64>,
    ) -> Result<Judged<'b>, Refused> {
        if self.segments.waiting() >= MAX_WAITING_BYTES {
            return Err(Refused::Busy);
        }
        let lines = match batch.strip_suffix(b"\n") {
            Some(lines) if batch.len() <= MAX_BATCH_BYTES => lines,
            _ => return Err(Refused::Form),
        };
        let known = self.log.streams.get(stream);
        if known.is_none() && self.log.streams.len() >= MAX_STREAMS {
            return Err(Refused::TooManyStreams);
        }
        let unknown = Known::default();
        let known = known.unwrap_or(&unknown);
        let mut judge = Judge::new(stream, known, from);
        for (line, number) in lines.split(|b| *b == b'\n').zip(1_u64..) {
            let fault = |fault| Refused::NotARecord {
                line: number,
                fault,
            };
            if line.len() > MAX_RECORD_BYTES {
                return Err(fault(NotARecord::TOO_LONG));
            }
            let line = Split::of(line);
            let head = Head::parse(&line.detached).map_err(fault)?;
            if judge.take(&head, line, &self.log.tiles)? {
                head.counts().map_err(fault)?;
            }
        }
        Ok(Judged {
            next_seq: judge.next,
            end: judge.last_index(known, self.log.tree.size()),
            fresh: judge.fresh,
        })
    }

    /// Writes and syncs all that was staged.
    ///
    /// # Errors
    /// The system's. Call again: what was staged is kept.
    pub fn commit(&mut self) -> io::Result<Committed> {
        // First, so that no record is there that nothing opens.
        self.sealer.sync()?;
        self.segments.commit(self.sealer.today())?;
        self.committed = self.log.tree.size();
        if self.log.tiles.is_long() {
            self.log.tiles.write_full()?;
        }
        Ok(Committed(self.committed))
    }

    /// Commits, and signs and publishes the tree. The note is on disk when it is given. `time` goes into cosignatures only.
    ///
    /// # Errors
    /// [`SignError`]; the old checkpoint stands then, or the new one does.
    pub fn checkpoint(&mut self, keys: &[&SigningKey], time: Time) -> Result<Vec<u8>, SignError> {
        self.commit()?;
        let origin = self.config.origin.clone();
        let checkpoint = Checkpoint::new(origin, self.committed, self.log.tree.root());
        let note = checkpoint.sign(keys, time)?;
        self.log.tiles.write_full()?;
        self.log.tiles.write_partial()?;
        files::replace(&self.keeper, &self.config.dir, layout::CHECKPOINT, &note)?;
        let (size, time) = (self.committed, Some(time));
        self.signed = Some(Last { size, time });
        Ok(note)
    }

    /// Puts a checkpoint of this log with more signatures in the place of the newest one, if it is that; and keeps it as the newest that was witnessed where `witnessed`. Signatures that are not the log's are for
    /// who calls to have verified.
    ///
    /// # Errors
    /// [`CosignError`].
    pub fn cosigned(&self, note: &[u8], witnessed: bool) -> Result<(), CosignError> {
        let origin = &self.config.origin;
        let size = checkpoint::open(note, origin, &self.config.keys)?
            .checkpoint
            .size;
        if self.signed.is_some_and(|last| last.size == size) {
            files::replace(&self.keeper, &self.config.dir, layout::CHECKPOINT, note)?;
        }
        if witnessed {
            files::replace(&self.keeper, &self.config.dir, layout::WITNESSED, note)?;
        }
        Ok(())
    }

    /// A checkpoint, if records came since the last one and that is long enough ago, or there is none. A clock that went back counts as long ago.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn tick(&mut self, keys: &[&SigningKey], now: Time) -> Result<Option<Vec<u8>>, SignError> {
        let due = self.signed.is_none_or(|last| {
            let waited = last
                .time
                .and_then(|then| now.seconds().checked_sub(then.seconds()));
            last.size < self.log.tree.size()
                && waited.is_none_or(|waited| waited >= self.config.checkpoint_seconds)
        });
        due.then(|| self.checkpoint(keys, now)).transpose()
    }

    /// Number of the record that the ledger expects of this stream: 0 of one that it does not know.
    #[must_use]
    pub fn next_seq(&self, stream: &StreamId) -> u64 {
        self.log.streams.get(stream).map_or(0, |known| known.next)
    }

    /// Whether the stream has its `stream.close`.
    #[must_use]
    pub fn is_closed(&self, stream: &StreamId) -> bool {
        self.log
            .streams
            .get(stream)
            .is_some_and(|known| known.closed)
    }

    /// What writes the stream's next record, for who writes it here.
    #[must_use]
    pub fn chain(&self, stream: &StreamId) -> Chain {
        match self.log.streams.get(stream) {
            Some(known) => Chain::resume(stream.clone(), known.next, known.tail),
            None => Chain::new(stream.clone()),
        }
    }

    /// Days for which there are keys of content, in order.
    ///
    /// # Errors
    /// The system's.
    pub fn key_days(&self) -> io::Result<Vec<Day>> {
        self.sealer.days()
    }

    /// The keys of a day. Those that wait for a commit are not among them.
    ///
    /// # Errors
    /// The system's, and what is no key.
    pub fn keys_of(&self, day: Day) -> io::Result<Vec<Entry>> {
        self.sealer.entries(day)
    }

    /// Destroys keys of a day: what they sealed cannot be read any more when this returns. Who calls has a record of that committed first. New records of the same session get a new key.
    ///
    /// # Errors
    /// The system's; some of the keys may be there then, and it is called again.
    pub fn destroy(&mut self, day: Day, keys: &HashSet<KeyId>) -> io::Result<()> {
        self.sealer.destroy(day, keys)
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.log.streams.len()
    }

    /// The leaf that names this record.
    #[must_use]
    pub fn index_of(&self, stream: &StreamId, seq: u64) -> Option<u64> {
        self.log.streams.get(stream)?.index_of(seq)
    }

    /// Leaves on disk.
    #[must_use]
    pub fn committed(&self) -> Committed {
        Committed(self.committed)
    }

    /// Where the committed records end, for who follows them.
    #[must_use]
    pub fn end(&self) -> Cursor {
        Cursor {
            leaf: self.committed,
            place: self.segments.end(),
        }
    }

    /// Root over all leaves that were staged.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.log.tree.root()
    }

    /// The tiles, to make proofs of.
    #[must_use]
    pub fn tiles(&self) -> &Tiles {
        &self.log.tiles
    }
}

impl Staged {
    /// What acknowledges the batch, if this commit has it.
    #[must_use]
    pub fn receipt(self, committed: Committed) -> Option<Receipt> {
        (self.end <= committed.0).then_some(Receipt {
            stream: self.stream,
            next_seq: self.next_seq,
            added: self.added,
        })
    }
}

impl Committed {
    /// The number.
    #[must_use]
    pub fn leaves(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
