//! What masks change on HTTP/2 streams.

use super::*;

#[tokio::test]
async fn text_is_masked_across_frames_and_in_the_record() {
    let mut story = Story::begin(&masks("Enforce")).await;
    story
        .serve(|request, mut respond| async move {
            assert_eq!(request.headers()["accept-encoding"], "gzip");
            let response = Response::builder()
                .header("content-type", "application/json")
                .header("content-length", "51");
            let mut body = respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            for part in [
                "{\"mail\":\"jane.d",
                "oe@exam",
                "ple.com\",\"ssn\":\"078-05",
                "-1121\"}",
            ] {
                body.send_data(Bytes::from_static(part.as_bytes()), false)
                    .unwrap();
                tokio::task::yield_now().await;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", "1".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        })
        .await;
    let get = Request::get(url("/")).header("accept-encoding", "gzip, dcb");
    let response = story.send(get.body(()).unwrap()).await.unwrap();
    assert!(!response.headers().contains_key("content-length"));
    let (heard, trailers) = read(&mut response.into_body()).await.unwrap();
    let heard = String::from_utf8(heard).unwrap();
    assert_eq!(
        heard,
        "{\"mail\":\"[masked:email]\",\"ssn\":\"[masked:usSsn]\"}"
    );
    assert_eq!(trailers.unwrap()["x-end"], "1");
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    assert_eq!(event.masked.iter().map(|m| m.count).sum::<u64>(), 2);
    let body = event.http.as_ref().unwrap().response_body.as_ref().unwrap();
    assert_eq!(body.text.as_deref(), Some(heard.as_str()));
}

#[tokio::test]
async fn values_of_response_fields_are_masked_but_those_that_frame_or_route() {
    let policy = masks("Enforce").replace(
        "detectors: [email, usSsn]",
        "detectors: [email]\n      headers: [x-internal-*]",
    );
    let mut story = Story::begin(&policy).await;
    story
        .serve(|_, mut respond| async move {
            let response = Response::builder()
                .header("set-cookie", "a=1")
                .header("set-cookie", "who=ada@example.com; Path=/")
                .header("location", "/u?m=ada@example.com")
                .header("x-internal-host", "db-7");
            respond
                .send_response(response.body(()).unwrap(), true)
                .unwrap();
        })
        .await;
    let get = Request::get(url("/")).body(()).unwrap();
    let response = story.send(get).await.unwrap();
    let fields = response.headers();
    let cookies: Vec<_> = fields.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "who=[masked:email]; Path=/"]);
    assert_eq!(fields["location"], "/u?m=%5Bmasked%3Aemail%5D");
    assert_eq!(fields["x-internal-host"], "[masked:header]");
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    assert_eq!(event.masked.iter().map(|m| m.count).sum::<u64>(), 3);
    assert!(!format!("{event:?}").contains("db-7"));
}

#[tokio::test]
async fn trailers_to_the_agent_are_masked() {
    let mut story = Story::begin(&masks("Enforce")).await;
    story.serve(echo).await;
    let (response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-owner", "ada@example.com".parse().unwrap());
    trailers.insert("x-end", "7".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let (_, trailers) = read(&mut body).await.unwrap();
    let trailers = trailers.unwrap();
    assert_eq!(trailers["x-owner"], "[masked:email]");
    assert_eq!(trailers["x-end"], "7");
}

#[tokio::test]
async fn a_compressed_response_that_masks_cannot_read_is_refused_in_enforce() {
    let mut story = Story::begin(&masks("Enforce")).await;
    story
        .serve(|_, mut respond| async move {
            let response = Response::builder()
                .header("content-type", "text/plain")
                .header("content-encoding", "dcb");
            let mut body = respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            body.send_data(Bytes::from_static(b"\x1f\x8b"), true)
                .unwrap();
        })
        .await;
    let response = story.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

/// Sends a request with trailers to an upstream that says which trailers it got, and returns that.
async fn trailers_of(policies: &str, content_type: &str) -> (StatusCode, String, Vec<Record>) {
    let mut story = Story::begin(policies).await;
    story
        .serve(|request, mut respond| async move {
            let mut from = request.into_body();
            while let Some(Ok(data)) = from.data().await {
                let _ = from.flow_control().release_capacity(data.len());
            }
            let trailers = from.trailers().await.unwrap().unwrap_or_default();
            let mut to = respond.send_response(Response::new(()), false).unwrap();
            let mut said: Vec<_> = trailers
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            said.sort();
            to.send_data(said.join(" ").into(), true).unwrap();
        })
        .await;
    let request = Request::post(url("/upload")).header("content-type", content_type);
    let (response, mut to) = story.open(request.body(()).unwrap()).await;
    write(&mut to, Bytes::from_static(b"body")).await.unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-note", "jane.doe@example.com".parse().unwrap());
    trailers.insert("content-digest", "sha-256=:YQ==:".parse().unwrap());
    to.send_trailers(trailers).unwrap();
    let mut response = soon(response).await.unwrap();
    let body = read(response.body_mut()).await.unwrap().0;
    let status = response.status();
    drop((to, response));
    let records = story.records().await;
    (status, String::from_utf8(body).unwrap(), records)
}

#[tokio::test]
async fn trailers_of_a_request_in_a_stream_are_masked_and_judged() {
    let masks = policy(
        "Enforce",
        "  masks:\n    - {name: pii, detectors: [email], direction: Request, headers: [x-note]}\n",
    );
    let (_, said, records) = trailers_of(&masks, "text/plain").await;
    assert_eq!(said, "x-note=[masked:header]", "a digest would be false");
    assert_eq!(exchanges(&records)[0].event.masked[0].count, 1);

    let rule = |detector| {
        policy(
            "Enforce",
            &format!(
                "  masks:\n    - {{name: pii, detectors: [email], direction: Request}}\n  rules:\n    - name: no\n      when: '\"{detector}\" in http.detected'\n      action: Deny\n"
            ),
        )
    };
    let (status, _, records) = trailers_of(&rule("email"), "text/plain").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!format!("{records:?}").contains("jane"));
    // Held for the rule, then sent on.
    let (_, said, _) = trailers_of(&rule("usSsn"), "text/plain").await;
    assert_eq!(said, "x-note=[masked:email]");
    let (_, said, _) = trailers_of("", "text/plain").await;
    assert_eq!(
        said,
        "content-digest=sha-256=:YQ==: x-note=jane.doe@example.com"
    );
}

#[tokio::test]
async fn of_a_request_the_record_shows_the_text_as_its_head_says_that_it_is_written() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"to jane.doe@example.com").unwrap();
    let coded = gzip.finish().unwrap();
    let policy = masks("Audit").replace(
        "detectors: [email, usSsn]",
        "detectors: [email]\n      fields: [$.pin]",
    );
    for (field, value, body, shown) in [
        ("content-encoding", "gzip", coded, "to [masked:email]"),
        (
            "content-type",
            "application/x-www-form-urlencoded",
            b"a=1&pin=12".to_vec(),
            "a=1&pin=%5Bmasked%3Afield%5D",
        ),
    ] {
        let mut story = Story::begin(&policy).await;
        story.serve(echo).await;
        let request = Request::post(url("/")).header(field, value);
        let (response, mut sent) = story.open(request.body(()).unwrap()).await;
        sent.send_data(body.into(), true).unwrap();
        read(&mut soon(response).await.unwrap().into_body())
            .await
            .unwrap();
        let records = story.records().await;
        let http = exchanges(&records)[0].event.http.as_ref().unwrap();
        let kept = http.request_body.as_ref().unwrap();
        assert_eq!(kept.text.as_deref(), Some(shown), "{kept:?}");
    }
}

#[tokio::test]
async fn of_a_conversation_that_is_longer_than_what_is_kept_the_newest_message_is_recorded() {
    let mut story = Story::begin(&masks("Audit")).await;
    story.serve(echo).await;
    let request = Request::post(url("/v1/messages")).header("x-claude-code-session-id", "s1");
    let (response, mut sent) = story.open(request.body(()).unwrap()).await;
    let old =
        r#"{"role":"user","content":"old"},{"role":"assistant","content":"answer"},"#.repeat(3000);
    let body =
        format!(r#"{{"messages":[{old}{{"role":"user","content":"new for ada@example.com"}}]}}"#);
    let send = async {
        write(&mut sent, body.clone().into()).await.unwrap();
        sent.send_data(Bytes::new(), true).unwrap();
    };
    let hear = async {
        let response = soon(response).await.unwrap();
        read(&mut response.into_body()).await.unwrap().0
    };
    let ((), heard) = tokio::join!(send, hear);
    let echoed = body.replace("ada@example.com", "[masked:email]");
    assert!(heard == echoed.as_bytes());
    let records = story.records().await;
    let http = exchanges(&records)[0].event.http.as_ref().unwrap();
    let newest = http.newest_messages.as_ref().unwrap();
    let expected = r#"{"role":"user","content":"new for [masked:email]"}"#;
    assert_eq!(newest.text.as_deref(), Some(expected));
    assert!(newest.at > 200_000 && !newest.truncated);
}
