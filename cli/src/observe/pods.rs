//! Records from the sidecars of a cluster: which pods there are, and what their sidecars write.
//!
//! One task a pod sends records into one bounded channel; the feed writes them one after the other. A task outlives broken connections and
//! restarts of its sidecar, and shows no record twice.

mod follow;

use std::{
    collections::HashSet,
    io::{self, Write},
};

use anyhow::Context;
use chaperone_crds::{pod, record::Record};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
};

use self::follow::{Follow, LineRead, log_params, read_line};
use super::{Args, feed::Feed};

/// Records that wait for the terminal, over all pods. When it is full, connections to sidecars' logs wait.
const QUEUE_RECORDS: usize = 256;
/// Most pods that are followed at a time: each is an open connection to the API server.
const MAX_FOLLOWED: usize = 1000;

/// What a pod's task sends.
enum Message {
    /// A record and its line as written.
    Record(Box<Record>, Vec<u8>),
    /// A line that is no record.
    Skipped,
    /// Something that the user should know.
    Note(String),
}

/// Shows the records of the pods that `args` names.
pub(super) async fn observe(args: &Args, feed: &mut Feed<impl Write>) -> anyhow::Result<()> {
    let client = args.ledger.cluster.client().await?;
    let api: Api<Pod> = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    if args.no_follow {
        return read_pods(&client, &api, args, feed).await;
    }
    let (sender, receiver) = channel(QUEUE_RECORDS);
    let filter = feed.filter().clone();
    let watch = Watch {
        client,
        everywhere: args.namespace.is_none(),
        since: filter.not_before,
        started: Timestamp::now(),
        wants: Box::new(move |pod| filter.wants_pod(&namespace(pod), &pod.name_any())),
        sender,
        followed: HashSet::new(),
        tasks: JoinSet::new(),
    };
    tokio::select! {
        result = watch.run(api) => result,
        result = show(receiver, feed) => Ok(result?),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn show(mut receiver: Receiver<Message>, feed: &mut Feed<impl Write>) -> io::Result<()> {
    while let Some(message) = receiver.recv().await {
        take(message, feed)?;
    }
    Ok(())
}

fn take(message: Message, feed: &mut Feed<impl Write>) -> io::Result<()> {
    match message {
        Message::Record(record, line) => feed.record(&record, &line)?,
        Message::Skipped => feed.skip(),
        Message::Note(note) => eprintln!("{note}"),
    }
    Ok(())
}

/// What there is, pod by pod, without waiting for more.
async fn read_pods(
    client: &Client,
    api: &Api<Pod>,
    args: &Args,
    feed: &mut Feed<impl Write>,
) -> anyhow::Result<()> {
    let pods = api
        .list(&injected())
        .await
        .map_err(|e| explain(e, args.namespace.is_none()))?;
    if pods.items.is_empty() {
        eprintln!("no pod with a sidecar (`chaperone check` says why)");
    }
    for pod in pods {
        let (namespace, name) = (namespace(&pod), pod.name_any());
        if !feed.filter().wants_pod(&namespace, &name) || !has_log(&pod) {
            continue;
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let log = log_params(false, feed.filter().not_before);
        let mut reader = pods
            .log_stream(&name, &log)
            .await
            .with_context(|| format!("the log of {namespace}/{name}"))?;
        let mut line = Vec::new();
        loop {
            match read_line(&mut reader, &mut line).await? {
                LineRead::Whole => feed.line(&line)?,
                LineRead::TooLong => feed.skip(),
                LineRead::End => break,
            }
        }
    }
    Ok(())
}

/// The pods that are there, and those that come.
struct Watch {
    client: Client,
    /// Whether all namespaces are watched.
    everywhere: bool,
    since: Option<Timestamp>,
    started: Timestamp,
    wants: Box<dyn Fn(&Pod) -> bool + Send>,
    sender: Sender<Message>,
    /// Uids of pods that have, or had, a task.
    followed: HashSet<String>,
    tasks: JoinSet<()>,
}

impl Watch {
    async fn run(mut self, api: Api<Pod>) -> anyhow::Result<()> {
        let config = watcher::Config::default().labels(&format!("{}=true", pod::INJECTED_LABEL));
        let mut events = watcher::watcher(api, config).default_backoff().boxed();
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {}
                Ok(Event::InitApply(pod)) => self.see(&pod, !listed),
                Ok(Event::InitDone) => {
                    if !listed && self.followed.is_empty() {
                        eprintln!(
                            "no pod with a sidecar yet; waiting (`chaperone check` says why)"
                        );
                    }
                    listed = true;
                }
                Ok(Event::Apply(pod)) => self.see(&pod, false),
                Ok(Event::Delete(pod)) => {
                    self.followed.remove(&pod.uid().unwrap_or_default());
                }
                Err(error) if listed => eprintln!("watching pods: {error}; trying again"),
                Err(watcher::Error::InitialListFailed(error)) => {
                    return Err(explain(error, self.everywhere));
                }
                Err(error) => return Err(error).context("cannot list pods"),
            }
        }
        Ok(())
    }

    /// Follows the pod, once it has a log. `old`: it was there before we came, so its past is not news.
    fn see(&mut self, pod: &Pod, old: bool) {
        let since = self.since.or(old.then_some(self.started));
        let finished = is_finished(pod) && self.since.is_none();
        if !(self.wants)(pod) || !has_log(pod) || finished {
            return;
        }
        while self.tasks.try_join_next().is_some() {}
        let uid = pod.uid().unwrap_or_default();
        if self.followed.contains(&uid) {
            return;
        }
        if self.tasks.len() >= MAX_FOLLOWED {
            eprintln!("following {MAX_FOLLOWED} pods, no more: narrow it with -n or --pod");
            return;
        }
        let task = Follow {
            api: Api::namespaced(self.client.clone(), &namespace(pod)),
            namespace: namespace(pod),
            name: pod.name_any(),
            uid: uid.clone(),
            since,
            last: None,
            sender: self.sender.clone(),
        };
        self.tasks.spawn(task.run());
        self.followed.insert(uid);
    }
}

fn injected() -> ListParams {
    ListParams::default().labels(&format!("{}=true", pod::INJECTED_LABEL))
}

fn namespace(pod: &Pod) -> String {
    pod.namespace().unwrap_or_default()
}

/// Whether the sidecar has started, so that asking for its log is no error.
fn has_log(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.init_container_statuses.iter().flatten());
    statuses.filter(|s| s.name == pod::SIDECAR_NAME).any(|s| {
        s.restart_count > 0
            || s.state
                .as_ref()
                .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    })
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn explain(error: kube::Error, everywhere: bool) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 403 && everywhere => {
            anyhow::anyhow!(
                "{}; name a namespace that you may read with -n",
                status.message
            )
        }
        other => anyhow::Error::new(other).context("cannot list pods"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_has_a_log_once_it_started() {
        for (status, expected) in [
            (r#"{}"#, false),
            (
                r#"{"initContainerStatuses":[{"name":"chaperone-sidecar","state":{"waiting":{}}}]}"#,
                false,
            ),
            (
                r#"{"initContainerStatuses":[{"name":"chaperone-sidecar","state":{"running":{}}}]}"#,
                true,
            ),
            (
                r#"{"initContainerStatuses":[{"name":"chaperone-sidecar","restartCount":1,"state":{"waiting":{}}}]}"#,
                true,
            ),
            (
                r#"{"initContainerStatuses":[{"name":"other","state":{"running":{}}}]}"#,
                false,
            ),
        ] {
            let pod: Pod =
                serde_json::from_str(&format!(r#"{{"metadata":{{}},"status":{status}}}"#)).unwrap();
            assert_eq!(has_log(&pod), expected, "{status}");
        }
    }
}
