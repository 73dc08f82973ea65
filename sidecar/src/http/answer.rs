//! What the agent is told when Chaperone answers in the upstream's place: JSON that a person, a script and a model can read.

use bytes::Bytes;
use chaperone_crds::record::DecisionInfo;
use serde::Serialize;

use crate::{grpc, http1::error_response};

/// The body of an answer that Chaperone makes itself.
#[derive(Serialize)]
struct Answer<'a> {
    error: Problem<'a>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    reason: &'a str,
}

/// An HTTP/1 answer for an operation that policy denies.
pub(crate) fn denied(
    status: u16,
    decision: &DecisionInfo,
    keep_alive: bool,
    method: &str,
) -> Bytes {
    error_response(status, &denial(decision), keep_alive, method)
}

/// An HTTP/1 answer for a gRPC-Web call that policy denies: no body, and what would be trailers in the head.
pub(crate) fn denied_call(decision: &DecisionInfo, content_type: &str, keep_alive: bool) -> Bytes {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for (name, value) in grpc::denial(decision, content_type) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!(
        "content-length: 0\r\nconnection: {connection}\r\n\r\n"
    ));
    Bytes::from(head)
}

/// An HTTP/1 answer for bytes that Chaperone refuses, or for an upstream that failed.
pub(crate) fn failed(status: u16, reason: &str, message: &str, method: &str) -> Bytes {
    error_response(status, &failure(status, reason, message), false, method)
}

/// What a denied operation is told, as JSON.
pub(crate) fn denial(decision: &DecisionInfo) -> Vec<u8> {
    json(Problem {
        r#type: "chaperone_denied",
        message: decision.message.as_deref().unwrap_or("Denied by policy."),
        policy: decision.policy.as_deref(),
        rule: decision.rule.as_deref(),
        revision: Some(decision.revision.as_str()),
        reason: &decision.reason,
    })
}

/// What is told of bytes that Chaperone refuses, or of an upstream that failed, as JSON.
pub(crate) fn failure(status: u16, reason: &str, message: &str) -> Vec<u8> {
    let kind = match status {
        ..500 => "chaperone_refused",
        503 => "chaperone_unavailable",
        _ => "chaperone_upstream_error",
    };
    json(Problem {
        r#type: kind,
        message,
        policy: None,
        rule: None,
        revision: None,
        reason,
    })
}

fn json(problem: Problem<'_>) -> Vec<u8> {
    serde_json::to_vec(&Answer { error: problem })
        .expect("an answer has string keys only, so it serialises")
}
