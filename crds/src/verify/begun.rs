//! Operations that were about to begin, until a record says how they ended.

use std::collections::BTreeSet;

/// Most that are followed at once: more than a sidecar has connections. 16 bytes each.
const MAX_OPEN: usize = 65_536;

/// Beginnings of one stream without an end.
#[derive(Debug, Default)]
pub(super) struct Begun {
    open: BTreeSet<u64>,
    too_many: bool,
}

impl Begun {
    /// Record `seq` says that an operation is about to begin.
    pub(super) fn begins(&mut self, seq: u64) {
        self.too_many |= self.open.len() >= MAX_OPEN;
        if !self.too_many {
            self.open.insert(seq);
        }
    }

    /// The operation that began with this record ended.
    pub(super) fn ends(&mut self, seq: u64) {
        self.open.remove(&seq);
    }

    /// Beginnings without an end, in order; none where there were too many to be followed.
    pub(super) fn unfinished(self) -> Option<Vec<u64>> {
        (!self.too_many).then(|| self.open.into_iter().collect())
    }
}
