//! A record of a session as lines of text: a function of the record and its place.

use std::fmt::Write as _;

use chaperone_crds::{
    messages::{self, Said},
    record::{BodyInfo, HttpInfo, Record},
    summary::{Verdict, foremost},
};
use chaperone_index::{
    facts::Facts,
    timeline::{Offset, Place, Turn},
};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    observe::render,
    output::{Painted, Style, clean},
};

/// Where texts of a record stand.
const INDENT: &str = "      ";
/// What stands behind a text that went on.
const NO_MORE: &str = " (the record has no more)";

/// How records are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) color: bool,
    /// Characters of each body that are shown.
    pub(super) body_chars: usize,
}

/// The heading of a turn.
pub(super) fn heading(turn: Turn, look: Look) -> String {
    let text = match turn.number {
        0 => "before the first turn".to_owned(),
        number => format!("turn {number}  {}", Offset(turn.at)),
    };
    let heading = Painted {
        text: format_args!("== {text} =="),
        style: Style::Green,
        on: look.color,
    };
    heading.to_string()
}

/// A record: what stands out, when, its line, and what it has of bodies.
pub(super) fn entry(line: &[u8], place: Place, look: Look) -> String {
    let at = Offset(place.at);
    // A record of a later version is shown as it stands.
    let value = serde_json::from_slice::<Value>(line).unwrap_or_default();
    let Ok(record) = Record::deserialize(&value).map(Record::joined) else {
        let text = String::from_utf8_lossy(line);
        return format!("  {at} {}\n", cut(&text, look.body_chars));
    };
    let verdict = foremost(&record);
    let mut out = format!("{} {at} {}\n", mark(verdict), render(&record, look.color));
    let is_turn = Facts::of(&value).is_turn();
    for (name, text) in texts(&record, is_turn, look.body_chars) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{INDENT}{name:<9} {text}");
    }
    out
}

/// What stands out in a text without colours.
pub(super) fn mark(verdict: Option<Verdict>) -> char {
    match verdict {
        Some(Verdict::Deny) => '!',
        Some(Verdict::WouldDeny) => '~',
        Some(Verdict::Gap) => '?',
        Some(Verdict::Allow) | None => ' ',
    }
}

/// What the line does not have: why a rule could not say, what an exchange with a model said, bodies of others.
fn texts(record: &Record, is_turn: bool, chars: usize) -> Vec<(&'static str, String)> {
    let (event, deleted) = (&record.event, record.is_content_deleted());
    let mut texts = Vec::new();
    if let Some(decision) = &event.decision
        && decision.rule.is_some()
        && decision.reason != "rule"
    {
        texts.push(("reason", clean(&decision.reason).into_owned()));
    }
    if chars == 0 {
        return texts;
    }
    let http = event.http.as_ref();
    let request = http.and_then(|http| http.request_body.as_ref());
    let response = http.and_then(|http| http.response_body.as_ref());
    let message = event.message.as_ref().and_then(|m| m.body.as_ref());
    let body = |name, body: Option<&BodyInfo>| Some((name, shown(body?, deleted, chars)));
    match asked(http.filter(|_| is_turn), chars) {
        Some(said) => texts.extend(said),
        None => texts.extend(body("request", request)),
    }
    match said(response, is_turn, |text| {
        all(messages::answered(text), chars)
    }) {
        Some(said) => texts.extend(said),
        None => texts.extend(body("response", response)),
    }
    texts.extend(body("message", message));
    texts
}

type Texts = Vec<(&'static str, String)>;

/// What the model was told last. None where the record does not have it: then what it has of the body is shown.
fn asked(http: Option<&HttpInfo>, chars: usize) -> Option<Texts> {
    let http = http?;
    let mut said = all(messages::asked_in(http)?.ok()?, chars);
    let newest = http.newest_messages.as_ref();
    if newest.is_some_and(|newest| newest.truncated)
        && let Some((_, last)) = said.last_mut()
    {
        last.push_str(NO_MORE);
    }
    Some(said).filter(|said| !said.is_empty())
}

/// What the answer of a turn says. None of others, and where nothing can be read: then the body is shown.
fn said(body: Option<&BodyInfo>, is_turn: bool, read: impl FnOnce(&str) -> Texts) -> Option<Texts> {
    let text = body?.text.as_deref().filter(|_| is_turn)?;
    Some(read(text)).filter(|said| !said.is_empty())
}

fn all(said: Vec<Said>, chars: usize) -> Texts {
    said.iter().map(|said| one(said, chars)).collect()
}

fn one(said: &Said, chars: usize) -> (&'static str, String) {
    match said {
        Said::Prompt(text) => ("prompt", cut(text, chars)),
        Said::Result { text, is_error, .. } => match is_error {
            true => ("failed", cut(text, chars)),
            false => ("result", cut(text, chars)),
        },
        Said::Text(text) => ("says", cut(text, chars)),
        Said::Thinking(text) => ("thinks", cut(text, chars)),
        Said::Call { tool, input, .. } => ("calls", cut(&format!("{tool} {input}"), chars)),
    }
}

fn shown(body: &BodyInfo, deleted: bool, chars: usize) -> String {
    let mut text = match (&body.text, &body.omitted) {
        (Some(text), _) => cut(text, chars),
        (None, Some(why)) => format!("({})", clean(why)),
        (None, None) if deleted => "(content deleted)".to_owned(),
        (None, None) => "(not kept)".to_owned(),
    };
    if body.truncated {
        text.push_str(NO_MORE);
    }
    text
}

/// The beginning of a text on one line, and how much there is besides. White space is one space: bodies are laid out for programs.
pub(super) fn cut(text: &str, chars: usize) -> String {
    let mut begin: String = text.chars().take(chars).collect();
    let more = text.chars().skip(chars).count();
    begin = begin.split_whitespace().collect::<Vec<_>>().join(" ");
    let begin = clean(&begin);
    match more {
        0 => begin.into_owned(),
        more => format!("{begin}… ({more} more characters)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look {
        color: false,
        body_chars: 20,
    };

    fn shown_as(rest: &str) -> String {
        let line = format!(
            r#"{{"v":"chaperone.dev/v1","stream":"s","seq":7,"prev":"00","time":"2026-11-24T10:11:12.345678Z","agent":{{"namespace":"agents","pod":"claude"}},{rest}}}"#
        );
        let turn = Turn::default();
        let at = Some(3_723_004_999);
        entry(line.as_bytes(), Place { at, turn }, LOOK)
    }

    #[test]
    fn a_record_is_its_line_with_bodies_below() {
        let text = shown_as(
            r#""kind":"http","operation":{"protocol":"http","verb":"POST","resource":"https://a/b"},"http":{"status":200,"requestBody":{"text":"{\"mail\":  \"[EMAIL]\"}"},
            "responseBody":{"text":"0123456789012345678901234","truncated":true}},"decision":{"action":"Allow","mode":"Enforce","revision":"00","reason":"default"},"masked":[{"mask":"pii","detector":"email","count":1}]"#,
        );
        let expected = "  +1:02:03.004 10:11:12.345 agents/claude allow      POST https://a/b  200 ↑0 ↓0  masked email×1
      request   {\"mail\": \"[EMAIL]\"}
      response  01234567890123456789… (5 more characters) (the record has no more)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn bodies_of_version_2_are_shown_and_where_they_were_deleted_it_says_so() {
        let rest = r#""kind":"http","operation":{"protocol":"http","verb":"POST","resource":"https://a/b"},"http":{"status":200,"requestBody":{},"responseBody":{"omitted":"binary"}},"bodiesSha256":"00""#;
        let there = shown_as(&format!(
            r#"{rest},"bodies":{{"salt":"","http.requestBody":{{"text":"hello"}}}}"#
        ));
        assert!(
            there.ends_with("\n      request   hello\n      response  (binary)\n"),
            "{there}"
        );
        let gone = shown_as(rest);
        assert!(
            gone.ends_with("\n      request   (content deleted)\n      response  (binary)\n"),
            "{gone}"
        );
    }

    #[test]
    fn a_turn_is_what_was_said() {
        let request = serde_json::json!({"model": "m", "messages": [
            {"role": "user", "content": "Tidy up."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a.txt", "is_error": true}, {"type": "text", "text": "Go on.\u{1b}[2J"}]}]});
        let answer = serde_json::json!({"content": [{"type": "text", "text": "I will do so."}, {"type": "tool_use", "id": "t2", "name": "Bash", "input": {"command": "rm a.txt"}}]});
        let turn = |request: &str, truncated| {
            shown_as(&format!(
                r#""kind":"http","session":{{"id":"s"}},"operation":{{"protocol":"http","verb":"POST","resource":"https://a/v1/messages"}},"http":{{"status":200,"requestBody":{},"responseBody":{}}}"#,
                serde_json::json!({"text": request, "truncated": truncated}),
                serde_json::json!({"text": answer.to_string()}),
            ))
        };
        let text = turn(&request.to_string(), false);
        let (_, said) = text.split_once('\n').unwrap();
        let expected = r#"      failed    a.txt
      prompt    Go on.\u{1b}[2J
      says      I will do so.
      calls     Bash {"command":"rm… (7 more characters)
"#;
        assert_eq!(said, expected);
        // Where the newest message is beyond what the record has, an older one is not shown for it.
        let text = turn(&request.to_string()[..60], true);
        assert!(text.contains("request   "), "{text}");
        assert!(
            text.contains("(the record has no more)\n      says "),
            "{text}"
        );
        let raw = turn("not JSON", false);
        assert!(raw.contains("request   not JSON\n"), "{raw}");
    }

    #[test]
    fn a_turn_whose_request_was_cut_is_what_its_newest_messages_say() {
        let turn = |newest: serde_json::Value| {
            let text = shown_as(&format!(
                r#""kind":"http","session":{{"id":"s"}},"operation":{{"protocol":"http","verb":"POST","resource":"https://a/v1/messages"}},"http":{{"requestBody":{},"newestMessages":{newest}}}"#,
                serde_json::json!({"text": "{\"messages\":[{\"role\":\"user\",\"content\":\"Old", "truncated": true}),
            ));
            text.split_once('\n').unwrap().1.to_owned()
        };
        let result = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"a.txt"}"#;
        let text = format!(r#"{result}]}},{{"role":"user","content":"Go on."}}"#);
        assert_eq!(
            turn(serde_json::json!({"text": text, "at": 70_000})),
            "      result    a.txt\n      prompt    Go on.\n"
        );
        // Of a message that is itself longer than what is kept, its beginning.
        let cut = format!(r#"{result},{{"type":"text","text":"Go o"#);
        assert_eq!(
            turn(serde_json::json!({"text": cut, "at": 70_000, "truncated": true})),
            "      result    a.txt\n      prompt    Go o (the record has no more)\n"
        );
        let gone = turn(serde_json::json!({"at": 70_000}));
        assert!(gone.starts_with("      request   "), "{gone}");
    }

    #[test]
    fn denials_and_gaps_stand_out() {
        let decision = |rest: &str| {
            format!(
                r#""kind":"connection","decision":{{"action":"Deny","mode":"Enforce","revision":"00",{rest}}}"#
            )
        };
        let denied = shown_as(&decision(
            r#""policy":"a/p","rule":"r","reason":"evaluation-error","message":"No.""#,
        ));
        assert!(denied.starts_with("! +1:02:03.004 "), "{denied}");
        assert!(denied.contains("a/p r: No.\n      reason    evaluation-error\n"));
        let by_rule = shown_as(&decision(r#""policy":"a/p","rule":"r","reason":"rule""#));
        assert_eq!(by_rule.lines().count(), 1, "{by_rule}");
        let gap = shown_as(r#""kind":"gap","gap":{"reason":"quic"}"#);
        assert!(gap.starts_with("? "), "{gap}");
    }

    #[test]
    fn nothing_in_a_record_writes_to_the_terminal() {
        let text = shown_as(
            r#""kind":"http","http":{"requestBody":{"text":"\u001b[2J\nDENY\u202e"},"responseBody":{"omitted":"\u001bc"}}"#,
        );
        let has_control = |line: &str| line.contains(|c: char| c.is_control() || c == '\u{202e}');
        assert!(!text.lines().any(has_control), "{text:?}");
        assert_eq!(text.lines().count(), 3);
        let place = Place {
            at: None,
            turn: Turn::default(),
        };
        let later = entry(b"{\"v\":\"x\x1b\"}\xff", place, LOOK);
        assert_eq!(later, "  +-:--:--.--- {\"v\":\"x\\u{1b}\"}\u{fffd}\n");
    }
}
