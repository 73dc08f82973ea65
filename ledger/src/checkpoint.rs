//! Checkpoints (C2SP tlog-checkpoint): a log's name, size and root, in a note that the log has signed.
//!
//! Owns their text. Refuses to believe one that the log's own key has not signed, whoever else did.

use std::{fmt, num::ParseIntError, str::FromStr};

use thiserror::Error;

use crate::{
    cosignature::Time,
    key::{Algorithm, SigningKey, VerifierKey},
    merkle::Hash,
    note::{self, NoteError, Verified},
};

/// Longest origin, in bytes.
pub const MAX_ORIGIN_BYTES: usize = 512;

/// Which log it is: a line that is not empty. By custom a URL without its scheme.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

/// The head of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: Origin,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Further lines, which mean nothing here. Ours has none.
    extensions: Vec<String>,
}

/// A checkpoint that its log has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// By whom: the log at least, and those witnesses that are known.
    pub signatures: Vec<Verified<'a>>,
}

/// Why a checkpoint says nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no checkpoint.
    #[error("a checkpoint is lines of origin, size and root, none of them empty: {0}")]
    Form(&'static str),
    /// It is another log's.
    #[error("the checkpoint is of {found:?}, not of {wanted:?}")]
    Origin {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// Witnesses have signed, the log has not.
    #[error("no known key of the log has signed the checkpoint")]
    NotByLog,
}

impl Origin {
    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        match (1..=MAX_ORIGIN_BYTES).contains(&text.len()) && !text.contains(|c: char| c < ' ') {
            true => Ok(Self(text.to_owned())),
            false => Err(CheckpointError::Form(
                "the origin is empty, too long or has control characters",
            )),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Checkpoint {
    /// A checkpoint without further lines.
    #[must_use]
    pub fn new(origin: Origin, size: u64, root: Hash) -> Self {
        Self {
            origin,
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// Lines after the root, which the log may add and nobody can audit.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The note. `time` goes into cosignatures only.
    ///
    /// # Errors
    /// [`NoteError`], where keys are missing or too many.
    pub fn sign(&self, keys: &[&SigningKey], time: Time) -> Result<Vec<u8>, NoteError> {
        note::sign(&self.to_string(), keys, time)
    }
}

/// Which log a note says that it is a checkpoint of. Nothing is believed yet: [`open`] asks for a key of that name.
///
/// # Errors
/// [`CheckpointError::Form`].
pub fn claimed_origin(note: &[u8]) -> Result<Origin, CheckpointError> {
    let line = note.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    line.unwrap_or_default().parse()
}

/// The checkpoint that a note says that it is. Nothing is believed yet, as with [`claimed_origin`].
///
/// # Errors
/// [`CheckpointError::Form`].
pub fn claimed(note: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let form = || CheckpointError::Form("it is no text with signatures below an empty line");
    let text = std::str::from_utf8(note).map_err(|_| form())?;
    let (text, _) = text.split_once("\n\n").ok_or_else(form)?;
    format!("{text}\n").parse()
}

/// Reads a checkpoint of this log. `known` are its keys, which bear the origin as their name (several while one is replaced by another), and those of witnesses; one of the log's at
/// least must have signed.
///
/// # Errors
/// [`CheckpointError`].
pub fn open<'a>(
    note: &'a [u8],
    origin: &Origin,
    known: &'a [VerifierKey],
) -> Result<Signed<'a>, CheckpointError> {
    let opened = note::open(note, known)?;
    let checkpoint: Checkpoint = opened.text.parse()?;
    if checkpoint.origin != *origin {
        return Err(CheckpointError::Origin {
            found: checkpoint.origin.0,
            wanted: origin.0.clone(),
        });
    }
    let by_log = |s: &Verified<'_>| {
        s.key.algorithm() == Algorithm::Ed25519 && s.key.name().as_str() == origin.as_str()
    };
    match opened.signatures.iter().any(by_log) {
        true => Ok(Signed {
            checkpoint,
            signatures: opened.signatures,
        }),
        false => Err(CheckpointError::NotByLog),
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let form = CheckpointError::Form;
        let lines = text
            .strip_suffix('\n')
            .ok_or(form("the last newline is missing"))?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(form("lines are missing"));
        };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(form("a line is empty"));
        }
        Ok(Self {
            origin: origin.parse()?,
            size: decimal(size).map_err(|_| form("the size is no decimal number"))?,
            root: root.parse().map_err(|_| form("the root is no hash"))?,
            extensions,
        })
    }
}

impl fmt::Display for Checkpoint {
    /// The note's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, self.root)?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A decimal number in its one form: no sign, no leading zeros.
pub(crate) fn decimal(text: &str) -> Result<u64, ParseIntError> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    // What is not canonical is parsed as nothing, for the error's sake.
    if canonical { text } else { "" }.parse()
}

#[cfg(test)]
mod tests;
