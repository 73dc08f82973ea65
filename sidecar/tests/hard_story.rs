//! What a sidecar stands: bugs of its own, peers that dally, policies that change under load, and an end in the middle of it.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "hard/floods.rs"]
mod floods;
#[path = "support/frames.rs"]
mod frames;
#[path = "hard/load.rs"]
mod load;
#[path = "hard/panics.rs"]
mod panics;
#[allow(dead_code, reason = "other stories use the rest")]
#[path = "support/setup.rs"]
mod setup;
#[path = "hard/slow.rs"]
mod slow;
