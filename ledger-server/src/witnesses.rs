//! Has each checkpoint cosigned by the witnesses of a policy (C2SP tlog-witness).
//!
//! Owns who was asked for what and what came of it. Refuses to hold anything up: a checkpoint is published before it is cosigned, and a witness that is away is asked again. A witness that knows
//! more of the log than there is, or that the log contradicts, is told as an error: then this is not the history that was shown before.

mod asked;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use chaperone_ledger::{
    checkpoint::{self, Origin},
    key::VerifierKey,
    note,
    witness::{self, Policy},
};
use chaperone_sinks::tls::{self, HTTP1};
use futures::future::join_all;
use tokio::{sync::watch, time::sleep};

use crate::{metrics::Metrics, writer::WriterHandle};
use asked::Asked;

/// How long after a round in which one failed the next follows, where no checkpoint comes before.
const RETRY: Duration = Duration::from_secs(30);
/// Longest policy file, in bytes.
const MAX_POLICY_BYTES: u64 = 1024 * 1024;

/// The witnesses of a ledger.
pub struct Witnesses {
    policy: Policy,
    asked: Vec<Asked>,
    origin: Origin,
    /// The log's own keys.
    keys: Vec<VerifierKey>,
    dir: PathBuf,
}

impl Witnesses {
    /// Reads the policy. Nobody is asked yet.
    ///
    /// # Errors
    /// If it cannot be read, is for another log, or names a witness that cannot be asked.
    pub fn read(
        file: &std::path::Path,
        ca: Option<&std::path::Path>,
        origin: &Origin,
        keys: Vec<VerifierKey>,
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        let name = || file.display().to_string();
        if std::fs::metadata(file).with_context(name)?.len() > MAX_POLICY_BYTES {
            bail!("{} is longer than {MAX_POLICY_BYTES} bytes", file.display());
        }
        let text = std::fs::read_to_string(file).with_context(name)?;
        let policy: Policy = text.parse().with_context(name)?;
        if !policy.logs().is_empty() && !policy.logs().iter().any(|key| keys.contains(key)) {
            bail!(
                "{} is for another log: none of its log lines is a key of this one",
                file.display()
            );
        }
        let ca = ca
            .map(std::fs::read_to_string)
            .transpose()
            .context("the witnesses' CA file")?;
        let settings = tls::Settings {
            ca_bundle: ca.as_deref(),
            ..tls::Settings::default()
        };
        let config = std::sync::Arc::new(tls::client_config(settings, Some(HTTP1))?);
        let asked = policy.witnesses().iter().map(|witness| {
            Asked::new(witness, &config)
                .with_context(|| format!("{}: witness {}", file.display(), witness.name))
        });
        Ok(Self {
            asked: asked.collect::<anyhow::Result<_>>()?,
            policy,
            origin: origin.clone(),
            keys,
            dir,
        })
    }

    /// Asks for each checkpoint that `signed` tells of, until the writer is gone.
    pub async fn run(
        mut self,
        mut signed: watch::Receiver<u64>,
        writer: WriterHandle,
        metrics: Metrics,
    ) {
        loop {
            signed.mark_unchanged();
            let all = match self.round(&writer, &metrics).await {
                Ok(all) => all,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "witnesses could not be asked");
                    false
                }
            };
            tokio::select! {
                changed = signed.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if !all => {}
            }
        }
    }

    /// One checkpoint, all witnesses. True where all have cosigned.
    async fn round(&mut self, writer: &WriterHandle, metrics: &Metrics) -> anyhow::Result<bool> {
        let dir = self.dir.clone();
        let newest = tokio::task::spawn_blocking(move || witness::newest(&dir)).await?;
        let Some(note) = newest? else {
            return Ok(true);
        };
        let size = checkpoint::open(&note, &self.origin, &self.keys)?
            .checkpoint
            .size;
        self.asked
            .iter_mut()
            .for_each(|asked| asked.look(&note, size));
        let dir = &self.dir;
        let waiting = self.asked.iter_mut().filter(|asked| asked.lacks(size));
        let answers = join_all(waiting.map(|asked| asked.ask(dir, &note, size, metrics))).await;
        let mut cosigned = note.clone();
        for lines in answers.into_iter().flatten() {
            cosigned.extend_from_slice(&lines);
        }
        if cosigned != note {
            let suffices = self.suffices(&cosigned);
            writer.cosigned(cosigned, suffices);
            if suffices {
                metrics
                    .witnessed_records
                    .set(i64::try_from(size).unwrap_or(i64::MAX));
            }
        }
        Ok(!self.asked.iter().any(|asked| asked.lacks(size)))
    }

    fn suffices(&self, note: &[u8]) -> bool {
        let keys: Vec<_> = self
            .policy
            .witnesses()
            .iter()
            .map(|w| w.key.clone())
            .collect();
        note::open(note, &keys).is_ok_and(|opened| {
            let signed = |key: &VerifierKey| opened.signatures.iter().any(|s| s.key == key);
            self.policy.is_satisfied(signed)
        })
    }
}
