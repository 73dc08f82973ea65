//! The proof of a copy of records whose numbers in the log are known, as a sink puts them into a bucket: what each object has, and where in the log it begins.
//!
//! Owns the judgement over all objects together: each stream's chain, which numbers are missing, and the tree made anew, compared with checkpoints that were kept elsewhere and with those that are on record in the log itself.
//! Refuses the bucket: it is told what is in an object, in the order of the log. Nothing that an object says of itself is believed: only a tree that a known key has signed is. Memory is bounded by an object and per stream.

mod looked;
mod tree;
mod verdict;

use chaperone_crds::{
    chain::StreamId,
    verify::{Seen, Start, Verifier},
};
use thiserror::Error;

pub use looked::Looked;
pub use verdict::{Fault, Missing, Proved, Verdict};

use crate::{
    audit::Trust,
    checkpoint::{self, CheckpointError, Signed},
    key::{Algorithm, VerifierKey},
    merkle::Hash,
    store::{MAX_STREAMS, Onward},
};
use tree::Tree;

/// Most faults and missing ranges that a verdict lists; the rest is counted.
pub(crate) const MAX_LISTED: usize = 100;

/// An object that was read.
#[derive(Debug)]
pub struct Object<'a> {
    /// Its name, for who is told of it.
    pub name: &'a str,
    /// Number of its first record in the log, as its name says.
    pub leaf: u64,
    /// The first record, as its name says: `STREAM-SEQ`.
    pub first: &'a str,
    /// What it has, in order.
    pub records: Vec<Row>,
    /// Why it could not be read to its end.
    pub fault: Option<String>,
    /// Number that the next object begins with, as its name says.
    pub next: Option<u64>,
}

/// A line of an object.
#[derive(Debug)]
pub struct Row {
    /// Its number in the log, where the object says it.
    pub leaf: Option<u64>,
    /// What it is.
    pub looked: Looked,
}

/// A checkpoint that was given is none of this log.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("checkpoint {number} of those given: {fault}")]
pub struct NotKept {
    /// Which, from 1.
    pub number: usize,
    /// Why.
    pub fault: CheckpointError,
}

/// Judges objects one by one.
#[derive(Debug)]
pub struct Judge<'a> {
    trust: &'a Trust,
    /// The log may begin later.
    part: bool,
    /// The ledger's own streams, by the names of the keys.
    own: Vec<StreamId>,
    verifier: Verifier,
    tree: Tree,
    /// Number in the log that comes next.
    next: u64,
    /// Missing records that no stream was found to lack yet.
    unplaced: u64,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    /// Has read nothing. `part`: the log may begin later, and each stream too.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn new(trust: &'a Trust, part: bool) -> Result<Self, NotKept> {
        let start = if part { Start::Anywhere } else { Start::Open };
        let of_logs = trust
            .keys
            .iter()
            .filter(|key| key.algorithm() == Algorithm::Ed25519);
        let mut judge = Self {
            trust,
            part,
            own: of_logs
                .map(|key| StreamId::of_ledger(key.name().as_str()))
                .collect(),
            verifier: Verifier::exactly_once(MAX_STREAMS).starting(start),
            tree: Tree::default(),
            next: 0,
            unplaced: 0,
            verdict: Verdict::new(!trust.keys.is_empty()),
        };
        for (note, number) in trust.kept.iter().zip(1..) {
            let kept = judge.signed(note);
            let kept = kept.map_err(|fault| NotKept { number, fault })?;
            judge.verdict.kept.push(kept.checkpoint.size);
            judge.verdict.known(&kept.checkpoint.origin);
            judge.tree.expect(Proved::of(&kept, true));
        }
        Ok(judge)
    }

    /// Takes the next object, in the order of the log.
    pub fn take(&mut self, object: Object<'_>) {
        let Object {
            name,
            leaf: begins,
            first,
            records,
            fault,
            next,
        } = object;
        self.verdict.objects = self.verdict.objects.saturating_add(1);
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.missing_before(begins);
        // Where the numbers stand in the object itself, each is known.
        let is_told = records.iter().any(|row| row.leaf.is_some());
        let end = begins.saturating_add(count);
        let lacks = match next {
            Some(next) if !is_told => next.saturating_sub(end.max(self.next)),
            _ => 0,
        };
        if lacks > 0 {
            // Which of them are missing the object does not say, so that none has its place in the tree.
            self.tree.stop();
            self.lack(Missing {
                from: begins,
                to: end.saturating_add(lacks).saturating_sub(1),
                records: lacks,
                object: name.to_owned(),
            });
        }
        let place = Place {
            object: name,
            is_exact: lacks == 0,
        };
        for (row, number) in records.into_iter().zip(0_u64..) {
            let leaf = row.leaf.unwrap_or_else(|| begins.saturating_add(number));
            if number == 0 {
                self.begins_as_named(&place, begins, first, leaf, &row.looked);
            }
            self.record(&place, leaf, row.looked);
        }
        if let Some(fault) = fault.or_else(|| (count == 0).then(|| "it is empty".to_owned())) {
            self.tree.stop();
            self.fault(Fault::Object {
                object: name.to_owned(),
                fault,
            });
        }
        if lacks > 0 {
            self.next = self.next.max(end.saturating_add(lacks));
        }
    }

    /// What is to be said.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        self.tree.finish();
        let Tree {
            faults,
            proved,
            unreached,
            too_far,
            ..
        } = self.tree;
        let mut verdict = self.verdict;
        verdict.leaves = self.next;
        verdict.streams = self.verifier.finish();
        for fault in faults {
            verdict.fault(fault);
        }
        verdict.proved = proved;
        verdict.unreached = unreached;
        verdict.uncompared = verdict.uncompared.saturating_add(too_far);
        verdict
    }

    /// A checkpoint that a key of its log has signed; of one log all, as the first of them is.
    fn signed<'n>(&self, note: &'n [u8]) -> Result<Signed<'n>, CheckpointError>
    where
        'a: 'n,
    {
        let keys: &'a [VerifierKey] = &self.trust.keys;
        match self.verdict.origin() {
            Some(known) => checkpoint::open(note, known, keys),
            None => checkpoint::open(note, &checkpoint::claimed_origin(note)?, keys),
        }
    }

    /// Records before this number are missing, unless they were there.
    fn missing_before(&mut self, leaf: u64) {
        let missing = leaf.saturating_sub(self.next);
        if missing == 0 {
            return;
        }
        self.tree.stop();
        let is_first = self.verdict.objects == 1 && self.verdict.records == 0;
        if is_first {
            self.verdict.first = leaf;
        }
        if !(is_first && self.part) {
            self.lack(Missing {
                from: self.next,
                to: leaf.saturating_sub(1),
                records: missing,
                object: String::new(),
            });
        }
        self.next = leaf;
    }

    fn lack(&mut self, missing: Missing) {
        self.unplaced = self.unplaced.saturating_add(missing.records);
        self.verdict.lack(missing);
    }

    /// The first record must be the one of the name.
    fn begins_as_named(
        &mut self,
        place: &Place<'_>,
        begins: u64,
        first: &str,
        leaf: u64,
        looked: &Looked,
    ) {
        let is_named = match looked.id() {
            Some((stream, seq)) => {
                first == format!("{stream}-{seq}") || first == format!("leaf-{begins}")
            }
            None => true,
        };
        if !is_named || leaf != begins {
            self.fault(Fault::Object {
                object: place.object.to_owned(),
                fault: "it does not begin with the record of its name".to_owned(),
            });
        }
    }

    fn record(&mut self, place: &Place<'_>, leaf: u64, looked: Looked) {
        self.verdict.lines = self.verdict.lines.saturating_add(1);
        let Looked {
            seen,
            leaf: hash,
            onward,
            note,
        } = looked;
        let (Seen::Record(head, _), Some(hash)) = (&seen, hash) else {
            self.tree.stop();
            let fault = match seen {
                Seen::Fault(fault) => fault.to_string(),
                _ => "an empty line".to_owned(),
            };
            return self.line_fault(place, leaf, fault);
        };
        let (stream, seq) = (head.stream.clone(), head.seq);
        let awaited = self.verifier.next(&stream);
        if awaited.is_some_and(|awaited| seq < awaited) {
            return self.again(place, leaf, &stream, seq, hash);
        }
        if place.is_exact {
            if leaf < self.next {
                let fault = format!(
                    "record {seq} of stream {stream} stands where another object has another record"
                );
                return self.line_fault(place, leaf, fault);
            }
            // Of rows that say their numbers.
            self.missing_before(leaf);
            self.next = leaf.saturating_add(1);
        } else {
            self.next = self.next.max(leaf.saturating_add(1));
        }
        self.tree.push(hash);
        let lacked = match awaited {
            // Of a part, streams may begin anywhere.
            None if self.part => 0,
            awaited => seq.saturating_sub(awaited.unwrap_or(0)),
        };
        if lacked > 0 && lacked <= self.unplaced {
            self.unplaced = self.unplaced.saturating_sub(lacked);
            self.verifier.announce(stream.clone(), seq);
        }
        self.verdict.records = self.verdict.records.saturating_add(1);
        self.verifier.take(seen);
        if self.own.contains(&stream) {
            // Only the ledger's own stream is believed.
            if let Some(Onward { stream, from }) = onward {
                self.verifier.announce(stream, from);
            }
            if let Some(note) = note {
                self.on_record(&stream, note.as_bytes());
            }
        }
    }

    /// A record that was there.
    fn again(&mut self, place: &Place<'_>, leaf: u64, stream: &StreamId, seq: u64, hash: Hash) {
        if self.tree.has(&hash) {
            self.verdict.copies = self.verdict.copies.saturating_add(1);
            return;
        }
        let fault = format!(
            "record {seq} of stream {stream} was there before, and is another here, or stood too far back to be compared"
        );
        self.line_fault(place, leaf, fault);
    }

    /// A checkpoint that the ledger has put on record.
    fn on_record(&mut self, own: &StreamId, note: &[u8]) {
        match self.signed(note) {
            Ok(signed) if *own == StreamId::of_ledger(signed.checkpoint.origin.as_str()) => {
                let proved = Proved::of(&signed, false);
                self.verdict.known(&signed.checkpoint.origin);
                self.tree.expect(proved);
            }
            // Of another log, or by a key that was not given: it proves nothing.
            _ => self.verdict.unsigned = self.verdict.unsigned.saturating_add(1),
        }
    }

    fn line_fault(&mut self, place: &Place<'_>, leaf: u64, fault: String) {
        self.fault(Fault::Line {
            object: place.object.to_owned(),
            leaf,
            fault,
        });
    }

    fn fault(&mut self, fault: Fault) {
        self.verdict.fault(fault);
    }
}

/// Where a record stands.
struct Place<'a> {
    object: &'a str,
    /// Its number is the record's own.
    is_exact: bool,
}

#[cfg(test)]
mod tests;
