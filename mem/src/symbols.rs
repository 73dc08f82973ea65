//! The names that C gives these functions. All four together: musl keeps some in one object, which would come back with any that is missing.

use core::ffi::c_int;

/// C's `memcpy`.
///
/// # Safety
/// Both ranges are valid for `n` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise is the same.
    unsafe { crate::copy(to, from, n) };
    to
}

/// C's `memmove`.
///
/// # Safety
/// Both ranges are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise is the same.
    unsafe { crate::shift(to, from, n) };
    to
}

/// C's `memcmp`.
///
/// # Safety
/// Both ranges are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, n: usize) -> c_int {
    // SAFETY: the caller's promise is the same.
    unsafe { crate::compare(left, right, n) }
}

/// `bcmp`, which LLVM calls where only equality matters.
///
/// # Safety
/// Both ranges are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, n: usize) -> c_int {
    // SAFETY: the caller's promise is the same.
    c_int::from(unsafe { crate::differ(left, right, n) })
}
