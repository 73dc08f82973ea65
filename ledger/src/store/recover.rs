//! Opening a directory: cuts what was torn, builds the tree anew, and believes neither the disk nor the signature where they disagree.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Config, Last, Refused, SEGMENT_BYTES, Store,
    files::{replace, sync_dir},
    layout::{CHECKPOINT, FORMAT, FORMER, IDENTITY, KEYS, RECORDS},
    log::Log,
    replay::{Each, Replay},
    sealer::Sealer,
    segments::{self, Segments},
    shelf::Keeper,
    sweep,
};
use crate::{
    checkpoint::{self, Checkpoint, CheckpointError},
    follow::Place,
    merkle::Hash,
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

pub(super) fn at(file: impl AsRef<Path>) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.as_ref().display().to_string();
    move |error| OpenError::Io { file, error }
}

pub(super) fn open(mut replay: Replay, config: Config, each: Each<'_>) -> Result<Store, OpenError> {
    let records = config.dir.join(RECORDS);
    fs::create_dir_all(&records).map_err(at(&records))?;
    let lock = lock(&config.dir)?;
    identify(&config)?;
    let signed = read_checkpoint(&config)?;
    sweep::tidy(&records).map_err(at(&records))?;
    let (segment, offset) = cut(&records)?;
    while !replay.read(Place { segment, offset }, SEGMENT_BYTES, each)? {}
    let keeper = replay.keeper().clone();
    let read = replay.end();
    let limit = config.segment_bytes;
    let segments = Segments::resume(records, keeper.clone(), limit, segment, offset);
    let mut segments = segments.map_err(at(RECORDS))?;
    if let Some(day) = read.told {
        segments.told(day);
    }
    let sealer = Sealer::open(&config.dir, keeper.clone(), read.sessions).map_err(at(KEYS))?;
    let mut store = Store {
        log: read.log,
        segments,
        sealer,
        committed: 0,
        signed: signed.as_ref().map(|c| Last {
            size: c.size,
            time: None,
        }),
        config,
        keeper,
        _lock: lock,
    };
    store.committed = store.log.tree.size();
    if let Some(signed) = signed {
        prove(&store.log, &signed)?;
    }
    store.log.tiles.write_full().map_err(at("tile"))?;
    Ok(store)
}

/// Whether the records begin with those that were signed.
fn prove(log: &Log, signed: &Checkpoint) -> Result<(), OpenError> {
    let (size, there) = (signed.size, log.tree.size());
    if size > there {
        return Err(OpenError::Lost {
            signed: size,
            there,
        });
    }
    let computed = log.root_of(size).map_err(|error| {
        let error = io::Error::other(error);
        at("tile")(error)
    })?;
    if computed != signed.root {
        return Err(OpenError::Contradicted {
            size,
            computed,
            signed: signed.root,
        });
    }
    Ok(())
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
