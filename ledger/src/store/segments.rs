//! The record lines on disk.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{layout::RECORDS, shelf::Keeper};
use crate::{content::Day, follow::Place};

/// Bytes of the buffer that are kept between commits.
const IDLE_BYTES: usize = 1024 * 1024;

/// The writing end.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    keeper: Keeper,
    limit: u64,
    number: u64,
    file: File,
    /// Bytes of the newest segment that are committed.
    committed: u64,
    /// When it was last written, as far as days go.
    day: Day,
    waiting: Vec<u8>,
}

impl Segments {
    /// Goes on in segment `number`, which has `committed` bytes, or begins it.
    pub(super) fn resume(
        dir: PathBuf,
        keeper: Keeper,
        limit: u64,
        number: u64,
        committed: u64,
    ) -> io::Result<Self> {
        let file = begin(&keeper, &dir, number)?;
        let written = file.metadata()?.modified()?;
        Ok(Self {
            dir,
            keeper,
            limit,
            number,
            file,
            committed,
            day: Timestamp::try_from(written).map_or_else(|_| Day::default(), Day::of),
            waiting: Vec::new(),
        })
    }

    /// A record of the ledger's own in it says what day it was. Without one the file does.
    pub(super) fn told(&mut self, day: Day) {
        self.day = day;
    }

    /// Bytes that wait for a commit.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Where what is committed ends.
    pub(super) fn end(&self) -> Place {
        Place {
            segment: self.number,
            offset: self.committed,
        }
    }

    /// Takes lines with their newlines.
    pub(super) fn push(&mut self, lines: &[u8]) {
        self.waiting.extend_from_slice(lines);
    }

    /// Writes and keeps what waits. After an error the same bytes are written at the same place again. A segment has records of one day, so that what is due to go is never kept by what came long after.
    pub(super) fn commit(&mut self, today: Day) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let is_of_another_day = self.committed > 0 && today > self.day;
        if self.committed >= self.limit || is_of_another_day {
            self.rotate()?;
        }
        self.day = self.day.max(today);
        self.file.write_all_at(&self.waiting, self.committed)?;
        let name = format!("{RECORDS}/{}", name(self.number));
        self.keeper
            .appended(&self.file, &name, self.committed, &self.waiting)?;
        let written = u64::try_from(self.waiting.len()).map_err(io::Error::other)?;
        self.committed = self.committed.saturating_add(written);
        self.waiting.clear();
        self.waiting.shrink_to(IDLE_BYTES);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = self.number.saturating_add(1);
        self.file = begin(&self.keeper, &self.dir, next)?;
        self.number = next;
        self.committed = 0;
        Ok(())
    }
}

fn begin(keeper: &Keeper, dir: &Path, number: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path(dir, number))?;
    keeper.named(dir)?;
    Ok(file)
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

pub(super) fn name(number: u64) -> String {
    format!("{number:08}.jsonl")
}

/// Numbers of the segments that are there, in order.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How much of the newest segment is whole lines without a zero byte, which a loss of power may leave where bytes never came.
pub(crate) fn whole(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let whole = bytes.get(..end).unwrap_or_default();
    whole
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |newline| newline.saturating_add(1))
}
