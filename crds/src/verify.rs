//! The proof of a log: reads lines and says of each stream whether its chain is intact, and if not, which record is the first bad one.
//!
//! Owns the judgement over bytes as they were written; it never serialises anything again. Refuses files and sockets: it reads what a
//! [`BufRead`] gives. Many streams may be interleaved in one file, and exact copies are allowed, because sinks deliver at least once.
//! Invariant: memory is bounded per stream, whatever the file holds.
//!
//! What a chain cannot show: an edit of a stream's last record while the stream has no later one, and a cut at its end while no `stream.close` is known.

mod copies;
mod fault;
mod lines;
mod stream;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead},
};

pub use fault::{Fault, LineFault};
pub use stream::StreamVerdict;

use crate::chain::{MAX_RECORD_BYTES, StreamId};
use lines::{Line, Lines};
use stream::{Head, StreamState};

/// Most streams in one file. A stream's state is about 1 KiB and grows to 128 KiB for long ones; more streams belong in more files.
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

/// Judges lines one by one.
#[derive(Debug, Default)]
pub struct Verifier {
    start: Start,
    streams: BTreeMap<StreamId, StreamState>,
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
pub fn verify(reader: impl BufRead, start: Start) -> io::Result<Report> {
    let mut verifier = Verifier::new(start);
    let mut lines = Lines::new(reader, MAX_RECORD_BYTES);
    while let Some(line) = lines.next_line()? {
        match line {
            Line::Whole(bytes) => verifier.line(bytes),
            Line::Last(bytes) => verifier.last_line(bytes),
            Line::TooLong => verifier.fault(LineFault::TooLong),
        }
    }
    Ok(verifier.finish())
}

impl Verifier {
    /// A verifier that has read nothing.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// Takes the next line, without its newline. Empty lines mean nothing.
    pub fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            self.lines = self.lines.saturating_add(1);
        } else if line.len() > MAX_RECORD_BYTES {
            self.fault(LineFault::TooLong);
        } else {
            match Head::parse(line) {
                Ok(head) => self.record(&head, line),
                Err(fault) => self.fault(fault),
            }
        }
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

    /// A line that the file ends with and that has no newline: a record if it reads as one, else torn.
    fn last_line(&mut self, line: &[u8]) {
        match Head::parse(line) {
            Ok(head) => self.record(&head, line),
            Err(_) => self.fault(LineFault::Torn),
        }
    }

    fn record(&mut self, head: &Head<'_>, line: &[u8]) {
        let full = self.streams.len() >= MAX_STREAMS;
        match self.streams.get_mut(&head.stream) {
            Some(state) => state.take(head, line),
            None if full => return self.fault(LineFault::TooManyStreams),
            None => {
                let mut state = StreamState::new(self.start);
                state.take(head, line);
                self.streams.insert(head.stream.clone(), state);
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

    /// Records of all streams, copies not counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.streams.iter().map(|s| s.records).sum()
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
            "{} records in {} streams: {verdict}",
            self.records(),
            self.streams.len()
        )
    }
}

#[cfg(test)]
mod tests;
