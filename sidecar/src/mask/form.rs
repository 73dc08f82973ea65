//! Forms (`application/x-www-form-urlencoded`): fields that paths select are replaced whole.
//!
//! A path's first step names a field, so `$.password` and `$["user[password]"]` select one, `$.*` all. What takes a value's place is percent-encoded.

use std::sync::Arc;

use chaperone_crds::detect::{Child, CompiledMasks, MAX_FIELD_BYTES, Places, Replacement};

use super::replacement::of_field;

/// Most bytes of a name as written that are kept: the longest that a path has, all of it as `%XX`. A longer one is none of them.
const MAX_NAME_BYTES: usize = 3 * MAX_FIELD_BYTES;
/// Most bytes of a selected value that are kept for what takes its place. Longer ones are redacted.
const MAX_CAPTURED_BYTES: usize = 4096;

/// Follows a form.
#[derive(Debug)]
pub(super) struct Form {
    masks: Arc<CompiledMasks>,
    start: Places,
    name: Vec<u8>,
    in_value: bool,
    selected: Option<(usize, Vec<u8>)>,
    /// Rules whose paths selected a value that was replaced.
    pub(super) replaced: Vec<usize>,
}

impl Form {
    pub(super) fn new(masks: Arc<CompiledMasks>) -> Self {
        Self {
            start: masks.fields().start(),
            masks,
            name: Vec::new(),
            in_value: false,
            selected: None,
            replaced: Vec::new(),
        }
    }

    /// Takes text. `shown`: it passes; else it belongs to a match that was replaced.
    pub(super) fn feed(&mut self, bytes: &[u8], shown: bool, out: &mut Vec<u8>) {
        for &byte in bytes {
            match byte {
                b'&' => {
                    self.end(out);
                    self.name.clear();
                    self.in_value = false;
                }
                b'=' if !self.in_value => {
                    self.in_value = true;
                    self.select();
                    if shown {
                        out.push(byte);
                    }
                    continue;
                }
                _ if self.in_value => {}
                _ if self.name.len() <= MAX_NAME_BYTES => self.name.push(byte),
                _ => {}
            }
            match &mut self.selected {
                Some((_, content)) if content.len() <= MAX_CAPTURED_BYTES => content.push(byte),
                None if shown => out.push(byte),
                _ => {}
            }
        }
    }

    /// Takes a match. False: it is inside a selected value, which is replaced whole.
    pub(super) fn found(
        &mut self,
        replacement: &Replacement,
        found: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let counts = self.selected.is_none();
        if counts {
            percent_encode(replacement.as_text(), out);
        }
        self.feed(found, false, out);
        counts
    }

    /// Ends the form.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.end(out);
        self.name.clear();
        self.in_value = false;
    }

    /// Ends a field.
    fn end(&mut self, out: &mut Vec<u8>) {
        let Some((rule, content)) = self.selected.take() else {
            return;
        };
        let whole = content.len() <= MAX_CAPTURED_BYTES;
        let replacement = of_field(&self.masks, rule, &content, whole);
        percent_encode(replacement.as_text(), out);
        self.replaced.push(rule);
    }

    fn select(&mut self) {
        let name = (self.name.len() <= MAX_NAME_BYTES).then(|| percent_decode(&self.name));
        let child = Child::Member(name.as_deref());
        let (_, rule) = self.masks.fields().child(&self.start, child);
        self.selected = rule.map(|rule| (rule, Vec::new()));
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let hex = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, behind @ ..]) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = behind;
                }
                _ => decoded.push(byte),
            },
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// What a value may hold as it is (the URL standard's percent-encode set of forms), and `%`, which stands in what was encoded already.
pub(super) fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'*' | b'-' | b'.' | b'_' | b'%' | b'+' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}
