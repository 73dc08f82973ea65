//! WebSocket connections as an agent and an upstream see them, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "websocket/compressed.rs"]
mod compressed;
#[path = "websocket/outgoing.rs"]
mod outgoing;
#[allow(dead_code, reason = "other stories use the rest")]
#[path = "support/story.rs"]
mod support;

use bytes::BytesMut;
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::websocket::{Opcode, close_payload, write_frame};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use support::Story;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n{rest}"
    )
}

fn no_drop(mode: &str) -> String {
    policy(
        mode,
        "  rules:\n    - name: no-drop\n      when: ws.direction == \"send\" && ws.text.contains(\"DROP\")\n      action: Deny\n      message: Dropping is for people.\n",
    )
}

fn masks(level: &str) -> String {
    policy(
        "Enforce",
        &format!(
            "  masks:\n    - {{name: pii, detectors: [email]}}\n  audit: {{level: {level}}}\n"
        ),
    )
}

fn request(extensions: &str) -> String {
    format!(
        "GET /live?a=b HTTP/1.1\r\nHost: files.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    )
}

fn answer(extensions: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n{extensions}\r\n"
    )
}

/// A connection that is open.
async fn open(policies: &str, offered: &str, accepted: &str) -> Story {
    let mut story = Story::begin(policies).await;
    story.send(&request(offered)).await;
    story.asked("\r\n\r\n").await;
    let answer = answer(accepted);
    story.answer(&answer).await;
    assert_eq!(story.heard("\r\n\r\n").await, answer);
    story
}

fn frame(opcode: Opcode, fin: bool, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame(&mut out, opcode, fin, key, payload);
    out.to_vec()
}

/// From the agent.
fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame(opcode, true, Some(KEY), payload)
}

/// From the upstream.
fn plain(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame(opcode, true, None, payload)
}

async fn take(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        stream.read_exact(&mut bytes),
    );
    read.await.expect("in time").unwrap();
    bytes
}

async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Opcode and payload of the one frame that is short and not masked.
fn short(bytes: &[u8]) -> (u8, &[u8]) {
    assert_eq!(bytes[1] as usize, bytes.len() - 2, "{bytes:x?}");
    (bytes[0] & 0x0f, &bytes[2..])
}

fn of(records: &[Record], kind: EventKind) -> Vec<&Record> {
    records
        .iter()
        .filter(|record| record.event.kind == kind)
        .collect()
}

#[tokio::test]
async fn frames_pass_as_they_were_written_and_the_connection_is_recorded() {
    // In Enforce, without any rule for tcp: what is read needs none.
    let mut story = open(&policy("Enforce", ""), "", "").await;
    let mut sent = frame(Opcode::Text, false, Some(KEY), b"hel");
    sent.extend(masked(Opcode::Ping, b"there?"));
    sent.extend(frame(Opcode::Continuation, true, Some(KEY), b"lo"));
    story.agent.write_all(&sent).await.unwrap();
    assert_eq!(take(&mut story.upstream, sent.len()).await, sent);
    let mut received = plain(Opcode::Pong, b"there?");
    received.extend(plain(Opcode::Binary, &[0; 300]));
    story.upstream.write_all(&received).await.unwrap();
    assert_eq!(take(&mut story.agent, received.len()).await, received);
    let close = masked(Opcode::Close, &close_payload(1000, "bye"));
    story.agent.write_all(&close).await.unwrap();
    assert_eq!(take(&mut story.upstream, close.len()).await, close);
    let close = plain(Opcode::Close, &close_payload(1000, ""));
    story.upstream.write_all(&close).await.unwrap();
    assert_eq!(take(&mut story.agent, close.len()).await, close);
    let records = story.records().await;
    assert!(of(&records, EventKind::WsMessage).is_empty(), "Metadata");
    let handshake = &of(&records, EventKind::Http)[0].event;
    assert_eq!(handshake.http.as_ref().unwrap().status, Some(101));
    let closed = &of(&records, EventKind::WsClose)[0];
    assert_eq!(
        closed.event.operation.as_ref().unwrap().resource,
        "https://files.example.com/live?a=b"
    );
    let ws = closed.event.ws.as_ref().unwrap();
    assert_eq!((ws.closed_by.as_str(), ws.code), ("agent", Some(1000)));
    assert_eq!((ws.sent_messages, ws.sent_bytes), (1, 5));
    assert_eq!((ws.received_messages, ws.received_bytes), (1, 300));
    let line = serde_json::to_string(closed).unwrap();
    assert!(line.len() < 700, "{} bytes: {line}", line.len());
}

#[tokio::test]
async fn a_message_that_a_rule_denies_never_leaves_and_both_sides_hear_1008() {
    let mut story = open(&no_drop("Enforce"), "", "").await;
    let fine = masked(Opcode::Text, b"SELECT 1");
    story.agent.write_all(&fine).await.unwrap();
    assert_eq!(take(&mut story.upstream, fine.len()).await, fine);
    let mut parts = frame(Opcode::Text, false, Some(KEY), b"DR");
    parts.extend(masked(Opcode::Ping, b""));
    story.agent.write_all(&parts).await.unwrap();
    let ping = masked(Opcode::Ping, b"");
    assert_eq!(take(&mut story.upstream, ping.len()).await, ping);
    let end = frame(Opcode::Continuation, true, Some(KEY), b"OP TABLE");
    story.agent.write_all(&end).await.unwrap();
    let heard = rest(&mut story.agent).await;
    let (opcode, payload) = short(&heard);
    assert_eq!((opcode, &payload[..2]), (0x8, &1008_u16.to_be_bytes()[..]));
    let words = String::from_utf8_lossy(&payload[2..]);
    assert!(
        words.contains("rule no-drop") && words.contains("Dropping is for people."),
        "{words}"
    );
    let asked = rest(&mut story.upstream).await;
    assert_eq!((asked[0], asked[1] & 0x80), (0x88, 0x80), "masked close");
    let records = story.records().await;
    let messages = of(&records, EventKind::WsMessage);
    assert_eq!(messages.len(), 1, "what is denied is always recorded");
    let decision = messages[0].event.decision.as_ref().unwrap();
    assert_eq!(
        (decision.action, decision.rule.as_deref()),
        (Outcome::Deny, Some("no-drop"))
    );
    let line = serde_json::to_string(messages[0]).unwrap();
    assert!(line.len() < 700, "{} bytes: {line}", line.len());
    let ws = of(&records, EventKind::WsClose)[0]
        .event
        .ws
        .clone()
        .unwrap();
    assert_eq!((ws.closed_by.as_str(), ws.code), ("chaperone", Some(1008)));
}

#[tokio::test]
async fn in_audit_a_message_that_would_be_denied_passes_and_is_recorded() {
    let mut story = open(&no_drop("Audit"), "", "").await;
    let drop = masked(Opcode::Text, b"DROP TABLE");
    story.agent.write_all(&drop).await.unwrap();
    assert_eq!(take(&mut story.upstream, drop.len()).await, drop);
    let records = story.records().await;
    let decision = of(&records, EventKind::WsMessage)[0]
        .event
        .decision
        .clone()
        .unwrap();
    assert_eq!(
        (decision.action, decision.would_deny),
        (Outcome::Allow, true)
    );
}

#[tokio::test]
async fn a_message_that_is_too_large_to_be_judged_is_denied_in_enforce_and_passes_in_audit() {
    let large = masked(Opcode::Text, &vec![b'a'; 3 * 1024 * 1024]);
    for mode in ["Enforce", "Audit"] {
        let mut story = open(&no_drop(mode), "", "").await;
        let (mut reader, mut writer) = tokio::io::split(story.agent);
        let sending = large.clone();
        let sent = tokio::spawn(async move {
            let result = writer.write_all(&sending).await;
            (result.is_ok(), writer)
        });
        if mode == "Audit" {
            assert!(take(&mut story.upstream, large.len()).await == large);
        } else {
            let mut first = [0; 4];
            reader.read_exact(&mut first).await.unwrap();
            assert_eq!((first[0], &first[2..]), (0x88, &1008_u16.to_be_bytes()[..]));
            let asked = rest(&mut story.upstream).await;
            assert_eq!(asked[0], 0x88, "nothing but a close frame");
        }
        drop(reader);
        let (_, writer) = sent.await.unwrap();
        drop(writer);
        story.agent = tokio::io::duplex(1).0;
        let records = story.records().await;
        let event = &of(&records, EventKind::WsMessage)[0].event;
        assert_eq!(event.decision.as_ref().unwrap().reason, "evaluation-error");
        assert!(event.error.as_ref().unwrap().contains("too large"));
    }
}

#[tokio::test]
async fn text_to_the_agent_is_masked_across_frames_and_recorded_masked() {
    let mut story = open(&masks("RequestResponse"), "", "").await;
    let mut sent = frame(Opcode::Text, false, None, b"{\"mail\":\"jane.d");
    sent.extend(plain(Opcode::Ping, b""));
    sent.extend(frame(
        Opcode::Continuation,
        true,
        None,
        b"oe@example.com\"}",
    ));
    story.upstream.write_all(&sent).await.unwrap();
    let expected = b"{\"mail\":\"[masked:email]\"}";
    let mut text = Vec::new();
    while text.len() < expected.len() {
        let head = take(&mut story.agent, 2).await;
        let payload = take(&mut story.agent, head[1] as usize).await;
        if head[0] & 0x0f != 0x9 {
            text.extend(payload);
        }
    }
    assert_eq!(
        String::from_utf8_lossy(&text),
        String::from_utf8_lossy(expected)
    );
    // What the agent sends, and bytes, pass as they are.
    let mail = masked(Opcode::Text, b"jane.doe@example.com");
    story.agent.write_all(&mail).await.unwrap();
    assert_eq!(take(&mut story.upstream, mail.len()).await, mail);
    let records = story.records().await;
    let messages = of(&records, EventKind::WsMessage);
    let text = |record: &Record| {
        let message = record.event.message.clone().unwrap();
        message.body.unwrap().text.unwrap()
    };
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert!(text(message).contains("[masked:email]"));
        assert!(!text(message).contains("jane"));
    }
    let closed = &of(&records, EventKind::WsClose)[0].event;
    assert_eq!(closed.masked[0].count, 1);
}

#[tokio::test]
async fn what_is_no_websocket_is_refused_in_every_mode() {
    for (bytes, code) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 1002_u16),
        // Not masked, though from the agent.
        (b"\x81\x02hi", 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (&masked(Opcode::Text, b"\xff"), 1007),
        (&masked(Opcode::Continuation, b"a"), 1002),
    ] {
        let mut story = open("", "", "").await;
        story.agent.write_all(bytes).await.unwrap();
        let heard = rest(&mut story.agent).await;
        let (opcode, payload) = short(&heard);
        assert_eq!((opcode, &payload[..2]), (0x8, &code.to_be_bytes()[..]));
        let asked = rest(&mut story.upstream).await;
        assert_eq!(asked[0], 0x88, "nothing but a close frame: {asked:x?}");
        let records = story.records().await;
        let closed = &of(&records, EventKind::WsClose)[0].event;
        assert_eq!(closed.decision.as_ref().unwrap().reason, "malformed-frame");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_handshake_is_refused() {
    for wrong in [
        answer("").replace("s3pP", "S3pP"),
        answer("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        answer("").replace("Upgrade: websocket", "Upgrade: other"),
    ] {
        let mut story = Story::begin("").await;
        story.send(&request("")).await;
        story.asked("\r\n\r\n").await;
        story.answer(&wrong).await;
        assert!(story.heard_to_end().await.starts_with("HTTP/1.1 502"));
        story.records().await;
    }
}

#[tokio::test]
async fn a_handshake_that_the_upstream_declines_is_an_exchange_like_any_other() {
    let mut story = Story::begin("").await;
    story.send(&request("")).await;
    story.asked("\r\n\r\n").await;
    let no = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
    story.answer(no).await;
    assert_eq!(story.heard("no").await, no);
    let records = story.records().await;
    assert!(of(&records, EventKind::WsClose).is_empty());
}

#[tokio::test]
async fn a_stopping_sidecar_says_1001_between_messages() {
    let mut story = open("", "", "").await;
    story.stop();
    let heard = rest(&mut story.agent).await;
    let (opcode, payload) = short(&heard);
    assert_eq!((opcode, &payload[..2]), (0x8, &1001_u16.to_be_bytes()[..]));
    assert_eq!(rest(&mut story.upstream).await[0], 0x88);
    story.records().await;
}

#[tokio::test]
async fn what_detectors_find_in_a_message_can_be_denied() {
    let rule = "  rules:\n    - name: no-cards\n      when: ws.direction == \"send\" && !ws.binary && \"creditCard\" in ws.detected\n      action: Deny\n      message: No cards.\n";
    let mut story = open(&policy("Enforce", rule), "", "").await;
    for passes in [
        masked(Opcode::Text, b"pay 4111 1111 1111 1112"),
        masked(Opcode::Binary, b"4111 1111 1111 1111"),
    ] {
        story.agent.write_all(&passes).await.unwrap();
        assert_eq!(take(&mut story.upstream, passes.len()).await, passes);
    }
    // Also where it is cut between frames.
    let mut card = frame(Opcode::Text, false, Some(KEY), b"pay 4111 1111 ");
    card.extend(frame(Opcode::Continuation, true, Some(KEY), b"1111 1111"));
    story.agent.write_all(&card).await.unwrap();
    let closed = take(&mut story.agent, 4).await;
    assert_eq!(
        (closed[0], closed[2..].to_vec()),
        (0x88, vec![0x03, 0xf0]),
        "1008"
    );
    let records = story.records().await;
    let denied = of(&records, EventKind::WsMessage);
    assert_eq!(
        denied[0].event.decision.as_ref().unwrap().rule.as_deref(),
        Some("no-cards")
    );
    assert!(!format!("{records:?}").contains("4111 1111 1111 1111"));
}

#[tokio::test]
async fn rules_on_messages_see_the_handshake_as_the_agent_wrote_it() {
    // The token of the query becomes its value on the way out. No rule may see that value.
    let rest = "  masks:\n    - {name: pii, detectors: [email], with: Token, restoreTo: [files.example.com]}\n  rules:\n    - name: value\n      when: ws.direction == \"send\" && http.query[\"who\"].contains(\"jane\")\n      action: Deny\n    - name: token\n      when: ws.text == \"stop\" && http.query[\"who\"].contains(\"tok.invalid\") && http.headers[\"x-who\"].contains(\"tok.invalid\")\n      action: Deny\n";
    let mut story = Story::begin(&policy("Enforce", rest)).await;
    story
        .send("GET /who HTTP/1.1\r\nHost: files.example.com\r\n\r\n")
        .await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 204 No Content\r\nX-Who: jane.doe@example.com\r\n\r\n")
        .await;
    let head = story.heard("\r\n\r\n").await.to_ascii_lowercase();
    let token = head
        .split_once("x-who: ")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .to_owned();
    assert!(token.ends_with("@tok.invalid"), "{head}");

    let asks = request(&format!("X-Who: {token}\r\n")).replace("a=b", &format!("who={token}"));
    story.send(&asks).await;
    let asked = story.asked("\r\n\r\n").await;
    assert!(asked.contains("who=jane.doe%40example.com"), "{asked}");
    story.answer(&answer("")).await;
    story.heard("\r\n\r\n").await;
    let hello = masked(Opcode::Text, b"hello");
    story.agent.write_all(&hello).await.unwrap();
    // In a frame of ours, as tokens are looked for in it.
    let passed = take(&mut story.upstream, hello.len()).await;
    assert_eq!(passed[0], 0x81, "a message and no close");
    story
        .agent
        .write_all(&masked(Opcode::Text, b"stop"))
        .await
        .unwrap();
    assert_eq!(take(&mut story.agent, 4).await[0], 0x88);
    let records = story.records().await;
    let denied = of(&records, EventKind::WsMessage);
    assert_eq!(
        denied[0].event.decision.as_ref().unwrap().rule.as_deref(),
        Some("token")
    );
    assert!(!format!("{records:?}").contains("jane"));
}

#[tokio::test]
async fn a_message_whose_record_the_ledger_does_not_hold_does_not_leave() {
    let policies = policy("Enforce", "  audit: {level: Request}\n");
    let mut story = open(&policies, "", "").await;
    story.swap(&policies.replace("{level", "{commit: Ledger, level"));
    let secret = masked(Opcode::Text, b"secret");
    story.agent.write_all(&secret).await.unwrap();
    let heard = rest(&mut story.agent).await;
    let (opcode, payload) = short(&heard);
    assert_eq!((opcode, &payload[..2]), (8, &1013_u16.to_be_bytes()[..]));
    let asked = rest(&mut story.upstream).await;
    assert!(!asked.starts_with(&secret[..2]), "{asked:x?}");
    let records = story.records().await;
    let close = &of(&records, EventKind::WsClose)[0].event;
    assert_eq!(close.decision.as_ref().unwrap().reason, "no-ledger");
    assert!(close.error.as_ref().unwrap().contains("there is no ledger"));
}

#[tokio::test]
async fn a_message_whose_beginning_has_left_is_broken_off_where_its_record_is_not_held() {
    let policies = policy("Enforce", "  audit: {level: Request}\n");
    let mut story = open(&policies, "", "").await;
    let first = frame(Opcode::Text, true, Some(KEY), &[b'x'; 20_000]);
    let half = first.len() / 2;
    story.agent.write_all(&first[..half]).await.unwrap();
    let begun = take(&mut story.upstream, 4096).await;
    assert_eq!(begun[..], first[..4096]);
    story.swap(&policies.replace("{level", "{commit: Ledger, level"));
    let rest_of_it = async {
        // The sidecar may hang up in the middle.
        let _ = story.agent.write_all(&first[half..]).await;
    };
    let mut asked = Vec::new();
    let read = story.upstream.read_to_end(&mut asked);
    let (_, read) = tokio::join!(rest_of_it, read);
    assert!(read.is_err() || asked.len() < first.len() - 4096);
    assert_eq!(asked[..], first[4096..4096 + asked.len()], "no other bytes");
}
