//! What an exchange with a model said, at the head of its turn.

use chaperone_crds::{
    messages::{self, Cut, Said},
    record::{BodyInfo, Record},
};
use chaperone_index::facts::Facts;
use maud::{Markup, html};
use serde_json::Value;

use crate::text::inline;

/// Characters of one thing that was said.
const SAID_CHARS: usize = 2_000;
/// Things that are shown of each side.
const MAX_SAID: usize = 100;

/// What is new in this exchange: what the model was told last, and what it answered. Nothing where the record is none of an exchange, or has no bodies.
pub(crate) fn said(line: &[u8], record: &Value) -> Markup {
    if !Facts::of(record).is_turn() {
        return html! {};
    }
    let record = Record::read(line).ok();
    let http = record
        .as_ref()
        .and_then(|record| record.event.http.as_ref());
    let text = |body: Option<&BodyInfo>| body.and_then(|body| body.text.clone());
    let answer = text(http.and_then(|http| http.response_body.as_ref()));
    let asked = http.and_then(messages::asked_in);
    let newest = http.and_then(|http| http.newest_messages.as_ref());
    let is_long = newest.is_some_and(|newest| newest.truncated);
    let is_cut = asked == Some(Err(Cut));
    let is_deleted = record.as_ref().is_some_and(Record::is_content_deleted);
    let asked = asked.and_then(Result::ok).unwrap_or_default();
    let answered = answer
        .as_deref()
        .map(messages::answered)
        .unwrap_or_default();
    html! {
        @if is_deleted { p.note { "Content deleted: the record had what was said here." } }
        @if is_cut { p.note { "The record ends before the newest message that the model was told." } }
        @if is_long && !asked.is_empty() { p.note { "What the model was told last is longer than what the record keeps of it." } }
        @if !asked.is_empty() || !answered.is_empty() {
            dl.said { (all(&asked)) (all(&answered)) }
        }
    }
}

fn all(said: &[Said]) -> Markup {
    let more = said.len().saturating_sub(MAX_SAID);
    html! {
        @for said in said.iter().take(MAX_SAID) { (one(said)) }
        @if more > 0 { div { dt { "And" } dd { (more) " more" } } }
    }
}

fn one(said: &Said) -> Markup {
    let (who, text) = match said {
        Said::Prompt(text) => ("Prompt", text),
        Said::Result {
            text,
            is_error: false,
            ..
        } => ("A tool gave", text),
        Said::Result {
            text,
            is_error: true,
            ..
        } => ("A tool failed", text),
        Said::Text(text) => ("The model says", text),
        Said::Thinking(text) => ("The model thinks", text),
        Said::Call { tool, input, .. } => {
            return html! { div { dt { "The model calls" } dd { strong { (inline(tool, 100)) } " " (inline(input, SAID_CHARS)) } } };
        }
    };
    html! { div { dt { (who) } dd { (inline(text, SAID_CHARS)) } } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(path: &str, request: &str, answer: &Value) -> String {
        let record = json!({"v": "chaperone.dev/v1", "stream": "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d", "seq": 1, "prev": "00", "time": "2026-11-24T10:11:12.345678Z",
            "kind": "http", "agent": {"namespace": "agents", "pod": "claude"}, "session": {"id": "s"},
            "operation": {"protocol": "http", "verb": "POST", "resource": format!("https://api.example.com{path}")},
            "http": {"status": 200, "requestBody": {"text": request}, "responseBody": {"text": answer.to_string()}}});
        said(record.to_string().as_bytes(), &record).into_string()
    }

    #[test]
    fn a_turn_begins_with_what_was_said_in_it_as_text() {
        let request = json!({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "<b>", "is_error": true},
            {"type": "text", "text": "Mail [masked:email]"}]}]});
        let answer = json!({"content": [{"type": "text", "text": "<script>"}, {"type": "tool_use", "id": "t", "name": "Ba\u{202e}sh", "input": {"command": "ls"}}]});
        let page = shown("/v1/messages", &request.to_string(), &answer);
        for part in [
            "A tool failed</dt><dd><bdi>&lt;b&gt;",
            "<mark class=\"mask\"",
            "&lt;script&gt;",
            "\\u{202e}",
            "{&quot;command&quot;:&quot;ls&quot;}",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("<b>"));
        let cut = shown("/v1/messages", &request.to_string()[..20], &answer);
        assert!(cut.contains("ends before the newest message") && cut.contains("&lt;script&gt;"));
        assert_eq!(shown("/other", &request.to_string(), &answer), "");
    }

    #[test]
    fn a_turn_whose_request_was_cut_has_its_newest_messages() {
        let mut record = json!({"v": "chaperone.dev/v2", "stream": "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d", "seq": 1, "prev": "00", "time": "2026-11-24T10:11:12.345678Z",
            "kind": "http", "agent": {"namespace": "agents", "pod": "claude"}, "session": {"id": "s"},
            "operation": {"protocol": "http", "verb": "POST", "resource": "https://api.example.com/v1/messages"},
            "http": {"requestBody": {"truncated": true}, "newestMessages": {"at": 9}}, "bodiesSha256": "00",
            "bodies": {"salt": "", "http.requestBody": {"text": "{\"messages\":[{\"role\":\"user\",\"content\":\"Old"}, "http.newestMessages": {"text": "{\"role\":\"user\",\"content\":\"New"}}});
        let shown = |record: &Value| said(record.to_string().as_bytes(), record).into_string();
        let page = shown(&record);
        assert!(page.contains("New") && !page.contains("Old"), "{page}");
        assert!(!page.contains("p class"), "{page}");
        record["http"]["newestMessages"]["truncated"] = true.into();
        let page = shown(&record);
        assert!(
            page.contains("New") && page.contains("longer than what the record keeps"),
            "{page}"
        );
    }

    #[test]
    fn what_was_said_and_deleted_since_is_said_to_be() {
        let mut record = json!({"v": "chaperone.dev/v2", "stream": "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d", "seq": 1, "prev": "00", "time": "2026-11-24T10:11:12.345678Z",
            "kind": "http", "agent": {"namespace": "agents", "pod": "claude"}, "session": {"id": "s"},
            "operation": {"protocol": "http", "verb": "POST", "resource": "https://api.example.com/v1/messages"},
            "http": {"status": 200, "requestBody": {}}, "bodiesSha256": "00",
            "bodies": {"salt": "", "http.requestBody": {"text": json!({"messages": [{"role": "user", "content": "Hello"}]}).to_string()}}});
        let there = said(record.to_string().as_bytes(), &record).into_string();
        assert!(
            there.contains("Hello") && !there.contains("deleted"),
            "{there}"
        );
        record.as_object_mut().unwrap().remove("bodies");
        let gone = said(record.to_string().as_bytes(), &record).into_string();
        assert!(
            gone.contains("Content deleted") && !gone.contains("Hello"),
            "{gone}"
        );
    }
}
