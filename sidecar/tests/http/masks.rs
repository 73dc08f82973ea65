//! What masks change on HTTP/1 responses.

use super::*;

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
