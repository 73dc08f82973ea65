//! Bodies: bounded each in size and time, and all together in bytes.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use chaperone_ledger::store::MAX_BATCH_BYTES;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::too_large;
use crate::refusal::{Code, Refusal};

/// Bytes of all bodies that are read or wait for a commit. Beyond it clients are told to come again: 16 of the longest batches, or thousands of usual ones.
const BUDGET_BYTES: usize = 128 * 1024 * 1024;
/// How long a body may take: the longest batch at 280 kB/s.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Room for bodies.
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

impl Budget {
    /// A whole body, and the room that it takes until that is dropped.
    pub(super) async fn read(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let announced = body.size_hint().lower();
        if usize::try_from(announced).map_or(true, |bytes| bytes > MAX_BATCH_BYTES) {
            return Err(too_large());
        }
        timeout(READ_TIMEOUT, self.collect(body))
            .await
            .unwrap_or_else(|_| {
                let why = format!("the body took more than {} s", READ_TIMEOUT.as_secs());
                Err(Refusal::new(Code::Slow, why))
            })
    }

    /// Takes room as bytes come: what a client announces costs nothing.
    async fn collect(&self, mut body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let mut bytes = BytesMut::new();
        let mut room = self.room(0)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::new(Code::Malformed, format!("the body broke off: {error}"))
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len().saturating_add(data.len()) > MAX_BATCH_BYTES {
                return Err(too_large());
            }
            room.merge(self.room(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), room))
    }

    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).try_acquire_many_owned(wanted);
        room.map_err(|_| {
            let why = format!("{BUDGET_BYTES} bytes of batches are under way already");
            Refusal::new(Code::Busy, why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_taken_as_bytes_come_and_given_back() {
        let budget = Budget::default();
        let (bytes, room) = budget.read(Body::from("abc")).await.unwrap();
        assert_eq!(bytes, "abc");
        assert_eq!(budget.0.available_permits(), BUDGET_BYTES - 3);
        drop(room);
        assert_eq!(budget.0.available_permits(), BUDGET_BYTES);
    }

    #[tokio::test]
    async fn bodies_beyond_the_bounds_are_refused() {
        let budget = Budget(Arc::new(Semaphore::new(10)));
        let refused = budget.read(Body::from("x".repeat(11))).await.unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        assert_eq!(budget.0.available_permits(), 10);
        let long = Body::from("x".repeat(MAX_BATCH_BYTES + 1));
        let refused = Budget::default().read(long).await.unwrap_err();
        assert_eq!(refused.code, Code::TooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = futures::stream::pending::<std::io::Result<Bytes>>();
        let refused = Budget::default()
            .read(Body::from_stream(endless))
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::Slow);
    }
}
