//! Peers that do not take what they are sent: the other side waits, and nothing piles up in between.

use std::time::Duration;

use bytes::BytesMut;
use chaperone_sidecar::{
    connection::begin,
    http,
    link::Link,
    wire::{Io, Wire},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use super::setup::Setup;

/// Bytes that each pipe of the test itself holds.
const PIPE_BYTES: usize = 16 * 1024;
/// Most bytes that may be under way in one direction of one connection: the two pipes, and some buffers of the sidecar.
const MOST_UNDER_WAY: usize = 2 * PIPE_BYTES + 128 * 1024;
/// A peer that has not taken a byte for so long is stuck.
const STUCK: Duration = Duration::from_millis(500);
const PIECE: [u8; 8192] = [b'a'; 8192];

const MASKS: &str = "apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: p, namespace: agents}
spec:
  mode: Enforce
  masks: [{name: pii, detectors: [email, creditCard, usSsn, privateKey]}]
  audit: {level: RequestResponse}
";

fn connect(setup: &Setup) -> (DuplexStream, DuplexStream, JoinHandle<()>) {
    let link = Link {
        tried: Vec::new(),
        tunnel: None,
        sni: Some("files.example.com".to_owned()),
        certificate: None,
        ..begin(setup.shared.clone(), "198.51.100.7:443".parse().unwrap()).unwrap()
    };
    let (agent, side) = tokio::io::duplex(PIPE_BYTES);
    let (there, upstream) = tokio::io::duplex(PIPE_BYTES);
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
    (agent, upstream, served)
}

/// Writes until nobody takes more; how much went.
async fn pour(into: &mut DuplexStream) -> usize {
    let mut poured = 0;
    while let Ok(written) = tokio::time::timeout(STUCK, into.write(&PIECE)).await {
        poured += written.unwrap();
        assert!(poured <= MOST_UNDER_WAY, "{poured} bytes are piled up");
    }
    poured
}

async fn head(from: &mut DuplexStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(from.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_stops_its_upstream_and_nobody_else() {
    for policy in ["", MASKS] {
        let (setup, _) = Setup::new(policy, "", "");
        let (mut lazy, mut upstream, served) = connect(&setup);
        let get = b"GET /large HTTP/1.1\r\nHost: files.example.com\r\n\r\n";
        lazy.write_all(get).await.unwrap();
        head(&mut upstream).await;
        let ok = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99999999\r\n\r\n";
        upstream.write_all(ok).await.unwrap();
        assert!(pour(&mut upstream).await >= PIPE_BYTES);

        let (mut other, mut other_upstream, other_served) = connect(&setup);
        other.write_all(get).await.unwrap();
        head(&mut other_upstream).await;
        other_upstream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(1), head(&mut other))
            .await
            .expect("another connection is served meanwhile");
        drop((lazy, upstream, other, other_upstream));
        served.await.unwrap();
        other_served.await.unwrap();
        setup.records().await;
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_its_agent() {
    let (setup, _) = Setup::new(MASKS, "", "");
    let (mut agent, mut upstream, served) = connect(&setup);
    let post =
        b"POST /large HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 99999999\r\n\r\n";
    agent.write_all(post).await.unwrap();
    head(&mut upstream).await;
    assert!(pour(&mut agent).await >= PIPE_BYTES);
    drop((agent, upstream));
    served.await.unwrap();
    setup.records().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused_at_its_limit() {
    for flood in ["X: y\r\n", "a"] {
        let (setup, _) = Setup::new("", "", "");
        let (mut agent, _upstream, served) = connect(&setup);
        let start = b"GET / HTTP/1.1\r\nHost: files.example.com\r\n";
        agent.write_all(start).await.unwrap();
        let mut sent = 0;
        let (mut reader, mut writer) = tokio::io::split(agent);
        let flooding = async {
            while sent < 4 * MOST_UNDER_WAY && writer.write_all(flood.as_bytes()).await.is_ok() {
                sent += flood.len();
            }
        };
        let mut heard = Vec::new();
        let hearing = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut heard));
        let (_, heard_all) = tokio::join!(flooding, hearing);
        heard_all.unwrap().unwrap();
        assert!(
            heard.starts_with(b"HTTP/1.1 431 "),
            "{}",
            String::from_utf8_lossy(&heard)
        );
        served.await.unwrap();
        setup.records().await;
    }
}
