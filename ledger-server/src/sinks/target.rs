//! What a target is: something that takes batches and says what became of them.
//!
//! Owns the words of an answer. Refuses loops: when a batch comes again is the delivery's. Invariant: a target says that it took a record only after the other side said so, in the way that its kind's
//! contract in docs/sinks.md has.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use chaperone_sinks::{ClientError, settings::Sink};
use serde::Deserialize;

/// A record on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Number of its leaf.
    pub(crate) leaf: u64,
    /// What it is about.
    pub(crate) about: About,
    /// How it is written for this sink: one line of JSON, without a newline.
    pub(crate) line: String,
}

impl Outgoing {
    /// The record's name where a slash cannot stand: `STREAM-SEQ`. One whose stream this version cannot read has its number in the log instead, so that no two have the same.
    pub(crate) fn key(&self) -> String {
        match self.about.stream.as_str() {
            "" => format!("leaf-{}", self.leaf),
            stream => format!("{stream}-{}", self.about.seq),
        }
    }
}

/// What targets read of a record for their own fields. What this version does not know reads as nothing.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub(crate) struct About {
    /// Its stream.
    pub(crate) stream: String,
    /// Its number there.
    pub(crate) seq: u64,
    /// When: RFC 3339.
    pub(crate) time: String,
    /// What kind of event.
    pub(crate) kind: String,
    /// Whose.
    pub(crate) agent: Agent,
    /// What was decided.
    pub(crate) decision: Option<Decision>,
}

/// Whose a record is.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Agent {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its pod.
    pub(crate) pod: String,
    /// Its service account.
    pub(crate) service_account: String,
}

/// What was decided.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Decision {
    /// `Allow` or `Deny`.
    pub(crate) action: String,
    would_deny: bool,
}

/// How grave a record is, the same for all kinds that ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// What is usual.
    Informational,
    /// It would have been denied, or was not read.
    Notice,
    /// It was denied.
    Warning,
}

impl About {
    /// How grave it is.
    pub(crate) fn severity(&self) -> Severity {
        match &self.decision {
            Some(decision) if decision.action == "Deny" => Severity::Warning,
            Some(decision) if decision.would_deny => Severity::Notice,
            _ if self.kind == "gap" => Severity::Notice,
            _ => Severity::Informational,
        }
    }
}

impl About {
    /// The record's name everywhere: `STREAM/SEQ`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.stream, self.seq)
    }
}

/// What became of a batch that reached the target. Records that are in neither list are acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Refused for good: place in the batch, and why.
    pub(crate) refused: Vec<(usize, String)>,
    /// Refused for good for what a record itself is, its time or its length, as the target's own limits have it: place in the batch, and why. Believed of a target that has taken none, too.
    pub(crate) unfit: Vec<(usize, String)>,
    /// How many were refused for good without saying which, and why.
    pub(crate) refused_unnamed: Option<(u64, String)>,
    /// Places in the batch of those that must come again, ascending.
    pub(crate) again: Vec<usize>,
}

/// Nothing of the batch is known to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What follows.
    pub(crate) then: Then,
    /// The metric's label.
    pub(crate) reason: &'static str,
    /// In words, without credentials and without the records' content.
    pub(crate) message: String,
    /// What the target asked for.
    pub(crate) retry_after: Option<Duration>,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The same again soon.
    Soon,
    /// The same again now and then: someone has to change something.
    Rarely,
    /// Fewer at once; a single one is refused for good.
    Fewer,
    /// Something in the batch is refused for good.
    Refused,
}

/// What [`Target::send`] returns.
pub(crate) type Sending<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// A place where records go.
pub(crate) trait Target: Send {
    /// Sends records, at least one, in order. May be dropped at any await: the records then come again.
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a>;

    /// Sends one record that is in no log and whose number there will be another's: a kind whose numbers are names must not let it stand in that one's place.
    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        self.send(std::slice::from_ref(record))
    }
}

/// Makes the target of a sink. Nothing is connected by that.
pub(crate) type Make = Arc<dyn Fn(&Sink) -> Result<Box<dyn Target>, Failure> + Send + Sync>;

impl Failure {
    /// One that passes by itself.
    pub(crate) fn soon(reason: &'static str, message: impl ToString) -> Self {
        Self::new(Then::Soon, reason, message)
    }

    pub(crate) fn new(then: Then, reason: &'static str, message: impl ToString) -> Self {
        Self {
            then,
            reason,
            message: message.to_string(),
            retry_after: None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let then = match &error {
            ClientError::Status { status: 413, .. } => Then::Fewer,
            // The request was understood, and what it holds is not wanted.
            ClientError::Status {
                status: 400 | 422, ..
            } => Then::Refused,
            error if error.needs_a_person() => Then::Rarely,
            _ => Then::Soon,
        };
        Self {
            then,
            reason: error.reason(),
            message: error.to_string(),
            retry_after: error.retry_after(),
        }
    }
}
