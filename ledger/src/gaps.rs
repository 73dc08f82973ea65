//! Which pods should have left evidence here and have not, or not all of it.
//!
//! Owns the answer to one question: which pods that ran where a stream is expected of each have none, one with a hole, one that was never closed, or one that has fallen silent. It is a fold over the log's own records and nothing else:
//! whose streams are (`stream.identity`), which pods ran and ended (`ledger.pod`), how far each stream came. So a restart forgets nothing, and whoever has the log comes to the same answer. Refuses clocks, sockets and the API server: who
//! calls says what time it is, and puts on record what is seen of pods. What no record says cannot be known: a pod that lived and died while the ledger did not look.

mod judge;
mod roster;

use chaperone_crds::record::HEARTBEAT_SECONDS;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use roster::{Roster, Standing};

/// How long nothing may come of a stream: three heartbeats, and the way of one.
pub const SILENT_AFTER: SignedDuration =
    SignedDuration::from_secs(3 * HEARTBEAT_SECONDS as i64 + 30);
/// How long a pod may run before its stream begins.
pub const BEGIN_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// How long after a pod's end its last records may be under way.
pub const LAST_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// How long a pod that has ended stays in the answer unless more is asked for.
pub const TOLD_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long it is remembered. The records stay.
pub const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a pod that was never seen to run is kept after its streams were closed.
pub const CLOSED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Pods that are remembered at most, of some 500 bytes each; beyond it those that ended first are forgotten.
pub const MAX_PODS: usize = 200_000;

/// Gaps of one answer at most, of some 700 bytes each.
pub const MAX_TOLD: usize = 10_000;

/// State of a pod in a `ledger.pod`.
pub const RUNNING: &str = "running";
/// The other one.
pub const ENDED: &str = "ended";

/// What is wrong.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It runs without Chaperone's sidecar.
    NoSidecar,
    /// Its sidecar has no token for the ledger.
    NoToken,
    /// Nothing of it has arrived.
    NoStream,
    /// Records are missing at the beginning of its stream or within.
    Hole,
    /// It runs, and its stream does not go on.
    Silent,
    /// It has ended, and its stream was not closed: what came last may be missing.
    Unclosed,
    /// Its service account is exempt: it has no sidecar because somebody decided so.
    Exempt,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoSidecar,
        Self::NoToken,
        Self::NoStream,
        Self::Hole,
        Self::Silent,
        Self::Unclosed,
        Self::Exempt,
    ];

    /// The word in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSidecar => "no-sidecar",
            Self::NoToken => "no-token",
            Self::NoStream => "no-stream",
            Self::Hole => "hole",
            Self::Silent => "silent",
            Self::Unclosed => "unclosed",
            Self::Exempt => "exempt",
        }
    }

    /// The reason of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Whether something is wrong: an exempt pod is told of, because it has no stream, and is what somebody wanted.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        self != Self::Exempt
    }

    /// What a person does about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoSidecar => {
                "it is older than its namespace's label, or came past the webhook: restart its controller (kubectl rollout restart) or delete it"
            }
            Self::NoToken => {
                "its sidecar is older than the ledger: restart its controller (kubectl rollout restart) or delete it; other sinks have its records"
            }
            Self::NoStream => {
                "kubectl logs of its container chaperone-sidecar say why nothing arrives: a NetworkPolicy, the ledger's address, the operator; what it recorded is in its spool until the pod is deleted"
            }
            Self::Hole => {
                "look for the missing records in other sinks, or in an older copy of the ledger; chaperone verify names them"
            }
            Self::Silent => {
                "is its node there? kubectl logs of its container chaperone-sidecar say why nothing arrives; its records wait in its spool, unless somebody keeps them back"
            }
            Self::Unclosed => {
                "its sidecar was killed, or its node lost: what it recorded last may be missing here; look for it in other sinks"
            }
            Self::Exempt => "its service account is among exemptServiceAccounts of the chart",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with one pod.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its node; empty where that is not known.
    pub node: String,
    /// What is wrong.
    pub reason: Reason,
    /// The same as a sentence, with figures.
    pub detail: String,
    /// What a person does about it.
    pub advice: String,
    /// Since when: of a pod without stream since it began, else when its last record was made, or the hole was found.
    pub since: Timestamp,
    /// When it ended, or was last known to be there. Absent: it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The stream that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// When the last record was made that is here of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_record: Option<Timestamp>,
    /// Number of the record that should come next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seq: Option<u64>,
    /// Records that are missing, of a hole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// Records from one number up to before another.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first that is missing.
    pub from: u64,
    /// The first that is there again.
    pub before: u64,
}

/// Which pods are asked about.
#[derive(Clone, Debug, Default)]
pub struct Scope<'a> {
    /// Of this namespace; else of all.
    pub namespace: Option<&'a str>,
    /// Those that are there, and those that ended at this time or later.
    pub ended_since: Timestamp,
}

/// The answer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// When it was true.
    pub at: Timestamp,
    /// Since when the ledger has seen pods without interruption; absent while it does not see them: pods that it knows of are judged all the same, and others may be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watching_since: Option<Timestamp>,
    /// The first record of the log: nothing is known of pods that ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_since: Option<Timestamp>,
    /// Pods that ended before are left out.
    pub ended_since: Timestamp,
    /// Pods that are there and should have a stream, or have one.
    pub pods: u64,
    /// What is wrong, by namespace, pod and reason; the first [`MAX_TOLD`].
    pub gaps: Vec<Gap>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl Answer {
    /// Whether nothing is wrong, as far as is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.gaps.iter().any(|gap| gap.reason.is_wrong())
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
