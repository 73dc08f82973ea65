//! The bounds of what the HTTP/1.x codec holds in memory or walks through.

/// Bytes of a head, from the start line to its empty line. Four times nginx's largest request
/// header buffer (`4 × 8k` lines), so that nothing an upstream accepts by default fails here first.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Fields in a head. Apache allows 100 and Envoy 100; a parse keeps one stack slot for each.
pub const MAX_HEADERS: usize = 128;

/// Bytes of a method. The longest registered one has 17 (`UPDATEREDIRECTREF`).
pub const MAX_METHOD_BYTES: usize = 32;

/// Bytes of a host name: 253 is DNS's limit, one more for the root's dot (RFC 1035 §2.3.4).
pub const MAX_HOST_BYTES: usize = 254;

/// Bytes of one chunk-size line with its extensions (RFC 9112 §7.1.1 asks for a limit).
pub const MAX_CHUNK_LINE: usize = 4 * 1024;

/// Bytes of a trailer section, which is held back until it is complete (RFC 9112 §7.1.2).
pub const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Fields in a trailer section.
pub const MAX_TRAILERS: usize = 64;

/// Largest `Content-Length` or chunk size in bytes: what a signed 64-bit peer still reads the
/// same way (2^63 - 1).
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// Bytes that a head may grow to by edits of the proxy: its parsed bytes stay in place and each
/// `set` or `append` adds a line.
pub const MAX_EDITED_HEAD_BYTES: usize = 2 * MAX_HEAD_BYTES;
