//! Requests to a model that are longer than what a record keeps of a body: the newest messages are kept, wherever in them they are.

use std::io::Write as _;

use chaperone_crds::{
    messages::{Said, asked_in},
    record::HttpInfo,
};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const SESSION: &str = "X-Claude-Code-Session-Id: 3f0c2f3e\r\n";
const MESSAGES: &str = "/v1/messages?beta=true";

fn at_level(level: &str) -> String {
    policy(
        "Audit",
        &format!(
            "  audit: {{level: {level}, maxBodyBytes: 20000}}\n  masks:\n    - name: pii\n      detectors: [email]\n"
        ),
    )
}

/// What Claude Code sends, of about so many bytes: messages amid the rest, the last of them as given.
fn conversation(bytes: usize, last: &str) -> String {
    let turn = [
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "old \"lines\"\n of ada@example.com\n".repeat(30)}]}),
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls", "messages": ["]", {"role": "user"}]}}]}),
    ];
    let turn = turn.map(|message| message.to_string()).join(",");
    let turns = vec![turn.as_str(); bytes / turn.len()].join(",");
    let last = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": last}]});
    let tools = json!([{"name": "Bash", "input_schema": {"messages": [7]}}]);
    format!(
        r#"{{"model":"m","messages":[{turns},{last}],"system":"You are \"an agent\".","tools":{tools},"stream":true}}"#
    )
}

/// Sends a request under a policy and returns what the record has of it.
async fn recorded(policy: &str, path: &str, fields: &str, body: &[u8]) -> HttpInfo {
    let mut story = Story::begin(policy).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: files.example.com\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    story.send(&head).await;
    story.asked("\r\n\r\n").await;
    let mut passed = vec![0; body.len()];
    let (sent, read) = tokio::join!(
        story.agent.write_all(body),
        story.upstream.read_exact(&mut passed)
    );
    sent.unwrap();
    read.unwrap();
    assert!(passed == body, "the agent's bytes pass as they are");
    story.answer(OK).await;
    story.heard("hi").await;
    let records = story.records().await;
    exchanges(&records)[0].event.http.clone().unwrap()
}

fn result(text: &str) -> Option<Result<Vec<Said>, chaperone_crds::messages::Cut>> {
    Some(Ok(vec![Said::Result {
        call: "t".to_owned(),
        text: text.to_owned(),
        is_error: false,
    }]))
}

#[tokio::test]
async fn of_a_conversation_of_two_megabytes_the_newest_message_is_recorded_masked() {
    let body = conversation(2_000_000, "mail of bob@example.com");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let coded = gzip.finish().unwrap();
    for (sent, coding) in [
        (body.as_bytes(), ""),
        (&coded, "Content-Encoding: gzip\r\n"),
    ] {
        let fields = format!("{SESSION}{coding}");
        let http = recorded(&at_level("Request"), MESSAGES, &fields, sent).await;
        assert_eq!(asked_in(&http), result("mail of [masked:email]"));
        let newest = http.newest_messages.unwrap();
        let text = newest.text.unwrap();
        assert!(
            text.starts_with("{\"content\":[") && text.ends_with('}'),
            "{text}"
        );
        assert!(newest.at > 1_900_000 && !newest.truncated, "{}", newest.at);
        let kept = http.request_body.unwrap();
        assert!(kept.truncated && kept.omitted.is_none());
        let kept = kept.text.unwrap();
        assert!(kept.len() > 19_000 && kept.len() <= 20_000 && kept.starts_with("{\"model\""));
        assert!(!kept.contains('@') && kept.contains("[masked:email]"));
    }
}

#[tokio::test]
async fn of_a_newest_message_that_is_itself_too_long_the_beginning_is_recorded() {
    let long = "line of eve@example.com\n".repeat(20_000);
    let http = recorded(
        &at_level("Request"),
        MESSAGES,
        SESSION,
        conversation(100_000, &long).as_bytes(),
    )
    .await;
    let said = asked_in(&http).unwrap().unwrap();
    let [Said::Result { text, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(text.starts_with("line of [masked:email]\n") && text.len() > 18_000);
    let newest = http.newest_messages.unwrap();
    assert!(newest.truncated && newest.text.unwrap().len() == 20_000);
}

#[tokio::test]
async fn nothing_is_looked_for_where_bodies_are_not_recorded_or_it_is_no_conversation_or_all_is_kept()
 {
    let long = conversation(100_000, "new");
    let broken = long.replace("],\"system\"", "");
    let short = conversation(2_000, "new");
    let late = format!(
        "{},\"x\":\"{}\"}}",
        short.trim_end_matches('}'),
        "x".repeat(30_000)
    );
    for (level, path, fields, body) in [
        ("Metadata", MESSAGES, SESSION, &long),
        ("Request", "/v1/messages/count_tokens", SESSION, &long),
        ("Request", MESSAGES, "", &long),
        ("Request", MESSAGES, SESSION, &broken),
        ("Request", MESSAGES, SESSION, &short),
        ("Request", MESSAGES, SESSION, &late),
    ] {
        let http = recorded(&at_level(level), path, fields, body.as_bytes()).await;
        assert_eq!(http.newest_messages, None, "{level} {path} {fields}");
        assert_eq!(http.request_body.is_some(), level == "Request");
    }
    let http = recorded(
        &at_level("RequestResponse"),
        MESSAGES,
        SESSION,
        late.as_bytes(),
    )
    .await;
    assert!(http.request_body.as_ref().unwrap().truncated);
    assert_eq!(
        asked_in(&http),
        result("new"),
        "what is kept of the body has it"
    );
}
