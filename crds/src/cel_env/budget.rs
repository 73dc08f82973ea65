//! What one evaluation may cost, counted as it runs.
//!
//! Owns one counter per thread; an evaluation runs on one thread from [`begin`] to its end. Static limits alone do not bound an expression over a
//! body that the agent wrote: loops over loops over a large list do. Invariant: once exhausted, it stays so until the next [`begin`], and the caller
//! turns that into an error.

use std::cell::Cell;

/// Units that one evaluation may use. One unit is about one byte looked at, so this is sixteen passes over the largest body that is judged, or about
/// 130,000 loop steps: some tens of milliseconds.
pub(crate) const UNITS: u64 = 16 * 1024 * 1024;
/// Units of one loop step or one variable.
pub(crate) const STEP: u64 = 128;

/// What the error says.
pub(crate) const EXHAUSTED: &str = "it takes too many steps on this operation";

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Starts an evaluation on this thread.
pub(crate) fn begin() {
    LEFT.set(UNITS);
}

/// Uses units; false when they are used up.
pub(crate) fn charge(units: u64) -> bool {
    let left = LEFT.get().saturating_sub(units);
    LEFT.set(left);
    left > 0
}

/// Uses [`STEP`] and one unit a byte.
pub(crate) fn charge_bytes(bytes: usize) -> bool {
    charge(STEP.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)))
}

/// Whether the units are used up.
pub(crate) fn exhausted() -> bool {
    LEFT.get() == 0
}
