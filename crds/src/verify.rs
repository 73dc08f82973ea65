//! The proof of a log: reads lines and says of each stream whether its chain is intact, and if not, which record is the first bad one.
//!
//! Owns the judgement over bytes as they were written; it never serialises anything again. Refuses files and sockets: it reads what a
//! [`Read`] gives. Many streams may be interleaved in one file, and exact copies are allowed, because sinks deliver at least once.
//! Invariant: memory is bounded per stream, whatever the file holds.
//!
//! What a chain cannot show: an edit of a stream's last record while the stream has no later one, and a cut at its end while no `stream.close` is known.

mod begun;
mod copies;
mod fault;
mod lines;
mod stream;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
};

pub use fault::{Fault, LineFault};
pub use lines::{Line, each_line};
pub use stream::{Missing, StreamVerdict};

use crate::{
    chain::{MAX_RECORD_BYTES, RecordHash, StreamId},
    head::{Head, NotARecord},
};
use stream::StreamState;

/// Most streams in one file. A stream's state is about 1 KiB and grows to 128 KiB for long ones, and by 2 MiB at most where as many operations are under way at once as are followed; more
/// streams belong in more files.
pub const MAX_STREAMS: usize = 100_000;
/// Most faults of single lines that a report lists; further ones are counted.
pub const MAX_LISTED_LINE_FAULTS: usize = 100;

/// Where a stream may begin in what is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At record 0, `stream.open`.
    #[default]
    Open,
    /// Anywhere: a sink that was added while the stream ran, or a part of a log.
    Anywhere,
}

/// What a line is, which can be said without knowing others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is empty, and means nothing.
    Nothing,
    /// A record, and its hash.
    Record(Box<Head>, RecordHash),
    /// A record that was deleted, of which its place and its hash are left.
    Deleted(StreamId, u64, RecordHash),
    /// No record.
    Fault(LineFault),
}

/// Judges lines one by one.
#[derive(Debug)]
pub struct Verifier {
    start: Start,
    /// Whether a record may be there more than once.
    copies: bool,
    max_streams: usize,
    streams: BTreeMap<StreamId, StreamState>,
    /// Streams of which records are missing and that go on, with the number of the record that does.
    announced: BTreeMap<StreamId, u64>,
    lines: u64,
    line_faults: Vec<(u64, LineFault)>,
    line_fault_count: u64,
}

/// What is to be said of everything that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// One verdict for each stream, in order of stream id.
    pub streams: Vec<StreamVerdict>,
    /// Lines read, empty ones included.
    pub lines: u64,
    /// Lines that are no records, by line number from 1; at most [`MAX_LISTED_LINE_FAULTS`].
    pub line_faults: Vec<(u64, LineFault)>,
    /// How many lines are no records.
    pub line_fault_count: u64,
}

/// Reads everything and judges it. Lines end in `\n`; the last may lack it.
///
/// # Errors
/// What the reader returns. Bad content is no error: the report says it.
pub fn verify(reader: impl Read, start: Start) -> io::Result<Report> {
    let mut verifier = Verifier::new(start);
    each_line(reader, MAX_RECORD_BYTES, Seen::of, |_, seen| {
        verifier.take(seen);
    })?;
    Ok(verifier.finish())
}

impl Seen {
    /// Looks at a line.
    #[must_use]
    pub fn of(line: Line<'_>) -> Self {
        match line {
            Line::Whole([]) => Self::Nothing,
            Line::Whole(bytes) => Self::record(bytes).unwrap_or_else(|fault| {
                Self::Fault(match fault {
                    NotARecord::TooLong => LineFault::TooLong,
                    other => LineFault::NotARecord(other.to_string()),
                })
            }),
            // The last line of a file that lacks its newline: a record if it reads as one, else torn.
            Line::Last(bytes) => Self::record(bytes).unwrap_or(Self::Fault(LineFault::Torn)),
            Line::TooLong => Self::Fault(LineFault::TooLong),
        }
    }

    fn record(line: &[u8]) -> Result<Self, NotARecord> {
        let (head, hash) = Head::parse_hashed(line)?;
        Ok(Self::Record(Box::new(head), hash))
    }
}

impl Verifier {
    /// A verifier that has read nothing.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            start,
            copies: true,
            max_streams: MAX_STREAMS,
            streams: BTreeMap::new(),
            announced: BTreeMap::new(),
            lines: 0,
            line_faults: Vec::new(),
            line_fault_count: 0,
        }
    }

    /// A verifier of a log that has each record once, from the first of each stream on, as a ledger does. A stream's state is about 500 bytes.
    #[must_use]
    pub fn exactly_once(max_streams: usize) -> Self {
        Self {
            copies: false,
            max_streams,
            ..Self::new(Start::Open)
        }
    }

    /// The same, of streams that may begin there.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The number that comes next in a stream, as far as it was read.
    #[must_use]
    pub fn next(&self, stream: &StreamId) -> Option<u64> {
        self.streams.get(stream).map(StreamState::next)
    }

    /// Takes the next line.
    pub fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Nothing => self.lines = self.lines.saturating_add(1),
            Seen::Record(head, hash) => {
                let (stream, seq) = (head.stream.clone(), head.seq);
                self.place(stream, seq, |state, announced| {
                    state.take(*head, hash, announced);
                });
            }
            Seen::Deleted(stream, seq, hash) => {
                self.place(stream, seq, |state, announced| {
                    state.take_deleted(seq, hash, announced);
                });
            }
            Seen::Fault(fault) => self.fault(fault),
        }
    }

    /// The stream's next record is number `from`, and those between are missing, says a record that is believed.
    pub fn announce(&mut self, stream: StreamId, from: u64) {
        self.announced.insert(stream, from);
    }

    /// What is to be said.
    #[must_use]
    pub fn finish(self) -> Report {
        Report {
            streams: self
                .streams
                .into_iter()
                .map(|(id, state)| state.verdict(id))
                .collect(),
            lines: self.lines,
            line_faults: self.line_faults,
            line_fault_count: self.line_fault_count,
        }
    }

    /// Has the stream's state take what comes next of it.
    fn place(&mut self, stream: StreamId, seq: u64, take: impl FnOnce(&mut StreamState, bool)) {
        let full = self.streams.len() >= self.max_streams;
        let announced = self.announced.remove(&stream) == Some(seq);
        match self.streams.get_mut(&stream) {
            Some(state) => take(state, announced),
            None if full => return self.fault(LineFault::TooManyStreams),
            None => {
                let mut state = StreamState::new(self.start, self.copies);
                take(&mut state, announced);
                self.streams.insert(stream, state);
            }
        }
        self.lines = self.lines.saturating_add(1);
    }

    fn fault(&mut self, fault: LineFault) {
        self.lines = self.lines.saturating_add(1);
        self.line_fault_count = self.line_fault_count.saturating_add(1);
        if self.line_faults.len() < MAX_LISTED_LINE_FAULTS {
            self.line_faults.push((self.lines, fault));
        }
    }
}

impl Report {
    /// True when every line is a record (or empty) and no stream has a fault. A file without records is not intact: it proves nothing.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        !self.streams.is_empty()
            && self.line_fault_count == 0
            && self.streams.iter().all(|s| s.fault.is_none())
    }

    /// Records that are missing by the log's own word.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let missing = self.streams.iter().map(|stream| stream.missing.records);
        missing.fold(0, u64::saturating_add)
    }

    /// Records that were deleted, of all streams; [`records`](Self::records) has them too.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.streams.iter().map(|s| s.deleted).sum()
    }

    /// Records of all streams, copies not counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.streams.iter().map(|s| s.records).sum()
    }

    /// Records whose texts of bodies were deleted.
    #[must_use]
    pub fn deleted_content(&self) -> u64 {
        self.streams.iter().map(|s| s.deleted_content).sum()
    }
}

impl fmt::Display for Report {
    /// One line for each stream, one for each bad line, and a last one with the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams {
            writeln!(f, "{stream}")?;
        }
        for (number, fault) in &self.line_faults {
            writeln!(f, "line {number}: {fault}")?;
        }
        let listed = u64::try_from(self.line_faults.len()).unwrap_or(u64::MAX);
        if self.line_fault_count > listed {
            writeln!(
                f,
                "and {} further lines that are no records",
                self.line_fault_count.saturating_sub(listed)
            )?;
        }
        let verdict = match (self.is_intact(), self.streams.is_empty()) {
            (true, _) => "intact",
            (false, true) => "no records: nothing is proved",
            (false, false) => "NOT INTACT",
        };
        write!(
            f,
            "{} records in {} streams",
            self.records(),
            self.streams.len()
        )?;
        if self.deleted_content() > 0 {
            write!(f, ", content of {} deleted", self.deleted_content())?;
        }
        write!(f, ": {verdict}")
    }
}

#[cfg(test)]
mod tests;
