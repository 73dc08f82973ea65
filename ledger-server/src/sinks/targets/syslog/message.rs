//! Records as messages of RFC 5424, each with its length before it (RFC 5425 section 4.3).

use jiff::Timestamp;

use crate::sinks::target::{Outgoing, Severity};

/// Longest HOSTNAME, PROCID and MSGID, in bytes (RFC 5424 section 6).
const MAX_HOSTNAME: usize = 255;
const MAX_PROCID: usize = 128;
const MAX_MSGID: usize = 32;

/// All messages of a batch, framed.
pub(super) fn frames(batch: &[Outgoing], facility: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for record in batch {
        let message = message(record, facility);
        out.extend_from_slice(message.len().to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(message.as_bytes());
    }
    out
}

/// PROCID is the stream: a change of it says that what came before is another's. MSG has no byte order mark, which readers of JSON would stumble over.
fn message(record: &Outgoing, facility: u8) -> String {
    let about = &record.about;
    let severity = match about.severity() {
        Severity::Informational => 6,
        Severity::Notice => 5,
        Severity::Warning => 4,
    };
    let priority = u16::from(facility)
        .saturating_mul(8)
        .saturating_add(severity);
    let time = about.time.parse::<Timestamp>();
    let time = time.map_or("-".to_owned(), |time| format!("{time:.6}"));
    let host = field(&about.agent.pod, MAX_HOSTNAME);
    let stream = field(&about.stream, MAX_PROCID);
    let kind = field(&about.kind, MAX_MSGID);
    let line = &record.line;
    format!("<{priority}>1 {time} {host} chaperone {stream} {kind} - {line}")
}

/// What a header's field may have: visible ASCII, and `-` where there is nothing.
fn field(text: &str, most: usize) -> String {
    let visible: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    match visible.is_empty() {
        true => "-".to_owned(),
        false => visible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str) -> Outgoing {
        Outgoing {
            leaf: 1,
            about: serde_json::from_str(line).unwrap(),
            line: line.to_owned(),
        }
    }

    #[test]
    fn a_record_is_one_framed_message_whatever_it_says() {
        let denied = r#"{"stream":"7d9f","kind":"http","time":"2026-11-29T10:00:00.5Z","agent":{"pod":"coder-1"},"decision":{"action":"Deny"}}"#;
        let framed = frames(&[record(denied), record("{}")], 13);
        let first =
            format!("<108>1 2026-11-29T10:00:00.500000Z coder-1 chaperone 7d9f http - {denied}");
        let second = "<110>1 - - chaperone - - - {}";
        let expected = format!("{} {first}{} {second}", first.len(), second.len());
        assert_eq!(String::from_utf8(framed).unwrap(), expected);
    }

    #[test]
    fn no_field_of_a_header_can_be_broken_out_of() {
        let strange = r#"{"stream":"a b\n<1>","kind":"ü","time":"soon","agent":{"pod":"x y\tz"}}"#;
        let framed = frames(&[record(strange)], 23);
        let text = String::from_utf8(framed).unwrap();
        let (_, message) = text.split_once(' ').unwrap();
        assert!(
            message.starts_with("<190>1 - xyz chaperone ab<1> - - {"),
            "{message}"
        );
        let long = format!(r#"{{"kind":"{}"}}"#, "k".repeat(99));
        let text = String::from_utf8(frames(&[record(&long)], 0)).unwrap();
        assert!(text.contains(&format!(" {} - ", "k".repeat(32))), "{text}");
    }
}
