//! From committed lines to what leaves: read, filtered, written in the sink's format.
//!
//! Refuses to skip: a line that cannot be written in the format ends the batch before it, and is an error once it comes first.

use std::{borrow::Cow, path::Path};

use chaperone_crds::{
    filter::{Filter, Passes},
    record::Record,
    render::{RenderError, render},
    resources::Format,
};
use chaperone_ledger::follow::{Cursor, FollowError, Follower};
use chaperone_sinks::settings::Batch;
use thiserror::Error;

use super::target::{About, Outgoing};

/// Most records that are looked at for one batch: a filter that keeps nearly all back must not hold a read for long.
const MOST_LOOKED_AT: usize = 50_000;

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    /// What leaves. Empty where nothing passed.
    pub(super) batch: Vec<Outgoing>,
    /// What the filter kept back.
    pub(super) left_out: u64,
    /// Why a record passed that the filter has no answer for: the last of them.
    pub(super) doubt: Option<String>,
    /// After the last record that was looked at.
    pub(super) end: Cursor,
}

/// Why nothing was read.
#[derive(Debug, Error)]
pub(super) enum ReadFault {
    /// The segments.
    #[error("reading the ledger: {0}")]
    Follow(#[from] FollowError),
    /// The format.
    #[error(transparent)]
    Render(#[from] RenderError),
}

/// Reads a batch that begins at the follower's cursor. After an error the follower stands there again.
pub(super) fn read(
    dir: &Path,
    follower: &mut Follower,
    end: Cursor,
    most: Batch,
    filter: Option<&Filter>,
    format: Format,
) -> Result<Read, ReadFault> {
    let mut read = Read {
        batch: Vec::new(),
        left_out: 0,
        doubt: None,
        end: follower.cursor(),
    };
    let mut bytes = 0_usize;
    for _ in 0..MOST_LOOKED_AT {
        let before = follower.cursor();
        let Some(record) = follower.next(end.place)? else {
            break;
        };
        if record.deleted.is_some() {
            // There is nothing to give any more.
            read.left_out = read.left_out.saturating_add(1);
            read.end = follower.cursor();
            continue;
        }
        if let Some(filter) = filter {
            match filter.passes(record.line) {
                Passes::Yes => {}
                Passes::InDoubt(why) => read.doubt = Some(why),
                Passes::No => {
                    read.left_out = read.left_out.saturating_add(1);
                    read.end = follower.cursor();
                    continue;
                }
            }
        }
        let length = record.line.len();
        let is_full = !read.batch.is_empty() && bytes.saturating_add(length) > most.bytes;
        let line = match is_full {
            true => None,
            false => Some(outgoing(record.leaf, record.line, format)),
        };
        match line {
            Some(Ok(line)) => read.batch.push(line),
            // It is read again as the first of the next batch.
            None => {
                *follower = Follower::new(dir, before);
                return Ok(read);
            }
            Some(Err(error)) => {
                *follower = Follower::new(dir, before);
                return match read.end == before && read.batch.is_empty() && read.left_out == 0 {
                    true => Err(error.into()),
                    false => Ok(read),
                };
            }
        }
        bytes = bytes.saturating_add(length);
        read.end = follower.cursor();
        if read.batch.len() >= most.records {
            break;
        }
    }
    Ok(read)
}

/// A committed line as it leaves.
pub(super) fn outgoing(leaf: u64, line: &[u8], format: Format) -> Result<Outgoing, RenderError> {
    let text = String::from_utf8_lossy(line);
    Ok(Outgoing {
        leaf,
        about: serde_json::from_slice(line).unwrap_or_else(|_| About::default()),
        line: rendered(&text, format)?.into_owned(),
    })
}

fn rendered<'a>(text: &'a str, format: Format) -> Result<Cow<'a, str>, RenderError> {
    if format == Format::Native {
        return Ok(Cow::Borrowed(text));
    }
    let record = Record::read(text.as_bytes()).map_err(|source| RenderError { format, source })?;
    Ok(Cow::Owned(render(format, &record, text)))
}
