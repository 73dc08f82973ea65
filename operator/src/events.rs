//! Events: short notes on pods that `kubectl describe` shows. Best effort and bounded: what waits too long is dropped and counted.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Client, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use crate::{metrics::Metrics, status::truncate};

/// Notes that may wait. A burst beyond it says nothing new.
const QUEUE: usize = 256;
/// Pause between two notes: at most 20 a second reach the API server from one replica.
const PACE: Duration = Duration::from_millis(50);
/// Longest text of a note, in bytes; the API server takes 1 kB.
const MAX_NOTE_BYTES: usize = 1000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pod got its sidecar.
    Injected,
    /// A pod was refused.
    Refused,
    /// A pod runs without sidecar in an audited namespace.
    RestartNeeded,
}

/// Takes notes. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Note {
    reason: Reason,
    about: ObjectReference,
    text: String,
}

impl Events {
    /// Starts a task that writes notes in the name of this pod.
    #[must_use]
    pub fn start(client: Client, pod_name: &str, metrics: Metrics) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let reporter = Reporter {
            controller: "chaperone-operator".to_owned(),
            instance: Some(pod_name.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(write(notes, recorder, metrics.clone()));
        Self { queue, metrics }
    }

    /// Takes a note about an object.
    pub fn note(&self, reason: Reason, about: ObjectReference, text: String) {
        let note = Note {
            reason,
            about,
            text: truncate(text, MAX_NOTE_BYTES),
        };
        if self.queue.try_send(note).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// Names a pod.
#[must_use]
pub fn about_pod(namespace: &str, pod: &Pod) -> ObjectReference {
    let name = pod.metadata.name.clone().or_else(|| {
        let generated = pod.metadata.generate_name.as_deref()?;
        Some(generated.trim_end_matches('-').to_owned())
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name,
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// Names the controller of a pod (ReplicaSet, Job…), else the pod: one that was refused exists only in its controller's wish.
#[must_use]
pub fn about_controller(namespace: &str, pod: &Pod) -> ObjectReference {
    let owners = pod.owner_references().iter();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let Some(owner) = controllers.next() else {
        return about_pod(namespace, pod);
    };
    ObjectReference {
        api_version: Some(owner.api_version.clone()),
        kind: Some(owner.kind.clone()),
        namespace: Some(namespace.to_owned()),
        name: Some(owner.name.clone()),
        uid: Some(owner.uid.clone()),
        ..ObjectReference::default()
    }
}

async fn write(mut notes: mpsc::Receiver<Note>, recorder: Recorder, metrics: Metrics) {
    while let Some(note) = notes.recv().await {
        let (type_, reason, action) = match note.reason {
            Reason::Injected => (EventType::Normal, "Injected", "Inject"),
            Reason::Refused => (EventType::Warning, "Refused", "Admit"),
            Reason::RestartNeeded => (EventType::Warning, "RestartNeeded", "Inject"),
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.text),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &note.about).await {
            metrics.failed("events");
            tracing::debug!(%error, reason, "an Event could not be written");
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(metadata: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_refused_pod_is_noted_at_its_controller_if_it_has_one() {
        let owned = pod(json!({"generateName": "agent-", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "agent-7f", "uid": "u", "controller": true}
        ]}));
        let about = about_controller("agents", &owned);
        assert_eq!(about.kind.as_deref(), Some("ReplicaSet"));
        assert_eq!(about.name.as_deref(), Some("agent-7f"));
        let bare = pod(json!({"generateName": "agent-"}));
        let about = about_controller("agents", &bare);
        assert_eq!(about.kind.as_deref(), Some("Pod"));
        assert_eq!(about.name.as_deref(), Some("agent"));
    }
}
