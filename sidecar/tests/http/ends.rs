//! Connections of HTTP/1 that end early, late or not at all.

use super::*;

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
