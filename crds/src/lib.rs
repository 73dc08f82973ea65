//! The contract of Chaperone: what users write (`AgentPolicy`, `ClusterAgentPolicy`, `AuditSink`), what the operator and the sidecar say to
//! each other (`control`), what the sidecar decides by (`snapshot`), and what it leaves as evidence (`record`).
//!
//! Owns every type that crosses a boundary. Refuses sockets, files, clocks and kube clients: everything here is a function of
//! values. Invariant: parsed values are valid; what could be invalid is refused where it is parsed.

pub mod bodies;
mod cel_env;
pub mod chain;
pub mod compile;
pub mod control;
pub mod decide;
pub mod detect;
pub mod documents;
pub mod filter;
pub mod glob;
pub mod grpc;
pub mod head;
pub mod hosts;
pub mod impact;
pub mod messages;
pub mod pod;
pub mod record;
pub mod render;
pub mod resources;
pub mod snapshot;
pub mod summary;
pub mod tokenize;
pub mod verify;
