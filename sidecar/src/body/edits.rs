//! What a head must no longer say once its body is filtered.

use chaperone_crds::decide::HeaderFields;

/// One edit of a head. Field names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// All fields of this name go.
    Remove(String),
    /// The field of this name gets this value.
    Set(&'static str, Vec<u8>),
}

/// Fields of a request that ask for a part of a resource. They are left out when masks apply to the response: a part cannot be masked right, since a match may
/// begin before it. The whole may, and a server may always send the whole (RFC 9110 §14.2).
pub const MASKED_REQUEST_FIELDS: [&str; 3] = ["range", "if-range", "a-im"];

/// Fields that are false once a body is masked: its length (RFC 9110 §8.6), that parts of it can be had (§14.3), and digests of the bytes as the origin wrote
/// them (RFC 9530, RFC 1864, RFC 3230 and what the large object stores call theirs).
const FALSE_WHEN_MASKED: [&str; 7] = [
    "content-length",
    "accept-ranges",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "x-goog-hash",
];
/// Beginnings of the names of more such digests.
const FALSE_PREFIXES: [&str; 1] = ["x-amz-checksum-"];

/// Whether a field, also of a trailer, is false once the body is masked. `name` is in lower case.
pub(crate) fn is_false_when_masked(name: &str) -> bool {
    FALSE_WHEN_MASKED.contains(&name) || FALSE_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// The edits of a response whose body is filtered, or would be if it were sent (HEAD, 304).
pub(crate) fn of_masked_response(fields: &dyn HeaderFields) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::new();
    for (name, value) in fields.fields() {
        let name = name.to_ascii_lowercase();
        if is_false_when_masked(&name) {
            let edit = Edit::Remove(name);
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        } else if name == "etag" {
            edits.extend(weakened(value).map(|value| Edit::Set("etag", value)));
        }
    }
    edits
}

/// A masked body is equivalent to the origin's, not the same bytes, which is what a weak tag says (RFC 9110 §8.8.1).
fn weakened(tag: &[u8]) -> Option<Vec<u8>> {
    tag.starts_with(b"\"").then(|| [b"W/", tag].concat())
}

/// The value of an `If-Match` field with the tags that the origin knows; `None` where it stays. A weak tag never matches there (RFC 9110 §13.1.1), so it is
/// either one of ours, or matches nothing as a strong one either.
pub(crate) fn strong_again(if_match: &[u8]) -> Option<Vec<u8>> {
    let mut strong = Vec::with_capacity(if_match.len());
    let mut quoted = false;
    let mut rest = if_match;
    let mut changed = false;
    while let Some((&byte, after)) = rest.split_first() {
        if !quoted && rest.starts_with(b"W/\"") {
            changed = true;
            rest = rest.get(2..).unwrap_or_default();
            continue;
        }
        quoted ^= byte == b'"';
        strong.push(byte);
        rest = after;
    }
    changed.then_some(strong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_false_of_a_masked_body_goes_and_tags_become_weak() {
        let fields = [
            ("Content-Length", "5"),
            ("ETag", "\"a\""),
            ("Repr-Digest", "sha-256=:x:"),
            ("X-Amz-Checksum-CRC32", "x"),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "text/plain"),
        ];
        assert_eq!(
            of_masked_response(&fields),
            [
                Edit::Remove("content-length".into()),
                Edit::Set("etag", b"W/\"a\"".to_vec()),
                Edit::Remove("repr-digest".into()),
                Edit::Remove("x-amz-checksum-crc32".into()),
                Edit::Remove("accept-ranges".into()),
            ]
        );
        assert_eq!(of_masked_response(&[("etag", "W/\"a\"")]), []);
    }

    #[test]
    fn tags_that_we_weakened_match_again() {
        for (sent, forwarded) in [
            ("W/\"a\"", Some("\"a\"")),
            ("\"b\", W/\"W/\"", Some("\"b\", \"W/\"")),
            ("\"W/\"", None),
            ("*", None),
        ] {
            let expected = forwarded.map(|tag| tag.as_bytes().to_vec());
            assert_eq!(strong_again(sent.as_bytes()), expected, "{sent}");
        }
    }
}
