//! Bodies, fields and URLs of requests on their way out: masks and tokens.

use super::*;

/// What the upstream hears of a body in chunks.
async fn asked_body(story: &mut Story) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = story.asked("\r\n").await;
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        story.upstream.read_exact(&mut chunk).await.unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

fn tokens(restore_to: &str) -> String {
    policy("Enforce")
        .replace(
            "email, usSsn]",
            &format!("email, usSsn]\n      with: Token\n      restoreTo: [{restore_to}]"),
        )
        .replace("RequestResponse", "Request")
}

/// Lets the agent see an address and a number, and returns the tokens that it got instead.
async fn seen_tokens(story: &mut Story) -> (String, String) {
    story.send(GET).await;
    story.asked("\r\n\r\n").await;
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 32\r\n\r\njane.doe@example.com 078-05-1121")
        .await;
    story.heard("\r\n\r\n").await;
    let text = String::from_utf8(hear_body(story).await).unwrap();
    let (mail, ssn) = text.split_once(' ').unwrap();
    assert!(
        mail.ends_with("@tok.invalid") && ssn.starts_with("tok_usSsn_"),
        "{text}"
    );
    (mail.to_owned(), ssn.to_owned())
}

#[tokio::test]
async fn a_token_becomes_its_value_on_the_way_to_an_allowed_host_and_the_record_keeps_the_token() {
    let mut story = Story::begin(&tokens("files.example.com")).await;
    let (mail, ssn) = seen_tokens(&mut story).await;
    let json = format!("{{\"to\":\"{mail}\",\"n\":1}}");
    story
        .send(&format!(
            "POST /find/{ssn}?mail={mail} HTTP/1.1\r\nHost: files.example.com\r\nX-For: {ssn}\r\nX-For: other\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        ))
        .await;
    let head = story.asked("\r\n\r\n").await;
    assert!(
        head.starts_with("POST /find/078-05-1121?mail=jane.doe%40example.com HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("x-for: 078-05-1121\r\nx-for: other\r\n"),
        "{head}"
    );
    assert!(
        head.contains("chunked") && !head.contains("Content-Length"),
        "{head}"
    );
    let body = String::from_utf8(asked_body(&mut story).await).unwrap();
    assert_eq!(body, "{\"to\":\"jane.doe@example.com\",\"n\":1}");
    story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    story.heard("\r\n\r\n").await;
    let text = format!("{:?}", story.records().await);
    assert!(
        !text.contains("jane.doe") && !text.contains("1121"),
        "{text}"
    );
    assert!(text.contains(&ssn), "{text}");
}

#[tokio::test]
async fn a_token_stays_one_elsewhere_and_under_a_coding_it_is_restored() {
    let mut story = Story::begin(&tokens("other.example.com")).await;
    let (_, ssn) = seen_tokens(&mut story).await;
    story
        .send(&format!(
            "POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: {}\r\n\r\n{ssn}",
            ssn.len()
        ))
        .await;
    let asked = story.asked(&ssn).await;
    assert!(asked.contains("Content-Length"), "{asked}");
    story.records().await;

    let mut story = Story::begin(&tokens("files.example.com")).await;
    let (_, ssn) = seen_tokens(&mut story).await;
    let coded = gzip(&ssn);
    story
        .send(&format!("POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", coded.len()))
        .await;
    story.agent.write_all(&coded).await.unwrap();
    story.asked("\r\n\r\n").await;
    assert_eq!(gunzip(&asked_body(&mut story).await), "078-05-1121");
    story.records().await;
}

#[tokio::test]
async fn a_body_whose_type_says_nothing_is_no_way_past_a_mask() {
    let types = [
        "Content-Type: image/png\r\n",
        "Content-Type: application/octet-stream\r\n",
        "Content-Type: application/grpc\r\n",
        "Content-Type: text/plain\r\nContent-Type: image/png\r\n",
        "",
    ];
    for (mode, types) in [("Enforce", &types[..]), ("Audit", &types[..1])] {
        let policy = policy(mode).replace("email, usSsn]", "email]\n      direction: Request");
        for fields in types {
            let mut story = Story::begin(&policy).await;
            story
                .send(&format!("POST / HTTP/1.1\r\nHost: files.example.com\r\n{fields}Content-Length: 15\r\n\r\nada@example.com"))
                .await;
            if mode == "Enforce" {
                assert!(
                    story.heard_to_end().await.starts_with("HTTP/1.1 415"),
                    "{fields}"
                );
            } else {
                story.asked("ada@example.com").await;
                story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
                story.heard("204").await;
            }
            let records = story.records().await;
            let record = exchange(&records);
            match mode {
                "Enforce" => assert_eq!(
                    record.decision.as_ref().unwrap().reason,
                    "unreadable-request"
                ),
                _ => assert!(
                    record.error.as_ref().unwrap().contains("left unmasked"),
                    "{record:?}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn what_leaves_is_masked_but_not_the_agents_own_credentials() {
    let policy =
        policy("Enforce").replace("email, usSsn]", "email, jwt]\n      direction: Request");
    let mut story = Story::begin(&policy).await;
    let jwt = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln";
    story
        .send(&format!("POST /a?mail=ada@example.com HTTP/1.1\r\nHost: files.example.com\r\nAuthorization: Bearer {jwt}\r\nX-Mail: ada@example.com\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"))
        .await;
    for piece in ["{\"t\":\"eyJhbGciOiJIUzI1", "NiJ9.e30.c2ln\"}"] {
        story
            .send(&format!("{:x}\r\n{piece}\r\n", piece.len()))
            .await;
    }
    story.send("0\r\n\r\n").await;
    let head = story.asked("\r\n\r\n").await;
    assert!(
        head.contains("?mail=%5Bmasked%3Aemail%5D") && head.contains("x-mail: [masked:email]"),
        "{head}"
    );
    assert!(head.contains(jwt), "{head}");
    assert_eq!(asked_body(&mut story).await, b"{\"t\":\"[masked:jwt]\"}");
    story
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nada@example.com")
        .await;
    story.heard("ada@example.com").await;
    let records = story.records().await;
    let found: Vec<_> = exchange(&records)
        .masked
        .iter()
        .map(|m| (m.detector.as_str(), m.count))
        .collect();
    assert_eq!(found, [("email", 1), ("jwt", 1)]);

    let mut story = Story::begin(&policy).await;
    story
        .send("POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: text/plain\r\nContent-Encoding: compress\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert!(story.heard_to_end().await.starts_with("HTTP/1.1 415"));
    let records = story.records().await;
    assert_eq!(
        exchange(&records).decision.as_ref().unwrap().reason,
        "compressed-request"
    );
}

/// A body in chunks with trailers, of a type that masks do not read unless `media` says text.
fn with_trailers(media: &str, trailers: &str) -> String {
    format!(
        "POST /upload HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Note\r\n\r\n4;x=y\r\nbody\r\n0\r\n{trailers}\r\n"
    )
}

#[tokio::test]
async fn trailers_of_a_request_are_masked_and_say_nothing_false() {
    let policies = policy("Audit").replace("usSsn]", "usSsn]\n      direction: Request");
    for (media, digest) in [("application/octet-stream", true), ("text/plain", false)] {
        let mut story = Story::begin(&policies).await;
        let trailers = "X-Note: from jane.doe@example.com\r\nX-Other: kept\r\nContent-Digest: sha-256=:YQ==:\r\n";
        story.send(&with_trailers(media, trailers)).await;
        story.asked("\r\n\r\n").await;
        assert_eq!(story.asked("\r\n0\r\n").await, "4\r\nbody\r\n0\r\n");
        let left = story.asked("\r\n\r\n").await.to_ascii_lowercase();
        assert!(left.contains("x-note: from [masked:email]\r\n"), "{left}");
        assert!(left.contains("x-other: kept\r\n"), "{left}");
        assert_eq!(left.contains("content-digest"), digest, "{media}: {left}");
        story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        story.heard("\r\n\r\n").await;
        let records = story.records().await;
        let found = records.iter().find(|r| r.event.http.is_some()).unwrap();
        assert_eq!(found.event.masked[0].detector, "email");
    }
}

#[tokio::test]
async fn a_token_in_a_trailer_becomes_its_value() {
    let mut story = Story::begin(&tokens("files.example.com")).await;
    let (mail, _) = seen_tokens(&mut story).await;
    let trailers = format!("X-Note: {mail}\r\n");
    story
        .send(&with_trailers("application/octet-stream", &trailers))
        .await;
    story.asked("\r\n0\r\n").await;
    let left = story.asked("\r\n\r\n").await.to_ascii_lowercase();
    assert_eq!(left, "x-note: jane.doe@example.com\r\n\r\n");
    story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    story.heard("\r\n\r\n").await;
    let text = format!("{:?}", story.records().await);
    assert!(!text.contains("jane.doe"), "{text}");
}

#[tokio::test]
async fn trailers_pass_as_written_where_nothing_is_done_to_requests() {
    let mut story = Story::begin(&policy("Audit")).await;
    let sent = with_trailers("text/plain", "X-Note: jane.doe@example.com\r\n");
    story.send(&sent).await;
    let asked = story.asked("jane.doe@example.com\r\n\r\n").await;
    assert!(
        asked.ends_with("4;x=y\r\nbody\r\n0\r\nX-Note: jane.doe@example.com\r\n\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_rule_on_what_detectors_find_reads_trailers_too() {
    let rule = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p, namespace: agents}\nspec:\n  mode: Enforce\n  rules:\n    - name: no-mail\n      when: '\"email\" in http.detected'\n      action: Deny\n";
    for (trailers, status) in [
        ("X-Note: jane.doe@example.com\r\n", "HTTP/1.1 403"),
        ("X-Note: nobody\r\n", "HTTP/1.1 204"),
    ] {
        let mut story = Story::begin(rule).await;
        let sent = with_trailers("application/octet-stream", trailers);
        story.send(&sent).await;
        if status.ends_with("204") {
            let asked = story.asked("nobody\r\n\r\n").await;
            assert_eq!(asked, sent, "as it was written");
            story.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
        let heard = story.heard("\r\n\r\n").await;
        assert!(heard.starts_with(status), "{heard}");
    }
}
