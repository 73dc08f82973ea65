//! The story of one exchange: judge the request, then answer it or pass it on, and record what came of it.

mod connect;
mod edit;
mod h2c;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use chaperone_crds::{
    record::{DecisionInfo, Outcome},
    resources::{Level, Mode},
};

use super::{
    Upstream, answer,
    download::{DownloadError, Plan, Progress, Switch},
    failure::Failure,
    held::Held,
    judge::{self, Agreement, Case, Judged, Judgement, Subject, placed},
    record::{Evidence, Received},
    relay::{Outcomes, relay},
    sample::Sample,
    upload::{Leaves, Sending, UploadError},
    view::{RequestView, ResponseView},
    websocket::Opening,
};
use crate::{
    body::BodyFilter,
    grpc::{self, Call, Form, Verdict},
    http1::{
        BodyDecoder, BodyFraming, Headers, RequestHead, ResponseHead, write_chunk, write_last_chunk,
    },
    http2::Upgraded,
    link::{Attempt, Link, Stop, builtin, micros},
    shared::Active,
    tunnel::Tunnel,
    websocket::{Deflate, Offer},
    wire::{Io, Wire},
};

/// Most bytes of a refused request's body that are read so that the connection stays usable. Beyond, closing is cheaper.
const MAX_DRAINED_BYTES: u64 = 1024 * 1024;
/// Longest wait for the body of a refused request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Tells a client that waits for it to send the body (RFC 9110 §15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What follows an exchange.
pub(crate) enum Next {
    /// Another request may come.
    Request,
    /// The destination took no connection: the same request is told again, as one to another address.
    Elsewhere(Box<Link>, Box<Asked>),
    /// The connection ends in good order.
    Close,
    /// It ends, and the agent may still be sending what nobody wants.
    CloseEarly,
    /// The connection breaks off: the agent must not take what it has for complete.
    Abort,
    /// What follows is another protocol, which policy lets pass unread.
    Tunnel(Box<DecisionInfo>),
    /// What follows is inside a tunnel through a proxy.
    Connect(Box<Tunnel>),
    /// What follows is WebSocket.
    WebSocket(Box<Opening>),
    /// What follows is HTTP/2, beginning with the response.
    Http2(Box<Upgraded>),
}

/// A request whose story is to be told.
pub(crate) struct Asked {
    head: RequestHead,
    /// Since when it has been under way, where another address was tried for it.
    since: Option<Instant>,
    /// Whether the agent was told 100 Continue.
    continued: bool,
}

impl From<RequestHead> for Asked {
    fn from(head: RequestHead) -> Self {
        Self {
            head,
            since: None,
            continued: false,
        }
    }
}

/// What a switch of protocols would be about, as the agent wrote it: what is judged and recorded later shows no value that took a token's place on the way out.
enum Towards {
    /// WebSocket, if the upstream agrees to it.
    WebSocket(Box<Opening>),
    /// Anything else.
    Place(Subject),
}

/// A request on its way.
struct Exchange<'a, A> {
    link: &'a Link,
    stop: &'a mut Stop,
    active: Arc<Active>,
    agent: &'a mut Wire<A>,
    upstream: &'a mut Upstream,
    /// Whether both sides are TLS.
    secure: bool,
    head: RequestHead,
    body: BodyDecoder,
    /// What was read of the body for the decision.
    held: Held,
    /// What policy says of the bytes that a switch of protocols would bring.
    tunnel: Option<DecisionInfo>,
    /// The request's offer, where it is a WebSocket handshake.
    offer: Option<Offer>,
    /// The agent's settings, where HTTP/2 is offered to the upstream.
    h2c: Option<Vec<u8>>,
    /// The gRPC call that the request is, where its messages may be read.
    call: Option<Arc<Call>>,
    /// What denies a message of it.
    denial: Option<DecisionInfo>,
    /// Whether the upstream connection carried a request before.
    reused: bool,
    /// Whether the agent was told 100 Continue.
    continued: bool,
    sample: Sample,
    evidence: Evidence,
}

/// Tells the story of one exchange. `reused`: the upstream connection carried a request before.
pub(crate) async fn run<A: Io>(
    link: &Link,
    stop: &mut Stop,
    agent: &mut Wire<A>,
    upstream: &mut Upstream,
    secure: bool,
    reused: bool,
    asked: Asked,
) -> Next {
    // While the records of others wait for room, nothing new begins that would need one.
    link.shared.recorder.ready().await;
    let active = link.now();
    let Asked {
        head,
        since,
        continued,
    } = asked;
    let request = RequestView::of_http1(&head, secure);
    let (subject, agreed) = placed(link, &request, secure).await;
    let mut evidence = Evidence::begin(link, &active, &subject, &request);
    if let Some(since) = since {
        evidence = evidence.under_way(since);
    }
    let mut sample = evidence.sample(&active, Level::Request);
    sample.describe(head.headers());
    let body = BodyDecoder::new(head.framing());
    let mut exchange = Box::new(Exchange {
        link,
        stop,
        active,
        agent,
        upstream,
        secure,
        head,
        body,
        held: Held::default(),
        tunnel: None,
        offer: None,
        h2c: None,
        call: None,
        denial: None,
        reused,
        continued,
        sample,
        evidence,
    });
    let judgement = match exchange.judge(&subject, agreed).await {
        Ok(judgement) => judgement,
        Err(error) => return exchange.unanswered(Failure::Upload(error)).await,
    };
    exchange.evidence.judged(&judgement);
    match judgement.decision.action {
        Outcome::Deny => exchange.deny(&judgement).await,
        Outcome::Allow => exchange.forward(subject).await,
    }
}

impl<A: Io> Exchange<'_, A> {
    async fn judge(
        &mut self,
        subject: &Subject,
        agreed: Agreement,
    ) -> Result<Judgement, UploadError> {
        let needs_body = self.case(subject).needs_body() && agreed == Agreement::Yes;
        let judgement = if needs_body {
            let payload = self.read_body().await?;
            let trailers = self.body.trailers();
            let judged = payload
                .as_deref()
                .map_or(Judged::TooLarge, |body| Judged::Whole(body, trailers));
            let mut case = self.case(subject);
            if let Some(payload) = &payload {
                case.request.body_size = Some(payload.len() as u64);
            }
            case.judge(&judged, agreed)
        } else {
            self.case(subject).judge(&Judged::NotRead, agreed)
        };
        Ok(self.judge_switch(judgement))
    }

    fn case<'c>(&'c self, subject: &'c Subject) -> Case<'c> {
        Case {
            link: self.link,
            active: &self.active,
            request: RequestView::of_http1(&self.head, self.secure),
            subject,
        }
    }

    /// A request that may switch the connection to bytes that are not read needs leave for those too. WebSocket is read, and so is the inside of a tunnel.
    fn judge_switch(&mut self, judgement: Judgement) -> Judgement {
        self.offer = offer(&self.head);
        if self.offer.is_some() || self.connects() || !self.may_switch() {
            return judgement;
        }
        let (judgement, tunnel) = judgement.with_tunnel(self.link, &self.active);
        self.tunnel = tunnel;
        judgement
    }

    fn may_switch(&self) -> bool {
        self.head.method() == "CONNECT"
            || self
                .head
                .upgrade()
                .is_some_and(|protocols| !h2c::is_offered(protocols))
    }

    /// Reads the body for a rule; `None` when it is too large. What was read is sent on as written.
    async fn read_body(&mut self) -> Result<Option<Vec<u8>>, UploadError> {
        if self.head.expect_continue()
            && !self.continued
            && self.agent.unread.is_empty()
            && !self.body.is_done()
        {
            self.agent
                .send(CONTINUE)
                .await
                .map_err(UploadError::Agent)?;
            self.continued = true;
        }
        self.held
            .read(
                self.agent,
                self.head.framing(),
                &mut self.body,
                &mut self.sample,
            )
            .await
    }

    /// Answers 403 (or 421). The connection stays usable if the rest of the request can be read away.
    async fn deny(mut self: Box<Self>, judgement: &Judgement) -> Next {
        let keep = self.head.keep_alive() && self.drain().await;
        let decision = &judgement.decision;
        let (status, answer) = if self.evidence.deny_call() {
            let content_type = self.head.headers().get_str("content-type");
            let content_type = content_type.unwrap_or_default();
            (200, answer::denied_call(decision, content_type, keep))
        } else {
            let (status, method) = (judgement.status, self.head.method());
            (status, answer::denied(status, decision, keep, method))
        };
        let sent = self.agent.send(&answer).await;
        self.link
            .shared
            .metrics
            .denials
            .with_label_values(&[&judgement.decision.reason])
            .inc();
        self.evidence.answered(status, sent.is_ok());
        self.end().await;
        if keep && sent.is_ok() {
            Next::Request
        } else {
            Next::CloseEarly
        }
    }

    /// Reads the rest of the body away. False where that is not worth it, or unclear (RFC 9110 §10.1.1).
    async fn drain(&mut self) -> bool {
        if self.body.is_done() {
            return true;
        }
        if self.head.expect_continue() && !self.continued {
            return false;
        }
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while !self.body.is_done() && self.body.payload_bytes() <= MAX_DRAINED_BYTES {
                if self.agent.unread.is_empty() && self.agent.fill().await.unwrap_or(0) == 0 {
                    return;
                }
                let Ok(progress) = self.body.pump(&self.agent.unread, |_| {}) else {
                    return;
                };
                let _ = self.agent.unread.split_to(progress.consumed);
            }
        });
        let _ = drained.await;
        self.body.is_done()
    }

    /// Passes the request on and its response back.
    async fn forward(mut self: Box<Self>, subject: Subject) -> Next {
        match self.dial(&subject).await {
            Ok(None) => {}
            Ok(Some(next)) => return self.elsewhere(next),
            Err(error) => {
                let message = format!("cannot reach the upstream: {error}");
                return self
                    .unanswered(Failure::Upstream("upstream-unreachable", message))
                    .await;
            }
        }
        // Once it is known which address is gone to, and before anything goes there.
        if let Err(why) = self.evidence.begun(self.link, &self.active).await {
            return self.unanswered(Failure::Unheld(why)).await;
        }
        let view = RequestView::of_http1(&self.head, self.secure);
        self.call = judge::call(self.link, &self.active, &self.evidence, &subject, &view);
        let towards = self.towards(subject);
        let masks = self.evidence.response_masks();
        if let Err(error) = self.edit_head(masks.is_some()) {
            return self
                .unanswered(Failure::Upstream("edit", error.to_string()))
                .await;
        }
        let mut leaves = match self.rewrite() {
            Ok(leaves) => leaves,
            Err(failure) => return self.unanswered(failure).await,
        };
        let method = self.head.method().to_owned();
        let offer = self.offer.clone();
        let plan = Plan {
            method: &method,
            version: self.head.version(),
            masks,
            strict: self.active.mode() == Mode::Enforce,
            switch: match (&offer, &self.tunnel) {
                _ if self.connects() => Switch::Connect,
                _ if self.h2c.is_some() => Switch::Http2,
                (Some(offer), _) => Switch::WebSocket(offer),
                (None, Some(_)) => Switch::Tunnel,
                (None, None) => Switch::No,
            },
            continued: self.continued,
            call: self.call.clone(),
        };
        let mut progress = Progress {
            head: None,
            bytes: 0,
            answered: None,
            findings: Vec::new(),
            sample: self.evidence.sample(&self.active, Level::RequestResponse),
            unmasked: None,
            note: None,
            head_findings: Vec::new(),
            verdict: None,
        };
        let since = Instant::now();
        let outcomes = self.pass_both(&mut leaves, &plan, &mut progress).await;
        self.evidence.head_masked(&leaves.findings());
        let filter = leaves.filter.as_deref();
        self.message_judged(filter.and_then(BodyFilter::verdict));
        if let Some(settings) = self.upgraded(&outcomes, &progress) {
            return self.go_on_in_http2(settings, &progress, since);
        }
        self.conclude(outcomes, progress, since, towards).await
    }

    /// Dials the upstream, unless it is there. Returns where to try next, if this address takes no connection.
    async fn dial(&mut self, subject: &Subject) -> io::Result<Option<Box<Link>>> {
        if self.upstream.is_some() {
            return Ok(None);
        }
        match self.link.attempt(subject.name().as_slice()).await? {
            Attempt::Connected(wire) => *self.upstream = Some(wire),
            Attempt::Next(next) => return Ok(Some(next)),
        }
        Ok(None)
    }

    /// Hands the request back as it came: nothing of it was sent, and policy and masks may tell addresses apart.
    fn elsewhere(mut self: Box<Self>, next: Box<Link>) -> Next {
        let mut unread = std::mem::take(&mut self.held.written);
        unread.unsplit(self.agent.unread.split());
        self.agent.unread = unread;
        let asked = Asked {
            head: self.head,
            since: Some(self.evidence.since()),
            continued: self.continued,
        };
        Next::Elsewhere(next, Box::new(asked))
    }

    async fn pass_both(
        &mut self,
        leaves: &mut Leaves,
        plan: &Plan<'_>,
        progress: &mut Progress,
    ) -> Outcomes {
        let Some(upstream) = self.upstream.as_mut() else {
            return Outcomes {
                upload: None,
                download: Err(DownloadError::NoAnswer),
            };
        };
        let mut head = BytesMut::new();
        self.head.write_to(&mut head);
        let sending = Sending {
            head,
            held: std::mem::take(&mut self.held),
            framing: self.head.framing(),
            body: &mut self.body,
            sample: &mut self.sample,
            filter: leaves.filter.as_deref_mut(),
            trailers: &mut leaves.trailers,
        };
        tokio::select! {
            biased;
            outcomes = relay(self.agent, upstream, sending, plan, progress) => outcomes,
            () = self.stop.cut_off() => Outcomes { upload: None, download: Err(DownloadError::Stopping) },
        }
    }

    /// Records what came of it and says what follows.
    async fn conclude(
        mut self: Box<Self>,
        outcomes: Outcomes,
        progress: Progress,
        since: Instant,
        towards: Towards,
    ) -> Next {
        let answered = progress.head.is_some();
        let switched = progress.head.as_ref().is_some_and(ResponseHead::switches);
        self.message_judged(progress.verdict.as_ref());
        self.evidence.response(Received {
            head: progress.head.as_ref().map(ResponseView::of_http1),
            bytes: progress.bytes,
            upstream_us: progress.answered.map(|at| micros(at.duration_since(since))),
            grpc_status: None,
            findings: progress.findings,
            sample: progress.sample,
            unmasked: progress.unmasked.map(|error| error.to_string()),
        });
        self.evidence.head_masked(&progress.head_findings);
        if let Some(note) = progress.note {
            self.evidence.failed(&note.to_string());
        }
        let next = match outcomes.download {
            Ok(_) if switched => {
                self.evidence.complete();
                self.switched(progress.head.as_ref(), towards)
            }
            Ok(reusable) => {
                self.evidence.complete();
                let whole = self.body.is_done() && outcomes.upload.is_none();
                match (whole, reusable && self.head.keep_alive()) {
                    (true, true) => Next::Request,
                    (true, false) => Next::Close,
                    (false, _) => Next::CloseEarly,
                }
            }
            Err(error) if answered && error.is_unread() && self.evidence.deny_call() => {
                self.end_call(Failure::Download(error), progress.head.as_ref())
                    .await
            }
            Err(error) if answered => {
                let message = outcomes
                    .upload
                    .map_or_else(|| error.to_string(), |error| error.to_string());
                self.evidence.failed(&message);
                Next::Abort
            }
            Err(error) => return self.unanswered(Failure::of(outcomes.upload, error)).await,
        };
        self.end().await;
        next
    }

    /// What policy said of messages of the call goes into its record.
    fn message_judged(&mut self, verdict: Option<&Verdict>) {
        if let Some(verdict) = verdict.filter(|_| self.denial.is_none()) {
            self.evidence.message_judged(verdict);
            self.denial = verdict.denies().then(|| verdict.decision.clone());
        }
    }

    /// What refuses the exchange, for its record and the metrics.
    fn refused(&mut self, reason: &'static str, message: &str) -> DecisionInfo {
        let decision = match self.denial.take() {
            Some(denial) => denial,
            None => {
                self.evidence.failed(message);
                builtin(&self.active, Outcome::Deny, reason, message)
            }
        };
        self.evidence.decided(decision.clone());
        let denials = &self.link.shared.metrics.denials;
        denials.with_label_values(&[&decision.reason]).inc();
        decision
    }

    /// Ends a call whose response has begun: in the frame that its client reads, where one may follow.
    async fn end_call(&mut self, failure: Failure, head: Option<&ResponseHead>) -> Next {
        let told = failure.told();
        let decision = self.refused(told.reason, &told.message);
        let said = self.head.headers().get_str("content-type");
        let form = said.and_then(Form::of).unwrap_or(Form::Web);
        let frame = grpc::last_frame(&decision, form);
        let mut out = BytesMut::new();
        match head.map(ResponseHead::framing) {
            Some(BodyFraming::Chunked) => {
                write_chunk(&mut out, &frame);
                write_last_chunk(&mut out, &Headers::default());
            }
            Some(BodyFraming::UntilClose) => out.extend_from_slice(&frame),
            _ => return Next::Abort,
        }
        match self.agent.send(&out).await {
            Ok(()) => Next::CloseEarly,
            Err(_) => Next::Abort,
        }
    }

    /// What a switch would be about. Called before the head is edited.
    fn towards(&self, subject: Subject) -> Towards {
        if self.offer.is_none() {
            return Towards::Place(subject);
        }
        let request = RequestView::of_http1(&self.head, self.secure);
        let said = self.evidence.said();
        Towards::WebSocket(Box::new(Opening::of(&request, subject, said, None)))
    }

    /// What a switch of protocols leads to.
    fn switched(&mut self, answer: Option<&ResponseHead>, towards: Towards) -> Next {
        match towards {
            Towards::WebSocket(opening) => match self.accepted(answer) {
                Some(deflate) => Next::WebSocket(Box::new(Opening {
                    deflate,
                    ..*opening
                })),
                None => Next::Abort,
            },
            Towards::Place(subject) => match (self.connected(&subject), self.tunnel.take()) {
                (Some(tunnel), _) => Next::Connect(Box::new(tunnel)),
                (None, Some(decision)) => Next::Tunnel(Box::new(decision)),
                (None, None) => Next::Abort,
            },
        }
    }

    /// The compression that an accepted WebSocket handshake agrees to. `None`: it is not accepted.
    fn accepted(&mut self, answer: Option<&ResponseHead>) -> Option<Option<Deflate>> {
        let fields = answer?.headers();
        let accepted = self.offer.take()?.accepted(
            fields.get_all("sec-websocket-accept"),
            fields.get_all("sec-websocket-extensions"),
        );
        accepted.ok()
    }

    /// Nothing was sent to the agent yet: it gets the reason in words, unless the end alone tells it more.
    async fn unanswered(mut self: Box<Self>, failure: Failure) -> Next {
        let stale = self.reused && failure.is_stale();
        let unread = failure.is_unread();
        let told = failure.told();
        if told.refused {
            let decision = self.refused(told.reason, &told.message);
            if unread && self.evidence.deny_call() {
                let said = self.head.headers().get_str("content-type");
                let answer = answer::denied_call(&decision, said.unwrap_or_default(), false);
                let sent = self.agent.send(&answer).await;
                self.evidence.answered(200, sent.is_ok());
                self.end().await;
                return Next::CloseEarly;
            }
        } else {
            self.evidence.failed(&told.message);
        }
        let next = match told.status.filter(|_| !stale) {
            Some(status) => {
                let answer = answer::failed(status, told.reason, &told.message, self.head.method());
                let sent = self.agent.send(&answer).await;
                self.evidence.answered(status, sent.is_ok());
                Next::CloseEarly
            }
            None => Next::Abort,
        };
        self.end().await;
        next
    }

    async fn end(mut self: Box<Self>) {
        self.evidence
            .request_body(self.body.payload_bytes(), self.sample);
        self.evidence.end(self.link).await;
    }
}

/// The offer of a request that asks for WebSocket and nothing else.
fn offer(head: &RequestHead) -> Option<Offer> {
    let asked = head.method() == "GET"
        && head
            .upgrade()
            .is_some_and(|to| to.trim().eq_ignore_ascii_case("websocket"))
        && head.headers().get_all("upgrade").count() == 1;
    let values = |name: &'static str| head.headers().get_all(name);
    asked
        .then(|| {
            Offer::read(
                values("sec-websocket-key"),
                values("sec-websocket-version"),
                values("sec-websocket-extensions"),
            )
        })
        .flatten()
}
