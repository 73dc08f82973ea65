//! Counting: messages and their bytes, and the status that gRPC-Web puts at the body's end.
//!
//! Invariant: whatever the bytes, memory stays bounded by [`MAX_TRAILER_BYTES`].

/// Bytes before each message: flags, and the length as a big-endian number.
const PREFIX_BYTES: usize = 5;
/// Flag of the frame in which gRPC-Web carries trailers ("gRPC-Web", "Protocol differences").
pub(super) const TRAILERS: u8 = 0x80;
/// Most bytes of such a frame that are looked at for the status. As much as a trailer section of HTTP/1 may have.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Counts the messages of one direction (`Length-Prefixed-Message`).
#[derive(Debug, Default)]
pub struct Messages {
    /// Messages that came whole.
    pub count: u64,
    /// Their bytes, as encoded.
    pub bytes: u64,
    /// The prefix so far.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Bytes of the message under way that are still to come.
    left: u64,
    /// The frame of trailers, as far as it is looked at.
    trailers: Vec<u8>,
}

impl Messages {
    /// Sees more of the body.
    pub fn push(&mut self, mut payload: &[u8]) {
        while let Some((&byte, rest)) = payload.split_first() {
            if let Some(slot) = self.prefix.get_mut(self.prefix_len) {
                *slot = byte;
                self.prefix_len = self.prefix_len.saturating_add(1);
                payload = rest;
                if self.prefix_len == PREFIX_BYTES {
                    self.begin();
                }
                continue;
            }
            let here = payload
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (part, rest) = payload.split_at_checked(here).unwrap_or((payload, &[]));
            self.see(part);
            payload = rest;
        }
    }

    fn begin(&mut self) {
        let [_, length @ ..] = self.prefix;
        self.left = u64::from(u32::from_be_bytes(length));
        if self.left == 0 {
            self.end();
        }
    }

    fn see(&mut self, part: &[u8]) {
        if self.is_trailers() {
            let room = MAX_TRAILER_BYTES.saturating_sub(self.trailers.len());
            self.trailers
                .extend_from_slice(part.get(..room).unwrap_or(part));
        }
        self.left = self.left.saturating_sub(part.len() as u64);
        if self.left == 0 {
            self.end();
        }
    }

    fn end(&mut self) {
        if !self.is_trailers() {
            let [_, length @ ..] = self.prefix;
            self.count = self.count.saturating_add(1);
            self.bytes = self
                .bytes
                .saturating_add(u64::from(u32::from_be_bytes(length)));
        }
        self.prefix_len = 0;
    }

    fn is_trailers(&self) -> bool {
        let [flags, ..] = self.prefix;
        flags & TRAILERS != 0
    }

    /// The status in gRPC-Web's trailers, once they came.
    #[must_use]
    pub fn status(&self) -> Option<u32> {
        let text = std::str::from_utf8(&self.trailers).ok()?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("grpc-status"))
            .and_then(|(_, value)| value.trim().parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flags: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[flags][..], &length, body].concat()
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let wire = [
            message(0, b"abc"),
            message(0, b""),
            message(1, &[9; 300]),
            message(TRAILERS, b"grpc-status: 5\r\ngrpc-message: x\r\n"),
        ]
        .concat();
        for size in [1, 2, 3, 5, 7, 64, 1000] {
            let mut messages = Messages::default();
            for part in wire.chunks(size) {
                messages.push(part);
            }
            assert_eq!((messages.count, messages.bytes), (3, 303), "{size}");
            assert_eq!(messages.status(), Some(5));
        }
    }

    #[test]
    fn a_message_that_does_not_end_is_not_counted() {
        let mut messages = Messages::default();
        messages.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        messages.push(&[0; 1000]);
        assert_eq!((messages.count, messages.status()), (0, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted_without_panic_and_in_bounds(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..50)) {
            let mut messages = Messages::default();
            for part in &parts {
                messages.push(part);
            }
            prop_assert!(messages.trailers.len() <= MAX_TRAILER_BYTES);
        }
    }
}
