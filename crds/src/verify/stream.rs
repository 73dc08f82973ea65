//! One stream's state while its records are read, and its verdict.

use std::{borrow::Cow, fmt};

use serde::Deserialize;

use super::{Start, copies::Copies, fault::Fault, fault::LineFault};
use crate::{
    chain::{RecordHash, StreamId},
    record::RECORD_VERSION,
};

/// What a chain is judged by: the fields of a record that place it.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) stream: StreamId,
    raw: RawHead<'a>,
}

#[derive(Debug, Deserialize)]
struct RawHead<'a> {
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
    agent: AgentHead<'a>,
    close: Option<CloseHead>,
}

#[derive(Debug, Deserialize)]
struct AgentHead<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    pod: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct CloseHead {
    records: u64,
}

impl<'a> Head<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, LineFault> {
        let raw: RawHead<'a> =
            serde_json::from_slice(line).map_err(|e| LineFault::NotARecord(e.to_string()))?;
        let stream = raw
            .stream
            .parse()
            .map_err(|e| LineFault::NotARecord(format!("{e}")))?;
        Ok(Self { stream, raw })
    }
}

/// What is to be said of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamVerdict {
    /// The stream.
    pub stream: StreamId,
    /// Whose it is, as its first record here says: `namespace/pod`.
    pub agent: String,
    /// Records, copies not counted.
    pub records: u64,
    /// Number of the first record here.
    pub first_seq: u64,
    /// Copies of records that were delivered more than once.
    pub copies: u64,
    /// Time of the first record, as it stands there.
    pub first_time: String,
    /// Time of the last record.
    pub last_time: String,
    /// Whether the stream was closed in good order.
    pub closed: bool,
    /// What is wrong; the first thing only.
    pub fault: Option<Fault>,
}

impl fmt::Display for StreamVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stream {} of {}: {} records from {}, {} to {}, {}",
            self.stream,
            self.agent,
            self.records,
            self.first_seq,
            self.first_time,
            self.last_time,
            if self.closed { "closed" } else { "not closed" },
        )?;
        if self.copies > 0 {
            write!(f, ", {} delivered again", self.copies)?;
        }
        match &self.fault {
            None => f.write_str(": intact"),
            Some(fault) => write!(f, ": FIRST BAD RECORD {}: {fault}", fault.first_bad()),
        }
    }
}

/// A stream while it is read.
#[derive(Debug)]
pub(super) struct StreamState {
    start: Start,
    agent: String,
    records: u64,
    first_seq: u64,
    next_seq: u64,
    tail: RecordHash,
    copies: Copies,
    copy_count: u64,
    first_time: String,
    last_time: String,
    closed: bool,
    fault: Option<Fault>,
}

impl StreamState {
    pub(super) fn new(start: Start) -> Self {
        Self {
            start,
            agent: String::new(),
            records: 0,
            first_seq: 0,
            next_seq: 0,
            tail: RecordHash::GENESIS,
            copies: Copies::default(),
            copy_count: 0,
            first_time: String::new(),
            last_time: String::new(),
            closed: false,
            fault: None,
        }
    }

    /// Judges the next record of this stream.
    pub(super) fn take(&mut self, head: &Head<'_>, line: &[u8]) {
        let raw = &head.raw;
        if self.records == 0 {
            self.agent = format!("{}/{}", raw.agent.namespace, raw.agent.pod);
            self.first_seq = raw.seq;
            self.first_time = raw.time.to_string();
        }
        if self.fault.is_some() {
            self.refine(raw, line);
        } else if let Err(fault) = self.judge(raw, line) {
            self.fault = Some(fault);
        }
    }

    pub(super) fn verdict(mut self, stream: StreamId) -> StreamVerdict {
        if self.fault.is_none() {
            self.fault = self
                .copies
                .unproven()
                .map(|seq| Fault::UnprovenCopy { seq });
        }
        StreamVerdict {
            stream,
            agent: self.agent,
            records: self.records,
            first_seq: self.first_seq,
            copies: self.copy_count,
            first_time: self.first_time,
            last_time: self.last_time,
            closed: self.closed,
            fault: self.fault,
        }
    }

    fn judge(&mut self, raw: &RawHead<'_>, line: &[u8]) -> Result<(), Fault> {
        let seq = raw.seq;
        if raw.v != RECORD_VERSION {
            self.count(raw);
            let version = raw.v.chars().take(64).collect();
            return Err(Fault::Version { seq, version });
        }
        let Ok(prev) = raw.prev.parse::<RecordHash>() else {
            self.count(raw);
            return Err(Fault::BadPrev { seq });
        };
        let hash = RecordHash::of(line);
        if seq < self.next_seq && seq >= self.first_seq {
            self.copy_count = self.copy_count.saturating_add(1);
            return self.copies.copy(seq, self.next_seq, hash, prev);
        }
        let first = self.records == 0;
        let expected = self.next_seq;
        let tail = std::mem::replace(&mut self.tail, hash);
        self.count(raw);
        self.copies.push(hash);
        if first {
            return self.judge_first(raw, prev);
        }
        if seq < expected {
            return Err(Fault::OutOfOrder { seq });
        }
        if seq > expected {
            return Err(Fault::Gap {
                from: expected,
                to: seq.saturating_sub(1),
            });
        }
        if self.closed {
            return Err(Fault::AfterClose { seq });
        }
        if prev != tail {
            let seq = seq.saturating_sub(1);
            return Err(Fault::Altered { seq });
        }
        self.judge_close(raw)
    }

    fn judge_first(&mut self, raw: &RawHead<'_>, prev: RecordHash) -> Result<(), Fault> {
        match (raw.seq, self.start) {
            (0, _) if prev != RecordHash::GENESIS => Err(Fault::NotGenesis),
            (0, _) if raw.kind != "stream.open" => Err(Fault::NotOpened {
                kind: raw.kind.chars().take(64).collect(),
            }),
            (0, _) => Ok(()),
            (_, Start::Anywhere) => self.judge_close(raw),
            (first, Start::Open) => Err(Fault::StartsLate { first }),
        }
    }

    fn judge_close(&mut self, raw: &RawHead<'_>) -> Result<(), Fault> {
        if raw.kind != "stream.close" {
            return Ok(());
        }
        self.closed = true;
        let counted = raw.close.as_ref().map_or(0, |c| c.records);
        match raw.seq.checked_add(1) == Some(counted) {
            true => Ok(()),
            false => Err(Fault::CloseCount {
                seq: raw.seq,
                counted,
            }),
        }
    }

    /// A fault is known already; the record after it may tell more exactly which it is.
    fn refine(&mut self, raw: &RawHead<'_>, line: &[u8]) {
        let seq = raw.seq;
        match self.fault {
            // `seq - 1` carries a wrong hash. If its own successor disowns it too, it is the altered one; else its predecessor is.
            Some(Fault::Altered { seq: bad })
                if bad.checked_add(2) == Some(seq)
                    && seq == self.next_seq
                    && raw.prev.parse() != Ok(self.tail) =>
            {
                self.fault = Some(Fault::Altered {
                    seq: seq.saturating_sub(1),
                });
            }
            Some(Fault::Gap { from, .. }) if from == seq => {
                self.fault = Some(Fault::OutOfOrder { seq });
            }
            _ => {}
        }
        self.tail = RecordHash::of(line);
        self.closed |= raw.kind == "stream.close";
        self.count(raw);
    }

    fn count(&mut self, raw: &RawHead<'_>) {
        self.records = self.records.saturating_add(1);
        self.next_seq = self.next_seq.max(raw.seq.saturating_add(1));
        self.last_time.clear();
        self.last_time.push_str(&raw.time);
    }
}
