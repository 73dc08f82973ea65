//! The control path of Chaperone: certificates, webhooks, policy controller, control stream.
//!
//! Owns what decides which pods are watched and by which policies. Refuses the data path: no agent traffic passes here. Invariant: what a
//! pod says about itself is never believed; the API server is asked.

pub mod certificates;
pub mod check;
pub mod health;
pub mod index;
pub mod inject;
pub mod injected;
pub mod metrics;
pub mod patch;
pub mod settings;
pub mod status;
