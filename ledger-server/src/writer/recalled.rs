//! What a start knows of the records that are there: read all at once, or as they came while another replica led.

use std::{io, sync::Arc};

use chaperone_ledger::{
    follow::Place,
    store::{Config, Keeper, OpenError, Replay, Shelf, Store},
};

use super::{WriterConfig, own::Own};

/// Bytes that are read at a time while another leads.
const STEP: u64 = 1024 * 1024;

/// The records as far as they were read, and what was learnt from them.
#[derive(Debug)]
pub struct Recalled {
    replay: Replay,
    own: Own,
}

impl Recalled {
    /// Nothing was read yet. Nothing is written but what can be made anew from the records.
    #[must_use]
    pub fn nothing(config: &WriterConfig) -> Self {
        let origin = config.store.origin.as_str();
        let (agent, roster) = (config.agent.clone(), Arc::clone(&config.roster));
        Self {
            replay: Replay::new(&config.store, Keeper::by(Arc::new(Anothers))),
            own: Own::new(origin, agent, roster, config.custody.clone()),
        }
    }

    /// Reads on a little, as far as this end of what is committed. Whether it is there. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]; after one of the disk it may be called again.
    pub fn read(&mut self, end: Place) -> Result<bool, OpenError> {
        let own = &mut self.own;
        self.replay.read(end, STEP, &mut |kept| own.replay(kept))
    }

    /// How many records were read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.replay.leaves()
    }

    /// A segment was written anew: the same leaves, in other bytes.
    pub fn rewritten(&mut self, segment: u64) {
        self.replay.rewritten(segment);
    }

    /// Opens the directory, whose files are kept so from here on: reads what is left of it.
    pub(super) fn open(self, config: Config, keeper: Keeper) -> Result<(Store, Own), OpenError> {
        let Self { replay, mut own } = self;
        let before = replay.leaves();
        let replay = replay.kept(keeper);
        let store = Store::open_after(replay, config, &mut |kept| own.replay(kept))?;
        let records = store.committed().leaves();
        tracing::info!(records, before, "the records were read");
        Ok((store, own))
    }
}

/// Keeps nothing: the directory is another's to write to.
#[derive(Debug)]
struct Anothers;

impl Anothers {
    fn refuse() -> io::Result<()> {
        Err(io::Error::other("another ledger writes this log"))
    }
}

impl Shelf for Anothers {
    fn append(&self, _: &str, _: u64, _: &[u8]) -> io::Result<()> {
        Self::refuse()
    }

    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Self::refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Self::refuse()
    }
}
