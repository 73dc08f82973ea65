//! Search over the ledger's records.
//!
//! Owns what of a record is looked for (`facts`, `words`, `terms`), how a session's records follow each other (`timeline`), what somebody may ask (`query`), and the index on disk (`store`): an SQLite file that follows the committed records with a cursor of its own. Refuses sockets and threads.
//! Invariant: the index is derived. It may be deleted at any time and is built again from the segments; what it proposes is looked at in the records themselves, so that no answer has a record that was not asked for; and each answer
//! says how many leaves it knows of. docs/search.md is the user's side.

pub mod facts;
pub mod query;
pub mod store;
pub mod terms;
pub mod timeline;
pub mod words;
