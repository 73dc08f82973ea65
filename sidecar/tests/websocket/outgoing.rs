//! Messages of the agent on their way out: masks and tokens, and paths in both directions.

use super::{
    compressed::{DEFLATE, compressed},
    *,
};

fn pii(direction: &str, rest: &str) -> String {
    policy(
        "Enforce",
        &format!(
            "  masks:\n    - {{name: pii, detectors: [email], fields: [\"$.secret\"], direction: {direction}{rest}}}\n  audit: {{level: Request}}\n"
        ),
    )
}

/// The payload of the next data frames of the agent, up to the end of its message.
async fn asked_message(story: &mut Story) -> String {
    let mut text = Vec::new();
    loop {
        let head = take(&mut story.upstream, 2).await;
        assert_eq!(head[1] & 0x80, 0x80, "frames of the agent are masked");
        let key = take(&mut story.upstream, 4).await;
        let payload = take(&mut story.upstream, usize::from(head[1] & 0x7f)).await;
        text.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        if head[0] & 0x80 != 0 {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[tokio::test]
async fn text_that_leaves_is_masked_by_what_it_looks_like_and_by_path_wherever_it_is_cut() {
    let text = br#"{"secret":{"k":1},"to":"jane.doe@example.com"}"#;
    let expected = r#"{"secret":"[masked:field]","to":"[masked:email]"}"#;
    let mut story = open(&pii("Request", ""), "", "").await;
    for cut in 0..=text.len() {
        let (first, second) = text.split_at(cut);
        let mut sent = frame(Opcode::Text, false, Some(KEY), first);
        sent.extend(frame(Opcode::Continuation, true, Some(KEY), second));
        story.agent.write_all(&sent).await.unwrap();
        assert_eq!(asked_message(&mut story).await, expected, "{cut}");
    }
    // What comes back and bytes pass as they are.
    let back = plain(Opcode::Text, text);
    story.upstream.write_all(&back).await.unwrap();
    assert_eq!(take(&mut story.agent, back.len()).await, back);
    let bytes = masked(Opcode::Binary, b"jane.doe@example.com");
    story.agent.write_all(&bytes).await.unwrap();
    assert_eq!(take(&mut story.upstream, bytes.len()).await, bytes);
    let records = story.records().await;
    let message = &of(&records, EventKind::WsMessage)[0].event;
    let found: Vec<&str> = message
        .masked
        .iter()
        .map(|found| found.detector.as_str())
        .collect();
    assert_eq!(found, ["field", "email"]);
    assert!(!format!("{message:?}").contains("jane"));
}

#[tokio::test]
async fn compressed_text_that_leaves_is_masked_and_reaches_the_upstream_in_clear() {
    let mut story = open(&pii("Request", ""), DEFLATE, DEFLATE).await;
    let mut agent = Compress::new(Compression::default(), false);
    for _ in 0..3 {
        let frame = compressed(&mut agent, Some(KEY), b"mail jane.doe@example.com today");
        story.agent.write_all(&frame).await.unwrap();
        let asked = asked_message(&mut story).await;
        assert_eq!(asked, "mail [masked:email] today");
    }
    story.records().await;
}

#[tokio::test]
async fn a_token_in_a_message_becomes_its_value_at_an_allowed_host_and_stays_one_in_the_record() {
    for (host, restored) in [("files.example.com", true), ("other.example.com", false)] {
        let rest = format!(", with: Token, restoreTo: [{host}]");
        let mut story = open(&pii("Response", &rest), "", "").await;
        let mail = plain(Opcode::Text, b"{\"to\":\"jane.doe@example.com\"}");
        story.upstream.write_all(&mail).await.unwrap();
        let head = take(&mut story.agent, 2).await;
        let heard = take(&mut story.agent, usize::from(head[1])).await;
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.contains("@tok.invalid"), "{heard}");
        let sent = masked(Opcode::Text, heard.as_bytes());
        story.agent.write_all(&sent).await.unwrap();
        let asked = asked_message(&mut story).await;
        match restored {
            true => assert_eq!(asked, "{\"to\":\"jane.doe@example.com\"}"),
            false => assert_eq!(asked, heard),
        }
        let text = format!("{:?}", story.records().await);
        assert!(
            !text.contains("jane") && text.contains("tok.invalid"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_path_selects_in_messages_to_the_agent() {
    let mut story = open(&pii("Response", ""), "", "").await;
    let sent = plain(Opcode::Text, br#"{"secret":[1,2],"n":1}"#);
    story.upstream.write_all(&sent).await.unwrap();
    let expected = br#"{"secret":"[masked:field]","n":1}"#;
    // Frames of ours end where the upstream's do.
    let head = take(&mut story.agent, 2).await;
    let heard = take(&mut story.agent, usize::from(head[1])).await;
    assert_eq!(
        String::from_utf8_lossy(&heard),
        String::from_utf8_lossy(expected)
    );
    story.records().await;
}
