//! Sinks from a file: YAML documents of kind `AuditSink`, and their Secrets as files `FOLDER/SECRET/KEY`. Both are read again when they change.
//!
//! Invariant: a file that cannot be read or has an error changes nothing that runs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use chaperone_crds::documents::{Document, MAX_FILE_BYTES, parse};
use chaperone_sinks::settings::Sink;

use super::{Desired, SinksHandle};

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(10);
/// Largest file of a Secret, in bytes, as the API server has it.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

/// Where sinks are read from.
#[derive(Clone, Debug)]
pub struct SinksFile {
    /// The file.
    pub file: PathBuf,
    /// Folder of Secrets.
    pub secrets: Option<PathBuf>,
}

impl SinksFile {
    /// The sinks of the file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(&self) -> anyhow::Result<Vec<Desired>> {
        let path = self.file.display();
        let bytes = bounded(&self.file, MAX_FILE_BYTES.try_into().unwrap_or(u64::MAX))?;
        let text = String::from_utf8(bytes).with_context(|| format!("{path} is no UTF-8"))?;
        let documents = parse(&text).map_err(|errors| anyhow::anyhow!("{path}: {errors}"))?;
        let mut names = BTreeSet::new();
        let mut desired = Vec::new();
        for document in documents {
            let Document::AuditSink(resource) = document else {
                bail!("{path}: {} is no AuditSink", document.title());
            };
            let name = resource.metadata.name.unwrap_or_default();
            if !names.insert(name.clone()) {
                bail!("{path}: there are two AuditSinks {name}");
            }
            let sink = Sink::read(&name, &resource.spec, &|secret, key| {
                self.secret(secret, key)
            });
            desired.push(Desired { name, sink });
        }
        Ok(desired)
    }

    /// Sets the sinks that were read before, and all that the files become. Never ends.
    pub async fn watch(self, mut current: Vec<Desired>, sinks: SinksHandle) {
        loop {
            for Desired { name, sink } in &current {
                if let Err(problems) = sink {
                    let problems = problems.join("; ");
                    tracing::error!(
                        sink = name,
                        problems,
                        "the sink's settings are wrong; if it ran, it goes on with the former ones"
                    );
                }
            }
            sinks.set(current.clone());
            current = loop {
                tokio::time::sleep(INTERVAL).await;
                match self.read() {
                    Ok(new) if new == current => {}
                    Ok(new) => break new,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(
                            error,
                            "the sinks' file cannot be read, the former ones stay"
                        );
                    }
                }
            };
        }
    }

    fn secret(&self, secret: &str, key: &str) -> Option<String> {
        let is_plain = |name: &str| !name.contains('/') && !name.starts_with('.');
        if !is_plain(secret) || !is_plain(key) {
            return None;
        }
        let path = self.secrets.as_ref()?.join(secret).join(key);
        let bytes = bounded(&path, MAX_SECRET_BYTES).ok()?;
        String::from_utf8(bytes).ok()
    }
}

fn bounded(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let length = fs::metadata(path).with_context(|| shown.to_string())?.len();
    if length > most {
        bail!("{shown} is longer than {most} bytes");
    }
    fs::read(path).with_context(|| shown.to_string())
}
