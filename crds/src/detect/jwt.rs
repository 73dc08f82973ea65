//! JSON web tokens (RFC 7515 section 3.1, RFC 7516 section 3.1).

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::bytes::{Step, before, escape_before, is_base64url, run_end, slice};
use super::{MAX_UNDECIDED_BYTES, Tail};

/// Base64url of `{"`, with which a compact header begins, and of `{ "` and `{` with a line break.
pub(super) const PREFIXES: [&str; 3] = ["eyJ", "eyAi", "ewog"];

/// Bytes in which a header in the midst of a run must name its `alg`.
const EARLY_BYTES: usize = 128;
/// Dots in a JWS.
const MIN_DOTS: usize = 2;
/// Dots in a JWE.
const MAX_DOTS: usize = 4;

/// Lenient on purpose: a token that a lax server would accept is a token.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Judges a candidate at `start`, where one of [`PREFIXES`] stands.
pub(super) fn step(text: &[u8], start: usize, eof: bool) -> Step {
    let in_run = before(text, start).is_some_and(is_base64url);
    if in_run && escape_before(text, start).is_none() {
        match names_alg_early(text, start, eof) {
            Step::Yes { .. } => {}
            other => return other,
        }
    }
    let limit = start + MAX_UNDECIDED_BYTES;
    let header_end = run_end(text, start, limit, is_base64url);
    let header = slice(text, start, header_end);
    if header_end == limit {
        return overlong_header(header, limit);
    }
    match text.get(header_end) {
        None => Step::short(eof),
        Some(b'.') if has_alg(header) => rest(text, header_end, limit, eof),
        Some(_) => Step::No,
    }
}

/// Judges a candidate in the midst of a run, as in `session_eyJ...`, by its first bytes. A run can hold many of them: to judge each
/// by the whole run would take time that grows with the square of its length.
fn names_alg_early(text: &[u8], start: usize, eof: bool) -> Step {
    let limit = start + EARLY_BYTES;
    let end = run_end(text, start, limit, is_base64url);
    if end < limit && end == text.len() && !eof {
        return Step::More;
    }
    // One digit over a multiple of four encodes nothing.
    let even = end - usize::from((end - start) % 4 == 1);
    let names_alg = BASE64URL
        .decode(slice(text, start, even))
        .is_ok_and(|json| memchr::memmem::find(&json, b"\"alg\"").is_some());
    if names_alg {
        Step::closed(end)
    } else {
        Step::No
    }
}

/// The parts after the header, from the dot at `dot`.
fn rest(text: &[u8], dot: usize, limit: usize, eof: bool) -> Step {
    let mut at = dot;
    let mut end = dot;
    let mut dots = 0;
    while at < limit {
        match text.get(at) {
            None if !eof => return Step::More,
            Some(b'.') if dots < MAX_DOTS => {
                dots += 1;
                at += 1;
                // Later parts that are empty are the full stop of a sentence.
                if dots <= MIN_DOTS {
                    end = at;
                }
            }
            Some(&byte) if is_base64url(byte) => {
                at += 1;
                end = at;
            }
            _ if dots < MIN_DOTS => return Step::No,
            _ => return Step::closed(end),
        }
    }
    Step::Yes {
        end: limit,
        tail: Tail::Token,
    }
}

/// A header longer than the bound cannot be waited for: it is a token's when its beginning names an `alg`.
fn overlong_header(header: &[u8], end: usize) -> Step {
    match BASE64URL.decode(header) {
        Ok(json) if memchr::memmem::find(&json, b"\"alg\"").is_some() => Step::Yes {
            end,
            tail: Tail::Token,
        },
        _ => Step::No,
    }
}

fn has_alg(header: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "alg")]
        _alg: serde::de::IgnoredAny,
    }
    // Most candidates are no JSON at all: look at the first few bytes before decoding the rest.
    let begins_like_json = BASE64URL
        .decode(slice(header, 0, header.len().min(16)))
        .is_ok_and(|start| start.iter().all(u8::is_ascii));
    begins_like_json
        && BASE64URL
            .decode(header)
            .is_ok_and(|json| serde_json::from_slice::<Header>(&json).is_ok())
}
