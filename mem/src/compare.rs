//! Comparisons.

use core::ffi::c_int;

use crate::word::{Sixteen, Word, differing};

/// The order of two ranges: that of their first bytes that differ; 0 where none does.
///
/// # Safety
/// Both ranges are valid for reads of `n` bytes.
#[inline(always)]
pub unsafe fn compare(left: *const u8, right: *const u8, n: usize) -> c_int {
    // SAFETY: the caller's promise; `at` is below `n`.
    unsafe {
        match first_difference(left, right, n) {
            Some(at) => c_int::from(u8::load(left.add(at)))
                .wrapping_sub(c_int::from(u8::load(right.add(at)))),
            None => 0,
        }
    }
}

/// Whether two ranges differ.
///
/// # Safety
/// Both ranges are valid for reads of `n` bytes.
#[inline(always)]
pub unsafe fn differ(left: *const u8, right: *const u8, n: usize) -> bool {
    // SAFETY: the caller's promise, and each size is at most n and at least half of it.
    unsafe {
        match n {
            0 => false,
            1 => u8::load(left) != u8::load(right),
            2..=3 => ends::<u16>(left, right, n),
            4..=7 => ends::<u32>(left, right, n),
            8..=16 => ends::<u64>(left, right, n),
            _ => first_difference(left, right, n).is_some(),
        }
    }
}

/// Whether the first or the last pieces of two ranges differ, which together are all of them.
///
/// # Safety
/// Both ranges are valid for reads of `n` bytes, and `n` is at least the size of a piece.
#[inline(always)]
unsafe fn ends<W: Word + PartialEq>(left: *const u8, right: *const u8, n: usize) -> bool {
    let rest = n.wrapping_sub(size_of::<W>());
    // SAFETY: the caller's promise.
    unsafe {
        W::load(left) != W::load(right) || W::load(left.add(rest)) != W::load(right.add(rest))
    }
}

/// Where two ranges differ first.
///
/// # Safety
/// Both ranges are valid for reads of `n` bytes.
#[inline(always)]
unsafe fn first_difference(left: *const u8, right: *const u8, n: usize) -> Option<usize> {
    let mut at = 0_usize;
    // SAFETY: what is read ends at most at n.
    unsafe {
        while at.wrapping_add(16) <= n {
            let bits = differing(Sixteen::load(left.add(at)), Sixteen::load(right.add(at)));
            if bits != 0 {
                return Some(at.wrapping_add(bits.trailing_zeros() as usize));
            }
            at = at.wrapping_add(16);
        }
        if at < n && n >= 16 {
            // The rest, with bytes before it that are known to be equal.
            at = n.wrapping_sub(16);
            let bits = differing(Sixteen::load(left.add(at)), Sixteen::load(right.add(at)));
            return (bits != 0).then(|| at.wrapping_add(bits.trailing_zeros() as usize));
        }
        short(left, right, at, n)
    }
}

/// Less than 16 bytes, from `at` on.
///
/// # Safety
/// Both ranges are valid for reads of `n` bytes.
#[inline(always)]
unsafe fn short(left: *const u8, right: *const u8, mut at: usize, n: usize) -> Option<usize> {
    // SAFETY: what is read ends at most at n.
    unsafe {
        if at.wrapping_add(8) <= n {
            let bits = u64::load(left.add(at)) ^ u64::load(right.add(at));
            if bits != 0 {
                return Some(at.wrapping_add((bits.trailing_zeros() / 8) as usize));
            }
            at = at.wrapping_add(8);
        }
        if at.wrapping_add(4) <= n {
            let bits = u32::load(left.add(at)) ^ u32::load(right.add(at));
            if bits != 0 {
                return Some(at.wrapping_add((bits.trailing_zeros() / 8) as usize));
            }
            at = at.wrapping_add(4);
        }
        while at < n {
            if u8::load(left.add(at)) != u8::load(right.add(at)) {
                return Some(at);
            }
            at = at.wrapping_add(1);
        }
        None
    }
}
