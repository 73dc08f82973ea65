//! Requests that two servers could read in two ways, each through the whole story of a connection: one meaning reaches the upstream, or nothing does, and either way a record says so.
//!
//! The cases are data (`desync/http1.yaml`, `desync/http2.yaml`). Those of HTTP/1 run twice: before an upstream that writes down every byte, and before Node's HTTP server at its most lenient, which must not see the
//! request that was smuggled. `docs/desync.md` is written from them: `UPDATE_DOCS=1 cargo test -p chaperone-sidecar --test desync_story` writes it anew.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/frames.rs"]
mod frames;
#[path = "desync/http2.rs"]
mod http2_cases;
#[path = "desync/node.rs"]
mod node;
#[path = "desync/page.rs"]
mod page;
#[path = "desync/recorder.rs"]
mod recorder;
#[allow(dead_code, reason = "other stories use the rest")]
#[path = "support/setup.rs"]
mod setup;

use std::time::Duration;

use bytes::BytesMut;
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::{
    connection::begin,
    http,
    link::Link,
    shared::Shared,
    wire::{Io, Wire},
};
use serde::Deserialize;
use setup::Setup;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOST: &str = "files.example.com";
const POST: &str = "POST /first HTTP/1.1\r\nHost: files.example.com\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: files.example.com\r\n\r\n";
/// Each case has a port of its own, by which its records are found.
const FIRST_PORT: u16 = 10_000;
/// Bytes that each direction buffers.
const PIPE_BYTES: usize = 64 * 1024;
/// Between two pieces of a case, and before its end.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time of one case.
const PATIENCE: Duration = Duration::from_secs(10);

/// One case, as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    source: String,
    send: Vec<String>,
    #[serde(default)]
    second: bool,
    #[serde(default)]
    upstream: String,
    #[serde(default)]
    heard: Vec<u16>,
}

impl Case {
    fn all() -> Vec<Self> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/desync/http1.yaml");
        let data = std::fs::read_to_string(file).unwrap();
        let cases: Vec<Self> = serde_saphyr::from_str(&data).unwrap();
        assert!(cases.len() >= 60);
        cases
    }

    fn pieces(&self) -> Vec<String> {
        self.send.iter().map(|piece| expand(piece)).collect()
    }

    /// What has to reach the upstream.
    fn expected(&self) -> String {
        match self.upstream.as_str() {
            "as sent" => self.pieces().concat(),
            other => expand(other),
        }
    }
}

fn expand(text: &str) -> String {
    text.replace("{post}", POST).replace("{smuggled}", SMUGGLED)
}

fn port_of(number: usize) -> u16 {
    FIRST_PORT + u16::try_from(number).unwrap()
}

/// The agent sends, says that it has no more to say, and listens to the end.
async fn attack(
    shared: &Arc<Shared>,
    number: usize,
    case: &Case,
    upstream: Box<dyn Io>,
) -> Vec<u8> {
    let destination = ([198, 51, 100, 7], port_of(number)).into();
    let link = Link {
        tried: Vec::new(),
        tunnel: None,
        sni: Some(HOST.to_owned()),
        certificate: None,
        ..begin(shared.clone(), destination).unwrap()
    };
    let (mut agent, side) = tokio::io::duplex(PIPE_BYTES);
    let served = tokio::spawn(async move {
        let mut side = Wire::new(side, BytesMut::new());
        let upstream = Wire::new(upstream, BytesMut::new());
        http::serve(&link, &mut side, Some(upstream), true).await;
    });
    for piece in case.pieces() {
        // A connection that was refused takes no more.
        let _ = agent.write_all(piece.as_bytes()).await;
        tokio::time::sleep(PAUSE).await;
    }
    let _ = agent.shutdown().await;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, agent.read_to_end(&mut heard)).await;
    drop(agent);
    let ended = tokio::time::timeout(PATIENCE, served).await;
    ended
        .unwrap_or_else(|_| panic!("{}: the connection does not end", case.name))
        .unwrap();
    heard
}

/// Statuses of the responses in a stream.
fn statuses(mut heard: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while let Some(at) = memchr::memmem::find(heard, b"HTTP/1.1 ") {
        heard = &heard[at + 9..];
        // An answer's words may name the protocol too.
        let digits = heard
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        found.extend(digits.and_then(|digits| digits.parse::<u16>().ok()));
    }
    found
}

/// Records of exchanges and refusals of the case.
fn records_of(records: &[Record], number: usize) -> Vec<&Record> {
    let port = port_of(number);
    let its = |record: &&Record| {
        let destination = record.event.destination.as_ref();
        destination.is_some_and(|destination| destination.port == port)
    };
    records.iter().filter(its).collect()
}

/// Whether what reached the upstream is what the case says. How far a body that is refused in its middle has passed by then is a matter of how it was read.
fn arrives(case: &Case, text: &str) -> bool {
    let expected = case.expected();
    let broken_off = case.heard.last() == Some(&400) && !expected.is_empty();
    text == expected
        || (broken_off
            && text.starts_with(&expected)
            && case.pieces().concat().starts_with(text)
            && !text.contains("\r\nhello"))
}

#[tokio::test]
async fn every_case_reaches_a_recording_upstream_in_one_meaning_or_not_at_all() {
    let (setup, _) = Setup::new("", "", "");
    let cases = Case::all();
    let mut wrong = Vec::new();
    let mut written = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (upstream, end) = tokio::io::duplex(PIPE_BYTES);
        let recorder = tokio::spawn(recorder::record(end));
        let heard = statuses(&attack(&setup.shared, number, case, Box::new(upstream)).await);
        let asked = recorder.await.unwrap();
        let text = String::from_utf8_lossy(&asked.bytes).into_owned();
        if !arrives(case, &text) || heard != case.heard {
            let text = match text == case.pieces().concat() && !text.is_empty() {
                true => "as sent".to_owned(),
                false => text.replace(POST, "{post}").replace(SMUGGLED, "{smuggled}"),
            };
            wrong.push(format!(
                "{}\t{}\t{heard:?}",
                case.name,
                serde_json::to_string(&text).unwrap()
            ));
        }
        let smuggled = asked.targets.iter().any(|target| target == "/smuggled");
        if smuggled && !case.second {
            wrong.push(format!("{}: a request is smuggled", case.name));
        }
        written.push(asked);
    }
    let records = setup.records().await;
    for (number, (case, asked)) in cases.iter().zip(&written).enumerate() {
        let its = records_of(&records, number);
        assert!(!its.is_empty(), "{} is in no record", case.name);
        let passed = its.iter().filter(|record| {
            let decision = record.event.decision.as_ref();
            record.event.kind == EventKind::Http
                && decision.is_some_and(|decision| decision.action == Outcome::Allow)
        });
        assert!(
            passed.count() >= asked.targets.len(),
            "{}: a request without a record",
            case.name
        );
    }
    assert!(
        wrong.is_empty(),
        "other than written:\n{}",
        wrong.join("\n")
    );
    page::is_fresh();
}

#[tokio::test]
async fn no_case_smuggles_a_request_into_a_lenient_server() {
    let (setup, _) = Setup::new("", "", "");
    let mut node = node::Node::start().await;
    for (number, case) in Case::all().iter().enumerate() {
        let upstream = Box::new(node.connect().await);
        attack(&setup.shared, number, case, upstream).await;
        let served = node.served().await;
        let smuggled = served.iter().any(|url| url.contains("smuggled"));
        assert!(!smuggled || case.second, "{}: {served:?}", case.name);
        assert!(served.len() <= 2, "{}: {served:?}", case.name);
    }
    setup.records().await;
}
