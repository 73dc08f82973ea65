//! One direction of one stream: payload and trailers, taken from a side as fast as the other takes them.
//!
//! Invariant: a byte's flow-control credit goes back to its sender only once the other side's window had room for it, so that a slow reader slows its writer and nothing
//! between them grows.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use chaperone_crds::record::MaskedInfo;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::{
    ended::Ended,
    head::{Fields, replace},
};
use crate::{
    body::{BodyFilter, CodingError, Outgoing},
    http::sample::Sample,
};

/// What a turn of a direction brings.
pub(crate) enum Turn {
    /// Payload. Give its credit back with [`release`] once it is used.
    Data(Bytes),
    /// The payload is over; trailers, if there are any.
    End(Option<HeaderMap>),
    /// The receiver has reset its stream.
    Reset(Reason),
}

/// The next of what `from` sends; a reset by `to` counts before it.
///
/// # Errors
/// When `from` is reset or gone.
pub(crate) async fn next(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
) -> Result<Turn, h2::Error> {
    let data = poll_fn(|cx| match reset(to, cx) {
        Some(reason) => Poll::Ready(Err(reason)),
        None => from.poll_data(cx).map(Ok),
    });
    match data.await {
        Err(reason) => Ok(Turn::Reset(reason)),
        Ok(Some(data)) => Ok(Turn::Data(data?)),
        Ok(None) => Ok(Turn::End(from.trailers().await?)),
    }
}

/// Whether the receiver reset its stream. A connection that broke counts as cancelled.
fn reset(to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Option<Reason> {
    match to.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => Some(reason),
        Poll::Ready(Err(_)) => Some(Reason::CANCEL),
        Poll::Pending => None,
    }
}

/// Gives credit for payload back to its sender.
pub(crate) fn release(from: &mut RecvStream, bytes: usize) {
    // Refused only for more than was taken.
    let _ = from.flow_control().release_capacity(bytes);
}

/// Sends payload as the receiver's window has room for it. `last`: nothing follows.
///
/// # Errors
/// The receiver's reset.
pub(crate) async fn send(
    to: &mut SendStream<Bytes>,
    mut payload: Bytes,
    last: bool,
) -> Result<(), Reason> {
    while !payload.is_empty() {
        to.reserve_capacity(payload.len());
        if to.capacity() == 0 && !matches!(poll_fn(|cx| to.poll_capacity(cx)).await, Some(Ok(_))) {
            return Err(poll_fn(|cx| Poll::Ready(reset(to, cx)))
                .await
                .unwrap_or(Reason::CANCEL));
        }
        let part = payload.split_to(payload.len().min(to.capacity()));
        let ends = last && payload.is_empty();
        to.send_data(part, ends).map_err(reason_of)?;
    }
    Ok(())
}

/// Fields that mean nothing in trailers, and that a server which translates them might take for the head's (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// Ends a direction.
///
/// # Errors
/// The receiver's reset.
pub(crate) fn end(to: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), Reason> {
    match trailers {
        Some(mut trailers) => {
            for name in NOT_IN_TRAILERS {
                trailers.remove(name);
            }
            to.send_trailers(trailers)
        }
        None => to.send_data(Bytes::new(), true),
    }
    .map_err(reason_of)
}

fn reason_of(error: h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::CANCEL)
}

/// A request's body on its way to the upstream.
pub(crate) struct Upload<'a> {
    /// Where it comes from.
    pub(crate) from: &'a mut RecvStream,
    /// Where it goes.
    pub(crate) to: &'a mut SendStream<Bytes>,
    /// What was read of it before.
    pub(crate) held: Bytes,
    /// Its beginning, for the record.
    pub(crate) sample: &'a mut Sample,
    /// Its bytes, what was held included.
    pub(crate) bytes: &'a mut u64,
    /// Filters it.
    pub(crate) filter: Option<&'a mut BodyFilter>,
    /// Edits its trailers.
    pub(crate) outgoing: &'a Outgoing,
    /// Trailers that were read before.
    pub(crate) trailers: Option<HeaderMap>,
    /// What masks found in trailers.
    pub(crate) found: &'a mut Vec<MaskedInfo>,
}

impl Upload<'_> {
    /// Passes it on. An upstream that wants no more of it is no error: it may have answered.
    ///
    /// # Errors
    /// When the agent breaks off.
    pub(crate) async fn pass(mut self) -> Result<(), Ended> {
        match self.pass_on().await {
            // What the upstream means by it is for its response to say.
            Ok(()) | Err(Stop::Upstream) => Ok(()),
            Err(Stop::Agent(error)) => Err(Ended::by_agent(error)),
            Err(Stop::Undecodable(error)) => Err(Ended::Undecodable(error)),
            Err(Stop::Unsendable(error)) => Err(Ended::Unsendable(error)),
        }
    }

    async fn pass_on(&mut self) -> Result<(), Stop> {
        let held = std::mem::take(&mut self.held);
        let trailers = self.trailers.take();
        if !held.is_empty() {
            let last = trailers.is_none() && self.from.is_end_stream();
            self.send(held, last).await?;
            if last {
                return Ok(());
            }
        }
        if trailers.is_some() {
            return self.end(trailers).await;
        }
        loop {
            match next(self.from, self.to).await.map_err(Stop::Agent)? {
                Turn::Data(data) => {
                    let (size, last) = (data.len(), self.from.is_end_stream());
                    *self.bytes = self.bytes.saturating_add(size as u64);
                    self.sample.push(&data);
                    let empty = data.is_empty() && self.filter.is_none();
                    self.send(data, last).await?;
                    release(self.from, size);
                    if last {
                        return if empty {
                            Ok(end(self.to, None)?)
                        } else {
                            Ok(())
                        };
                    }
                }
                Turn::End(trailers) => return self.end(trailers).await,
                Turn::Reset(_) => return Err(Stop::Upstream),
            }
        }
    }

    /// Sends payload, through the filter if there is one. `last`: nothing follows.
    async fn send(&mut self, payload: Bytes, last: bool) -> Result<(), Stop> {
        let Some(filter) = &mut self.filter else {
            return Ok(send(self.to, payload, last).await?);
        };
        filter.push(&payload);
        if last {
            return self.end(None).await;
        }
        pull(filter, self.to).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Stop> {
        let trailers = trailers.map(|trailers| self.edited(trailers)).transpose()?;
        if let Some(filter) = &mut self.filter {
            filter.end();
            pull(filter, self.to).await?;
        }
        Ok(end(self.to, trailers)?)
    }

    /// Trailers as they leave: masked, and without those that say what is false of a filtered body.
    fn edited(&mut self, trailers: HeaderMap) -> Result<HeaderMap, Stop> {
        let fields = Fields(trailers);
        let edits = self.outgoing.trailers(&fields, self.filter.is_some());
        let mut kept = fields.0;
        for name in &edits.gone {
            kept.remove(name.as_str());
        }
        replace(&mut kept, edits.changed).map_err(|error| Stop::Unsendable(error.to_string()))?;
        self.found.extend(edits.findings);
        Ok(kept)
    }
}

/// Sends all that the filter lets go.
async fn pull(filter: &mut BodyFilter, to: &mut SendStream<Bytes>) -> Result<(), Stop> {
    loop {
        let mut out = Vec::new();
        let more = filter.pull(&mut out)?;
        send(to, out.into(), false).await?;
        if !more {
            return Ok(());
        }
    }
}

/// Why an upload stops.
enum Stop {
    Agent(h2::Error),
    Upstream,
    Undecodable(CodingError),
    Unsendable(String),
}

impl From<CodingError> for Stop {
    fn from(error: CodingError) -> Self {
        Self::Undecodable(error)
    }
}

impl From<Reason> for Stop {
    fn from(_: Reason) -> Self {
        Self::Upstream
    }
}
