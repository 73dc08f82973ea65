//! The few fields that decide framing, persistence and routing, read in one pass over a head.
//! Every other field is opaque to the codec.

use super::error::HeadError;
use super::head::list;
use super::limits::MAX_LENGTH;
use super::{BodyFraming, Version};

/// What one pass found. Values borrow from the buffer that was parsed.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_nominated: bool,
    framing_nominated: bool,
    upgrade: Option<&'a [u8]>,
    expect_continue: bool,
    /// The value of `Host`, unvalidated.
    pub(super) host: Option<&'a [u8]>,
    /// Whether a second `Host` follows.
    pub(super) host_repeated: bool,
}

impl<'a> Fields<'a> {
    /// Reads all fields of a head. Refuses every framing that is ambiguous by itself; what depends
    /// on method or status is left to the caller.
    pub(super) fn read(
        version: Version,
        headers: &[httparse::Header<'a>],
    ) -> Result<Self, HeadError> {
        let mut fields = Self::default();
        for header in headers {
            fields.field(header.name, header.value)?;
        }
        match (fields.chunked, version) {
            (true, _) if fields.content_length.is_some() => Err(HeadError::FramingConflict),
            (true, Version::Http10) => Err(HeadError::TransferEncodingInHttp10),
            _ => Ok(fields),
        }
    }

    fn field(&mut self, name: &str, value: &'a [u8]) -> Result<(), HeadError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // The length settles which name it can be, so that most fields cost one comparison.
        match name.len() {
            4 if is("host") => {
                self.host_repeated |= self.host.is_some();
                self.host = Some(value);
            }
            6 if is("expect") => {
                self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue")
            }
            7 if is("upgrade") => self.upgrade(value)?,
            10 if is("connection") => self.connection(value),
            14 if is("content-length") => self.content_length(value)?,
            17 if is("transfer-encoding") => self.transfer_encoding(value)?,
            14 | 17 if imitates_framing(name) => return Err(HeadError::FramingLookalike),
            _ => {}
        }
        Ok(())
    }

    fn upgrade(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        if !value.is_ascii() {
            return Err(HeadError::Value);
        }
        self.upgrade = self.upgrade.or(Some(value));
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            self.close |= is(b"close");
            self.keep_alive |= is(b"keep-alive");
            self.upgrade_nominated |= is(b"upgrade");
            self.framing_nominated |=
                is(b"host") || is(b"content-length") || is(b"transfer-encoding");
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.content_length.is_some() {
            return Err(HeadError::ContentLengthRepeated);
        }
        self.content_length = Some(parse_length(value).ok_or(HeadError::ContentLength)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked {
            return Err(HeadError::TransferEncodingRepeated);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferCoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// The body that the framing fields announce, if they announce one.
    pub(super) fn announced(&self) -> Option<BodyFraming> {
        match (self.chunked, self.content_length) {
            (true, _) => Some(BodyFraming::Chunked),
            (false, Some(length)) => Some(BodyFraming::Length(length)),
            (false, None) => None,
        }
    }

    /// Whether the sender keeps the connection open after this message (RFC 9112 §9.3).
    pub(super) fn persistent(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }

    /// The protocols offered for a switch: `Upgrade`, if `Connection` names it (RFC 9110 §7.8).
    /// HTTP/1.0 has none.
    pub(super) fn upgrade_offered(&self, version: Version) -> Option<&'a [u8]> {
        self.upgrade
            .filter(|_| self.upgrade_nominated && version == Version::Http11)
    }

    /// Whether the sender waits for a 100 before its body (RFC 9110 §10.1.1).
    pub(super) fn awaits_continue(&self, version: Version) -> bool {
        self.expect_continue && version == Version::Http11
    }

    /// Whether `Connection` would have a later hop drop a field that frames or routes.
    pub(super) fn connection_drops_framing(&self) -> bool {
        self.framing_nominated
    }
}

/// Plain decimal digits up to [`MAX_LENGTH`]: no sign, space, list or leading `0x`.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value
        .iter()
        .try_fold(0u64, |length, b| {
            let digit = b.is_ascii_digit().then(|| b.wrapping_sub(b'0'))?;
            length.checked_mul(10)?.checked_add(u64::from(digit))
        })
        .filter(|&length| length <= MAX_LENGTH)
}

fn imitates_framing(name: &str) -> bool {
    let is = |known: &[u8]| {
        name.bytes()
            .zip(known)
            .all(|(b, k)| b.eq_ignore_ascii_case(k) || (b == b'_' && *k == b'-'))
    };
    match name.len() {
        14 => is(b"content-length"),
        17 => is(b"transfer-encoding"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        assert_eq!(parse_length(b"0"), Some(0));
        assert_eq!(parse_length(b"9223372036854775807"), Some(MAX_LENGTH));
        let refused = [
            "",
            "+5",
            "-5",
            "5 ",
            "5,5",
            "0x5",
            "5a",
            "9223372036854775808",
        ];
        for value in refused
            .into_iter()
            .chain(["99999999999999999999999999", "5.0", "\u{665}"])
        {
            assert_eq!(parse_length(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn connection_options_are_read_across_list_elements_without_case() {
        let headers = [
            httparse::Header {
                name: "Connection",
                value: b"Keep-Alive, x",
            },
            httparse::Header {
                name: "connection",
                value: b",UPGRADE",
            },
            httparse::Header {
                name: "Upgrade",
                value: b"websocket",
            },
        ];
        let fields = Fields::read(Version::Http11, &headers).unwrap();
        assert!(fields.persistent(Version::Http10));
        assert_eq!(
            fields.upgrade_offered(Version::Http11),
            Some(&b"websocket"[..])
        );
        assert_eq!(fields.upgrade_offered(Version::Http10), None);
    }
}
