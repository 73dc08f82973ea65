//! Messages of a gRPC call before they are forwarded: whether a rule reads them, and what policy says of each.

use std::{sync::Arc, time::Instant};

use chaperone_crds::{
    decide::{BodyView, GrpcMessage, GrpcView, HttpView, NO_FIELDS, Operation, WsDirection},
    resources::Protocol,
};

use super::Subject;
use crate::{
    grpc::{Call, Judge, Verdict},
    http::{
        record::Evidence,
        view::{self, RequestView},
    },
    link::{Link, decision_info},
    shared::Active,
};

/// What holds for the messages of the call that a request is; `None` where nobody reads them.
pub(crate) fn call(
    link: &Link,
    active: &Arc<Active>,
    evidence: &Evidence,
    subject: &Subject,
    request: &RequestView<'_>,
) -> Option<Arc<Call>> {
    let (call, method) = evidence.call()?;
    let described = !active.descriptors.is_empty();
    let judge = judge(link, active, subject, request);
    (described || judge.is_some()).then(|| {
        let name = format!("{}/{}", call.service, call.method);
        Arc::new(Call::new(name, method.cloned(), described, judge))
    })
}

fn judge(
    link: &Link,
    active: &Arc<Active>,
    subject: &Subject,
    request: &RequestView<'_>,
) -> Option<Judge> {
    if !active.snapshot.reads_grpc_messages() {
        return None;
    }
    let asker = Asker {
        link: link.clone(),
        active: active.clone(),
        subject: subject.clone(),
        method: request.method.to_owned(),
        path: request.path.to_owned(),
        query: request.query.unwrap_or_default().to_owned(),
        fields: request
            .fields
            .fields()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect(),
    };
    // Which rules fit depends on the place and on no message.
    let empty = GrpcMessage::Json("{}");
    let judged = asker.with_operation(WsDirection::Send, empty, |operation| {
        subject.any(active, operation, |rules| !rules.is_empty())
    });
    judged.then(|| -> Judge { Arc::new(move |direction, message| asker.ask(direction, message)) })
}

/// The request that began a call, kept for its messages.
struct Asker {
    link: Link,
    active: Arc<Active>,
    subject: Subject,
    method: String,
    path: String,
    query: String,
    fields: Vec<(String, Vec<u8>)>,
}

impl Asker {
    fn ask(&self, direction: WsDirection, message: GrpcMessage<'_>) -> Verdict {
        let since = Instant::now();
        let decision = self.with_operation(direction, message, |operation| {
            self.subject.decide(&self.active, operation)
        });
        let metrics = &self.link.shared.metrics;
        let elapsed = since.elapsed().as_secs_f64();
        metrics.decision_seconds.observe(elapsed);
        Verdict {
            error: decision.error.clone(),
            decision: decision_info(&self.active, decision),
        }
    }

    fn with_operation<T>(
        &self,
        direction: WsDirection,
        message: GrpcMessage<'_>,
        ask: impl FnOnce(&Operation<'_>) -> T,
    ) -> T {
        ask(&Operation {
            protocol: Protocol::Http,
            verb: &self.method,
            resource: &self.subject.url,
            destination: self.subject.place(&self.link),
            http: Some(HttpView {
                method: &self.method,
                scheme: self.subject.scheme,
                host: &self.subject.host,
                path: &self.path,
                query: &self.query,
                headers: &self.fields,
                content_type: view::field(&self.fields, "content-type"),
                body_size: None,
                body: BodyView::NotRead,
                trailers: NO_FIELDS,
            }),
            dns: None,
            ws: None,
            grpc: Some(GrpcView { direction, message }),
        })
    }
}
