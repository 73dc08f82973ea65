//! Content codings (RFC 9110 §8.4.1) undone and applied again as bytes stream: gzip, deflate, br, zstd, and stacks of them.
//!
//! Owns which codings are read, and the bounds on what a few bytes may unfold to. Refuses other codings, bytes after the end of a coded body,
//! and bodies that end early. Invariant: a call yields at most [`PIECE_BYTES`], so that memory does not grow with what a body unfolds to, and a
//! coded text cut anywhere gives the same text.

mod decoder;
mod encoder;

pub(crate) use decoder::DecodeStack;
pub(crate) use encoder::EncodeStack;

/// Most bytes that one step of decoding yields: what is unfolded is looked at before more is.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;
/// Most codings of one body. Real ones have one; two come from a proxy that compresses what was compressed; each costs a window of memory.
pub const MAX_CODINGS: usize = 3;
/// Decoded bytes up to which no ratio is asked for. Zeros and logs compress well, and to look at this much takes a fraction of a second.
pub const FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Most decoded bytes for each byte on the wire, beyond [`FREE_BYTES`]. deflate cannot exceed 1032; text stays below 100; brotli and zstd can unfold a
/// few bytes to gigabytes, which would keep a processor busy for one sender's convenience.
pub const MAX_RATIO: u64 = 1000;
/// Largest window of a zstd frame, as a power of two: 8 MiB, which RFC 9659 §3 bounds the coding `zstd` to in HTTP.
pub const ZSTD_WINDOW_LOG: u32 = 23;

/// A content coding that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate`: the zlib format (RFC 1950), and the bare deflate (RFC 1951) that some servers send under this name.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878, RFC 9659).
    Zstd,
}

impl Coding {
    /// The coding of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("br") => Some(Self::Brotli),
            4 if is("gzip") => Some(Self::Gzip),
            4 if is("zstd") => Some(Self::Zstd),
            6 if is("x-gzip") => Some(Self::Gzip),
            7 if is("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// The codings of a body, in the order in which they were applied, from the values of its `Content-Encoding` fields.
///
/// # Errors
/// The names as written, where one is not read or there are more than [`MAX_CODINGS`].
pub fn codings<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Vec<Coding>, String> {
    let mut found = Vec::new();
    let mut all: Vec<String> = Vec::new();
    let mut known = true;
    let elements = values.flat_map(|value| value.split(|&b| b == b','));
    for name in elements.map(<[u8]>::trim_ascii) {
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        match Coding::named(name) {
            Some(coding) => found.push(coding),
            None => known = false,
        }
        if all.len() <= MAX_CODINGS {
            all.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    if known && found.len() <= MAX_CODINGS {
        Ok(found)
    } else {
        Err(all.join(", "))
    }
}

/// What is left of an `Accept-Encoding` value (RFC 9110 §12.5.3) when only codings that are read are asked for; `None` where all of it may stay.
pub fn readable_only(value: &[u8]) -> Option<Vec<u8>> {
    let elements = || value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let stays = |element: &[u8]| {
        let mut parts = element.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        // What is refused with a weight of 0 may be named as well; `*` stands for codings that nobody has thought of yet.
        let refused = parts.any(|part| {
            let (key, weight) = part.split_at_checked(2).unwrap_or_default();
            key.eq_ignore_ascii_case(b"q=")
                && !weight.is_empty()
                && weight.iter().all(|b| matches!(b, b'0' | b'.'))
        });
        name.is_empty()
            || refused
            || name.eq_ignore_ascii_case(b"identity")
            || Coding::named(name).is_some()
    };
    if elements().all(stays) {
        return None;
    }
    let kept: Vec<&[u8]> = elements().filter(|e| !e.is_empty() && stays(e)).collect();
    Some(match kept.is_empty() {
        true => b"identity".to_vec(),
        false => kept.join(&b", "[..]),
    })
}

/// Why a coded body is not read on. Of several codings, which one is named may depend on how the bytes came: what a decoder held before its fault is only seen, and perhaps at
/// fault itself, if it came in a call of its own. That there is a fault depends on the bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// The bytes are not of the coding.
    #[error("the body is not valid {0}")]
    Corrupt(&'static str),
    /// It ends early.
    #[error("the {0} body ends before its end")]
    Truncated(&'static str),
    /// Bytes follow its end.
    #[error("bytes follow the end of the {0} body")]
    Trailing(&'static str),
    /// It unfolds to too much.
    #[error("the body unfolds to more than {MAX_RATIO} times its size beyond {FREE_BYTES} bytes")]
    Bomb,
    /// A message of a gRPC call cannot be read.
    #[error("a gRPC message cannot be read: {0}")]
    Message(&'static str),
    /// Policy denies a message of a gRPC call.
    #[error("policy denies a message of the call")]
    Denied,
}

#[cfg(test)]
mod tests;
