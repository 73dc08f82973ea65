//! The ordered fields of a head over one copy of its bytes.
//!
//! Invariant: what nobody edits is written back byte for byte. An edit never changes another
//! field's line, and no edit can write a line break.

use bytes::{BufMut, BytesMut};

use super::head::{is_tchar, is_value_byte, list};
use super::is_hop_by_hop;
use super::limits::MAX_EDITED_HEAD_BYTES;
use super::span::Span;
use crate::body::{Edit, readable_only};

/// Why an edit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderEditError {
    /// The name is not a token (RFC 9110 §5.1).
    #[error("a header name to write is not a token")]
    Name,
    /// The value holds a control: it could end the line and begin another.
    #[error("a header value to write holds a control character")]
    Value,
    /// The head would outgrow [`MAX_EDITED_HEAD_BYTES`].
    #[error("the edited head would exceed {MAX_EDITED_HEAD_BYTES} bytes")]
    TooLarge,
}

/// Checks a field before it is written anywhere.
pub(super) fn check_field(name: &str, value: &[u8]) -> Result<(), HeaderEditError> {
    if name.is_empty() || !name.bytes().all(is_tchar) {
        return Err(HeaderEditError::Name);
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(HeaderEditError::Value);
    }
    Ok(())
}

/// One field line: name, value, and (by their outer ends) the line as written.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Span,
    value: Span,
}

impl Entry {
    fn line(&self) -> Span {
        Span {
            start: self.name.start,
            end: self.value.end,
        }
    }
}

/// Header fields in their order, names as written, compared without case.
///
/// Holds two allocations: the bytes of the head and one list of positions in them. Edits append
/// to the bytes, at most [`MAX_EDITED_HEAD_BYTES`] in all.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    store: Vec<u8>,
    entries: Vec<Entry>,
    raw_len: usize,
    edited: bool,
}

impl Headers {
    /// Takes over what the tokenizer found; `parsed` borrows from `raw`.
    pub(super) fn from_parsed(raw: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        let entries = parsed.iter().map(|header| Entry {
            name: Span::of(raw, header.name.as_bytes()),
            value: value_span(raw, header),
        });
        Self {
            store: raw.to_vec(),
            entries: entries.collect(),
            raw_len: raw.len(),
            edited: false,
        }
    }

    /// All bytes of the store; spans of the start line point into it.
    pub(super) fn store(&self) -> &[u8] {
        &self.store
    }

    /// The head as it was read, unless it was edited since.
    pub(super) fn raw(&self) -> Option<&[u8]> {
        if self.edited {
            None
        } else {
            self.store.get(..self.raw_len)
        }
    }

    /// Number of field lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every field line in order: name as written, value without surrounding whitespace.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries
            .iter()
            .map(|e| (e.name.text(&self.store), e.value.bytes(&self.store)))
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The first value of this name where it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of this name, in order.
    pub fn get_all<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.entries
            .iter()
            .filter(move |entry| self.is_named(entry, name))
            .map(|entry| entry.value.bytes(&self.store))
    }

    /// Whether a field of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether a list field holds this element, without case and parameters aside
    /// (RFC 9110 §5.6.1).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name)
            .flat_map(list)
            .any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Removes every field of this name; says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.entries.len();
        let store = &self.store;
        self.entries.retain(|entry| !named(store, entry, name));
        let removed = before.saturating_sub(self.entries.len());
        self.edited |= removed > 0;
        removed
    }

    /// Replaces the first field of this name where it stands, removes the others, and appends
    /// where there is none.
    ///
    /// # Errors
    /// The name is no token, the value holds a control, or the head would grow too large; the
    /// fields are then unchanged.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), HeaderEditError> {
        let entry = self.push_line(name, value)?;
        let first = self
            .entries
            .iter()
            .position(|e| named(&self.store, e, name));
        match first.and_then(|at| self.entries.get_mut(at)) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        let store = &self.store;
        self.entries
            .retain(|e| e.name.start == entry.name.start || !named(store, e, name));
        Ok(())
    }

    /// Adds a field after the others.
    ///
    /// # Errors
    /// As for [`Headers::set`].
    pub fn append(&mut self, name: &str, value: &[u8]) -> Result<(), HeaderEditError> {
        let entry = self.push_line(name, value)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Removes the fields that are meant for this hop alone: those `Connection` names and those
    /// of [`is_hop_by_hop`], `Connection` itself included (RFC 9110 §7.6.1). Framing
    /// (`Transfer-Encoding`, `Content-Length`, `Trailer`) stays, for it belongs to the body that
    /// is forwarded with the head. A transparent proxy that forwards heads as written has no use
    /// for this; one that was addressed as a proxy has.
    pub fn remove_hop_by_hop(&mut self) {
        let nominated: Vec<String> = self
            .get_all("connection")
            .flat_map(list)
            .map(|option| String::from_utf8_lossy(option).into_owned())
            .filter(|name| !is_framing(name))
            .collect();
        for name in &nominated {
            self.remove(name);
        }
        let before = self.entries.len();
        let store = &self.store;
        self.entries
            .retain(|entry| !is_hop_by_hop(entry.name.text(store)));
        self.edited |= self.entries.len() != before;
    }

    /// Asks for an answer that a mask can read: codings that are not read are left out of `Accept-Encoding`, and `TE` is
    /// left with `trailers` at most, so that no transfer coding is applied (RFC 9110 §12.5.3, §10.1.4).
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn narrow_accept_encoding(&mut self) -> Result<(), HeaderEditError> {
        let joined: Vec<&[u8]> = self.get_all("accept-encoding").collect();
        if let Some(readable) = readable_only(&joined.join(&b", "[..])) {
            self.set("Accept-Encoding", &readable)?;
        }
        let only_trailers = self
            .get_all("te")
            .all(|te| te.eq_ignore_ascii_case(b"trailers"));
        if only_trailers {
            return Ok(());
        }
        if self.has_token("te", "trailers") {
            return self.set("TE", b"trailers");
        }
        self.remove("te");
        Ok(())
    }

    /// Applies the edits that a filtered body makes necessary.
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<(), HeaderEditError> {
        for edit in edits {
            match edit {
                Edit::Remove(name) => {
                    self.remove(name);
                }
                Edit::Set(name, value) => self.set(name, value)?,
            }
        }
        Ok(())
    }

    /// Takes options out of `Connection`; the others stay, and with them what they say of other fields.
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn remove_connection_options(&mut self, options: &[&str]) -> Result<(), HeaderEditError> {
        let is_removed = |option: &[u8]| {
            options
                .iter()
                .any(|removed| option.eq_ignore_ascii_case(removed.as_bytes()))
        };
        let kept: Vec<&[u8]> = self
            .get_all("connection")
            .flat_map(list)
            .filter(|option| !is_removed(option))
            .collect();
        if kept.is_empty() {
            self.remove("connection");
            return Ok(());
        }
        let kept = kept.join(&b", "[..]);
        self.set("Connection", &kept)
    }

    /// Says that the connection ends after this message (RFC 9112 §9.6).
    pub(super) fn set_close(&mut self) -> Result<(), HeaderEditError> {
        self.remove("keep-alive");
        self.set("Connection", b"close")
    }

    /// Replaces all fields of this name by fields with these values, after the others.
    ///
    /// # Errors
    /// As for [`Headers::set`].
    pub fn replace(&mut self, name: &str, values: &[Vec<u8>]) -> Result<(), HeaderEditError> {
        for value in values {
            check_field(name, value)?;
        }
        self.remove(name);
        values.iter().try_for_each(|value| self.append(name, value))
    }

    /// Keeps text beside the fields, for a start line that is edited.
    pub(super) fn keep(&mut self, text: &str) -> Result<Span, HeaderEditError> {
        let start = self.store.len();
        let end = start.saturating_add(text.len());
        if end > MAX_EDITED_HEAD_BYTES {
            return Err(HeaderEditError::TooLarge);
        }
        let at = |n: usize| u32::try_from(n).map_err(|_| HeaderEditError::TooLarge);
        let span = Span {
            start: at(start)?,
            end: at(end)?,
        };
        self.store.extend_from_slice(text.as_bytes());
        self.edited = true;
        Ok(span)
    }

    /// Writes the field lines and the empty line that ends them. Lines nobody edited are written
    /// as they were read.
    pub(super) fn write_to(&self, out: &mut BytesMut) {
        for entry in &self.entries {
            out.put_slice(entry.line().bytes(&self.store));
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
    }

    fn push_line(&mut self, name: &str, value: &[u8]) -> Result<Entry, HeaderEditError> {
        check_field(name, value)?;
        let start = self.store.len();
        let name_end = start.saturating_add(name.len());
        let value_start = name_end.saturating_add(2);
        let end = value_start.saturating_add(value.len());
        if end > MAX_EDITED_HEAD_BYTES {
            return Err(HeaderEditError::TooLarge);
        }
        let at = |n: usize| u32::try_from(n).map_err(|_| HeaderEditError::TooLarge);
        let name_span = Span {
            start: at(start)?,
            end: at(name_end)?,
        };
        let value_span = Span {
            start: at(value_start)?,
            end: at(end)?,
        };
        self.store.extend_from_slice(name.as_bytes());
        self.store.extend_from_slice(b": ");
        self.store.extend_from_slice(value);
        self.edited = true;
        Ok(Entry {
            name: name_span,
            value: value_span,
        })
    }

    fn is_named(&self, entry: &Entry, name: &str) -> bool {
        named(&self.store, entry, name)
    }
}

/// The tokenizer may give an empty value as a slice from elsewhere; the line then ends after the
/// name's colon.
fn value_span(raw: &[u8], header: &httparse::Header<'_>) -> Span {
    if !header.value.is_empty() {
        return Span::of(raw, header.value);
    }
    let colon = Span::of(raw, header.name.as_bytes()).end.saturating_add(1);
    Span {
        start: colon,
        end: colon,
    }
}

fn named(store: &[u8], entry: &Entry, name: &str) -> bool {
    entry
        .name
        .bytes(store)
        .eq_ignore_ascii_case(name.as_bytes())
}

fn is_framing(name: &str) -> bool {
    ["transfer-encoding", "content-length", "host", "trailer"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        let raw = b"Host:  a \r\nX-One: 1\r\nx-ONE:\r\nTE: gzip, trailers\r\nEmpty:  \r\n\r\n";
        let mut slots = [httparse::EMPTY_HEADER; 8];
        let parsed = httparse::parse_headers(raw, &mut slots).unwrap().unwrap();
        Headers::from_parsed(raw, parsed.1)
    }

    fn text(headers: &Headers) -> String {
        let mut out = BytesMut::new();
        headers.write_to(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn fields_are_found_without_case_and_kept_in_order() {
        let h = headers();
        assert_eq!(h.get("HOST"), Some(&b"a"[..]));
        assert_eq!(h.get_all("x-one").collect::<Vec<_>>(), [&b"1"[..], b""]);
        assert_eq!(h.get("empty"), Some(&b""[..]));
        assert!(h.has_token("te", "Trailers") && !h.has_token("te", "deflate"));
        assert_eq!((h.len(), h.is_empty()), (5, false));
    }

    #[test]
    fn setting_replaces_in_place_and_leaves_other_lines_as_written() {
        let mut h = headers();
        h.set("X-One", b"2").unwrap();
        h.append("Via", b"x").unwrap();
        assert_eq!(
            text(&h),
            "Host:  a\r\nX-One: 2\r\nTE: gzip, trailers\r\nEmpty:\r\nVia: x\r\n\r\n"
        );
    }

    #[test]
    fn an_edit_that_breaks_the_line_is_refused_and_changes_nothing() {
        let mut h = headers();
        assert_eq!(h.set("X-One", b"a\r\nEvil: 1"), Err(HeaderEditError::Value));
        assert_eq!(h.append("Bad Name", b""), Err(HeaderEditError::Name));
        assert_eq!(h.append("", b""), Err(HeaderEditError::Name));
        let huge = vec![b'a'; MAX_EDITED_HEAD_BYTES];
        assert_eq!(h.append("X", &huge), Err(HeaderEditError::TooLarge));
        assert!(h.raw().is_some());
    }

    #[test]
    fn narrowing_leaves_what_is_read_and_trailers() {
        let mut h = headers();
        h.append("accept-encoding", b"gzip, dcb").unwrap();
        h.append("Accept-Encoding", b"br").unwrap();
        h.narrow_accept_encoding().unwrap();
        let all: Vec<_> = h.get_all("accept-encoding").collect();
        assert_eq!(all, [b"gzip, br"]);
        assert_eq!(h.get("te"), Some(&b"trailers"[..]));
    }

    #[test]
    fn hop_by_hop_fields_go_and_framing_stays() {
        let mut h = headers();
        h.append("Connection", b"x-one, close, content-length")
            .unwrap();
        h.append("Content-Length", b"0").unwrap();
        h.append("Keep-Alive", b"timeout=5").unwrap();
        h.remove_hop_by_hop();
        assert_eq!(text(&h), "Host:  a\r\nEmpty:\r\nContent-Length: 0\r\n\r\n");
    }
}
