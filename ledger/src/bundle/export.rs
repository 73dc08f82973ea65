//! Making a bundle, of whatever has the ledger's entries, tiles and the records that are wanted.

mod directory;
mod held;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use chaperone_crds::{chain::StreamId, head::Head};
use thiserror::Error;

use super::{
    ABOUT, ABOUT_LEAVES, CHECKPOINT, FORMAT, IDENTITY, Identity, KEYS, LEAVES, Named, README,
    RECORDS, Subject, about::Explained, readme, within,
};
use crate::{
    audit::{self, Unreadable},
    checkpoint::{self, Checkpoint, CheckpointError},
    key::VerifierKey,
    leaf::Leaf,
    merkle::{ProveError, inclusion_proof},
    tile::{Source, Tile, TileTree, TreeError, WIDTH},
};
use directory::Directory;
pub use held::Held;

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
    /// The ledger that is asked does not give what is needed, or what contradicts itself.
    #[error("{0}")]
    Served(String),
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

/// What a bundle is made of.
pub trait Shelf {
    /// Goes through entries in order, those of records that nothing has signed yet among them. Of records that are `wanted` the line is needed.
    ///
    /// # Errors
    /// [`ExportError`], its own or that of `take`.
    fn each(
        &self,
        wanted: &(dyn Fn(&Head) -> bool + Sync),
        take: &mut dyn FnMut(u64, Looked) -> Result<(), ExportError>,
    ) -> Result<(), ExportError>;

    /// A tile of hashes.
    ///
    /// # Errors
    /// Why it could not be had.
    fn tile(&self, tile: Tile) -> io::Result<Vec<u8>>;
}

/// What is known of an entry.
#[derive(Debug)]
pub struct Looked {
    leaf: Leaf,
    named: Named,
    /// The record, where it is wanted and to be had.
    line: Option<Vec<u8>>,
}

/// Writes the bundle of `subject` out of a ledger's directory to the folder `into`, which must not be there yet. With `context` the records between are in it too, whatever they are about.
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
    let origin = audit::directory::identity(ledger)?;
    let note = audit::directory::note(ledger)?.ok_or(ExportError::NoCheckpoint)?;
    let head = checkpoint::open(&note, &origin, keys)?.checkpoint;
    let bundle = Bundle {
        shelf: &Directory(ledger),
        into,
        subject,
        head: &head,
        context,
    };
    bundle.make(&note, keys)
}

/// The same out of what a ledger gave that was asked for it, under the checkpoint `note`.
///
/// # Errors
/// [`ExportError`]; the folder is not there then.
pub fn export_held<S: Source>(
    held: &Held<'_, S>,
    note: &[u8],
    into: &Path,
    subject: &Subject,
    keys: &[VerifierKey],
    context: bool,
) -> Result<Exported, ExportError>
where
    S::Error: fmt::Display,
{
    let origin = checkpoint::claimed_origin(note)?;
    let head = checkpoint::open(note, &origin, keys)?.checkpoint;
    let bundle = Bundle {
        shelf: held,
        into,
        subject,
        head: &head,
        context,
    };
    bundle.make(note, keys)
}

fn writing(file: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let file = file.display().to_string();
    move |error| ExportError::Write { file, error }
}

/// A bundle while it is written.
struct Bundle<'a> {
    shelf: &'a dyn Shelf,
    into: &'a Path,
    subject: &'a Subject,
    head: &'a Checkpoint,
    context: bool,
}

impl Bundle<'_> {
    fn make(&self, note: &[u8], keys: &[VerifierKey]) -> Result<Exported, ExportError> {
        let (explained, unsigned) = self.spans()?;
        if explained.spans.is_empty() {
            return Err(ExportError::Nothing(self.subject.clone()));
        }
        fs::create_dir(self.into).map_err(writing(self.into))?;
        match self.write(note, keys, &explained) {
            Ok(made) => Ok(Exported { unsigned, ..made }),
            Err(error) => {
                // What is not whole proves nothing.
                let _ = fs::remove_dir_all(self.into);
                Err(error)
            }
        }
    }

    /// Where the subject's records are and which revisions decided of them, and how many come after the checkpoint.
    fn spans(&self) -> Result<(Explained, u64), ExportError> {
        let (mut explained, mut unsigned) = (Explained::default(), 0_u64);
        self.shelf.each(&|_| false, &mut |index, looked| {
            let (stream, seq) = (looked.leaf.stream, looked.leaf.seq);
            if !self.subject.has(&stream, looked.named.session.as_deref()) {
                return Ok(());
            }
            if index >= self.head.size {
                unsigned = unsigned.saturating_add(1);
                return Ok(());
            }
            explained.revisions.extend(looked.named.revision);
            let span = explained.spans.entry(stream).or_insert((seq, seq));
            *span = (span.0.min(seq), span.1.max(seq));
            Ok(())
        })?;
        Ok((explained, unsigned))
    }

    fn write(
        &self,
        note: &[u8],
        keys: &[VerifierKey],
        explained: &Explained,
    ) -> Result<Exported, ExportError> {
        let (exported, tiles) = self.write_records(explained)?;
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

    /// Writes records and leaves, and those that say what they are about. Which tiles have leaves of them.
    fn write_records(
        &self,
        explained: &Explained,
    ) -> Result<(Exported, BTreeSet<u64>), ExportError> {
        let (mut exported, mut tiles) = (Exported::default(), BTreeSet::new());
        let mut records = Pair::new(self.into, RECORDS, LEAVES)?;
        let mut about = Pair::new(self.into, ABOUT, ABOUT_LEAVES)?;
        let own = StreamId::of_ledger(self.head.origin.as_str());
        let is_within = |stream: &StreamId, seq| within(&explained.spans, stream, seq);
        let wanted = |head: &Head| {
            is_within(&head.stream, head.seq)
                || head.stream == own
                || explained.spans.contains_key(&head.stream)
        };
        self.shelf.each(&wanted, &mut |index, looked| {
            let Looked { leaf, named, line } = looked;
            if index >= self.head.size {
                return Ok(());
            }
            let explains = explained.by(&leaf.stream, &own, named.about.as_ref());
            if is_within(&leaf.stream, leaf.seq) {
                let of_subject = self.subject.has(&leaf.stream, named.session.as_deref());
                let is_shown = of_subject || self.context || explains;
                let count = match line.filter(|_| is_shown) {
                    Some(line) => {
                        records.records.line(&line)?;
                        &mut exported.records
                    }
                    None => &mut exported.withheld,
                };
                *count = count.saturating_add(1);
                records.leaf(index, &leaf)?;
            } else if let Some(line) = line.filter(|_| explains) {
                about.records.line(&line)?;
                about.leaf(index, &leaf)?;
            } else {
                return Ok(());
            }
            tiles.insert(index / u64::from(WIDTH));
            Ok(())
        })?;
        records.finish()?;
        about.finish()?;
        Ok((exported, tiles))
    }

    /// Copies the tiles that lead from these tiles of leaves to the root.
    fn write_tiles(&self, tiles: &BTreeSet<u64>) -> Result<(), ExportError> {
        let folder = Remembering {
            shelf: self.shelf,
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

/// Remembers which tiles were read.
struct Remembering<'a> {
    shelf: &'a dyn Shelf,
    read: RefCell<BTreeSet<Tile>>,
}

impl Source for Remembering<'_> {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(tile);
        self.shelf.tile(tile)
    }
}

/// A file of records and one of their leaves.
struct Pair {
    records: Output,
    leaves: Output,
}

impl Pair {
    fn new(folder: &Path, records: &str, leaves: &str) -> Result<Self, ExportError> {
        Ok(Self {
            records: Output::new(folder.join(records))?,
            leaves: Output::new(folder.join(leaves))?,
        })
    }

    fn leaf(&mut self, index: u64, leaf: &Leaf) -> Result<(), ExportError> {
        self.leaves.line(format!("{index} {leaf}").as_bytes())
    }

    fn finish(self) -> Result<(), ExportError> {
        self.records.finish()?;
        self.leaves.finish()
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
