//! Records from the sidecars of a cluster: which pods there are, and what their sidecars write.
//!
//! One task a pod sends records into one bounded channel; the feed writes them one after the other. A task outlives broken connections and
//! restarts of its sidecar, and shows no record twice.

use std::{
    collections::HashSet,
    io::{self, Write},
    time::Duration,
};

use anyhow::Context;
use chaperone_crds::{pod, record::Record};
use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
    time::sleep,
};

use super::{
    Args,
    feed::{Feed, MAX_LINE_BYTES},
};

/// Records that wait for the terminal, over all pods. When it is full, connections to sidecars' logs wait.
const QUEUE_RECORDS: usize = 256;
/// Most pods that are followed at a time: each is an open connection to the API server.
const MAX_FOLLOWED: usize = 1000;
/// Wait before a pod's log is asked for again.
const RETRY: Duration = Duration::from_secs(1);

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
    let client = args.cluster.client().await?;
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

/// One pod's log.
struct Follow {
    api: Api<Pod>,
    namespace: String,
    name: String,
    uid: String,
    since: Option<Timestamp>,
    /// Stream and number of the last record: a reconnection repeats some.
    last: Option<(String, u64)>,
    sender: Sender<Message>,
}

impl Follow {
    async fn run(mut self) {
        loop {
            if let Err(kube::Error::Api(status)) = self.read().await
                && status.code == 403
            {
                let note = format!(
                    "no log of {}/{}: {}",
                    self.namespace, self.name, status.message
                );
                let _ = self.sender.send(Message::Note(note)).await;
                return;
            }
            sleep(RETRY).await;
            match self.api.get_opt(&self.name).await {
                Ok(Some(pod)) if pod.uid().as_deref() == Some(&self.uid) && !is_finished(&pod) => {}
                Ok(_) => return,
                Err(_) => {}
            }
            if self.sender.is_closed() {
                return;
            }
        }
    }

    /// Reads until the connection or the container ends.
    async fn read(&mut self) -> Result<(), kube::Error> {
        let log = log_params(true, self.since);
        let mut reader = self.api.log_stream(&self.name, &log).await?;
        let mut line = Vec::new();
        loop {
            let message = match read_line(&mut reader, &mut line).await {
                Ok(LineRead::Whole) => match self.parse(&line) {
                    Some(message) => message,
                    None => continue,
                },
                Ok(LineRead::TooLong) => Message::Skipped,
                Ok(LineRead::End) | Err(_) => return Ok(()),
            };
            if self.sender.send(message).await.is_err() {
                return Ok(());
            }
        }
    }

    /// What a line is; nothing where it is empty or was seen before.
    fn parse(&mut self, line: &[u8]) -> Option<Message> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let Ok(record) = serde_json::from_slice::<Record>(line) else {
            return Some(Message::Skipped);
        };
        if let Some((stream, seq)) = &self.last
            && *stream == record.stream
            && record.seq <= *seq
        {
            return None;
        }
        self.last = Some((record.stream.clone(), record.seq));
        if let Ok(time) = record.time.parse() {
            self.since = Some(time);
        }
        Some(Message::Record(Box::new(record), line.to_vec()))
    }
}

enum LineRead {
    Whole,
    TooLong,
    End,
}

/// Reads a line of at most [`MAX_LINE_BYTES`] into `line`; a longer one is passed over.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<LineRead> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(match (too_long, line.is_empty()) {
                (true, _) => LineRead::TooLong,
                (false, true) => LineRead::End,
                (false, false) => LineRead::Whole,
            });
        }
        let (part, ended) = match available.iter().position(|b| *b == b'\n') {
            Some(at) => (available.get(..=at).unwrap_or(available), true),
            None => (available, false),
        };
        too_long |= line.len().saturating_add(part.len()) > MAX_LINE_BYTES;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len();
        reader.consume_unpin(used);
        if ended {
            return Ok(if too_long {
                LineRead::TooLong
            } else {
                LineRead::Whole
            });
        }
    }
}

fn injected() -> ListParams {
    ListParams::default().labels(&format!("{}=true", pod::INJECTED_LABEL))
}

fn log_params(follow: bool, since_time: Option<Timestamp>) -> LogParams {
    LogParams {
        container: Some(pod::SIDECAR_NAME.to_owned()),
        follow,
        since_time,
        ..LogParams::default()
    }
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

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = futures::io::BufReader::with_capacity(3, bytes);
        let (mut line, mut seen) = (Vec::new(), Vec::new());
        loop {
            match read_line(&mut reader, &mut line).await.unwrap() {
                LineRead::Whole => seen.push(String::from_utf8(line.clone()).unwrap()),
                LineRead::TooLong => seen.push("too long".to_owned()),
                LineRead::End => return seen,
            }
        }
    }

    #[tokio::test]
    async fn lines_are_read_across_buffers() {
        assert_eq!(
            lines(b"ab\ncdefg\n\nlast").await,
            ["ab\n", "cdefg\n", "\n", "last"]
        );
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn an_endless_line_takes_no_memory() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + 1];
        bytes.extend(b"\nnext\n");
        let mut reader = futures::io::BufReader::new(bytes.as_slice());
        let mut line = Vec::new();
        let first = read_line(&mut reader, &mut line).await.unwrap();
        assert!(matches!(first, LineRead::TooLong));
        assert!(matches!(
            read_line(&mut reader, &mut line).await.unwrap(),
            LineRead::Whole
        ));
        assert_eq!(line, b"next\n");
    }

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
