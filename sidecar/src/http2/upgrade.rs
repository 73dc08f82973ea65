//! The way into HTTP/2 that begins with a request of HTTP/1.1 (RFC 7540 §3.2): RFC 9113 has dropped it, clients still offer it.
//!
//! The request that was upgraded becomes stream 1 of both connections, though neither side writes its head in HTTP/2. The codec towards the agent is given that head as if the
//! agent had sent it after its SETTINGS; the codec towards the upstream writes one, which never leaves ([`unsent`]). Both heads are one that changes no state of HPACK: indices
//! of the static table alone (RFC 7541 §6.1). What was judged is the request of HTTP/1.1; the head of stream 1 says nothing and is not looked at.
//! Refuses whatever an agent sends after a 101 that is not a client's preface with SETTINGS: nothing that was judged as HTTP/1.1 can be read as something else behind it.

mod begun;
mod unsent;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};

pub(crate) use self::{begun::Begun, unsent::Unsent};

/// `HTTP2-Settings` as the upstream gets it: SETTINGS_ENABLE_PUSH 0. Windows are the defaults until the SETTINGS frame, which follows at once, says more: what the codec grants
/// before it knows of its grant would be too much.
pub(crate) const OFFERED: &str = "AAIAAAAA";

/// Most settings that `HTTP2-Settings` may hold. RFC 9113 §6.5.2 defines six; clients send two to four.
const MAX_SETTINGS: usize = 32;
/// Bytes of one setting (RFC 9113 §6.5.1).
const SETTING_BYTES: usize = 6;

/// A client's preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head (RFC 9113 §4.1).
const FRAME_HEAD_BYTES: usize = 9;
/// Largest frame that is taken before anything else is agreed (RFC 9113 §4.2).
const MAX_FRAME_BYTES: usize = 16 * 1024;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// HEADERS of stream 1 with END_STREAM and END_HEADERS: `:method: GET`, `:scheme: http`, `:path: /` by their indices 2, 6 and 4.
const STREAM_ONE: [u8; 12] = [0, 0, 3, HEADERS, 0x05, 0, 0, 0, 1, 0x82, 0x86, 0x84];

/// Why an agent's bytes after a 101 are no HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPreface {
    /// They do not begin with the preface.
    #[error("what follows the upgrade does not begin with the preface of HTTP/2")]
    Preface,
    /// The first frame is not SETTINGS of the connection.
    #[error("the first frame after the upgrade is not SETTINGS")]
    Settings,
    /// Its settings are too many.
    #[error("the first frame after the upgrade is too large")]
    TooLarge,
}

/// The payload of a SETTINGS frame that a value of `HTTP2-Settings` holds (RFC 7540 §3.2.1). `None`: it holds none, or more than [`MAX_SETTINGS`].
pub(crate) fn settings(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() > MAX_SETTINGS.saturating_mul(SETTING_BYTES).saturating_mul(2) {
        return None;
    }
    let settings = URL_SAFE_NO_PAD.decode(value).ok()?;
    let whole = settings.len().is_multiple_of(SETTING_BYTES);
    (whole && settings.len() <= MAX_SETTINGS.saturating_mul(SETTING_BYTES)).then_some(settings)
}

/// What the agent's codec reads in place of `sent`, the agent's bytes after the 101: preface, one SETTINGS frame with `settings` (of `HTTP2-Settings`) before the agent's own, the head of
/// stream 1, and the rest. One frame, because the 101 has acknowledged the settings of the request: one acknowledgement is what the agent waits for. `None`: more bytes are needed.
///
/// # Errors
/// As [`NoPreface`].
pub(crate) fn begin(settings: &[u8], sent: &[u8]) -> Result<Option<BytesMut>, NoPreface> {
    let seen = sent.len().min(PREFACE.len());
    if sent.get(..seen) != PREFACE.get(..seen) {
        return Err(NoPreface::Preface);
    }
    let frame = sent.get(PREFACE.len()..).unwrap_or_default();
    let Some((head, after)) = frame.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let [high, middle, low, kind, flags, stream @ ..] = *head;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if kind != SETTINGS || flags != 0 || stream != [0; 4] {
        return Err(NoPreface::Settings);
    }
    let both = length.saturating_add(settings.len());
    if both > MAX_FRAME_BYTES {
        return Err(NoPreface::TooLarge);
    }
    let Some((own, rest)) = after.split_at_checked(length) else {
        return Ok(None);
    };
    let mut out = BytesMut::with_capacity(sent.len().saturating_add(settings.len()));
    out.put_slice(PREFACE);
    out.put_uint(both as u64, 3);
    out.put_slice(&[SETTINGS, 0, 0, 0, 0, 0]);
    out.put_slice(settings);
    out.put_slice(own);
    out.put_slice(&STREAM_ONE);
    out.put_slice(rest);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agent(settings: &[u8], rest: &[u8]) -> Vec<u8> {
        let length = u8::try_from(settings.len()).unwrap();
        let head = [0, 0, length, SETTINGS, 0, 0, 0, 0, 0];
        [PREFACE, &head, settings, rest].concat()
    }

    #[test]
    fn settings_of_the_request_come_before_those_of_the_connection_in_one_frame() {
        let out = begin(&[1; 6], &agent(&[2; 12], b"rest")).unwrap().unwrap();
        let expected = [
            PREFACE,
            &[0, 0, 18, SETTINGS, 0, 0, 0, 0, 0],
            &[1; 6],
            &[2; 12],
            &STREAM_ONE,
            b"rest",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn what_is_no_preface_with_settings_is_refused_and_a_part_of_one_waited_for() {
        let whole = agent(&[2; 12], b"");
        for cut in 0..whole.len() {
            assert_eq!(begin(&[], &whole[..cut]), Ok(None), "{cut}");
        }
        let with = |at: usize, byte: u8| {
            let mut sent = whole.clone();
            sent[PREFACE.len() + at] = byte;
            begin(&[1; 6], &sent)
        };
        assert_eq!(begin(&[], b"GET / HT"), Err(NoPreface::Preface));
        assert_eq!(with(3, HEADERS), Err(NoPreface::Settings), "another type");
        assert_eq!(with(4, 1), Err(NoPreface::Settings), "an acknowledgement");
        assert_eq!(with(8, 1), Err(NoPreface::Settings), "of a stream");
        assert_eq!(with(0, 1), Err(NoPreface::TooLarge));
    }

    #[test]
    fn a_settings_field_holds_whole_settings_and_not_too_many() {
        assert_eq!(settings(b"AAMAAABkAAQAAP__").unwrap().len(), 12, "curl's");
        assert_eq!(settings(b"").unwrap(), b"");
        assert_eq!(settings(OFFERED.as_bytes()).unwrap(), [0, 2, 0, 0, 0, 0]);
        for bad in [
            "AAMA",
            "AAMAAABk==",
            "AAMAAAB+",
            "AAM AAABk",
            &"A".repeat(264),
        ] {
            assert_eq!(settings(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_taken_whole(sent in proptest::collection::vec(any::<u8>(), 0..80), own in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = begin(&own, &sent);
            let out = begin(&own, &agent(&[], &sent)).unwrap().unwrap();
            prop_assert!(out.ends_with(&sent));
            let _ = settings(&sent);
        }
    }
}
