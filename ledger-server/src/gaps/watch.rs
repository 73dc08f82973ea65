//! Watches pods and namespaces, and has put on record what is new of them.
//!
//! A watch goes on where it broke off as long as the API server remembers, so that pods that lived and died meanwhile are seen. Where it does not, what is there is listed anew, and `watching_since` begins anew.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chaperone_server::audited::audits;
use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Gaps, Watched, sighting::Sighting, world::World};
use crate::writer::WriterHandle;

/// How often what was seen is put on record.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Notes that are put on record before others are looked for.
const MAX_NOTES: usize = 500;
/// Notes on their way to the disk at a time: few beside those that sidecars wait for.
const AT_ONCE: usize = 32;
/// How often pods that are settled are forgotten if they are gone.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How long after an error a watch that says nothing is believed to be well: longer than the longest pause between tries.
const WELL_AFTER: Duration = Duration::from_secs(45);
/// Objects of a page of a list: what is in memory at a time, besides what is kept.
const PAGE: u32 = 500;

type Watch<K> = BoxStream<'static, watcher::Result<watcher::Event<K>>>;

struct Watcher {
    watched: Watched,
    gaps: Gaps,
    writer: WriterHandle,
    world: World,
    namespaces: HashSet<String>,
    /// Whether both have been listed.
    has_listed: (bool, bool),
    /// Since when nothing was missed, whether or not the watch fails now.
    since: Option<Timestamp>,
    failed: Option<Instant>,
    forgot: Instant,
}

/// Runs for ever.
pub(super) async fn run(client: Client, watched: Watched, gaps: Gaps, writer: WriterHandle) {
    let config = watcher::Config::default().page_size(PAGE);
    let pods: Api<Pod> = Api::all(client.clone());
    let namespaces: Api<Namespace> = Api::all(client);
    let mut pods: Watch<Pod> = watcher(pods, config.clone()).default_backoff().boxed();
    let mut namespaces: Watch<Namespace> = watcher(namespaces, config).default_backoff().boxed();
    let mut watcher = Watcher {
        watched,
        gaps,
        writer,
        world: World::default(),
        namespaces: HashSet::new(),
        has_listed: (false, false),
        since: None,
        failed: None,
        forgot: Instant::now(),
    };
    let mut record = interval(RECORD_EVERY);
    record.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(event) = pods.next() => match event {
                Ok(event) => watcher.pod(event),
                Err(error) => watcher.fail("pods", &error),
            },
            Some(event) = namespaces.next() => match event {
                Ok(event) => watcher.namespace(event),
                Err(error) => watcher.fail("namespaces", &error),
            },
            _ = record.tick() => watcher.record().await,
        }
    }
}

impl Watcher {
    fn pod(&mut self, event: watcher::Event<Pod>) {
        let sighting = |pod: &Pod| Sighting::of(pod, &self.watched);
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let seen = sighting(&pod);
                self.world.see(seen);
            }
            watcher::Event::Delete(pod) => {
                let seen = sighting(&pod);
                self.world.lose(seen);
            }
            watcher::Event::Init => self.world.begin_list(),
            watcher::Event::InitDone => {
                self.world.end_list();
                self.has_listed.0 = true;
                self.since = Some(Timestamp::now());
            }
        }
    }

    fn namespace(&mut self, event: watcher::Event<Namespace>) {
        match event {
            watcher::Event::Apply(namespace) => self.judge(&namespace),
            watcher::Event::InitApply(namespace) => {
                self.namespaces.insert(namespace.name_any());
                self.judge(&namespace);
            }
            watcher::Event::Delete(namespace) => {
                self.world.set_audited(&namespace.name_any(), false);
            }
            watcher::Event::Init => self.namespaces.clear(),
            watcher::Event::InitDone => {
                self.world.keep_namespaces(&self.namespaces);
                self.namespaces.clear();
                self.has_listed.1 = true;
            }
        }
    }

    fn judge(&mut self, namespace: &Namespace) {
        let (name, labels) = (namespace.name_any(), namespace.metadata.labels.as_ref());
        let is_audited = audits(&self.watched.own, &name, labels);
        self.world.set_audited(&name, is_audited);
    }

    fn fail(&mut self, what: &str, error: &watcher::Error) {
        tracing::warn!(%error, what, "a watch fails, it is tried again; which pods leave no evidence is not known meanwhile");
        self.failed = Some(Instant::now());
    }

    /// Has put on record what is new, and says whether all is seen.
    async fn record(&mut self) {
        if self.has_listed != (true, true) {
            return;
        }
        let is_well = self.failed.is_none_or(|at| at.elapsed() >= WELL_AFTER);
        *self.gaps.watching() = self.since.filter(|_| is_well);
        // What is not seen is not gone.
        if !is_well {
            return;
        }
        let notes = self.world.notes(&self.gaps.known(), Instant::now());
        let notes = futures::stream::iter(notes.into_iter().take(MAX_NOTES));
        let writer = &self.writer;
        let recorded = notes.map(|(agent, pod)| writer.record_pod(agent, pod));
        let refused = recorded
            .buffer_unordered(AT_ONCE)
            .filter_map(|result| async { result.err() });
        if let Some(refusal) = std::pin::pin!(refused).next().await {
            let message = refusal.message;
            tracing::warn!(
                message,
                "pods could not be put on record; it is tried again"
            );
            return;
        }
        let mut known = self.gaps.known();
        self.world.settle(&known);
        if self.forgot.elapsed() >= FORGET_EVERY {
            self.forgot = Instant::now();
            known.keep_settled(|uid| self.world.has(uid));
        }
    }
}
