//! What only the leader does beside rotating certificates: it reports on policies and sinks, and points at pods that need a restart.

mod report;
mod restarts;

pub use report::report;
pub use restarts::point_at_restarts;
