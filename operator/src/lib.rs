//! The control path of Chaperone: certificates, webhooks, policy controller, control stream.
//!
//! Owns what decides which pods are watched and by which policies. Refuses the data path: no agent traffic passes here. Invariant: what a
//! pod says about itself is never believed; the API server is asked.

pub mod certificates;
pub mod check;
pub mod compile;
pub mod control;
pub mod controller;
pub mod descriptors;
pub mod events;
pub mod health;
pub mod index;
pub mod inject;
pub mod injected;
pub mod leader;
pub mod leading;
pub mod ledger_key;
pub mod mask_secret;
pub mod metrics;
pub mod patch;
pub mod plans;
pub mod run;
pub mod settings;
pub mod status;
pub mod stores;
pub mod webhooks;

use chaperone_server::{lifecycle, serve};
