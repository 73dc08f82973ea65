//! HTTP exchanges as an agent and an upstream see them, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/story.rs"]
mod support;

use chaperone_crds::record::{EventKind, Outcome, Record};
use support::Story;

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: files.example.com\r\nX-Case: Kept\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nhi";

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n{rest}"
    )
}

fn no_delete(mode: &str) -> String {
    policy(
        mode,
        "  rules:\n    - name: no-delete\n      match: {protocols: [http]}\n      when: http.method == \"DELETE\"\n      action: Deny\n      message: Deleting is for people.\n",
    )
}

fn masks(mode: &str) -> String {
    policy(
        mode,
        "  masks:\n    - name: pii\n      detectors: [email, usSsn]\n",
    )
}

/// A rule that reads the body of every request.
fn reads_bodies(mode: &str) -> String {
    policy(
        mode,
        "  rules:\n    - name: no-drop\n      match: {protocols: [http]}\n      when: has(http.body) && http.body.action == \"drop\"\n      action: Deny\n",
    )
}

fn error(record: &Record) -> &str {
    record.event.error.as_deref().unwrap_or_default()
}

fn exchanges(records: &[Record]) -> Vec<&Record> {
    records
        .iter()
        .filter(|record| record.event.kind == EventKind::Http)
        .collect()
}

#[tokio::test]
async fn a_request_and_its_response_pass_as_they_were_written() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    assert_eq!(story.asked("\r\n\r\n").await, GET);
    story.answer(OK).await;
    assert_eq!(story.heard("hi").await, OK);
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    let operation = event.operation.as_ref().unwrap();
    assert_eq!(operation.resource, "https://files.example.com/a?b=c");
    let destination = event.destination.as_ref().unwrap();
    assert_eq!(destination.host.as_deref(), Some("files.example.com"));
    assert_eq!(destination.sni, None, "it is the host");
    let http = event.http.as_ref().unwrap();
    assert_eq!(
        (http.status, http.response_bytes, http.complete),
        (Some(200), 2, true)
    );
    assert_eq!(
        exchanges(&records)[0]
            .event
            .decision
            .as_ref()
            .unwrap()
            .action,
        Outcome::Allow
    );
}

#[tokio::test]
async fn keep_alive_and_pipelined_requests_are_judged_one_by_one() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    let delete = "DELETE /x HTTP/1.1\r\nHost: files.example.com\r\n\r\n";
    story.send(&format!("{GET}{delete}{GET}")).await;
    story.asked("\r\n\r\n").await;
    story.answer(OK).await;
    story.heard("hi").await;
    let refused = story.heard("}}").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(
        refused.contains("Deleting is for people.") && refused.contains("no-delete"),
        "{refused}"
    );
    assert_eq!(story.asked("\r\n\r\n").await, GET);
    story.answer(OK).await;
    story.heard("hi").await;
    let records = story.records().await;
    let actions: Vec<_> = exchanges(&records)
        .iter()
        .map(|r| r.event.decision.as_ref().unwrap().action)
        .collect();
    assert_eq!(actions, [Outcome::Allow, Outcome::Deny, Outcome::Allow]);
}

#[tokio::test]
async fn in_audit_what_would_be_denied_passes_and_is_recorded() {
    let mut story = Story::begin(&no_delete("Audit")).await;
    story
        .send("DELETE /x HTTP/1.1\r\nHost: files.example.com\r\n\r\n")
        .await;
    story.asked("\r\n\r\n").await;
    story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    story.heard("\r\n\r\n").await;
    let records = story.records().await;
    let decision = exchanges(&records)[0].event.decision.as_ref().unwrap();
    assert_eq!(
        (decision.action, decision.would_deny),
        (Outcome::Allow, true)
    );
    assert_eq!(decision.rule.as_deref(), Some("no-delete"));
}

#[tokio::test]
async fn a_denied_request_with_a_body_leaves_the_connection_usable() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story
        .send("DELETE /x HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 5\r\n\r\n12345")
        .await;
    assert!(story.heard("}}").await.contains("Connection: keep-alive"));
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(OK).await;
    story.heard("hi").await;
}

#[tokio::test]
async fn a_rule_reads_a_json_body_and_the_upstream_gets_it_as_written() {
    let rules = "  rules:\n    - name: no-drop\n      match: {protocols: [http]}\n      when: has(http.body) && http.body.action == \"drop\"\n      action: Deny\n";
    let post = |body: &str| {
        format!(
            "POST /q HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x};ext=1\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let mut story = Story::begin(&policy("Enforce", rules)).await;
    story.send(&post("{\"action\":\"drop\"}")).await;
    assert!(story.heard("}}").await.starts_with("HTTP/1.1 403"));
    let harmless = post("{\"action\":\"read\"}");
    story.send(&harmless).await;
    assert_eq!(story.asked("0\r\n\r\n").await, harmless);
    story.answer(OK).await;
    story.heard("hi").await;
}

#[tokio::test]
async fn a_request_that_carries_a_secret_is_denied_wherever_it_stands_but_not_for_its_own_credentials()
 {
    let rules = "  rules:\n    - name: no-keys\n      match: {protocols: [http]}\n      when: '\"awsAccessKey\" in http.detected'\n      action: Deny\n";
    let host = "Host: files.example.com";
    for carrier in [
        format!("GET /a?k=%41KIAIOSFODNN7EXAMPLE HTTP/1.1\r\n{host}\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}\r\nX-Note: AKIAIOSFODNN7EXAMPLE\r\n\r\n"),
        format!(
            "POST /a HTTP/1.1\r\n{host}\r\nContent-Length: 26\r\n\r\nkeys: AKIAIOSFODNN7EXAMPLE"
        ),
    ] {
        let mut story = Story::begin(&policy("Enforce", rules)).await;
        let own = format!(
            "GET /a HTTP/1.1\r\n{host}\r\nAuthorization: AWS AKIAIOSFODNN7EXAMPLE:x\r\n\r\n"
        );
        story.send(&own).await;
        assert_eq!(story.asked("\r\n\r\n").await, own);
        story.answer(OK).await;
        story.heard("hi").await;
        story.send(&carrier).await;
        let heard = story.heard("}}").await;
        assert!(heard.starts_with("HTTP/1.1 403"), "{carrier}: {heard}");
    }
}

#[tokio::test]
async fn text_is_masked_across_chunk_boundaries_and_in_the_record() {
    let audit = format!("{}  audit: {{level: RequestResponse}}\n", masks("Enforce"));
    let mut story = Story::begin(&audit).await;
    story.send("GET / HTTP/1.1\r\nHost: files.example.com\r\nAccept-Encoding: compress\r\nRange: bytes=5-\r\n\r\n").await;
    let asked = story.asked("\r\n\r\n").await;
    assert!(
        asked.contains("Accept-Encoding: identity") && !asked.contains("Range"),
        "{asked}"
    );
    story.answer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in [
        "{\"mail\":\"jane.d",
        "oe@exam",
        "ple.com\",\"ssn\":\"078-05",
        "-1121\"}",
    ] {
        story
            .answer(&format!("{:x}\r\n{part}\r\n", part.len()))
            .await;
    }
    story.answer("0\r\n\r\n").await;
    let heard = story.heard("\r\n0\r\n\r\n").await;
    assert!(
        !heard.contains("jane") && !heard.contains("1121"),
        "{heard}"
    );
    assert!(
        heard.contains("[masked:email]") && heard.contains("[masked:usSsn]"),
        "{heard}"
    );
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    let found: u64 = event.masked.iter().map(|m| m.count).sum();
    assert_eq!(found, 2);
    let body = event
        .http
        .as_ref()
        .unwrap()
        .response_body
        .as_ref()
        .unwrap()
        .text
        .clone()
        .unwrap();
    assert!(
        body.contains("[masked:email]") && !body.contains("jane"),
        "{body}"
    );
}

#[tokio::test]
async fn a_response_without_a_byte_ends_under_a_mask_too() {
    let mut story = Story::begin(&masks("Enforce")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    let heard = story.heard("0\r\n\r\n").await;
    assert!(heard.contains("201 Created"), "{heard}");
    let records = story.records().await;
    assert!(exchanges(&records)[0].event.http.as_ref().unwrap().complete);
}

#[tokio::test]
async fn a_response_in_a_coding_that_is_not_read_is_not_let_past_a_mask_in_enforce() {
    let compressed = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: compress\r\nContent-Length: 3\r\n\r\nabc";
    let mut story = Story::begin(&masks("Enforce")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(compressed).await;
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 502"));
    let records = story.records().await;
    let decision = exchanges(&records)[0].event.decision.clone().unwrap();
    assert_eq!(
        (decision.action, decision.reason.as_str()),
        (Outcome::Deny, "compressed-response")
    );

    let mut story = Story::begin(&masks("Audit")).await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(compressed).await;
    story.heard("abc").await;
    let records = story.records().await;
    assert!(
        exchanges(&records)[0]
            .event
            .error
            .as_ref()
            .unwrap()
            .contains("unmasked")
    );
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_recorded_in_every_mode() {
    for bytes in [
        "POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: files.example.com\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: files.example.com\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: files.example.com\r\nX: a\rb\r\n\r\n",
    ] {
        let mut story = Story::begin("").await;
        story.send(bytes).await;
        let answer = story.heard_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
        let records = story.records().await;
        let refused = records
            .iter()
            .find(|r| r.event.kind == EventKind::Connection)
            .unwrap();
        assert_eq!(refused.event.decision.as_ref().unwrap().reason, "malformed");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let mut story = Story::begin("").await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: files.example.com\r\nX: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let (mut reader, mut writer) = tokio::io::split(story.agent);
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let _ = writer.write_all(head.as_bytes()).await;
        writer
    });
    let mut answer = Vec::new();
    use tokio::io::AsyncReadExt;
    let mut part = [0; 512];
    while !answer.starts_with(b"HTTP/1.1 431") {
        let read = reader.read(&mut part).await.unwrap();
        assert!(read > 0, "no answer");
        answer.extend_from_slice(&part[..read]);
    }
    drop(reader);
    drop(sending.await.unwrap());
    story.agent = tokio::io::duplex(1).0;
    story.records().await;
}

#[tokio::test]
async fn domain_fronting_is_refused_in_every_mode() {
    let mut story = Story::begin("").await;
    story
        .send("GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
        .await;
    assert!(story.heard("}}").await.starts_with("HTTP/1.1 421"));
    let records = story.records().await;
    assert_eq!(
        exchanges(&records)[0]
            .event
            .decision
            .as_ref()
            .unwrap()
            .reason,
        "host-mismatch"
    );
}

#[tokio::test]
async fn an_upstream_that_breaks_off_in_its_body_is_not_made_to_look_whole() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        .await;
    story.heard("part").await;
    story.upstream_leaves();
    assert_eq!(story.heard_to_end().await, "");
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    assert!(!event.http.as_ref().unwrap().complete);
    assert!(event.error.is_some());
}

#[tokio::test]
async fn a_response_may_begin_while_the_request_still_streams() {
    let mut story = Story::begin("").await;
    story.send("POST /s HTTP/1.1\r\nHost: files.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    story.asked("one\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\neno\r\n")
        .await;
    story.heard("eno\r\n").await;
    story.send("3\r\ntwo\r\n0\r\n\r\n").await;
    story.asked("0\r\n\r\n").await;
    story.answer("0\r\n\r\n").await;
    story.heard("0\r\n\r\n").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(OK).await;
    story.heard("hi").await;
    let records = story.records().await;
    let http = exchanges(&records)[0].event.http.clone().unwrap();
    assert_eq!(
        (http.request_bytes, http.response_bytes, http.complete),
        (6, 3, true)
    );
}

#[tokio::test]
async fn interim_responses_and_expect_continue_pass() {
    let mut story = Story::begin("").await;
    let head = "PUT /f HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    story.send(head).await;
    assert_eq!(story.asked("\r\n\r\n").await, head);
    story.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
    story.heard("100 Continue\r\n\r\n").await;
    story.send("data").await;
    story.asked("data").await;
    story
        .answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        .await;
    story.answer(OK).await;
    let heard = story.heard("hi").await;
    assert!(
        heard.starts_with("HTTP/1.1 103") && heard.ends_with(OK),
        "{heard}"
    );
}

#[tokio::test]
async fn credentials_and_secrets_never_stand_in_a_record() {
    let mut story = Story::begin(&policy("Audit", "  audit: {level: RequestResponse}\n")).await;
    let body = "key AKIAIOSFODNN7EXAMPLE end";
    story
        .send(&format!(
            "POST /?token=ghp_0123456789abcdefghijABCDEFGHIJ012345 HTTP/1.1\r\nHost: files.example.com\r\nAuthorization: Bearer s3cr3t-value\r\nCookie: sid=s3cr3t-value\r\nx-api-key: s3cr3t-value\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    story.asked("end").await;
    story.answer("HTTP/1.1 200 OK\r\nSet-Cookie: sid=s3cr3t-value\r\nContent-Length: 23\r\n\r\nAKIAIOSFODNN7EXAMPLE ok").await;
    story.heard(" ok").await;
    let records = story.records().await;
    let text = serde_json::to_string(&records).unwrap();
    for secret in ["s3cr3t-value", "AKIAIOSFODNN7EXAMPLE", "ghp_0123456789"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_ended_ends_without_an_answer_so_that_clients_try_again()
 {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(OK).await;
    story.heard("hi").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.upstream_leaves();
    assert_eq!(story.heard_to_end().await, "");
    let records = story.records().await;
    let second = exchanges(&records)[1];
    assert_eq!(second.event.http.as_ref().unwrap().status, None);
    assert!(error(second).contains("without an answer"));
}

#[tokio::test]
async fn an_upstream_that_ends_a_fresh_connection_is_told_as_502() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.upstream_leaves();
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn an_agent_that_leaves_while_it_waits_is_told_to_the_upstream_and_recorded() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.half_close().await;
    assert_eq!(story.asked_to_end().await, "");
    story.answer(OK).await;
    assert_eq!(story.heard("hi").await, OK, "half closed is not gone");
    let records = story.records().await;
    assert_eq!(exchanges(&records).len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_served_after_the_agent_ended_its_side() {
    let mut story = Story::begin("").await;
    story.send(&format!("{GET}{GET}")).await;
    story.half_close().await;
    for _ in 0..2 {
        assert_eq!(story.asked("\r\n\r\n").await, GET);
        story.answer(OK).await;
        assert_eq!(story.heard("hi").await, OK);
    }
    assert_eq!(exchanges(&story.records().await).len(), 2);
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_agent_is_still_sending() {
    let mut story = Story::begin("").await;
    story
        .send("POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 1000000\r\n\r\npart")
        .await;
    story.asked("part").await;
    let early = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    story.answer(early).await;
    story.send(&"x".repeat(100_000)).await;
    assert_eq!(story.heard_to_end().await, early);
    assert_eq!(exchanges(&story.records().await).len(), 1);
}

#[tokio::test]
async fn a_denied_upload_hears_its_answer_although_it_goes_on() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story
        .send("DELETE / HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 99000000\r\n\r\n")
        .await;
    story.send(&"x".repeat(2_000_000)).await;
    let answer = story.heard_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("Connection: close"));
    story.send(&"x".repeat(100_000)).await;
    assert_eq!(exchanges(&story.records().await).len(), 1);
}

#[tokio::test]
async fn a_body_that_a_rule_reads_is_bounded_as_written_too() {
    let mut story = Story::begin(&reads_bodies("Enforce")).await;
    story.send("POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("1;{}\r\n1\r\n", "x".repeat(4000));
    for _ in 0..600 {
        story.send(&chunk).await;
    }
    story.send("0\r\n\r\n").await;
    assert!(story.heard("}}").await.starts_with("HTTP/1.1 403"));
    let records = story.records().await;
    let decision = exchanges(&records)[0].event.decision.as_ref().unwrap();
    assert_eq!(decision.reason, "evaluation-error");
}

#[tokio::test]
async fn bytes_that_answer_no_request_end_the_connection() {
    let mut story = Story::begin("").await;
    story.send(&format!("{GET}{GET}")).await;
    story.asked("\r\n\r\n").await;
    story
        .answer(&format!(
            "{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        ))
        .await;
    assert_eq!(story.heard_to_end().await, OK);
    assert_eq!(exchanges(&story.records().await).len(), 1);
}

#[tokio::test]
async fn an_offer_of_h2c_is_withheld_and_other_connection_options_stay() {
    let mut story = Story::begin("").await;
    story.send("GET / HTTP/1.1\r\nHost: files.example.com\r\nConnection: Upgrade, HTTP2-Settings, X-Hop\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nX-Hop: 1\r\n\r\n").await;
    assert_eq!(
        story.asked("\r\n\r\n").await,
        "GET / HTTP/1.1\r\nHost: files.example.com\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    );
    story.answer(OK).await;
    story.heard("hi").await;
}

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: files.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn a_switch_of_protocols_is_a_gap_that_is_recorded_before_and_after() {
    let mut story = Story::begin(&policy("Audit", "  defaultAction: Allow\n")).await;
    story.send(WEBSOCKET).await;
    story.asked("\r\n\r\n").await;
    story.answer(&format!("{SWITCH}early")).await;
    assert_eq!(story.heard("early").await, format!("{SWITCH}early"));
    story.send("frames").await;
    story.asked("frames").await;
    let records = story.records().await;
    let gaps: Vec<_> = records
        .iter()
        .filter_map(|r| r.event.gap.as_ref())
        .collect();
    assert_eq!(gaps.len(), 2);
    assert_eq!(
        (
            gaps[0].sent_bytes,
            gaps[1].sent_bytes,
            gaps[1].received_bytes
        ),
        (None, Some(6), Some(5))
    );
    let gap = records.iter().find(|r| r.event.gap.is_some()).unwrap();
    assert!(
        gap.event.decision.as_ref().unwrap().would_deny,
        "Enforce would refuse it"
    );
}

#[tokio::test]
async fn a_switch_of_protocols_needs_leave_in_enforce_and_an_offer_in_every_mode() {
    let mut story = Story::begin(&policy("Enforce", "  defaultAction: Allow\n")).await;
    story.send(WEBSOCKET).await;
    assert!(story.heard("}}").await.starts_with("HTTP/1.1 403"));

    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(SWITCH).await;
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 502"));
    let records = story.records().await;
    let decision = exchanges(&records)[0].event.decision.as_ref().unwrap();
    assert_eq!(decision.reason, "unasked-switch");
}

#[tokio::test]
async fn interim_responses_without_end_are_refused() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20))
        .await;
    assert!(story.heard_to_end().await.contains("HTTP/1.1 502"));
}

#[tokio::test]
async fn a_response_without_a_body_says_of_it_what_is_true_of_a_masked_one() {
    for (method, answer, expected) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"a\"\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\netag: W/\"a\"\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ] {
        let mut story = Story::begin(&masks("Enforce")).await;
        story
            .send(&format!(
                "{method} / HTTP/1.1\r\nHost: files.example.com\r\n\r\n"
            ))
            .await;
        story.asked("\r\n\r\n").await;
        story.answer(answer).await;
        assert_eq!(story.heard("\r\n\r\n").await, expected);
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        story.records().await;
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_masked_body_that_ends_with_the_connection() {
    let mut story = Story::begin(&masks("Enforce")).await;
    story
        .send("GET / HTTP/1.0\r\nHost: files.example.com\r\nConnection: keep-alive\r\n\r\n")
        .await;
    story.asked("\r\n\r\n").await;
    story.answer("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\njane@example.com").await;
    let heard = story.heard_to_end().await;
    assert!(
        heard.contains("Connection: close")
            && !heard.contains("Length")
            && !heard.contains("chunked"),
        "{heard}"
    );
    assert!(heard.ends_with("[masked:email]"), "{heard}");
}

#[tokio::test]
async fn a_denial_needs_no_100_continue_and_a_rule_that_reads_the_body_asks_for_it() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    let expecting = |method: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/json\r\nContent-Length: 17\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    story.send(&expecting("DELETE")).await;
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 403"));

    let mut story = Story::begin(&reads_bodies("Enforce")).await;
    story.send(&expecting("POST")).await;
    assert_eq!(
        story.heard("\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    story.send("{\"action\":\"read\"}").await;
    let asked = story.asked("\"}").await;
    assert!(!asked.contains("Expect"), "{asked}");
    story.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
    story.answer(OK).await;
    assert_eq!(story.heard("hi").await, OK, "one 100 is enough");
}

#[tokio::test]
async fn every_form_of_target_is_judged_by_its_host() {
    for (request, status) in [
        (
            "GET https://files.example.com/a HTTP/1.1\r\nHost: files.example.com\r\n\r\n",
            None,
        ),
        (
            "GET / HTTP/1.1\r\nHost: Files.Example.Com.:443\r\n\r\n",
            None,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: files.example.com\r\n\r\n",
            None,
        ),
        (
            "GET https://other.example/a HTTP/1.1\r\nHost: files.example.com\r\n\r\n",
            Some("400"),
        ),
        (
            "GET https://other.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n",
            Some("421"),
        ),
        (
            "GET https://u:p@files.example.com/ HTTP/1.1\r\nHost: files.example.com\r\n\r\n",
            Some("400"),
        ),
        (
            "GET http://other.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n",
            None,
        ),
        (
            "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n",
            None,
        ),
        (
            "GET / HTTP/1.1\r\nHost: files.example.com..\r\n\r\n",
            Some("421"),
        ),
        ("GET / HTTP/1.0\r\n\r\n", Some("421")),
    ] {
        let mut story = Story::begin("").await;
        story.send(request).await;
        match status {
            Some(status) => {
                let heard = story.heard("}}").await;
                assert!(
                    heard.starts_with(&format!("HTTP/1.1 {status}")),
                    "{request:?}: {heard}"
                );
            }
            None => assert_eq!(story.asked("\r\n\r\n").await, request),
        }
        let recorded = story.records().await.len();
        assert_eq!(
            recorded, 3,
            "{request:?} leaves one record between open and close"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_408_and_recorded() {
    let mut story = Story::begin("").await;
    story.send("GET / HTTP/1.1\r\nHost: files.exa").await;
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 408"));
    tokio::time::resume();
    let records = story.records().await;
    assert_eq!(
        records[1].event.decision.as_ref().unwrap().reason,
        "head-timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_when_the_sidecar_stops_is_broken_off_and_recorded() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        .await;
    story.heard("\n\n").await;
    story.stop();
    assert_eq!(story.heard_to_end().await, "");
    tokio::time::resume();
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    assert_eq!(event.http.as_ref().unwrap().response_bytes, 9);
    assert!(event.error.as_ref().unwrap().contains("sidecar stopped"));
}

#[tokio::test]
async fn an_agent_that_ends_in_a_head_or_says_nothing_leaves_one_record() {
    for (sent, reason) in [("GET / HT", "agent-gone"), ("", "unused")] {
        let mut story = Story::begin("").await;
        story.send(sent).await;
        let records = story.records().await;
        assert_eq!(records.len(), 3, "{sent:?}");
        assert_eq!(records[1].event.decision.as_ref().unwrap().reason, reason);
    }
}
