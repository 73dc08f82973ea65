//! A connection of HTTP/1.1 that goes on in HTTP/2: what an agent and an upstream may say after the 101.

use std::{collections::BTreeSet, time::Duration};

use bytes::BytesMut;
use chaperone_sidecar::{
    connection::{begin, guard},
    http,
    wire::{Io, Wire},
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{
    evidence::Dir,
    parts,
    story::{PIPE_BYTES, RUNTIME, surroundings},
};

const REQUEST: &[u8] = b"GET /first HTTP/1.1\r\nHost: 198.51.100.7\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION: all that we have reason to write.
const OURS: [u8; 8] = [0, HEADERS, RST_STREAM, SETTINGS, 6, 7, WINDOW_UPDATE, 9];
/// Turns of all tasks without a byte after which an agent has heard what there is: everything runs in one thread, so that nothing but a timer or a peer could bring more.
const AGENT_TURNS: usize = 256;
/// The same for the upstream, which stays until the agent is gone.
const UPSTREAM_TURNS: usize = 2048;
/// The same for an upstream that waits to be asked.
const ASKED_TURNS: usize = 24;
/// Most times that an upstream waits to be asked before it answers. Each takes time, and a few streams are as good as many.
const MOST_WAITS: usize = 8;
/// Longest time of a connection, of which both ends are gone soon. The sidecar says goodbye to each for a second at most.
const ENDS: Duration = Duration::from_secs(5);

/// What the agent says after the 101, and behind a line `---` what the upstream does: nothing panics or hangs, each side is sent frames of HTTP/2 and nothing else, the upstream no head
/// or body on stream 1, and there is one record of the request that was upgraded, one of each stream that reached the upstream, and none of a stream that was never opened.
pub(crate) fn upgrade(bytes: &[u8]) {
    let dir = Dir::new();
    let (says, answers) = parts(bytes);
    let heard = RUNTIME.block_on(tell(&dir, says, answers));
    assert!(!heard.panicked, "the story panicked");

    let by_agent = heard.by_agent.strip_prefix(SWITCH).expect("the 101 passes");
    are_ours(by_agent);
    let by_upstream = heard.by_upstream.as_slice();
    let begun = by_upstream.len().min(PREFACE.len());
    assert_eq!(by_upstream[..begun], PREFACE[..begun]);
    let by_upstream = &by_upstream[begun..];
    are_ours(by_upstream);
    let on_first = frames(by_upstream).filter(|frame| frame.stream == 1);
    for Frame { kind, .. } in on_first {
        // It was sent in HTTP/1.1, whole.
        assert!([RST_STREAM, WINDOW_UPDATE].contains(&kind), "type {kind}");
    }

    let records = exchanges(&dir);
    let is_first = |record: &&Value| record["http"]["requestHeaders"]["upgrade"] == "h2c";
    assert_eq!(records.iter().filter(is_first).count(), 1, "of stream 1");
    let further = records.len() - 1;
    let reached = opened(by_upstream).len();
    assert!(reached <= further, "{reached} reached the upstream");
    let sent = opened(says.strip_prefix(PREFACE).unwrap_or_default()).len();
    assert!(further <= sent, "{further} records of {sent} streams");
}

/// What both sides heard.
struct Heard {
    by_agent: Vec<u8>,
    /// Behind the request.
    by_upstream: Vec<u8>,
    panicked: bool,
}

async fn tell(dir: &Dir, says: &[u8], answers: &[u8]) -> Heard {
    let (shared, audit, stop) = surroundings(dir);
    let link = begin(shared.clone(), ([198, 51, 100, 7], 80).into()).expect("a policy is in force");
    let (agent, side) = tokio::io::duplex(PIPE_BYTES);
    let (there, end) = tokio::io::duplex(PIPE_BYTES);
    let told = async {
        let there: Box<dyn Io> = Box::new(there);
        let mut side = Wire::new(side, BytesMut::new());
        let there = Some(Wire::new(there, BytesMut::new()));
        let story = http::serve(&link, &mut side, there, false);
        guard(&link, None, std::pin::pin!(story)).await;
    };
    let all = async { tokio::join!(told, speak(agent, says), answer(end, answers)) };
    let ((), by_agent, by_upstream) = tokio::time::timeout(ENDS, all)
        .await
        .expect("a connection ends when its peers do");
    let panicked = shared.metrics.panics.get() > 0;
    drop(stop);
    audit.close("terminated", Duration::from_secs(10)).await;
    Heard {
        by_agent,
        by_upstream,
        panicked,
    }
}

/// The agent: asks for HTTP/2, says something once it is agreed, and goes away when there is no more to hear. Returns what it heard.
async fn speak(mut agent: DuplexStream, says: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = agent.write_all(REQUEST).await;
    until(&mut agent, SWITCH, &mut heard).await;
    exchange(&mut agent, says, AGENT_TURNS, &mut heard).await;
    let _ = agent.shutdown().await;
    exchange(&mut agent, &[], AGENT_TURNS, &mut heard).await;
    heard
}

/// The upstream: agrees to HTTP/2 and says something. Returns what it heard then.
async fn answer(mut end: DuplexStream, answers: &[u8]) -> Vec<u8> {
    let (mut asked, mut heard) = (Vec::new(), Vec::new());
    until(&mut end, b"\r\n\r\n", &mut asked).await;
    let _ = end.write_all(SWITCH).await;
    let mut rest = answers;
    for at in waits(answers) {
        let (now, later) = rest.split_at(at - (answers.len() - rest.len()));
        exchange(&mut end, now, ASKED_TURNS, &mut heard).await;
        rest = later;
    }
    exchange(&mut end, rest, UPSTREAM_TURNS, &mut heard).await;
    heard
}

/// Where an upstream waits in what it says: before its first frame on each further stream, which would be an error before that stream is there.
fn waits(answers: &[u8]) -> Vec<usize> {
    let (mut known, mut at, mut waits) = (BTreeSet::from([0, 1]), 0, Vec::new());
    for frame in frames(answers) {
        if known.insert(frame.stream) && waits.len() < MOST_WAITS {
            waits.push(at);
        }
        at += frame.bytes;
    }
    waits
}

/// Reads to a word, byte by byte: what follows is not to be read here.
async fn until(from: &mut DuplexStream, word: &[u8], heard: &mut Vec<u8>) {
    while !heard.ends_with(word) {
        heard.push(from.read_u8().await.expect("a head is passed on"));
    }
}

/// Says something, and hears until there was nothing for so many turns.
async fn exchange(peer: &mut DuplexStream, says: &[u8], turns: usize, heard: &mut Vec<u8>) {
    let (mut hear, mut speak) = tokio::io::split(peer);
    let saying = async {
        // Who does not listen to the end has gone.
        let _ = speak.write_all(says).await;
        std::future::pending::<()>().await;
    };
    let hearing = async {
        let (mut buffer, mut quiet) = ([0; 1024], 0);
        while quiet < turns {
            tokio::select! {
                biased;
                read = hear.read(&mut buffer) => match read {
                    Ok(read @ 1..) => {
                        heard.extend_from_slice(&buffer[..read]);
                        quiet = 0;
                    }
                    _ => break,
                },
                () = tokio::task::yield_now() => quiet += 1,
            }
        }
    };
    tokio::select! {
        () = saying => {}
        () = hearing => {}
    }
}

/// The head of a frame (RFC 9113 §4.1).
struct Frame {
    kind: u8,
    stream: u32,
    /// With its head.
    bytes: usize,
}

/// Frames that are there whole.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        let [high, middle, low, kind, _, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        bytes = rest.get(length..)?;
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        Some(Frame {
            kind,
            stream,
            bytes: FRAME_HEAD_BYTES + length,
        })
    })
}

/// Whether bytes are frames as the sidecar's codec writes them to either side.
fn are_ours(bytes: &[u8]) {
    if let Some(first) = frames(bytes).next() {
        assert_eq!((first.kind, first.stream), (SETTINGS, 0), "the first frame");
    }
    for Frame { kind, .. } in frames(bytes) {
        assert!(OURS.contains(&kind), "a frame of type {kind}");
    }
}

/// Further streams that frames open, or would.
fn opened(bytes: &[u8]) -> BTreeSet<u32> {
    let heads = frames(bytes).filter(|frame| frame.kind == HEADERS && frame.stream > 1);
    heads.map(|frame| frame.stream).collect()
}

fn exchanges(dir: &Dir) -> Vec<Value> {
    let lines = dir.lines();
    let records = lines
        .iter()
        .map(|line| serde_json::from_slice::<Value>(line).expect("a record is JSON"));
    records.filter(|record| record["kind"] == "http").collect()
}
