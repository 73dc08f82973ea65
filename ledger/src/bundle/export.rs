//! Making a bundle of a ledger's directory.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use chaperone_crds::{
    chain::{MAX_RECORD_BYTES, StreamId},
    verify::{Line, Seen, each_line},
};
use thiserror::Error;

use super::{
    CHECKPOINT, FORMAT, IDENTITY, Identity, KEYS, LEAVES, README, RECORDS, Spans, Subject, readme,
    session_of, within,
};
use crate::{
    audit::{Unreadable, directory},
    checkpoint::{self, Checkpoint, CheckpointError},
    key::VerifierKey,
    leaf::Leaf,
    merkle::{ProveError, inclusion_proof},
    store::{layout, segments},
    tile::{Source, Tile, TileTree, TreeError, WIDTH},
};

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records in the bundle.
    pub records: u64,
    /// Records between, of which there is the leaf alone.
    pub withheld: u64,
    /// Records of the subject after the checkpoint, which are not in the bundle: nothing has signed them yet.
    pub unsigned: u64,
}

/// Why there is no bundle.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] Unreadable),
    /// Nothing is signed.
    #[error("the ledger has no checkpoint yet, so that nothing could prove the bundle")]
    NoCheckpoint,
    /// The checkpoint is none of the keys'.
    #[error("the ledger's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It has nothing of the subject.
    #[error("the ledger has no record of {0} that its checkpoint covers")]
    Nothing(Subject),
    /// A line of the ledger is no record, or a segment is missing.
    #[error("the ledger is damaged at {0}: chaperone verify says more")]
    Damaged(String),
    /// A tile is missing or at fault.
    #[error("{0}: chaperone verify says more of the ledger")]
    Tile(#[from] ProveError<TreeError<io::Error>>),
    /// The folder can't be written.
    #[error("{file}: {error}")]
    Write {
        /// Which file of it.
        file: String,
        /// Why.
        error: io::Error,
    },
}

/// Writes the bundle of `subject` to the folder `into`, which must not be there yet. With `context` the records between are in it too, whatever they are about.
///
/// # Errors
/// [`ExportError`]; the folder is not there then.
pub fn export(
    ledger: &Path,
    into: &Path,
    subject: &Subject,
    keys: &[VerifierKey],
    context: bool,
) -> Result<Exported, ExportError> {
    let origin = directory::identity(ledger)?;
    let note = directory::note(ledger)?.ok_or(ExportError::NoCheckpoint)?;
    let head = checkpoint::open(&note, &origin, keys)?.checkpoint;
    let (spans, unsigned) = spans(ledger, subject, head.size)?;
    if spans.is_empty() {
        return Err(ExportError::Nothing(subject.clone()));
    }
    fs::create_dir(into).map_err(writing(into))?;
    let bundle = Bundle {
        ledger,
        into,
        subject,
        head: &head,
        context,
    };
    let made = bundle.write(&note, keys, &spans);
    match made {
        Ok(made) => Ok(Exported { unsigned, ..made }),
        Err(error) => {
            // What is not whole proves nothing.
            let _ = fs::remove_dir_all(into);
            Err(error)
        }
    }
}

fn writing(file: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let file = file.display().to_string();
    move |error| ExportError::Write { file, error }
}

/// What is looked at of a line, by any thread.
struct Looked {
    leaf: Leaf,
    session: Option<String>,
    /// The record, where it is wanted.
    line: Vec<u8>,
}

/// Goes through the ledger's records in order, up to a leaf. `want` says of which the bytes are needed.
fn each_record(
    ledger: &Path,
    sessions: bool,
    want: impl Fn(&StreamId, u64) -> bool + Sync,
    mut take: impl FnMut(u64, Looked) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let look = |line: Line<'_>| {
        let Seen::Record(head, hash) = Seen::of(line) else {
            return None;
        };
        let (Line::Whole(bytes) | Line::Last(bytes)) = line else {
            return None;
        };
        let wanted = want(&head.stream, head.seq);
        Some(Looked {
            session: sessions.then(|| session_of(bytes)).flatten(),
            line: if wanted { bytes.to_vec() } else { Vec::new() },
            leaf: Leaf {
                stream: head.stream,
                seq: head.seq,
                record: hash,
            },
        })
    };
    let folder = ledger.join(layout::RECORDS);
    let numbers = segments::list(&folder).map_err(|error| directory::unreadable(&folder, error))?;
    let newest = numbers.last().copied();
    let mut index = 0_u64;
    for (number, expected) in numbers.into_iter().zip(0..) {
        let damaged =
            |offset: u64| ExportError::Damaged(format!("segment {number:08}, byte {offset}"));
        if number != expected {
            return Err(ExportError::Damaged(format!(
                "segment {expected:08}, which is missing"
            )));
        }
        let path = segments::path(&folder, number);
        let failed = |error| ExportError::Ledger(directory::unreadable(&path, error));
        let file = directory::open(&path).map_err(failed)?;
        let mut outcome = Ok(());
        each_line(file, MAX_RECORD_BYTES, look, |offset, looked| {
            if outcome.is_ok() {
                // At the very end a line may be unfinished; if the checkpoint needs it, its tile will not agree.
                outcome = match looked {
                    Some(looked) => take(index, looked),
                    None if newest == Some(number) => Ok(()),
                    None => Err(damaged(offset)),
                };
                index = index.saturating_add(1);
            }
        })
        .map_err(failed)?;
        outcome?;
    }
    Ok(())
}

/// Where the subject's records are, and how many come after the checkpoint.
fn spans(ledger: &Path, subject: &Subject, size: u64) -> Result<(Spans, u64), ExportError> {
    let (mut spans, mut unsigned) = (Spans::new(), 0_u64);
    let sessions = matches!(subject, Subject::Session(_));
    each_record(
        ledger,
        sessions,
        |_, _| false,
        |index, looked| {
            let (stream, seq) = (looked.leaf.stream, looked.leaf.seq);
            if !subject.has(&stream, looked.session.as_deref()) {
                return Ok(());
            }
            if index >= size {
                unsigned = unsigned.saturating_add(1);
                return Ok(());
            }
            let span = spans.entry(stream).or_insert((seq, seq));
            *span = (span.0.min(seq), span.1.max(seq));
            Ok(())
        },
    )?;
    Ok((spans, unsigned))
}

/// A bundle while it is written.
struct Bundle<'a> {
    ledger: &'a Path,
    into: &'a Path,
    subject: &'a Subject,
    head: &'a Checkpoint,
    context: bool,
}

impl Bundle<'_> {
    fn write(
        &self,
        note: &[u8],
        keys: &[VerifierKey],
        spans: &Spans,
    ) -> Result<Exported, ExportError> {
        let (exported, tiles) = self.write_records(spans)?;
        self.write_tiles(&tiles)?;
        let identity = Identity {
            format: FORMAT,
            origin: self.head.origin.to_string(),
            subject: self.subject.clone(),
        };
        let mut json = serde_json::to_vec(&identity).expect("plain fields serialise");
        json.push(b'\n');
        let keys: String = keys.iter().map(|key| format!("{key}\n")).collect();
        self.write_file(CHECKPOINT, note)?;
        self.write_file(KEYS, keys.as_bytes())?;
        self.write_file(
            README,
            readme::text(&identity, self.head, exported).as_bytes(),
        )?;
        // Last: a folder without it is no bundle.
        self.write_file(IDENTITY, &json)?;
        Ok(exported)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.into.join(name);
        fs::write(&path, bytes).map_err(writing(&path))
    }

    /// Writes records and leaves. A leaf of each tile that has some.
    fn write_records(&self, spans: &Spans) -> Result<(Exported, BTreeSet<u64>), ExportError> {
        let (mut exported, mut tiles) = (Exported::default(), BTreeSet::new());
        let mut records = Output::new(self.into.join(RECORDS))?;
        let mut leaves = Output::new(self.into.join(LEAVES))?;
        let want = |stream: &StreamId, seq| within(spans, stream, seq);
        let sessions = matches!(self.subject, Subject::Session(_));
        each_record(self.ledger, sessions, want, |index, looked| {
            if index >= self.head.size || !want(&looked.leaf.stream, looked.leaf.seq) {
                return Ok(());
            }
            leaves.line(format!("{index} {}", looked.leaf).as_bytes())?;
            tiles.insert(index / u64::from(WIDTH));
            let subject = self
                .subject
                .has(&looked.leaf.stream, looked.session.as_deref());
            let count = match subject || self.context {
                true => {
                    records.line(&looked.line)?;
                    &mut exported.records
                }
                false => &mut exported.withheld,
            };
            *count = count.saturating_add(1);
            Ok(())
        })?;
        records.finish()?;
        leaves.finish()?;
        Ok((exported, tiles))
    }

    /// Copies the tiles that lead from these tiles of leaves to the root.
    fn write_tiles(&self, tiles: &BTreeSet<u64>) -> Result<(), ExportError> {
        let folder = Folder {
            dir: self.ledger,
            read: RefCell::default(),
        };
        let tree = TileTree::new(&folder, self.head.size);
        for tile in tiles {
            inclusion_proof(&tree, tile.saturating_mul(u64::from(WIDTH)), self.head.size)?;
        }
        let read = folder.read.take();
        for tile in read {
            let path = self.into.join(tile.to_string());
            let bytes = folder.read(tile).map_err(writing(&path))?;
            let parent = path.parent().unwrap_or(self.into);
            fs::create_dir_all(parent).map_err(writing(parent))?;
            fs::write(&path, bytes).map_err(writing(&path))?;
        }
        Ok(())
    }
}

/// A folder of tiles that remembers which were read.
pub(super) struct Folder<'a> {
    pub(super) dir: &'a Path,
    pub(super) read: RefCell<BTreeSet<Tile>>,
}

impl Source for Folder<'_> {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(tile);
        directory::tile(self.dir, tile)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A file of lines.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn new(path: PathBuf) -> Result<Self, ExportError> {
        let file = File::create(&path).map_err(writing(&path))?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
        })
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(writing(&self.path))
    }

    fn finish(mut self) -> Result<(), ExportError> {
        self.file.flush().map_err(writing(&self.path))
    }
}
