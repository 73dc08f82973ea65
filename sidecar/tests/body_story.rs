//! Bodies under masks as an agent and an upstream see them: compressed, partial, streaming, and what their heads say.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "body/outgoing.rs"]
mod outgoing;
#[allow(dead_code, reason = "each story uses a part of it")]
#[path = "support/story.rs"]
mod support;

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use chaperone_crds::record::{Event, EventKind, Outcome, Record};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use support::Story;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str =
    "GET /a HTTP/1.1\r\nHost: files.example.com\r\nAccept-Encoding: gzip, zstd\r\n\r\n";
const GZIPPED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n  masks:\n    - name: pii\n      detectors: [email, usSsn]\n  audit: {{level: RequestResponse}}\n"
    )
}

fn exchange(records: &[Record]) -> &Event {
    let mut events = records.iter().map(|record| &record.event);
    events.find(|event| event.kind == EventKind::Http).unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(bytes)
        .read_to_string(&mut text)
        .unwrap();
    text
}

async fn send_chunk(story: &mut Story, bytes: &[u8]) {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    story.upstream.write_all(&chunk).await.unwrap();
}

/// The next chunk that the agent hears; empty at the end of the body.
async fn hear_chunk(story: &mut Story) -> Vec<u8> {
    let line = story.heard("\r\n").await;
    let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
    let mut chunk = vec![0; length + 2];
    story.agent.read_exact(&mut chunk).await.unwrap();
    chunk.truncate(length);
    chunk
}

async fn hear_body(story: &mut Story) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let chunk = hear_chunk(story).await;
        if chunk.is_empty() {
            return body;
        }
        body.extend_from_slice(&chunk);
    }
}

#[tokio::test]
async fn a_compressed_response_is_masked_and_its_record_shows_the_text() {
    for mode in ["Audit", "Enforce"] {
        let mut story = Story::begin(&policy(mode)).await;
        story.send(GET).await;
        let asked = story.asked("\r\n\r\n").await;
        assert!(asked.contains("Accept-Encoding: gzip, zstd"), "{asked}");
        story.answer(GZIPPED).await;
        for piece in gzip("mail jane.doe@example.com, ssn 078-05-1121\n").chunks(5) {
            send_chunk(&mut story, piece).await;
        }
        story.answer("0\r\n\r\n").await;
        let head = story.heard("\r\n\r\n").await;
        assert!(head.contains("Content-Encoding: gzip"), "{head}");
        let body = gunzip(&hear_body(&mut story).await);
        assert_eq!(body, "mail [masked:email], ssn [masked:usSsn]\n");
        let records = story.records().await;
        let event = exchange(&records);
        let sample = event.http.as_ref().unwrap().response_body.clone().unwrap();
        assert_eq!(sample.text.as_deref(), Some(body.as_str()));
        assert_eq!((event.masked.len(), event.error.as_ref()), (2, None));
    }
}

#[tokio::test]
async fn an_event_leaves_without_waiting_for_the_next_one() {
    const EVENT: &[u8] = b"data: to jane.doe@example.com\n\n";
    for coded in [false, true] {
        let mut story = Story::begin(&policy("Enforce")).await;
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        let coding = if coded {
            "Content-Encoding: gzip\r\n"
        } else {
            ""
        };
        story
            .answer(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}Transfer-Encoding: chunked\r\n\r\n"))
            .await;
        let mut upstream = GzEncoder::new(Vec::new(), Compression::fast());
        let mut agent = flate2::write::GzDecoder::new(Vec::new());
        story.heard("\r\n\r\n").await;
        for _ in 0..3 {
            let event = if coded {
                upstream.write_all(EVENT).unwrap();
                upstream.flush().unwrap();
                std::mem::take(upstream.get_mut())
            } else {
                EVENT.to_vec()
            };
            send_chunk(&mut story, &event).await;
            // The upstream says nothing more until the agent has it.
            let heard = tokio::time::timeout(Duration::from_secs(5), hear_chunk(&mut story));
            let heard = heard.await.unwrap();
            let heard = if coded {
                agent.write_all(&heard).unwrap();
                agent.flush().unwrap();
                std::mem::take(agent.get_mut())
            } else {
                heard
            };
            assert_eq!(heard, b"data: to [masked:email]\n\n");
        }
        story.records().await;
    }
}

#[tokio::test]
async fn a_compressed_body_that_ends_early_is_broken_off_in_enforce_and_recorded_in_audit() {
    let whole = gzip("mail jane.doe@example.com\n");
    for mode in ["Audit", "Enforce"] {
        let mut story = Story::begin(&policy(mode)).await;
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        story.answer(GZIPPED).await;
        send_chunk(&mut story, &whole[..20]).await;
        story.heard("\r\n\r\n").await;
        send_chunk(&mut story, &whole[20..whole.len() - 3]).await;
        story.answer("0\r\n\r\n").await;
        if mode == "Audit" {
            let body = hear_body(&mut story).await;
            let mut text = String::new();
            assert!(
                MultiGzDecoder::new(&body[..])
                    .read_to_string(&mut text)
                    .is_err()
            );
        } else {
            let mut rest = Vec::new();
            story.agent.read_to_end(&mut rest).await.unwrap();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "it must not look complete");
        }
        let records = story.records().await;
        let event = exchange(&records);
        let error = event.error.as_ref().unwrap();
        assert!(error.contains("ends before its end"), "{error}");
        assert_eq!(event.http.as_ref().unwrap().complete, mode == "Audit");
    }
}

#[tokio::test]
async fn a_body_that_is_not_of_its_coding_is_answered_in_words_where_nothing_was_sent() {
    let mut story = Story::begin(&policy("Enforce")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\nada@example.com")
        .await;
    let heard = story.heard_to_end().await;
    assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
    assert!(
        heard.contains("undecodable-response") && !heard.contains("ada@"),
        "{heard}"
    );
    let records = story.records().await;
    let decision = exchange(&records).decision.clone().unwrap();
    assert_eq!(decision.reason, "undecodable-response");
}

#[tokio::test]
async fn a_part_of_a_resource_is_not_asked_for_and_not_let_past_a_mask() {
    for (mode, kind) in [
        ("Enforce", "text/plain"),
        ("Enforce", "multipart/byteranges; boundary=x"),
        ("Audit", "text/plain"),
    ] {
        let mut story = Story::begin(&policy(mode)).await;
        story
            .send("GET / HTTP/1.1\r\nHost: files.example.com\r\nRange: bytes=5-\r\nIf-Range: \"a\"\r\n\r\n")
            .await;
        let asked = story.asked("\r\n\r\n").await;
        assert!(!asked.contains("Range"), "{asked}");
        story
            .answer(&format!("HTTP/1.1 206 Partial Content\r\nContent-Type: {kind}\r\nContent-Range: bytes 5-7/9\r\nContent-Length: 3\r\n\r\nabc"))
            .await;
        if mode == "Enforce" {
            assert!(story.heard_to_end().await.starts_with("HTTP/1.1 502"));
        } else {
            story.heard("\r\n\r\nabc").await;
        }
        let records = story.records().await;
        let event = exchange(&records);
        let decision = event.decision.as_ref().unwrap();
        if mode == "Enforce" {
            let said = (decision.action, decision.reason.as_str());
            assert_eq!(said, (Outcome::Deny, "partial-response"));
        } else {
            assert!(event.error.as_ref().unwrap().contains("unmasked"));
        }
    }
}

#[tokio::test]
async fn an_image_keeps_its_part_its_length_and_its_tag() {
    let mut story = Story::begin(&policy("Enforce")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\nContent-Length: 15\r\n\r\nada@example.com";
    story.answer(answer).await;
    assert_eq!(story.heard("example.com").await, answer);
    story.records().await;
}

#[tokio::test]
async fn a_masked_response_has_a_weak_tag_that_matches_again_and_no_digest() {
    let mut story = Story::begin(&policy("Enforce")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"v1\"\r\nRepr-Digest: sha-256=:x:\r\nContent-Length: 2\r\nAccept-Ranges: bytes\r\n\r\n{}")
        .await;
    let head = story.heard("\r\n\r\n").await;
    assert!(head.contains("etag: W/\"v1\""), "{head}");
    for gone in ["Digest", "Content-Length", "Accept-Ranges"] {
        assert!(!head.contains(gone), "{head}");
    }
    assert_eq!(hear_body(&mut story).await, b"{}");
    story
        .send("PUT /a HTTP/1.1\r\nHost: files.example.com\r\nIf-Match: W/\"v1\"\r\nContent-Length: 0\r\n\r\n")
        .await;
    let asked = story.asked("\r\n\r\n").await;
    assert!(asked.contains("If-Match: \"v1\""), "{asked}");
    story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    story.heard("\r\n\r\n").await;
    story
        .send("GET /a HTTP/1.1\r\nHost: files.example.com\r\nIf-None-Match: W/\"v1\"\r\n\r\n")
        .await;
    let asked = story.asked("\r\n\r\n").await;
    assert!(asked.contains("If-None-Match: W/\"v1\""), "{asked}");
    story
        .answer("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")
        .await;
    let head = story.heard("\r\n\r\n").await;
    assert!(head.contains("etag: W/\"v1\""), "{head}");
    story.records().await;
}

#[tokio::test]
async fn paths_reach_into_events_and_their_records() {
    let policy = policy("Enforce").replace(
        "detectors: [email, usSsn]",
        "detectors: [email, usSsn, creditCard]\n      fields: [$..phone]",
    );
    let mut story = Story::begin(&policy).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    story.heard("\r\n\r\n").await;
    let event = "event: row\ndata: {\"name\":\"x\",\"phone\":{\"home\":\"555 1234\"},\ndata: \"card\":4111111111111111}\n\n";
    let masked = "event: row\ndata: {\"name\":\"x\",\"phone\":\"[masked:field]\",\ndata: \"card\":\"[masked:creditCard]\"}\n\n";
    for _ in 0..2 {
        send_chunk(&mut story, event.as_bytes()).await;
        let heard = tokio::time::timeout(Duration::from_secs(5), hear_chunk(&mut story));
        assert_eq!(String::from_utf8(heard.await.unwrap()).unwrap(), masked);
    }
    story.answer("0\r\n\r\n").await;
    story.heard("0\r\n\r\n").await;
    let records = story.records().await;
    let event = exchange(&records);
    let sample = event.http.as_ref().unwrap().response_body.clone().unwrap();
    assert_eq!(sample.text.unwrap(), masked.repeat(2));
    let found: Vec<_> = event
        .masked
        .iter()
        .map(|m| (m.detector.as_str(), m.count))
        .collect();
    assert_eq!(found, [("field", 2), ("creditCard", 2)]);
}

#[tokio::test]
async fn values_of_response_fields_are_masked_but_those_that_frame_or_route() {
    let policy = policy("Enforce").replace(
        "detectors: [email, usSsn]",
        "detectors: [email]\n      headers: [x-internal-*]",
    );
    let mut story = Story::begin(&policy).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 103 Early Hints\r\nX-Owner: ada@example.com\r\n\r\n")
        .await;
    let early = story.heard("\r\n\r\n").await;
    assert!(early.contains("x-owner: [masked:email]"), "{early}");
    story
        .answer("HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: who=ada@example.com; Path=/\r\nLocation: /u/eve@example.com?m=ada@example.com\r\nX-Internal-Host: db-7\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\npng")
        .await;
    let answer = story.heard("\r\n\r\npng").await;
    for line in [
        "set-cookie: a=1\r\n",
        "set-cookie: who=[masked:email]; Path=/\r\n",
        "x-internal-host: [masked:header]\r\n",
        "location: /u/eve@example.com?m=%5Bmasked%3Aemail%5D\r\n",
        "Content-Length: 3\r\n",
    ] {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    let records = story.records().await;
    let event = exchange(&records);
    let found = event.masked.iter().map(|m| (m.detector.as_str(), m.count));
    assert_eq!(found.collect::<Vec<_>>(), [("email", 3), ("header", 1)]);
    let written = format!("{event:?}");
    assert!(!written.contains("db-7"), "{written}");
}

#[tokio::test]
async fn a_mask_of_header_fields_alone_leaves_bodies_as_they_are() {
    let policy = policy("Enforce").replace("detectors: [email, usSsn]", "headers: [set-cookie]");
    let mut story = Story::begin(&policy).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 206 Partial Content\r\nSet-Cookie: a=1\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nada@example.com")
        .await;
    let head = story.heard("\r\n\r\n").await;
    assert!(head.contains("set-cookie: [masked:header]\r\n"), "{head}");
    assert!(head.contains("Content-Length: 15"), "{head}");
    story.heard("ada@example.com").await;
    story.records().await;
}

#[tokio::test]
async fn a_rule_reads_a_compressed_body_which_leaves_as_it_was_sent() {
    let policies = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p, namespace: agents}\nspec:\n  mode: Enforce\n  rules:\n    - name: no-drop\n      match: {protocols: [http]}\n      when: has(http.body) && http.body.action == \"drop\" || \"usSsn\" in http.detected\n      action: Deny\n";
    let post = |coding: &str, body: &[u8]| {
        let head = format!(
            "POST /q HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let whole = gzip("{\"action\": \"read\"}");
    let bomb = gzip(&" ".repeat(2 * 1024 * 1024));
    for denied in [
        post("gzip", &gzip("{\"action\": \"drop\"}")),
        post("gzip", &gzip("{\"note\": \"078-05-1121\"}")),
        post("gzip", &whole[..whole.len() - 2]),
        post("gzip", &bomb),
        post("compress", &whole),
    ] {
        let mut story = Story::begin(policies).await;
        story.agent.write_all(&denied).await.unwrap();
        assert!(story.heard("}}").await.starts_with("HTTP/1.1 403"));
    }
    let mut story = Story::begin(policies).await;
    let harmless = post("gzip", &whole);
    story.agent.write_all(&harmless).await.unwrap();
    let mut asked = vec![0; harmless.len()];
    story.upstream.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, harmless);
}

#[tokio::test]
async fn an_agent_of_http_1_0_sees_no_trailer_unmasked() {
    for kind in ["text/plain", "image/png"] {
        let mut story = Story::begin(&policy("Enforce")).await;
        story
            .send("GET /notes HTTP/1.0\r\nHost: files.example.com\r\n\r\n")
            .await;
        story.asked("\r\n\r\n").await;
        story
            .answer(&format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Owner: ada@example.com\r\n\r\n"))
            .await;
        let heard = story.heard_to_end().await;
        assert!(heard.contains("abc"), "{heard}");
        assert!(!heard.contains("ada@example.com"), "{heard}");
    }
}

#[tokio::test]
async fn trailers_are_masked_like_fields_and_a_body_that_is_no_text_keeps_its_digest() {
    let policy = policy("Enforce").replace("usSsn]", "usSsn]\n      headers: [x-internal]");
    for (kind, digest) in [("text/plain", false), ("image/png", true)] {
        let mut story = Story::begin(&policy).await;
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        story
            .answer(&format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Owner: ada@example.com\r\nX-Internal: db-7\r\nContent-Digest: sha-256=:x:\r\nX-End: 1\r\n\r\n"))
            .await;
        let head = story.heard("\r\n\r\n").await;
        assert!(head.contains("chunked"), "{head}");
        let rest = story.heard("x-internal: [masked:header]\r\n\r\n").await;
        assert!(rest.starts_with("3\r\nabc\r\n0\r\n"), "{rest}");
        assert!(rest.contains("x-owner: [masked:email]\r\n"), "{rest}");
        assert!(rest.contains("X-End: 1\r\n"), "{rest}");
        assert_eq!(rest.contains("Content-Digest"), digest, "{rest}");
        let records = story.records().await;
        assert_eq!(exchange(&records).masked.len(), 2);
    }
}
