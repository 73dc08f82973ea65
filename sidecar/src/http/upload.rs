//! A request's body on its way to the upstream: as written, followed only to know where it ends.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{held::BODY_TIMEOUT, sample::Sample};
use crate::{
    http1::{BodyDecoder, BodyError},
    wire::{self, Appetite},
};

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The agent's bytes are no body.
    #[error("the request body is malformed: {0}")]
    Malformed(#[from] BodyError),
    /// The agent went away.
    #[error("the agent ended the connection in its request body: {0}")]
    Agent(io::Error),
    /// A rule waits for the body, and it takes too long.
    #[error("the request body, which a rule reads, took longer than {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    /// The upstream takes no more. It may have answered all the same.
    #[error("the upstream stopped reading the request body: {0}")]
    Upstream(io::Error),
}

/// Passes the rest of a body on. `unread` holds what came from the agent and is not used; at the end, what belongs to the next request.
pub(crate) async fn upload<R, W>(
    agent: &mut R,
    unread: &mut BytesMut,
    upstream: &mut W,
    body: &mut BodyDecoder,
    sample: &mut Sample,
) -> Result<(), UploadError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut appetite = Appetite::default();
    while !body.is_done() {
        if unread.is_empty() {
            let read = appetite
                .fill(agent, unread)
                .await
                .map_err(UploadError::Agent)?;
            if read == 0 {
                body.eof()?;
                return Ok(());
            }
        }
        let progress = body.pump(unread, |payload| sample.push(payload))?;
        let bytes = unread.split_to(progress.consumed);
        wire::send(upstream, &bytes)
            .await
            .map_err(UploadError::Upstream)?;
    }
    Ok(())
}
