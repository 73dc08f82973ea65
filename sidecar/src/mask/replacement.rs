//! What stands in place of a value that a path selects.

use chaperone_crds::detect::{CompiledMasks, Match, Replacement, Tail};

/// What stands in place of a value that a path of this rule selects. Where not all of it is there, or it is no scalar (`whole` is false), it is redacted.
pub(crate) fn of_field(
    masks: &CompiledMasks,
    rule: usize,
    content: &[u8],
    whole: bool,
) -> Replacement {
    let found = Match {
        start: 0,
        end: content.len(),
        rule,
        tail: if whole { Tail::Closed } else { Tail::Token },
    };
    masks.replacement(&found, content)
}

/// Writes the JSON value that takes the place of a whole one. `bare`: of a number or a word, which may become another number.
pub(super) fn write_json(replacement: &Replacement, bare: bool, out: &mut Vec<u8>) {
    let value = replacement.as_json_value();
    match replacement {
        Replacement::Text(text) if !(bare && value == *text) => {
            out.push(b'"');
            write_in_string(replacement, out);
            out.push(b'"');
        }
        _ => out.extend_from_slice(&value),
    }
}

/// Writes what takes the place of a match inside a JSON string. A token may stand for a value from a text that was no JSON: what would end the string is escaped.
pub(super) fn write_in_string(replacement: &Replacement, out: &mut Vec<u8>) {
    let text = replacement.as_text();
    let plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
    if text.iter().all(plain) {
        return out.extend_from_slice(text);
    }
    let quoted = [b"\"", text, b"\""].concat();
    if serde_json::from_slice::<serde::de::IgnoredAny>(&quoted).is_ok() {
        return out.extend_from_slice(text);
    }
    let escaped = serde_json::Value::from(String::from_utf8_lossy(text)).to_string();
    let inner = escaped
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    out.extend_from_slice(inner.unwrap_or_default().as_bytes());
}
