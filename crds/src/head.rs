//! What a record is placed by, read from its line without the rest.
//!
//! Owns the fields that a chain is judged by. Refuses judgement: a record of another version or without a hash in `prev` is read, and whoever places it refuses it in its own words.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use thiserror::Error;

use crate::{
    bodies::{self, Parts},
    chain::{MAX_RECORD_BYTES, RecordHash, StreamId},
    record::{EventKind, READ_VERSIONS},
};

/// Longest foreign text that is kept of a record, in characters, to be shown.
const MAX_SHOWN: usize = 64;

/// The fields of a record that place it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its stream.
    pub stream: StreamId,
    /// Its number in the stream.
    pub seq: u64,
    /// Hash of the record before it; none where `prev` is no hash.
    pub prev: Option<RecordHash>,
    /// What it does to its stream.
    pub place: Place,
    /// When, as it stands there.
    pub time: String,
    /// Whose it is: `namespace/pod`.
    pub agent: String,
    /// The record that said that this was about to begin.
    pub begun: Option<u64>,
    /// What there is of its texts of bodies.
    pub content: Content,
    /// Its version where that is none that we read, its first characters.
    pub foreign_version: Option<String>,
}

/// What there is of a record's texts of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It never had any apart from itself.
    None,
    /// They are there; of a head that was read with the record's hash: and are what was written.
    There,
    /// It had some that were deleted.
    Deleted,
    /// What is there is not what was written.
    Altered,
}

/// What a record does to its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `stream.open`: begins it.
    Opens,
    /// `stream.close`: ends it.
    Closes {
        /// Records in the stream, as it counts them; 0 where it does not.
        counted: u64,
    },
    /// `begin`: says that an operation is about to begin.
    Begins,
    /// Any other kind, its first characters.
    Within(String),
}

/// Why a line is no record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotARecord {
    /// It is longer than any record.
    #[error("it is longer than {MAX_RECORD_BYTES} bytes")]
    TooLong,
    /// It is no JSON, or fields are missing.
    #[error("{0}")]
    Json(String),
    /// It names no stream.
    #[error("its stream is no UUID in lower case")]
    Stream,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    agent: Agent<'a>,
    begun: Option<u64>,
    close: Option<Close>,
    #[serde(default, deserialize_with = "member")]
    bodies: Member,
}

/// Whether there is a member of this name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Absent,
    Null,
    There,
}

fn member<'de, D: Deserializer<'de>>(value: D) -> Result<Member, D::Error> {
    let there = Option::<IgnoredAny>::deserialize(value)?;
    Ok(there.map_or(Member::Null, |_| Member::There))
}

#[derive(Deserialize)]
struct Agent<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    pod: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Close {
    records: u64,
}

impl Head {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// [`NotARecord`].
    pub fn parse(line: &[u8]) -> Result<Self, NotARecord> {
        Self::read(line).map(|(head, _)| head)
    }

    fn read(line: &[u8]) -> Result<(Self, Member), NotARecord> {
        if line.len() > MAX_RECORD_BYTES {
            return Err(NotARecord::TooLong);
        }
        let raw: Raw<'_> =
            serde_json::from_slice(line).map_err(|e| NotARecord::Json(e.to_string()))?;
        let head = Self {
            stream: raw.stream.parse().map_err(|_| NotARecord::Stream)?,
            seq: raw.seq,
            prev: raw.prev.parse().ok(),
            place: Place::of(&raw.kind, raw.close.as_ref()),
            time: raw.time.into_owned(),
            agent: [&*raw.agent.namespace, "/", &*raw.agent.pod].concat(),
            begun: raw.begun,
            content: match raw.bodies {
                Member::There => Content::There,
                Member::Absent | Member::Null if bodies::is_detached(line) => Content::Deleted,
                Member::Absent | Member::Null => Content::None,
            },
            foreign_version: (!READ_VERSIONS.contains(&&*raw.v)).then(|| shown(&raw.v)),
        };
        Ok((head, raw.bodies))
    }

    /// Reads a line, without its newline, hashes it, and says whether its texts of bodies are what was written.
    ///
    /// # Errors
    /// [`NotARecord`].
    pub fn parse_hashed(line: &[u8]) -> Result<(Self, RecordHash), NotARecord> {
        if line.len() > MAX_RECORD_BYTES {
            return Err(NotARecord::TooLong);
        }
        let parts = bodies::parts(line);
        // Content that can be cut off is one JSON object: the rest, which is short, tells whether the line is a record.
        let (mut head, rest) = Self::read(&parts.detached())?;
        let is_with = matches!(parts, Parts::With { .. });
        if is_with && rest != Member::Absent {
            return Err(NotARecord::twice("bodies"));
        }
        if is_with {
            head.content = Content::There;
        } else if head.content == Content::There {
            head.content = Content::Altered;
        }
        Ok((head, RecordHash::of_parts(parts)))
    }
}

impl NotARecord {
    /// A field that is there twice, in the parser's words.
    fn twice(name: &str) -> Self {
        Self::Json(format!("duplicate field `{name}`"))
    }
}

impl Place {
    fn of(kind: &str, close: Option<&Close>) -> Self {
        match kind {
            open if open == EventKind::StreamOpen.as_str() => Self::Opens,
            end if end == EventKind::StreamClose.as_str() => Self::Closes {
                counted: close.map_or(0, |close| close.records),
            },
            begin if begin == EventKind::Begin.as_str() => Self::Begins,
            other => Self::Within(shown(other)),
        }
    }

    /// The record's kind, its first characters.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Opens => EventKind::StreamOpen.as_str(),
            Self::Closes { .. } => EventKind::StreamClose.as_str(),
            Self::Begins => EventKind::Begin.as_str(),
            Self::Within(kind) => kind,
        }
    }

    /// What the record of this number counts, where it ends its stream and counts other records than there are: all up to itself, those among them that are missing.
    #[must_use]
    pub fn miscount(&self, seq: u64) -> Option<u64> {
        match *self {
            Self::Closes { counted } => (seq.checked_add(1) != Some(counted)).then_some(counted),
            Self::Opens | Self::Begins | Self::Within(_) => None,
        }
    }

    /// Whether it ends its stream.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Self::Closes { .. })
    }
}

fn shown(text: &str) -> String {
    let end = text.char_indices().nth(MAX_SHOWN);
    let end = end.map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
