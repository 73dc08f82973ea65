//! The bounds of one HTTP/2 connection, and the endpoints of the `h2` crate that keep them.
//!
//! Memory of a connection is, at the worst, and a side: payload that was not passed on yet ([`CONNECTION_WINDOW_BYTES`]), what small DATA frames take beyond it
//! ([`SMALL_FRAMES_BYTES`]), payload that waits to be written ([`SEND_BUFFER_BYTES`] a stream), and header lists ([`MAX_HEADER_LIST_BYTES`] a stream). Only a peer that sends all
//! that and reads nothing makes it so; a connection with one quiet stream takes some tens of KiB.
//!
//! The crate itself bounds CONTINUATION frames (as many as a header list of that size needs), DATA frames without payload (100 unread ones), and answers to SETTINGS and PING
//! (one at a time: nothing is read while one waits to be written).

use std::time::Duration;

use bytes::Bytes;
use h2::{client, server};
use tokio::io::{AsyncRead, AsyncWrite};

/// Most requests of one connection at a time, as nginx has it. What comes beyond is answered with REFUSED_STREAM, and clients that read SETTINGS wait.
pub(crate) const MAX_STREAMS: u32 = 128;
/// Largest header list in bytes, each field counted as RFC 9113 §6.5.2 says. As much as an HTTP/1 head may have; what is larger is answered with 431.
pub(crate) const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Bytes that a peer may send on one stream ahead of what the other side has taken. At 20 ms of round trip this lets 100 Mbit/s through.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together: sixteen streams whose receivers stall leave room for the others.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;
/// What DATA frames below 256 bytes may take in memory beyond their payload, unread ones of a connection together. As much as the windows: a stream of small messages whose
/// receiver is slow fills its window before it comes near. Beyond, the connection ends with ENHANCE_YOUR_CALM.
pub(crate) const SMALL_FRAMES_BYTES: usize = CONNECTION_WINDOW_BYTES as usize;
/// Bytes that one stream may have waiting to be written, beyond which it takes no more.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Largest DATA frame that is taken. As many bytes as a TLS record has, so that a frame is never waited for longer than a record.
const FRAME_BYTES: u32 = 16 * 1024;
/// Streams that were reset by the sidecar and whose late frames are still ignored. A peer learns of a reset within a round trip; what comes later ends the connection.
const MAX_RESET_STREAMS: usize = MAX_STREAMS as usize;
/// How long late frames of such streams are ignored.
const RESET_MEMORY: Duration = Duration::from_secs(10);
/// Streams that a client may have opened and reset before the sidecar looked at them. Beyond, the connection ends with ENHANCE_YOUR_CALM (rapid reset, CVE-2023-44487).
const MAX_UNSEEN_RESETS: usize = 64;
/// Streams that the sidecar may have to reset because a peer broke the protocol. Beyond, the connection ends with ENHANCE_YOUR_CALM (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 256;

/// Begins the agent's side.
pub(crate) fn server<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> server::Handshake<T, Bytes> {
    server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_frame_size(FRAME_BYTES)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .handshake(io)
}

/// Begins the upstream's side.
///
/// # Errors
/// When the preface cannot be written.
pub(crate) async fn client<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
) -> Result<(client::SendRequest<Bytes>, client::Connection<T, Bytes>), h2::Error> {
    client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_frame_size(FRAME_BYTES)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .handshake(io)
        .await
}
