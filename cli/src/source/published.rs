//! A log as it is published over HTTPS: by a ledger, or by any server of its files.
//!
//! Owns the flags that say where, and fetching. Refuses to believe anything: `chaperone_ledger::served` judges.

use std::{cell::RefCell, path::Path};

use anyhow::Context;
use chaperone_crds::{chain::StreamId, record::EventKind};
use chaperone_index::store::SessionKind;
use chaperone_ledger::{
    note::MAX_NOTE_BYTES,
    served::out_of_full,
    tile::{MAX_TILE_BYTES, Source, Tile},
};

use super::{LedgerArgs, Named, Words, pages, server::Server};

/// Which log.
#[derive(clap::Args)]
pub(crate) struct PublishedArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
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
    /// Whether a log is named.
    pub(crate) fn is_named(&self) -> bool {
        self.ledger.ledger.is_some()
    }

    /// The file of roots that is named, for whatever is reached by it.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ledger.ca()
    }

    /// Has the log reached, if one is named.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Published>> {
        if !self.is_named() {
            return Ok(None);
        }
        let server = Server::connect(&self.ledger)?;
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

    /// Whether the ledger says of a record that it was deleted.
    pub(crate) fn is_deleted(&self, stream: &StreamId, seq: u64) -> anyhow::Result<bool> {
        let namespace = self.namespace.as_deref();
        let stream = stream.to_string();
        self.server.borrow_mut().is_deleted(&stream, seq, namespace)
    }

    /// Takes all records of a stream, in their order.
    pub(crate) fn stream(
        &self,
        stream: &StreamId,
        take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.records(stream, &[], self.namespace.as_deref(), take)
    }

    /// Takes those that are of a kind.
    pub(crate) fn of_kind(
        &self,
        stream: &StreamId,
        kind: EventKind,
        take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let words = [("kind", kind.as_str())];
        self.records(stream, &words, self.namespace.as_deref(), take)
    }

    /// Takes those of the ledger's own that say whose a stream is. They stand in the ledger's namespace.
    pub(crate) fn identities(
        &self,
        own: &StreamId,
        of: &StreamId,
        take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let phrase = format!("\"{of}\"");
        let words = [("kind", EventKind::StreamIdentity.as_str()), ("q", &phrase)];
        self.records(own, &words, None, take)
    }

    fn records(
        &self,
        stream: &StreamId,
        more: &[(&'static str, &str)],
        namespace: Option<&str>,
        take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let stream = stream.to_string();
        let fixed = [("stream", stream.as_str()), ("order", "asc")];
        let namespace = namespace.map(|name| ("namespace", name));
        let words: Words = fixed
            .iter()
            .chain(more)
            .chain(&namespace)
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let ask = |words: &Words| self.server.borrow_mut().records(words);
        pages(&words, usize::MAX, ask, take).map(drop)
    }

    /// Takes all records of a session that an agent named, in the order of leaves.
    pub(crate) fn session(
        &self,
        id: &str,
        take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let named = Named {
            id: id.to_owned(),
            namespace: self.namespace.clone(),
            kind: Some(SessionKind::Agent),
        };
        let words: Words = vec![("order", "asc".to_owned())];
        let ask = |words: &Words| self.server.borrow_mut().session(&named, words);
        pages(&words, usize::MAX, ask, take).map(drop)
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
