//! JSON on its way through a mask: what is replaced stays JSON, and values that paths select are replaced whole.
//!
//! Owns the place in the document at each byte, and what has to wait for it: a number until its end (a replaced one becomes a string), the content of a selected value.
//! Takes the text as the search for matches has cut it: runs that pass, matches, and what belongs to matches beyond their end. Refuses to judge documents: what is no JSON,
//! or nested deeper than [`MAX_DEPTH`], passes as text, with its matches replaced, to the end of the document.
//!
//! Invariant: every byte of the text comes out, or is part of a match or of a selected value. The output depends on the text alone, not on how it was cut. A selected value
//! that never ends, or turns out to be no JSON, stays inside.

mod bare;
mod place;

use std::sync::Arc;

use chaperone_crds::detect::{CompiledMasks, Replacement};

use self::{
    bare::Bare,
    place::{Kind, Place},
};
use super::replacement::{of_field, write_in_string, write_json};

/// Deepest nesting that is followed; `serde_json` and most parsers stop at 128 or earlier.
pub const MAX_DEPTH: usize = 256;
/// Most bytes of a selected value that are kept for what takes its place: the longest that a token or hash is made of, with room for escapes. Longer ones are redacted.
const MAX_CAPTURED_BYTES: usize = 4096;

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The beginning of a document, or white space before it.
    Start,
    /// A line before a document that keeps browsers from running it: `)]}'`.
    Guard,
    /// A value.
    Value,
    /// A value, or the end of the array.
    FirstValue,
    /// A name.
    Name,
    /// A name, or the end of the object.
    FirstName,
    /// The colon after a name.
    Colon,
    /// A comma, or the end of the object or array.
    After,
    /// Inside a string.
    Text { name: bool, escaped: bool },
    /// Inside a number or a word.
    Bare,
    /// It is no JSON: text up to the end of the document.
    Lost,
}

/// A value that a path selects, on its way.
#[derive(Debug)]
struct Selected {
    rule: usize,
    /// Containers around it.
    depth: usize,
    kind: Kind,
    content: Vec<u8>,
    /// Whether `content` is all of it.
    whole: bool,
}

/// Follows JSON.
#[derive(Debug)]
pub(super) struct Json {
    masks: Arc<CompiledMasks>,
    /// Whether a document begins with `{` or `[`: elsewhere a lone number is more likely text.
    structured: bool,
    state: State,
    place: Place,
    bare: Bare,
    selected: Option<Selected>,
    /// Rules whose paths selected a value that was replaced since they were last asked for.
    replaced: Vec<usize>,
}

impl Json {
    pub(super) fn new(masks: Arc<CompiledMasks>, structured: bool) -> Self {
        Self {
            place: Place::new(&masks),
            masks,
            structured,
            state: State::Start,
            bare: Bare::default(),
            selected: None,
            replaced: Vec::new(),
        }
    }

    /// Rules whose paths selected a value that was replaced.
    pub(super) fn take_replaced(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.replaced)
    }

    /// Takes text. `shown`: it passes; else it belongs to a match that was replaced, or is not part of the text as written.
    pub(super) fn feed(&mut self, mut bytes: &[u8], shown: bool, out: &mut Vec<u8>) {
        while let Some((&first, rest)) = bytes.split_first() {
            let run = self.run(bytes);
            if run > 0 {
                let (run, rest) = bytes.split_at_checked(run).unwrap_or((bytes, b""));
                self.put(run, shown, out);
                bytes = rest;
            } else {
                self.byte(first, shown, out);
                bytes = rest;
            }
        }
    }

    /// Takes a match and puts `replacement` in its place. False: it is inside a selected value, which is replaced whole.
    pub(super) fn found(
        &mut self,
        replacement: &Replacement,
        found: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let (first, rest) = found.split_at_checked(1).unwrap_or_default();
        // The first byte tells whether the match begins inside a string, a number, or between.
        self.feed(first, false, out);
        let counts = self.selected.is_none();
        if counts && self.state == State::Bare {
            self.bare.replaced(replacement, out);
        } else if counts && matches!(self.state, State::Text { .. }) {
            write_in_string(replacement, out);
        } else if counts {
            out.extend_from_slice(replacement.as_text());
        }
        self.feed(rest, false, out);
        counts
    }

    /// Ends the document, complete or not; another one follows.
    pub(super) fn end_document(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Bare {
            self.end_bare(out);
        }
        if let Some(selected) = self.selected.take() {
            self.replace(selected, false, out);
        }
        self.place.clear();
        self.state = State::Start;
    }

    /// How many of the next bytes change nothing but the place they go to.
    fn run(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Text {
                escaped: false,
                name: false,
            } => memchr::memchr3(b'"', b'\\', SEPARATOR, bytes).unwrap_or(bytes.len()),
            State::Lost => memchr::memchr(SEPARATOR, bytes).unwrap_or(bytes.len()),
            _ => 0,
        }
    }

    fn byte(&mut self, byte: u8, shown: bool, out: &mut Vec<u8>) {
        if byte == SEPARATOR {
            self.end_document(out);
            return self.put(&[byte], shown, out);
        }
        if self.state == State::Bare && !bare::is_bare(byte) {
            self.end_bare(out);
        }
        match self.state {
            State::Text { name, escaped } => self.text_byte(byte, name, escaped, shown, out),
            State::Bare | State::Lost => self.put(&[byte], shown, out),
            State::Guard => {
                if byte == b'\n' {
                    self.state = State::Start;
                }
                self.put(&[byte], shown, out);
            }
            _ if is_space(byte) => self.put(&[byte], shown, out),
            // A byte order mark.
            State::Start if matches!(byte, 0xef | 0xbb | 0xbf) => self.put(&[byte], shown, out),
            State::Start if byte == b')' => {
                self.state = State::Guard;
                self.put(&[byte], shown, out);
            }
            _ => self.structure(byte, shown, out),
        }
    }

    fn text_byte(&mut self, byte: u8, name: bool, escaped: bool, shown: bool, out: &mut Vec<u8>) {
        self.put(&[byte], shown, out);
        if byte == b'"' && !escaped {
            if name {
                self.place.end_name();
                self.state = State::Colon;
            } else {
                self.end_value(out);
            }
            return;
        }
        if name {
            self.place.name(byte);
        }
        self.state = State::Text {
            name,
            escaped: byte == b'\\' && !escaped,
        };
    }

    /// A byte between values.
    fn structure(&mut self, byte: u8, shown: bool, out: &mut Vec<u8>) {
        match (self.state, byte) {
            (State::FirstValue, b']') | (State::FirstName, b'}') => {
                return self.close(byte, shown, out);
            }
            (State::After, b']' | b'}') => return self.close(byte, shown, out),
            (State::After, b',') => {
                self.state = match self.place.innermost() {
                    Some(Kind::Array) => State::Value,
                    _ => State::Name,
                };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Name | State::FirstName, b'"') => {
                self.place.begin_name();
                self.state = State::Text {
                    name: true,
                    escaped: false,
                };
            }
            (State::Start, b'{' | b'[') | (State::Value | State::FirstValue, _) => {
                return self.begin(byte, shown, out);
            }
            (State::Start, _) if !self.structured => return self.begin(byte, shown, out),
            _ => self.state = State::Lost,
        }
        self.put(&[byte], shown, out);
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8, shown: bool, out: &mut Vec<u8>) {
        let kind = match byte {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::Text,
            _ if bare::begins(byte) => Kind::Bare,
            _ => {
                self.state = State::Lost;
                return self.put(&[byte], shown, out);
            }
        };
        let depth = self.place.depth();
        let rule = self
            .place
            .enter(self.masks.fields(), kind, self.selected.is_some());
        if let Some(rule) = rule {
            self.selected = Some(Selected {
                rule,
                depth,
                kind,
                content: Vec::new(),
                whole: true,
            });
        }
        self.state = match kind {
            Kind::Object => State::FirstName,
            Kind::Array => State::FirstValue,
            Kind::Bare => State::Bare,
            Kind::Text => State::Text {
                name: false,
                escaped: false,
            },
        };
        if self.place.depth() > MAX_DEPTH {
            self.state = State::Lost;
        }
        self.put(&[byte], shown, out);
    }

    fn close(&mut self, byte: u8, shown: bool, out: &mut Vec<u8>) {
        let closes = if byte == b']' {
            Kind::Array
        } else {
            Kind::Object
        };
        self.put(&[byte], shown, out);
        if self.place.innermost() != Some(closes) {
            self.state = State::Lost;
            return;
        }
        self.place.leave();
        self.end_value(out);
    }

    fn end_bare(&mut self, out: &mut Vec<u8>) {
        if self.selected.is_none() {
            self.bare.end(out);
        }
        self.end_value(out);
    }

    fn end_value(&mut self, out: &mut Vec<u8>) {
        self.state = match self.place.depth() {
            0 => State::Start,
            _ => State::After,
        };
        let depth = self.place.depth();
        if let Some(selected) = self.selected.take_if(|selected| selected.depth == depth) {
            self.replace(selected, true, out);
        }
    }

    /// Writes what takes the place of a selected value. `ended`: all of it is there.
    fn replace(&mut self, selected: Selected, ended: bool, out: &mut Vec<u8>) {
        if selected.content == b"null" && ended && selected.kind == Kind::Bare {
            out.extend_from_slice(b"null");
            return;
        }
        let scalar = matches!(selected.kind, Kind::Text | Kind::Bare);
        let content = match selected.kind {
            Kind::Text => {
                let inner = selected.content.strip_prefix(b"\"").unwrap_or_default();
                inner.strip_suffix(b"\"").unwrap_or(inner)
            }
            _ => &selected.content,
        };
        let whole = selected.whole && ended && scalar;
        let replacement = of_field(&self.masks, selected.rule, content, whole);
        write_json(&replacement, selected.kind == Kind::Bare, out);
        self.replaced.push(selected.rule);
    }

    /// Sends bytes where they belong: into the selected value, the number that is waited for, or out.
    fn put(&mut self, bytes: &[u8], shown: bool, out: &mut Vec<u8>) {
        if let Some(selected) = &mut self.selected {
            let room = MAX_CAPTURED_BYTES.saturating_sub(selected.content.len());
            selected.whole &= bytes.len() <= room;
            let kept = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            selected.content.extend_from_slice(kept);
        } else if !shown {
        } else if self.state == State::Bare {
            self.bare.put(bytes, out);
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

/// Begins each document of a JSON sequence (RFC 7464 §2.2); no string holds it unescaped.
const SEPARATOR: u8 = 0x1e;

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
