//! What is to be said of a copy, in words.

use std::fmt;

use chaperone_crds::verify::Report;
use thiserror::Error;

use super::MAX_LISTED;
use crate::{
    audit::TreeHead,
    checkpoint::{Origin, Signed},
    listed,
    merkle::Hash,
};

/// A checkpoint that the records are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Which log.
    pub origin: Origin,
    /// What was signed, by whom.
    pub head: TreeHead,
    /// It was kept elsewhere; else it is on record in the log itself.
    pub kept: bool,
}

/// Records that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Number in the log from which on they are missing.
    pub from: u64,
    /// The last that may be one of them.
    pub to: u64,
    /// How many.
    pub records: u64,
    /// The object that has the others of these numbers; empty where all are missing.
    pub object: String,
}

/// What is to be said of everything that was read.
#[derive(Debug)]
pub struct Verdict {
    /// Objects that were read.
    pub objects: u64,
    /// Lines and rows of them.
    pub lines: u64,
    /// Records, each once.
    pub records: u64,
    /// Records that are there more than once, and are the same.
    pub copies: u64,
    /// Number in the log of the first record.
    pub first: u64,
    /// Number in the log after the last record.
    pub leaves: u64,
    /// The streams.
    pub streams: Report,
    /// What is missing, the first hundred ranges.
    pub missing: Vec<Missing>,
    /// Records that are missing, by their numbers in the log.
    pub missing_records: u64,
    /// The newest checkpoint that the records were found to be what was signed by: they are whole up to it.
    pub proved: Option<Proved>,
    /// Sizes of the checkpoints that were kept elsewhere.
    pub kept: Vec<u64>,
    /// Sizes of those that the records do not reach, or not without a gap.
    pub unreached: Vec<u64>,
    /// Checkpoints on record that no key that was given has signed.
    pub unsigned: u64,
    /// Checkpoints on record that came too late after what they cover.
    pub uncompared: u64,
    /// What is wrong, the first hundred.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub fault_count: u64,
    /// Keys were given.
    keyed: bool,
    origin: Option<Origin>,
}

/// What is wrong with a copy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// An object.
    #[error("{object}: {fault}")]
    Object {
        /// Its name.
        object: String,
        /// How.
        fault: String,
    },
    /// A line.
    #[error("{object}, leaf {leaf}: {fault}")]
    Line {
        /// The object.
        object: String,
        /// The number in the log that it stands for.
        leaf: u64,
        /// How.
        fault: String,
    },
    /// Records are others than those that were signed.
    #[error(
        "{} of {size} records has the root {signed}, the records here have {computed}: records after the first {sound} were changed, removed or moved",
        name(*.kept)
    )]
    Contradicted {
        /// Leaves of the checkpoint.
        size: u64,
        /// It was kept elsewhere.
        kept: bool,
        /// The root of what is there.
        computed: Hash,
        /// The root that was signed.
        signed: Hash,
        /// Leaves that are as they were signed.
        sound: u64,
    },
}

fn name(kept: bool) -> &'static str {
    match kept {
        true => "the checkpoint that was kept elsewhere",
        false => "the checkpoint on record",
    }
}

impl Proved {
    pub(super) fn of(signed: &Signed<'_>, kept: bool) -> Self {
        Self {
            origin: signed.checkpoint.origin.clone(),
            head: TreeHead::of(signed),
            kept,
        }
    }
}

impl Verdict {
    pub(super) fn new(keyed: bool) -> Self {
        Self {
            objects: 0,
            lines: 0,
            records: 0,
            copies: 0,
            first: 0,
            leaves: 0,
            streams: Report {
                streams: Vec::new(),
                lines: 0,
                line_faults: Vec::new(),
                line_fault_count: 0,
            },
            missing: Vec::new(),
            missing_records: 0,
            proved: None,
            kept: Vec::new(),
            unreached: Vec::new(),
            unsigned: 0,
            uncompared: 0,
            faults: Vec::new(),
            fault_count: 0,
            keyed,
            origin: None,
        }
    }

    /// Which log it is, where something signed says so.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    pub(super) fn known(&mut self, origin: &Origin) {
        self.origin.get_or_insert_with(|| origin.clone());
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < MAX_LISTED {
            self.faults.push(fault);
        }
    }

    pub(super) fn lack(&mut self, missing: Missing) {
        self.missing_records = self.missing_records.saturating_add(missing.records);
        if self.missing.len() < MAX_LISTED {
            self.missing.push(missing);
        }
    }

    /// True when nothing that is there was changed or moved, each stream's chain is whole but for what is said to be missing, and where keys were given, a checkpoint by one of them covers something.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.fault_count == 0 && self.streams.is_intact() && !self.lacks_proof()
    }

    /// True when the log is there from its first record on (from the first that is there, of a part), up to each checkpoint that it was compared with.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing_records == 0 && self.streams.missing() == 0 && self.unreached.is_empty()
    }

    /// Keys were given, and nothing that they signed could be compared.
    #[must_use]
    pub fn lacks_proof(&self) -> bool {
        let is_silent = self.fault_count == 0 && self.unreached.is_empty();
        self.keyed && self.proved.is_none() && self.is_whole() && is_silent
    }

    /// Whether all records have their place in the tree.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.missing_records == 0
    }

    /// Records after the newest checkpoint that proves something.
    #[must_use]
    pub fn unproved(&self) -> u64 {
        let proved = self.proved.as_ref().map_or(0, |proved| proved.head.size);
        self.leaves.saturating_sub(proved)
    }

    fn tree(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Proved { origin, head, kept }) = &self.proved {
            let whence = match kept {
                true => "kept elsewhere",
                false => "on record",
            };
            writeln!(
                f,
                "ledger {origin}: {head}, {whence}: all of these records are here, as they were signed"
            )?;
        }
        for size in &self.kept {
            writeln!(
                f,
                "compared with a checkpoint of {size} records that was kept elsewhere"
            )?;
        }
        if self.unsigned > 0 {
            let unsigned = self.unsigned;
            writeln!(
                f,
                "{unsigned} checkpoints on record are signed by none of the keys given, and prove nothing"
            )?;
        }
        if self.uncompared > 0 {
            let uncompared = self.uncompared;
            writeln!(
                f,
                "{uncompared} checkpoints on record came too long after what they cover to be compared"
            )?;
        }
        if !self.keyed {
            writeln!(
                f,
                "nothing signed was compared: chains only; give the ledger's public key with --key"
            )?;
        } else if !self.is_whole() {
            writeln!(
                f,
                "not the whole log: chains only, from leaf {} on",
                self.sound()
            )?;
        }
        Ok(())
    }

    /// Leaves from which on there is no tree.
    fn sound(&self) -> u64 {
        match self.first {
            0 => self.missing.first().map_or(0, |missing| missing.from),
            first => first,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            records,
            object,
        } = self;
        match object.is_empty() {
            true => write!(f, "MISSING: {records} records, leaves {from} to {to}"),
            false => write!(
                f,
                "MISSING: {records} records of leaves {from} to {to}; {object} has the others"
            ),
        }
    }
}

impl fmt::Display for Verdict {
    /// A line for each stream, what is signed, what is missing, each fault, and a last one with the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams.streams {
            writeln!(f, "{stream}")?;
        }
        self.tree(f)?;
        for missing in &self.missing {
            writeln!(f, "{missing}")?;
        }
        for size in &self.unreached {
            writeln!(
                f,
                "the checkpoint of {size} records is not reached: not all of its records are here"
            )?;
        }
        listed::write(f, &self.faults, self.fault_count)?;
        if self.lacks_proof() {
            writeln!(
                f,
                "FAULT: there is no checkpoint to compare with that a key given has signed: nothing says how many records there should be"
            )?;
        }
        write!(
            f,
            "{} records in {} streams and {} objects",
            self.records,
            self.streams.streams.len(),
            self.objects
        )?;
        if self.copies > 0 {
            write!(f, ", {} of them again", self.copies)?;
        }
        if self.proved.is_some() {
            write!(f, ", {} after the checkpoint", self.unproved())?;
        }
        if self.streams.deleted_content() > 0 {
            write!(f, ", content of {} deleted", self.streams.deleted_content())?;
        }
        f.write_str(match (self.records, self.is_intact()) {
            (0, _) => ": no records: nothing is proved",
            (_, true) => ": intact",
            (_, false) => ": NOT INTACT",
        })?;
        let missing = self.missing_records.max(self.streams.missing());
        match (self.is_complete(), missing) {
            (true, _) => Ok(()),
            (false, 0) => f.write_str(", INCOMPLETE"),
            (false, missing) => write!(f, ", INCOMPLETE: {missing} records are missing"),
        }
    }
}
