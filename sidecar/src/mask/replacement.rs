//! What stands in place of a value that a path selects.

use chaperone_crds::detect::{CompiledMasks, Match, Replacement, Tail};

/// What stands in place of a value that a path of this rule selects. Where not all of it is there, or it is no scalar (`whole` is false), it is redacted.
pub(super) fn of_field(
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
    match replacement {
        Replacement::Text(text) if !bare => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        other => out.extend_from_slice(&other.as_json_value()),
    }
}
