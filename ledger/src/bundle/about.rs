//! What a record names, and what it says about others.

use std::collections::BTreeSet;

use chaperone_crds::{
    chain::StreamId,
    head::Head,
    record::{EventKind, IdentityInfo},
    snapshot::Revision,
};
use serde::Deserialize;

use super::Spans;

/// What a record names, as far as a bundle asks for it.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Its session.
    pub(super) session: Option<String>,
    /// The revision of the policies that decided.
    pub(super) revision: Option<Revision>,
    pub(super) about: Option<About>,
}

/// What a record says about others.
#[derive(Debug)]
pub(super) enum About {
    /// It opens its stream.
    Opens,
    /// Policies of this revision took effect.
    Policies(Revision),
    /// Whose this stream is: of the ledger's own stream.
    Whose(StreamId),
}

#[derive(Deserialize)]
struct Raw {
    session: Option<Session>,
    decision: Option<Revised>,
    config: Option<Revised>,
    identity: Option<IdentityInfo>,
}

#[derive(Deserialize)]
struct Session {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Revised {
    revision: Option<Revision>,
}

impl Named {
    /// What this record names. Of one whose parts are not as they should be, nothing.
    pub(super) fn of(head: &Head, line: &[u8]) -> Self {
        let Ok(raw) = serde_json::from_slice::<Raw>(line) else {
            return Self::default();
        };
        let kind = head.place.kind();
        let is = |wanted: EventKind| kind == wanted.as_str();
        let about = if is(EventKind::StreamOpen) {
            Some(About::Opens)
        } else if is(EventKind::Config) {
            raw.config
                .and_then(|config| config.revision)
                .map(About::Policies)
        } else if is(EventKind::StreamIdentity) {
            let stream = raw
                .identity
                .and_then(|identity| identity.stream.parse().ok());
            stream.map(About::Whose)
        } else {
            None
        };
        Self {
            session: raw.session.and_then(|session| session.id),
            revision: raw.decision.and_then(|decision| decision.revision),
            about,
        }
    }
}

/// What of a subject is to be explained.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pub(super) spans: Spans,
    /// Revisions that its decisions name.
    pub(super) revisions: BTreeSet<Revision>,
}

impl Explained {
    /// Whether a record of this stream says something about the subject. `own` is the ledger's stream: no other says whose streams are.
    pub(super) fn by(&self, stream: &StreamId, own: &StreamId, about: Option<&About>) -> bool {
        match about {
            None => false,
            Some(About::Opens) => self.spans.contains_key(stream),
            Some(About::Policies(revision)) => {
                self.spans.contains_key(stream) && self.revisions.contains(revision)
            }
            Some(About::Whose(of)) => stream == own && self.spans.contains_key(of),
        }
    }
}
