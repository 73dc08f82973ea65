//! What both directions of a WebSocket connection share: the handshake that opened it, what policy says of messages, and the records they leave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use chaperone_crds::{
    compile::MaskSet,
    decide::{
        BodyView, HttpView, MAX_JUDGED_BODY_BYTES, MessageView, NO_FIELDS, Operation, WsDirection,
        WsView,
    },
    record::{
        BodyInfo, DecisionInfo, DestinationInfo, Event, EventKind, MaskedInfo, MessageInfo,
        OperationInfo, Outcome, SessionInfo, Timing,
    },
    resources::{Level, Protocol},
};

use super::super::{judge::Subject, sample::Sample, view::RequestView};
use crate::{
    link::{Link, builtin, decision_info, micros},
    shared::Active,
    websocket::{Deflate, Kind, Side},
};

/// Most bytes of a message that are held for a rule that reads `ws`. A longer one cannot be judged: an error, which in Enforce denies. The same as for the body of a request.
pub(super) const MAX_HELD_BYTES: usize = MAX_JUDGED_BODY_BYTES;
/// Connections so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// A handshake that was judged and has been accepted by the upstream.
pub(crate) struct Opening {
    /// What the request was for.
    pub(crate) subject: Subject,
    /// Its path, as sent.
    pub(crate) path: String,
    /// Its query, as sent.
    pub(crate) query: String,
    /// Its method: GET, or CONNECT where HTTP/2 carries it.
    pub(crate) method: String,
    /// Its header fields.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// Its URL, as records show it.
    pub(crate) url: String,
    /// Hints for correlation.
    pub(crate) session: Option<SessionInfo>,
    /// Compression that both sides agreed to.
    pub(crate) deflate: Option<Deflate>,
}

impl Opening {
    /// The handshake that `request` asked for. `said`: URL and hints, as its record has them.
    pub(crate) fn of(
        request: &RequestView<'_>,
        subject: Subject,
        (url, session): (String, Option<SessionInfo>),
        deflate: Option<Deflate>,
    ) -> Self {
        let fields = request.fields.fields();
        Self {
            subject,
            path: request.path.to_owned(),
            query: request.query.unwrap_or_default().to_owned(),
            method: request.method.to_owned(),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect(),
            url,
            session,
            deflate,
        }
    }
}

/// One WebSocket connection.
pub(super) struct Talk<'l> {
    pub(super) link: &'l Link,
    pub(super) opening: Opening,
    pub(super) number: u64,
    pub(super) since: Instant,
}

/// What holds for messages of one connection under one set of policies.
pub(super) struct Rules {
    pub(super) active: Arc<Active>,
    pub(super) masks: MaskSet,
    level: Level,
    /// Whether a rule reads messages.
    pub(super) judged: bool,
}

impl Rules {
    /// Keeps the beginning of a text message, where the audit level asks for it or a denial may.
    pub(super) fn sample(&self, direction: WsDirection, kind: Kind) -> Sample {
        if kind == Kind::Text && self.shows(direction) {
            let limit = self.active.snapshot.max_body_bytes() as usize;
            Sample::new(self.masks.records.clone(), limit)
        } else {
            Sample::off()
        }
    }

    /// Whether the audit level has a record for each message of a direction.
    pub(super) fn shows(&self, direction: WsDirection) -> bool {
        self.level
            >= match direction {
                WsDirection::Send => Level::Request,
                WsDirection::Receive => Level::RequestResponse,
            }
    }
}

/// What policy says of a message.
pub(super) struct Verdict {
    pub(super) decision: DecisionInfo,
    pub(super) error: Option<String>,
    decide_us: Option<u64>,
}

/// A message that is over, for its record.
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    pub(super) since: Instant,
    pub(super) body: Option<BodyInfo>,
    pub(super) masked: Vec<MaskedInfo>,
}

/// The word of policies and records for a sender.
pub(super) fn direction(sender: Side) -> WsDirection {
    match sender {
        Side::Agent => WsDirection::Send,
        Side::Upstream => WsDirection::Receive,
    }
}

impl<'l> Talk<'l> {
    pub(super) fn begin(link: &'l Link, opening: Opening) -> Self {
        Self {
            link,
            opening,
            number: CONNECTIONS.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            since: Instant::now(),
        }
    }

    /// What holds now; `before` again, if nothing has changed since.
    pub(super) fn rules(&self, before: Option<&Arc<Rules>>) -> Arc<Rules> {
        let active = self.link.now();
        if let Some(before) = before
            && Arc::ptr_eq(&before.active, &active)
        {
            return before.clone();
        }
        // Which rules fit depends on the place and on no message.
        let view = MessageView::Text("");
        let judged = self.with_operation(WsDirection::Send, false, view, |operation| {
            self.opening
                .subject
                .any(&active, operation, |rules| !rules.is_empty())
        });
        Arc::new(Rules {
            masks: self.opening.subject.masks(&active),
            level: active.snapshot.audit_level(),
            judged,
            active,
        })
    }

    /// What policy says of a message that was held.
    pub(super) fn judge(
        &self,
        rules: &Rules,
        direction: WsDirection,
        kind: Kind,
        view: MessageView<'_>,
    ) -> Verdict {
        let since = Instant::now();
        let binary = kind == Kind::Binary;
        let decision = self.with_operation(direction, binary, view, |operation| {
            self.opening.subject.decide(&rules.active, operation)
        });
        let elapsed = since.elapsed();
        let metrics = &self.link.shared.metrics;
        metrics.decision_seconds.observe(elapsed.as_secs_f64());
        Verdict {
            error: decision.error.clone(),
            decision: decision_info(&rules.active, decision),
            decide_us: Some(micros(elapsed)),
        }
    }

    /// What is said of a message that no rule reads.
    pub(super) fn unjudged(rules: &Rules) -> Verdict {
        Verdict {
            decision: builtin(&rules.active, Outcome::Allow, "default", ""),
            error: None,
            decide_us: None,
        }
    }

    fn with_operation<T>(
        &self,
        direction: WsDirection,
        binary: bool,
        message: MessageView<'_>,
        ask: impl FnOnce(&Operation<'_>) -> T,
    ) -> T {
        let Opening {
            subject,
            path,
            query,
            method,
            fields,
            ..
        } = &self.opening;
        ask(&Operation {
            protocol: Protocol::Http,
            verb: direction.as_str(),
            resource: &subject.url,
            destination: subject.place(self.link),
            http: Some(HttpView {
                method,
                scheme: subject.scheme,
                host: &subject.host,
                path,
                query,
                headers: fields,
                content_type: None,
                body_size: Some(0),
                body: BodyView::Complete(b""),
                trailers: NO_FIELDS,
            }),
            dns: None,
            grpc: None,
            ws: Some(WsView {
                direction,
                binary,
                message,
            }),
        })
    }

    /// The record of a message, where it gets one.
    pub(super) fn message(
        &self,
        rules: &Rules,
        direction: WsDirection,
        verdict: Verdict,
        seen: Seen,
    ) -> Option<Box<Event>> {
        let remarkable = verdict.decision.action == Outcome::Deny
            || verdict.decision.would_deny
            || verdict.error.is_some();
        if !remarkable && !rules.shows(direction) {
            return None;
        }
        let mut event = self.event(&rules.active, EventKind::WsMessage, direction.as_str());
        event.decision = Some(verdict.decision);
        event.error = verdict.error;
        event.masked = seen.masked;
        event.message = Some(MessageInfo {
            connection: self.number,
            bytes: seen.bytes,
            binary: seen.kind == Kind::Binary,
            body: seen.body,
        });
        event.timing = Some(Timing {
            total_us: micros(seen.since.elapsed()),
            upstream_us: None,
            decide_us: verdict.decide_us,
        });
        Some(event)
    }

    /// An event about this connection.
    pub(super) fn event(&self, active: &Active, kind: EventKind, verb: &str) -> Box<Event> {
        let mut event = active.event(kind);
        let subject = &self.opening.subject;
        event.destination = Some(DestinationInfo {
            sni: None,
            ..subject.destination(self.link)
        });
        event.operation = Some(OperationInfo {
            protocol: "http".to_owned(),
            verb: verb.to_owned(),
            resource: self.opening.url.clone(),
        });
        event.session.clone_from(&self.opening.session);
        event
    }
}
