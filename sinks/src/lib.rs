//! What the sinks of sidecar and ledger share: the way to an endpoint, an HTTP client, how a batch stands in a request, waits between tries.
//!
//! Owns the bounds of an exchange and whom an endpoint may be. Refuses redirects, cursors and loops: what is sent when, and what follows from a failure, is the caller's.
//! Invariant: records go where the settings say, over TLS that was verified, and an answer counts only when it is whole.

pub mod backoff;
pub mod client;
pub mod content;
pub mod dial;
mod endpoint;
mod error;
pub mod net;
pub mod settings;
pub mod tls;

pub use endpoint::Endpoint;
pub use error::ClientError;
