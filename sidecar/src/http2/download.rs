//! A response on its way to the agent: interim heads, the head, payload as it is or masked, trailers.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header, response::Parts};

use super::{
    ended::Ended,
    flow::{self, Turn, release},
    head::{Fields, replace},
};
use crate::{
    body::{
        BodyFilter, CodingError, Edit, Look, Message, Treatment, Unreadable, is_false_when_masked,
        masked_fields,
    },
    grpc::{self, Call, Verdict},
    http::{
        download::{DownloadError, MAX_INTERIM, MAX_LOOKED_AT_BYTES},
        sample::Sample,
    },
    websocket::{Deflate, HandshakeError, Offer},
};

/// What is done to a response.
pub(crate) struct Plan {
    /// Masks that apply to text.
    pub(crate) masks: Option<Arc<CompiledMasks>>,
    /// Whether an unreadable response is refused (Enforce) or passed and recorded (Audit).
    pub(crate) strict: bool,
    /// Whether the agent was told 100 Continue already.
    pub(crate) continued: bool,
    /// The gRPC call that the request is, where its messages may be read.
    pub(crate) call: Option<Arc<Call>>,
}

/// What came of a response. Filled as it goes, so that it is right even when the response breaks off.
pub(crate) struct Progress {
    /// Status and fields of the final response, once they were sent to the agent.
    pub(crate) head: Option<(u16, Fields)>,
    /// Payload bytes that the upstream sent.
    pub(crate) bytes: u64,
    /// When the head came.
    pub(crate) answered: Option<Instant>,
    /// Status of a gRPC call, where trailers said it.
    pub(crate) grpc_status: Option<u32>,
    /// What masks found.
    pub(crate) findings: Vec<MaskedInfo>,
    /// The body's beginning, for the record.
    pub(crate) sample: Sample,
    /// A response that should have been masked and passed unread (Audit).
    pub(crate) unmasked: Option<Unreadable>,
    /// What was wrong with a body that was passed on all the same (Audit).
    pub(crate) note: Option<CodingError>,
    /// What masks found in heads, interim ones too.
    pub(crate) head_findings: Vec<MaskedInfo>,
    /// What policy says of messages of a gRPC call.
    pub(crate) verdict: Option<Verdict>,
}

/// A response under way.
pub(crate) struct Download {
    response: ResponseFuture,
    plan: Plan,
    filter: Option<Box<BodyFilter>>,
    progress: Progress,
}

/// What the upstream made of a CONNECT.
pub(crate) enum Answered {
    /// It opened a tunnel, or WebSocket with this compression.
    Tunnel(RecvStream, SendStream<Bytes>, Option<Deflate>),
    /// It answered, and the answer was passed on whole.
    Passed,
}

/// What comes of a stream before its payload.
enum NextHead {
    Interim(Response<()>),
    Final(Response<RecvStream>),
}

impl Download {
    /// Awaits `response`. `sample` keeps the body's beginning.
    pub(crate) fn new(response: ResponseFuture, plan: Plan, sample: Sample) -> Self {
        Self {
            response,
            plan,
            filter: None,
            progress: Progress {
                head: None,
                bytes: 0,
                answered: None,
                grpc_status: None,
                findings: Vec::new(),
                sample,
                unmasked: None,
                note: None,
                head_findings: Vec::new(),
                verdict: None,
            },
        }
    }

    /// What came of it.
    pub(crate) fn finish(mut self) -> Progress {
        let filter = self.filter.as_ref();
        self.progress.verdict = filter.and_then(|filter| filter.verdict().cloned());
        self.progress
    }

    /// Passes the response on. `to` is there once its head was sent.
    ///
    /// # Errors
    /// As [`Ended`]. If `progress.head` is there, the agent has received part of a response: only a reset tells it the truth, or the end of a gRPC call.
    pub(crate) async fn pass(
        &mut self,
        respond: &mut SendResponse<Bytes>,
        to: &mut Option<SendStream<Bytes>>,
    ) -> Result<(), Ended> {
        let (parts, from) = self.final_head(respond).await?.into_parts();
        self.pass_final(parts, from, respond, to).await
    }

    /// Passes the response to a CONNECT on; the tunnel is the caller's, and so is WebSocket, which the response must then have agreed to as it was offered.
    ///
    /// # Errors
    /// As [`Download::pass`].
    pub(crate) async fn open(
        &mut self,
        respond: &mut SendResponse<Bytes>,
        offer: Option<&Offer>,
    ) -> Result<Answered, Ended> {
        let (parts, from) = self.final_head(respond).await?.into_parts();
        if !parts.status.is_success() {
            self.pass_final(parts, from, respond, &mut None).await?;
            return Ok(Answered::Passed);
        }
        let deflate = match offer {
            Some(offer) => agreed(offer, &parts.headers).map_err(DownloadError::Handshake)?,
            None => None,
        };
        let to = self.send_head(parts, false, respond)?;
        Ok(Answered::Tunnel(from, to, deflate))
    }

    /// Heads until one is final; interim ones are passed on.
    async fn final_head(
        &mut self,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Response<RecvStream>, Ended> {
        for _ in 0..=MAX_INTERIM {
            match poll_fn(|cx| self.poll_head(respond, cx)).await? {
                NextHead::Final(response) => {
                    self.progress.answered = Some(Instant::now());
                    return Ok(response);
                }
                // HTTP/2 has no 101 (RFC 9113 §8.6): the agent's side would break its whole connection for it.
                NextHead::Interim(response) if response.status() == 101 => {
                    return Err(Ended::Refused(DownloadError::Switch));
                }
                NextHead::Interim(mut response) => {
                    self.mask_fields(response.headers_mut())?;
                    let repeated = response.status().as_u16() == 100 && self.plan.continued;
                    if !repeated {
                        respond
                            .send_informational(response)
                            .map_err(Ended::by_agent)?;
                    }
                }
            }
        }
        Err(Ended::Refused(DownloadError::Interim))
    }

    fn poll_head(
        &mut self,
        respond: &mut SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<NextHead, Ended>> {
        match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => return Poll::Ready(Err(Ended::AgentReset(reason))),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::by_agent(error))),
            Poll::Pending => {}
        }
        match self.response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => Poll::Ready(Ok(NextHead::Interim(interim))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(Ended::by_upstream(error))),
            Poll::Ready(None) => Pin::new(&mut self.response)
                .poll(cx)
                .map_ok(NextHead::Final)
                .map_err(Ended::by_upstream),
            Poll::Pending => Poll::Pending,
        }
    }

    async fn pass_final(
        &mut self,
        mut parts: Parts,
        mut from: RecvStream,
        respond: &mut SendResponse<Bytes>,
        to: &mut Option<SendStream<Bytes>>,
    ) -> Result<(), Ended> {
        let looked_at = self.choose_filter(&mut parts, &mut from, respond).await?;
        let first = match looked_at {
            Some(first) => Some(first),
            None => payload_that_came(&mut from).await?,
        };
        let last = from.is_end_stream();
        // Before the head leaves, so that a body that is not what its coding says is refused in words.
        let mut ready = match &first {
            Some(first) => self.take(first, last)?,
            None => Ready::default(),
        };
        let ended = first.is_none() && last;
        let to = to.insert(self.send_head(parts, ended, respond)?);
        if ended {
            return Ok(());
        }
        if let Some(first) = first {
            self.send_ready(&mut ready, last, to).await?;
            release(&mut from, first.len());
            if last {
                return Ok(());
            }
        }
        self.pass_body(&mut from, to).await
    }

    /// Sends the head of the final response.
    fn send_head(
        &mut self,
        mut parts: Parts,
        ended: bool,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<SendStream<Bytes>, Ended> {
        self.mask_fields(&mut parts.headers)?;
        let mut response = Response::new(());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers.clone();
        let to = respond
            .send_response(response, ended)
            .map_err(Ended::by_agent)?;
        self.progress.head = Some((parts.status.as_u16(), Fields(parts.headers)));
        Ok(to)
    }

    /// Masks the values of fields.
    fn mask_fields(&mut self, headers: &mut HeaderMap) -> Result<(), Ended> {
        let Some(masks) = &self.plan.masks else {
            return Ok(());
        };
        let fields = Fields(std::mem::take(headers));
        let (changed, findings) = masked_fields(masks, &fields);
        self.progress.head_findings.extend(findings);
        *headers = fields.0;
        replace(headers, changed).map_err(|error| Ended::Unsendable(error.to_string()))
    }

    /// Decides what is done to the body, and edits the head accordingly. Where its type says nothing, its first payload does, which is returned.
    async fn choose_filter(
        &mut self,
        parts: &mut Parts,
        from: &mut RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Option<Bytes>, Ended> {
        let fields = Fields(std::mem::take(&mut parts.headers));
        self.progress.sample.describe(&fields);
        let message = Message {
            status: parts.status.as_u16(),
            has_body: !from.is_end_stream(),
            fields: &fields,
        };
        let (masks, strict) = (self.plan.masks.as_ref(), self.plan.strict);
        let call = self.plan.call.as_ref();
        let of_call = call.and_then(|call| call.treat(&fields, message.has_body, masks, strict));
        let mut treatment = of_call.unwrap_or_else(|| message.treat(masks, strict));
        parts.headers = fields.0;
        let mut first = None;
        if let Treatment::Look(look) = &mut treatment {
            let (seen, found) = look_at(look, from, respond).await?;
            (first, treatment) = (Some(seen), found);
        }
        match treatment {
            Treatment::Pass | Treatment::Look(_) => {}
            Treatment::PassUnread(why) => self.progress.unmasked = Some(why),
            Treatment::Refuse(why) => return Err(Ended::Refused(why.into())),
            Treatment::HeadOnly(edits) => apply(&mut parts.headers, &edits),
            Treatment::Filter(edits, filter) => {
                apply(&mut parts.headers, &edits);
                self.filter = Some(filter);
            }
        }
        Ok(first)
    }

    async fn pass_body(
        &mut self,
        from: &mut RecvStream,
        to: &mut SendStream<Bytes>,
    ) -> Result<(), Ended> {
        loop {
            match flow::next(from, to).await.map_err(Ended::by_upstream)? {
                Turn::Data(data) => {
                    let last = from.is_end_stream();
                    let mut ready = self.take(&data, last)?;
                    self.send_ready(&mut ready, last, to).await?;
                    release(from, data.len());
                    if last {
                        return Ok(());
                    }
                }
                Turn::End(None) => {
                    let mut ready = self.take(&Bytes::new(), true)?;
                    return self.send_ready(&mut ready, true, to).await;
                }
                Turn::End(Some(trailers)) => {
                    let mut ready = self.take(&Bytes::new(), true)?;
                    self.send_ready(&mut ready, false, to).await?;
                    let trailers = self.trailers(trailers)?;
                    self.progress.grpc_status = grpc::status(&Fields(trailers.clone()));
                    return flow::end(to, Some(trailers)).map_err(Ended::AgentReset);
                }
                Turn::Reset(reason) => return Err(Ended::AgentReset(reason)),
            }
        }
    }

    /// Takes payload and yields what may leave; `last`: the payload is over.
    fn take(&mut self, data: &Bytes, last: bool) -> Result<Ready, Ended> {
        self.progress.bytes = self.progress.bytes.saturating_add(data.len() as u64);
        self.progress.sample.push(data);
        let Some(filter) = &mut self.filter else {
            return Ok(Ready {
                payload: data.clone(),
                more: false,
            });
        };
        filter.push(data);
        if last {
            filter.end();
        }
        self.pull()
    }

    fn pull(&mut self) -> Result<Ready, Ended> {
        let Some(filter) = &mut self.filter else {
            return Ok(Ready::default());
        };
        let mut out = Vec::new();
        let pulled = filter.pull(&mut out);
        self.progress.findings.clear();
        self.progress.findings.extend_from_slice(filter.findings());
        self.progress.note = filter.note();
        let more = pulled.map_err(|error| Ended::Refused(error.into()))?;
        Ok(Ready {
            payload: Bytes::from(out),
            more,
        })
    }

    /// Sends what may leave, a bounded piece at a time, and ends the stream after the last.
    async fn send_ready(
        &mut self,
        ready: &mut Ready,
        last: bool,
        to: &mut SendStream<Bytes>,
    ) -> Result<(), Ended> {
        loop {
            let payload = std::mem::take(&mut ready.payload);
            let (empty, ends) = (payload.is_empty(), last && !ready.more);
            flow::send(to, payload, ends)
                .await
                .map_err(Ended::AgentReset)?;
            if !ready.more {
                return match ends && empty {
                    true => flow::end(to, None).map_err(Ended::AgentReset),
                    false => Ok(()),
                };
            }
            *ready = self.pull()?;
        }
    }

    /// Trailers as the agent gets them: masked, and without those that say what is false of a masked body.
    fn trailers(&mut self, trailers: HeaderMap) -> Result<HeaderMap, Ended> {
        let altered = self.filter.is_some();
        let mut kept: HeaderMap = trailers
            .iter()
            .filter(|(name, _)| !altered || !is_false_when_masked(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.mask_fields(&mut kept)?;
        Ok(kept)
    }
}

/// Payload that may leave.
#[derive(Default)]
struct Ready {
    payload: Bytes,
    /// Whether there is more to pull.
    more: bool,
}

/// Edits a head. Names and values come from lists of ours or from the head itself, so none is refused.
fn apply(headers: &mut HeaderMap, edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Remove(name) => {
                headers.remove(name.as_str());
            }
            Edit::Set(name, value) => {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    }
}

/// Looks at the first payload of a body whose type says nothing, and keeps it.
async fn look_at(
    look: &mut Look,
    from: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
) -> Result<(Bytes, Treatment), Ended> {
    let mut first = BytesMut::new();
    loop {
        let data = poll_fn(|cx| match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Ended::AgentReset(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Ended::by_agent(error))),
            Poll::Pending => from.poll_data(cx).map(Ok),
        });
        let ended = match data.await? {
            None => true,
            Some(data) => {
                first.extend_from_slice(&data.map_err(Ended::by_upstream)?);
                from.is_end_stream()
            }
        };
        let enough = ended || first.len() >= MAX_LOOKED_AT_BYTES;
        if let Some(treatment) = look.at(&first, enough) {
            return Ok((first.freeze(), treatment));
        }
    }
}

/// Payload that came together with the head.
async fn payload_that_came(from: &mut RecvStream) -> Result<Option<Bytes>, Ended> {
    let polled = poll_fn(|cx| match from.poll_data(cx) {
        Poll::Ready(data) => Poll::Ready(data),
        Poll::Pending => Poll::Ready(None),
    });
    polled.await.transpose().map_err(Ended::by_upstream)
}

/// The compression that a response agrees to. HTTP/2 has no key, so there is no answer to one.
fn agreed(offer: &Offer, fields: &HeaderMap) -> Result<Option<Deflate>, HandshakeError> {
    let answers = fields.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter();
    offer.accepted(std::iter::empty(), answers.map(HeaderValue::as_bytes))
}
