//! The newest messages of a conversation, found in a request as it streams by: those since the model's last answer, wherever in the request they are and however long it is. Messages of the role `system`, which set the scene, are none.
//!
//! Owns finding and keeping them. Refuses to say whether the request is JSON: of one that is not, something or nothing is kept, and a model takes none of it. Invariant: what is kept depends on the bytes alone, not on how
//! they were cut, and of a request that is JSON it is what a parser of all of it finds; memory is bounded by the limit and [`MAX_MESSAGES`], and no byte is looked at twice.

use memchr::memchr2;

use super::kept::{Kept, Role};

/// Most messages that are kept: since its last answer a model is told one, or a few.
pub const MAX_MESSAGES: usize = 64;
/// Longest name or role that is told from others, in bytes as it is written: `assistant` with each letter escaped has 54.
const MAX_WORD_BYTES: usize = 64;

/// Depth within the request, and within the list of its messages.
const REQUEST: u64 = 1;
const LIST: u64 = 2;
const MESSAGE: u64 = 3;

/// Looks at one request.
#[derive(Debug)]
pub struct Newest {
    /// Bytes that were seen.
    seen: u64,
    /// Objects and lists that are open.
    depth: u64,
    /// Whether the list of messages is one of them.
    in_list: bool,
    /// Whether the message is an object.
    is_object: bool,
    /// Whether the next string of the request, or of the message, is a name.
    names: bool,
    /// What the last name there was.
    name: Name,
    /// The string that is open.
    string: Option<Text>,
    /// Whether the last byte of it was a backslash that escapes the next.
    escapes: bool,
    word: Word,
    kept: Kept,
    /// Where the list of messages ended.
    ended: Option<u64>,
    /// Nothing that is to come matters: the request is over, or is none.
    over: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes of the request before the first of the messages.
    pub at: u64,
    /// Bytes of the request up to the end of the list of messages, the bracket included: a beginning of it that is as long has them all.
    pub end: u64,
    /// The messages as they stand there, a comma between two.
    pub text: String,
    /// Whether there was more: the first of the messages are not there, or the last has no end.
    pub truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Messages,
    Role,
    Other,
}

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Role,
    Other,
}

impl Newest {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            seen: 0,
            depth: 0,
            in_list: false,
            is_object: false,
            names: false,
            name: Name::Other,
            string: None,
            escapes: false,
            word: Word::default(),
            kept: Kept::new(limit),
            ended: None,
            over: false,
        }
    }

    /// Sees more of the request.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !self.over
            && let Some(&first) = bytes.first()
        {
            let taken = match self.string {
                Some(text) => self.within_string(text, bytes),
                None if self.is_watched() => self.one(first),
                None => self.deep(bytes),
            };
            self.seen = self.seen.saturating_add(count(taken));
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// What there is at the end of the request, or of what came of it. Nothing where its messages have no end, or there are none.
    #[must_use]
    pub fn finish(self) -> Option<Found> {
        let end = self.ended?;
        let (at, text, truncated) = self.kept.into_text()?;
        Some(Found {
            at,
            end,
            text,
            truncated,
        })
    }

    /// Whether names and commas matter here: in the request, in the list, in a message, and in nothing within those.
    fn is_watched(&self) -> bool {
        match self.in_list {
            true => self.depth <= MESSAGE,
            false => self.depth <= REQUEST,
        }
    }

    /// A string, or a piece of one. Returns how many bytes were looked at.
    fn within_string(&mut self, text: Text, bytes: &[u8]) -> usize {
        let (length, is_over) = self.rest_of_string(bytes);
        let piece = bytes.get(..length).unwrap_or_default();
        self.keep(piece);
        if text != Text::Other {
            self.word.push(piece);
        }
        if !is_over {
            return length;
        }
        self.keep(b"\"");
        self.end_string(text);
        length.saturating_add(1)
    }

    /// How many of these bytes are within the string, and whether its end follows.
    fn rest_of_string(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = usize::from(std::mem::take(&mut self.escapes));
        while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            let found = at.saturating_add(found);
            if bytes.get(found) == Some(&b'"') {
                return (found, true);
            }
            at = found.saturating_add(2);
        }
        self.escapes = at > bytes.len();
        (bytes.len(), false)
    }

    fn end_string(&mut self, text: Text) {
        self.string = None;
        match text {
            Text::Name => self.name = self.named(),
            Text::Role => {
                let role = self.role();
                self.kept.said_by(role);
            }
            Text::Other if self.in_list && self.depth == LIST => self.kept.end(),
            Text::Other => {}
        }
    }

    fn role(&mut self) -> Role {
        match () {
            () if self.word.is("assistant") => Role::Model,
            () if self.word.is("system") => Role::System,
            () => Role::Other,
        }
    }

    /// What a name stands for, where it stands. Of names that are there twice the last holds.
    fn named(&mut self) -> Name {
        if self.in_list {
            let is_role = self.word.is("role");
            if is_role {
                self.kept.said_by(Role::Other);
            }
            return if is_role { Name::Role } else { Name::Other };
        }
        if !self.word.is("messages") {
            return Name::Other;
        }
        self.kept.forget();
        self.ended = None;
        Name::Messages
    }

    /// Values within values: all that matters is where they end. Returns how many bytes were looked at.
    fn deep(&mut self, bytes: &[u8]) -> usize {
        let matters = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
        let plain = bytes.iter().position(matters).unwrap_or(bytes.len());
        if plain > 0 {
            self.keep(bytes.get(..plain).unwrap_or_default());
            return plain;
        }
        bytes.first().map_or(0, |byte| self.one(*byte))
    }

    /// One byte that is in no string. Returns 1.
    fn one(&mut self, byte: u8) -> usize {
        match (self.in_list, self.depth) {
            (_, 0) => self.before(byte),
            (false, REQUEST) => self.in_request(byte),
            (true, LIST) => self.in_messages(byte),
            (true, MESSAGE) => self.in_message(byte),
            _ => {
                self.keep(&[byte]);
                self.opens_or_closes(byte, Text::Other);
            }
        }
        1
    }

    fn before(&mut self, byte: u8) {
        match byte {
            b'{' => self.open_object(),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.over = true,
        }
    }

    fn in_request(&mut self, byte: u8) {
        let is_messages = self.name == Name::Messages && !self.names;
        match byte {
            b'[' if is_messages => {
                self.in_list = true;
                self.depth = LIST;
            }
            b'}' => self.over = true,
            _ => {
                self.separates(byte);
                let text = if self.names { Text::Name } else { Text::Other };
                self.opens_or_closes(byte, text);
            }
        }
    }

    fn in_messages(&mut self, byte: u8) {
        match byte {
            b',' | b' ' | b'\t' | b'\r' | b'\n' => self.kept.end(),
            b']' => {
                self.kept.end();
                self.in_list = false;
                self.depth = REQUEST;
                self.ended = Some(self.seen.saturating_add(1));
            }
            _ => {
                self.kept.begin(self.seen);
                self.keep(&[byte]);
                self.is_object = byte == b'{';
                match byte {
                    b'{' => self.open_object(),
                    _ => self.opens_or_closes(byte, Text::Other),
                }
            }
        }
    }

    fn in_message(&mut self, byte: u8) {
        self.keep(&[byte]);
        if self.is_object {
            self.separates(byte);
        }
        let text = match (self.is_object, self.names, self.name) {
            (true, true, _) => Text::Name,
            (true, false, Name::Role) => Text::Role,
            _ => Text::Other,
        };
        self.opens_or_closes(byte, text);
        if self.depth == LIST {
            self.kept.end();
        }
    }

    /// Names and values take turns in an object.
    fn separates(&mut self, byte: u8) {
        match byte {
            b':' => self.names = false,
            b',' => {
                self.names = true;
                self.name = Name::Other;
            }
            _ => {}
        }
    }

    fn open_object(&mut self) {
        self.depth = self.depth.saturating_add(1);
        self.names = true;
        self.name = Name::Other;
    }

    fn opens_or_closes(&mut self, byte: u8, text: Text) {
        match byte {
            b'"' => {
                self.word.clear();
                self.string = Some(text);
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
    }
}

/// The beginning of a name or a role, as it is written.
#[derive(Debug, Default)]
struct Word {
    /// A quotation mark, and what follows it.
    written: Vec<u8>,
    is_long: bool,
}

impl Word {
    fn clear(&mut self) {
        self.written.clear();
        self.written.push(b'"');
        self.is_long = false;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.is_long |= self.written.len().saturating_add(bytes.len()) > MAX_WORD_BYTES;
        if !self.is_long {
            self.written.extend_from_slice(bytes);
        }
    }

    /// Whether it means this.
    fn is(&mut self, word: &str) -> bool {
        if self.is_long {
            return false;
        }
        if !self.written.contains(&b'\\') {
            return self.written.get(1..) == Some(word.as_bytes());
        }
        self.written.push(b'"');
        let meant = serde_json::from_slice::<String>(&self.written);
        self.written.pop();
        meant.is_ok_and(|meant| meant == word)
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
