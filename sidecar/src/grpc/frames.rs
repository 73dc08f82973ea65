//! Frames of gRPC (`Length-Prefixed-Message`), held until each is whole.
//!
//! Invariant: no frame is held beyond [`MAX_MESSAGE_BYTES`], and all frames that are held at once take no more than [`ROOM_BYTES`], whatever their senders do.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes before each message: flags, and the length as a big-endian number.
pub(super) const PREFIX_BYTES: usize = 5;
/// Longest message that is held, as sent and unfolded, in bytes: the longest that clients take unless told otherwise.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes that held messages of all calls take at once.
pub(crate) const ROOM_BYTES: usize = 32 * 1024 * 1024;
/// Unit of room, in bytes: what a message takes before it asks for more.
const ROOM_UNIT: usize = 32 * 1024;
/// There is one data path in a process.
static ROOM: Semaphore = Semaphore::const_new(ROOM_BYTES / ROOM_UNIT);

/// What bytes bring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'b> {
    /// A frame, its prefix included.
    Whole(Vec<u8>),
    /// A frame that is not held, as far as it was: what follows of it comes as [`Step::Beyond`].
    TooLong(Vec<u8>),
    /// More of such a frame.
    Beyond(&'b [u8]),
}

/// Reads the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frame: Vec<u8>,
    /// Bytes of a frame that is not held that are still to come.
    beyond: u64,
    room: Option<SemaphorePermit<'static>>,
}

impl Frames {
    /// Takes from `bytes` and says what came of it; `None`: all of it is taken.
    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Step<'b>> {
        if self.beyond > 0 {
            let most = usize::try_from(self.beyond).unwrap_or(usize::MAX);
            let part = take(bytes, most);
            self.beyond = self.beyond.saturating_sub(part.len() as u64);
            return (!part.is_empty()).then_some(Step::Beyond(part));
        }
        let missing = PREFIX_BYTES.saturating_sub(self.frame.len());
        self.frame.extend_from_slice(take(bytes, missing));
        let length = self.length()?;
        let total = length.saturating_add(PREFIX_BYTES);
        if length > MAX_MESSAGE_BYTES {
            return Some(self.give_up(length));
        }
        let missing = total.saturating_sub(self.frame.len());
        let here = bytes.len().min(missing);
        if !self.has_room(self.frame.len().saturating_add(here)) {
            let left = total.saturating_sub(self.frame.len());
            return Some(self.give_up(left));
        }
        self.frame.extend_from_slice(take(bytes, here));
        if self.frame.len() < total {
            return None;
        }
        self.room = None;
        Some(Step::Whole(std::mem::take(&mut self.frame)))
    }

    /// Whether no frame is under way.
    pub(super) fn is_between(&self) -> bool {
        self.frame.is_empty() && self.beyond == 0
    }

    /// What is held of a frame that does not end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        self.room = None;
        std::mem::take(&mut self.frame)
    }

    /// Bytes of the message under way, once its prefix is there.
    fn length(&self) -> Option<usize> {
        let [_, length @ ..] = self.frame.first_chunk::<PREFIX_BYTES>()?;
        usize::try_from(u32::from_be_bytes(*length)).ok()
    }

    fn give_up<'b>(&mut self, left: usize) -> Step<'b> {
        self.beyond = left as u64;
        self.room = None;
        Step::TooLong(std::mem::take(&mut self.frame))
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        let taken = self.room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let missing = (bytes / ROOM_UNIT).saturating_sub(taken);
        if missing == 0 {
            return true;
        }
        let Ok(permit) = ROOM.try_acquire_many(u32::try_from(missing).unwrap_or(u32::MAX)) else {
            return false;
        };
        match &mut self.room {
            Some(room) => room.merge(permit),
            None => self.room = Some(permit),
        }
        true
    }
}

fn take<'b>(bytes: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at_checked(most).unwrap_or((bytes, &[]));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], size: usize) -> (Vec<Vec<u8>>, usize, Vec<u8>) {
        let (mut frames, mut whole, mut beyond) = (Frames::default(), Vec::new(), 0);
        for mut part in wire.chunks(size) {
            while let Some(step) = frames.next(&mut part) {
                match step {
                    Step::Whole(frame) => whole.push(frame),
                    Step::TooLong(_) => beyond += 1,
                    Step::Beyond(part) => beyond += part.len(),
                }
            }
        }
        (whole, beyond, frames.rest())
    }

    #[test]
    fn frames_are_whole_however_they_are_cut_and_long_ones_pass_by() {
        let long = MAX_MESSAGE_BYTES + 1;
        let wire = [
            &[0, 0, 0, 0, 2, b'h', b'i'][..],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0x40, 0, 1],
            &vec![7; long],
            &[0, 0, 0, 0, 1, b'x', 9, 9],
        ]
        .concat();
        for size in [1, 3, 5, 4096, wire.len()] {
            let (whole, beyond, rest) = read(&wire, size);
            assert_eq!(
                whole,
                [
                    &[0, 0, 0, 0, 2, b'h', b'i'][..],
                    &[1, 0, 0, 0, 0],
                    &[0, 0, 0, 0, 1, b'x']
                ]
            );
            assert_eq!((beyond, &rest[..]), (long + 1, &[9, 9][..]), "{size}");
        }
    }
}
