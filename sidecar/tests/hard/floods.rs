//! Floods of HTTP/2 frames: each ends with its connection or waits for its sender to read, at a bounded cost, and nobody else notices.

use std::time::Duration;

use bytes::BytesMut;
use chaperone_crds::record::Record;
use chaperone_sidecar::{
    connection::begin,
    http2,
    link::Link,
    wire::{Io, Wire},
};
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use super::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Ending, HEADERS, PING, RST_STREAM, SETTINGS,
        ending, fields, frame, hello, text,
    },
    setup::Setup,
};

/// Bytes that each direction of a pipe holds.
const PIPE_BYTES: usize = 16 * 1024;
/// Longest flood that is sent.
const FLOOD_BYTES: usize = 8 * 1024 * 1024;
/// A sidecar that has not taken a byte for so long takes no more.
const STUCK: Duration = Duration::from_millis(500);
const ENHANCE_YOUR_CALM: u32 = 11;

/// One agent with the upstream behind it, which counts requests.
struct Flooded {
    agent: DuplexStream,
    served: JoinHandle<()>,
    upstream: JoinHandle<usize>,
}

impl Flooded {
    async fn begin(setup: &Setup) -> Self {
        let link = Link {
            tried: Vec::new(),
            tunnel: None,
            sni: Some("files.example.com".to_owned()),
            certificate: None,
            ..begin(setup.shared.clone(), "198.51.100.7:443".parse().unwrap()).unwrap()
        };
        let (mut agent, side) = tokio::io::duplex(PIPE_BYTES);
        let (there, end) = tokio::io::duplex(PIPE_BYTES);
        let upstream = tokio::spawn(count(end));
        let served = tokio::spawn(async move {
            let there: Box<dyn Io> = Box::new(there);
            let upstream = Wire::new(there, BytesMut::new());
            http2::serve(
                &link,
                Wire::new(side, BytesMut::new()),
                Some(upstream),
                true,
            )
            .await;
        });
        agent.write_all(&hello()).await.unwrap();
        Self {
            agent,
            served,
            upstream,
        }
    }

    /// Sends frames until the connection is closed or takes no more, and reads what comes back meanwhile; how many bytes went, and how it ended.
    async fn flood(&mut self, frames: impl FnMut(u32) -> Vec<u8>) -> (usize, Ending) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.agent);
        let pouring = pour(&mut writer, frames);
        let hearing = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                match ending(&mut reader).await {
                    Ending::Answer(_) | Ending::Reset(_) => {}
                    end => return end,
                }
            }
        });
        tokio::pin!(hearing);
        let (sent, heard) = tokio::select! {
            heard = &mut hearing => (0, heard),
            sent = pouring => (sent, hearing.await),
        };
        (sent, heard.unwrap_or(Ending::Closed))
    }

    /// The number of requests that reached the upstream.
    async fn end(self) -> usize {
        drop(self.agent);
        self.served.await.unwrap();
        self.upstream.await.unwrap()
    }
}

/// Writes frames until the connection is closed or takes no more; how many bytes went.
async fn pour(
    into: &mut (impl AsyncWriteExt + Unpin),
    mut frames: impl FnMut(u32) -> Vec<u8>,
) -> usize {
    let mut sent = 0;
    for number in 0.. {
        let frame = frames(number);
        match tokio::time::timeout(STUCK, into.write_all(&frame)).await {
            Ok(Ok(())) if sent < FLOOD_BYTES => sent += frame.len(),
            _ => break,
        }
    }
    sent
}

async fn count(end: DuplexStream) -> usize {
    let Ok(mut connection) = h2::server::handshake(end).await else {
        return 0;
    };
    let mut requests = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        requests += 1;
        let _ = respond.send_response(Response::new(()), true);
    }
    requests
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    let list = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/x"),
        (":authority", "files.example.com"),
    ];
    frame(HEADERS, flags, stream, &fields(&list))
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

/// Another connection is served.
async fn others_are_served(setup: &Setup) {
    let mut other = Flooded::begin(setup).await;
    let get = request(1, END_HEADERS | END_STREAM);
    other.agent.write_all(&get).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), ending(&mut other.agent)).await;
    assert_eq!(answer.unwrap(), Ending::Answer(200));
    assert_eq!(other.end().await, 1);
}

fn is_flood(record: &Record) -> bool {
    let decision = record.event.decision.as_ref();
    decision.is_some_and(|decision| decision.reason == "flood")
}

fn floods(setup: &Setup) -> u64 {
    setup
        .shared
        .metrics
        .denials
        .with_label_values(&["flood"])
        .get()
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection_and_is_recorded_as_a_flood() {
    let (setup, _) = Setup::new("", "", "");
    let mut flooded = Flooded::begin(&setup).await;
    let (_, ended) = flooded
        .flood(|number| {
            // Many in one write, so that they are there before the first is looked at.
            let pairs = (number * 100..number * 100 + 100).map(|number| {
                let cancel = frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes());
                [request(stream(number), END_HEADERS | END_STREAM), cancel].concat()
            });
            pairs.collect::<Vec<_>>().concat()
        })
        .await;
    assert_eq!(ended, Ending::Goaway(ENHANCE_YOUR_CALM));
    others_are_served(&setup).await;
    flooded.end().await;
    assert_eq!(floods(&setup), 1);
    let records = setup.records().await;
    assert_eq!(records.iter().filter(|record| is_flood(record)).count(), 1);
}

#[tokio::test]
async fn continuations_without_end_end_their_connection_at_the_limit_of_a_header_list() {
    let (setup, _) = Setup::new("", "", "");
    let mut flooded = Flooded::begin(&setup).await;
    flooded.agent.write_all(&request(1, 0)).await.unwrap();
    let block = fields(&[("x", "y".repeat(1000))]);
    let (sent, ended) = flooded
        .flood(|_| frame(CONTINUATION, 0, 1, &block.repeat(8)))
        .await;
    assert!(sent < FLOOD_BYTES, "{sent} bytes were taken");
    assert_ne!(ended, Ending::Answer(200));
    others_are_served(&setup).await;
    assert_eq!(flooded.end().await, 0);
    setup.records().await;
}

#[tokio::test]
async fn a_field_that_is_repeated_by_reference_is_refused_at_the_limit_of_a_header_list() {
    let (setup, _) = Setup::new("", "", "");
    let mut flooded = Flooded::begin(&setup).await;
    // A field of 4,000 bytes enters the table, and each further byte refers to it: 16 KiB that would be 64 MiB.
    let mut bomb = Vec::new();
    bomb.push(0x40);
    text(&mut bomb, b"x");
    text(&mut bomb, &vec![b'y'; 4000]);
    bomb.extend(vec![0xbe; 12_000]);
    let list = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/x"),
        (":authority", "files.example.com"),
    ]);
    let block = [list, bomb].concat();
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    flooded.agent.write_all(&bytes).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), ending(&mut flooded.agent)).await;
    assert_ne!(ended.unwrap(), Ending::Answer(200));
    others_are_served(&setup).await;
    assert_eq!(flooded.end().await, 0);
    setup.records().await;
}

#[tokio::test]
async fn data_frames_without_data_end_their_connection() {
    let (setup, _) = Setup::new("", "", "");
    let mut flooded = Flooded::begin(&setup).await;
    let post = request(1, END_HEADERS);
    flooded.agent.write_all(&post).await.unwrap();
    let (_, ended) = flooded.flood(|_| frame(DATA, 0, 1, &[]).repeat(100)).await;
    assert!(
        matches!(ended, Ending::Goaway(ENHANCE_YOUR_CALM) | Ending::Closed),
        "{ended:?}"
    );
    others_are_served(&setup).await;
    flooded.end().await;
    setup.records().await;
}

#[tokio::test]
async fn settings_and_pings_whose_answers_nobody_reads_are_not_taken_for_long() {
    for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[0; 8][..])] {
        let (setup, _) = Setup::new("", "", "");
        let mut flooded = Flooded::begin(&setup).await;
        let sent = pour(&mut flooded.agent, |_| frame(kind, 0, 0, payload)).await;
        assert!(
            sent < FLOOD_BYTES / 8,
            "{sent} bytes of kind {kind} were taken"
        );
        others_are_served(&setup).await;
        let mut rest = vec![0; PIPE_BYTES];
        let _ = flooded.agent.read(&mut rest).await;
        flooded.end().await;
        setup.records().await;
    }
}
