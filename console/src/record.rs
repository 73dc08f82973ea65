//! One record: what was sent and what came back side by side, and why it was decided so.

use std::collections::BTreeMap;

use chaperone_crds::record::{BodyInfo, DecisionInfo, Event, NewestInfo, Outcome, Record};
use maud::{Markup, html};
use serde_json::Value;

use crate::{
    Extent, Shown,
    entry::{kind, verdict_mark, what},
    frame::{Frame, Page, Place, page},
    link,
    text::{block, inline, plain},
};

/// Characters of a body or of a line that are shown.
const BODY_CHARS: usize = 64 * 1024;
/// Characters of a field.
const FIELD_CHARS: usize = 4096;
/// Header fields of a message that are shown.
const HEADERS: usize = 200;

/// The rule that decided, as far as it can be known.
#[derive(Clone, Debug)]
pub enum Rule<'a> {
    /// No policy decided.
    None,
    /// It is not shown: why, in a sentence.
    Unknown(&'a str),
    /// What the cluster has under that name now.
    Found(RuleText<'a>),
}

/// A rule's text.
#[derive(Clone, Debug)]
pub struct RuleText<'a> {
    /// The rule as YAML.
    pub yaml: &'a str,
    /// Its CEL expression.
    pub when: Option<&'a str>,
    /// Generation of the policy as the cluster has it now, whose text this is. None: it is the text that was in force, out of the stream's own record.
    pub now: Option<i64>,
    /// Generation of the policy that was in force, as the stream's record of its policies says. None: no such record was found.
    pub then: Option<i64>,
}

/// What the page shows.
#[derive(Clone, Debug)]
pub struct RecordPage<'a> {
    /// The record.
    pub shown: Shown<'a>,
    /// How far the answer looks.
    pub extent: &'a Extent,
    /// The rule that decided.
    pub rule: Rule<'a>,
}

/// The page of a record.
#[must_use]
pub fn record(frame: &Frame<'_>, this: &RecordPage<'_>) -> String {
    let shown = &this.shown;
    let title = format!("Record {} of {}", shown.seq, plain(shown.stream, 40));
    let content = html! {
        @match Record::read(shown.line) {
            Ok(record) => (known(&record, this)),
            Err(_) => p { "This version of the console does not know this record's form; it is shown as it stands." },
        }
        (place(this))
        (proof(frame.origin, shown))
        h2 { "The record as it stands" }
        p { a href=(beside(shown, "raw")) download { "Download it" } ", byte for byte, without its newline. It is hashed without " code { "bodies" } ", the texts that may be deleted." }
        (block(&String::from_utf8_lossy(shown.line), BODY_CHARS))
    };
    let this = Page {
        title: &title,
        place: Place::Records,
        script: Some("verify.js"),
        content,
    };
    page(frame, &this)
}

/// What belongs to a record: `raw`, `proof`.
fn beside(shown: &Shown<'_>, what: &str) -> String {
    let page = format!("records/{}/{}/{what}", shown.stream, shown.seq);
    link::to(&page, &[("namespace", shown.namespace)])
}

/// What checks the record's proof. The words say against what: a script that the ledger itself serves can prove nothing to who does not trust the ledger.
fn proof(origin: &str, shown: &Shown<'_>) -> Markup {
    html! {
        h2 { "Proof" }
        p { a href=(beside(shown, "proof")) download { "Download the proof" } " that this record is in the log (C2SP tlog-proof)." }
        noscript { p.note { "Checking it here needs a script; " code { "chaperone verify" } " needs none." } }
        section #verify aria-label="Check the proof" hidden data-raw=(beside(shown, "raw")) data-proof=(beside(shown, "proof")) data-stream=(shown.stream) data-seq=(shown.seq) data-origin=(origin) {
            form.stack {
                label for="vkey" { "The log's public key" }
                p.hint #vkey-hint { "From somebody else than this ledger: its operator gives it to auditors. It stays in this browser. Without it the signature is not checked." }
                input #vkey name="vkey" spellcheck="false" autocomplete="off" aria-describedby="vkey-hint";
                button type="submit" { "Verify in this browser" }
            }
            div role="status" {
                p #verify-verdict {}
                ol #verify-steps {}
            }
            p.note { "It is checked by this page's script, which the ledger serves: good against an edit of the disk and against mistakes, not against a ledger that lies on purpose. Against that, " code { "chaperone verify" } " with the key." }
        }
    }
}

fn known(record: &Record, this: &RecordPage<'_>) -> Markup {
    let event = &record.event;
    html! {
        p.lead { (verdict_mark(record)) " " (inline(&what(record), FIELD_CHARS)) }
        @if let Some(error) = &event.error { p.error { "Error: " (inline(error, FIELD_CHARS)) } }
        @if let Some(decision) = &event.decision { (decided(decision, &this.rule)) }
        (exchange(event, record.is_content_deleted()))
        @if !event.masked.is_empty() { (masked(event)) }
        h2 { "Facts" }
        (facts(record, this.shown.line))
    }
}

fn decided(decision: &DecisionInfo, rule: &Rule<'_>) -> Markup {
    let action = match (decision.action, decision.would_deny) {
        (Outcome::Deny, _) => "Denied",
        (Outcome::Allow, true) => "Allowed; in Enforce it would have been denied",
        (Outcome::Allow, false) => "Allowed",
    };
    let cell = |name: &str, value: Option<&str>| {
        html! { @if let Some(value) = value { div { dt { (name) } dd { (inline(value, FIELD_CHARS)) } } } }
    };
    let mode = format!("{:?}", decision.mode);
    html! {
        section aria-labelledby="decision" {
            h2 #decision { "Decision" }
            dl.facts {
                (cell("Outcome", Some(action)))
                (cell("Policy", Some(decision.policy.as_deref().unwrap_or("none: the default, or a rule that is built in"))))
                (cell("Rule", decision.rule.as_deref()))
                (cell("Reason", Some(&decision.reason)))
                (cell("The agent was told", decision.message.as_deref()))
                (cell("Mode", Some(&mode)))
                (cell("Revision of the policies", Some(&decision.revision.to_string())))
            }
            @match rule {
                Rule::None => {}
                Rule::Unknown(why) => p.note { "The rule's text is not shown: " (inline(why, FIELD_CHARS)) },
                Rule::Found(text) => (rule_text(text)),
            }
        }
    }
}

fn rule_text(text: &RuleText<'_>) -> Markup {
    html! {
        h3 { "The rule" }
        @match (text.now, text.then) {
            (None, then) => p.note { "As it was in force" @if let Some(then) = then { ": generation " (then) } ", out of the stream's own record of its policies, whose revision the decision names." },
            (Some(now), Some(then)) if then == now => p.note { "As the cluster has it now: generation " (now) ", which was in force then. Deleting a policy and making another of its name starts generations anew." },
            (Some(now), Some(then)) => p.note.warn { strong { "The policy was changed since. " } "In force was generation " (then) "; this is generation " (now) "." },
            (Some(now), None) => p.note.warn { "As the cluster has it now, generation " (now) ". Which was in force then is not known: the stream's record of it was not found." },
        }
        @if let Some(when) = text.when { h4 { "When (CEL)" } (block(when, BODY_CHARS)) }
        details { summary { "The whole rule" } (block(text.yaml, BODY_CHARS)) }
    }
}

/// Request and response beside each other, where the record has them. `deleted`: their texts are gone.
fn exchange(event: &Event, deleted: bool) -> Markup {
    if let Some(http) = &event.http {
        let status = http
            .status
            .map_or("no answer reached the agent".to_owned(), |s| s.to_string());
        let (sent, received) = (http.request_bytes, http.response_bytes);
        return html! {
            div.pair {
                (message("Request", &format!("{sent} bytes of body"), http.request_headers.as_ref(), http.request_body.as_ref(), deleted))
                (message("Response", &format!("{status}, {received} bytes of body from the server"), http.response_headers.as_ref(), http.response_body.as_ref(), deleted))
            }
            @if let Some(told) = &http.newest_messages { (newest(told, deleted)) }
        };
    }
    if let Some(told) = &event.message {
        let name = match event.operation.as_ref().map(|o| o.verb.as_str()) {
            Some("send") => "Message from the agent",
            _ => "Message to the agent",
        };
        return message(
            name,
            &format!("{} bytes", told.bytes),
            None,
            told.body.as_ref(),
            deleted,
        );
    }
    html! {}
}

/// Of a request to a model that was cut, what the model was told last.
fn newest(told: &NewestInfo, deleted: bool) -> Markup {
    html! {
        section aria-labelledby="newest" {
            h2 #newest { "Newest messages of the request" }
            p { "They begin at byte " (told.at) " of its body, as masked." }
            @match &told.text {
                Some(text) => (block(text, BODY_CHARS)),
                None if deleted => p.note { strong { "Content deleted." } },
                None => p { "Not kept." },
            }
            @if told.truncated { p.note { "They were longer; the record has no more of them." } }
        }
    }
}

fn message(
    name: &str,
    about: &str,
    headers: Option<&BTreeMap<String, String>>,
    body: Option<&BodyInfo>,
    deleted: bool,
) -> Markup {
    let id = name.to_lowercase().replace(' ', "-");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (name) }
            p { (about) }
            @match headers {
                None => p.note { "The record has no header fields: the audit level did not ask for them." },
                Some(headers) => table.headers {
                    caption { "Header fields" }
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
                    tbody {
                        @for (name, value) in headers.iter().take(HEADERS) {
                            tr { th scope="row" { (inline(name, FIELD_CHARS)) } td { (inline(value, FIELD_CHARS)) } }
                        }
                    }
                },
            }
            h3 { "Body" }
            @match body {
                None => p.note { "The record has no body." },
                Some(body) => {
                    @match (&body.text, &body.omitted) {
                        (Some(text), _) => (block(text, BODY_CHARS)),
                        (None, Some(why)) => p { "Not kept: " (inline(why, FIELD_CHARS)) },
                        (None, None) if deleted => p.note { strong { "Content deleted. " } "The record had a text here, which was deleted since. The rest of it is as it was written, and still proved; " code { "bodiesSha256" } " is what a copy of the text must have." },
                        (None, None) => p { "Not kept." },
                    }
                    @if body.truncated { p.note { "The body was longer; the record has no more of it." } }
                }
            }
        }
    }
}

fn masked(event: &Event) -> Markup {
    html! {
        section aria-labelledby="masked" {
            h2 #masked { "Masked" }
            p.note { "What was found and replaced before the record was written: the values are not in the ledger. " mark.mask { "Marks" } " in the texts above are found by their form, which an agent can write too; these are the numbers." }
            table {
                caption { "What was masked" }
                thead { tr { th scope="col" { "Mask" } th scope="col" { "Detector" } th.number scope="col" { "Times" } } }
                tbody {
                    @for found in &event.masked {
                        tr { th scope="row" { (inline(&found.mask, FIELD_CHARS)) } td { (inline(&found.detector, FIELD_CHARS)) } td.number { (found.count) } }
                    }
                }
            }
        }
    }
}

/// Members that are shown elsewhere on the page, or stand for its place.
const ELSEWHERE: [&str; 9] = [
    "v", "stream", "seq", "prev", "kind", "decision", "masked", "error", "bodies",
];
/// The same within `http`.
const LONG: [&str; 7] = [
    "requestHeaders",
    "requestBody",
    "newestMessages",
    "responseHeaders",
    "responseBody",
    "body",
    "text",
];
/// Facts of a record that are shown, and how deep they are looked for: the format has five levels.
const MAX_FACTS: usize = 200;
const MAX_DEPTH: usize = 6;

/// All else that the record says, also what this version does not know.
fn facts(record: &Record, line: &[u8]) -> Markup {
    let mut found = vec![("kind".to_owned(), kind(record))];
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    if let Value::Object(fields) = &value {
        for (name, value) in fields
            .iter()
            .filter(|(n, _)| !ELSEWHERE.contains(&n.as_str()))
        {
            walk(name, value, MAX_DEPTH, &mut found);
        }
    }
    html! {
        dl.facts {
            @for (name, value) in &found { div { dt { (plain(name, 200)) } dd { (inline(value, FIELD_CHARS)) } } }
        }
    }
}

fn walk(path: &str, value: &Value, depth: usize, found: &mut Vec<(String, String)>) {
    if depth == 0 || found.len() >= MAX_FACTS {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(n, _)| !LONG.contains(&n.as_str())) {
                walk(&format!("{path}.{name}"), value, depth - 1, found);
            }
        }
        Value::Array(values) if values.iter().all(Value::is_string) => {
            let words: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            found.push((path.to_owned(), words.join(", ")));
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                walk(&format!("{path}[{number}]"), value, depth - 1, found);
            }
        }
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        other => found.push((path.to_owned(), other.to_string())),
    }
}

/// Where it stands in stream and log.
fn place(this: &RecordPage<'_>) -> Markup {
    let shown = &this.shown;
    let at = |seq: u64| link::record(shown.stream, seq, shown.namespace);
    let stream = link::to(
        "session",
        &[
            ("id", shown.stream),
            ("namespace", shown.namespace),
            ("kind", "stream"),
        ],
    );
    html! {
        h2 { "Place" }
        dl.facts {
            div { dt { "Stream" } dd { a href=(stream) { code { (plain(shown.stream, 100)) } } } }
            div { dt { "Number in the stream" } dd { (shown.seq) } }
            div { dt { "Leaf of the log" } dd { (shown.leaf) ", of the first " (this.extent.indexed) " of " (this.extent.committed) } }
            div { dt { "Namespace" } dd { (inline(shown.namespace, FIELD_CHARS)) } }
        }
        nav aria-label="Neighbours in the stream" {
            @if let Some(before) = shown.seq.checked_sub(1) { a rel="prev" href=(at(before)) { "Record " (before) } " " }
            a rel="next" href=(at(shown.seq.saturating_add(1))) { "Record " (shown.seq.saturating_add(1)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_was_deleted_is_said_to_be_and_the_rest_is_shown() {
        let mut line = json!({"v": "chaperone.dev/v2", "stream": "s", "seq": 1, "prev": "00", "time": "t", "kind": "http", "agent": {"namespace": "a", "pod": "p"},
            "http": {"status": 200, "requestHeaders": {"accept": "text/html"}, "requestBody": {}, "newestMessages": {"at": 7}, "responseBody": {"omitted": "binary"}}, "bodiesSha256": "5e5e",
            "bodies": {"salt": "5a5a", "http.requestBody": {"text": "said <b>"}, "http.newestMessages": {"text": "told <i>"}}});
        let shown = |line: &Value| {
            let bytes = line.to_string();
            let record = Record::read(bytes.as_bytes()).unwrap();
            let deleted = record.is_content_deleted();
            let page = exchange(&record.event, deleted).into_string();
            page + &facts(&record, bytes.as_bytes()).into_string()
        };
        let there = shown(&line);
        assert!(there.contains("said &lt;b&gt;") && there.contains("5e5e"));
        assert!(there.contains("told &lt;i&gt;") && there.contains("begin at byte 7"));
        assert!(!there.contains("Content deleted") && !there.contains("5a5a"));
        line.as_object_mut().unwrap().remove("bodies");
        let gone = shown(&line);
        assert_eq!(gone.matches("Content deleted").count(), 2, "{gone}");
        assert!(
            gone.contains("text/html")
                && gone.contains("Not kept: ")
                && !gone.contains("said")
                && !gone.contains("told")
        );
    }
}
