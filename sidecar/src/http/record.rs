//! The evidence of one exchange, from its first byte to its end. `end` consumes it, so that no outcome is forgotten.

use std::{sync::Arc, time::Instant};

use chaperone_crds::{
    compile::MaskSet,
    detect::CompiledMasks,
    grpc::{GrpcCall, Method},
    messages,
    record::{
        DecisionInfo, Event, EventKind, GrpcInfo, HttpInfo, MaskedInfo, OperationInfo, Outcome,
        SessionInfo, Timing,
    },
    resources::Level,
};

use super::{
    judge::{Judgement, Subject},
    redact,
    sample::Sample,
    view::{self, RequestView, ResponseView},
};
use crate::{
    body::Outgoing,
    commit::{self, Unheld},
    grpc::{self, Verdict},
    link::{Link, builtin, micros},
    shared::Active,
};

/// Most characters of a content type in a record.
const MAX_TYPE_CHARS: usize = 128;

/// A response, as far as it came.
pub(crate) struct Received<'a> {
    /// Its head, once it was sent to the agent.
    pub(crate) head: Option<ResponseView<'a>>,
    /// Payload bytes that the upstream sent.
    pub(crate) bytes: u64,
    /// From the request's head being sent to the response's head.
    pub(crate) upstream_us: Option<u64>,
    /// Status of a gRPC call, where trailers said it.
    pub(crate) grpc_status: Option<u32>,
    /// What masks found.
    pub(crate) findings: Vec<MaskedInfo>,
    /// The body's beginning.
    pub(crate) sample: Sample,
    /// Why it passed unmasked where it should have been masked (Audit).
    pub(crate) unmasked: Option<String>,
}

/// What is known of an exchange so far.
pub(crate) struct Evidence {
    /// On the heap, as the evidence moves with its exchange.
    event: Box<Event>,
    http: HttpInfo,
    since: Instant,
    upstream_us: Option<u64>,
    decide_us: Option<u64>,
    head_masked: Vec<MaskedInfo>,
    masks: MaskSet,
    level: Level,
    /// Whether it is an exchange with a model.
    is_turn: bool,
    /// The types of a gRPC call's messages, where a descriptor set has them.
    method: Option<Box<Method>>,
}

impl Evidence {
    /// Begins with a request's head.
    pub(crate) fn begin(
        link: &Link,
        active: &Arc<Active>,
        subject: &Subject,
        request: &RequestView<'_>,
    ) -> Self {
        let masks = subject.masks(active);
        let level = active.snapshot.audit_level();
        let mut event = active.event(EventKind::Http);
        event.destination = Some(subject.destination(link));
        event.operation = Some(OperationInfo {
            protocol: "http".to_owned(),
            verb: request.method.to_owned(),
            resource: redact::url(&subject.url, &masks.records),
        });
        event.session = redact::session(request.fields);
        let has_session = event.session.as_ref().is_some_and(|s| s.id.is_some());
        let path = request.path.split('?').next().unwrap_or_default();
        let is_turn = has_session && messages::is_turn(request.method, path);
        let content_type = view::field(request.fields, "content-type");
        event.grpc = grpc::call(request.path, content_type);
        let method = event.grpc.as_ref().and_then(|call| {
            let (service, method) = (call.service.as_str(), call.method.as_str());
            let call = GrpcCall { service, method };
            active.descriptors.method(&call).map(Box::new)
        });
        let http = HttpInfo {
            request_headers: (level >= Level::Request)
                .then(|| redact::headers(request.fields, &masks.records)),
            ..HttpInfo::default()
        };
        Self {
            event,
            http,
            since: Instant::now(),
            upstream_us: None,
            decide_us: None,
            head_masked: Vec::new(),
            masks,
            level,
            is_turn,
            method,
        }
    }

    /// The same, where the request has been under way for longer: another address was tried for it.
    pub(crate) fn under_way(self, since: Instant) -> Self {
        Self { since, ..self }
    }

    /// Since when the request has been under way.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Records that the request is about to leave, where policy asks for that.
    ///
    /// # Errors
    /// When nothing that policy asks for holds the record: the request must not leave.
    pub(crate) async fn begun(&mut self, link: &Link, active: &Active) -> Result<(), Unheld> {
        let beginning = commit::begin(&link.shared, active, link.cut_off(), || {
            let mut event = self.event.clone();
            event.kind = EventKind::Begin;
            event.http = Some(self.http.clone());
            event.timing = Some(Timing {
                total_us: micros(self.since.elapsed()),
                upstream_us: None,
                decide_us: self.decide_us,
            });
            event
        });
        let beginning = beginning.await;
        self.event.begun = beginning.unwrap_or_else(|unheld| unheld.begun);
        beginning.map(|_| ())
    }

    /// Keeps the beginning of a body if the audit level asks for it.
    pub(crate) fn sample(&self, active: &Active, level: Level) -> Sample {
        let mut sample = if self.level >= level {
            Sample::new(
                self.masks.records.clone(),
                active.snapshot.max_body_bytes() as usize,
            )
        } else {
            Sample::off()
        };
        if self.is_turn && level == Level::Request {
            sample.follow_conversation();
        }
        if self.event.grpc.is_some() {
            let method = self.method.as_deref();
            sample.count_messages(method.map(|method| match level {
                Level::RequestResponse => method.response.clone(),
                Level::Metadata | Level::Request => method.request.clone(),
            }));
        }
        sample
    }

    /// Masks that apply to the response.
    pub(crate) fn response_masks(&self) -> Option<Arc<CompiledMasks>> {
        self.masks.response.clone()
    }

    /// The URL and the hints for correlation, as the record has them.
    pub(crate) fn said(&self) -> (String, Option<SessionInfo>) {
        let operation = self.event.operation.as_ref();
        let url = operation.map(|operation| operation.resource.clone());
        (url.unwrap_or_default(), self.event.session.clone())
    }

    /// What is done to the request on its way out.
    pub(crate) fn outgoing(&self) -> Outgoing {
        Outgoing::of(&self.masks)
    }

    /// The gRPC call that it is, if it is one, and the types of its messages.
    pub(crate) fn call(&self) -> Option<(&GrpcInfo, Option<&Method>)> {
        let call = self.event.grpc.as_ref()?;
        Some((call, self.method.as_deref()))
    }

    /// What policy says of messages of the call.
    pub(crate) fn message_judged(&mut self, verdict: &Verdict) {
        if let Some(error) = &verdict.error {
            self.failed(error);
        }
        self.decided(verdict.decision.clone());
    }

    /// What masks found in heads, and in what left.
    pub(crate) fn head_masked(&mut self, findings: &[MaskedInfo]) {
        self.head_masked.extend_from_slice(findings);
    }

    /// Policy has spoken.
    pub(crate) fn judged(&mut self, judgement: &Judgement) {
        self.decide_us = Some(judgement.decide_us);
        self.event.error.clone_from(&judgement.error);
        self.decided(judgement.decision.clone());
    }

    /// The decision, or the one that overrode it.
    pub(crate) fn decided(&mut self, decision: DecisionInfo) {
        self.event.decision = Some(decision);
    }

    /// The agent was answered with this status by Chaperone itself.
    pub(crate) fn answered(&mut self, status: u16, sent: bool) {
        self.http.status = Some(status);
        self.http.complete = sent;
    }

    /// Whether it is a gRPC call, which is denied in gRPC's own words. The record then says so.
    pub(crate) fn deny_call(&mut self) -> bool {
        if let Some(call) = &mut self.event.grpc {
            call.status = Some(grpc::PERMISSION_DENIED);
        }
        self.event.grpc.is_some()
    }

    /// The request's body.
    pub(crate) fn request_body(&mut self, bytes: u64, mut sample: Sample) {
        if let (Some(call), Some(messages)) = (&mut self.event.grpc, sample.messages()) {
            call.request_messages = messages.count;
            call.request_message_bytes = messages.bytes;
        }
        self.http.request_bytes = bytes;
        self.http.newest_messages = sample.newest();
        self.http.request_body = if bytes > 0 { sample.finish() } else { None };
    }

    /// The response, as far as it came.
    pub(crate) fn response(&mut self, received: Received<'_>) {
        self.upstream_us = received.upstream_us;
        self.http.response_bytes = received.bytes;
        self.event.masked = received.findings;
        if let Some(error) = received.unmasked {
            self.failed(&format!("passed unmasked: {error}"));
        }
        let Some(head) = received.head else { return };
        if let (Some(call), Some(messages)) = (&mut self.event.grpc, received.sample.messages()) {
            call.response_messages = messages.count;
            call.response_message_bytes = messages.bytes;
            let in_body = || messages.status();
            let in_head = || grpc::status(head.fields);
            call.status = received.grpc_status.or_else(in_body).or_else(in_head);
        }
        self.http.status = Some(head.status);
        self.http.content_type =
            view::field(head.fields, "content-type").map(|value| cut(value, MAX_TYPE_CHARS));
        if self.level >= Level::RequestResponse {
            self.http.response_headers = Some(redact::headers(head.fields, &self.masks.records));
            self.http.response_body = if received.bytes > 0 {
                received.sample.finish()
            } else {
                None
            };
        }
    }

    /// The response arrived whole.
    pub(crate) fn complete(&mut self) {
        self.http.complete = true;
    }

    /// Something went wrong.
    pub(crate) fn failed(&mut self, error: &str) {
        self.event.error = Some(match self.event.error.take() {
            Some(before) => format!("{before}; {error}"),
            None => error.to_owned(),
        });
    }

    /// Records it.
    pub(crate) async fn end(mut self, link: &Link) {
        for found in std::mem::take(&mut self.head_masked) {
            let masked = &mut self.event.masked;
            match masked
                .iter_mut()
                .find(|known| known.mask == found.mask && known.detector == found.detector)
            {
                Some(known) => known.count = known.count.saturating_add(found.count),
                None => masked.push(found),
            }
        }
        self.count(link);
        self.event.http = Some(self.http);
        self.event.timing = Some(Timing {
            total_us: micros(self.since.elapsed()),
            upstream_us: self.upstream_us,
            decide_us: self.decide_us,
        });
        link.shared.recorder.record(self.event).await;
    }

    fn count(&self, link: &Link) {
        let metrics = &link.shared.metrics;
        let decision = match &self.event.decision {
            Some(decision) if decision.action == Outcome::Deny => "deny",
            Some(decision) if decision.would_deny => "would-deny",
            Some(_) => "allow",
            None => "malformed",
        };
        match decision {
            "allow" => metrics.each.allowed.inc(),
            other => metrics.requests.with_label_values(&[other]).inc(),
        }
        metrics.each.request_bytes.inc_by(self.http.request_bytes);
        metrics.each.response_bytes.inc_by(self.http.response_bytes);
        if !self.event.masked.is_empty() {
            metrics
                .masked
                .inc_by(self.event.masked.iter().map(|found| found.count).sum());
        }
    }
}

/// At most so many characters of a text.
fn cut(text: &str, most: usize) -> String {
    let end = text
        .char_indices()
        .nth(most)
        .map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Records a head that was refused: `reason` is a word, `message` says it in full.
pub(crate) async fn malformed(link: &Link, protocol: &str, reason: &str, message: &str) {
    let active = link.now();
    let mut event = link.event(EventKind::Connection, protocol);
    event.decision = Some(builtin(&active, Outcome::Deny, "malformed", message));
    event.error = Some(reason.to_owned());
    link.shared
        .metrics
        .requests
        .with_label_values(&["malformed"])
        .inc();
    link.shared
        .metrics
        .denials
        .with_label_values(&["malformed"])
        .inc();
    link.shared.recorder.record(event).await;
}
