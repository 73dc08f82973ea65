//! Certificates: the root that agents trust, the serving certificates of operator and ledger, and the intermediate of each pod.
//!
//! Owns keys and their Secrets, rotation, and the `caBundle` of the webhook configurations. Refuses to make a second root while one is
//! known. Invariant: what is served and signed with chains to the root that is in the Secret.

pub mod authority;
pub mod bundle;
pub mod resolver;
pub(crate) mod secrets;
pub mod serving;
pub mod store;

pub use authority::{Authority, AuthorityError, KeyedCertificate, PodName};
pub use resolver::ServingCertificate;

use std::sync::Arc;

/// Hears the root; none until it is loaded.
pub type Root = tokio::sync::watch::Receiver<Option<Arc<Authority>>>;
