//! Signed notes (C2SP signed-note): a text, and lines of signatures.
//!
//! Owns reading, checking and writing them. Refuses to hand out a text that no known key has signed: there is no way to get at it but [`open`]. Signatures of unknown keys mean nothing and are passed
//! over; one wrong signature of a known key condemns the note.

use std::str;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::{
    cosignature::Time,
    key::{KeyId, KeyName, SigningKey, VerifierKey},
};

/// Longest note, in bytes: 64 signatures of the largest kind there is (ML-DSA, 5 kB in base64) leave room for the text.
pub const MAX_NOTE_BYTES: usize = 512 * 1024;
/// Most signatures of a note. The specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 64;

/// What each line of a signature begins with: an em dash.
const DASH: &str = "\u{2014} ";

/// A note whose text a known key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The text, with its last newline.
    pub text: &'a str,
    /// Who of the known keys has signed it, each once, in the order of the note.
    pub signatures: Vec<Verified<'a>>,
    /// Signatures of keys that are not known.
    pub unknown: usize,
}

/// A signature that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// By which key.
    pub key: &'a VerifierKey,
    /// When, as a cosigner says; other signatures carry no time.
    pub time: Option<Time>,
}

/// Why a note says nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// It is too long.
    #[error("the note is longer than {MAX_NOTE_BYTES} bytes")]
    TooLong,
    /// Bytes that no note has.
    #[error("a note is UTF-8 without control characters other than newlines")]
    Characters,
    /// Text and signatures are not parted by an empty line, or the text lacks its newline.
    #[error("a note is a text that ends in a newline, an empty line, and lines of signatures")]
    Form,
    /// A line after the empty line is no signature.
    #[error("line {line} of the signatures is none")]
    Signature {
        /// Its number, from 1.
        line: usize,
    },
    /// Too many signatures.
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A known key's signature is wrong.
    #[error("the signature of {name} (key {id}) is wrong: the note is forged or damaged")]
    Forged {
        /// The key's name.
        name: KeyName,
        /// The key's ID.
        id: KeyId,
    },
    /// None of the known keys has signed.
    #[error("none of the known keys has signed the note")]
    Unsigned,
}

struct Line<'a> {
    name: &'a str,
    id: KeyId,
    signature: Vec<u8>,
}

/// Checks a note and gives its text.
///
/// # Errors
/// [`NoteError`].
pub fn open<'a>(note: &'a [u8], known: &'a [VerifierKey]) -> Result<Opened<'a>, NoteError> {
    let (text, lines) = parse(note)?;
    let mut signatures: Vec<Verified<'a>> = Vec::new();
    let mut unknown = 0_usize;
    for line in &lines {
        let Some(key) = known
            .iter()
            .find(|k| k.name().as_str() == line.name && k.id() == line.id)
        else {
            unknown = unknown.saturating_add(1);
            continue;
        };
        let Some(time) = key.verify(text, &line.signature) else {
            let (name, id) = (key.name().clone(), key.id());
            return Err(NoteError::Forged { name, id });
        };
        // Who signed twice still is one signer.
        if !signatures.iter().any(|s| s.key == key) {
            signatures.push(Verified { key, time });
        }
    }
    match signatures.is_empty() {
        true => Err(NoteError::Unsigned),
        false => Ok(Opened {
            text,
            signatures,
            unknown,
        }),
    }
}

/// A note of this text, signed by these keys. `time` goes into cosignatures only.
///
/// # Errors
/// [`NoteError`], where the text is none of a note.
pub fn sign(text: &str, keys: &[&SigningKey], time: Time) -> Result<Vec<u8>, NoteError> {
    let mut note = format!("{text}\n");
    check(note.as_bytes())?;
    if !text.ends_with('\n') {
        return Err(NoteError::Form);
    }
    if keys.is_empty() {
        return Err(NoteError::Unsigned);
    }
    if keys.len() > MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures);
    }
    for key in keys {
        note.push_str(&line(text, key, time));
    }
    check(note.as_bytes())?;
    Ok(note.into_bytes())
}

/// The note with one more signature, as a witness adds its own. Whether the others are sound is for [`open`] to say.
///
/// # Errors
/// [`NoteError`], where it is no note.
pub fn countersign(note: &[u8], key: &SigningKey, time: Time) -> Result<Vec<u8>, NoteError> {
    let (text, lines) = parse(note)?;
    if lines.len() >= MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures);
    }
    let mut signed = note.to_vec();
    signed.extend_from_slice(line(text, key, time).as_bytes());
    check(&signed)?;
    Ok(signed)
}

fn line(text: &str, key: &SigningKey, time: Time) -> String {
    let verifier = key.verifier();
    let signature = [&verifier.id().as_bytes()[..], &key.sign(text, time)].concat();
    format!("{DASH}{} {}\n", verifier.name(), STANDARD.encode(signature))
}

fn check(note: &[u8]) -> Result<&str, NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong);
    }
    let note = str::from_utf8(note).map_err(|_| NoteError::Characters)?;
    match note.bytes().any(|b| b < b' ' && b != b'\n') {
        true => Err(NoteError::Characters),
        false => Ok(note),
    }
}

/// Text and signatures; nothing is verified yet.
fn parse(note: &[u8]) -> Result<(&str, Vec<Line<'_>>), NoteError> {
    let note = check(note)?;
    let empty_line = note.rfind("\n\n").ok_or(NoteError::Form)?;
    // The text keeps its newline; the empty line belongs to neither.
    let (text, rest) = note
        .split_at_checked(empty_line.saturating_add(1))
        .ok_or(NoteError::Form)?;
    let rest = rest.strip_prefix('\n').ok_or(NoteError::Form)?;
    let rest = rest.strip_suffix('\n').ok_or(NoteError::Form)?;
    let mut lines = Vec::new();
    for (number, line) in rest.split('\n').enumerate() {
        if number >= MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        let bad = NoteError::Signature {
            line: number.saturating_add(1),
        };
        lines.push(parse_line(line).ok_or(bad)?);
    }
    Ok((text, lines))
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
    name.parse::<KeyName>().ok()?;
    let bytes = STANDARD.decode(signature).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() {
        return None;
    }
    Some(Line {
        name,
        id: KeyId::from_bytes(*id),
        signature: signature.to_vec(),
    })
}

#[cfg(test)]
mod tests;
