//! What Loki answers to a push: 204, or a status and words. What its words say of entries is read, for 400 alone says neither which it is about nor that Loki has the others.
//!
//! The words are those of versions 1.6 to 3. What is not known here is refused, and the batch is halved.

use chaperone_sinks::client;
use hyper::StatusCode;
use jiff::Timestamp;

use crate::sinks::target::{Failure, Then};

/// Longest reason that is kept of a record, in characters.
const REASON_CHARS: usize = 300;
/// Words about labels and tenants, whatever the entries are: somebody has to change settings, here or there.
const OF_SETTINGS: [&str; 8] = [
    "label names; limit",
    "has label name too long",
    "has label value too long",
    "has duplicate label name",
    "error parsing labels",
    "at least one label pair is required",
    "missing required labels",
    "structured metadata, but this feature is disallowed",
];
/// Words of gRPC, inside Loki, about a request of more than 4 MiB: with status 500, and it would be so for ever.
const TOO_LARGE: &str = "message larger than max";

/// What was said of a request's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Loki has them.
    Taken,
    /// Some of one stream are behind others that it has.
    Late(Late),
    /// Some can never be taken.
    Fault(Fault, String),
}

/// Entries behind others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Late {
    /// So many were not taken …
    pub(super) ignored: usize,
    /// … of so many that reached the ingester.
    pub(super) of: usize,
    /// The server takes a stream in the order of time only.
    is_strict: bool,
    why: String,
}

/// What is wrong with entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// More bytes than so many.
    Longer(usize),
    /// The time of one of them, and before which time all are, as far as it is said.
    Older(Option<Timestamp>, Option<Timestamp>),
    /// The time of one of them.
    Newer(Option<Timestamp>),
}

impl Fault {
    /// Whether it is that of an entry too, beyond doubt.
    pub(super) fn is_of(&self, time: Timestamp, length: usize) -> bool {
        match self {
            Self::Longer(limit) => length > *limit,
            Self::Older(at, before) => {
                at.is_some_and(|at| time <= at) || before.is_some_and(|before| time < before)
            }
            Self::Newer(at) => at.is_some_and(|at| time >= at),
        }
    }
}

impl Said {
    /// The server takes a stream in the order of time only.
    pub(super) fn is_strict(&self) -> bool {
        matches!(self, Self::Late(late) if late.is_strict)
    }

    /// In words.
    pub(super) fn into_why(self) -> String {
        match self {
            Self::Taken => String::new(),
            Self::Late(Late { why, .. }) | Self::Fault(_, why) => why,
        }
    }
}

/// Reads an answer. What is no word about entries is a failure.
pub(super) fn read(answer: client::Answer) -> Result<Said, Failure> {
    let status = answer.status;
    let body = answer.body.clone().unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    match status {
        StatusCode::NO_CONTENT => Ok(Said::Taken),
        StatusCode::BAD_REQUEST => of_entries(&text),
        status if status.is_success() => {
            let why = format!(
                "the endpoint answers {status}, and Loki's push API nothing but 204: the url is another service's, or Loki blocks the tenant"
            );
            Err(Failure::new(Then::Rarely, "protocol", why))
        }
        status if status.is_server_error() && text.contains(TOO_LARGE) => {
            Err(Failure::new(Then::Fewer, "refused", words(status, &text)))
        }
        StatusCode::TOO_MANY_REQUESTS if is_too_much(&text) => {
            Err(Failure::new(Then::Fewer, "throttled", words(status, &text)))
        }
        _ => Err(answer.into_error().into()),
    }
}

fn of_entries(text: &str) -> Result<Said, Failure> {
    let why = words(StatusCode::BAD_REQUEST, text);
    if OF_SETTINGS.iter().any(|words| text.contains(words)) {
        return Err(Failure::new(Then::Rarely, "settings", why));
    }
    if let Some((ignored, of)) = ignored(text) {
        let is_strict = text.contains("entry out of order");
        return Ok(Said::Late(Late {
            ignored,
            of,
            is_strict,
            why,
        }));
    }
    // With a large M and quotes, or without.
    let fault = if let Some(rest) = after(text, "ax entry size ") {
        let limit = rest.trim_start_matches('\'').split(['\'', ' ']).next();
        // Not a number: then only a single entry is known to be too long.
        let limit = limit.and_then(|limit| limit.parse().ok());
        Fault::Longer(limit.unwrap_or(usize::MAX))
    } else if let Some(rest) = after(text, "has timestamp too old: ") {
        let before = after(rest, "oldest acceptable timestamp is: ").and_then(time);
        Fault::Older(time(rest), before)
    } else if let Some(rest) = after(text, "has timestamp too new: ") {
        Fault::Newer(time(rest))
    } else {
        return Err(Failure::new(Then::Refused, "refused", why));
    };
    Ok(Said::Fault(fault, why))
}

/// `(limit: 4194304 bytes/sec) while attempting to ingest '4' lines totaling '9000000' bytes`: more than a second's worth, which may be more than Loki takes at once however long it is waited for. A single entry is waited for.
fn is_too_much(text: &str) -> bool {
    let number = |words| -> Option<u64> {
        let rest = after(text, words)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest.get(..end)?.parse().ok()
    };
    let (limit, lines) = (number("(limit: "), number("attempting to ingest '"));
    let bytes = number("totaling '");
    lines.is_some_and(|lines| lines > 1) && limit.is_some_and(|limit| bytes > Some(limit))
}

/// `total ignored: 3 out of 10`, which is said of one stream.
fn ignored(text: &str) -> Option<(usize, usize)> {
    let said = after(text, "total ignored: ")?;
    let (ignored, rest) = said.split_once(" out of ")?;
    let of = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((ignored.parse().ok()?, of.parse().ok()?))
}

/// A time as Go prints it (`2026-11-29 09:00:00.5 +0000 UTC`), or of RFC 3339, to the second then.
fn time(text: &str) -> Option<Timestamp> {
    let end = |c: char| c.is_whitespace() || matches!(c, ',' | '\'' | '"');
    let mut parts = text.split(end);
    let first = parts.next()?;
    if let Ok(time) = first.parse() {
        return Some(time);
    }
    let (clock, offset) = (parts.next()?, parts.next()?);
    format!("{first}T{clock}{offset}").parse().ok()
}

fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

/// Loki's words, without the piece of the request that its reader of JSON shows.
fn words(status: StatusCode, text: &str) -> String {
    let words = text.split("...|").next().unwrap_or_default().trim();
    let words: String = words
        .chars()
        .take(REASON_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("{}: {words}", status.as_u16())
}
