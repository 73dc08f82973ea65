//! Faults in a verdict's words: those that it lists, and how many more there are.

use std::fmt;

/// A line for each, and one for the rest.
pub(crate) fn write(
    f: &mut fmt::Formatter<'_>,
    listed: &[impl fmt::Display],
    count: u64,
) -> fmt::Result {
    for fault in listed {
        writeln!(f, "FAULT: {fault}")?;
    }
    let further = count.saturating_sub(u64::try_from(listed.len()).unwrap_or(u64::MAX));
    if further > 0 {
        writeln!(f, "and {further} further faults")?;
    }
    Ok(())
}
