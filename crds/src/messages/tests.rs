//! Requests and answers as Claude Code and the API have them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn request() -> String {
    json!({
        "model": "claude-sonnet-4-5",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Tidy up."}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a.txt"}, {"type": "image", "source": {}}], "is_error": true},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "b.txt"},
                {"type": "text", "text": "Go on."},
                {"type": "image", "source": {}},
            ]},
        ],
        "system": [{"type": "text", "text": "You are an agent."}],
        "max_tokens": 32000,
        "stream": true,
    })
    .to_string()
}

fn last() -> Vec<Said> {
    let result = |call: &str, text: &str, is_error| Said::Result {
        call: call.to_owned(),
        text: text.to_owned(),
        is_error,
    };
    vec![
        result("toolu_1", "a.txt\n(image)", true),
        result("toolu_2", "b.txt", false),
        Said::Prompt("Go on.".to_owned()),
        Said::Prompt("(image)".to_owned()),
    ]
}

#[test]
fn the_last_message_is_what_is_new() {
    assert_eq!(asked(&request()), Ok(last()));
    let plain = r#"{"messages":[{"role":"user","content":"Hello"}]}"#;
    assert_eq!(asked(plain), Ok(vec![Said::Prompt("Hello".to_owned())]));
}

#[test]
fn a_request_that_is_cut_after_its_messages_has_them_all() {
    let whole = request();
    // Keys are sorted here as Claude Code sends them: what follows the messages is long, and is what is cut.
    let end = whole.find(r#","model""#).unwrap();
    let text = format!(
        r#"{{"max_tokens":1,{}"#,
        &whole[whole.find(r#""messages""#).unwrap()..]
    );
    assert_eq!(asked(&text[..end]), Ok(last()));
    assert_eq!(asked(&text[..text.len() - 1]), Ok(last()));
}

#[test]
fn a_request_that_is_cut_within_its_messages_says_so() {
    let whole = request();
    for within in ["toolu_2", "assistant", "Tidy up."] {
        let cut = &whole[..whole.find(within).unwrap()];
        assert_eq!(asked(cut), Err(Cut), "an older message is not the newest");
    }
}

#[test]
fn what_is_no_request_says_nothing() {
    for other in [
        "",
        "[]",
        "null",
        "{}",
        "{\"messages\":7}",
        "{\"messages\":[7]}",
        "\u{0}",
        "{\"messages\":[{\"role\":\"user\"}]}",
    ] {
        assert!(asked(other).unwrap_or_default().is_empty(), "{other}");
    }
    let deep = format!("{{\"messages\":[{}", "[".repeat(100_000));
    assert_eq!(asked(&deep), Err(Cut));
}

const EVENTS: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","role":"assistant","content":[]}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Files."}}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"I will "}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"look."}}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"command\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" \"ls\"}"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use"}}
"#;

fn answer(input: &str) -> Vec<Said> {
    vec![
        Said::Thinking("Files.".to_owned()),
        Said::Text("I will look.".to_owned()),
        Said::Call {
            call: "toolu_1".to_owned(),
            tool: "Bash".to_owned(),
            input: input.to_owned(),
        },
    ]
}

#[test]
fn an_answer_in_events_is_the_answer_in_one_piece() {
    assert_eq!(answered(EVENTS), answer(r#"{"command": "ls"}"#));
    let whole = json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Files."},
        {"type": "text", "text": "I will look."},
        {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
    ]});
    assert_eq!(answered(&whole.to_string()), answer(r#"{"command":"ls"}"#));
    // Cut within an event: what came before.
    let cut = &EVENTS[..EVENTS.rfind("partial_json").unwrap()];
    assert_eq!(answered(cut), answer(r#"{"command":"#));
    assert!(answered(r#"{"type":"error","error":{"type":"overloaded_error"}}"#).is_empty());
    assert!(answered("<html>").is_empty() && answered("").is_empty());
}

proptest! {
    #[test]
    fn any_beginning_says_a_beginning(at in 0..EVENTS.len()) {
        let said = answered(&EVENTS[..at]);
        let whole = answered(EVENTS);
        prop_assert!(said.len() <= whole.len());
        let _ = asked(&EVENTS[..at]);
        let request = request();
        let said = asked(request.get(..at).unwrap_or(&request));
        prop_assert!(said.is_err() || said == Ok(last()) || said == Ok(Vec::new()));
    }
}
