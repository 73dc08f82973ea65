//! Who calls, and what they may: the seam between the API and the cluster.
//!
//! Owns the two questions that the API asks. Refuses to answer from what a caller says: `kubernetes` asks the API server.

mod kubernetes;

use std::{pin::Pin, sync::Arc, time::Duration};

use chaperone_crds::{pod::PodIdentity, resources::PolicyRule};
use sha2::{Digest, Sha256};

pub use kubernetes::Kubernetes;

use chaperone_server::reviews::User;

use crate::refusal::Refusal;

/// A pod that writes, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Who it is.
    pub identity: PodIdentity,
    /// What its containers run, as far as they have started.
    pub image_ids: Vec<String>,
}

/// What readers get at. Each is a path that a rule of RBAC may name under `nonResourceURLs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The checkpoint.
    Checkpoint,
    /// Tiles and entries.
    Tiles,
}

/// What readers of records and sessions ask for: a verb on a resource of the group `chaperone.dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// `list`, `get`, `create` or `delete`.
    pub verb: &'static str,
    /// `records`, `sessions`, `gaps`, `holds`, `erasures` or `auditsinks/test`: what stands after a slash is a subresource.
    pub resource: &'static str,
}

impl Sight {
    /// Records, many at a time.
    pub const LIST_RECORDS: Self = Self::new("list", "records");
    /// One record.
    pub const GET_RECORDS: Self = Self::new("get", "records");
    /// Pods whose evidence is missing.
    pub const LIST_GAPS: Self = Self::new("list", "gaps");
    /// A marked record to a sink.
    pub const TEST_SINKS: Self = Self::new("create", "auditsinks/test");
    /// Sessions, many at a time.
    pub const LIST_SESSIONS: Self = Self::new("list", "sessions");
    /// One session.
    pub const GET_SESSIONS: Self = Self::new("get", "sessions");

    /// A legal hold.
    pub const CREATE_HOLDS: Self = Self::new("create", "holds");
    /// Which legal holds there are.
    pub const LIST_HOLDS: Self = Self::new("list", "holds");
    /// The end of a legal hold.
    pub const DELETE_HOLDS: Self = Self::new("delete", "holds");
    /// A session's content, deleted.
    pub const CREATE_ERASURES: Self = Self::new("create", "erasures");

    const fn new(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource }
    }
}

/// Who wants to see something, and whether they may.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Who.
    pub user: Arc<User>,
    /// Whether RBAC allows it.
    pub is_allowed: bool,
}

/// A policy, as the cluster has it now.
#[derive(Clone, Debug)]
pub struct PolicyNow {
    /// Its generation.
    pub generation: i64,
    /// Its rules.
    pub rules: Vec<PolicyRule>,
}

/// What an [`Authenticator`] returns.
pub type Verdict<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// Judges bearer tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// The pod whose sidecar has this token.
    fn workload<'a>(&'a self, token: &'a str) -> Verdict<'a, Arc<Workload>>;
    /// Whether who has this token may read there.
    fn may_read<'a>(&'a self, token: &'a str, place: Place) -> Verdict<'a, ()>;
    /// Who has this token, and whether they may see that in this namespace, or in all.
    fn reader<'a>(
        &'a self,
        token: &'a str,
        sight: Sight,
        namespace: Option<&'a str>,
    ) -> Verdict<'a, Arc<Reader>>;
    /// A token for a user whom the ledger itself knows, by somebody's word that it takes; it holds so long, here alone, and for what readers ask.
    fn vouch(&self, user: User, life: Duration) -> Result<String, Refusal>;
    /// The policy of this name (of no namespace: a cluster's), if who has this token may get it. None: there is none.
    fn policy<'a>(
        &'a self,
        token: &'a str,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> Verdict<'a, Option<PolicyNow>>;
}

impl Place {
    /// The path that the API server is asked about. `/tile/` is what `/tile/*` allows and no rule about a single tile does.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Checkpoint => "/checkpoint",
            Self::Tiles => "/tile/",
        }
    }
}

impl Workload {
    /// Tells two states of what is known of a pod apart.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let text = serde_json::to_vec(&(&self.identity, &self.image_ids));
        Sha256::digest(text.expect("strings and lists of strings serialise")).into()
    }
}
