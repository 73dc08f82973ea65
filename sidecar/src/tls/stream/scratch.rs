//! Buffers that a thread lends to one read or write at a time, so that no connection needs any of its own.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Bytes of a buffer that is made: what is left of a record, and a large read.
const USUAL_BYTES: usize = 52 * 1024;
/// Longest buffer that is taken back. Longer ones were needed once.
const LONGEST_BYTES: usize = 2 * USUAL_BYTES;
/// Most buffers that a thread has ready. TLS inside of TLS needs a pair for each layer.
const READY: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    /// One of no particular length.
    pub(super) fn new() -> Self {
        Self(SPARE.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// One of at least so many bytes, whatever they are.
    pub(super) fn of(bytes: usize) -> Self {
        let mut scratch = Self::new();
        scratch.grow(bytes);
        scratch
    }

    /// Makes it so long at least.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.0.len() < bytes {
            self.0.resize(bytes.max(USUAL_BYTES), 0);
        }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        if !(1..=LONGEST_BYTES).contains(&buffer.len()) {
            return;
        }
        // While a thread ends there is nothing to give back to.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < READY {
                spare.push(buffer);
            }
        });
    }
}

/// Bytes that are to be sent, in the order in which they were put in.
pub(super) struct Outgoing {
    scratch: Scratch,
    filled: usize,
}

impl Outgoing {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            filled: 0,
        }
    }

    /// Room for at least so many more.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.scratch.grow(self.filled.saturating_add(bytes));
        self.scratch.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many were put into the room.
    pub(super) fn add(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes).min(self.scratch.len());
    }

    /// All of them.
    pub(super) fn bytes(&self) -> &[u8] {
        self.scratch.get(..self.filled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_thread_has_few_buffers_ready_and_keeps_no_long_one() {
        let lent: Vec<_> = (0..READY + 3).map(|_| Scratch::of(1)).collect();
        assert!(lent.iter().all(|one| one.len() == USUAL_BYTES));
        drop(lent);
        assert_eq!(spare(), READY);
        let mut long = Scratch::new();
        long.grow(LONGEST_BYTES + 1);
        drop(long);
        assert_eq!(spare(), READY - 1);
    }

    #[test]
    fn what_goes_out_keeps_its_order_and_finds_room() {
        let mut out = Outgoing::new();
        for (byte, count) in [(1, 10), (2, USUAL_BYTES), (3, 5)] {
            out.room(count)[..count].fill(byte);
            out.add(count);
        }
        let expected = [vec![1; 10], vec![2; USUAL_BYTES], vec![3; 5]].concat();
        assert!(out.bytes() == expected);
    }
}
