//! Offers to change the protocol of a connection.

use super::*;

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
