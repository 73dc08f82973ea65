//! The ledger's web console: each page of HTML is a function of what it shows.
//!
//! Owns layout, words, styles and scripts. Refuses sockets, files, clocks, and every decision about who may see what: the ledger's server asks those and hands over what may be shown. Invariant: what an agent wrote is text and
//! nothing else. It is escaped by the templates (maud), cut to a bound, never made a link, and no character of it is hidden: [`text`] is the one way in. Pages need no script; those that have one load it from the ledger itself.
//! docs/console.md is the user's side.

pub mod assets;
mod entry;
pub mod form;
mod frame;
mod gaps;
mod impact;
pub mod link;
mod live;
mod record;
mod records;
mod refusal;
mod said;
mod session;
mod sessions;
mod text;

mod login;

pub use frame::{Frame, Place};
pub use gaps::{GapsPage, gaps};
pub use impact::{ImpactPage, Judged, impact};
pub use live::{LivePage, live, live_rows};
pub use login::{logged_in, login};
pub use record::{RecordPage, Rule, RuleText, record};
pub use records::{RecordsPage, records};
pub use refusal::{Notice, refusal};
pub use session::{Resumed, SessionPage, session};
pub use sessions::{SessionsPage, sessions};

/// A record of a page, as the index found it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its leaf.
    pub leaf: u64,
    /// Its stream.
    pub stream: &'a str,
    /// Its number there.
    pub seq: u64,
    /// Namespace of its stream, as the ledger knows it.
    pub namespace: &'a str,
    /// Its line.
    pub line: &'a [u8],
}

/// How far an answer looks.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Records of the log that the index knows of.
    pub indexed: u64,
    /// Records of the log.
    pub committed: u64,
    /// Where to go on.
    pub cursor: Option<String>,
}
