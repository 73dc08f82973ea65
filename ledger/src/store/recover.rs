//! Opening a directory: cuts what was torn, builds the tree anew, and believes neither the disk nor the signature where they disagree.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use chaperone_crds::chain::StreamId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Config, Last, Onward, Refused, Store,
    files::{replace, sync_dir},
    head::Head,
    judge::{Judge, Split},
    layout::{CHECKPOINT, FORMAT, FORMER, IDENTITY, KEYS, RECORDS},
    sealer::Sealer,
    segments::{self, Segments},
    shelf::Keeper,
    streams::{Known, Streams},
    sweep,
    tiles::Tiles,
};
use crate::{
    checkpoint::{self, Checkpoint, CheckpointError},
    content::Day,
    leaf::Leaf,
    line::{BadLine, Sealed, Stored},
    merkle::{self, Hash},
    note::MAX_NOTE_BYTES,
    tile::Tile,
};

/// Why a directory was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk.
    #[error("{file}: {error}")]
    Io {
        /// What was to be read or written.
        file: String,
        /// Why it was not.
        error: io::Error,
    },
    /// Another process has it.
    #[error("another process has the ledger open")]
    InUse,
    /// It is of another log, or of another format.
    #[error("ledger.json says {found}: not format {FORMER} or {FORMAT} of {wanted:?}")]
    Identity {
        /// What it says.
        found: String,
        /// The origin wanted.
        wanted: String,
    },
    /// The checkpoint is damaged, or not the log's.
    #[error("the checkpoint on disk: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A segment between others is not there.
    #[error("segment {0:08} is missing")]
    MissingSegment(u64),
    /// A record does not fit where it stands.
    #[error("segment {segment:08}, byte {offset}: {fault}")]
    Damaged {
        /// Which segment.
        segment: u64,
        /// Where the line begins.
        offset: u64,
        /// What is wrong.
        fault: Box<Refused>,
    },
    /// Records that were signed are missing.
    #[error(
        "the checkpoint has {signed} leaves, the records are {there}: records were lost or removed"
    )]
    Lost {
        /// Leaves of the checkpoint.
        signed: u64,
        /// Records on disk.
        there: u64,
    },
    /// Records are others than those that were signed.
    #[error(
        "the first {size} records have the root {computed}, the checkpoint says {signed}: records were changed"
    )]
    Contradicted {
        /// Leaves of the checkpoint.
        size: u64,
        /// The root of what is there.
        computed: Hash,
        /// The root that was signed.
        signed: Hash,
    },
    /// A tile has other hashes or entries than the records give.
    #[error("{0} is not what the records give")]
    Tile(Tile),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    origin: String,
}

fn at(file: impl AsRef<Path>) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.as_ref().display().to_string();
    move |error| OpenError::Io { file, error }
}

/// A record as it is read, without its content.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Its stream.
    pub stream: &'a StreamId,
    /// Its number.
    pub seq: u64,
    /// When, as it stands there. Empty where the record was deleted.
    pub time: &'a str,
    /// Whether it ends its stream.
    pub closes: bool,
    /// What is hashed of it, without its newline. Empty where it was deleted.
    pub line: &'a [u8],
}

/// What is shown each record as it is read.
type Each<'a> = &'a mut dyn FnMut(Kept<'_>) -> Option<Onward>;

pub(super) fn open(config: Config, keeper: Keeper, each: Each<'_>) -> Result<Store, OpenError> {
    let records = config.dir.join(RECORDS);
    fs::create_dir_all(&records).map_err(at(&records))?;
    let lock = lock(&config.dir)?;
    identify(&config)?;
    let signed = read_checkpoint(&config)?;
    sweep::tidy(&records).map_err(at(&records))?;
    let (number, committed) = cut(&records)?;
    let limit = config.segment_bytes;
    let segments = Segments::resume(records, keeper.clone(), limit, number, committed);
    let segments = segments.map_err(at(RECORDS))?;
    let sealer = Sealer::open(&config.dir, keeper.clone()).map_err(at(KEYS))?;
    let mut store = Store {
        streams: Streams::default(),
        segments,
        sealer,
        tiles: Tiles::new(config.dir.clone(), keeper.clone()),
        tree: merkle::Range::default(),
        own: StreamId::of_ledger(config.origin.as_str()),
        committed: 0,
        signed: signed.as_ref().map(|c| Last {
            size: c.size,
            time: None,
        }),
        config,
        keeper,
        _lock: lock,
    };
    let mut proof = Proof::new(signed);
    let mut onward = HashMap::new();
    proof.look(&store.tree);
    for segment in 0..=number {
        replay(&mut store, segment, &mut proof, &mut onward, each)?;
        let other = store.tiles.compare_full().map_err(at("tile"))?;
        if let Some(tile) = other {
            return Err(OpenError::Tile(tile));
        }
    }
    store.committed = store.tree.size();
    proof.finish(store.committed)?;
    store.tiles.write_full().map_err(at("tile"))?;
    Ok(store)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

fn identify(config: &Config) -> Result<(), OpenError> {
    let path = config.dir.join(IDENTITY);
    let identity = Identity {
        format: FORMAT,
        origin: config.origin.to_string(),
    };
    let wanted = serde_json::to_vec(&identity).expect("two plain fields serialise");
    match fs::read(&path) {
        Ok(found) => match serde_json::from_slice::<Identity>(&found) {
            Ok(there) if there.origin == identity.origin && there.format == FORMAT => Ok(()),
            // What was written then is read as ever. Whoever knows that format alone shall refuse what is written from here on.
            Ok(there) if there.origin == identity.origin && there.format == FORMER => {
                replace(&Keeper::default(), &config.dir, IDENTITY, &wanted).map_err(at(&path))
            }
            _ => Err(OpenError::Identity {
                found: String::from_utf8_lossy(&found).chars().take(200).collect(),
                wanted: identity.origin,
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace(&Keeper::default(), &config.dir, IDENTITY, &wanted).map_err(at(&path))
        }
        Err(error) => Err(at(&path)(error)),
    }
}

fn read_checkpoint(config: &Config) -> Result<Option<Checkpoint>, OpenError> {
    let path = config.dir.join(CHECKPOINT);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error)),
    };
    if usize::try_from(length).map_or(true, |length| length > MAX_NOTE_BYTES) {
        let too_long = CheckpointError::Note(crate::note::NoteError::TooLong);
        return Err(OpenError::Checkpoint(too_long));
    }
    let note = fs::read(&path).map_err(at(&path))?;
    let signed = checkpoint::open(&note, &config.origin, &config.keys)?;
    Ok(Some(signed.checkpoint))
}

/// Cuts the newest segment after its last whole line. Its number and length.
fn cut(records: &Path) -> Result<(u64, u64), OpenError> {
    let numbers = segments::list(records).map_err(at(records))?;
    for (number, wanted) in numbers.iter().zip(0..) {
        if *number != wanted {
            return Err(OpenError::MissingSegment(wanted));
        }
    }
    let Some(newest) = numbers.last().copied() else {
        return Ok((0, 0));
    };
    let path = segments::path(records, newest);
    let bytes = fs::read(&path).map_err(at(&path))?;
    let whole = segments::whole(&bytes);
    let length = u64::try_from(whole).unwrap_or(u64::MAX);
    if whole < bytes.len() {
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        file.set_len(length).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
        sync_dir(records).map_err(at(records))?;
    }
    Ok((newest, length))
}

/// Places the lines of a segment as if they had come just now.
fn replay(
    store: &mut Store,
    segment: u64,
    proof: &mut Proof,
    onward: &mut HashMap<StreamId, u64>,
    each: Each<'_>,
) -> Result<(), OpenError> {
    let path = segments::path(&store.config.dir.join(RECORDS), segment);
    let bytes = fs::read(&path).map_err(at(&path))?;
    let mut offset = 0_usize;
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        let damaged = |fault| OpenError::Damaged {
            segment,
            offset: u64::try_from(offset).unwrap_or(u64::MAX),
            fault: Box::new(fault),
        };
        let length = rest.iter().position(|b| *b == b'\n');
        let line = length.and_then(|length| rest.get(..length));
        let line = line.ok_or_else(|| damaged(Refused::Form))?;
        let stored = Stored::read(line).map_err(|fault| damaged(none(fault)))?;
        match stored {
            Stored::Begins(leaf) if offset == 0 && leaf == store.tree.size() => {}
            Stored::Begins(_) => return Err(damaged(none(BadLine::Begins))),
            Stored::Deleted(leaf) => {
                let (stream, seq) = (leaf.stream.clone(), leaf.seq);
                place_deleted(store, leaf, onward).map_err(damaged)?;
                let kept = Kept {
                    stream: &stream,
                    seq,
                    time: "",
                    closes: false,
                    line: b"",
                };
                each(kept);
            }
            Stored::Record(line) | Stored::Sealed(Sealed { detached: line, .. }) => {
                let head = place(store, line, onward).map_err(damaged)?;
                store.sealer.learn(&head.stream, line);
                let told = head.time.parse::<Timestamp>();
                if let Some(time) = told.ok().filter(|_| head.stream == store.own) {
                    store.segments.told(Day::of(time));
                }
                let kept = Kept {
                    stream: &head.stream,
                    seq: head.seq,
                    time: &head.time,
                    closes: head.closes,
                    line,
                };
                if let Some(Onward { stream, from }) = each(kept) {
                    onward.insert(stream, from);
                }
            }
        }
        proof.look(&store.tree);
        offset = offset.saturating_add(line.len()).saturating_add(1);
    }
    Ok(())
}

fn none(fault: BadLine) -> Refused {
    Refused::Line(fault.to_string())
}

/// Where the line stands.
fn place(
    store: &mut Store,
    line: &[u8],
    onward: &mut HashMap<StreamId, u64>,
) -> Result<Head, Refused> {
    // Content that stands open in a segment is no part of a record's own line.
    let line = Split::of(line);
    let head =
        Head::parse(&line.detached).map_err(|fault| Refused::NotARecord { line: 1, fault })?;
    let (known, from) = comes(store, &head.stream, head.seq, onward)?;
    let mut judge = Judge::new(&head.stream, &known, from);
    judge.take(&head, line, &store.tiles)?;
    for record in judge.fresh {
        store.place(record.leaf, record.closes);
    }
    Ok(head)
}

/// Where the leaf of a deleted record stands.
fn place_deleted(
    store: &mut Store,
    leaf: Leaf,
    onward: &mut HashMap<StreamId, u64>,
) -> Result<(), Refused> {
    let stream = leaf.stream.clone();
    let (known, from) = comes(store, &stream, leaf.seq, onward)?;
    let mut judge = Judge::new(&stream, &known, from);
    judge.deleted(leaf)?;
    for record in judge.fresh {
        store.place(record.leaf, record.closes);
    }
    Ok(())
}

/// Where the stream ends, whose record of this number comes next; and whether it goes on with it.
fn comes(
    store: &Store,
    stream: &StreamId,
    seq: u64,
    onward: &mut HashMap<StreamId, u64>,
) -> Result<(Known, Option<u64>), Refused> {
    let known = store.streams.get(stream);
    // The runs of a long stream are not copied for each of its lines: here nothing may be there twice.
    let known = known.map(Known::end).unwrap_or_default();
    let from = onward.remove(stream);
    if seq != known.next && from != Some(seq) {
        return Err(Refused::Hole {
            expected: known.next,
            found: seq,
        });
    }
    Ok((known, from))
}

/// Looks at the tree as it grows past the size that was signed.
struct Proof {
    signed: Option<Checkpoint>,
    computed: Option<Hash>,
}

impl Proof {
    fn new(signed: Option<Checkpoint>) -> Self {
        Self {
            signed,
            computed: None,
        }
    }

    fn look(&mut self, tree: &merkle::Range) {
        if self.signed.as_ref().is_some_and(|c| c.size == tree.size()) {
            self.computed = Some(tree.root());
        }
    }

    fn finish(self, there: u64) -> Result<(), OpenError> {
        match (self.signed, self.computed) {
            (None, _) => Ok(()),
            (Some(signed), None) => Err(OpenError::Lost {
                signed: signed.size,
                there,
            }),
            (Some(signed), Some(computed)) if computed == signed.root => Ok(()),
            (Some(signed), Some(computed)) => Err(OpenError::Contradicted {
                size: signed.size,
                computed,
                signed: signed.root,
            }),
        }
    }
}
