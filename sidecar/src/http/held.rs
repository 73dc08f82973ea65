//! A body that is held because a rule reads it: payload for the rule, and the bytes as written for the upstream.
//!
//! Invariant: the bodies of all connections together take no more than [`ROOM_BYTES`], whatever agents send.

use std::{io, time::Duration};

use bytes::BytesMut;
use chaperone_crds::decide::MAX_JUDGED_BODY_BYTES;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{sample::Sample, upload::UploadError};
use crate::{
    http1::{BodyDecoder, BodyFraming},
    wire::{Io, Wire},
};

/// Longest wait for a body that a rule reads, room for it included.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of such a body as written. Chunks of one byte with long extensions would take thousands of times the payload.
const MAX_WRITTEN_BYTES: usize = 2 * MAX_JUDGED_BODY_BYTES;
/// Most bytes that held bodies take at once: a quarter of the sidecar's default memory limit.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// Unit of room, in bytes.
const ROOM_UNIT: usize = 1024;
/// There is one data path in a process.
static ROOM: Semaphore = Semaphore::const_new(ROOM_BYTES / ROOM_UNIT);

/// Waits for room for a body of at most so many bytes. Kept as long as the bytes are.
pub(crate) async fn room_for(bytes: usize) -> Option<SemaphorePermit<'static>> {
    let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
    ROOM.acquire_many(units).await.ok()
}

/// What was read of a body before its request went on.
#[derive(Default)]
pub(crate) struct Held {
    /// The bytes as written.
    pub(crate) written: BytesMut,
    /// Kept as long as the bytes are.
    room: Option<SemaphorePermit<'static>>,
}

impl Held {
    /// Reads the body; `None` when it is too large to be judged. Either way all that was read is in `written`.
    ///
    /// # Errors
    /// When the body is malformed, does not come, or takes longer than [`BODY_TIMEOUT`].
    pub(crate) async fn read<A: Io>(
        &mut self,
        agent: &mut Wire<A>,
        framing: BodyFraming,
        body: &mut BodyDecoder,
        sample: &mut Sample,
    ) -> Result<Option<Vec<u8>>, UploadError> {
        let most = match framing {
            BodyFraming::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= MAX_JUDGED_BODY_BYTES => length.saturating_mul(2),
                _ => return Ok(None),
            },
            _ => MAX_JUDGED_BODY_BYTES.saturating_add(MAX_WRITTEN_BYTES),
        };
        let reading = async {
            self.room = room_for(most).await;
            self.fill(agent, body, sample).await
        };
        tokio::time::timeout(BODY_TIMEOUT, reading)
            .await
            .unwrap_or(Err(UploadError::TooSlow))
    }

    async fn fill<A: Io>(
        &mut self,
        agent: &mut Wire<A>,
        body: &mut BodyDecoder,
        sample: &mut Sample,
    ) -> Result<Option<Vec<u8>>, UploadError> {
        let mut payload = Vec::new();
        loop {
            let progress = body.pump(&agent.unread, |part| {
                payload.extend_from_slice(part);
                sample.push(part);
            })?;
            self.written
                .extend_from_slice(&agent.unread.split_to(progress.consumed));
            if payload.len() > MAX_JUDGED_BODY_BYTES || self.written.len() > MAX_WRITTEN_BYTES {
                return Ok(None);
            }
            if body.is_done() {
                return Ok(Some(payload));
            }
            if agent.fill().await.map_err(UploadError::Agent)? == 0 {
                return Err(UploadError::Agent(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}
