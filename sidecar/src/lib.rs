//! The data path of Chaperone: it captures what leaves a pod, reads it, decides by policy, masks what comes back and records all of it.
//!
//! [`connection`] tells the story of one connection; every other module does one thing for it.

pub mod agree;
pub mod audit;
pub mod authority;
pub mod body;
pub mod capture;
pub mod cluster;
mod commit;
pub mod connection;
pub mod control;
pub mod detect;
pub mod dns;
pub mod egress;
pub mod first;
pub mod gap;
pub mod grpc;
pub mod health;
pub mod http;
pub mod http1;
pub mod http2;
pub(crate) mod idle;
pub mod isolate;
pub mod link;
pub mod listen;
pub mod local;
pub mod mask;
pub mod memory;
pub mod metrics;
pub mod policy;
pub mod prefixed;
pub mod settings;
pub mod shared;
pub mod sidecar;
pub mod splice;
pub mod tls;
pub mod trust;
pub mod tunnel;
pub mod websocket;
pub mod wire;
