//! Server-sent events (the HTML standard's event stream format): which bytes are data.
//!
//! An event's data is that of its `data` lines, joined by line breaks, so a JSON document may be split over several of them. All else (names of fields, comments, line ends) stays
//! as it is and where it is. A blank line ends the event, and with it the document.

use chaperone_crds::detect::Replacement;

use super::json::Json;

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the name of the field, of which so many bytes are those of `data`.
    Name(usize),
    /// Behind the colon after `data`, before a space that is not part of it.
    Space,
    /// In data.
    Data,
    /// In a line of something else.
    Other,
}

const DATA: &[u8] = b"data";

/// Follows events.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) json: Json,
    at: At,
    /// Whether the last byte was a CR, with which a LF makes one line end.
    cr: bool,
}

impl Events {
    pub(super) fn new(json: Json) -> Self {
        Self {
            json,
            at: At::Name(0),
            cr: false,
        }
    }

    /// Takes text; as [`Json::feed`].
    pub(super) fn feed(&mut self, mut bytes: &[u8], shown: bool, out: &mut Vec<u8>) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.at == At::Data {
                let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
                let (data, rest) = bytes.split_at_checked(end).unwrap_or((bytes, b""));
                if !data.is_empty() {
                    self.json.feed(data, shown, out);
                    bytes = rest;
                    continue;
                }
            }
            self.byte(first, shown, out);
            bytes = rest;
        }
    }

    /// Takes a match; as [`Json::found`].
    pub(super) fn found(
        &mut self,
        replacement: &Replacement,
        found: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        if self.at == At::Space && found.first() != Some(&b' ') {
            self.at = At::Data;
        }
        if self.at == At::Data && memchr::memchr2(b'\r', b'\n', found).is_none() {
            return self.json.found(replacement, found, out);
        }
        out.extend_from_slice(replacement.as_text());
        self.feed(found, false, out);
        true
    }

    /// Ends the stream.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.json.end_document(out);
        self.at = At::Name(0);
        self.cr = false;
    }

    fn byte(&mut self, byte: u8, shown: bool, out: &mut Vec<u8>) {
        let second = self.cr && byte == b'\n';
        self.cr = byte == b'\r';
        if second {
        } else if matches!(byte, b'\r' | b'\n') {
            self.end_line(out);
        } else {
            match (self.at, byte) {
                (At::Name(DATA_LENGTH), b':') => self.at = At::Space,
                (At::Name(matched), _) if DATA.get(matched) == Some(&byte) => {
                    self.at = At::Name(matched.saturating_add(1));
                }
                (At::Name(_), _) => self.at = At::Other,
                (At::Space, b' ') => self.at = At::Data,
                (At::Space, _) => {
                    self.at = At::Data;
                    return self.json.feed(&[byte], shown, out);
                }
                (At::Data | At::Other, _) => {}
            }
        }
        if shown {
            out.push(byte);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Name(0) => self.json.end_document(out),
            // White space to JSON, and the end of a number.
            At::Data | At::Space => self.json.feed(b"\n", false, out),
            At::Name(_) | At::Other => {}
        }
        self.at = At::Name(0);
    }
}

const DATA_LENGTH: usize = DATA.len();
