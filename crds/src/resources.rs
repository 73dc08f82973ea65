//! The custom resources: `AgentPolicy`, `ClusterAgentPolicy` and `AuditSink`, group `chaperone.dev`, version `v1alpha1`.
//!
//! Doc comments on fields become the descriptions that `kubectl explain` shows. A field is here only if it works.

pub mod policy;
pub mod sink;

pub use policy::*;
pub use sink::*;

/// API group of all resources.
pub const GROUP: &str = "chaperone.dev";
/// API version of all resources.
pub const VERSION: &str = "v1alpha1";
