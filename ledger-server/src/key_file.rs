//! Files of signing keys: one `skey` text each, for its owner alone.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context, bail};
use chaperone_ledger::{
    checkpoint::Origin,
    key::{Algorithm, SigningKey},
};

/// Reads a key and sees that it is one of this log.
///
/// # Errors
/// If there is none (the message says how to make one), it cannot be read, or it is another log's.
pub fn read(path: &Path, origin: &Origin) -> anyhow::Result<SigningKey> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "there is no signing key at {shown}: make one with `chaperone-ledger generate-key --origin {} --out {shown}`, keep a copy in a safe place, and give the public half that it prints to auditors",
            origin.as_str()
        ),
        Err(error) => return Err(error).with_context(|| format!("the signing key {shown}")),
    };
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.mode());
    if mode & 0o007 != 0 {
        tracing::warn!(path = %shown, "everyone on this machine may get at the signing key");
    }
    let key: SigningKey = text
        .trim()
        .parse()
        .with_context(|| format!("the signing key {shown}"))?;
    let verifier = key.verifier();
    if verifier.algorithm() != Algorithm::Ed25519 || verifier.name().as_str() != origin.as_str() {
        bail!(
            "the signing key {shown} is {verifier}: not an Ed25519 key of {}",
            origin.as_str()
        );
    }
    Ok(key)
}

/// Makes a key for this log. Gives the public half (`vkey`).
///
/// # Errors
/// If the file is there already (a key is never overwritten), or cannot be written.
pub fn generate(path: &Path, origin: &Origin) -> anyhow::Result<String> {
    let name = origin
        .as_str()
        .parse()
        .context("the origin as a key's name")?;
    let key = SigningKey::generate(name, Algorithm::Ed25519)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    writeln!(file, "{}", key.to_secret_text())
        .and_then(|()| file.sync_all())
        .with_context(|| path.display().to_string())?;
    Ok(key.verifier().to_string())
}
