//! Policies that change and a sidecar that is told to stop, under load: each answer that an agent heard is one record, with the decision that the agent was told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::{
    connection::begin,
    http,
    http1::parse_request,
    link::Link,
    shared::Shared,
    wire::{Io, Wire},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinSet,
};

use super::setup::Setup;

/// Connections at once.
const AGENTS: usize = 8;
/// Bytes that each direction buffers.
const PIPE_BYTES: usize = 4096;

const ALLOWS: &str = "";
const REFUSES_DELETE: &str = "apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: p, namespace: agents}
spec:
  mode: Enforce
  rules:
    - name: no-delete
      match: {protocols: [http]}
      when: http.method == \"DELETE\"
      action: Deny
";

/// What the agents heard, all together.
#[derive(Default, Debug, PartialEq, Eq)]
struct Heard {
    passed: usize,
    refused: usize,
    /// Requests that ended without an answer, and that the agent knows of.
    broken: usize,
}

impl Heard {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.refused += other.refused;
        self.broken += other.broken;
    }
}

/// Answers every request at once.
async fn upstream(mut end: DuplexStream) {
    let (mut unread, mut buffer) = (Vec::new(), vec![0; PIPE_BYTES]);
    while let Ok(read @ 1..) = end.read(&mut buffer).await {
        unread.extend_from_slice(&buffer[..read]);
        while let Ok(Some((_, used))) = parse_request(&unread) {
            unread.drain(..used);
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if end.write_all(ok).await.is_err() {
                return;
            }
        }
    }
}

/// Sends DELETE after DELETE on one connection until `until`, or until the connection ends.
async fn agent(shared: Arc<Shared>, until: Instant) -> Heard {
    let mut heard = Heard::default();
    while Instant::now() < until {
        let Some(link) = begin(shared.clone(), "198.51.100.7:443".parse().unwrap()) else {
            return heard;
        };
        let link = Link {
            tried: Vec::new(),
            tunnel: None,
            sni: Some("files.example.com".to_owned()),
            certificate: None,
            ..link
        };
        let (mut near, side) = tokio::io::duplex(PIPE_BYTES);
        let (there, far) = tokio::io::duplex(PIPE_BYTES);
        let serving = tokio::spawn(upstream(far));
        let served = tokio::spawn(async move {
            let mut side = Wire::new(side, BytesMut::new());
            let there: Box<dyn Io> = Box::new(there);
            http::serve(
                &link,
                &mut side,
                Some(Wire::new(there, BytesMut::new())),
                true,
            )
            .await;
        });
        while Instant::now() < until {
            match exchange(&mut near).await {
                Some(200) => heard.passed += 1,
                Some(403) => heard.refused += 1,
                Some(other) => panic!("{other} is no answer to this"),
                None => {
                    heard.broken += 1;
                    break;
                }
            }
        }
        drop(near);
        served.await.unwrap();
        serving.await.unwrap();
        if *shared.stopping.borrow() {
            break;
        }
    }
    heard
}

/// One request; the status of its answer, read whole. `None`: the connection ended.
async fn exchange(near: &mut DuplexStream) -> Option<u16> {
    let request = b"DELETE /x HTTP/1.1\r\nHost: files.example.com\r\n\r\n";
    near.write_all(request).await.ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let read = near.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&buffer[..read]);
        if answer.ends_with(b"\r\n\r\nok") || answer.ends_with(b"}}") {
            return std::str::from_utf8(&answer[9..12]).ok()?.parse().ok();
        }
    }
}

async fn load(setup: &Setup, duration: Duration) -> Heard {
    let until = Instant::now() + duration;
    let mut agents = JoinSet::new();
    for _ in 0..AGENTS {
        agents.spawn(agent(setup.shared.clone(), until));
    }
    let mut heard = Heard::default();
    for one in agents.join_all().await {
        heard.add(&one);
    }
    heard
}

fn decisions(records: &[Record], action: Outcome) -> Vec<&Record> {
    let exchanges = records.iter().filter(|r| r.event.kind == EventKind::Http);
    exchanges
        .filter(|r| {
            r.event
                .decision
                .as_ref()
                .is_some_and(|d| d.action == action)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_swapped_every_100_ms_under_load_lose_no_request() {
    let (setup, _) = Setup::new(ALLOWS, "", "");
    let swaps = async {
        for round in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            setup.swap(if round % 2 == 0 {
                REFUSES_DELETE
            } else {
                ALLOWS
            });
        }
    };
    let (heard, ()) = tokio::join!(load(&setup, Duration::from_secs(2)), swaps);
    assert_eq!(heard.broken, 0, "{heard:?}");
    assert!(heard.passed > 20 && heard.refused > 20, "{heard:?}");
    let records = setup.records().await;
    let allowed = decisions(&records, Outcome::Allow);
    let denied = decisions(&records, Outcome::Deny);
    assert_eq!((allowed.len(), denied.len()), (heard.passed, heard.refused));
    // Each decision names the revision that it was made under: none was made between two.
    let revisions = |records: &[&Record]| {
        let mut all: Vec<_> = records
            .iter()
            .map(|record| record.event.decision.as_ref().unwrap().revision.clone())
            .collect();
        all.sort();
        all.dedup();
        all.len()
    };
    assert_eq!((revisions(&allowed), revisions(&denied)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_told_to_stop_under_load_loses_no_answered_request() {
    let (setup, _) = Setup::new(ALLOWS, "", "");
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        setup.stop.send_replace(true);
    };
    let (heard, ()) = tokio::join!(load(&setup, Duration::from_secs(10)), stop);
    assert!(heard.passed > 20 && heard.broken <= AGENTS, "{heard:?}");
    let records = setup.records().await;
    let allowed = decisions(&records, Outcome::Allow);
    assert_eq!(allowed.len(), heard.passed);
    let last = records.last().unwrap();
    assert_eq!(last.event.kind, EventKind::StreamClose);
}
