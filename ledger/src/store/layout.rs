//! Names in a ledger's directory; docs/ledger-format.md has them all.

/// The newest checkpoint's file.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// The file of the newest checkpoint that enough witnesses have signed.
pub(crate) const WITNESSED: &str = "checkpoint.witnessed";
/// The file that says what the directory is.
pub(crate) const IDENTITY: &str = "ledger.json";
/// The folder of the segments.
pub(crate) const RECORDS: &str = "records";
/// The folder of the keys of content.
pub(crate) const KEYS: &str = "keys";
/// What this code writes.
pub(crate) const FORMAT: u32 = 2;
/// What it reads too: a directory without keys, whose lines are records alone.
pub(crate) const FORMER: u32 = 1;
