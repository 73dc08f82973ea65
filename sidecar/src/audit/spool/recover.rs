//! Opening a spool: finds out where the last process stopped. docs/spool-format.md, "Recovery".

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use chaperone_crds::chain::{Chain, MAX_RECORD_BYTES, RecordHash, StreamId};
use serde::Deserialize;
use tokio::sync::watch;

use super::{Appender, Index, MAX_SEQ, Size, Spool, cursor, gauge, segment_path, state, sync_dir};
use crate::audit::{AuditError, metrics::AuditMetrics};

/// Bytes of a segment that are looked at in one read while lines are counted.
const SCAN_BYTES: usize = 256 * 1024;

/// A spool that is ready.
#[derive(Debug)]
pub(in crate::audit) struct Opened {
    pub(in crate::audit) spool: Arc<Spool>,
    pub(in crate::audit) appender: Appender,
    /// True when the chain continues a stream that was not closed.
    pub(in crate::audit) resumed: bool,
}

/// Where the chain goes on.
#[derive(Debug)]
enum Tail {
    /// After this, in the newest segment.
    Goes(Chain),
    /// The last stream is over, or there was none, or what is there cannot be continued: a new stream in a new segment.
    New,
}

impl Spool {
    /// Takes the directory and repairs its tail.
    pub(in crate::audit) fn open(
        dir: &Path,
        limit: u64,
        metrics: AuditMetrics,
    ) -> Result<Opened, AuditError> {
        open(dir, limit, metrics).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => AuditError::InUse(dir.to_owned()),
            _ => AuditError::Spool {
                path: dir.to_owned(),
                source,
            },
        })
    }
}

fn open(dir: &Path, limit: u64, metrics: AuditMetrics) -> io::Result<Opened> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    metrics.spool_limit.set(gauge(limit));
    let lock = lock(dir)?;
    let segments = scan(dir)?;
    let tail = tail(dir, &segments)?;
    let spool = Arc::new(Spool {
        dir: dir.to_owned(),
        limit,
        index: Mutex::new(Index::new(segments.clone(), cursor::read_all(dir)?)),
        commits: watch::Sender::new(0),
        writer: OnceLock::new(),
        metrics,
        _lock: lock,
    });
    let newest = segments.last_key_value().map(|(n, size)| (*n, *size));
    let appender = match (tail, newest) {
        (Tail::Goes(chain), Some((segment, size))) => {
            Appender::new(spool.clone(), chain, segment, size)?
        }
        (Tail::Goes(chain), None) => begin(&spool, chain, 0)?,
        (Tail::New, newest) => {
            let segment = newest.map_or(0, |(n, _)| n.saturating_add(1));
            begin(&spool, Chain::new(new_stream()?), segment)?
        }
    };
    Ok(Opened {
        // A process that died before its first record was written left a stream without any: it is still to be opened.
        resumed: appender.chain().next_seq() > 0,
        spool,
        appender,
    })
}

/// An empty segment, with `state.json` pointing at it.
fn begin(spool: &Arc<Spool>, chain: Chain, segment: u64) -> io::Result<Appender> {
    let appender = Appender::new(spool.clone(), chain, segment, Size::default())?;
    sync_dir(&spool.dir)?;
    state::write(&spool.dir, appender.chain(), segment)?;
    spool.commit(segment, Size::default());
    Ok(appender)
}

fn lock(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// All segments with their sizes; the newest without its torn tail.
fn scan(dir: &Path) -> io::Result<BTreeMap<u64, Size>> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".jsonl"));
        if let Some(segment) = number.and_then(|n| n.parse().ok()) {
            segments.insert(segment, measure(&segment_path(dir, segment))?);
        }
    }
    if let Some((segment, size)) = segments.last_key_value() {
        let file = OpenOptions::new()
            .write(true)
            .open(segment_path(dir, *segment))?;
        let torn = file.metadata()?.len().saturating_sub(size.bytes);
        if torn > 0 {
            tracing::warn!(
                segment,
                bytes = torn,
                "cutting a torn record from the spool"
            );
            file.set_len(size.bytes)?;
            file.sync_all()?;
        }
    }
    Ok(segments)
}

/// Lines of a segment, and where the last one ends.
fn measure(path: &Path) -> io::Result<Size> {
    let mut file = File::open(path)?;
    let mut size = Size::default();
    let mut before = 0_u64;
    let mut buffer = vec![0; SCAN_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for at in memchr::memchr_iter(b'\n', buffer.get(..read).unwrap_or_default()) {
            size.records = size.records.saturating_add(1);
            size.bytes = before.saturating_add(at as u64).saturating_add(1);
        }
        before = before.saturating_add(read as u64);
    }
}

fn tail(dir: &Path, segments: &BTreeMap<u64, Size>) -> io::Result<Tail> {
    let state = match state::read(dir) {
        Ok(state) => state,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::error!(%error, "the spool's state.json is damaged");
            None
        }
        Err(error) => return Err(error),
    };
    let last = segments.iter().rev().find(|(_, size)| size.bytes > 0);
    let Some((segment, size)) = last else {
        return Ok(state.map_or(Tail::New, Tail::Goes));
    };
    let line = last_line(&segment_path(dir, *segment), size.bytes)?;
    Ok(judge(&line, state.as_ref()).unwrap_or_else(|why| {
        tracing::error!(segment, why, "the spool is damaged: a new stream begins");
        Tail::New
    }))
}

#[derive(Deserialize)]
struct Head {
    stream: StreamId,
    seq: u64,
    kind: String,
}

/// Where the chain goes on after this line, unless it contradicts what `state.json` says.
fn judge(line: &[u8], state: Option<&Chain>) -> Result<Tail, &'static str> {
    let head: Head = serde_json::from_slice(line).map_err(|_| "its last line is no record")?;
    if head.seq >= MAX_SEQ {
        return Err("its last record has a number that no sidecar wrote");
    }
    let next = head.seq.saturating_add(1);
    if head.kind == "stream.close" {
        return Ok(Tail::New);
    }
    match state {
        Some(state) if *state.stream() != head.stream => {
            Err("its last record belongs to another stream than state.json")
        }
        Some(state) if next < state.next_seq() => Err("it lacks records that state.json counts"),
        _ => Ok(Tail::Goes(Chain::resume(
            head.stream,
            next,
            RecordHash::of(line),
        ))),
    }
}

/// The last line before `end`, without its newline. Where no record of allowed length ends there: what there is.
fn last_line(path: &Path, end: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut length = u64::try_from(SCAN_BYTES).unwrap_or(u64::MAX).min(end);
    loop {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, end.saturating_sub(length))?;
        bytes.pop();
        if let Some(newline) = memchr::memrchr(b'\n', &bytes) {
            return Ok(bytes.split_off(newline.saturating_add(1)));
        }
        if length >= end || length > MAX_RECORD_BYTES as u64 {
            return Ok(bytes);
        }
        length = length.saturating_mul(4).min(end);
    }
}

fn new_stream() -> io::Result<StreamId> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(StreamId::from_random(bytes))
}
