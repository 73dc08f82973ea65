//! Copies.
//!
//! Up to 128 bytes a range is covered by pieces from both ends, which may overlap in its middle: all are loaded before any is stored, so it does not matter whether the ranges overlap. Longer ones take a loop
//! of 64 bytes, and where they do not overlap and are longer still, `rep movsb`, which then is as fast as anything.

use core::arch::asm;

use crate::word::{Sixteen, Word};

/// From this many bytes on, the processor's own copy is worth its start.
const STRING_BYTES: usize = 2048;
/// Bytes that the loop moves at once.
const BLOCK: usize = 64;

/// Copies `n` bytes between ranges that do not overlap.
///
/// # Safety
/// Both ranges are valid for `n` bytes and do not overlap.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if n <= 128 {
            short(to, from, n);
        } else if n < STRING_BYTES {
            forwards(to, from, n);
        } else {
            string(to, from, n);
        }
    }
}

/// Copies `n` bytes between ranges that may overlap.
///
/// # Safety
/// Both ranges are valid for `n` bytes.
#[inline(always)]
pub unsafe fn shift(to: *mut u8, from: *const u8, n: usize) {
    let ahead = to.addr().wrapping_sub(from.addr());
    let behind = from.addr().wrapping_sub(to.addr());
    // SAFETY: the caller's promise.
    unsafe {
        if n <= 128 {
            short(to, from, n);
        } else if ahead < n {
            backwards(to, from, n);
        } else if n < STRING_BYTES || behind < n {
            forwards(to, from, n);
        } else {
            string(to, from, n);
        }
    }
}

/// At most 128 bytes, overlapping or not.
///
/// # Safety
/// Both ranges are valid for `n` bytes.
#[inline(always)]
unsafe fn short(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: the caller's promise, and each size is at most n and at least half of it.
    unsafe {
        match n {
            0 => {}
            1 => u8::load(from).store(to),
            2..=3 => ends::<u16, 1>(to, from, n),
            4..=7 => ends::<u32, 1>(to, from, n),
            8..=15 => ends::<u64, 1>(to, from, n),
            16..=32 => ends::<Sixteen, 1>(to, from, n),
            33..=64 => ends::<Sixteen, 2>(to, from, n),
            _ => ends::<Sixteen, 4>(to, from, n),
        }
    }
}

/// The first and the last `N` pieces of a range, which together are all of it.
///
/// # Safety
/// Both ranges are valid for `n` bytes, and `n` is at least the size of `N` pieces.
#[inline(always)]
unsafe fn ends<W: Word, const N: usize>(to: *mut u8, from: *const u8, n: usize) {
    let size = size_of::<W>();
    let rest = n.wrapping_sub(N.wrapping_mul(size));
    // SAFETY: all offsets are below n.
    unsafe {
        let first: [W; N] = core::array::from_fn(|i| W::load(from.add(i.wrapping_mul(size))));
        let last: [W; N] =
            core::array::from_fn(|i| W::load(from.add(rest).add(i.wrapping_mul(size))));
        let mut i = 0;
        while i < N {
            first[i].store(to.add(i.wrapping_mul(size)));
            last[i].store(to.add(rest).add(i.wrapping_mul(size)));
            i = i.wrapping_add(1);
        }
    }
}

/// More than 64 bytes to a place that is not within the source.
///
/// # Safety
/// Both ranges are valid for `n` bytes, `n` is at least 64, and `to` is not within the bytes of the source after its first.
unsafe fn forwards(to: *mut u8, from: *const u8, n: usize) {
    let last = n.wrapping_sub(BLOCK);
    // SAFETY: all offsets are at most `last`. The end is loaded before anything is stored, and what a block overwrites of the source is behind the next block.
    unsafe {
        let end = block(from.add(last));
        let mut at = 0;
        while at < last {
            put(to.add(at), block(from.add(at)));
            at = at.wrapping_add(BLOCK);
        }
        put(to.add(last), end);
    }
}

/// More than 64 bytes to a place within the source.
///
/// # Safety
/// Both ranges are valid for `n` bytes, and `n` is at least 64.
unsafe fn backwards(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: all offsets are at most `n - 64`. The beginning is loaded before anything is stored, and what a block overwrites of the source is ahead of the next block.
    unsafe {
        let beginning = block(from);
        let mut at = n.wrapping_sub(BLOCK);
        while at > 0 {
            put(to.add(at), block(from.add(at)));
            at = at.saturating_sub(BLOCK);
        }
        put(to, beginning);
    }
}

/// # Safety
/// `from` is valid for reads of 64 bytes.
#[inline(always)]
unsafe fn block(from: *const u8) -> [Sixteen; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            Sixteen::load(from),
            Sixteen::load(from.add(16)),
            Sixteen::load(from.add(32)),
            Sixteen::load(from.add(48)),
        ]
    }
}

/// # Safety
/// `to` is valid for writes of 64 bytes.
#[inline(always)]
unsafe fn put(to: *mut u8, block: [Sixteen; 4]) {
    let [first, second, third, fourth] = block;
    // SAFETY: the caller's promise.
    unsafe {
        first.store(to);
        second.store(to.add(16));
        third.store(to.add(32));
        fourth.store(to.add(48));
    }
}

/// The processor's own copy.
///
/// # Safety
/// Both ranges are valid for `n` bytes and do not overlap.
#[inline(always)]
unsafe fn string(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: the caller's promise. The direction flag is clear on entry (System V ABI).
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") n => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}
