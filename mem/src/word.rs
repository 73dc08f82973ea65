//! Pieces of memory that are moved and compared at once, at any alignment.

use core::{
    arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_storeu_si128},
    ptr,
};

/// A piece of 1 to 16 bytes.
pub(crate) trait Word: Copy {
    /// # Safety
    /// `from` is valid for reads of the size of `Self`.
    unsafe fn load(from: *const u8) -> Self;
    /// # Safety
    /// `to` is valid for writes of the size of `Self`.
    unsafe fn store(self, to: *mut u8);
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Word for $integer {
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller's promise; any alignment will do.
                unsafe { ptr::read_unaligned(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller's promise; any alignment will do.
                unsafe { ptr::write_unaligned(to.cast(), self) }
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

/// Sixteen bytes. SSE2 is part of x86-64.
pub(crate) type Sixteen = __m128i;

impl Word for Sixteen {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's promise; any alignment will do.
        unsafe { _mm_loadu_si128(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's promise; any alignment will do.
        unsafe { _mm_storeu_si128(to.cast(), self) }
    }
}

/// One bit for each byte that differs, the first byte's lowest.
#[inline(always)]
pub(crate) fn differing(left: Sixteen, right: Sixteen) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    let equal = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(left, right)) };
    !(equal as u32) & 0xffff
}
