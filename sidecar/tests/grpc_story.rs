//! gRPC calls and gRPC-Web calls as clients and servers see them where a descriptor set has their messages, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]
#![allow(
    clippy::duplicate_mod,
    reason = "stories of both versions of HTTP share their setup"
)]

#[allow(dead_code, reason = "other stories use the rest")]
#[path = "support/story.rs"]
mod http1;
#[allow(dead_code, reason = "other stories use the rest")]
#[path = "support/http2.rs"]
mod support;

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chaperone_crds::record::{EventKind, Outcome, Record};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Request, Response};
use support::{Story, read, soon, url};

/// Nothing over 1000, in either direction; mail is masked; bodies are recorded.
fn policy(mode: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n  audit: {{level: RequestResponse}}
  rules:
    - name: small-orders
      when: grpc.service == \"acme.v1.Orders\" && grpc.message.total > 1000
      action: Deny
      message: Large orders are for people.
  masks:
    - {{name: pii, detectors: [email], fields: ['$.coupon']}}
"
    )
}

fn only(masks: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: Enforce\n{masks}"
    )
}

/// An order with this total and note.
fn order(total: u16, note: &str) -> Vec<u8> {
    let varint = [(total & 0x7f) as u8 | 0x80, (total >> 7) as u8];
    let length = u8::try_from(note.len()).unwrap();
    [
        &[0x10][..],
        &varint,
        &[0x22, length],
        note.as_bytes(),
        UNKNOWN,
    ]
    .concat()
}

/// A field that the descriptor does not know.
const UNKNOWN: &[u8] = b"\xba\x06\x02??";

fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flags][..], &length, message].concat()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(message).unwrap();
    gzip.finish().unwrap()
}

fn call(method: &str) -> Request<()> {
    Request::post(url(&format!("/acme.v1.Orders/{method}")))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A server that answers with these frames, after it has read the first bytes of the request, or the whole.
async fn answering(story: &mut Story, at_once: bool, frames: Vec<Vec<u8>>, encoding: &'static str) {
    story
        .serve(move |request, mut respond| {
            let frames = frames.clone();
            async move {
                let mut body = request.into_body();
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-encoding", encoding);
                let response = response.body(()).unwrap();
                if !at_once {
                    while let Some(Ok(_)) = body.data().await {}
                }
                let mut to = respond.send_response(response, false).unwrap();
                for frame in frames {
                    to.send_data(frame.into(), false).unwrap();
                }
                while let Some(Ok(_)) = body.data().await {}
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let _ = to.send_trailers(trailers);
            }
        })
        .await;
}

fn calls(records: &[Record]) -> Vec<&Record> {
    let calls = records.iter();
    calls
        .filter(|record| record.event.kind == EventKind::Http)
        .collect()
}

fn grpc_status(record: &Record) -> Option<u32> {
    record.event.grpc.as_ref().unwrap().status
}

#[tokio::test]
async fn a_message_that_policy_denies_never_arrives_and_the_client_hears_why() {
    let mut story = Story::begin(&policy("Enforce")).await;
    answering(&mut story, false, vec![frame(0, b"")], "identity").await;
    let (response, mut body) = story.open(call("Place")).await;
    body.send_data(frame(0, &order(1001, "x")).into(), true)
        .unwrap();
    let refused = soon(response).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "7");
    assert_eq!(refused.headers()["content-type"], "application/grpc");
    assert_eq!(
        refused.headers()["grpc-message"],
        "Large orders are for people. (policy agents/p, rule small-orders)"
    );
    let (response, mut body) = story.open(call("Place")).await;
    body.send_data(frame(0, &order(1000, "x")).into(), true)
        .unwrap();
    let (payload, trailers) = read(&mut soon(response).await.unwrap().into_body())
        .await
        .unwrap();
    assert_eq!(payload, frame(0, b""));
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let records = story.records().await;
    let [denied, passed] = calls(&records)[..] else {
        panic!("two calls")
    };
    let decision = denied.event.decision.as_ref().unwrap();
    assert_eq!(decision.action, Outcome::Deny);
    assert_eq!(decision.rule.as_deref(), Some("small-orders"));
    assert_eq!(
        (grpc_status(denied), grpc_status(passed)),
        (Some(7), Some(0))
    );
    assert_eq!(denied.event.error, None);
    let shown = denied.event.http.as_ref().unwrap().request_body.as_ref();
    assert!(
        shown
            .unwrap()
            .text
            .as_ref()
            .unwrap()
            .contains("\"total\":1001")
    );
}

#[tokio::test]
async fn a_stream_ends_in_trailers_when_a_later_message_is_denied() {
    let mut story = Story::begin(&policy("Enforce")).await;
    answering(
        &mut story,
        true,
        vec![frame(0, &order(1, "hello"))],
        "identity",
    )
    .await;
    let (response, mut body) = story.open(call("Watch")).await;
    body.send_data(frame(0, &order(1, "x")).into(), false)
        .unwrap();
    let mut response = soon(response).await.unwrap().into_body();
    let first = soon(response.data()).await.unwrap().unwrap();
    assert_eq!(first, frame(0, &order(1, "hello")));
    body.send_data(frame(0, &order(2000, "x")).into(), false)
        .unwrap();
    let (rest, trailers) = read(&mut response).await.unwrap();
    assert_eq!(rest, b"");
    assert_eq!(trailers.unwrap()["grpc-status"], "7");
    let records = story.records().await;
    assert_eq!(grpc_status(calls(&records)[0]), Some(7));
}

#[tokio::test]
async fn a_response_that_policy_denies_ends_in_trailers_after_the_messages_before_it() {
    let mut story = Story::begin(&policy("Enforce")).await;
    let frames = vec![frame(0, &order(1, "a")), frame(0, &order(1500, "b"))];
    answering(&mut story, true, frames, "identity").await;
    let (response, mut body) = story.open(call("List")).await;
    body.send_data(frame(0, b"").into(), true).unwrap();
    let (payload, trailers) = read(&mut soon(response).await.unwrap().into_body())
        .await
        .unwrap();
    assert!(payload.is_empty() || payload == frame(0, &order(1, "a")));
    assert_eq!(trailers.unwrap()["grpc-status"], "7");
}

#[tokio::test]
async fn responses_are_masked_and_recorded_compressed_or_not_and_in_pieces() {
    let mut story = Story::begin(&policy("Enforce")).await;
    let same = frame(1, &gzip(&order(5, "hello")));
    let changed = frame(1, &gzip(&order(6, "to ana@example.com")));
    let plain = frame(0, &order(7, "bob@example.com"));
    let wire = [same.clone(), changed, plain].concat();
    let pieces = wire.chunks(7).map(<[u8]>::to_vec).collect();
    answering(&mut story, false, pieces, "gzip").await;
    let (response, mut body) = story.open(call("List")).await;
    body.send_data(frame(0, &order(1, "ana@example.com")).into(), true)
        .unwrap();
    let (payload, trailers) = read(&mut soon(response).await.unwrap().into_body())
        .await
        .unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    assert!(payload.starts_with(&same));
    assert!(payload.ends_with(&frame(0, &order(7, "[masked:email]"))));
    let records = story.records().await;
    let call = calls(&records)[0];
    assert_eq!(call.event.masked[0].count, 2, "{:?}", call.event);
    let http = call.event.http.as_ref().unwrap();
    let text = |body: &Option<chaperone_crds::record::BodyInfo>| {
        body.as_ref().unwrap().text.clone().unwrap()
    };
    let answer = text(&http.response_body);
    assert_eq!(answer.lines().count(), 3, "{answer}");
    assert!(
        answer.contains("\"notes\":[\"to [masked:email]\"]"),
        "{answer}"
    );
    assert!(text(&http.request_body).contains("[masked:email]"));
    let error = call.event.error.as_ref().unwrap();
    assert!(error.contains("does not know"), "{error}");
}

#[tokio::test]
async fn what_masks_cannot_read_is_refused_in_enforce_and_passes_in_audit() {
    for (mode, wire, encoding) in [
        ("Enforce", frame(0, b"\x0a\xff"), "identity"),
        ("Enforce", frame(1, &order(1, "x")), "snappy"),
        ("Audit", frame(0, b"\x0a\xff"), "identity"),
        ("Audit", frame(1, &order(1, "x")), "snappy"),
    ] {
        let masks = "  masks:\n    - {name: pii, detectors: [email]}\n";
        let policy = only(masks).replace("Enforce", mode);
        let mut story = Story::begin(&policy).await;
        answering(&mut story, false, vec![wire.clone()], encoding).await;
        let (response, mut body) = story.open(call("Place")).await;
        body.send_data(frame(0, b"").into(), true).unwrap();
        let response = soon(response).await.unwrap();
        let head = response.headers().clone();
        let (payload, trailers) = read(&mut response.into_body()).await.unwrap();
        let trailers = trailers.unwrap_or(head);
        let records = story.records().await;
        let call = calls(&records)[0];
        let error = call.event.error.as_ref().unwrap();
        assert!(error.contains("gRPC message cannot be read"), "{error}");
        if mode == "Audit" {
            assert_eq!(
                (payload, &trailers["grpc-status"]),
                (wire, &"0".parse().unwrap())
            );
        } else {
            assert_eq!(payload, b"");
            assert_eq!(trailers["grpc-status"], "7");
            let decision = call.event.decision.as_ref().unwrap();
            assert_eq!(decision.reason, "unreadable-response");
        }
    }
}

#[tokio::test]
async fn a_rule_on_messages_of_a_procedure_that_no_set_has_fails_closed() {
    let rule = "  rules:\n    - {name: big, when: grpc.message.total > 5, action: Deny}\n";
    let mut story = Story::begin(&only(rule)).await;
    answering(&mut story, false, vec![], "identity").await;
    let (response, mut body) = story.open(call("Undescribed")).await;
    body.send_data(frame(0, &order(1, "x")).into(), true)
        .unwrap();
    let refused = soon(response).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "7");
    let records = story.records().await;
    let event = &calls(&records)[0].event;
    assert_eq!(event.decision.as_ref().unwrap().reason, "evaluation-error");
    assert!(event.error.as_ref().unwrap().contains("no descriptor set"));
}

#[tokio::test]
async fn grpc_web_over_http2_ends_in_a_last_frame_when_an_answer_is_denied() {
    let mut story = Story::begin(&policy("Enforce")).await;
    story
        .serve(|request, mut respond| async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            let response = Response::builder().header("content-type", "application/grpc-web+proto");
            let mut to = respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            to.send_data(frame(0, &order(1, "a")).into(), false)
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            to.send_data(frame(0, &order(2000, "b")).into(), false)
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        })
        .await;
    let mut request = call("List");
    let media = "application/grpc-web+proto".parse().unwrap();
    request.headers_mut().insert("content-type", media);
    let (response, mut body) = story.open(request).await;
    body.send_data(frame(0, b"").into(), true).unwrap();
    let (payload, trailers) = read(&mut soon(response).await.unwrap().into_body())
        .await
        .unwrap();
    let rest = payload.strip_prefix(&frame(0, &order(1, "a"))[..]).unwrap();
    assert_eq!(rest.first(), Some(&0x80));
    assert!(holds(rest, b"grpc-status: 7\r\n"));
    assert_eq!(trailers, None);
}

const WEB: &str = "POST /acme.v1.Orders/Place HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/grpc-web+proto\r\n";

async fn web(policy: &str, request: &[u8], answer: &[u8], media: &str) -> (Vec<u8>, Vec<Record>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut story = http1::Story::begin(policy).await;
    let head = WEB.replace("application/grpc-web+proto", media);
    let length = request.len();
    story
        .send(&format!("{head}Content-Length: {length}\r\n\r\n"))
        .await;
    story.agent.write_all(request).await.unwrap();
    story.asked("\r\n\r\n").await;
    let length = answer.len();
    story
        .answer(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    // The sidecar may be done with it before it is all written.
    let _ = story.upstream.write_all(answer).await;
    story.half_close().await;
    let mut heard = Vec::new();
    story.agent.read_to_end(&mut heard).await.unwrap();
    (heard, story.records().await)
}

fn holds(heard: &[u8], part: &[u8]) -> bool {
    heard.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn grpc_web_is_masked_counted_and_its_status_read_from_the_last_frame() {
    let trailers = frame(0x80, b"grpc-status: 0\r\ngrpc-message: bob@example.com\r\n");
    let message = frame(0, &order(7, "ana@example.com"));
    let answer = [message.clone(), trailers].concat();
    let request = frame(0, &order(1, "x"));
    let masked = frame(0, &order(7, "[masked:email]"));
    let last = frame(0x80, b"grpc-status: 0\r\ngrpc-message: [masked:email]\r\n");
    for media in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let (request, answer) = match media.ends_with("text") {
            true => (
                STANDARD.encode(&request).into_bytes(),
                STANDARD.encode(&answer).into_bytes(),
            ),
            false => (request.clone(), answer.clone()),
        };
        let (heard, records) = web(&policy("Enforce"), &request, &answer, media).await;
        let (masked, last) = match media.ends_with("text") {
            true => {
                // The group in which the message ended takes the next frame's first bytes along.
                let along = message.len().next_multiple_of(3) - message.len();
                let (along, rest) = last.split_at(along);
                let first = STANDARD.encode([&masked, along].concat());
                (first.into_bytes(), STANDARD.encode(rest).into_bytes())
            }
            false => (masked.clone(), last.clone()),
        };
        assert!(
            holds(&heard, &masked),
            "{media} {:?}",
            String::from_utf8_lossy(&heard)
        );
        assert!(holds(&heard, &last), "{media}");
        assert!(!holds(&heard, b"ana@"));
        let event = &calls(&records)[0].event;
        let info = event.grpc.as_ref().unwrap();
        assert_eq!(
            (info.request_messages, info.response_messages, info.status),
            (1, 1, Some(0)),
            "{media}"
        );
        assert_eq!(event.masked[0].count, 2);
        let shown = event.http.as_ref().unwrap().response_body.as_ref().unwrap();
        assert!(
            shown.text.as_ref().unwrap().contains("\"total\":7"),
            "{shown:?}"
        );
    }
}

#[tokio::test]
async fn grpc_web_hears_denials_in_the_head_or_in_a_last_frame() {
    let (large, small) = (frame(0, &order(1001, "x")), frame(0, &order(1, "x")));
    let media = "application/grpc-web+proto";
    let (heard, records) = web(&policy("Enforce"), &large, b"", media).await;
    assert!(
        holds(&heard, b"grpc-status: 7\r\n"),
        "{:?}",
        String::from_utf8_lossy(&heard)
    );
    assert_eq!(grpc_status(calls(&records)[0]), Some(7));
    let answer = [small.clone(), large].concat();
    let (heard, records) = web(&policy("Enforce"), &small, &answer, media).await;
    assert!(
        holds(&heard, b"grpc-status: 7\r\n"),
        "{:?}",
        String::from_utf8_lossy(&heard)
    );
    assert!(!holds(&heard, b"\x10\xe9\x07"));
    assert_eq!(grpc_status(calls(&records)[0]), Some(7));
    assert_eq!(Bytes::from(small).first(), Some(&0));
}
