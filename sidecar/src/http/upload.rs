//! A request's body on its way to the upstream: as written, followed only to know where it ends; or filtered and framed anew.

mod leaves;

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::leaves::{Leaves, Trailers};
use super::{
    held::{BODY_TIMEOUT, Held},
    sample::Sample,
};
use crate::{
    body::{BodyFilter, CodingError},
    http1::{BodyDecoder, BodyError, BodyFraming, HeaderEditError, write_chunk, write_last_chunk},
    wire::{self, Appetite},
};

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The agent's bytes are no body.
    #[error("the request body is malformed: {0}")]
    Malformed(#[from] BodyError),
    /// It is not what its content coding says, and must be read.
    #[error("the request cannot be decoded: {0}")]
    Coding(#[from] CodingError),
    /// Its trailers cannot be edited.
    #[error("the trailers of the request cannot be edited: {0}")]
    Edit(#[from] HeaderEditError),
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

/// A request on its way out.
pub(crate) struct Sending<'a> {
    /// The head.
    pub(crate) head: BytesMut,
    /// What was read of the body before.
    pub(crate) held: Held,
    /// How the agent frames the body.
    pub(crate) framing: BodyFraming,
    /// Where the body ends.
    pub(crate) body: &'a mut BodyDecoder,
    /// The body's beginning, for the record.
    pub(crate) sample: &'a mut Sample,
    /// Filters the body, which is sent in chunks then.
    pub(crate) filter: Option<&'a mut BodyFilter>,
    /// Edits the trailers of a body that goes through a filter.
    pub(crate) trailers: &'a mut Trailers,
}

impl Sending<'_> {
    /// Sends the request. `unread` holds what came from the agent and is not used; at the end, what belongs to the next request.
    pub(crate) async fn send<R, W>(
        mut self,
        agent: &mut R,
        unread: &mut BytesMut,
        upstream: &mut W,
    ) -> Result<(), UploadError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut out = std::mem::take(&mut self.head);
        let held = std::mem::take(&mut self.held);
        match &mut self.filter {
            Some(filter) => {
                BodyDecoder::new(self.framing)
                    .pump(&held.written, |payload| filter.push(payload))?;
                if self.body.is_done() {
                    filter.end();
                }
                self.write(&mut out, upstream).await?;
            }
            None => wire::send_both(upstream, &mut out, &held.written)
                .await
                .map_err(UploadError::Upstream)?,
        }
        drop((out, held));
        self.rest(agent, unread, upstream).await
    }

    async fn rest<R, W>(
        &mut self,
        agent: &mut R,
        unread: &mut BytesMut,
        upstream: &mut W,
    ) -> Result<(), UploadError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut appetite = Appetite::default();
        while !self.body.is_done() {
            if unread.is_empty() {
                let read = appetite
                    .fill(agent, unread)
                    .await
                    .map_err(UploadError::Agent)?;
                if read == 0 {
                    self.body.eof()?;
                    return Ok(());
                }
            }
            let bytes = self.take(unread)?;
            if self.filter.is_some() {
                self.write(&mut BytesMut::new(), upstream).await?;
            } else {
                wire::send(upstream, &bytes)
                    .await
                    .map_err(UploadError::Upstream)?;
            }
        }
        Ok(())
    }

    /// Takes what is unread, also to the filter if there is one. Returns it as written.
    fn take(&mut self, unread: &mut BytesMut) -> Result<BytesMut, UploadError> {
        let (sample, filter) = (&mut *self.sample, &mut self.filter);
        let progress = self.body.pump(unread, |payload| {
            sample.push(payload);
            if let Some(filter) = filter {
                filter.push(payload);
            }
        })?;
        if let Some(filter) = filter
            && progress.done
        {
            filter.end();
        }
        Ok(unread.split_to(progress.consumed))
    }

    /// Sends what is in `out` and all that the filter lets go, a bounded piece at a time.
    async fn write<W: AsyncWrite + Unpin>(
        &mut self,
        out: &mut BytesMut,
        upstream: &mut W,
    ) -> Result<(), UploadError> {
        let mut filtered = Vec::new();
        loop {
            let mut more = false;
            if let Some(filter) = &mut self.filter {
                more = filter.pull(&mut filtered)?;
                write_chunk(out, &filtered);
                filtered.clear();
                if filter.is_done() {
                    write_last_chunk(out, &self.trailers.edited(self.body.trailers())?);
                }
            }
            if !out.is_empty() {
                wire::send(upstream, out)
                    .await
                    .map_err(UploadError::Upstream)?;
                out.clear();
            }
            if !more {
                return Ok(());
            }
        }
    }
}
