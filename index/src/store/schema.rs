//! Tables, and how the file is used.

use rusqlite::{Connection, config::DbConfig};

use super::sums::PAGE_BYTES;

/// Goes up with every change of a table, a term or a word: an index of another version is built again.
pub(super) const VERSION: i64 = 4;
/// Leaves of a part: what is made anew at once where something is forgotten. Words and sums of one part are in no other. Tests have small ones, to have several.
pub(super) const PART_LEAVES: u64 = if cfg!(test) { 64 } else { 64 * 1024 };
/// Leaves of a block of `blocks`: how finely times lead to leaves. A part has whole ones.
pub(super) const BLOCK_LEAVES: u64 = if cfg!(test) { 16 } else { 1024 };

/// Statements that are kept: some for each part.
const CACHED: usize = 512;

/// `runs` has the first of each row of records that are neighbours in the log too. `blocks` has the earliest and the latest time of each block of leaves. `names` has whose a stream is from a leaf on.
/// `content` has between which leaves a key opened content, and `segments` the first leaf of each: what was destroyed and what was written anew since shows by them. `forget` has what is still to be made anew for that.
const TABLES: &str = "
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL, leaf INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL) STRICT;
CREATE TABLE streams (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, is_named INTEGER NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL, service_account TEXT NOT NULL, uid TEXT NOT NULL, own INTEGER, first INTEGER, thread INTEGER) STRICT;
CREATE TABLE records (leaf INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, time INTEGER, thread INTEGER) STRICT;
CREATE TABLE runs (stream INTEGER NOT NULL, seq INTEGER NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY (stream, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (block INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT;
CREATE TABLE sessions (id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, is_stream INTEGER NOT NULL, is_shown INTEGER NOT NULL, first_time INTEGER, last_time INTEGER, records INTEGER NOT NULL, operations INTEGER NOT NULL, denied INTEGER NOT NULL, would_deny INTEGER NOT NULL, turns INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX sessions_by_name ON sessions (name, namespace, is_stream);
CREATE INDEX sessions_by_namespace ON sessions (namespace, is_shown, id);
CREATE TABLE session_streams (session INTEGER NOT NULL, stream INTEGER NOT NULL, PRIMARY KEY (session, stream)) STRICT, WITHOUT ROWID;
CREATE INDEX session_streams_by_stream ON session_streams (stream);
CREATE TABLE session_sums (part INTEGER NOT NULL, session INTEGER NOT NULL, first_time INTEGER, last_time INTEGER, records INTEGER NOT NULL, operations INTEGER NOT NULL, denied INTEGER NOT NULL, would_deny INTEGER NOT NULL, turns INTEGER NOT NULL, PRIMARY KEY (part, session)) STRICT, WITHOUT ROWID;
CREATE INDEX session_sums_by_session ON session_sums (session);
CREATE TABLE session_hosts (session INTEGER NOT NULL, part INTEGER NOT NULL, host TEXT NOT NULL, operations INTEGER NOT NULL, PRIMARY KEY (session, part, host)) STRICT, WITHOUT ROWID;
CREATE TABLE names (stream INTEGER NOT NULL, leaf INTEGER NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL, service_account TEXT NOT NULL, PRIMARY KEY (stream, leaf)) STRICT, WITHOUT ROWID;
CREATE TABLE content (key TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE segments (segment INTEGER PRIMARY KEY, leaf INTEGER NOT NULL) STRICT;
CREATE TABLE forget (what INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (what, id)) STRICT, WITHOUT ROWID;
";

/// Makes the tables in an empty file.
pub(super) fn create(db: &Connection, origin: &str) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    db.execute("INSERT INTO meta VALUES (1, ?, 0, 0, 0)", [origin])?;
    db.pragma_update(None, "user_version", VERSION)
}

/// The part that a leaf is in.
pub(super) fn part_of(leaf: u64) -> u64 {
    leaf.checked_div(PART_LEAVES).unwrap_or_default()
}

/// The first leaf of a part.
pub(super) fn begin_of(part: u64) -> u64 {
    part.saturating_mul(PART_LEAVES)
}

/// The table that has a part's words. It holds neither texts nor positions: only which leaves have a term. That is a byte or two for each term of a record, and makes any combination of terms cheap, so that no other index is needed for
/// what is looked for.
pub(super) fn words(part: u64) -> String {
    format!("words_{part}")
}

/// Makes it, where it is not there.
pub(super) fn create_words(db: &Connection, part: u64) -> rusqlite::Result<()> {
    let words = words(part);
    let sql = format!("SELECT count(*) FROM sqlite_schema WHERE name = '{words}'");
    let there: i64 = db.query_row(&sql, [], |row| row.get(0))?;
    if there > 0 {
        return Ok(());
    }
    db.execute_batch(&format!(
        "CREATE VIRTUAL TABLE {words} USING fts5 (terms, content = '', columnsize = 0, detail = none, tokenize = 'ascii');
         INSERT INTO {words} ({words}, rank) VALUES ('hashsize', 16777216);"
    ))
}

/// The version of a file; 0 of an empty one.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// How the writer uses the file. Nothing is synced but by a checkpoint of the WAL: a loss of power may cost the newest transactions, which are made again, and leaves those before whole.
pub(super) fn for_writing(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // Only `sums` copies the WAL.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -32 * 1024)?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What is forgotten must be nowhere in the file, nor may copies of it that merges of words left behind.
    db.pragma_update(None, "secure_delete", true)?;
    db.set_prepared_statement_cache_capacity(CACHED);
    common(db)
}

/// How a reader uses it.
pub(super) fn for_reading(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -8 * 1024)?;
    db.set_prepared_statement_cache_capacity(CACHED);
    common(db)
}

/// A file that somebody tampered with shall not make SQLite do more than read tables.
fn common(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")
}
