//! What is in an object: lines of a frame of zstd, or rows of Parquet.
//!
//! Owns the bounds of what an object unfolds to. Refuses to judge lines: any thread does with each what the caller says, and what came of it is given back in order.

mod pages;
mod rows;

use std::io::{self, Read};

use bytes::Bytes;
use chaperone_crds::{
    chain::MAX_RECORD_BYTES,
    verify::{Line, each_line},
};

/// Longest object that is read, in bytes: a sink's batch has 64 MiB of records at most, and a row of Parquet has some of its record twice.
pub const MAX_OBJECT_BYTES: u64 = 256 * 1024 * 1024;
/// Most bytes of lines that an object may have: a sink's batch and its longest record.
pub const MAX_UNFOLDED_BYTES: usize = 128 * 1024 * 1024;
/// Most lines or rows: twice what a sink puts into an object.
pub const MAX_RECORDS: usize = 100_000;
/// Most that a frame of zstd may ask a reader to keep, as a power of two in bytes: 8 MiB, four times what a sink's does.
const MAX_WINDOW_LOG: u32 = 23;

/// What came of an object.
#[derive(Debug)]
pub struct Unfolded<T> {
    /// What came of each line, and its number in the log where the object says it.
    pub records: Vec<(Option<u64>, T)>,
    /// Why it could not be read to its end.
    pub fault: Option<String>,
}

/// Lines of a frame of zstd. An error of the reader is a fault like one of the frame: who has both tells them apart.
pub fn ndjson<T: Send>(packed: impl Read, work: impl Fn(Line<'_>) -> T + Sync) -> Unfolded<T> {
    let mut records = Vec::new();
    let fault = frame(packed, &work, &mut records).err();
    Unfolded {
        records,
        fault: fault.map(|fault| fault.to_string()),
    }
}

fn frame<T: Send>(
    packed: impl Read,
    work: &(impl Fn(Line<'_>) -> T + Sync),
    records: &mut Vec<(Option<u64>, T)>,
) -> io::Result<()> {
    let mut decoder = zstd::Decoder::new(packed)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let bounded = Bounded {
        reader: decoder,
        bytes: MAX_UNFOLDED_BYTES,
        lines: MAX_RECORDS,
    };
    each_line(bounded, MAX_RECORD_BYTES, work, |_, done| {
        records.push((None, done));
    })
}

/// Rows of Parquet, whose columns `leaf` and `record` a sink writes.
pub fn parquet<T: Send>(file: Bytes, work: impl Fn(Line<'_>) -> T + Sync) -> Unfolded<T> {
    let mut records = Vec::new();
    let fault = read_rows(file, &work, &mut records).err();
    Unfolded { records, fault }
}

fn read_rows<T: Send>(
    file: Bytes,
    work: &(impl Fn(Line<'_>) -> T + Sync),
    records: &mut Vec<(Option<u64>, T)>,
) -> Result<(), String> {
    let rows = rows::read(file)?;
    let mut leaves = rows.leaves.into_iter();
    each_line(&*rows.lines, MAX_RECORD_BYTES, work, |_, done| {
        records.push((leaves.next(), done));
    })
    .map_err(|error| error.to_string())
}

/// A reader that ends with an error where there is more than an object may have.
struct Bounded<R> {
    reader: R,
    /// What may come yet.
    bytes: usize,
    lines: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let there = buffer.get(..read).unwrap_or_default();
        let lines = memchr::memchr_iter(b'\n', there).count();
        let left = self.bytes.checked_sub(read);
        match (left, self.lines.checked_sub(lines)) {
            (Some(bytes), Some(lines)) => {
                (self.bytes, self.lines) = (bytes, lines);
                Ok(read)
            }
            _ => Err(too_much()),
        }
    }
}

fn too_much() -> io::Error {
    io::Error::other(TOO_MUCH)
}

/// What is said of an object that has more than any sink puts into one.
const TOO_MUCH: &str = "it has more than an object may have (128 MiB, 100000 records)";

#[cfg(test)]
mod tests;
