//! What a connection speaks, told by the first bytes that the agent sends.
//!
//! Pure. Invariant: once `detect` has named a protocol, more bytes would not change the answer.

/// Most bytes that detection looks at: the longest HTTP method that is looked for and its space.
pub const DETECT_BYTES: usize = 24;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Too few bytes to tell.
    More,
    /// A TLS record that carries a handshake message (RFC 8446 §5.1).
    Tls,
    /// An HTTP/1.x request line (RFC 9112 §3).
    Http,
    /// Something else.
    Unknown,
}

/// The preface of HTTP/2 with prior knowledge (RFC 9113 §3.4). It looks like a request line, and is none.
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
/// [`DETECT_BYTES`]: the codec refuses what is wrong with them.
fn detect_http(bytes: &[u8]) -> Detected {
    let preface = bytes.len().min(H2_PREFACE.len());
    if bytes.get(..preface) == H2_PREFACE.get(..preface) {
        return if preface == H2_PREFACE.len() {
            Detected::Unknown
        } else {
            Detected::More
        };
    }
    for (position, byte) in bytes.iter().take(DETECT_BYTES).enumerate() {
        match byte {
            b'A'..=b'Z' | b'-' => {}
            b' ' if position >= 3 => {
                return target(bytes.get(position.saturating_add(1)..).unwrap_or_default());
            }
            _ => return Detected::Unknown,
        }
    }
    if bytes.len() >= DETECT_BYTES {
        Detected::Unknown
    } else {
        Detected::More
    }
}

/// A request target begins with `/`, `*`, a scheme or an authority (RFC 9112 §3.2). That tells `GET /` from line protocols such as `HELO name` only by what follows,
/// so the line must go on like HTTP: anything visible. SMTP, FTP and IRC servers speak first and never come here.
fn target(rest: &[u8]) -> Detected {
    match rest.first() {
        None => Detected::More,
        Some(byte) if byte.is_ascii_graphic() => Detected::Http,
        Some(_) => Detected::Unknown,
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
            (b"GE", Detected::More),
            (b"get / HTTP/1.1", Detected::Unknown),
            (b"PRI * HTTP/2.0\r\n\r\n", Detected::Unknown),
            (b"PRI", Detected::More),
            (b"PROPFIND /dav", Detected::Http),
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
