//! A ledger's directory, asked without the ledger: the same index over the same records.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use chaperone_index::{
    query::Query,
    store::{Forgot, Index, Limits, Opened, Reader, Scope},
};
use chaperone_ledger::follow::end_of;
use serde::Deserialize;

use super::{Named, Page, Words};

/// Longest `ledger.json` that is read, in bytes.
const MAX_IDENTITY_BYTES: u64 = 64 * 1024;

pub(crate) struct Directory {
    reader: Reader,
    /// Where the index is, if it goes with the command.
    _temporary: Option<Temporary>,
}

/// A folder that goes with the command.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Deserialize)]
struct Identity {
    origin: String,
}

impl Directory {
    /// Has the index know all that is there now.
    pub(crate) fn open(dir: &Path, index: Option<&Path>) -> anyhow::Result<Self> {
        let origin = origin(dir)?;
        let temporary = match index {
            Some(_) => None,
            None => Some(Temporary::new()?),
        };
        let within = temporary.as_ref().map(|folder| folder.0.join("index"));
        let path = index.map(Path::to_owned).or(within).unwrap_or_default();
        let end = end_of(dir)?;
        let (mut index, opened) = Index::open(&path, dir, &origin, end)?;
        if let Opened::Rebuilt(why) = opened {
            eprintln!("{} is made anew: {why}", path.display());
        }
        while index.take(end)? > 0 {}
        // What was deleted since it was asked last.
        while index.forget(end)? == Forgot::Some {}
        index.settle()?;
        Ok(Self {
            reader: Reader::open(&path, dir)?,
            _temporary: temporary,
        })
    }

    pub(crate) fn records(&mut self, words: &Words) -> anyhow::Result<Page> {
        self.search(words, &Scope::All)
    }

    pub(crate) fn session(&mut self, session: &Named, words: &Words) -> anyhow::Result<Page> {
        let namespace = session.namespace.as_deref();
        let found = self.reader.session(&session.id, namespace, session.kind)?;
        let Some(found) = found else {
            let indexed = self.reader.indexed()?;
            bail!("there is no such session among the {indexed} records");
        };
        let scope = self.reader.scope(&found)?;
        self.search(words, &scope)
    }

    fn search(&mut self, words: &Words, scope: &Scope) -> anyhow::Result<Page> {
        let pairs = words.iter().map(|(name, value)| (*name, value.as_str()));
        let query = Query::parse(pairs)?;
        let answer = self.reader.search(&query, scope, Limits::default())?;
        let records = answer
            .found
            .into_iter()
            .map(|found| (found.leaf, found.line));
        Ok(Page {
            records: records.collect(),
            indexed: answer.indexed,
            committed: answer.indexed,
            cursor: answer.cursor.map(|cursor| cursor.to_string()),
        })
    }
}

impl Temporary {
    fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("chaperone-search-{}", std::process::id()));
        // A folder that is there already is somebody else's.
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self(path);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&folder.0, private)?;
        Ok(folder)
    }
}

pub(super) fn origin(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("ledger.json");
    let what = || format!("{} is no ledger's directory", dir.display());
    let length = fs::metadata(&path).with_context(what)?.len();
    anyhow::ensure!(length <= MAX_IDENTITY_BYTES, what());
    let text = fs::read(&path).with_context(what)?;
    let identity: Identity = serde_json::from_slice(&text).with_context(what)?;
    Ok(identity.origin)
}
