//! What somebody asks for.
//!
//! Owns the parameters, their words for a person when one is wrong, and whether a record is what was asked for. The index only proposes: [`Query::asks_for`] disposes.

mod page;
mod parameters;

use std::str::FromStr as _;

use chaperone_crds::chain::StreamId;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

pub use page::{BadCursor, PageCursor};
pub use parameters::{MAX_QUERY_BYTES, encoded, parameters};

use crate::{
    facts::{Facts, Whose, domains, levels, normal_host, texts},
    terms::{Field, WOULD_DENY, word},
    words::{BadText, Text},
};

/// Most records of an answer, and how many there are where nobody says.
pub const MAX_LIMIT: usize = 1000;
/// Records of an answer where nobody says how many.
pub const DEFAULT_LIMIT: usize = 100;
/// Highest leaf that may be named.
const MAX_LEAF: u64 = 1 << 53;
/// Longest value of a parameter, in bytes.
pub const MAX_VALUE_BYTES: usize = 2048;

/// A question. What is `None` asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Service account.
    pub service_account: Option<String>,
    /// Where to.
    pub host: Option<Host>,
    /// This path or one below it, without a slash at the end.
    pub path: Option<String>,
    /// Kind of record.
    pub kind: Option<String>,
    /// Verb of the operation.
    pub verb: Option<String>,
    /// Status of HTTP.
    pub status: Option<u64>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Policy that decided.
    pub policy: Option<String>,
    /// Rule that decided.
    pub rule: Option<String>,
    /// Why, as a word.
    pub reason: Option<String>,
    /// The agent's own session, as its record says.
    pub session: Option<String>,
    /// Stream.
    pub stream: Option<StreamId>,
    /// Not before, in microseconds since 1970.
    pub since: Option<i64>,
    /// Before, in microseconds since 1970.
    pub until: Option<i64>,
    /// Words.
    pub text: Option<Text>,
    /// Which come first.
    pub order: Order,
    /// Most records of the answer.
    pub limit: usize,
    /// Where an answer before ended.
    pub cursor: Option<PageCursor>,
    /// From this leaf on: what is before it is not even looked at.
    pub from: u64,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// This name or address.
    Is(String),
    /// Names below this domain (`*.example.com`).
    Below(String),
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It passed.
    Allow,
    /// It was refused.
    Deny,
    /// It passed, and a policy in Audit would have denied it.
    WouldDeny,
}

/// In which order: that of the leaves, which is that in which the ledger took the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The newest first.
    #[default]
    Desc,
    /// The oldest first.
    Asc,
}

/// A parameter that cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadQuery {
    /// It is not encoded as a URL is.
    #[error("{0:?} is not encoded as the query of a URL is")]
    Encoding(String),
    /// It is too long.
    #[error("a question has at most {MAX_QUERY_BYTES} bytes")]
    TooLong,
    /// There is no such parameter.
    #[error("there is no parameter {0:?}")]
    Unknown(String),
    /// It is there twice.
    #[error("{0} is there more than once")]
    Twice(&'static str),
    /// It is empty or too long.
    #[error("{0} has to be of 1 to {MAX_VALUE_BYTES} bytes")]
    Size(&'static str),
    /// It is none of the words.
    #[error("{0} is one of {1}, not {2:?}")]
    Word(&'static str, &'static str, String),
    /// It is no number within bounds.
    #[error("{0} is a number from {1} to {2}, not {3:?}")]
    Number(&'static str, u64, u64, String),
    /// It is no time.
    #[error("{0} is a time such as 2026-11-29T10:00:00Z, not {1:?}")]
    Time(&'static str, String),
    /// The times are the wrong way round.
    #[error("since is not before until")]
    Never,
    /// It is no stream.
    #[error("stream is a UUID in lower case, not {0:?}")]
    Stream(String),
    /// It is no path.
    #[error("path begins with a slash, not as {0:?} does")]
    Path(String),
    /// It is no text query.
    #[error("q: {0}")]
    Text(#[from] BadText),
    /// It is no cursor of an answer.
    #[error("{0}")]
    Cursor(#[from] BadCursor),
}

impl Query {
    /// Reads parameters: names and values, each name once at most.
    ///
    /// # Errors
    /// [`BadQuery`], for the first that is wrong.
    pub fn parse<'p>(
        parameters: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> Result<Self, BadQuery> {
        let mut query = Self {
            limit: DEFAULT_LIMIT,
            ..Self::default()
        };
        let mut known: Vec<&'static str> = Vec::new();
        for (name, value) in parameters {
            let name = NAMES
                .into_iter()
                .find(|known| *known == name)
                .ok_or_else(|| BadQuery::Unknown(name.chars().take(64).collect()))?;
            if known.contains(&name) {
                return Err(BadQuery::Twice(name));
            }
            known.push(name);
            if value.is_empty() || value.len() > MAX_VALUE_BYTES {
                return Err(BadQuery::Size(name));
            }
            query.set(name, value)?;
        }
        if let (Some(since), Some(until)) = (query.since, query.until)
            && since >= until
        {
            return Err(BadQuery::Never);
        }
        Ok(query)
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), BadQuery> {
        let text = || Some(value.to_owned());
        let number = |from, to| number(name, value, from, to);
        match name {
            "namespace" => self.namespace = text(),
            "pod" => self.pod = text(),
            "serviceAccount" => self.service_account = text(),
            "host" => self.host = Some(host(value)),
            "path" => self.path = Some(path(value)?),
            "kind" => self.kind = text(),
            "verb" => self.verb = text(),
            "status" => self.status = Some(number(100, 999)?),
            "decision" => self.decision = Some(decision(value)?),
            "policy" => self.policy = text(),
            "rule" => self.rule = text(),
            "reason" => self.reason = text(),
            "session" => self.session = text(),
            "stream" => {
                let stream = StreamId::from_str(value);
                self.stream = Some(stream.map_err(|_| BadQuery::Stream(value.to_owned()))?);
            }
            "since" => self.since = Some(time(name, value)?),
            "until" => self.until = Some(time(name, value)?),
            "q" => self.text = Some(Text::parse(value)?),
            "order" => self.order = order(value)?,
            "limit" => {
                let limit = number(1, MAX_LIMIT as u64)?;
                self.limit = usize::try_from(limit).unwrap_or(MAX_LIMIT);
            }
            "from" => self.from = number(0, MAX_LEAF)?,
            _ => self.cursor = Some(value.parse()?),
        }
        Ok(())
    }

    /// The terms that every record has that is asked for: a query of FTS5. None where only times are asked for.
    #[must_use]
    pub fn terms(&self) -> Option<String> {
        let mut terms = Vec::new();
        let mut put = |field: Field, value: Option<&str>| {
            terms.extend(value.map(|value| quoted(&field.term(value))));
        };
        put(Field::Namespace, self.namespace.as_deref());
        put(Field::Pod, self.pod.as_deref());
        put(Field::ServiceAccount, self.service_account.as_deref());
        match &self.host {
            Some(Host::Is(host)) => put(Field::Host, Some(host)),
            Some(Host::Below(domain)) => put(Field::Domain, domains(domain).last()),
            None => {}
        }
        // What is deeper than levels are told apart is asked for by the level above.
        let level = self.path.as_deref().and_then(|path| levels(path).last());
        put(Field::Path, level);
        put(Field::Kind, self.kind.as_deref());
        put(Field::Verb, self.verb.as_deref());
        put(Field::Status, self.status.map(|s| s.to_string()).as_deref());
        put(Field::Decision, self.decision.map(Decision::as_str));
        put(Field::Policy, self.policy.as_deref());
        put(Field::Rule, self.rule.as_deref());
        put(Field::Reason, self.reason.as_deref());
        put(Field::Session, self.session.as_deref());
        put(Field::Stream, self.stream.as_ref().map(StreamId::as_str));
        for term in self.text.iter().flat_map(Text::terms) {
            terms.extend(term.whole().iter().map(|w| quoted(&word(w))));
            terms.extend(term.prefix().map(|w| format!("{} *", quoted(&word(w)))));
        }
        (!terms.is_empty()).then(|| terms.join(" AND "))
    }

    /// Whether this record is asked for.
    #[must_use]
    pub fn asks_for(&self, record: &Value, facts: &Facts<'_>, whose: &Whose, stream: &str) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        is(&self.namespace, Some(&whose.namespace))
            && is(&self.pod, Some(&whose.pod))
            && is(&self.service_account, Some(&whose.service_account))
            && is(&self.kind, Some(facts.kind))
            && is(&self.verb, facts.verb)
            && is(&self.policy, facts.policy)
            && is(&self.rule, facts.rule)
            && is(&self.reason, facts.reason)
            && is(&self.session, facts.session)
            && self.stream.as_ref().is_none_or(|s| s.as_str() == stream)
            && self
                .status
                .is_none_or(|status| facts.status == Some(status))
            && self.decision.is_none_or(|decision| decision.is(facts))
            && self.host.as_ref().is_none_or(|host| host.is(facts))
            && self.is_below(facts.path)
            && self.is_at(facts.time)
            && self.has_text(record)
    }

    /// Whether a record of this time is asked for.
    #[must_use]
    pub fn is_at(&self, time: Option<i64>) -> bool {
        let is_free = self.since.is_none() && self.until.is_none();
        time.map_or(is_free, |time| {
            self.since.is_none_or(|since| since <= time)
                && self.until.is_none_or(|until| time < until)
        })
    }

    fn is_below(&self, found: Option<&str>) -> bool {
        self.path.as_deref().is_none_or(|wanted| {
            found
                .and_then(|found| found.strip_prefix(wanted))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn has_text(&self, record: &Value) -> bool {
        self.text.as_ref().is_none_or(|text| {
            let mut all = Vec::new();
            texts(record, &mut |found| all.push(found));
            text.is_in(&all)
        })
    }
}

/// Parameters that a list of sessions has.
pub const SESSION_NAMES: [&str; 5] = ["namespace", "since", "until", "limit", "cursor"];

/// All parameters.
pub const NAMES: [&str; 21] = [
    "namespace",
    "pod",
    "serviceAccount",
    "host",
    "path",
    "kind",
    "verb",
    "status",
    "decision",
    "policy",
    "rule",
    "reason",
    "session",
    "stream",
    "since",
    "until",
    "q",
    "order",
    "limit",
    "cursor",
    "from",
];

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::WouldDeny => WOULD_DENY,
        }
    }

    fn is(self, facts: &Facts<'_>) -> bool {
        match self {
            Self::WouldDeny => facts.would_deny,
            other => facts.action == Some(other.as_str()),
        }
    }
}

impl Host {
    fn is(&self, facts: &Facts<'_>) -> bool {
        facts.host.as_deref().is_some_and(|found| match self {
            Self::Is(wanted) => found == wanted,
            Self::Below(domain) => found
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        })
    }
}

/// A term as FTS5 reads strings. Terms have no quotes: nothing has to be escaped.
fn quoted(term: &str) -> String {
    format!("\"{term}\"")
}

fn host(value: &str) -> Host {
    match value.strip_prefix("*.") {
        Some(domain) => Host::Below(normal_host(domain)),
        None => Host::Is(normal_host(value)),
    }
}

fn path(value: &str) -> Result<String, BadQuery> {
    match value.starts_with('/') {
        true => Ok(value.trim_end_matches('/').to_owned()),
        false => Err(BadQuery::Path(value.to_owned())),
    }
}

fn decision(value: &str) -> Result<Decision, BadQuery> {
    [Decision::Allow, Decision::Deny, Decision::WouldDeny]
        .into_iter()
        .find(|decision| decision.as_str() == value)
        .ok_or_else(|| BadQuery::Word("decision", "Allow, Deny, WouldDeny", value.to_owned()))
}

fn order(value: &str) -> Result<Order, BadQuery> {
    match value {
        "desc" => Ok(Order::Desc),
        "asc" => Ok(Order::Asc),
        _ => Err(BadQuery::Word("order", "desc, asc", value.to_owned())),
    }
}

fn number(name: &'static str, value: &str, from: u64, to: u64) -> Result<u64, BadQuery> {
    let number = value.parse().ok().filter(|n| (from..=to).contains(n));
    number.ok_or_else(|| BadQuery::Number(name, from, to, value.to_owned()))
}

fn time(name: &'static str, value: &str) -> Result<i64, BadQuery> {
    let time = value.parse::<Timestamp>();
    time.map(Timestamp::as_microsecond)
        .map_err(|_| BadQuery::Time(name, value.to_owned()))
}

#[cfg(test)]
mod tests;
