//! The story of one exchange: judge the request, then answer it or pass it on, and record what came of it.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use chaperone_crds::{
    decide::MAX_JUDGED_BODY_BYTES,
    record::{DecisionInfo, Outcome},
    resources::{Level, Protocol},
};

use super::{
    Upstream, answer,
    download::{self, DownloadError, Plan, download},
    judge::{Agreement, Case, Judged, Judgement, Subject, agreement},
    record::Evidence,
    sample::Sample,
    upload::{UploadError, upload},
};
use crate::{
    connection::{Link, builtin},
    http1::{BodyDecoder, BodyFraming, RequestHead},
    shared::Active,
    wire::{Io, Wire},
};

/// Most bytes of a refused request's body that are read so that the connection stays usable. Beyond, closing is cheaper.
const MAX_DRAINED_BYTES: u64 = 1024 * 1024;
/// Longest wait for the body of a refused request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a body that a rule wants to read.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Tells a client that waits for it to send the body (RFC 9110 §15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What follows an exchange.
pub(crate) enum Next {
    /// Another request may come.
    Request,
    /// The connection ends in good order.
    Close,
    /// The connection breaks off: the agent must not take what it has for complete.
    Abort,
    /// What follows is another protocol, which policy lets pass unread.
    Tunnel(Box<DecisionInfo>),
}

/// A request on its way.
struct Exchange<'a, A> {
    link: &'a Link,
    active: Arc<Active>,
    agent: &'a mut Wire<A>,
    upstream: &'a mut Upstream,
    head: RequestHead,
    body: BodyDecoder,
    /// Bytes of the body that were read for the decision, as written.
    read: BytesMut,
    /// Whether the agent was told 100 Continue.
    continued: bool,
    sample: Sample,
    evidence: Evidence,
}

/// Tells the story of one exchange.
pub(crate) async fn run<A: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: &mut Upstream,
    secure: bool,
    head: RequestHead,
) -> Next {
    let active = link.now();
    let subject = Subject::of(link, &head, secure);
    let evidence = Evidence::begin(link, &active, &subject, &head);
    let sample = evidence.sample(&active, Level::Request);
    let body = BodyDecoder::new(head.framing());
    let mut exchange = Exchange {
        link,
        active,
        agent,
        upstream,
        head,
        body,
        read: BytesMut::new(),
        continued: false,
        sample,
        evidence,
    };
    let judgement = match exchange.judge(&subject, secure).await {
        Ok(judgement) => judgement,
        Err(error) => return exchange.broken_request(&error).await,
    };
    exchange.evidence.judged(&judgement);
    match judgement.decision.action {
        Outcome::Deny => exchange.deny(&judgement).await,
        Outcome::Allow => exchange.forward(judgement.decision).await,
    }
}

impl<A: Io> Exchange<'_, A> {
    async fn judge(&mut self, subject: &Subject, secure: bool) -> Result<Judgement, UploadError> {
        let agreed = agreement(self.link, subject, secure).await;
        let body_size = match self.head.framing() {
            BodyFraming::None => Some(0),
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked | BodyFraming::UntilClose => None,
        };
        let needs_body = self.case(subject, body_size).needs_body() && agreed == Agreement::Yes;
        let judgement = if needs_body {
            let payload = self.read_body().await?;
            let judged = payload.as_deref().map_or(Judged::TooLarge, Judged::Whole);
            let size = payload
                .as_ref()
                .map(|payload| payload.len() as u64)
                .or(body_size);
            self.case(subject, size).judge(&judged, agreed)
        } else {
            self.case(subject, body_size)
                .judge(&Judged::NotRead, agreed)
        };
        Ok(self.judge_switch(judgement))
    }

    fn case<'c>(&'c self, subject: &'c Subject, body_size: Option<u64>) -> Case<'c> {
        Case {
            link: self.link,
            active: &self.active,
            head: &self.head,
            subject,
            body_size,
        }
    }

    /// A request that may switch the connection to bytes that are not read needs leave for those too.
    fn judge_switch(&self, judgement: Judgement) -> Judgement {
        if judgement.decision.action == Outcome::Deny || !self.may_switch() {
            return judgement;
        }
        let unread = self.link.unread_decision(Protocol::Tcp);
        match unread.action {
            Outcome::Deny => Judgement {
                decision: unread,
                ..judgement
            },
            Outcome::Allow => judgement,
        }
    }

    fn may_switch(&self) -> bool {
        self.head.method() == "CONNECT"
            || self
                .head
                .upgrade()
                .is_some_and(|protocols| !is_h2c(protocols))
    }

    /// Reads the body for a rule; `None` when it is too large. What was read is sent on as written.
    async fn read_body(&mut self) -> Result<Option<Vec<u8>>, UploadError> {
        if self.head.expect_continue() && self.agent.unread.is_empty() && !self.body.is_done() {
            self.agent
                .send(CONTINUE)
                .await
                .map_err(UploadError::Agent)?;
            self.continued = true;
        }
        let whole = self.read_whole_body();
        match tokio::time::timeout(BODY_TIMEOUT, whole).await {
            Ok(result) => result,
            Err(_) => Err(UploadError::Agent(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn read_whole_body(&mut self) -> Result<Option<Vec<u8>>, UploadError> {
        let mut payload = Vec::new();
        loop {
            let sample = &mut self.sample;
            let progress = self.body.pump(&self.agent.unread, |part| {
                payload.extend_from_slice(part);
                sample.push(part);
            })?;
            self.read
                .extend_from_slice(&self.agent.unread.split_to(progress.consumed));
            if payload.len() > MAX_JUDGED_BODY_BYTES {
                return Ok(None);
            }
            if self.body.is_done() {
                return Ok(Some(payload));
            }
            if self.agent.fill().await.map_err(UploadError::Agent)? == 0 {
                self.body.eof()?;
            }
        }
    }

    /// Answers 403 (or 421). The connection stays usable if the rest of the request can be read away.
    async fn deny(mut self, judgement: &Judgement) -> Next {
        let keep = self.head.keep_alive() && self.drain().await;
        let answer = answer::denied(
            judgement.status,
            &judgement.decision,
            keep,
            self.head.method(),
        );
        let sent = self.agent.send(&answer).await;
        self.link
            .shared
            .metrics
            .denials
            .with_label_values(&[&judgement.decision.reason])
            .inc();
        self.evidence.answered(judgement.status, sent.is_ok());
        self.evidence
            .request_body(self.body.payload_bytes(), self.sample);
        self.evidence.end(self.link).await;
        if keep && sent.is_ok() {
            Next::Request
        } else {
            Next::Close
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
    async fn forward(mut self, decision: DecisionInfo) -> Next {
        if let Err(error) = self.dial().await {
            return self
                .upstream_failed(
                    "upstream-unreachable",
                    &format!("cannot reach the upstream: {error}"),
                )
                .await;
        }
        let masks = self.evidence.response_masks();
        if let Err(error) = self.edit_head(masks.is_some()) {
            return self.upstream_failed("edit", &error.to_string()).await;
        }
        let method = self.head.method().to_owned();
        let plan = Plan {
            method: &method,
            version: self.head.version(),
            masks,
            strict: self.active.mode() == chaperone_crds::resources::Mode::Enforce,
            may_switch: self.may_switch(),
            continued: self.continued,
        };
        let mut progress = download::Progress {
            head: None,
            bytes: 0,
            answered: None,
            findings: Vec::new(),
            sample: self.evidence.sample(&self.active, Level::RequestResponse),
            unmasked: None,
        };
        let sent = Instant::now();
        let outcome = self.pass_both(&plan, &mut progress).await;
        self.conclude(outcome, progress, sent, decision).await
    }

    async fn dial(&mut self) -> io::Result<()> {
        if self.upstream.is_none() {
            let stream = self.link.shared.egress.dial(self.link.destination).await?;
            *self.upstream = Some(Wire::new(Box::new(stream), BytesMut::new()));
        }
        Ok(())
    }

    /// What the upstream sees differs from what the agent wrote only where it must.
    fn edit_head(&mut self, masked: bool) -> Result<(), crate::http1::HeaderEditError> {
        if masked {
            self.head.headers_mut().narrow_accept_encoding()?;
            // A part of a resource cannot be masked right: a match may begin before it. The whole may.
            self.head.headers_mut().remove("range");
            self.head.headers_mut().remove("if-range");
        }
        if self.head.upgrade().is_some_and(is_h2c) {
            // HTTP/2 in clear text is not read; RFC 9113 lets a server ignore the offer, so withholding it breaks nothing.
            self.head.headers_mut().remove("upgrade");
            self.head.headers_mut().remove("http2-settings");
            self.head.headers_mut().remove("connection");
        }
        if self.continued {
            self.head.headers_mut().remove("expect");
        }
        Ok(())
    }

    /// Sends the request and passes the response, both at once: a response may begin before the request ends.
    async fn pass_both(&mut self, plan: &Plan<'_>, progress: &mut download::Progress) -> Outcomes {
        let Some(upstream) = self.upstream.as_mut() else {
            return Outcomes {
                upload: None,
                download: Err(DownloadError::NoAnswer),
            };
        };
        let mut first = BytesMut::new();
        self.head.write_to(&mut first);
        first.unsplit(self.read.split());
        if let Err(error) = upstream.send(&first).await {
            return Outcomes {
                upload: Some(UploadError::Upstream(error)),
                download: Err(DownloadError::NoAnswer),
            };
        }
        if self.body.is_done() {
            let Wire { stream, unread } = upstream;
            let download = download(stream, unread, &mut self.agent.stream, plan, progress).await;
            return Outcomes {
                upload: None,
                download,
            };
        }
        let Wire {
            stream: upstream_stream,
            unread: from_upstream,
        } = upstream;
        let Wire {
            stream: agent_stream,
            unread: from_agent,
        } = &mut *self.agent;
        let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream_stream);
        let (mut agent_read, mut agent_write) = tokio::io::split(agent_stream);
        let upload = upload(
            &mut agent_read,
            from_agent,
            &mut upstream_write,
            &mut self.body,
            &mut self.sample,
        );
        let download = download(
            &mut upstream_read,
            from_upstream,
            &mut agent_write,
            plan,
            progress,
        );
        race(upload, download).await
    }

    /// Records what came of it and says what follows.
    async fn conclude(
        mut self,
        outcomes: Outcomes,
        progress: download::Progress,
        sent: Instant,
        decision: DecisionInfo,
    ) -> Next {
        let answered = progress.head.is_some();
        let switched = progress
            .head
            .as_ref()
            .is_some_and(crate::http1::ResponseHead::switches);
        self.evidence
            .request_body(self.body.payload_bytes(), self.sample);
        self.evidence.response(progress, sent);
        let next = match outcomes.download {
            Ok(_) if switched => Next::Tunnel(Box::new(decision)),
            Ok(reusable) => {
                self.evidence.complete();
                let whole = self.body.is_done() && outcomes.upload.is_none();
                if reusable && whole && self.head.keep_alive() {
                    Next::Request
                } else {
                    Next::Close
                }
            }
            Err(error) if answered => {
                self.evidence.failed(&error.to_string());
                Next::Abort
            }
            Err(error) => {
                let error = outcomes
                    .upload
                    .map_or(Failure::Download(error), Failure::Upload);
                return Self::answer_failure(
                    self.link,
                    self.agent,
                    self.active,
                    self.evidence,
                    self.head,
                    error,
                )
                .await;
            }
        };
        self.evidence.end(self.link).await;
        next
    }

    /// Nothing was sent to the agent yet: it gets the reason in words.
    async fn answer_failure(
        link: &Link,
        agent: &mut Wire<A>,
        active: Arc<Active>,
        mut evidence: Evidence,
        head: RequestHead,
        failure: Failure,
    ) -> Next {
        let (status, reason, message, denial) = failure.told();
        if denial {
            evidence.decided(builtin(&active, Outcome::Deny, reason, &message));
            link.shared
                .metrics
                .denials
                .with_label_values(&[reason])
                .inc();
        }
        evidence.failed(&message);
        let answer = answer::failed(status, reason, &message, head.method());
        let sent = agent.send(&answer).await;
        evidence.answered(status, sent.is_ok());
        evidence.end(link).await;
        Next::Close
    }

    async fn upstream_failed(self, reason: &'static str, message: &str) -> Next {
        let failure = Failure::Upstream(reason, message.to_owned());
        Self::answer_failure(
            self.link,
            self.agent,
            self.active,
            self.evidence,
            self.head,
            failure,
        )
        .await
    }

    async fn broken_request(self, error: &UploadError) -> Next {
        let failure = Failure::Request(error.to_string());
        Self::answer_failure(
            self.link,
            self.agent,
            self.active,
            self.evidence,
            self.head,
            failure,
        )
        .await
    }
}

/// What came of the two directions.
struct Outcomes {
    /// Why the request did not go out whole, if so.
    upload: Option<UploadError>,
    /// Whether the upstream connection is good for more.
    download: Result<bool, DownloadError>,
}

/// Runs both directions until the response is whole, and the request too where the connection goes on.
async fn race(
    upload: impl Future<Output = Result<(), UploadError>>,
    download: impl Future<Output = Result<bool, DownloadError>>,
) -> Outcomes {
    tokio::pin!(upload, download);
    let mut uploaded = None;
    loop {
        tokio::select! {
            result = &mut upload, if uploaded.is_none() => match result {
                // The upstream may have answered before it stopped reading.
                Ok(()) | Err(UploadError::Upstream(_)) => uploaded = Some(result),
                Err(error) => return Outcomes { upload: Some(error), download: Err(DownloadError::NoAnswer) },
            },
            result = &mut download => {
                let result = match (result, &uploaded) {
                    // The response came first and keeps the connection: the rest of the request belongs to it.
                    (Ok(true), None) => {
                        uploaded = Some(upload.await);
                        Ok(true)
                    }
                    (other, _) => other,
                };
                return Outcomes { upload: uploaded.and_then(Result::err), download: result };
            }
        }
    }
}

/// Why an exchange failed before the agent saw anything of a response.
enum Failure {
    Request(String),
    Upstream(&'static str, String),
    Upload(UploadError),
    Download(DownloadError),
}

impl Failure {
    /// Status, reason, words, and whether it is Chaperone that refuses.
    fn told(self) -> (u16, &'static str, String, bool) {
        match self {
            Self::Request(message) => (400, "malformed-body", message, true),
            Self::Upstream(reason, message) => (502, reason, message, false),
            Self::Upload(error @ UploadError::Malformed(_)) => {
                (400, "malformed-body", error.to_string(), true)
            }
            Self::Upload(error) => (502, "upstream-reset", error.to_string(), false),
            Self::Download(error) => {
                let refused = matches!(
                    error,
                    DownloadError::Compressed(_)
                        | DownloadError::Partial
                        | DownloadError::Switch
                        | DownloadError::Head(_)
                        | DownloadError::Body(_)
                        | DownloadError::Interim
                );
                (502, error.reason(), error.to_string(), refused)
            }
        }
    }
}

fn is_h2c(protocols: &str) -> bool {
    protocols
        .split(',')
        .any(|protocol| protocol.trim().eq_ignore_ascii_case("h2c"))
}
