//! HTTP exchanges as an agent and an upstream see them, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "http/commit.rs"]
mod commit;
#[path = "http/conversations.rs"]
mod conversations;
#[path = "http/ends.rs"]
mod ends;
#[path = "support/frames.rs"]
mod frames;
#[path = "http/masks.rs"]
mod masks;
#[path = "support/story.rs"]
mod support;
#[path = "http/switches.rs"]
mod switches;
#[path = "http/upgrades.rs"]
mod upgrades;

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
    let text = format!("{records:?}");
    for secret in ["s3cr3t-value", "AKIAIOSFODNN7EXAMPLE", "ghp_0123456789"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
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
