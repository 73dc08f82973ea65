//! UTF-8 that comes in parts, and what a close frame may say.
//!
//! Pure. Invariant: the answer is the same however the bytes were cut, and "no" comes with the first byte that settles it.

use super::frame::{FrameError, MAX_CONTROL_BYTES};

/// Checks UTF-8 across parts.
#[derive(Clone, Debug, Default)]
pub struct Utf8 {
    /// The beginning of a character whose end has not come; at most three bytes.
    open: Vec<u8>,
}

impl Utf8 {
    /// Sees more; false when it cannot be UTF-8 any more.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !self.open.is_empty() {
            let Some((byte, after)) = rest.split_first() else {
                return true;
            };
            self.open.push(*byte);
            rest = after;
            match std::str::from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let open = rest.get(error.valid_up_to()..).unwrap_or_default();
                self.open.extend_from_slice(open);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.open.is_empty()
    }
}

/// Code of a close frame's payload: `None` where it is empty.
///
/// # Errors
/// Where it is one byte, a code that must not be sent (RFC 6455 §7.4, and IANA's registry), or a reason that is not UTF-8.
pub fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    match payload {
        [] => Ok(None),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if may_be_sent && std::str::from_utf8(reason).is_ok() {
                Ok(Some(code))
            } else {
                Err(FrameError::Close)
            }
        }
        _ => Err(FrameError::Close),
    }
}

/// Payload of a close frame: the code, and as much of the reason as fits (RFC 6455 §5.5.1).
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let most = MAX_CONTROL_BYTES - 2;
    let end = reason.floor_char_boundary(most);
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn close_codes_are_those_that_may_be_sent() {
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999,
        ] {
            assert_eq!(close_code(&close_payload(code, "why")), Ok(Some(code)));
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert_eq!(
                close_code(&close_payload(code, "")),
                Err(FrameError::Close),
                "{code}"
            );
        }
        assert_eq!(close_code(b""), Ok(None));
        assert_eq!(close_code(b"\x03"), Err(FrameError::Close));
        assert_eq!(close_code(b"\x03\xe8\xce\xba\xe1"), Err(FrameError::Close));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let payload = close_payload(1008, &"\u{e9}".repeat(100));
        assert_eq!(payload.len(), 124);
        assert_eq!(close_code(&payload), Ok(Some(1008)));
    }

    #[test]
    fn no_comes_with_the_byte_that_settles_it() {
        // Autobahn 6.4: U+110000 is refused at its second byte.
        let mut text = Utf8::default();
        assert!(text.push(b"\xce\xba\xf4"));
        assert!(!text.push(b"\x90"));
    }

    proptest! {
        #[test]
        fn parts_are_judged_as_the_whole(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..12),
                "\\PC{0,12}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(0..13_usize, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut text = Utf8::default();
            let valid = cuts.windows(2).all(|cut| text.push(&bytes[cut[0]..cut[1]])) && text.is_whole();
            prop_assert_eq!(valid, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
