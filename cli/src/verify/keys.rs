//! Public keys, as arguments or in files.

use std::fs;

use anyhow::{Context, bail};
use chaperone_ledger::key::VerifierKey;

/// All keys that were given: each a key, or a file that has one a line.
///
/// # Errors
/// When one is neither, or there is none.
pub(crate) fn read_keys(given: &[String]) -> anyhow::Result<Vec<VerifierKey>> {
    let mut keys = Vec::new();
    for given in given {
        keys.extend(read(given)?);
    }
    if keys.is_empty() {
        bail!(
            "a checkpoint proves nothing without the key that signed it: give the ledger's public key with --key"
        );
    }
    Ok(keys)
}

fn read(given: &str) -> anyhow::Result<Vec<VerifierKey>> {
    if let Ok(key) = given.parse() {
        return Ok(vec![key]);
    }
    let text = fs::read_to_string(given).with_context(|| {
        format!("{given:?} is neither a key (NAME+ID+BASE64) nor a file of keys")
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            line.parse()
                .with_context(|| format!("in {given}: {line:?}"))
        })
        .collect()
}
