//! The writing end of the spool: the newest segment.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use chaperone_crds::{
    bodies::Salt,
    chain::{Chain, Link},
    record::Event,
};
use jiff::Timestamp;
use rustls::crypto::SecureRandom;

use super::{Size, Spool, reserve, segment_path, state, sync_dir};

/// Bytes that are kept in memory at most (give or take one record) until they are committed: one batch.
pub(in crate::audit) const BATCH_BYTES: usize = 1024 * 1024;
/// Room for uncommitted bytes that is kept when idle, in bytes.
const IDLE_BYTES: usize = 64 * 1024;

/// Appends records. Everything after the committed end is in memory too, so that any failure is mended by writing it again.
#[derive(Debug)]
pub(in crate::audit) struct Appender {
    spool: Arc<Spool>,
    chain: Chain,
    file: File,
    segment: u64,
    committed: Size,
    /// The chain as it stood at the committed end.
    committed_chain: Chain,
    /// All bytes after the committed end.
    pending: Vec<u8>,
    pending_records: u64,
    /// How many of the pending bytes the file has.
    written: usize,
    has_reserve: bool,
    /// For salts of texts.
    random: &'static dyn SecureRandom,
}

impl Appender {
    /// At the committed end of a segment.
    pub(super) fn new(
        spool: Arc<Spool>,
        chain: Chain,
        segment: u64,
        committed: Size,
    ) -> io::Result<Self> {
        let file = open_segment(&spool.dir, segment)?;
        Ok(Self {
            committed_chain: chain.clone(),
            chain,
            file,
            segment,
            committed,
            pending: Vec::new(),
            pending_records: 0,
            written: 0,
            has_reserve: reserve::keep(&spool.dir),
            spool,
            random: rustls::crypto::aws_lc_rs::default_provider().secure_random,
        })
    }

    /// The chain as it stands after everything that was appended.
    pub(in crate::audit) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Makes a record of the event. It is in memory only.
    pub(in crate::audit) fn append(&mut self, event: &Event, time: Timestamp) -> Link {
        self.pending_records = self.pending_records.saturating_add(1);
        let random = self.random;
        let salt = || {
            let mut bytes = [0; Salt::BYTES];
            // Without randomness, which is never lacking, the record has no texts: their digest would tell them.
            random.fill(&mut bytes).ok()?;
            Some(Salt::from_random(bytes))
        };
        self.chain.append(event, time, salt, &mut self.pending)
    }

    /// Bytes that are not committed.
    pub(in crate::audit) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes that are committed in this segment.
    pub(in crate::audit) fn committed(&self) -> u64 {
        self.committed.bytes
    }

    /// Writes what is pending to the file: it survives the death of the process.
    ///
    /// # Errors
    /// The system's; call again.
    pub(in crate::audit) fn write(&mut self) -> io::Result<()> {
        let rest = self.pending.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let at = self.committed.bytes.saturating_add(self.written as u64);
        self.file.write_all_at(rest, at)?;
        self.written = self.pending.len();
        Ok(())
    }

    /// Writes and syncs what is pending, and shows it to the sinks.
    ///
    /// # Errors
    /// The system's; call again. After a failed sync the kernel may have dropped what it could not write, so all of it is written again.
    pub(in crate::audit) fn commit(&mut self) -> io::Result<()> {
        self.write()?;
        if let Err(error) = self.file.sync_data() {
            self.written = 0;
            return Err(error);
        }
        self.committed.bytes = self
            .committed
            .bytes
            .saturating_add(self.pending.len() as u64);
        self.committed.records = self.committed.records.saturating_add(self.pending_records);
        self.committed_chain.clone_from(&self.chain);
        self.pending.clear();
        self.pending.shrink_to(IDLE_BYTES);
        self.pending_records = 0;
        self.written = 0;
        self.spool.commit(self.segment, self.committed);
        if !self.has_reserve {
            self.has_reserve = reserve::keep(&self.spool.dir);
        }
        Ok(())
    }

    /// Begins the next segment, after the committed end of this one; what is pending goes there. Works on a full disk too, so that this segment can be deleted
    /// once every sink is past it.
    ///
    /// # Errors
    /// The system's. This segment goes on then.
    pub(in crate::audit) fn rotate(&mut self) -> io::Result<()> {
        let dir = &self.spool.dir;
        self.written = 0;
        self.file.set_len(self.committed.bytes)?;
        reserve::spend(dir);
        self.has_reserve = false;
        let next = self.segment.saturating_add(1);
        let file = open_segment(dir, next)?;
        sync_dir(dir)?;
        state::write(dir, &self.committed_chain, next)?;
        self.file = file;
        self.segment = next;
        self.committed = Size::default();
        self.spool.commit(next, self.committed);
        Ok(())
    }
}

fn open_segment(dir: &Path, segment: u64) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(segment_path(dir, segment))
}
