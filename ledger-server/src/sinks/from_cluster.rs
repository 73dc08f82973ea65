//! Sinks from the cluster: `AuditSink`s are watched, the Secrets that they name are read in the ledger's own namespace, and the condition `Delivering` says how each fares.
//!
//! Refuses all other Secrets: only `get`, by name, in one namespace. Invariant: where the API server gives no answer, what runs goes on.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chaperone_crds::resources::{AuditSink, AuditSinkSpec, Deliverer, SinkStatus};
use chaperone_sinks::settings::Sink;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{Desired, Failing, Health, SinksHandle};

/// Name under which our fields show in `managedFields`.
const MANAGER: &str = "chaperone-ledger";
/// Condition of sinks that the ledger delivers.
const DELIVERING: &str = "Delivering";
/// How often Secrets are read again.
const SECRETS: Duration = Duration::from_secs(60);
/// How often conditions are compared with what is true.
const REPORT: Duration = Duration::from_secs(10);
/// Longest message of a condition, in characters.
const MESSAGE_CHARS: usize = 1024;

type Sinks = Store<DeserializeGuard<AuditSink>>;

/// Watches and reports. Never ends.
pub async fn run(client: Client, namespace: String, sinks: SinksHandle) {
    let (store, writer) = reflector::store();
    let api: Api<DeserializeGuard<AuditSink>> = Api::all(client.clone());
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    let mut events = std::pin::pin!(events);
    let mut cluster = Cluster {
        client,
        namespace,
        secrets: HashMap::new(),
        forbidden: BTreeSet::new(),
        desired: Vec::new(),
        written: BTreeMap::new(),
    };
    let (mut secrets, mut report) = (interval(SECRETS), interval(REPORT));
    secrets.set_missed_tick_behavior(MissedTickBehavior::Delay);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_listed = false;
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => continue,
                Ok(_) => is_listed = true,
                Err(error) => {
                    tracing::warn!(%error, "AuditSinks cannot be watched, it is tried again");
                    continue;
                }
            },
            _ = secrets.tick() => {}
            _ = report.tick() => {
                cluster.report(&store, &sinks).await;
                continue;
            }
        }
        if is_listed {
            cluster.apply(&store, &sinks).await;
        }
    }
}

struct Cluster {
    client: Client,
    namespace: String,
    /// What Secrets said last.
    secrets: HashMap<String, Secret>,
    /// Secrets that RBAC keeps from the ledger.
    forbidden: BTreeSet<String>,
    desired: Vec<Desired>,
    /// Conditions that were written, until the watch brings them back.
    written: BTreeMap<String, Condition>,
}

impl Cluster {
    async fn apply(&mut self, store: &Sinks, sinks: &SinksHandle) {
        let resources = store.state();
        let specs: Vec<(String, Result<AuditSinkSpec, String>)> = resources
            .iter()
            .map(|resource| match &resource.0 {
                Ok(sink) => (sink.name_any(), Ok(sink.spec.clone())),
                Err(error) => (
                    error.metadata.name.clone().unwrap_or_default(),
                    Err(error.error.clone()),
                ),
            })
            .collect();
        self.read_secrets(&specs).await;
        let mut desired: Vec<_> = specs
            .into_iter()
            .filter_map(|(name, spec)| self.desired(name, spec))
            .collect();
        desired.sort_by(|a, b| a.name.cmp(&b.name));
        if desired != self.desired {
            self.desired.clone_from(&desired);
            sinks.set(desired);
        }
    }

    fn desired(&self, name: String, spec: Result<AuditSinkSpec, String>) -> Option<Desired> {
        let sink = match spec {
            Ok(spec) if spec.delivered_by() != Deliverer::Ledger => return None,
            Ok(spec) => Sink::read(&name, &spec, &|secret, key| self.secret(secret, key))
                .map_err(|problems| [self.kept_from(&name, &spec), problems].concat()),
            // It may be one that ran: then it goes on.
            Err(error) => Err(vec![format!("this version cannot read it: {error}")]),
        };
        Some(Desired { name, sink })
    }

    /// Why Secrets are missing that may well be there.
    fn kept_from(&self, name: &str, spec: &AuditSinkSpec) -> Vec<String> {
        let named = named(&[(name.to_owned(), Ok(spec.clone()))]);
        let forbidden = named.intersection(&self.forbidden);
        forbidden
            .map(|secret| {
                format!(
                    "the ledger may not read Secret {secret}: add it to ledger.sinkSecrets of the chart"
                )
            })
            .collect()
    }

    fn secret(&self, name: &str, key: &str) -> Option<String> {
        let value = self.secrets.get(name)?.data.as_ref()?.get(key)?;
        String::from_utf8(value.0.clone()).ok()
    }

    /// Reads the Secrets that sinks name. One that the API server gives no answer about stays as it was.
    async fn read_secrets(&mut self, specs: &[(String, Result<AuditSinkSpec, String>)]) {
        let names = named(specs);
        self.secrets.retain(|name, _| names.contains(name));
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        self.forbidden.clear();
        for name in names {
            match api.get_opt(&name).await {
                Ok(Some(secret)) => {
                    self.secrets.insert(name, secret);
                }
                Ok(None) => {
                    self.secrets.remove(&name);
                }
                Err(error) => {
                    tracing::warn!(secret = name, %error, "a Secret of a sink cannot be read");
                    if matches!(&error, kube::Error::Api(status) if status.code == 403) {
                        self.forbidden.insert(name);
                    }
                }
            }
        }
    }

    async fn report(&mut self, store: &Sinks, sinks: &SinksHandle) {
        let health = sinks.health();
        for desired in self.desired.clone() {
            let found = store.get(&reflector::ObjectRef::new(&desired.name));
            let Some(Ok(resource)) = found.as_ref().map(|found| &found.0) else {
                continue;
            };
            let before = resource
                .status
                .as_ref()
                .and_then(|status| delivering(status))
                .or_else(|| self.written.get(&desired.name));
            let generation = resource.metadata.generation.unwrap_or_default();
            let verdict = judge(&desired, health.get(&desired.name));
            let condition = condition(verdict, generation, before, Timestamp::now());
            if before == Some(&condition) {
                continue;
            }
            if self.write(&desired.name, &condition).await {
                self.written.insert(desired.name, condition);
            }
        }
    }

    async fn write(&self, name: &str, condition: &Condition) -> bool {
        let api: Api<AuditSink> = Api::all(self.client.clone());
        let body = json!({
            "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": name}, "status": {"conditions": [condition]}
        });
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(name, &params, &Patch::Apply(&body)).await {
            Ok(_) => true,
            // It was deleted meanwhile.
            Err(kube::Error::Api(error)) if error.code == 404 => true,
            Err(error) => {
                tracing::warn!(sink = name, %error, "the sink's condition cannot be written");
                false
            }
        }
    }
}

/// Names of the Secrets that sinks of the ledger name.
fn named(specs: &[(String, Result<AuditSinkSpec, String>)]) -> BTreeSet<String> {
    let names = RefCell::new(BTreeSet::new());
    for (name, spec) in specs {
        let Ok(spec) = spec else { continue };
        if spec.delivered_by() == Deliverer::Ledger {
            // What is wrong is said once the Secrets are there.
            let _ = Sink::read(name, spec, &|secret, _| {
                names.borrow_mut().insert(secret.to_owned());
                None
            });
        }
    }
    names.into_inner()
}

fn delivering(status: &SinkStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == DELIVERING)
}

/// Status, reason and message of a sink's condition. The message changes with what is true, not with each batch.
fn judge(desired: &Desired, health: Option<&Health>) -> (&'static str, &'static str, String) {
    if let Err(problems) = &desired.sink {
        let goes_on = match health {
            Some(_) => "; it goes on with the settings before",
            None => "",
        };
        return ("False", "Invalid", problems.join("; ") + goes_on);
    }
    let Some(health) = health else {
        let why = "it was not begun yet; where this lasts, the ledger's log says why";
        return ("Unknown", "NotBegun", why.to_owned());
    };
    let refused = match health.refused {
        0 => "",
        _ => {
            "; some records were refused for good, which chaperone_ledger_sink_refused_records_total counts and the ledger's folder sinks names"
        }
    };
    match &health.failing {
        Some(Failing { reason, message }) => {
            ("False", "Failing", format!("{reason}: {message}{refused}"))
        }
        None if health.sent.is_some() => (
            "True",
            "Acknowledged",
            format!("its target acknowledges{refused}"),
        ),
        None => (
            "Unknown",
            "NothingSent",
            format!("nothing was sent since the ledger began{refused}"),
        ),
    }
}

fn condition(
    (status, reason, message): (&str, &str, String),
    generation: i64,
    before: Option<&Condition>,
    now: Timestamp,
) -> Condition {
    let same = before.filter(|before| before.status == status);
    // The API server keeps whole seconds.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    Condition {
        type_: DELIVERING.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_CHARS).collect(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(now, |before| before.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests;
