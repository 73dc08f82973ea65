//! The opening handshake (RFC 6455 §4): what makes a request one, what makes an answer one to it, and which extensions hold.
//!
//! Pure. Invariant: only what [`Offer::accepted`] has agreed to is read as WebSocket, so an upstream cannot turn a connection into something that Chaperone reads otherwise than the agent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// RFC 6455 §1.3.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one extension that is read (RFC 7692).
const DEFLATE: &str = "permessage-deflate";

/// A request for a WebSocket connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// `Sec-WebSocket-Accept` that answers it. Empty where the version of HTTP has none (RFC 8441 §5).
    accept: String,
    /// The value of `Sec-WebSocket-Extensions` that goes upstream: the offers that are read.
    pub extensions: Option<String>,
}

/// How messages are compressed (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// Whether each of the agent's messages stands alone.
    pub agent_no_context: bool,
    /// Whether each of the upstream's messages stands alone.
    pub upstream_no_context: bool,
}

/// Why an answer does not open a WebSocket connection that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// `Sec-WebSocket-Accept` does not answer the key.
    #[error("Sec-WebSocket-Accept does not answer the request's key")]
    Accept,
    /// An extension that was not offered, or in words that are not RFC 7692's.
    #[error("the upstream answers with an extension that was not offered")]
    Extension,
}

impl Offer {
    /// Reads the offer of an HTTP/1.1 request whose `Upgrade` is `websocket`. `key`, `version`, `extensions`: the values of those fields, each as often as it is there. `None`:
    /// this is no WebSocket of RFC 6455.
    #[must_use]
    pub fn read<'a>(
        key: impl Iterator<Item = &'a [u8]>,
        version: impl Iterator<Item = &'a [u8]>,
        extensions: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let key = only(key)?;
        let decoded = STANDARD.decode(key).ok()?;
        (decoded.len() == 16 && only(version)? == b"13").then(|| Self {
            accept: accept(key),
            extensions: readable(extensions),
        })
    }

    /// The offer of an extended CONNECT (RFC 8441), which has no key. `None`: another version than 13.
    #[must_use]
    pub fn extended<'a>(
        version: impl Iterator<Item = &'a [u8]>,
        extensions: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        (only(version)? == b"13").then(|| Self {
            accept: String::new(),
            extensions: readable(extensions),
        })
    }

    /// What an answer agrees to. `None` inside: no compression.
    ///
    /// # Errors
    /// When it does not answer this offer.
    pub fn accepted<'a>(
        &self,
        accept: impl Iterator<Item = &'a [u8]>,
        extensions: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<Deflate>, HandshakeError> {
        if !self.accept.is_empty() && only(accept) != Some(self.accept.as_bytes()) {
            return Err(HandshakeError::Accept);
        }
        let mut answers = list(extensions);
        let Some(answer) = answers.next() else {
            return Ok(None);
        };
        if answers.next().is_some() || self.extensions.is_none() {
            return Err(HandshakeError::Extension);
        }
        deflate(&answer).map(Some).ok_or(HandshakeError::Extension)
    }
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(MAGIC);
    STANDARD.encode(hash.finalize())
}

/// The value of a field that is there once.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next()?;
    values.next().is_none().then(|| value.trim_ascii())
}

/// Those offers that are read, joined. The others would let the peers agree on bytes that are not.
fn readable<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let kept: Vec<String> = list(values)
        .filter(|offer| deflate(offer).is_some())
        .collect();
    (!kept.is_empty()).then(|| kept.join(", "))
}

/// Elements of a list of extensions. No value of RFC 7692 has a comma in quotes.
fn list<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = String> {
    values.flat_map(|value| {
        String::from_utf8_lossy(value)
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
    })
}

/// Reads an offer of, or an answer with, permessage-deflate; `None` where it is another extension or has a parameter that is unknown, wrong or there twice (RFC 7692 §7.1).
/// Windows need no reading: what inflates with the largest inflates with each, and Chaperone compresses nothing.
fn deflate(extension: &str) -> Option<Deflate> {
    let mut parts = extension.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(DEFLATE) {
        return None;
    }
    let mut read = Deflate::default();
    let mut seen: Vec<String> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            ("server_no_context_takeover", None) => read.upstream_no_context = true,
            ("client_no_context_takeover", None) => read.agent_no_context = true,
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits" | "server_max_window_bits", Some(bits)) => {
                let bits: u8 = bits.parse().ok()?;
                (8..=15).contains(&bits).then_some(())?;
            }
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> impl Iterator<Item = &[u8]> {
        std::iter::once(value.as_bytes())
    }

    fn none() -> impl Iterator<Item = &'static [u8]> {
        std::iter::empty()
    }

    fn offer(extensions: &str) -> Offer {
        Offer::read(one("dGhlIHNhbXBsZSBub25jZQ=="), one("13"), one(extensions)).unwrap()
    }

    #[test]
    fn the_key_of_the_rfc_is_answered() {
        let offer = offer("");
        assert_eq!(
            offer.accepted(one("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), none()),
            Ok(None)
        );
        assert_eq!(
            offer.accepted(one("s3pPLMBiTxaQ9kYGzzhZRbK+xOO="), none()),
            Err(HandshakeError::Accept)
        );
        assert_eq!(offer.accepted(none(), none()), Err(HandshakeError::Accept));
    }

    #[test]
    fn what_is_no_websocket_of_rfc_6455_is_none() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert!(Offer::read(one("short"), one("13"), none()).is_none());
        assert!(Offer::read(one(key), one("8"), none()).is_none());
        assert!(Offer::read(none(), one("13"), none()).is_none());
        assert!(Offer::read(one(key).chain(one(key)), one("13"), none()).is_none());
    }

    #[test]
    fn offers_that_are_not_read_do_not_leave() {
        for (written, kept) in [
            ("x-webkit-deflate-frame", None),
            ("permessage-deflate", Some("permessage-deflate")),
            (
                "foo, permessage-deflate; client_max_window_bits, permessage-bzip2",
                Some("permessage-deflate; client_max_window_bits"),
            ),
            ("permessage-deflate; unknown", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            (
                "permessage-deflate; server_max_window_bits=10; server_no_context_takeover, permessage-deflate",
                Some(
                    "permessage-deflate; server_max_window_bits=10; server_no_context_takeover, permessage-deflate",
                ),
            ),
        ] {
            assert_eq!(offer(written).extensions.as_deref(), kept, "{written}");
        }
    }

    #[test]
    fn an_answer_agrees_to_what_was_offered() {
        let accept = || one("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let offer = offer("permessage-deflate");
        assert_eq!(
            offer.accepted(
                accept(),
                one("permessage-deflate; server_no_context_takeover")
            ),
            Ok(Some(Deflate {
                agent_no_context: false,
                upstream_no_context: true
            }))
        );
        for wrong in [
            "permessage-deflate, permessage-deflate",
            "foo",
            "permessage-deflate; foo",
        ] {
            assert_eq!(
                offer.accepted(accept(), one(wrong)),
                Err(HandshakeError::Extension)
            );
        }
        let bare = Offer {
            extensions: None,
            ..offer
        };
        assert_eq!(
            bare.accepted(accept(), one("permessage-deflate")),
            Err(HandshakeError::Extension)
        );
    }
}
