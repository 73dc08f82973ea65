//! PEM private keys (RFC 7468, RFC 1421, and OpenPGP's armour).
//!
//! A BEGIN line is a key when key material follows close by; then everything to the END line goes, however long, and to the end of
//! the text when there is no END line: what cannot be told from a key is dropped. A BEGIN line that is merely mentioned, in source
//! code say, is no secret, and dropping the rest of the text for it would only break the agent.

use super::Tail;
use super::bytes::{Step, run_end, slice};

/// What a BEGIN line begins with.
pub(super) const BEGIN: &[u8] = b"-----BEGIN";
/// What an END line begins with.
pub(super) const END: &[u8] = b"-----END";

/// Longest label of a line, bytes; `RSA PRIVATE KEY` with percent-encoded spaces has 19.
const LABEL_BYTES: usize = 64;
/// Bytes after a BEGIN line in which key material must show; covers RFC 1421 and OpenPGP headers.
const BODY_WINDOW_BYTES: usize = 256;
/// Bytes in a row that are taken for key material: half a line of base64.
const BODY_RUN_BYTES: usize = 32;

/// Judges a candidate at `start`, where [`BEGIN`] stands.
pub(super) fn step(text: &[u8], start: usize, eof: bool) -> Step {
    let label = start + BEGIN.len();
    let body = match line_end(text, label) {
        Some(Some(body)) => body,
        Some(None) => return Step::No,
        None => return Step::short(eof),
    };
    if memchr::memmem::find(slice(text, label, body), b"PRIVATE").is_none() {
        return Step::No;
    }
    let window = slice(text, body, text.len().min(body + BODY_WINDOW_BYTES));
    if holds_key(window) {
        return Step::Yes {
            end: body,
            tail: Tail::PrivateKey,
        };
    }
    if window.len() < BODY_WINDOW_BYTES {
        return Step::short(eof);
    }
    Step::No
}

/// Where the line whose label begins at `label` ends, after its five dashes: `Some(None)` when it is no such line, `None` when
/// the text ends too soon to say.
pub(super) fn line_end(text: &[u8], label: usize) -> Option<Option<usize>> {
    const DASHES: &[u8] = b"-----";
    let dashes = run_end(text, label, label + LABEL_BYTES, is_label);
    let rest = slice(text, dashes, text.len().min(dashes + DASHES.len()));
    if !DASHES.starts_with(rest) {
        return Some(None);
    }
    (rest.len() == DASHES.len()).then_some(Some(dashes + DASHES.len()))
}

/// Spaces may be written `+` or `%20`.
fn is_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'+' | b'%')
}

/// Base64 with its escapes: `\/` in JSON, `%2B` in URLs.
fn is_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'%' | b'\\')
}

fn holds_key(window: &[u8]) -> bool {
    memchr::memmem::find(window, END).is_some()
        || window
            .split(|&byte| !is_body(byte))
            .any(|run| run.len() >= BODY_RUN_BYTES)
}
