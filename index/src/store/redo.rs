//! A part made anew: its words, its times and its sums, from the records as they are now.

use chaperone_ledger::follow::{Cursor, Followed, Follower, Place};
use rusqlite::Connection;
use serde_json::Value;

use super::{
    Index, IndexError,
    batch::{Batch, sum},
    forget::{What, done, is_of, rows},
    read::{Names, Row},
    schema, stored,
    streams::Then,
    write::put_words,
};
use crate::{
    facts::{Facts, Whose},
    terms,
};

impl Index {
    /// Makes a part anew, in one transaction.
    pub(super) fn redo(&mut self, part: u64, end: Place) -> Result<(), IndexError> {
        let first = schema::begin_of(part);
        let after = first.saturating_add(schema::PART_LEAVES);
        let after = after.min(self.follower.cursor().leaf);
        let rows = rows(&self.db, first, after.saturating_sub(1))?;
        let transaction = self.db.unchecked_transaction()?;
        let touched = clear(&transaction, part)?;
        let mut batch = Batch::default();
        let mut is_deleted = false;
        if let Some(place) = rows.first().map(|row| row.place) {
            let mut follower = Follower::new(&self.dir, Cursor { leaf: first, place });
            let (mut names, mut then) = (Names::default(), Then::default());
            for row in &rows {
                let record = follower.next(end)?.ok_or_else(|| row.stale())?;
                if record.deleted.is_none() {
                    put(
                        &transaction,
                        row,
                        &record,
                        (&mut names, &mut then),
                        &mut batch,
                    )?;
                }
                // Since its segment was looked at: that is another look.
                is_deleted |= record.deleted.is_some() && row.thread.is_some();
            }
        }
        batch.put(&transaction)?;
        sum(&transaction, touched)?;
        done(&transaction, What::Part, stored(part))?;
        transaction.commit()?;
        self.looks.deleted |= is_deleted;
        Ok(())
    }
}

/// Empties what has to do with a part alone. The sessions that had sums in it.
fn clear(db: &Connection, part: u64) -> Result<Vec<i64>, IndexError> {
    let words = schema::words(part);
    db.execute_batch(&format!(
        "INSERT INTO {words} ({words}) VALUES ('delete-all')"
    ))?;
    let leaves = schema::PART_LEAVES;
    let of = |leaf: u64| stored(leaf.checked_div(schema::BLOCK_LEAVES).unwrap_or_default());
    let first = schema::begin_of(part);
    db.prepare_cached("DELETE FROM blocks WHERE block >= ? AND block < ?")?
        .execute([of(first), of(first.saturating_add(leaves))])?;
    let sessions: Vec<i64> = {
        let mut statement = db.prepare_cached("SELECT session FROM session_sums WHERE part = ?")?;
        let sessions = statement.query_map([stored(part)], |row| row.get(0))?;
        sessions.collect::<Result<_, _>>()?
    };
    for session in &sessions {
        db.prepare_cached("DELETE FROM session_hosts WHERE session = ? AND part = ?")?
            .execute([*session, stored(part)])?;
    }
    db.prepare_cached("DELETE FROM session_sums WHERE part = ?")?
        .execute([stored(part)])?;
    Ok(sessions)
}

/// Puts a record as it was put when it came, as far as it is still there.
fn put(
    db: &Connection,
    row: &Row,
    record: &Followed<'_>,
    (names, then): (&mut Names, &mut Then),
    batch: &mut Batch,
) -> Result<(), IndexError> {
    let (stream, _) = names.stream(db, row.stream)?.ok_or_else(|| row.stale())?;
    if !is_of(record, row, &stream) {
        return Err(row.stale());
    }
    let json: Value = serde_json::from_slice(record.line).unwrap_or_default();
    let facts = Facts::of(&json);
    let whose = then.whose(db, row.stream, row.leaf)?;
    let whose = whose.unwrap_or_else(|| Whose::of(&facts));
    let terms = terms::of(&json, &facts, &whose, stream.as_str(), row.thread);
    put_words(db, row.leaf, &terms)?;
    batch.add(row.leaf, row.thread, record.key, &facts);
    Ok(())
}
