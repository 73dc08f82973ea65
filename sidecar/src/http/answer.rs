//! What the agent is told when Chaperone answers in the upstream's place: JSON that a person, a script and a model can read.

use bytes::Bytes;
use chaperone_crds::record::DecisionInfo;
use serde::Serialize;

use crate::http1::error_response;

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

/// An answer for an operation that policy denies.
pub(crate) fn denied(
    status: u16,
    decision: &DecisionInfo,
    keep_alive: bool,
    method: &str,
) -> Bytes {
    let message = decision.message.as_deref().unwrap_or("Denied by policy.");
    render(
        status,
        keep_alive,
        method,
        &Problem {
            r#type: "chaperone_denied",
            message,
            policy: decision.policy.as_deref(),
            rule: decision.rule.as_deref(),
            revision: Some(decision.revision.as_str()),
            reason: &decision.reason,
        },
    )
}

/// An answer for bytes that Chaperone refuses, or for an upstream that failed.
pub(crate) fn failed(status: u16, reason: &str, message: &str, method: &str) -> Bytes {
    let kind = if status < 500 {
        "chaperone_refused"
    } else {
        "chaperone_upstream_error"
    };
    render(
        status,
        false,
        method,
        &Problem {
            r#type: kind,
            message,
            policy: None,
            rule: None,
            revision: None,
            reason,
        },
    )
}

fn render(status: u16, keep_alive: bool, method: &str, problem: &Problem<'_>) -> Bytes {
    let answer = Answer {
        error: Problem { ..*problem },
    };
    let json =
        serde_json::to_vec(&answer).expect("an answer has string keys only, so it serialises");
    error_response(status, &json, keep_alive, method)
}
