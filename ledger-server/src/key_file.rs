//! Files of signing keys: one `skey` text each, for its owner alone.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use chaperone_ledger::{
    checkpoint::Origin,
    key::{Algorithm, SigningKey},
};

/// Reads the keys of a log: of this one, or else of the one that the first key is named after. Gives its origin too.
///
/// # Errors
/// If there is no file, a key is missing (the message says how to make one), cannot be read, or is another log's.
pub fn read_all(
    paths: &[PathBuf],
    origin: Option<&Origin>,
) -> anyhow::Result<(Origin, Vec<SigningKey>)> {
    let keys = paths
        .iter()
        .map(|path| read(path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let first = keys.first().context("no --key-file")?;
    let origin = match origin {
        Some(origin) => origin.clone(),
        None => first.verifier().name().as_str().parse()?,
    };
    for (path, key) in paths.iter().zip(&keys) {
        let verifier = key.verifier();
        if verifier.name().as_str() != origin.as_str() {
            bail!(
                "the signing key {} is {verifier}: not a key of {origin}",
                path.display()
            );
        }
    }
    Ok((origin, keys))
}

fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "there is no signing key at {shown}: make one with `chaperone-ledger generate-key --out {shown} --origin` and the log's name, keep a copy in a safe place, and give the public half that it prints to auditors"
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
    if key.verifier().algorithm() != Algorithm::Ed25519 {
        bail!(
            "the signing key {shown} is {}: a witness's, not a log's",
            key.verifier()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_names_the_log_and_all_must_be_of_it() {
        let folder = std::env::temp_dir().join(format!("chaperone-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let make = |file: &str, origin: &str| {
            let path = folder.join(file);
            let _ = std::fs::remove_file(&path);
            generate(&path, &origin.parse().unwrap()).unwrap();
            path
        };
        let (old, new, other) = (
            make("old", "log"),
            make("new", "log"),
            make("other", "elsewhere"),
        );
        let both = [old.clone(), new];
        let (origin, keys) = read_all(&both, None).unwrap();
        assert_eq!((origin.as_str(), keys.len()), ("log", 2));
        let elsewhere: Origin = "elsewhere".parse().unwrap();
        assert!(read_all(&both, Some(&elsewhere)).is_err());
        let error = read_all(&[old, other], None).unwrap_err().to_string();
        assert!(
            error.contains("other") && error.contains("not a key of log"),
            "{error}"
        );
        assert!(read_all(&[], None).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
