//! HTTP/2 that begins with a request of HTTP/1.1 (RFC 7540 §3.2).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, fields, frame, hello, status, until,
};

const HOST: &str = "198.51.100.7";
const OFFER: &str =
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .unwrap()
}

/// The agent offers HTTP/2 and the upstream agrees. Returns what the upstream was sent.
async fn upgrade(story: &mut Story) -> String {
    story.send(&get("/first", OFFER)).await;
    let asked = story.asked("\r\n\r\n").await;
    story.answer(SWITCH).await;
    assert_eq!(story.heard("\r\n\r\n").await, SWITCH);
    asked
}

/// A response of stream `stream` with this text.
fn response(stream: u32, body: &str) -> Vec<u8> {
    let head = [&[0x88][..], &fields(&[("content-type", "text/plain")])].concat();
    let head = frame(HEADERS, END_HEADERS, stream, &head);
    [head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// Status and body that the agent gets on a stream.
async fn heard(agent: &mut DuplexStream, stream: u32) -> (u16, String) {
    let head = soon(until(agent, HEADERS, stream, |_, _| {})).await;
    let body = soon(until(agent, DATA, stream, |_, _| {})).await;
    (status(&head), String::from_utf8(body).unwrap())
}

async fn sees_preface(upstream: &mut DuplexStream) {
    let mut preface = [0; 24];
    soon(upstream.read_exact(&mut preface)).await.unwrap();
    assert_eq!(preface, PREFACE);
}

#[tokio::test]
async fn an_upgraded_request_is_answered_masked_and_recorded_on_stream_1_and_others_follow() {
    let mut story = Story::begin_in_clear_text(&masks("Enforce")).await;
    let asked = upgrade(&mut story).await;
    // Settings of the sidecar, not the agent's.
    assert_eq!(
        asked,
        get("/first", &OFFER.replace("AAMAAABk", "AAIAAAAA")),
        "the offer passes"
    );
    let second = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", HOST),
        (":path", "/second"),
    ]);
    let second = frame(HEADERS, END_STREAM | END_HEADERS, 3, &second);
    let agent = [hello(), second].concat();
    story.agent.write_all(&agent).await.unwrap();

    sees_preface(&mut story.upstream).await;
    let mut streams = Vec::new();
    soon(until(&mut story.upstream, HEADERS, 3, |kind, stream| {
        if kind == HEADERS {
            streams.push(stream);
        }
    }))
    .await;
    assert_eq!(streams, [3], "the head of stream 1 never leaves");
    let answers = [
        frame(SETTINGS, 0, 0, &[]),
        response(1, "to grace@navy.example"),
        response(3, "second"),
    ];
    story.upstream.write_all(&answers.concat()).await.unwrap();
    // One acknowledgement, for the agent's one SETTINGS frame.
    let mut acknowledged = 0;
    let head = soon(until(&mut story.agent, HEADERS, 1, |kind, _| {
        acknowledged += usize::from(kind == SETTINGS);
    }))
    .await;
    let first = soon(until(&mut story.agent, DATA, 1, |_, _| {})).await;
    assert_eq!((status(&head), &*first), (200, &b"to [masked:email]"[..]));
    assert_eq!(acknowledged, 2, "settings and one acknowledgement");
    assert_eq!(heard(&mut story.agent, 3).await, (200, "second".to_owned()));

    let records = story.records().await;
    let said: Vec<_> = exchanges(&records)
        .iter()
        .map(|record| {
            let http = record.event.http.as_ref().unwrap();
            let resource = &record.event.operation.as_ref().unwrap().resource;
            (resource.clone(), http.status, http.complete)
        })
        .collect();
    let url = |path: &str| format!("http://{HOST}{path}");
    assert_eq!(
        said,
        [
            (url("/first"), Some(200), true),
            (url("/second"), Some(200), true)
        ]
    );
    assert_eq!(exchanges(&records)[0].event.masked[0].count, 1);
}

#[tokio::test]
async fn our_settings_follow_the_101_before_the_agent_says_anything() {
    let mut story = Story::begin_in_clear_text("").await;
    upgrade(&mut story).await;
    let mut head = [0; 9];
    soon(story.agent.read_exact(&mut head)).await.unwrap();
    assert_eq!((head[3], head[4]), (SETTINGS, 0), "a server's preface");
    let mut rest = vec![0; usize::from(head[2])];
    story.agent.read_exact(&mut rest).await.unwrap();
    story.agent.write_all(&hello()).await.unwrap();
    sees_preface(&mut story.upstream).await;
    let answers = [frame(SETTINGS, 0, 0, &[]), response(1, "first")];
    story.upstream.write_all(&answers.concat()).await.unwrap();
    assert_eq!(heard(&mut story.agent, 1).await, (200, "first".to_owned()));
}

#[tokio::test]
async fn a_policy_judges_the_request_before_and_the_streams_after_the_upgrade() {
    let mut story = Story::begin_in_clear_text(&no_delete("Enforce")).await;
    upgrade(&mut story).await;
    let delete = fields(&[
        (":method", "DELETE"),
        (":scheme", "http"),
        (":authority", HOST),
        (":path", "/second"),
    ]);
    let delete = frame(HEADERS, END_STREAM | END_HEADERS, 3, &delete);
    story
        .agent
        .write_all(&[hello(), delete].concat())
        .await
        .unwrap();
    let (code, body) = heard(&mut story.agent, 3).await;
    assert_eq!(code, 403);
    assert!(body.contains("Deleting is for people."), "{body}");
}

#[tokio::test]
async fn an_upstream_that_ignores_the_offer_goes_on_in_http_1() {
    let mut story = Story::begin_in_clear_text("").await;
    for path in ["/first", "/second"] {
        story.send(&get(path, OFFER)).await;
        story.asked("\r\n\r\n").await;
        story.answer(OK).await;
        assert_eq!(story.heard("hi").await, OK);
    }
    assert_eq!(exchanges(&story.records().await).len(), 2);
}

#[tokio::test]
async fn an_offer_that_cannot_be_followed_is_withheld() {
    let upgrades = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    for (what, request) in [
        (
            "a body",
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{OFFER}Content-Length: 0\r\n\r\n"),
        ),
        (
            "another protocol too",
            get("/", &OFFER.replace("h2c", "h2c, x")),
        ),
        ("two offers", get("/", &format!("{OFFER}Upgrade: h2c\r\n"))),
        (
            "two settings",
            get("/", &format!("{OFFER}HTTP2-Settings: AAMAAABk\r\n")),
        ),
        (
            "settings that are none",
            get("/", &OFFER.replace("AAMAAABk", "AAM")),
        ),
        (
            "no settings",
            get("/", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        ),
        (
            "settings that are not of this hop",
            get("/", &format!("Connection: Upgrade\r\n{upgrades}")),
        ),
        (
            "an expectation",
            get("/", &format!("{OFFER}Expect: 100-continue\r\n")),
        ),
    ] {
        let mut story = Story::begin_in_clear_text("").await;
        story.send(&request).await;
        let asked = story.asked("\r\n\r\n").await;
        assert!(
            !asked.contains("Upgrade") && !asked.contains("Settings"),
            "{what}: {asked}"
        );
        // An upstream that switches all the same is refused.
        story.answer(SWITCH).await;
        let heard = story.heard_to_end().await;
        assert!(heard.starts_with("HTTP/1.1 502"), "{what}: {heard}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_preface_go_nowhere() {
    for smuggled in [
        b"GET /smuggled HTTP/1.1\r\n\r\n".to_vec(),
        [PREFACE, &frame(HEADERS, END_HEADERS, 1, &[0x82])].concat(),
        [PREFACE, &frame(SETTINGS, 1, 0, &[])].concat(),
    ] {
        let mut story = Story::begin_in_clear_text("").await;
        upgrade(&mut story).await;
        story.agent.write_all(&smuggled).await.unwrap();
        let mut heard = Vec::new();
        soon(story.agent.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard.get(3), Some(&SETTINGS));
        let settings = 9 + usize::from(heard[2]);
        assert_eq!(heard.len(), settings, "our settings and no answer");
        let records = story.records().await;
        let http = exchanges(&records)[0].event.http.as_ref().unwrap();
        assert!(!http.complete && http.status.is_none());
        let refused = records
            .iter()
            .find(|record| record.event.kind == EventKind::Connection)
            .unwrap();
        assert_eq!(refused.event.error.as_deref(), Some("http2"));
    }
}

#[tokio::test]
async fn an_agent_that_leaves_after_the_upgrade_is_recorded() {
    for settings in [
        Vec::new(),
        hello(),
        // A window that is too large ends the connection before stream 1.
        [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255])].concat(),
    ] {
        let mut story = Story::begin_in_clear_text("").await;
        upgrade(&mut story).await;
        story.agent.write_all(&settings).await.unwrap();
        let records = story.records().await;
        let all = exchanges(&records);
        assert_eq!(all.len(), 1);
        assert!(!error(all[0]).is_empty());
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_after_the_upgrade_is_told() {
    let mut story = Story::begin_in_clear_text("").await;
    upgrade(&mut story).await;
    story.agent.write_all(&hello()).await.unwrap();
    sees_preface(&mut story.upstream).await;
    story.upstream_leaves();
    assert_eq!(heard(&mut story.agent, 1).await.0, 502);
    assert!(error(exchanges(&story.records().await)[0]).contains("broke off"));
}
