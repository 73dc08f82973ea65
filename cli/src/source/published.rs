//! A log as it is published over HTTPS: by a ledger, or by any server of its files.
//!
//! Owns the flags that say where, and fetching. Refuses to believe anything: `chaperone_ledger::served` judges.

use std::{cell::RefCell, path::PathBuf};

use anyhow::Context;
use chaperone_ledger::{
    note::MAX_NOTE_BYTES,
    served::out_of_full,
    tile::{MAX_TILE_BYTES, Source, Tile},
};

use super::{Page, Words, server::Server};

/// Which log.
#[derive(clap::Args)]
pub(crate) struct PublishedArgs {
    /// Instead of files: where the ledger is, or anything that serves its checkpoint and tiles (C2SP tlog-tiles): an https URL.
    #[arg(long, value_name = "URL", requires = "keys")]
    pub(crate) ledger: Option<String>,
    /// PEM file of the certificates that the ledger's chains to. Default: the Mozilla roots.
    #[arg(long, value_name = "FILE", requires = "ledger")]
    ca: Option<PathBuf>,
    /// File of a token for the audience chaperone.dev/ledger (`kubectl create token NAME --audience chaperone.dev/ledger`); - is standard input. A ledger asks for one.
    #[arg(long, value_name = "FILE", requires = "ledger")]
    token_file: Option<PathBuf>,
    /// Namespace of the records that are asked for, of who may read those of one only.
    #[arg(short, long, requires = "ledger")]
    namespace: Option<String>,
}

/// A log that is read piece by piece.
pub(crate) struct Published {
    server: RefCell<Server>,
    namespace: Option<String>,
}

impl PublishedArgs {
    /// Has the log reached, if one is named.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Published>> {
        let Some(url) = &self.ledger else {
            return Ok(None);
        };
        let server = Server::connect(url, self.ca.as_deref(), self.token_file.as_deref())?;
        Ok(Some(Published {
            server: RefCell::new(server),
            namespace: self.namespace.clone(),
        }))
    }
}

impl Published {
    /// The newest checkpoint.
    pub(crate) fn checkpoint(&self) -> anyhow::Result<Vec<u8>> {
        let note = self
            .server
            .borrow_mut()
            .file("checkpoint", MAX_NOTE_BYTES)?;
        note.context("no log is published there: it has no checkpoint")
    }

    /// A record and its leaf.
    pub(crate) fn record(&self, stream: &str, seq: u64) -> anyhow::Result<(u64, Vec<u8>)> {
        let namespace = self.namespace.as_deref();
        let found = self.server.borrow_mut().record(stream, seq, namespace)?;
        found.with_context(|| format!("the ledger has no record {seq} of stream {stream}"))
    }

    /// A page of the records that the words ask for.
    pub(crate) fn records(&self, words: &Words) -> anyhow::Result<Page> {
        let mut words = words.clone();
        words.extend(self.namespace.clone().map(|name| ("namespace", name)));
        self.server.borrow_mut().records(&words)
    }

    fn tile(&self, tile: Tile) -> anyhow::Result<Option<Vec<u8>>> {
        let path = tile.to_string();
        self.server.borrow_mut().file(&path, MAX_TILE_BYTES)
    }
}

impl Source for Published {
    type Error = anyhow::Error;

    fn read(&self, tile: Tile) -> anyhow::Result<Vec<u8>> {
        let there = |tile| self.tile(tile)?.context("it is not published");
        match self.tile(tile)? {
            Some(bytes) => Ok(bytes),
            None if tile.is_full() => there(tile),
            None => out_of_full(tile, there),
        }
    }
}
