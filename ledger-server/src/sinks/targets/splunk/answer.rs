//! What the collector answers: `{"text":…,"code":N}` ([HEC's codes](https://docs.splunk.com/Documentation/Splunk/latest/Data/TroubleshootHTTPEventCollector)), and `{"acks":{"N":true}}`.

use std::collections::HashMap;

use chaperone_sinks::client;
use serde::Deserialize;

use crate::sinks::target::{Failure, Then};

/// The collector has a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// What to ask for, where the token has acknowledgement.
    pub(super) ack: Option<u64>,
}

#[derive(Deserialize)]
struct Said {
    code: u32,
    #[serde(default)]
    text: String,
    #[serde(default, rename = "ackId")]
    ack_id: Option<u64>,
}

#[derive(Deserialize)]
struct Acks {
    acks: HashMap<String, bool>,
}

/// Reads the answer to a batch.
pub(super) fn taken(answer: client::Answer) -> Result<Taken, Failure> {
    let said = answer.body.as_deref().and_then(read);
    if !answer.status.is_success() {
        let mut failure = Failure::from(answer.into_error());
        if let Some(then) = said.and_then(|said| is_of_settings(said.code)) {
            (failure.then, failure.reason) = then;
        }
        return Err(failure);
    }
    match said {
        Some(Said {
            code: 0, ack_id, ..
        }) => Ok(Taken { ack: ack_id }),
        Some(Said { code, text, .. }) => {
            let text: String = text.chars().take(200).collect();
            Err(Failure::new(
                Then::Rarely,
                "refused",
                format!("code {code}: {text}"),
            ))
        }
        None => Err(no_collector()),
    }
}

/// Codes that come with status 400 or 403 and say nothing of the events.
fn is_of_settings(code: u32) -> Option<(Then, &'static str)> {
    match code {
        // The index is not the token's; the channel is missing, no UUID, or acknowledgement is off.
        7 | 10 | 11 | 14 => Some((Then::Rarely, "settings")),
        _ => None,
    }
}

/// Reads the answer to a question for one number.
pub(super) fn is_indexed(answer: client::Answer, ack: u64) -> Result<bool, Failure> {
    if !answer.status.is_success() {
        let mut failure = Failure::from(answer.into_error());
        // A question has no records that could be refused.
        if matches!(failure.then, Then::Refused | Then::Fewer) {
            (failure.then, failure.reason) = (Then::Rarely, "settings");
        }
        return Err(failure);
    }
    let acks = answer.body.as_deref();
    let acks: Option<Acks> = acks.and_then(|body| serde_json::from_slice(body).ok());
    let acks = acks.ok_or_else(no_collector)?;
    Ok(acks.acks.get(&ack.to_string()) == Some(&true))
}

fn read(body: &[u8]) -> Option<Said> {
    serde_json::from_slice(body).ok()
}

/// An endpoint that says yes to anything would swallow all records.
fn no_collector() -> Failure {
    let why = "the endpoint answers with success, and with something that is not the HTTP Event Collector's: the url is another service's";
    Failure::new(Then::Rarely, "protocol", why)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn said(status: u16, body: &str) -> client::Answer {
        let status = StatusCode::from_u16(status).unwrap();
        client::Answer::new(status, Some(body.to_owned().into()))
    }

    #[test]
    fn codes_say_whether_events_or_settings_are_at_fault() {
        let cases = [
            (
                400,
                r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#,
                Then::Rarely,
                "settings",
            ),
            (
                400,
                r#"{"text":"Data channel is missing","code":10}"#,
                Then::Rarely,
                "settings",
            ),
            (
                400,
                r#"{"text":"Invalid data format","code":6}"#,
                Then::Refused,
                "refused",
            ),
            (
                403,
                r#"{"text":"Invalid token","code":4}"#,
                Then::Rarely,
                "unauthorized",
            ),
            (
                503,
                r#"{"text":"Server is busy","code":9}"#,
                Then::Soon,
                "server-error",
            ),
            (413, "", Then::Fewer, "refused"),
            (
                200,
                r#"{"text":"Token disabled","code":1}"#,
                Then::Rarely,
                "refused",
            ),
            (200, "OK", Then::Rarely, "protocol"),
            (200, "", Then::Rarely, "protocol"),
        ];
        for (status, body, then, reason) in cases {
            let failure = taken(said(status, body)).unwrap_err();
            assert_eq!((failure.then, failure.reason), (then, reason), "{body}");
        }
        let success = |body| taken(said(200, body)).unwrap().ack;
        assert_eq!(success(r#"{"text":"Success","code":0}"#), None);
        assert_eq!(success(r#"{"text":"Success","code":0,"ackId":7}"#), Some(7));
    }

    #[test]
    fn only_the_number_that_was_asked_for_counts() {
        let is = |status, body| is_indexed(said(status, body), 7);
        assert_eq!(is(200, r#"{"acks":{"7":true}}"#), Ok(true));
        assert_eq!(is(200, r#"{"acks":{"7":false,"8":true}}"#), Ok(false));
        assert_eq!(is(200, r#"{"acks":{}}"#), Ok(false));
        for (status, body) in [
            (200, "true"),
            (200, r#"{"acks":{"7":1}}"#),
            (400, r#"{"text":"ACK is disabled","code":14}"#),
        ] {
            assert_eq!(is(status, body).unwrap_err().then, Then::Rarely, "{body}");
        }
        assert_eq!(is(503, "").unwrap_err().then, Then::Soon);
    }
}
