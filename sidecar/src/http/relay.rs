//! Both directions of one exchange at once: a response may begin before its request ends, and an agent may leave before its response comes.

use std::pin::pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    download::{DownloadError, Plan, Progress, download},
    upload::{Sending, UploadError},
};
use crate::wire::{self, Halves, Io, READ_BYTES, Wire};

/// What came of the two directions.
pub(crate) struct Outcomes {
    /// Why the request did not go out whole, if so.
    pub(crate) upload: Option<UploadError>,
    /// Whether the upstream connection is good for more.
    pub(crate) download: Result<bool, DownloadError>,
}

impl Outcomes {
    fn answered(download: Result<bool, DownloadError>) -> Self {
        Self {
            upload: None,
            download,
        }
    }

    fn failed(upload: UploadError) -> Self {
        Self {
            upload: Some(upload),
            download: Err(DownloadError::NoAnswer),
        }
    }
}

/// Sends a request and passes its response on, until the response is whole, and the request too where the connection goes on.
pub(crate) async fn relay<A: Io, U: Io>(
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    sending: Sending<'_>,
    plan: &Plan<'_>,
    progress: &mut Progress,
) -> Outcomes {
    let from_agent = &mut agent.unread;
    let (agents, upstreams) = (
        Halves::of(&mut agent.stream),
        Halves::of(&mut upstream.stream),
    );
    let (mut agent_read, mut agent_write) = (agents.half(), agents.half());
    let (mut upstream_read, mut upstream_write) = (upstreams.half(), upstreams.half());
    let mut receive = pin!(download(
        &mut upstream_read,
        &mut upstream.unread,
        &mut agent_write,
        plan,
        progress,
    ));
    let sent = {
        let mut send = pin!(sending.send(&mut agent_read, from_agent, &mut upstream_write));
        tokio::select! {
            biased;
            sent = &mut send => sent,
            received = &mut receive => return match received {
                // The response came first and keeps the connection: the rest of the request belongs to it.
                Ok(true) => Outcomes { upload: send.await.err(), download: Ok(true) },
                other => Outcomes::answered(other),
            },
        }
    };
    match sent {
        Ok(()) => tokio::select! {
            biased;
            received = &mut receive => Outcomes::answered(received),
            error = hang_up(&mut agent_read, from_agent, &mut upstream_write) => Outcomes::answered(Err(DownloadError::Agent(error))),
        },
        // The upstream may have answered before it stopped reading.
        Err(error @ UploadError::Upstream(_)) => Outcomes {
            download: receive.await,
            upload: Some(error),
        },
        Err(error) => Outcomes::failed(error),
    }
}

/// Ready when the agent breaks off while it waits for a response. An agent that only ends its side is told to the upstream, which judges for itself, as it would without
/// Chaperone. Reads ahead no more than one buffer: pipelined requests wait in the socket.
async fn hang_up<R, W>(agent: &mut R, unread: &mut BytesMut, upstream: &mut W) -> std::io::Error
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    while unread.len() < READ_BYTES {
        match wire::fill(agent, unread).await {
            Ok(0) => {
                if unread.is_empty() {
                    let _ = upstream.shutdown().await;
                }
                break;
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}
