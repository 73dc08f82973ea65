//! `audit.commit`: an operation is on disk before it leaves, or with the ledger, or it does not leave. What a ledger that is there does is tried with the ledger's own program.

use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    record::{EventKind, Outcome, Record},
    resources::Format,
};

use super::{GET, OK, exchanges, policy, support::Story};

fn disk(rest: &str) -> String {
    policy(
        "Enforce",
        &format!("  audit: {{commit: Disk, level: Request}}\n{rest}"),
    )
}

fn beginnings(records: &[Record]) -> Vec<&Record> {
    let begin = |record: &&Record| record.event.kind == EventKind::Begin;
    records.iter().filter(begin).collect()
}

#[tokio::test]
async fn a_request_is_on_disk_before_its_first_byte_leaves_and_its_record_says_which() {
    let mut story = Story::begin(&disk("")).await;
    for turn in 1..=3 {
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        let records = story.on_disk();
        let begun = beginnings(&records);
        assert_eq!(begun.len(), turn, "before the answer");
        assert_eq!(exchanges(&records).len(), turn - 1);
        story.answer(OK).await;
        story.heard("hi").await;
        // Its own record, which need not wait for the disk.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let records = story.records().await;
    for (begun, over) in beginnings(&records).into_iter().zip(exchanges(&records)) {
        assert_eq!(over.event.begun, Some(begun.seq));
        assert_eq!(begun.event.operation, over.event.operation);
        assert_eq!(begun.event.destination, over.event.destination);
        assert_eq!(begun.event.decision, over.event.decision);
        let (before, after) = (&begun.event.http, &over.event.http);
        let (before, after) = (before.as_ref().unwrap(), after.as_ref().unwrap());
        assert!(before.request_headers.is_some());
        assert_eq!(before.request_headers, after.request_headers);
        assert_eq!((before.status, before.complete), (None, false));
    }
}

#[tokio::test]
async fn what_is_denied_does_not_leave_and_has_one_record() {
    let rules =
        "  rules:\n    - name: none\n      match: {protocols: [http]}\n      action: Deny\n";
    let mut story = Story::begin(&disk(rules)).await;
    story.send(GET).await;
    story.heard("}}").await;
    let records = story.records().await;
    assert!(beginnings(&records).is_empty());
    assert_eq!(exchanges(&records)[0].event.begun, None);
}

#[tokio::test]
async fn where_policy_does_not_ask_nothing_waits_and_nothing_begins() {
    let mut story = Story::begin("").await;
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story.answer(OK).await;
    story.heard("hi").await;
    let records = story.records().await;
    assert!(beginnings(&records).is_empty());
    assert_eq!(exchanges(&records)[0].event.begun, None);
}

#[tokio::test]
async fn a_request_that_cannot_be_recorded_does_not_leave() {
    let mut story = Story::begin(&disk("")).await;
    story.end_stream().await;
    story.send(GET).await;
    story.half_close().await;
    let told = story.heard_to_end().await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("before the request was recorded"), "{told}");
    assert_eq!(story.asked_to_end().await, "");
}

/// A ledger at a port where nobody listens.
fn away() -> Vec<SinkConfig> {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    vec![SinkConfig {
        name: "ledger".to_owned(),
        target: SinkTarget::Ledger {
            url: "https://127.0.0.1:1".to_owned(),
            ca_bundle: certificate.cert.pem(),
            token_file: "/nowhere".to_owned(),
        },
        format: Format::Native,
        filter: None,
    }]
}

fn ledger() -> String {
    policy("Audit", "  audit: {commit: Ledger}\n")
}

/// The one request of these records did not leave, for this reason, and both of its records say so.
fn did_not_leave(records: &[Record], reason: &str) {
    let over = exchanges(records);
    let decision = over[0].event.decision.as_ref().unwrap();
    assert_eq!(
        (decision.action, decision.reason.as_str()),
        (Outcome::Deny, reason)
    );
    assert_eq!(over[0].event.begun, Some(beginnings(records)[0].seq));
}

#[tokio::test]
async fn where_policy_asks_for_a_ledger_and_there_is_none_nothing_leaves() {
    let mut story = Story::begin(&ledger()).await;
    story.send(GET).await;
    story.half_close().await;
    let told = story.heard_to_end().await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("ask for Disk"), "{told}");
    assert_eq!(story.asked_to_end().await, "");
    did_not_leave(&story.records().await, "no-ledger");
}

/// The clock runs by itself whenever all wait.
#[tokio::test(start_paused = true)]
async fn what_the_ledger_does_not_acknowledge_within_half_a_minute_does_not_leave() {
    let mut story = Story::begin(&ledger()).await;
    story.send_to(away());
    let began = tokio::time::Instant::now();
    story.send(GET).await;
    story.half_close().await;
    let told = story.heard_to_end().await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("within 30 s"), "{told}");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(story.asked_to_end().await, "");
    did_not_leave(&story.records().await, "ledger-slow");
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_the_ledger() {
    let mut story = Story::begin(&ledger()).await;
    story.send_to(away());
    story.send(GET).await;
    while beginnings(&story.on_disk()).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    tokio::time::pause();
    story.stop();
    let told = story.heard_to_end().await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    let records = story.records().await;
    assert_eq!(
        exchanges(&records)[0].event.begun,
        Some(beginnings(&records)[0].seq)
    );
}

#[tokio::test]
async fn bytes_that_are_not_read_do_not_pass_without_the_ledger() {
    let rules = "  audit: {commit: Ledger}\n  rules:\n    - name: switch\n      match: {protocols: [tcp]}\n      action: Allow\n";
    let mut story = Story::begin(&policy("Enforce", &rules.replace("Ledger", "Disk"))).await;
    story.send_to(away());
    story
        .send("GET /x HTTP/1.1\r\nHost: files.example.com\r\nConnection: upgrade\r\nUpgrade: acme\r\n\r\n")
        .await;
    story.asked("\r\n\r\n").await;
    story.swap(&policy("Enforce", rules));
    story
        .answer("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: acme\r\n\r\n")
        .await;
    story.heard("\r\n\r\n").await;
    story.send("secret!").await;
    // From here on the clock runs by itself whenever all wait.
    tokio::time::pause();
    assert_eq!(story.asked_to_end().await, "");
    let records = story.records().await;
    let gaps: Vec<_> = records
        .iter()
        .filter(|r| r.event.kind == EventKind::Gap)
        .collect();
    let (first, last) = (gaps[0], gaps[1]);
    assert_eq!(last.event.begun, Some(first.seq));
    let gap = last.event.gap.as_ref().unwrap();
    assert_eq!((gap.sent_bytes, gap.received_bytes), (Some(0), Some(0)));
    assert_eq!(last.event.decision.as_ref().unwrap().reason, "ledger-slow");
}

#[tokio::test]
async fn bytes_that_are_not_read_pass_after_a_record_of_them_is_on_disk() {
    let rules =
        "  rules:\n    - name: switch\n      match: {protocols: [tcp]}\n      action: Allow\n";
    let mut story = Story::begin(&disk(rules)).await;
    story
        .send("GET /x HTTP/1.1\r\nHost: files.example.com\r\nConnection: upgrade\r\nUpgrade: acme\r\n\r\n")
        .await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: acme\r\n\r\n")
        .await;
    story.heard("\r\n\r\n").await;
    story.send("secret!").await;
    story.asked("secret!").await;
    let records = story.on_disk();
    let first = records.iter().find(|r| r.event.kind == EventKind::Gap);
    let first = first.map(|record| record.seq);
    assert!(first.is_some(), "before the bytes");
    let records = story.records().await;
    let last = records.iter().rfind(|r| r.event.kind == EventKind::Gap);
    assert_eq!(last.unwrap().event.begun, first);
}
