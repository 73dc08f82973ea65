//! One stream's state while its records are read, and its verdict.

use std::{cmp::Ordering, fmt};

use super::{Start, begun::Begun, copies::Copies, fault::Fault};
use crate::{
    chain::{RecordHash, StreamId},
    head::{Content, Head, Place},
};

/// Records of one stream that are missing, as a record that is believed said when the stream went on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub records: u64,
    /// Number of the first.
    pub first: u64,
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
    /// Those of them that were deleted: their hashes are left, and are what the others are chained to.
    pub deleted: u64,
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
    /// Records that say that an operation is about to begin and that no record names as its beginning: what was under way when the sidecar died. None where more were under way at
    /// once than are followed.
    pub unfinished: Option<Vec<u64>>,
    /// What is missing after its first record here, by the log's own word.
    pub missing: Missing,
    /// Records whose texts of bodies were deleted, which changes nothing of what is proved.
    pub deleted_content: u64,
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
        if self.deleted > 0 {
            write!(f, ", {} deleted", self.deleted)?;
        }
        if self.copies > 0 {
            write!(f, ", {} delivered again", self.copies)?;
        }
        match self.unfinished.as_deref() {
            Some([]) => {}
            Some([first, more @ ..]) => write!(
                f,
                ", {} begun without an end (the first: record {first})",
                more.len().saturating_add(1)
            )?,
            None => f.write_str(", too many begun at once to say which ended")?,
        }
        if self.missing.records > 0 {
            let Missing { records, first } = self.missing;
            write!(f, ", {records} MISSING (the first: record {first})")?;
        }
        if self.deleted_content > 0 {
            write!(f, ", content of {} deleted", self.deleted_content)?;
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
    deleted: u64,
    first_seq: u64,
    next_seq: u64,
    tail: RecordHash,
    /// None where no copies may be.
    copies: Option<Copies>,
    copy_count: u64,
    first_time: String,
    last_time: String,
    closed: bool,
    begun: Begun,
    missing: Missing,
    deleted_content: u64,
    fault: Option<Fault>,
}

impl StreamState {
    pub(super) fn new(start: Start, copies: bool) -> Self {
        Self {
            start,
            agent: String::new(),
            records: 0,
            deleted: 0,
            first_seq: 0,
            next_seq: 0,
            tail: RecordHash::GENESIS,
            copies: copies.then(Copies::default),
            copy_count: 0,
            first_time: String::new(),
            last_time: String::new(),
            closed: false,
            begun: Begun::default(),
            missing: Missing::default(),
            deleted_content: 0,
            fault: None,
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next_seq
    }

    /// Judges the next record of this stream. `announced`: those between are missing, and that was said.
    pub(super) fn take(&mut self, head: Head, hash: RecordHash, announced: bool) {
        if self.records == 0 {
            self.first_seq = head.seq;
        }
        // The first that is still there.
        if self.records == self.deleted {
            self.agent.clone_from(&head.agent);
            self.first_time.clone_from(&head.time);
        }
        if self.fault.is_some() {
            self.refine(head, hash);
        } else if let Err(fault) = self.judge(head, hash, announced) {
            self.fault = Some(fault);
        }
    }

    /// Places a record of which only its hash is left: what it said of itself, its place in the chain among it, is not judged.
    pub(super) fn take_deleted(&mut self, seq: u64, hash: RecordHash, announced: bool) {
        let first = self.records == 0;
        if first {
            self.first_seq = seq;
        }
        let expected = self.next_seq;
        self.deleted = self.deleted.saturating_add(1);
        self.count(seq, None);
        self.tail = hash;
        if self.fault.is_some() {
            return;
        }
        if let Some(copies) = &mut self.copies {
            copies.push(hash);
        }
        let skips = announced && seq > expected && !self.closed;
        self.fault = match seq.cmp(&expected) {
            _ if first && self.start == Start::Anywhere => None,
            Ordering::Less => Some(Fault::Again { seq }),
            Ordering::Equal if self.closed => Some(Fault::AfterClose { seq }),
            Ordering::Equal => None,
            Ordering::Greater if skips && first => None,
            Ordering::Greater if skips => {
                self.miss(expected, seq);
                None
            }
            Ordering::Greater if first => Some(Fault::StartsLate { first: seq }),
            Ordering::Greater => Some(Fault::Gap {
                from: expected,
                to: seq.saturating_sub(1),
            }),
        };
    }

    /// Those from `expected` up to `seq` are missing, and that was said.
    fn miss(&mut self, expected: u64, seq: u64) {
        if self.missing.records == 0 {
            self.missing.first = expected;
        }
        let records = seq.saturating_sub(expected);
        self.missing.records = self.missing.records.saturating_add(records);
    }

    pub(super) fn verdict(mut self, stream: StreamId) -> StreamVerdict {
        if self.fault.is_none() {
            let unproven = self.copies.as_ref().and_then(Copies::unproven);
            self.fault = unproven.map(|seq| Fault::UnprovenCopy { seq });
        }
        StreamVerdict {
            stream,
            agent: self.agent,
            records: self.records,
            deleted: self.deleted,
            first_seq: self.first_seq,
            copies: self.copy_count,
            first_time: self.first_time,
            last_time: self.last_time,
            closed: self.closed,
            unfinished: self.begun.unfinished(),
            missing: self.missing,
            deleted_content: self.deleted_content,
            fault: self.fault,
        }
    }

    fn judge(&mut self, head: Head, hash: RecordHash, announced: bool) -> Result<(), Fault> {
        let seq = head.seq;
        if let Some(version) = head.foreign_version {
            self.count(seq, Some(head.time));
            return Err(Fault::Version { seq, version });
        }
        if head.content == Content::Altered {
            self.count(seq, Some(head.time));
            return Err(Fault::Content { seq });
        }
        let Some(prev) = head.prev else {
            self.count(seq, Some(head.time));
            return Err(Fault::BadPrev { seq });
        };
        if seq < self.next_seq && seq >= self.first_seq {
            self.copy_count = self.copy_count.saturating_add(1);
            return match &mut self.copies {
                Some(copies) => copies.copy(seq, self.next_seq, hash, prev),
                None => Err(Fault::Again { seq }),
            };
        }
        let first = self.records == 0;
        let expected = self.next_seq;
        let tail = std::mem::replace(&mut self.tail, hash);
        self.follow(&head);
        self.count(seq, Some(head.time));
        if let Some(copies) = &mut self.copies {
            copies.push(hash);
        }
        if first {
            return self.judge_first(seq, &head.place, prev, announced);
        }
        if seq < expected {
            return Err(Fault::OutOfOrder { seq });
        }
        let skips = announced && seq > expected && !self.closed;
        if skips {
            self.miss(expected, seq);
            return self.judge_close(seq, &head.place);
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
        self.judge_close(seq, &head.place)
    }

    fn judge_first(
        &mut self,
        seq: u64,
        place: &Place,
        prev: RecordHash,
        announced: bool,
    ) -> Result<(), Fault> {
        match (seq, self.start) {
            (0, _) if prev != RecordHash::GENESIS => Err(Fault::NotGenesis),
            (0, _) if *place != Place::Opens => Err(Fault::NotOpened {
                kind: place.kind().to_owned(),
            }),
            (0, _) => Ok(()),
            (_, Start::Anywhere) => self.judge_close(seq, place),
            _ if announced => self.judge_close(seq, place),
            (first, Start::Open) => Err(Fault::StartsLate { first }),
        }
    }

    fn judge_close(&mut self, seq: u64, place: &Place) -> Result<(), Fault> {
        self.closed |= place.closes();
        match place.miscount(seq) {
            None => Ok(()),
            Some(counted) => Err(Fault::CloseCount { seq, counted }),
        }
    }

    /// A fault is known already; the record after it may tell more exactly which it is.
    fn refine(&mut self, head: Head, hash: RecordHash) {
        let seq = head.seq;
        match self.fault {
            // `seq - 1` carries a wrong hash. If its own successor disowns it too, it is the altered one; else its predecessor is.
            Some(Fault::Altered { seq: bad })
                if bad.checked_add(2) == Some(seq)
                    && seq == self.next_seq
                    && head.prev != Some(self.tail) =>
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
        self.tail = hash;
        self.closed |= head.place.closes();
        self.follow(&head);
        self.count(seq, Some(head.time));
    }

    fn follow(&mut self, head: &Head) {
        if head.content == Content::Deleted {
            self.deleted_content = self.deleted_content.saturating_add(1);
        }
        if head.place == Place::Begins {
            self.begun.begins(head.seq);
        }
        if let Some(seq) = head.begun {
            self.begun.ends(seq);
        }
    }

    fn count(&mut self, seq: u64, time: Option<String>) {
        self.records = self.records.saturating_add(1);
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        if let Some(time) = time {
            self.last_time = time;
        }
    }
}
