//! A store's shelf: the database, and the bucket for segments that are put anew.
//!
//! A thread of its own does the asking, so that whoever keeps something may wait for it wherever it runs.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
};

use chaperone_ledger::store::Shelf;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

use super::{
    Failed,
    database::{Database, Superseded},
    objects::{Objects, replace},
};

/// What is asked of the thread.
#[derive(Debug)]
enum What {
    Append(String, u64, Vec<u8>),
    Replace(String, Vec<u8>),
    Remove(String),
}

type Ask = (What, SyncSender<io::Result<()>>);

/// A shelf of the leader of one epoch.
#[derive(Debug)]
pub(super) struct SharedShelf(UnboundedSender<Ask>);

struct Thread {
    database: Database,
    objects: Option<Arc<Objects>>,
    epoch: u64,
    superseded: watch::Sender<bool>,
}

impl SharedShelf {
    /// Starts the thread; `superseded` becomes true once another replica leads.
    pub(super) fn start(
        database: Database,
        objects: Option<Arc<Objects>>,
        epoch: u64,
        superseded: watch::Sender<bool>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (asks, asked) = unbounded_channel();
        let thread = Thread {
            database,
            objects,
            epoch,
            superseded,
        };
        std::thread::Builder::new()
            .name("chaperone-shared".to_owned())
            .spawn(move || runtime.block_on(thread.run(asked)))?;
        Ok(Self(asks))
    }

    fn ask(&self, what: What) -> io::Result<()> {
        let ended = || io::Error::other("the thread that keeps files has ended");
        let (answer, answered) = sync_channel(1);
        self.0.send((what, answer)).map_err(|_| ended())?;
        answered.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Shelf for SharedShelf {
    fn append(&self, file: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask(What::Append(file.to_owned(), at, bytes.to_vec()))
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.ask(What::Replace(file.to_owned(), bytes.to_vec()))
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.ask(What::Remove(file.to_owned()))
    }
}

impl Thread {
    async fn run(mut self, mut asked: UnboundedReceiver<Ask>) {
        while let Some((what, answer)) = asked.recv().await {
            let done = self.work(what).await;
            if done.as_ref().is_err_and(|error| error.is::<Superseded>()) {
                self.superseded.send_replace(true);
            }
            // Who asked may be gone.
            let _ = answer.send(done.map_err(|error| io::Error::other(format!("{error:#}"))));
        }
    }

    async fn work(&mut self, what: What) -> Result<(), Failed> {
        match what {
            What::Append(file, at, bytes) => {
                self.database.append(self.epoch, &file, at, &bytes).await
            }
            What::Replace(file, bytes) => {
                // Only closed segments are put anew, and those belong into the bucket.
                let objects = self.objects.as_deref();
                let objects = objects.filter(|_| file.starts_with("records/"));
                replace(&mut self.database, objects, self.epoch, &file, bytes).await?;
                self.forget(&file).await;
                Ok(())
            }
            What::Remove(file) => {
                self.database.replace(self.epoch, &file, &[], None).await?;
                self.forget(&file).await;
                Ok(())
            }
        }
    }

    /// Rows that held keys or records are still in the table's pages.
    async fn forget(&mut self, file: &str) {
        if !file.starts_with("keys/") && !file.starts_with("records/") {
            return;
        }
        if let Err(error) = self.database.vacuum().await {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "the database keeps deleted rows until it vacuums by itself"
            );
        }
    }
}
