//! What records add to the tables that have a row for many of them.
//!
//! Owns sums of sessions, times of blocks, and where content is. Sums are kept by part: those of a part can be made anew without a look at the others. Invariant: what a part's tables say is what its records say, in
//! whatever batches they came.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chaperone_ledger::content::KeyId;
use rusqlite::{Connection, params};

use super::{IndexError, schema, stored};
use crate::facts::Facts;

/// Most hosts that are kept of a session in a part: the first ones.
pub(super) const MAX_HOSTS: usize = 200;

/// What records add to a session in a part.
#[derive(Clone, Debug, Default)]
struct Added {
    first: Option<i64>,
    last: Option<i64>,
    records: i64,
    operations: i64,
    denied: i64,
    would_deny: i64,
    turns: i64,
    /// In the order in which they were met.
    hosts: Vec<(String, i64)>,
    /// Where they stand there.
    met: HashMap<String, usize>,
}

/// What records add.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sessions: BTreeMap<(u64, i64), Added>,
    blocks: HashMap<u64, (i64, i64)>,
    content: HashMap<KeyId, (u64, u64)>,
    /// The record before, by stream and number: whether the next is its neighbour.
    before: Option<(i64, u64)>,
    /// The segment of the record before, and its part.
    segment: Option<u64>,
    part: Option<u64>,
}

impl Batch {
    pub(super) fn begins_run(&mut self, stream: i64, seq: u64) -> bool {
        let before = self.before.replace((stream, seq));
        before.is_none_or(|(other, last)| other != stream || last.checked_add(1) != Some(seq))
    }

    /// Whether the record before, if there was one in this batch, is in another segment.
    pub(super) fn begins_segment(&mut self, segment: u64) -> bool {
        self.segment.replace(segment) != Some(segment)
    }

    /// Whether the record before, if there was one in this batch, is in another part.
    pub(super) fn begins_part(&mut self, part: u64) -> bool {
        self.part.replace(part) != Some(part)
    }

    pub(super) fn add(
        &mut self,
        leaf: u64,
        thread: Option<i64>,
        key: Option<KeyId>,
        facts: &Facts<'_>,
    ) {
        if let Some(time) = facts.time {
            let block = leaf.checked_div(schema::BLOCK_LEAVES).unwrap_or_default();
            let times = self.blocks.entry(block).or_insert((time, time));
            *times = (times.0.min(time), times.1.max(time));
        }
        if let Some(key) = key {
            let leaves = self.content.entry(key).or_insert((leaf, leaf));
            *leaves = (leaves.0.min(leaf), leaves.1.max(leaf));
        }
        if let Some(thread) = thread {
            let part = schema::part_of(leaf);
            self.sessions.entry((part, thread)).or_default().add(facts);
        }
    }

    pub(super) fn put(self, db: &Connection) -> Result<(), IndexError> {
        for (block, (first, last)) in self.blocks {
            db.prepare_cached("INSERT INTO blocks VALUES (?1, ?2, ?3) ON CONFLICT (block) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)")?
                .execute([stored(block), first, last])?;
        }
        for (key, (first, last)) in self.content {
            db.prepare_cached("INSERT INTO content VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)")?
                .execute(params![key.to_string(), stored(first), stored(last)])?;
        }
        let touched: BTreeSet<i64> = self.sessions.keys().map(|(_, session)| *session).collect();
        for ((part, session), added) in self.sessions {
            added.put(db, stored(part), session)?;
        }
        sum(db, touched)
    }
}

impl Added {
    fn add(&mut self, facts: &Facts<'_>) {
        if let Some(time) = facts.time {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
        self.records = self.records.saturating_add(1);
        if !facts.is_operation() {
            return;
        }
        let one = |is: bool| i64::from(is);
        self.operations = self.operations.saturating_add(1);
        self.denied = self
            .denied
            .saturating_add(one(facts.action == Some("Deny")));
        self.would_deny = self.would_deny.saturating_add(one(facts.would_deny));
        self.turns = self.turns.saturating_add(one(facts.is_turn()));
        if let Some(host) = &facts.host {
            self.host(host);
        }
    }

    fn host(&mut self, host: &str) {
        let next = self.hosts.len();
        let at = *self.met.entry(host.to_owned()).or_insert(next);
        match self.hosts.get_mut(at) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.hosts.push((host.to_owned(), 1)),
        }
    }

    fn put(self, db: &Connection, part: i64, session: i64) -> Result<(), IndexError> {
        db.prepare_cached(
            "INSERT INTO session_sums VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (part, session) DO UPDATE SET first_time = coalesce(min(first_time, ?3), first_time, ?3),
             last_time = coalesce(max(last_time, ?4), last_time, ?4), records = records + ?5, operations = operations + ?6, denied = denied + ?7, would_deny = would_deny + ?8, turns = turns + ?9",
        )?
        .execute(params![
            part,
            session,
            self.first,
            self.last,
            self.records,
            self.operations,
            self.denied,
            self.would_deny,
            self.turns
        ])?;
        let most = i64::try_from(MAX_HOSTS).unwrap_or(i64::MAX);
        for (host, operations) in self.hosts {
            let changed = db
                .prepare_cached("UPDATE session_hosts SET operations = operations + ?4 WHERE session = ?1 AND part = ?2 AND host = ?3")?
                .execute(params![session, part, host, operations])?;
            if changed == 0 {
                db.prepare_cached("INSERT INTO session_hosts SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM session_hosts WHERE session = ?1 AND part = ?2) < ?5")?
                    .execute(params![session, part, host, operations, most])?;
            }
        }
        Ok(())
    }
}

/// Sums up the parts of these sessions.
pub(super) fn sum(
    db: &Connection,
    sessions: impl IntoIterator<Item = i64>,
) -> Result<(), IndexError> {
    for session in sessions {
        db.prepare_cached(
            "UPDATE sessions SET (first_time, last_time, records, operations, denied, would_deny, turns) =
             (SELECT min(first_time), max(last_time), coalesce(sum(records), 0), coalesce(sum(operations), 0), coalesce(sum(denied), 0), coalesce(sum(would_deny), 0), coalesce(sum(turns), 0)
             FROM session_sums WHERE session = ?1) WHERE id = ?1",
        )?
        .execute([session])?;
    }
    Ok(())
}
