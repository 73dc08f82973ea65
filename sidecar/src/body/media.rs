//! What a media type says of a body.

pub use crate::mask::Format;

/// Most bytes of a body that are looked at to tell text from other bytes.
pub const SNIFFED_BYTES: usize = 512;

/// What a media type says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Text, or what may hold text: masked.
    Text(Format),
    /// No text: passes as it is.
    Binary,
    /// Nothing: the body's first bytes tell. Downloads of any kind come as `application/octet-stream`, and a mask must not change a byte of a program.
    Unsaid,
}

/// Reads the value of a `Content-Type` field (RFC 9110 §8.3).
pub fn media(content_type: Option<&[u8]>) -> Media {
    let essence = content_type
        .unwrap_or_default()
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let Some(slash) = memchr::memchr(b'/', &essence) else {
        return Media::Unsaid;
    };
    let (kind, sub) = essence.split_at(slash);
    let sub = sub.get(1..).unwrap_or_default();
    match kind {
        _ if sub == b"octet-stream" => Media::Unsaid,
        b"image" if sub.ends_with(b"+xml") => Media::Text(Format::Plain),
        b"image" | b"audio" | b"video" | b"font" => Media::Binary,
        b"application" if BINARY.contains(&sub) || sub.starts_with(b"grpc") => Media::Binary,
        b"application" if format(kind, sub) == Format::Plain && !is_known_text(sub) => {
            Media::Unsaid
        }
        _ => Media::Text(format(kind, sub)),
    }
}

/// Whether a media type below `application/` is text. Others (archives, images of containers, messages of schemas) change with every vendor, so their bytes tell.
fn is_known_text(sub: &[u8]) -> bool {
    sub.ends_with(b"xml") || TEXT.contains(&sub)
}

/// Media types below `application/` whose bytes are text.
const TEXT: [&[u8]; 9] = [
    b"javascript",
    b"ecmascript",
    b"x-javascript",
    b"graphql",
    b"yaml",
    b"x-yaml",
    b"toml",
    b"sql",
    b"x-sh",
];

fn format(kind: &[u8], sub: &[u8]) -> Format {
    match sub {
        b"json" | b"json-seq" | b"x-json" | b"manifest+json" => Format::Json,
        _ if sub.ends_with(b"+json") || sub.ends_with(b"+json-seq") => Format::Json,
        b"ndjson" | b"x-ndjson" | b"jsonl" | b"x-jsonl" | b"jsonlines" | b"x-jsonlines"
        | b"json-lines" | b"x-json-stream" | b"json-stream" => Format::Lines,
        b"event-stream" if kind == b"text" => Format::Events,
        b"x-www-form-urlencoded" => Format::Form,
        _ => Format::Plain,
    }
}

/// Media types below `application/` whose bytes are no text.
const BINARY: [&[u8]; 12] = [
    b"gzip",
    b"zip",
    b"zstd",
    b"x-tar",
    b"x-gzip",
    b"x-xz",
    b"x-bzip2",
    b"x-7z-compressed",
    b"pdf",
    b"wasm",
    b"x-git-packed-objects",
    b"x-git-upload-pack-result",
];

/// Whether bytes are text: UTF-8 (perhaps cut inside a character) without NUL.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let utf8 = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    utf8 && memchr::memchr(0, bytes).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_text_from_other_bytes() {
        let plain = Media::Text(Format::Plain);
        for (value, expected) in [
            (None, Media::Unsaid),
            (Some("text/html; charset=utf-8"), plain),
            (Some("image/svg+xml"), plain),
            (
                Some("application/json; charset=utf-8"),
                Media::Text(Format::Json),
            ),
            (Some("application/vnd.api+json"), Media::Text(Format::Json)),
            (Some("application/x-ndjson"), Media::Text(Format::Lines)),
            (Some("text/event-stream"), Media::Text(Format::Events)),
            (Some("image/png"), Media::Binary),
            (Some("Application/Octet-Stream"), Media::Unsaid),
            (Some("application/gzip"), Media::Binary),
            (Some("application/grpc+proto"), Media::Binary),
            (
                Some("application/vnd.oci.image.layer.v1.tar+gzip"),
                Media::Unsaid,
            ),
            (Some("application/xhtml+xml"), plain),
            (Some("application/graphql"), plain),
            (Some("nonsense"), Media::Unsaid),
        ] {
            assert_eq!(media(value.map(str::as_bytes)), expected, "{value:?}");
        }
    }

    #[test]
    fn text_is_utf8_without_nul() {
        assert!(is_text(b""));
        assert!(is_text("gr\u{fc}n".as_bytes()));
        assert!(is_text(&"gr\u{fc}n".as_bytes()[..3]));
        assert!(!is_text(b"\x7fELF\x02\x01\x00"));
        assert!(!is_text(b"\xff\xfea"));
    }
}
