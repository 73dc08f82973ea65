//! A message under way: what is known of it, and what becomes of it.

use std::{sync::Arc, time::Instant};

use chaperone_crds::record::Event;

use super::{
    super::sample::Sample,
    hold::Hold,
    talk::{Rules, Verdict},
};
use crate::{
    mask::{Format, Layers},
    websocket::{Kind, Side, Utf8},
};

/// A message under way.
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) compressed: bool,
    pub(super) rules: Arc<Rules>,
    pub(super) since: Instant,
    pub(super) way: Way,
    pub(super) utf8: Utf8,
    pub(super) bytes: u64,
    pub(super) sample: Sample,
    /// Once it was judged.
    pub(super) verdict: Option<Verdict>,
    /// Whether a frame of ours began it.
    pub(super) begun: bool,
}

/// What becomes of a message.
pub(super) enum Way {
    /// It passes as it is written.
    Pass,
    /// It leaves in frames of ours, its text through these.
    Rewrite(Layers),
    /// It waits for its decision.
    Hold(Hold),
}

/// What the text of a message goes through: masks, and on its way out then tokens that become their values. Bytes go through nothing.
pub(super) fn layers(rules: &Rules, sender: Side, kind: Kind) -> Layers {
    let (masks, restore) = match sender {
        Side::Agent => (&rules.masks.request, rules.masks.restore.as_ref()),
        Side::Upstream => (&rules.masks.response, None),
    };
    let masks = masks.as_ref().filter(|masks| masks.reads_bodies());
    match kind {
        Kind::Text => Layers::new(masks.cloned(), restore.cloned(), Format::Message),
        Kind::Binary => Layers::default(),
    }
}

/// A message that is refused.
pub(super) struct Denied {
    /// Its record.
    pub(super) event: Option<Box<Event>>,
    /// Why, as the decision says it.
    pub(super) why: String,
    /// What its close frame says.
    pub(super) words: String,
}

/// What a close frame says of a denial.
pub(super) fn refusal(verdict: &Verdict) -> String {
    let decision = &verdict.decision;
    let by = match (&decision.policy, &decision.rule) {
        (Some(policy), Some(rule)) => format!("policy {policy}, rule {rule}"),
        _ => "policy".to_owned(),
    };
    match &decision.message {
        Some(message) => format!("denied by {by}: {message}"),
        None => format!("denied by {by}"),
    }
}
