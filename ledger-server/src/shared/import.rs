//! Moves a ledger's directory into a shared store.
//!
//! Owns what may be overwritten there: nothing, or what a former try has left. Refuses a directory that does not prove itself. Invariant: the checkpoint goes first, so that no replica can lead on a part of the records: it would find fewer than were signed.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use chaperone_ledger::store::{Config, Store};
use chaperone_server::serve::Exempt;
use tokio::sync::watch;

use super::{
    Failed, SharedSettings,
    database::Database,
    lead::Lease,
    objects::{Objects, replace},
    plan::{FILES, FOLDERS, is_shared},
};
use crate::{metrics::Metrics, postgres::Connector};

/// Who leads meanwhile.
const HOLDER: &str = "chaperone-ledger share";
/// The file that goes first.
const CHECKPOINT: &str = "checkpoint";

/// Copies the directory of this log; `tell` hears how far it is, a line at a time.
///
/// # Errors
/// If the directory does not prove itself or is in use, the store has another history or a leader, or either is not reached. It can be tried again.
pub async fn import(
    config: Config,
    settings: &SharedSettings,
    tell: &mut dyn FnMut(String),
) -> Result<(), Failed> {
    let version = env!("CARGO_PKG_VERSION");
    let objects = settings.s3.as_ref().map(|s3| Objects::new(s3, version));
    let objects = objects.transpose()?;
    let (dir, origin) = (config.dir.clone(), config.origin.to_string());
    tell(format!("proving {}", dir.display()));
    // It is locked as long as the store is there.
    let store = tokio::task::spawn_blocking(move || Store::open(config)).await?;
    let store = store.with_context(|| dir.display().to_string())?;
    let files = files(&dir)?;
    let mut database = Database::new(Connector::new(&settings.postgres, version)?);
    database.begin(&origin).await?;
    may_begin(&mut database, &dir).await?;
    let lead = database.acquire(HOLDER, "").await?;
    let epoch = lead.context("a replica leads: end all replicas first")?;
    let lease = tokio::spawn(lease(&database, epoch).run());
    let all = files.len();
    for (file, done) in files.iter().zip(1_usize..) {
        // The newest segment goes on in the tables.
        let objects = objects
            .as_ref()
            .filter(|_| file.starts_with("records/") && done < all);
        let path = dir.join(file);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        replace(&mut database, objects, epoch, file, bytes).await?;
        tell(format!("{file}: {done} of {all} files"));
    }
    lease.abort();
    database.release(epoch).await?;
    let records = store.committed().leaves();
    tell(format!(
        "{records} records of {origin} are shared now. Serve this directory no more: there would be two histories of one log"
    ));
    Ok(())
}

/// The checkpoint, then keys, what sinks keep, and records.
fn files(dir: &Path) -> Result<Vec<String>, Failed> {
    let mut files = Vec::new();
    for file in FILES {
        if dir.join(file).exists() {
            files.push(file.to_owned());
        }
    }
    if files.first().is_none_or(|first| first != CHECKPOINT) {
        bail!("{} has no checkpoint", dir.display());
    }
    for folder in FOLDERS.iter().rev() {
        let Ok(entries) = fs::read_dir(dir.join(folder)) else {
            continue;
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            // A segment without bytes was begun and never written.
            let is_there = entry.metadata()?.len() > 0 && !is_unfinished(&name);
            if is_shared(&name) && is_there {
                names.push(name);
            }
        }
        names.sort_unstable();
        files.extend(names);
    }
    Ok(files)
}

fn is_unfinished(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "tmp")
}

/// Whether the store has nothing, or what a former try with this directory has left: whoever leads signs a checkpoint of its own at once.
async fn may_begin(database: &mut Database, dir: &Path) -> Result<(), Failed> {
    if database.look().await?.newest().await? == 0 {
        return Ok(());
    }
    let there = database.bytes(CHECKPOINT).await?;
    match fs::read(dir.join(CHECKPOINT))? == there {
        true => Ok(()),
        false => bail!("the shared store has another history already: it is not overwritten"),
    }
}

fn lease(database: &Database, epoch: u64) -> Lease {
    Lease {
        database: database.another(),
        epoch,
        superseded: watch::channel(false).0,
        replicas: Exempt::default(),
        metrics: Metrics::new(),
    }
}
