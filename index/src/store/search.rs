//! Questions about records.

use std::{ops::RangeInclusive, time::Instant};

use rusqlite::{ErrorCode, params};

use super::{
    IndexError,
    read::{COLUMNS, Found, Limits, Names, Reader, Row},
    restored, schema, stored,
};
use crate::{
    facts::Facts,
    query::{Order, PageCursor, Query},
    terms::Field,
};

/// Among which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Those that count to one of these sessions, by their rows.
    Sessions(Vec<i64>),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records, in the order that was asked for.
    pub found: Vec<Found>,
    /// Leaves that the index knew of: what is after them was not looked at.
    pub indexed: u64,
    /// Where to go on; `None` where nothing more is to be found among the leaves that were indexed when the first page was made.
    pub cursor: Option<PageCursor>,
}

/// What one pass has come to.
struct Pass<'q> {
    query: &'q Query,
    scope: &'q Scope,
    size: u64,
    found: Vec<Found>,
    bytes: usize,
    names: Names,
    /// The last leaf that was looked at.
    looked: Option<u64>,
}

impl Reader {
    /// Finds records.
    ///
    /// # Errors
    /// [`IndexError`]; an answer that would take too long ends early, with a cursor, and is [`IndexError::TooSlow`] only where not one record was proposed in time.
    pub fn search(
        &self,
        query: &Query,
        scope: &Scope,
        limits: Limits,
    ) -> Result<Answer, IndexError> {
        let deadline = self.limit(limits.time);
        // What is read is of one moment.
        let transaction = self.db.unchecked_transaction()?;
        let indexed = self.indexed()?;
        let size = match query.cursor {
            Some(cursor) if cursor.size > indexed => return Err(IndexError::Behind),
            Some(cursor) => cursor.size,
            None => indexed,
        };
        let mut pass = Pass {
            query,
            scope,
            size,
            found: Vec::new(),
            bytes: 0,
            names: Names::default(),
            looked: None,
        };
        let is_all = match self.leaves(query, size)? {
            Some(leaves) => self.pass(&mut pass, leaves, deadline, limits)?,
            None => true,
        };
        drop(transaction);
        let cursor = match is_all {
            true => None,
            false => pass.cursor(),
        };
        Ok(Answer {
            found: pass.found,
            indexed,
            cursor,
        })
    }

    /// Looks at what the index proposes. True when it came to the end.
    fn pass(
        &self,
        pass: &mut Pass<'_>,
        leaves: RangeInclusive<u64>,
        deadline: Instant,
        limits: Limits,
    ) -> Result<bool, IndexError> {
        let Some(terms) = terms(pass.query, pass.scope) else {
            let sql = sql(None, pass.query.order);
            return self.pass_of(pass, (&sql, None), &leaves, (deadline, limits));
        };
        let parts = schema::part_of(*leaves.start())..=schema::part_of(*leaves.end());
        let mut parts: Vec<u64> = parts.collect();
        if pass.query.order == Order::Desc {
            parts.reverse();
        }
        for part in parts {
            if pass.looked.is_some() && Instant::now() >= deadline {
                return Ok(false);
            }
            let begins = schema::begin_of(part);
            let ends = begins.saturating_add(schema::PART_LEAVES.saturating_sub(1));
            let of_part = begins.max(*leaves.start())..=ends.min(*leaves.end());
            let sql = sql(Some(part), pass.query.order);
            let limited = (deadline, limits);
            if !self.pass_of(pass, (&sql, Some(&terms)), &of_part, limited)? {
                return Ok(false);
            }
            // All of it was looked at.
            pass.looked = Some(match pass.query.order {
                Order::Desc => *of_part.start(),
                Order::Asc => *of_part.end(),
            });
        }
        Ok(true)
    }

    /// The same for the leaves that one statement proposes.
    fn pass_of(
        &self,
        pass: &mut Pass<'_>,
        (sql, terms): (&str, Option<&str>),
        leaves: &RangeInclusive<u64>,
        (deadline, limits): (Instant, Limits),
    ) -> Result<bool, IndexError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let (first, last) = (stored(*leaves.start()), stored(*leaves.end()));
        let mut rows = statement.query(params![terms, first, last])?;
        loop {
            match rows.next() {
                Ok(None) => return Ok(true),
                Ok(Some(row)) => {
                    let row = Row::read(row)?;
                    pass.look(self, &row)?;
                }
                Err(error) if is_interrupted(&error) => {
                    return match pass.looked {
                        Some(_) => Ok(false),
                        None => Err(IndexError::TooSlow),
                    };
                }
                Err(error) => return Err(error.into()),
            }
            let is_full = pass.found.len() >= pass.query.limit || pass.bytes >= limits.bytes;
            if is_full || Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// The leaves that may be asked for, by times and by where the answer before ended.
    fn leaves(&self, query: &Query, size: u64) -> Result<Option<RangeInclusive<u64>>, IndexError> {
        let Some(end) = size.checked_sub(1) else {
            return Ok(None);
        };
        let (mut first, mut last) = (query.from, end);
        match (query.cursor, query.order) {
            (Some(cursor), Order::Desc) => last = last.min(cursor.next),
            (Some(cursor), Order::Asc) => first = first.max(cursor.next),
            (None, _) => {}
        }
        if let Some(since) = query.since {
            let Some(block) = self.block("SELECT min(block) FROM blocks WHERE last >= ?", since)?
            else {
                return Ok(None);
            };
            first = first.max(block.saturating_mul(schema::BLOCK_LEAVES));
        }
        if let Some(until) = query.until {
            let Some(block) = self.block("SELECT max(block) FROM blocks WHERE first < ?", until)?
            else {
                return Ok(None);
            };
            let after = block.saturating_add(1).saturating_mul(schema::BLOCK_LEAVES);
            last = last.min(after.saturating_sub(1));
        }
        Ok((first <= last).then_some(first..=last))
    }

    fn block(&self, sql: &str, time: i64) -> Result<Option<u64>, IndexError> {
        let block: Option<i64> = self
            .db
            .prepare_cached(sql)?
            .query_row([time], |row| row.get(0))?;
        block.map(restored).transpose()
    }
}

impl Pass<'_> {
    /// Takes the record, if it is asked for.
    fn look(&mut self, reader: &Reader, row: &Row) -> Result<(), IndexError> {
        self.looked = Some(row.leaf);
        let is_within = match self.scope {
            Scope::All => true,
            Scope::Sessions(ids) => row.thread.is_some_and(|thread| ids.contains(&thread)),
        };
        if !is_within || !self.query.is_at(row.time) {
            return Ok(());
        }
        let Some(read) = self.names.read(&reader.db, &reader.segments, row)? else {
            return Ok(());
        };
        let facts = Facts::of(&read.json);
        let found = read.found;
        let stream = found.stream.as_str();
        if self
            .query
            .asks_for(&read.json, &facts, &found.whose, stream)
        {
            self.bytes = self.bytes.saturating_add(found.line.len());
            self.found.push(found);
        }
        Ok(())
    }

    fn cursor(&self) -> Option<PageCursor> {
        let next = match self.query.order {
            Order::Desc => self.looked?.checked_sub(1)?,
            Order::Asc => self.looked?.checked_add(1)?,
        };
        let size = self.size;
        (self.query.from <= next && next < size).then_some(PageCursor { next, size })
    }
}

/// What FTS5 is asked.
fn terms(query: &Query, scope: &Scope) -> Option<String> {
    let scope = match scope {
        Scope::All => None,
        Scope::Sessions(ids) => {
            let terms = ids.iter().map(|id| Field::Thread.term(&id.to_string()));
            let terms: Vec<_> = terms.map(|term| format!("\"{term}\"")).collect();
            Some(format!("({})", terms.join(" OR ")))
        }
    };
    let terms: Vec<_> = scope.into_iter().chain(query.terms()).collect();
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

/// With terms the lists of leaves of a part that have them are walked together, from one end; without, all records of the range.
pub(super) fn sql(part: Option<u64>, order: Order) -> String {
    let order = match order {
        Order::Desc => "DESC",
        Order::Asc => "ASC",
    };
    match part.map(schema::words) {
        Some(words) => format!(
            "SELECT {COLUMNS} FROM {words} CROSS JOIN records r ON r.leaf = {words}.rowid WHERE {words} MATCH ?1 AND {words}.rowid BETWEEN ?2 AND ?3 ORDER BY {words}.rowid {order}"
        ),
        None => format!(
            "SELECT {COLUMNS} FROM records r WHERE ?1 IS NULL AND r.leaf BETWEEN ?2 AND ?3 ORDER BY r.leaf {order}"
        ),
    }
}

pub(super) fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}
