//! The data path of Chaperone: it captures what leaves a pod, reads it, decides by policy, masks what comes back and records all of it.
//!
//! [`connection`] tells the story of one connection; every other module does one thing for it.

pub mod audit;
pub mod authority;
pub mod capture;
pub mod detect;
pub mod dns;
pub mod http1;
pub mod mask;
pub mod prefixed;
pub mod splice;
pub mod trust;
