//! What a connection speaks, told by the first bytes that the agent sends.
//!
//! Pure. Invariant: once `detect` has named a protocol, more bytes would not change the answer.

/// Most bytes that detection looks at. A request line that is longer still is HTTP's for all that follows from it.
pub const DETECT_BYTES: usize = 16 * 1024;
/// Longest method that is looked for, its space included.
const METHOD_BYTES: usize = 24;
/// Most bytes of the line after the method.
const LINE_BYTES: usize = DETECT_BYTES - METHOD_BYTES;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Too few bytes to tell.
    More,
    /// A TLS record that carries a handshake message (RFC 8446 §5.1).
    Tls,
    /// An HTTP/1.x request line (RFC 9112 §3).
    Http,
    /// The preface of HTTP/2 (RFC 9113 §3.4).
    Http2,
    /// Something else.
    Unknown,
}

/// What tells the preface of HTTP/2 (RFC 9113 §3.4) from a request line.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Tells the protocol from the bytes so far.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detected {
    match bytes {
        [] => Detected::More,
        [0x16] | [0x16, 0x03] => Detected::More,
        [0x16, 0x03, ..] => Detected::Tls,
        _ => detect_http(bytes),
    }
}

/// A request line begins with a method: a token of upper-case letters and dashes, then one space. Methods that no registry knows are taken as well, up to
/// [`METHOD_BYTES`]: the codec refuses what is wrong with them.
fn detect_http(bytes: &[u8]) -> Detected {
    let preface = bytes.len().min(H2_PREFACE.len());
    if bytes.get(..preface) == H2_PREFACE.get(..preface) {
        return if preface == H2_PREFACE.len() {
            Detected::Http2
        } else {
            Detected::More
        };
    }
    for (position, byte) in bytes.iter().take(METHOD_BYTES).enumerate() {
        match byte {
            b'A'..=b'Z' | b'-' => {}
            b' ' if position >= 3 => {
                return target(bytes.get(position.saturating_add(1)..).unwrap_or_default());
            }
            _ => return Detected::Unknown,
        }
    }
    if bytes.len() >= METHOD_BYTES {
        Detected::Unknown
    } else {
        Detected::More
    }
}

/// A line that names HTTP as its version is a request line, whatever else is wrong with it: the codec refuses that. Others (RTSP, SIP, IRC's `NICK name`) are of protocols
/// that are not read.
fn target(rest: &[u8]) -> Detected {
    match rest.first() {
        None => return Detected::More,
        Some(byte) if !byte.is_ascii_graphic() => return Detected::Unknown,
        Some(_) => {}
    }
    let looked_at = rest.get(..LINE_BYTES).unwrap_or(rest);
    let end = memchr::memchr(b'\n', looked_at);
    let line = looked_at
        .get(..end.unwrap_or(looked_at.len()))
        .unwrap_or_default();
    if memchr::memmem::find(line, b" HTTP/").is_some() || looked_at.len() == LINE_BYTES {
        Detected::Http
    } else if end.is_some() {
        Detected::Unknown
    } else {
        Detected::More
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], Detected::More),
            (b"\x16\x03\x01\x02\x00", Detected::Tls),
            (b"\x16\x03", Detected::More),
            (b"\x16\x02\x00", Detected::Unknown),
            (b"GET / HTTP/1.1\r\n", Detected::Http),
            (b"M-SEARCH * HTTP/1.1\r\n", Detected::Http),
            (b"CONNECT a:443 HTTP/1.1", Detected::Http),
            (b"CONNECT a:443", Detected::More),
            (b"GE", Detected::More),
            (b"get / HTTP/1.1", Detected::Unknown),
            (b"PRI * HTTP/2.0\r\n\r\n", Detected::Http2),
            (b"PRI", Detected::More),
            (b"PROPFIND /dav", Detected::More),
            (b"PROPFIND /dav HTTP/", Detected::Http),
            (b"GET /a b HTTP/1.1", Detected::Http),
            (b"GET /\r\n", Detected::Unknown),
            (b"NICK someone\r\n", Detected::Unknown),
            (b"OPTIONS rtsp://a/b RTSP/1.0\r\n", Detected::Unknown),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Detected::Unknown),
            (b"SSH-2.0-OpenSSH_9.2", Detected::Unknown),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Detected::Unknown),
        ] {
            assert_eq!(
                detect(bytes),
                expected,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_line_without_end_is_http_once_it_is_too_long_to_look_at() {
        let line = |length: usize| [&b"GET /"[..], &vec![b'a'; length]].concat();
        assert_eq!(detect(&line(1000)), Detected::More);
        assert_eq!(detect(&line(DETECT_BYTES)), Detected::Http);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let whole = detect(&bytes);
            for end in 0..bytes.len() {
                let part = detect(&bytes[..end]);
                prop_assert!(part == Detected::More || part == whole);
            }
        }
    }
}
