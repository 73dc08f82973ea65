//! Counts what an agent sends that costs more to answer than to send: resets, and frames that carry nothing.
//!
//! The codec bounds what it holds in memory; this bounds what it is made to do. Owns a view of the frames as they pass (RFC 9113 §4.1), and nothing of their payload.
//! Invariant: how bytes are cut into reads changes no count.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Io;

/// Resets by the agent at once. Each may have cost the upstream a request that nobody waits for (rapid reset, CVE-2023-44487); clients that cancel a screenful of requests
/// stay far below.
const RESETS: Allowance = Allowance {
    at_once: 1024,
    per_second: 128,
};
/// SETTINGS, PING, PRIORITY and unknown frames at once: each is answered or thrown away (CVE-2019-9512, CVE-2019-9515). gRPC's probes of the path take some tens a second.
const CONTROLS: Allowance = Allowance {
    at_once: 1024,
    per_second: 128,
};
/// Longest time from the first byte of a header block to its last, as over HTTP/1. Nothing else can be read meanwhile (RFC 9113 §4.3).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the client's preface, and of a frame's head.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;

/// Frame types that are counted or followed.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Resets.
    Resets,
    /// Frames that carry nothing.
    Controls,
    /// A header block that does not end.
    SlowHead,
}

impl Flood {
    /// In words.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Resets => "the agent resets streams faster than requests can be served",
            Self::Controls => {
                "the agent sends more SETTINGS, PING and PRIORITY frames than requests"
            }
            Self::SlowHead => "a request head took longer than 30 s",
        }
    }

    /// The word in records and metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Resets | Self::Controls => "flood",
            Self::SlowHead => "head-timeout",
        }
    }
}

/// How many of a kind are taken.
#[derive(Clone, Copy)]
struct Allowance {
    at_once: u32,
    per_second: u32,
}

/// What is left of an allowance.
struct Bucket {
    allowance: Allowance,
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self {
            allowance,
            left: allowance.at_once,
            filled: now,
        }
    }

    /// Takes one; false when there is none left.
    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            let more = u64::from(self.allowance.per_second).saturating_mul(seconds);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(self.allowance.at_once);
            self.filled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

/// Follows the frames of one direction.
struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_len: usize,
    /// Payload bytes of the frame that are still to come.
    left: usize,
    resets: Bucket,
    controls: Bucket,
    /// When the header block under way began.
    head_since: Option<Instant>,
    flood: Option<Flood>,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self {
            preface: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            head_len: 0,
            left: 0,
            resets: Bucket::full(RESETS, now),
            controls: Bucket::full(CONTROLS, now),
            head_since: None,
            flood: None,
        }
    }

    fn see(&mut self, mut bytes: &[u8], now: Instant) {
        bytes = skip(bytes, &mut self.preface);
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Some(slot) = self.head.get_mut(self.head_len) {
                *slot = byte;
                self.head_len = self.head_len.saturating_add(1);
                bytes = rest;
                if self.head_len < FRAME_HEAD_BYTES {
                    continue;
                }
                self.begin(now);
            } else {
                bytes = skip(bytes, &mut self.left);
            }
            if self.left == 0 {
                self.end();
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        let [high, middle, low, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        let taken = match kind {
            DATA | PUSH_PROMISE | GOAWAY | WINDOW_UPDATE => true,
            HEADERS | CONTINUATION => {
                self.head_since.get_or_insert(now);
                true
            }
            RST_STREAM => self.resets.take(now),
            _ => self.controls.take(now),
        };
        if !taken {
            self.flood.get_or_insert(match kind {
                RST_STREAM => Flood::Resets,
                _ => Flood::Controls,
            });
        }
    }

    fn end(&mut self) {
        let [_, _, _, kind, flags, ..] = self.head;
        if matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.head_since = None;
        }
        self.head_len = 0;
    }
}

/// What came of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Frames that reset a stream.
    pub resets: u32,
    /// Frames that carry nothing.
    pub controls: u32,
    /// Whether a header block is under way.
    pub in_head: bool,
    /// Whether it was too much.
    pub flooded: bool,
}

/// What the meter makes of a connection's bytes that come in these parts, all at one moment.
pub fn measure<'b>(parts: impl Iterator<Item = &'b [u8]>) -> Measured {
    let now = Instant::now();
    let mut frames = Frames::new(now);
    parts.for_each(|part| frames.see(part, now));
    Measured {
        resets: RESETS.at_once.saturating_sub(frames.resets.left),
        controls: CONTROLS.at_once.saturating_sub(frames.controls.left),
        in_head: frames.head_since.is_some(),
        flooded: frames.flood.is_some(),
    }
}

/// Drops up to `count` bytes, and counts them off.
fn skip<'a>(bytes: &'a [u8], count: &mut usize) -> &'a [u8] {
    let skipped = bytes.len().min(*count);
    *count = count.saturating_sub(skipped);
    bytes.get(skipped..).unwrap_or_default()
}

/// What a connection's meter says.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Mutex<Frames>>);

impl Meter {
    /// What was too much, if anything was.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.frames(|frames| frames.flood)
    }

    /// When the header block under way, if there is one, has taken too long.
    pub(crate) fn head_ends(&self) -> Option<Instant> {
        self.frames(|frames| frames.head_since.map(|since| since + HEAD_TIMEOUT))
    }

    fn frames<T>(&self, ask: impl FnOnce(&mut Frames) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream whose read bytes are metered.
pub(crate) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    /// Meters what is read from `stream`, from the client's preface on.
    pub(crate) fn new(stream: S) -> (Self, Meter) {
        let meter = Meter(Arc::new(Mutex::new(Frames::new(Instant::now()))));
        let metered = Self {
            stream,
            meter: meter.clone(),
        };
        (metered, meter)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(read) = buf.filled().get(before..).filter(|read| !read.is_empty()) {
            self.meter.frames(|frames| frames.see(read, Instant::now()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Io> Io for Metered<S> {
    fn break_off(&mut self) {
        self.stream.break_off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What frames after a preface come to, in reads of this size.
    fn seen(frames: &[u8], size: usize, now: Instant) -> Frames {
        let mut all = Frames::new(now);
        for part in [&[b'P'; PREFACE_BYTES], frames].concat().chunks(size) {
            all.see(part, now);
        }
        all
    }

    #[test]
    fn resets_and_empty_frames_are_counted_however_they_are_cut() {
        let now = Instant::now();
        for (kind, flood) in [
            (RST_STREAM, Flood::Resets),
            (4, Flood::Controls),
            (6, Flood::Controls),
            (200, Flood::Controls),
        ] {
            for size in [1, 7, 9, 13, 4096] {
                let many = |count| {
                    [
                        frame(DATA, 0, b"12345"),
                        frame(kind, 0, b"1234").repeat(count),
                    ]
                    .concat()
                };
                assert_eq!(seen(&many(1024), size, now).flood, None, "{kind} {size}");
                assert_eq!(
                    seen(&many(1025), size, now).flood,
                    Some(flood),
                    "{kind} {size}"
                );
            }
        }
    }

    #[test]
    fn an_allowance_fills_again() {
        let now = Instant::now();
        let mut bucket = Bucket::full(RESETS, now);
        assert!((0..1024).all(|_| bucket.take(now)) && !bucket.take(now));
        let later = now + Duration::from_secs(2);
        assert_eq!((0..1024).filter(|_| bucket.take(later)).count(), 256);
    }

    #[test]
    fn a_header_block_is_under_way_from_its_first_frame_to_the_last_byte_of_its_last() {
        let now = Instant::now();
        let block = [
            frame(HEADERS, 0, b"abc"),
            frame(CONTINUATION, END_HEADERS, b"def"),
        ]
        .concat();
        for end in 0..=block.len() {
            let under_way = seen(&block[..end], 1000, now).head_since.is_some();
            assert_eq!(
                under_way,
                (FRAME_HEAD_BYTES..block.len()).contains(&end),
                "{end}"
            );
        }
    }
}
