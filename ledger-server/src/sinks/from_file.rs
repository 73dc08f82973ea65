//! Sinks from a file: YAML documents of kind `AuditSink`, and their Secrets as files `FOLDER/SECRET/KEY`. Both are read again when they change.
//!
//! Invariant: a file that cannot be read or has an error changes nothing that runs.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::bail;
use chaperone_crds::documents::{Document, MAX_FILE_BYTES, parse};
use chaperone_sinks::settings::Sink;

use super::{Desired, SinksHandle};
use crate::settings_files as files;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(10);

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
        let text = files::text(&self.file, MAX_FILE_BYTES)?;
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
        files::secret(self.secrets.as_ref()?, secret, key)
    }
}
