//! Who leads: a replica follows until nobody leads, takes over, and leads until another does.
//!
//! Owns the lease. Refuses its own clock: whether a lease is good says the database. Invariants: a copy is whole, and has all that was committed before this epoch, when its replica begins to lead; one that was superseded is told, and whatever it still commits fails.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaperone_ledger::store::Keeper;
use chaperone_server::serve::Exempt;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};

use super::{
    Failed, SharedSettings, archive,
    copy::Copy,
    database::{Database, Leader},
    index::Fresh,
    objects::Objects,
    pass,
    recall::Recall,
    shelf::SharedShelf,
};
use crate::{metrics::Metrics, postgres::Connector, writer::Recalled};

/// How often a replica that follows looks.
const LOOK: Duration = Duration::from_millis(500);
/// How often the leader has its lease last: several times within it.
const RENEW: Duration = Duration::from_secs(2);
/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// A replica of a shared ledger.
#[derive(Debug)]
pub struct Shared {
    /// Name of its pod.
    pub holder: String,
    /// Where the others reach its API.
    pub address: SocketAddr,
    /// Which log it is.
    pub origin: String,
    /// Where its copy is.
    pub dir: PathBuf,
    /// What is counted.
    pub metrics: Metrics,
}

/// A replica that follows.
#[derive(Debug)]
pub struct Standby {
    shared: Shared,
    database: Database,
    objects: Option<Arc<Objects>>,
    copy: Copy,
    index: Option<Fresh>,
    recall: Recall,
    logged: Option<Instant>,
}

/// A replica that leads.
#[derive(Debug)]
pub struct Led {
    /// What keeps the store's files.
    pub store: Keeper,
    /// What keeps all others, so that these hold up no commit.
    pub others: Keeper,
    /// What this one has read of the records while it followed.
    pub recalled: Option<Recalled>,
    /// Becomes true once another leads.
    pub superseded: watch::Receiver<bool>,
    /// Addresses of the replicas, from which connections of many come.
    pub replicas: Exempt,
    database: Database,
    epoch: u64,
    tasks: JoinSet<()>,
}

impl Shared {
    /// Begins to follow: the database is there, and is this log's. The records are read into `recalled` as they come.
    ///
    /// # Errors
    /// If settings are wrong, or the directory or the database cannot be used. A database that is not reached is tried again for ever, with a line in the log.
    pub async fn follow(
        self,
        settings: &SharedSettings,
        recalled: Recalled,
    ) -> Result<Standby, Failed> {
        let version = env!("CARGO_PKG_VERSION");
        let connector = Connector::new(&settings.postgres, version)?;
        let objects = settings.s3.as_ref().map(|s3| Objects::new(s3, version));
        let objects = objects.transpose()?.map(Arc::new);
        let copy = Copy::begin(&self.dir).with_context(|| self.dir.display().to_string())?;
        let mut standby = Standby {
            database: Database::new(connector),
            objects,
            copy,
            index: Some(Fresh::new(&self.dir, &self.origin, self.metrics.clone())),
            recall: Recall::new(recalled),
            logged: None,
            shared: self,
        };
        while let Err(error) = standby.database.begin(&standby.shared.origin).await {
            standby.failed("begin", &error);
            sleep(RENEW).await;
        }
        Ok(standby)
    }
}

impl Standby {
    /// Follows, and passes connections on, until it leads. `ready` is told whether a leader is known, and this replica could lead soon.
    ///
    /// # Errors
    /// If no ledger could be opened on the records, or the system has no thread to give.
    pub async fn lead(
        mut self,
        listener: &TcpListener,
        ready: impl Fn(bool),
    ) -> Result<Led, Failed> {
        let (tell, leader) = watch::channel(None);
        let passed = pass::run(listener, leader);
        let epoch = async {
            loop {
                match self.look(&tell).await {
                    Ok(Some(epoch)) => return Ok::<_, Failed>(epoch),
                    Ok(None) => {}
                    Err(error) => self.failed("copy", &error),
                }
                let is_behind = self.recall().await?;
                ready(tell.borrow().is_some() && self.recall.has_been_whole());
                if !is_behind {
                    sleep(LOOK).await;
                }
            }
        };
        let epoch = tokio::select! {
            epoch = epoch => epoch?,
            () = passed => bail!("connections are passed on no more"),
        };
        ready(false);
        Ok(self.begin(epoch)?)
    }

    /// Brings the copy up to now, and takes over where nobody leads. The epoch that began.
    async fn look(
        &mut self,
        tell: &watch::Sender<Option<SocketAddr>>,
    ) -> Result<Option<u64>, Failed> {
        let leader = self.database.leader().await?;
        let shared = &self.shared;
        let address = shared.address.to_string();
        // Two that were given one name are two all the same.
        let is_other = leader.holder != shared.holder || leader.address != address;
        let known = leader.is_there && is_other;
        let to = known.then(|| leader.address.parse().ok()).flatten();
        if tell.send_replace(to) != to {
            let Leader { holder, epoch, .. } = &leader;
            tracing::info!(holder, epoch, known, "who leads has changed");
        }
        self.database.seen(&shared.address.ip().to_string()).await?;
        let began = Instant::now();
        let came = self
            .copy
            .refresh(&mut self.database, self.objects.as_deref())
            .await?;
        self.index().await;
        if began.elapsed() > RENEW {
            tracing::info!(came, took = ?began.elapsed(), "the copy is whole");
        }
        if known {
            return Ok(None);
        }
        let taken = self.database.acquire(&self.shared.holder, &address).await?;
        let Some(epoch) = taken else {
            return Ok(None);
        };
        // What a leader before this one has committed until now; nothing more can come of it.
        let whole = self
            .copy
            .refresh(&mut self.database, self.objects.as_deref())
            .await;
        if let Err(error) = whole {
            self.database.release(epoch).await?;
            return Err(error);
        }
        tracing::info!(epoch, "this replica leads");
        Ok(Some(epoch))
    }

    /// Has the index follow the copy for a while.
    async fn index(&mut self) {
        let (end, deleted) = (self.copy.end(), self.copy.has_deleted());
        if let Some(mut index) = self.index.take() {
            let kept = tokio::task::spawn_blocking(move || {
                index.keep(end, deleted);
                index
            });
            // Where it panicked there is none any more, and whoever leads makes it.
            self.index = kept.await.ok();
        }
    }

    /// Reads the records of the copy for a while. Whether there is more to read at once.
    async fn recall(&mut self) -> Result<bool, Failed> {
        if !self.copy.is_whole() {
            // Of an earlier life there may be what was never committed.
            return Ok(false);
        }
        let (end, rewritten) = (self.copy.end(), self.copy.rewritten());
        let read = self.recall.go_on(end, rewritten).await?;
        let records = i64::try_from(self.recall.records()).unwrap_or(i64::MAX);
        self.shared.metrics.recalled.set(records);
        match read {
            Ok(is_there) => Ok(!is_there),
            Err(error) => {
                self.failed("recall", &error);
                Ok(false)
            }
        }
    }

    fn begin(self, epoch: u64) -> io::Result<Led> {
        let (superseded, told) = watch::channel(false);
        let shelf = || {
            let (database, objects) = (self.database.another(), self.objects.clone());
            SharedShelf::start(database, objects, epoch, superseded.clone())
        };
        let (store, others) = (shelf()?, shelf()?);
        let (replicas, metrics) = (Exempt::default(), self.shared.metrics.clone());
        let mut tasks = JoinSet::new();
        let lease = Lease {
            database: self.database.another(),
            epoch,
            superseded: superseded.clone(),
            replicas: replicas.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(lease.run());
        if let Some(objects) = self.objects.clone() {
            let database = self.database.another();
            tasks.spawn(archive::run(database, objects, epoch, metrics));
        }
        Ok(Led {
            store: Keeper::by(Arc::new(store)),
            others: Keeper::by(Arc::new(others)),
            recalled: self.recall.end(),
            superseded: told,
            replicas,
            database: self.database,
            epoch,
            tasks,
        })
    }

    fn failed(&mut self, stage: &str, error: &Failed) {
        self.shared.metrics.shared_error(stage);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let error = format!("{error:#}");
            tracing::error!(
                stage,
                error,
                "the shared ledger is not reached; it is tried again"
            );
        }
    }
}

impl Led {
    /// Resolves once another replica leads, or must be thought to.
    pub async fn lost(&mut self) {
        let superseded = self.superseded.wait_for(|superseded| *superseded);
        let _ = superseded.await;
    }

    /// Lets another lead at once. All that this one had to commit is committed.
    pub async fn release(mut self) {
        self.tasks.shutdown().await;
        if let Err(error) = self.database.release(self.epoch).await {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "the lease was not let go of; another replica leads once it has run out"
            );
        }
    }
}

/// Has a lease last.
pub(super) struct Lease {
    pub(super) database: Database,
    pub(super) epoch: u64,
    pub(super) superseded: watch::Sender<bool>,
    pub(super) replicas: Exempt,
    pub(super) metrics: Metrics,
}

impl Lease {
    /// For as long as no other replica leads. While the database is not reached nobody can take over, and nothing is committed.
    pub(super) async fn run(mut self) {
        loop {
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => {
                    self.superseded.send_replace(true);
                    return;
                }
                Err(error) => {
                    self.metrics.shared_error("lease");
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the lease was not renewed; it is tried again");
                }
            }
            sleep(RENEW).await;
        }
    }

    async fn renew(&mut self) -> Result<bool, Failed> {
        if !self.database.renew(self.epoch).await? {
            return Ok(false);
        }
        let replicas = self.database.replicas().await?;
        let addresses = replicas.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        self.replicas.set(addresses.collect());
        Ok(true)
    }
}
