//! The program `chaperone-ledger` as it runs: a process of its own, real TLS, real disks, real kills. The API server beside it is one in this process that answers the three questions that the
//! ledger asks.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "ledger/api_server.rs"]
mod api_server;
#[path = "ledger/backup.rs"]
mod backup;
#[path = "ledger/client.rs"]
mod client;
#[path = "ledger/console.rs"]
mod console;
#[path = "ledger/crashes.rs"]
mod crashes;
#[path = "ledger/faults.rs"]
mod faults;
#[path = "ledger/gaps.rs"]
mod gaps;
#[path = "ledger/go.rs"]
mod go;
#[path = "ledger/identity.rs"]
mod identity;
#[path = "ledger/jars.rs"]
mod jars;
#[path = "ledger/publish.rs"]
mod publish;
#[path = "ledger/python.rs"]
mod python;
#[path = "ledger/retention.rs"]
mod retention;
#[path = "ledger/search.rs"]
mod search;
#[path = "ledger/shared.rs"]
mod shared;
#[path = "ledger/sidecar.rs"]
mod sidecar;
#[path = "ledger/sinks.rs"]
mod sinks;
#[allow(dead_code, reason = "the sidecar's own stories use the rest")]
#[path = "../../sidecar/tests/support/story.rs"]
mod story;
#[path = "ledger/strict.rs"]
mod strict;
#[path = "ledger/surface.rs"]
mod surface;
#[path = "ledger/witness.rs"]
mod witness;
#[path = "ledger/world.rs"]
mod world;
