//! What the programs that serve inside a cluster share: listeners with their limits, the phases of a process, and who calls.
//!
//! Owns how a bearer token becomes a user (`reviews`) and a pod becomes an identity (`workload`). Refuses policy: who may do what is each program's own. Invariant: what a caller says about itself
//! is never believed; the API server is asked.

pub mod audited;
pub mod documented;
pub mod exposition;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod remembered;
pub mod reviews;
pub mod serve;
pub mod workload;
