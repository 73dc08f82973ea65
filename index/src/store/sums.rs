//! Whether the file is, bit by bit, as it was written: a checksum for each of its pages, in a file beside it.
//!
//! SQLite notices damage that makes no sense; a bit that flips in a list of leaves makes sense, and would hide records. Pages come into the file by checkpoints of the WAL alone, and only [`checkpoint`] makes them: it first
//! stores the sums of the pages that the WAL has, and then lets SQLite copy them. So after a crash at any point each page of the file either has its sum or is in the WAL, whose frames have sums of their own that SQLite
//! looks at. Invariant: a file that [`check`] accepts has no page but those that were written.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use chaperone_ledger::follow::FollowError;
use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::IndexError;

/// Bytes of a page; the tables are made with it.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a sum.
const SUM_BYTES: usize = 8;
/// Bytes of the head of a WAL and of each of its frames (<https://www.sqlite.org/fileformat.html#the_write_ahead_log>).
const WAL_HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
/// Size of the WAL at which it is copied into the file, in bytes.
pub(super) const WAL_BYTES: u64 = 16 * 1024 * 1024;

type Sum = [u8; SUM_BYTES];

/// The file of the sums.
pub(super) fn path(index: &Path) -> PathBuf {
    beside(index, ".sums")
}

fn wal(index: &Path) -> PathBuf {
    beside(index, "-wal")
}

fn beside(index: &Path, end: &str) -> PathBuf {
    let mut name = index.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Copies the WAL into the file, if it is as long as that.
pub(super) fn checkpoint(
    db: &Connection,
    index: &Path,
    longer_than: u64,
) -> Result<(), IndexError> {
    let length = std::fs::metadata(wal(index)).map_or(0, |file| file.len());
    if length <= longer_than {
        return Ok(());
    }
    store(index).map_err(|error| failed(&path(index), error))?;
    // A reader may keep SQLite from it: then the WAL stays as it is, and it is tried again later.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Copies the WAL into the file, if it is as long as that, and writes zeros over what it had. False where a reader keeps SQLite from it.
pub(super) fn scrub(db: &Connection, index: &Path, longer_than: u64) -> Result<bool, IndexError> {
    let length = std::fs::metadata(wal(index)).map_or(0, |file| file.len());
    if length <= longer_than {
        return Ok(true);
    }
    store(index).map_err(|error| failed(&path(index), error))?;
    // From here on no reader looks into the WAL, until it is written again: by this thread.
    if is_busy(db, "PRAGMA wal_checkpoint(RESTART)")? {
        return Ok(false);
    }
    overwrite(&wal(index)).map_err(|error| failed(&wal(index), error))?;
    Ok(!is_busy(db, "PRAGMA wal_checkpoint(TRUNCATE)")?)
}

fn is_busy(db: &Connection, sql: &str) -> Result<bool, IndexError> {
    let busy: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(busy != 0)
}

/// The head comes first: a WAL without one is none, whatever a loss of power leaves of the rest.
fn overwrite(wal: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(wal)?;
    let length = file.metadata()?.len();
    let zeros = vec![0; 64 * PAGE_BYTES];
    let mut at = 0_u64;
    while at < length {
        let wanted = match at {
            0 => WAL_HEAD_BYTES,
            _ => zeros.len(),
        };
        let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let block = zeros.get(..wanted.min(left)).unwrap_or_default();
        file.write_all_at(block, at)?;
        if at == 0 {
            file.sync_data()?;
        }
        at = at.saturating_add(u64::try_from(block.len()).unwrap_or(u64::MAX));
    }
    file.sync_data()
}

fn store(index: &Path) -> io::Result<()> {
    let sums = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path(index))?;
    for (page, sum) in waiting(index)? {
        sums.write_all_at(&sum, place(page))?;
    }
    sums.sync_data()
}

/// Looks at each page of the file that is not in the WAL.
pub(super) fn check(index: &Path) -> Result<(), IndexError> {
    let is_whole = compare(index).map_err(|error| failed(index, error))?;
    let damaged = |page| IndexError::Stale(format!("page {page} of it is damaged"));
    is_whole.map_err(damaged)
}

fn compare(index: &Path) -> io::Result<Result<(), u64>> {
    let waiting = waiting(index)?;
    let sums = there(std::fs::read(path(index)))?.unwrap_or_default();
    let mut sums = sums.chunks(SUM_BYTES);
    let mut file = BufReader::with_capacity(64 * PAGE_BYTES, File::open(index)?);
    let mut page = Vec::with_capacity(PAGE_BYTES);
    for number in 1.. {
        page.clear();
        let limit = u64::try_from(PAGE_BYTES).unwrap_or(u64::MAX);
        let read = file.by_ref().take(limit).read_to_end(&mut page)?;
        if read == 0 {
            break;
        }
        let expected = sums.next();
        let is_as_written = expected.is_some_and(|expected| sum(&page) == expected);
        if !is_as_written && !waiting.contains_key(&number) {
            return Ok(Err(number));
        }
    }
    // Pages that have a sum and are gone.
    let gone = sums.next().is_some();
    Ok(if gone { Err(0) } else { Ok(()) })
}

/// The pages that the WAL has, and the sum of what each will be: of the last frame that has it, up to the last that ends a transaction.
fn waiting(index: &Path) -> io::Result<HashMap<u64, Sum>> {
    let (mut all, mut some) = (HashMap::new(), Vec::new());
    let Some(file) = there(File::open(wal(index)))? else {
        return Ok(all);
    };
    let mut file = BufReader::with_capacity(64 * PAGE_BYTES, file);
    let mut head = [0; WAL_HEAD_BYTES];
    if !fill(&mut file, &mut head)? {
        return Ok(all);
    }
    let salts = head.get(16..24).map(<[u8]>::to_vec).unwrap_or_default();
    let mut frame = [0; FRAME_HEAD_BYTES + PAGE_BYTES];
    while fill(&mut file, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEAD_BYTES);
        if head.get(8..16) != Some(&salts) {
            break;
        }
        some.push((u64::from(number(head, 0)), sum(page)));
        if number(head, 4) != 0 {
            all.extend(some.drain(..));
        }
    }
    Ok(all)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk);
    four.map_or(0, |four| u32::from_be_bytes(*four))
}

/// Whether the buffer could be filled.
fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn place(page: u64) -> u64 {
    let bytes = u64::try_from(SUM_BYTES).unwrap_or(u64::MAX);
    page.saturating_sub(1).saturating_mul(bytes)
}

fn sum(page: &[u8]) -> Sum {
    let digest = Sha256::digest(page);
    digest.first_chunk().copied().unwrap_or_default()
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(file: &Path, error: io::Error) -> IndexError {
    let file = file.display().to_string();
    IndexError::Follow(FollowError::Io { file, error })
}
