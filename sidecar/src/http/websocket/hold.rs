//! A message that waits for its decision, within what all that wait may take.
//!
//! Invariant: the held messages of all connections together take no more than [`ROOM_BYTES`], whatever their senders do; one for which there is no room cannot be judged.

use bytes::BytesMut;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::talk::MAX_HELD_BYTES;

/// Most bytes as written of a message that is held. Frames of one byte would take many times the payload.
const MAX_WRITTEN_BYTES: usize = 2 * MAX_HELD_BYTES;
/// Most bytes that held messages of all connections take at once; a message for which there is no room cannot be judged.
const ROOM_BYTES: usize = 32 * 1024 * 1024;
/// Unit of room, in bytes: what a held message takes before it asks for more.
const ROOM_UNIT: usize = 32 * 1024;
/// There is one data path in a process.
static ROOM: Semaphore = Semaphore::const_new(ROOM_BYTES / ROOM_UNIT);

/// A message that waits.
#[derive(Default)]
pub(super) struct Hold {
    /// Its frames as written.
    pub(super) raw: BytesMut,
    /// What they say.
    pub(super) payload: Vec<u8>,
    /// Kept as long as the bytes are.
    room: Option<SemaphorePermit<'static>>,
}

impl Hold {
    /// Whether this much more may be held.
    pub(super) fn has_room(&mut self, more: usize) -> bool {
        let payload = self.payload.len().saturating_add(more);
        let total = payload.saturating_add(self.raw.len());
        if payload > MAX_HELD_BYTES || self.raw.len() > MAX_WRITTEN_BYTES {
            return false;
        }
        let units = total / ROOM_UNIT;
        let taken = self.room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let Some(missing) = units.checked_sub(taken).filter(|missing| *missing > 0) else {
            return true;
        };
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
