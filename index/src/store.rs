//! The index on disk.
//!
//! Owns one SQLite file and its schema. [`Index`] is its one writer, [`Reader`] one of its readers (the file is in WAL mode, so neither waits for the other). Refuses a file of another version or of another log: it is made anew.
//! Invariants: what is in the file is the records before its cursor, all of them, once; cursor and records are of one transaction. What was deleted is forgotten in place, a part of the leaves at a time, and the file is then what one made anew would be.

mod batch;
mod forget;
mod read;
mod redo;
mod rethread;
mod schema;
mod search;
mod sessions;
mod streams;
mod sums;
mod write;

use chaperone_ledger::follow::FollowError;
use thiserror::Error;

pub use forget::Forgot;
pub use read::{Found, Limits, Reader};
pub use search::{Answer, Scope};
pub use sessions::{Session, SessionKind, SessionQuery, Sessions};
pub use write::{Index, MAX_BATCH_RECORDS, Opened};

/// Why the index cannot go on, or cannot answer.
#[derive(Debug, Error)]
pub enum IndexError {
    /// SQLite, or the disk below it.
    #[error("the index: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The segments.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Index and records do not fit together: it has to be built again.
    #[error("the index does not fit the records: {0}")]
    Stale(String),
    /// A question took longer than it may.
    #[error("the question took too long; ask for less: a namespace, a host, a shorter time")]
    TooSlow,
    /// Pages are asked for that an index which is being built again does not reach yet.
    #[error(
        "the index is being built again and has not come to where the cursor's first answer was made"
    )]
    Behind,
    /// A session's name that is another's too.
    #[error("{0} sessions have this name: say which namespace, or which kind (agent, stream)")]
    Ambiguous(usize),
}

impl IndexError {
    /// Whether only building it again helps.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, TypeMismatch};
        match self {
            Self::Stale(_) => true,
            Self::Sqlite(error) => match error {
                rusqlite::Error::SqliteFailure(failure, _) => {
                    let code = failure.code;
                    matches!(code, DatabaseCorrupt | NotADatabase | TypeMismatch)
                        // A statement that is not accepted: ours are, over our tables.
                        || failure.extended_code == SQLITE_ERROR
                        // A page or a frame that was written and is not there.
                        || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ
                }
                // A value of another type than was written there, or a table that is not there.
                rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..) => true,
                _ => false,
            },
            Self::Follow(error) => {
                matches!(error, FollowError::Ahead(_) | FollowError::NotABeginning(_))
            }
            Self::TooSlow | Self::Behind | Self::Ambiguous(_) => false,
        }
    }
}

/// The code of an error that is of no other kind.
const SQLITE_ERROR: i32 = rusqlite::ffi::SQLITE_ERROR;

/// Numbers are stored as SQLite has them: 64 bits with a sign. No ledger lives to pass that.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What was [`stored`]; a number below 0 never was.
fn restored(number: i64) -> Result<u64, IndexError> {
    u64::try_from(number).map_err(|_| IndexError::Stale(format!("{number} stands for a number")))
}

#[cfg(test)]
mod tests;
