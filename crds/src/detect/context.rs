//! Secrets without a shape of their own, known by the name before them: AWS secret access keys, Azure storage keys and signatures.
//!
//! Only the value is the match; its name stays.

use super::bytes::{before, escape_before, is_word, run_end, slice};

/// Most bytes between a name and its value.
const SEPARATOR_BYTES: usize = 12;
/// Longest name, and what may lie between it and its value: what a search that begins at a value must see before it.
pub(super) const CONTEXT_BYTES: usize = 17 + SEPARATOR_BYTES;

/// A name and the value that follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) name: &'static str,
    kind: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// 40 characters of base64, after quotes, colons, equals signs and the like.
    AwsSecret,
    /// So many characters of base64 with padding, at once.
    Base64(usize),
    /// A query parameter: 32 bytes of base64, with percent-escapes.
    Signature,
}

/// What a cloud vendor's key is named. `SigningKey`s and client secrets of Azure have no such names.
pub(super) const CONTEXTS: &[Context] = &[
    context("secret_access_key", Value::AwsSecret),
    context("SECRET_ACCESS_KEY", Value::AwsSecret),
    context("SecretAccessKey", Value::AwsSecret),
    context("secretAccessKey", Value::AwsSecret),
    context("AccountKey=", Value::Base64(88)),
    context("SharedAccessKey=", Value::Base64(44)),
    context("sig=", Value::Signature),
];

const fn context(name: &'static str, kind: Value) -> Context {
    Context { name, kind }
}

/// What stands at the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// No secret.
    No,
    /// The text ends too soon to say.
    More,
    /// A secret, whatever follows.
    Secret {
        /// First byte.
        start: usize,
        /// One past its last byte.
        end: usize,
    },
}

impl Context {
    /// Judges what follows the name at `at`.
    pub(super) fn step(&self, text: &[u8], at: usize, eof: bool) -> Named {
        let end = at + self.name.len();
        match self.kind {
            Value::AwsSecret => {
                let start = run_end(text, end, end + SEPARATOR_BYTES, is_separator);
                if start == end {
                    return no_or_more(text, start, eof);
                }
                aws_secret(text, start, eof)
            }
            Value::Base64(length) => base64(text, end, length, eof),
            Value::Signature if !begins_parameter(text, at) => Named::No,
            Value::Signature => signature(text, end, eof),
        }
    }
}

/// Judges an AWS secret access key at `start`: 40 characters of base64 and no more.
pub(super) fn aws_secret(text: &[u8], start: usize, eof: bool) -> Named {
    const KEY_BYTES: usize = 40;
    let end = run_end(text, start, start + KEY_BYTES + 1, is_base64);
    match text.get(end) {
        None if !eof => Named::More,
        Some(&byte) if is_word(byte) || byte == b'=' => Named::No,
        _ if end != start + KEY_BYTES => Named::No,
        _ => Named::Secret { start, end },
    }
}

fn base64(text: &[u8], start: usize, length: usize, eof: bool) -> Named {
    let end = run_end(text, start, start + length + 1, |byte| {
        is_base64(byte) || byte == b'='
    });
    match text.get(end) {
        None if !eof => Named::More,
        _ if end != start + length => Named::No,
        _ => Named::Secret { start, end },
    }
}

fn signature(text: &[u8], start: usize, eof: bool) -> Named {
    const LENGTHS: std::ops::RangeInclusive<usize> = 43..=100;
    let end = run_end(text, start, start + LENGTHS.end() + 1, |byte| {
        is_base64(byte) || matches!(byte, b'=' | b'%' | b'-' | b'_')
    });
    let value = slice(text, start, end);
    let is_padded = value.ends_with(b"=") || value.ends_with(b"%3D") || value.ends_with(b"%3d");
    match text.get(end) {
        _ if !LENGTHS.contains(&value.len()) && end < text.len() => Named::No,
        None if !eof => Named::More,
        _ if !LENGTHS.contains(&value.len()) || !is_padded => Named::No,
        _ => Named::Secret { start, end },
    }
}

fn begins_parameter(text: &[u8], at: usize) -> bool {
    before(text, at).is_none_or(|byte| matches!(byte, b'?' | b'&' | b';'))
        || escape_before(text, at).is_some()
}

fn no_or_more(text: &[u8], at: usize, eof: bool) -> Named {
    if at >= text.len() && !eof {
        Named::More
    } else {
        Named::No
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+'
}

fn is_separator(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | b'"' | b'\'' | b'=' | b':' | b'>' | b'\\'
    )
}
