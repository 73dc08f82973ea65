//! CloudEvents 1.0 in structured mode, JSON (cloudevents/spec v1.0.2, "JSON Event Format").

use std::fmt::Write as _;

use super::{
    object,
    parts::{Fields, id, time},
};
use crate::record::Record;

/// How every event begins.
pub(super) const BEGINNING: &str = "{\"specversion\":\"1.0\"";
/// Longest `subject`, in characters. Intermediaries must pass events of 64 KiB, and headers of some protocols are far shorter; the record has the whole.
const SUBJECT_CHARS: usize = 1024;

/// `data` comes last and is the record's line, byte for byte.
pub(super) fn render(record: &Record, line: &str) -> String {
    let agent = &record.event.agent;
    let mut fields = Fields::default();
    fields
        .put("id", id(record))
        .put(
            "source",
            format!(
                "/apis/v1/namespaces/{}/pods/{}",
                segment(&agent.namespace),
                segment(&agent.pod)
            ),
        )
        .put(
            "type",
            format!("dev.chaperone.{}", record.event.kind.as_str()),
        )
        .maybe("subject", subject(record))
        .maybe("time", time(record).map(|_| record.time.clone()))
        .put("datacontenttype", "application/json");
    object(BEGINNING, fields.0, Some(("data", line)))
}

/// What the operation was about. An attribute must not be empty, nor hold control characters or noncharacters.
fn subject(record: &Record) -> Option<String> {
    let operation = record.event.operation.as_ref()?;
    let text = operation.resource.chars().take(SUBJECT_CHARS);
    let text: String = text
        .map(|c| {
            if is_allowed(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect();
    (!text.is_empty()).then_some(text)
}

/// CloudEvents 1.0, "Type System", String.
fn is_allowed(c: char) -> bool {
    let code = u32::from(c);
    !c.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

/// A segment of a path, percent-encoded (RFC 3986 §3.3).
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
