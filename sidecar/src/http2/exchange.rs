//! The story of one stream: judge the request, then answer it or pass it on, and record what came of it.

mod connect;
pub(crate) mod upgraded;

use std::{borrow::Cow, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use chaperone_crds::{
    decide::MAX_JUDGED_BODY_BYTES,
    record::{DecisionInfo, Outcome},
    resources::{Level, Mode},
};
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request};
use tokio::sync::SemaphorePermit;

use self::upgraded::First;
use super::{
    answer,
    download::{Download, Plan, Progress},
    ended::Ended,
    flow::{Upload, release},
    head::{Fields, Head, HeadError},
    upstream::{NoWay, Upstream},
};
use crate::{
    body::BodyFilter,
    grpc::{self, Call, Form, Verdict},
    http::{
        held::{BODY_TIMEOUT, room_for},
        judge::{self, Agreement, Case, Judged, Judgement, Subject, placed},
        record::{self, Evidence, Received},
        sample::Sample,
        view::ResponseView,
    },
    link::{Link, builtin, micros},
    shared::Active,
    websocket::Offer,
};

/// What the streams of one connection share.
pub(crate) struct Context<'a> {
    pub(crate) link: &'a Link,
    pub(crate) upstream: Upstream<'a>,
    /// Whether both sides are TLS.
    pub(crate) secure: bool,
}

/// A request on its way.
struct Exchange<'a> {
    context: &'a Context<'a>,
    /// The context's, or one to another address of the same name.
    link: Cow<'a, Link>,
    active: Arc<Active>,
    head: Head,
    /// The rest of the request.
    body: RecvStream,
    /// What was read of it for the decision.
    held: Bytes,
    /// Whether that is all of it, once it was read.
    whole: Option<bool>,
    /// The trailers, where the body was read to its end.
    held_trailers: Option<HeaderMap>,
    /// Kept as long as the held bytes are.
    room: Option<SemaphorePermit<'static>>,
    respond: SendResponse<Bytes>,
    /// What policy says of the bytes that a tunnel would bring.
    tunnel: Option<DecisionInfo>,
    /// The request's offer, where it is a WebSocket handshake.
    offer: Option<Offer>,
    /// The gRPC call that the request is, where its messages may be read.
    call: Option<Arc<Call>>,
    /// Content type of the call's request, which its answers need once the head is on its way.
    content_type: String,
    /// What denies a message of it.
    denial: Option<DecisionInfo>,
    /// Whether the agent was told 100 Continue.
    continued: bool,
    request_bytes: u64,
    sample: Sample,
    evidence: Evidence,
}

/// Tells the story of one stream. `first`: what it is, where it is stream 1 of an upgraded connection.
pub(crate) async fn run(
    context: &Context<'_>,
    first: Option<Box<First>>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let link = context.link;
    if let Some(first) = first {
        return Box::pin(upgraded::run(context, *first, respond)).await;
    }
    // While the records of others wait for room, nothing new begins that would need one.
    link.shared.recorder.ready().await;
    let (parts, body) = request.into_parts();
    let head = match Head::read(parts, context.secure, body.is_end_stream()) {
        Ok(head) => head,
        Err(error) => return refuse_head(context, respond, error).await,
    };
    let active = link.now();
    let view = head.view(context.secure);
    let (subject, agreed) = placed(link, &view, context.secure).await;
    let evidence = Evidence::begin(link, &active, &subject, &view);
    let mut sample = evidence.sample(&active, Level::Request);
    sample.describe(view.fields);
    let offer = head.offer();
    let exchange = Box::new(Exchange {
        context,
        link: Cow::Borrowed(link),
        active,
        head,
        body,
        held: Bytes::new(),
        whole: None,
        held_trailers: None,
        room: None,
        respond,
        tunnel: None,
        offer,
        call: None,
        content_type: String::new(),
        denial: None,
        continued: false,
        request_bytes: 0,
        sample,
        evidence,
    });
    exchange.decide(subject, agreed).await;
}

/// Answers a head that has no single reading.
async fn refuse_head(context: &Context<'_>, mut respond: SendResponse<Bytes>, error: HeadError) {
    let protocol = super::protocol(context.secure);
    let (reason, message) = (error.reason(), error.to_string());
    record::malformed(&context.upstream.place(), protocol, reason, &message).await;
    let _ = answer::failed(&mut respond, 400, reason, &message, false);
}

impl Exchange<'_> {
    /// Judges the request, and answers it or passes it on.
    async fn decide(mut self: Box<Self>, mut subject: Subject, mut agreed: Agreement) {
        loop {
            let judgement = match self.judge(&subject, agreed).await {
                Ok(judgement) => judgement,
                Err(ended) => return self.unanswered(ended).await,
            };
            self.evidence.judged(&judgement);
            if judgement.decision.action == Outcome::Deny {
                return self.deny(&judgement).await;
            }
            let upstream = &self.context.upstream;
            match upstream.sender(&self.link, subject.name()).await {
                Ok(sender) => return self.forward(subject, sender).await,
                Err(NoWay::Unreachable(error)) => {
                    return self.unanswered(Ended::Unreachable(error)).await;
                }
                Err(NoWay::Elsewhere(next)) => (subject, agreed) = self.go_elsewhere(*next).await,
            }
        }
    }

    /// Begins anew as a request to another address: policy and masks may tell addresses apart. Nothing of it was sent.
    async fn go_elsewhere(&mut self, next: Link) -> (Subject, Agreement) {
        let view = self.head.view(self.context.secure);
        let (subject, agreed) = placed(&next, &view, self.context.secure).await;
        let evidence = Evidence::begin(&next, &self.active, &subject, &view);
        self.evidence = evidence.under_way(self.evidence.since());
        self.sample = self.evidence.sample(&self.active, Level::Request);
        self.sample.describe(view.fields);
        self.sample.push(&self.held);
        self.tunnel = None;
        self.link = Cow::Owned(next);
        (subject, agreed)
    }

    async fn judge(&mut self, subject: &Subject, agreed: Agreement) -> Result<Judgement, Ended> {
        let needs_body = self.case(subject).needs_body() && agreed == Agreement::Yes;
        let judgement = if needs_body {
            let whole = match self.whole {
                Some(whole) => whole,
                None => self.hold_body().await?,
            };
            self.whole = Some(whole);
            let mut case = self.case(subject);
            if whole {
                case.request.body_size = Some(self.held.len() as u64);
            }
            let trailers = Fields(self.held_trailers.clone().unwrap_or_default());
            let judged = match whole {
                true => Judged::Whole(&self.held, &trailers),
                false => Judged::TooLarge,
            };
            case.judge(&judged, agreed)
        } else {
            self.case(subject).judge(&Judged::NotRead, agreed)
        };
        Ok(self.judge_tunnel(judgement))
    }

    fn case<'c>(&'c self, subject: &'c Subject) -> Case<'c> {
        Case {
            link: &self.link,
            active: &self.active,
            request: self.head.view(self.context.secure),
            subject,
        }
    }

    /// A request for a tunnel needs leave for the bytes that it would bring, which are not read. WebSocket is read, and so is the inside of a tunnel.
    fn judge_tunnel(&mut self, judgement: Judgement) -> Judgement {
        if !self.head.is_connect() || self.offer.is_some() || self.connects().is_some() {
            return judgement;
        }
        let (judgement, tunnel) = judgement.with_tunnel(&self.link, &self.active);
        self.tunnel = tunnel;
        judgement
    }

    /// Reads the body for a rule; false when it is too large. What was read is sent on as it is.
    async fn hold_body(&mut self) -> Result<bool, Ended> {
        if self.head.is_connect() {
            // What follows is no body, and does not end before the answer.
            return Ok(true);
        }
        if self.head.view(self.context.secure).body_size > Some(MAX_JUDGED_BODY_BYTES as u64) {
            return Ok(false);
        }
        if self.head.expects_continue() && !self.body.is_end_stream() {
            self.continued = answer::informational(&mut self.respond, 100).is_ok();
        }
        match tokio::time::timeout(BODY_TIMEOUT, self.fill_held()).await {
            Ok(held) => held,
            Err(_) => Err(Ended::TooSlow),
        }
    }

    async fn fill_held(&mut self) -> Result<bool, Ended> {
        if self.body.is_end_stream() {
            return Ok(true);
        }
        // Twice: the buffer's growth may leave as much again unused.
        self.room = room_for(MAX_JUDGED_BODY_BYTES.saturating_mul(2)).await;
        let mut held = BytesMut::new();
        let mut whole = true;
        while let Some(data) = self.body.data().await {
            let data = data.map_err(Ended::by_agent)?;
            self.sample.push(&data);
            self.request_bytes = self.request_bytes.saturating_add(data.len() as u64);
            held.extend_from_slice(&data);
            release(&mut self.body, data.len());
            if held.len() > MAX_JUDGED_BODY_BYTES {
                whole = false;
                break;
            }
        }
        self.held = held.freeze();
        if whole {
            self.held_trailers = self.body.trailers().await.map_err(Ended::by_agent)?;
        }
        Ok(whole)
    }

    /// Answers 403 (or 421). Other streams go on.
    async fn deny(mut self: Box<Self>, judgement: &Judgement) {
        let decision = &judgement.decision;
        let (status, sent) = if self.evidence.deny_call() {
            let content_type = self.head.content_type();
            let sent = answer::denied_call(&mut self.respond, decision, content_type);
            (200, sent)
        } else {
            let (status, no_body) = (judgement.status, self.head.is_head());
            let sent = answer::denied(&mut self.respond, status, decision, no_body);
            (status, sent)
        };
        count_denial(self.context, &judgement.decision.reason);
        self.evidence.answered(status, sent.is_ok());
        self.end().await;
    }

    /// Passes the request on and its response back.
    async fn forward(mut self: Box<Self>, subject: Subject, mut sender: SendRequest<Bytes>) {
        if let Err(why) = self.evidence.begun(&self.link, &self.active).await {
            return self.unanswered(Ended::Unheld(why)).await;
        }
        let view = self.head.view(self.context.secure);
        self.call = judge::call(&self.link, &self.active, &self.evidence, &subject, &view);
        if self.evidence.call().is_some() {
            self.content_type = self.head.content_type().to_owned();
        }
        let towards = self.towards(subject);
        let plan = self.plan();
        self.head
            .edit(plan.masks.is_some(), self.continued, self.offer.as_ref());
        let mut filter = match self.rewrite() {
            Ok(filter) => filter,
            Err(ended) => return self.unanswered(ended).await,
        };
        let request = match self.head.take_request() {
            Ok(request) => request,
            Err(error) => return self.unanswered(Ended::Unsendable(error.to_string())).await,
        };
        let towards = towards.through(&self.link, &sender, &request);
        let ended =
            self.held.is_empty() && self.held_trailers.is_none() && self.body.is_end_stream();
        let sent = match std::future::poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => sender.send_request(request, ended && !self.head.is_connect()),
            Err(error) => Err(error),
        };
        let (response, to_upstream) = match sent {
            Ok(sent) => sent,
            Err(error) => return self.unanswered(unsent(error)).await,
        };
        let since = Instant::now();
        let sample = self.evidence.sample(&self.active, Level::RequestResponse);
        let download = Download::new(response, plan, sample);
        if self.head.is_connect() {
            self.connect(download, to_upstream, since, towards).await;
        } else {
            self.exchange(download, to_upstream, filter.as_deref_mut(), since)
                .await;
        }
    }

    /// Masks what leaves, and makes tokens values again where policy says so. Returns the filter for the body.
    fn rewrite(&mut self) -> Result<Option<Box<BodyFilter>>, Ended> {
        let outgoing = self.evidence.outgoing().of_call(self.call.clone());
        if outgoing.is_empty() {
            return Ok(None);
        }
        let strict = self.active.mode() == Mode::Enforce;
        let rewritten = self.head.rewrite(&outgoing, strict)?;
        self.evidence.head_masked(&rewritten.findings);
        if let Some(why) = rewritten.unmasked {
            self.evidence.failed(&format!("left unmasked: {why}"));
        }
        Ok(rewritten.filter)
    }

    fn plan(&self) -> Plan {
        Plan {
            masks: self.evidence.response_masks(),
            strict: self.active.mode() == Mode::Enforce,
            continued: self.continued,
            call: self.call.clone(),
        }
    }

    /// Both directions at once, until both are over.
    async fn exchange(
        mut self: Box<Self>,
        mut download: Download,
        mut to_upstream: SendStream<Bytes>,
        mut filter: Option<&mut BodyFilter>,
        since: Instant,
    ) {
        let (outgoing, mut found) = (self.evidence.outgoing(), Vec::new());
        let upload = Upload {
            from: &mut self.body,
            to: &mut to_upstream,
            held: std::mem::take(&mut self.held),
            sample: &mut self.sample,
            bytes: &mut self.request_bytes,
            filter: filter.as_deref_mut(),
            outgoing: &outgoing,
            trailers: self.held_trailers.take(),
            found: &mut found,
        };
        let mut to_agent = None;
        let result = tokio::select! {
            result = both(upload, download.pass(&mut self.respond, &mut to_agent)) => result,
            () = self.context.link.cut_off() => Err(Ended::Stopping),
        };
        self.room = None;
        self.evidence.head_masked(&found);
        if let Some(filter) = filter {
            self.evidence.head_masked(filter.findings());
            self.message_judged(filter.verdict());
        }
        if let Err(ended) = &result {
            to_upstream.send_reset(ended.upstream_reset());
        }
        let progress = download.finish();
        self.conclude(result, progress, since, to_agent).await;
    }

    /// What policy said of messages of the call goes into its record.
    fn message_judged(&mut self, verdict: Option<&Verdict>) {
        if let Some(verdict) = verdict.filter(|_| self.denial.is_none()) {
            self.evidence.message_judged(verdict);
            self.denial = verdict.denies().then(|| verdict.decision.clone());
        }
    }

    /// Records what came of it. `to_agent`: there once the response's head was sent.
    async fn conclude(
        mut self: Box<Self>,
        result: Result<(), Ended>,
        progress: Progress,
        since: Instant,
        to_agent: Option<SendStream<Bytes>>,
    ) {
        let answered = progress.head.is_some();
        self.message_judged(progress.verdict.as_ref());
        note(&mut self.evidence, progress, since);
        match (result, to_agent) {
            (Ok(()), _) => self.evidence.complete(),
            (Err(ended), Some(to)) if ended.is_unread() && self.evidence.deny_call() => {
                let decision = self.refused(&ended);
                self.end_call(&decision, to);
            }
            (result, _) => return self.broken_off(result, answered).await,
        }
        self.end().await;
    }

    /// There is no whole response.
    async fn broken_off(mut self: Box<Self>, result: Result<(), Ended>, answered: bool) {
        match result {
            Ok(()) => self.evidence.complete(),
            Err(ended) if answered => {
                self.evidence.failed(&ended.to_string());
                self.respond.send_reset(ended.agent_reset());
            }
            Err(ended) => return self.unanswered(ended).await,
        }
        self.end().await;
    }

    /// What refuses the exchange, for its record and the metrics.
    fn refused(&mut self, ended: &Ended) -> DecisionInfo {
        let (reason, message) = (ended.reason(), ended.to_string());
        let decision = match self.denial.take() {
            Some(denial) => denial,
            None => {
                self.evidence.failed(&message);
                builtin(&self.active, Outcome::Deny, reason, &message)
            }
        };
        self.evidence.decided(decision.clone());
        count_denial(self.context, &decision.reason);
        decision
    }

    /// Ends a call whose response has begun, in the form that its client reads.
    fn end_call(&self, decision: &DecisionInfo, mut to: SendStream<Bytes>) {
        // The few bytes wait in the stream for the agent's window, if they have to; an agent that is gone hears nothing.
        let _ = match Form::of(&self.content_type) {
            Some(form @ (Form::Web | Form::WebText)) => {
                to.send_data(grpc::last_frame(decision, form).into(), true)
            }
            _ => to.send_trailers(answer::trailers(decision)),
        };
    }

    /// Nothing was sent to the agent yet.
    async fn unanswered(mut self: Box<Self>, ended: Ended) {
        if ended.is_unread() && self.evidence.deny_call() {
            let decision = self.refused(&ended);
            let sent = answer::denied_call(&mut self.respond, &decision, &self.content_type);
            self.evidence.answered(200, sent.is_ok());
            return self.end().await;
        }
        let no_body = self.head.is_head();
        let active = &self.active;
        tell(
            self.context,
            active,
            &mut self.evidence,
            &mut self.respond,
            no_body,
            &ended,
        );
        self.end().await;
    }

    async fn end(mut self: Box<Self>) {
        self.evidence.request_body(self.request_bytes, self.sample);
        self.evidence.end(self.context.link).await;
    }
}

/// Tells an agent that has nothing of a response why: in words, unless a reset tells it more.
fn tell(
    context: &Context<'_>,
    active: &Active,
    evidence: &mut Evidence,
    respond: &mut SendResponse<Bytes>,
    no_body: bool,
    ended: &Ended,
) {
    let (reason, message) = (ended.reason(), ended.to_string());
    if ended.is_refusal() {
        evidence.decided(builtin(active, Outcome::Deny, reason, &message));
        count_denial(context, reason);
    }
    evidence.failed(&message);
    match ended.status() {
        Some(status) => {
            let sent = answer::failed(respond, status, reason, &message, no_body);
            evidence.answered(status, sent.is_ok());
        }
        None => respond.send_reset(ended.agent_reset()),
    }
}

fn count_denial(context: &Context<'_>, reason: &str) {
    let denials = &context.link.shared.metrics.denials;
    denials.with_label_values(&[reason]).inc();
}

/// Runs both directions: a response may begin before its request ends, and end before it too.
async fn both(
    upload: Upload<'_>,
    download: impl Future<Output = Result<(), Ended>>,
) -> Result<(), Ended> {
    let mut upload = std::pin::pin!(upload.pass());
    let mut download = std::pin::pin!(download);
    tokio::select! {
        biased;
        received = &mut download => {
            received?;
            upload.await
        }
        sent = &mut upload => {
            sent?;
            download.await
        }
    }
}

/// Why a request could not be handed to the upstream's connection: it is over, or going. Either way the upstream never saw the request.
fn unsent(error: h2::Error) -> Ended {
    match error.reason() {
        None if !error.is_io() => Ended::Unsendable(error.to_string()),
        _ => Ended::Unprocessed,
    }
}

/// Tells the evidence of a response, as far as it came.
fn note(evidence: &mut Evidence, progress: Progress, since: Instant) {
    let head = progress.head.as_ref();
    evidence.response(Received {
        head: head.map(|(status, fields)| ResponseView {
            status: *status,
            fields,
        }),
        bytes: progress.bytes,
        upstream_us: progress.answered.map(|at| micros(at.duration_since(since))),
        grpc_status: progress.grpc_status,
        findings: progress.findings,
        sample: progress.sample,
        unmasked: progress.unmasked.map(|error| error.to_string()),
    });
    evidence.head_masked(&progress.head_findings);
    if let Some(note) = progress.note {
        evidence.failed(&note.to_string());
    }
}
