//! Forgetting in place against an index made anew, over ledgers that lose content and records at any moment.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chaperone_crds::{bodies, chain::RecordHash};
use chaperone_ledger::store::{Config, Store, Sweeper};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::terms::Field;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A word that nothing else has.
    fn word(&mut self) -> String {
        (0..14)
            .map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap()))
            .collect()
    }
}

const STREAMS: usize = 5;

/// A ledger with content that is sealed.
struct Kept {
    ledger: Ledger,
    store: Store,
    random: Random,
    /// Words that were written at any time.
    words: BTreeSet<String>,
    named: Vec<usize>,
    sessions: Vec<String>,
}

impl Kept {
    fn new(seed: u64) -> Self {
        let mut ledger = Ledger::new();
        ledger.chains = (0..u8::try_from(STREAMS).unwrap())
            .map(|n| Chain::new(StreamId::from_random([n; 16])))
            .collect();
        let config = Config {
            dir: ledger.dir.clone(),
            origin: ORIGIN.parse().unwrap(),
            keys: Vec::new(),
            segment_bytes: 25_000,
            checkpoint_seconds: 60,
        };
        let store = Store::open(config).unwrap();
        let mut kept = Self {
            ledger,
            store,
            random: Random(seed),
            words: BTreeSet::new(),
            named: Vec::new(),
            sessions: Vec::new(),
        };
        let open = Event::new(EventKind::StreamOpen, AgentRef::default());
        kept.put(None, &open, None);
        for stream in 0..STREAMS {
            kept.put(
                Some(stream),
                &Event::new(EventKind::StreamOpen, agent(stream)),
                None,
            );
        }
        for _ in 0..4 {
            let name = kept.word();
            kept.sessions.push(name);
        }
        kept
    }

    fn word(&mut self) -> String {
        let word = self.random.word();
        self.words.insert(word.clone());
        word
    }

    fn put(&mut self, stream: Option<usize>, event: &Event, text: Option<&str>) {
        self.ledger.minute += 1;
        let time = Timestamp::from_second(1_800_000_000 + 60 * self.ledger.minute).unwrap();
        let chain = match stream {
            Some(number) => &mut self.ledger.chains[number],
            None => &mut self.ledger.own,
        };
        let seq = chain.next_seq();
        let mut line = Vec::new();
        chain.append(event, time, unsalted, &mut line);
        if let Some(text) = text {
            line.truncate(line.len() - 2);
            let salt = hex::encode(&Sha256::digest(&line)[..16]);
            let tail = format!(r#"{{"salt":"{salt}","http.requestBody":{{"text":"{text}"}}}}"#);
            let digest = hex::encode(Sha256::digest(&tail));
            let more = format!(r#","bodiesSha256":"{digest}","bodies":{tail}}}"#);
            line.extend_from_slice(more.as_bytes());
            assert!(matches!(bodies::parts(&line), bodies::Parts::With { .. }));
            *chain = Chain::resume(chain.stream().clone(), seq + 1, RecordHash::of(&line));
            line.push(b'\n');
        }
        self.store.at(time);
        let id = chain.stream().clone();
        let _ = self.store.stage(&id, &line).unwrap();
        self.store.commit().unwrap();
    }

    /// Some record of an agent.
    fn record(&mut self) {
        let stream = usize::try_from(self.random.below(5)).unwrap();
        match self.random.below(30) {
            0 if stream > 1 && !self.named.contains(&stream) => {
                self.named.push(stream);
                return self.name(stream);
            }
            1 => {
                let quiet = Event::new(EventKind::StreamHeartbeat, agent(stream));
                return self.put(Some(stream), &quiet, None);
            }
            2 => {
                let at = usize::try_from(self.random.below(4)).unwrap();
                self.sessions[at] = self.word();
            }
            _ => {}
        }
        let host = match self.random.below(3) {
            0 => self.word(),
            _ => "common".to_owned(),
        };
        let path = ["v1/messages", "secret", "odd", ""][stream.min(3)];
        let mut event = http(stream, &format!("https://{host}.example/{path}"));
        let session = usize::try_from(self.random.below(9)).unwrap();
        event.session = self.sessions.get(session).map(|id| SessionInfo {
            id: Some(id.clone()),
            ..SessionInfo::default()
        });
        let text = (self.random.below(2) == 0).then(|| format!("said {} common", self.word()));
        self.put(Some(stream), &event, text.as_deref());
    }

    fn name(&mut self, stream: usize) {
        let workload = PodIdentity {
            namespace: "true".to_owned(),
            pod: format!("pod-{stream}"),
            service_account: "coder".to_owned(),
            uid: "u1".to_owned(),
            ..PodIdentity::default()
        };
        let mut event = Event::new(EventKind::StreamIdentity, AgentRef::from(&workload));
        event.identity = Some(IdentityInfo {
            stream: self.ledger.chains[stream].stream().to_string(),
            workload,
            image_ids: Vec::new(),
            from: None,
        });
        self.put(None, &event, None);
    }

    /// Destroys some keys.
    fn destroy(&mut self) {
        for day in self.store.key_days().unwrap() {
            let entries = self.store.keys_of(day).unwrap();
            let keys: HashSet<_> = entries
                .iter()
                .filter(|_| self.random.below(4) == 0)
                .map(|entry| entry.id)
                .collect();
            self.store.destroy(day, &keys).unwrap();
        }
    }

    /// Writes some segments anew, without the records of some streams.
    fn sweep(&mut self) {
        let mut sweeper = Sweeper::new(&self.ledger.dir, StreamId::of_ledger(ORIGIN));
        let newest = self.store.end().place.segment;
        sweeper.look(newest, || {}).unwrap();
        for segment in 0..newest {
            let gone: BTreeSet<_> = (0..STREAMS)
                .filter(|_| self.random.below(4) == 0)
                .map(|number| self.ledger.chains[number].stream().clone())
                .collect();
            let is_due = sweeper.is_stale(segment).unwrap() || !gone.is_empty();
            if is_due && self.random.below(2) == 0 {
                sweeper.rewrite(segment, &gone).unwrap();
            }
        }
    }

    fn end(&self) -> Place {
        self.store.end().place
    }

    fn open(&self) -> Index {
        let (index, opened) =
            Index::open(&self.ledger.path(), &self.ledger.dir, ORIGIN, self.end()).unwrap();
        assert!(!matches!(opened, Opened::Rebuilt(_)), "{opened:?}");
        index
    }

    /// Records that are there, by leaf.
    fn there(&self) -> Vec<(u64, Vec<u8>)> {
        let mut follower = Follower::new(&self.ledger.dir, Cursor::START);
        let mut lines = Vec::new();
        while let Some(record) = follower.next(self.end()).unwrap() {
            lines.push((record.leaf, record.line.to_vec()));
        }
        lines
    }

    /// Answers are right at any moment, as far as the index looks.
    fn ask(&mut self) {
        let reader = self.ledger.reader();
        let indexed = reader.indexed().unwrap();
        let there = self.there();
        let has = |word: &str| -> Vec<u64> {
            let word = word.as_bytes();
            let found = |line: &[u8]| line.windows(word.len()).any(|window| window == word);
            let with = there.iter().filter(|(_, line)| found(line));
            let leaves = with.map(|(leaf, _)| *leaf);
            leaves.filter(|leaf| *leaf < indexed).collect()
        };
        let words: Vec<_> = self.words.iter().cloned().collect();
        for _ in 0..3 {
            let word = &words[usize::try_from(self.random.next()).unwrap_or(3) % words.len()];
            let text = format!("order=asc&q={word}");
            assert_eq!(pages(&reader, &text, &Scope::All), has(word), "{word}");
        }
        let common = pages(&reader, "order=asc&q=said&limit=50", &Scope::All);
        assert_eq!(common, has("said "));
        for (leaf, line) in there.iter().filter(|(leaf, _)| *leaf < indexed).step_by(37) {
            let Ok(json) = serde_json::from_slice::<Value>(line) else {
                continue;
            };
            let stream = json["stream"].as_str().unwrap().parse().unwrap();
            let seq = json["seq"].as_u64().unwrap();
            let found = reader.record(&stream, seq).unwrap().unwrap();
            assert_eq!((found.leaf, &found.line), (*leaf, line));
        }
    }

    /// The index says what one made anew says, and has no byte of what is gone.
    fn compare(&mut self, index: &Index) {
        let path = self.ledger.dir.join("new.sqlite");
        Index::scrub(&path).unwrap();
        let (mut new, _) = Index::open(&path, &self.ledger.dir, ORIGIN, self.end()).unwrap();
        while new.take(self.end()).unwrap() > 0 {}
        let (found, expected) = (dump(&index.db), dump(&new.db));
        for (table, rows) in &expected {
            let [found, expected]: [BTreeSet<_>; 2] =
                [&found[table], rows].map(|rows| rows.iter().collect());
            let other: Vec<_> = found.symmetric_difference(&expected).collect();
            assert!(other.is_empty(), "{table}: {other:#?}");
        }
        let there = self.there();
        let text: Vec<u8> = there.into_iter().flat_map(|(_, line)| line).collect();
        let files = ["", "-wal", "-shm", ".sums"];
        let bytes: Vec<u8> = files
            .iter()
            .flat_map(|end| {
                let path = self.ledger.dir.join(format!("index.sqlite{end}"));
                fs::read(path).unwrap_or_default()
            })
            .collect();
        let is_in = |bytes: &[u8], wanted: &str| memmem(bytes, wanted.as_bytes());
        let mut gone = 0;
        for word in &self.words {
            let is_there = is_in(&text, word);
            // Words that begin alike share their beginning there.
            let end = &word[4..];
            assert!(is_there || !is_in(&bytes, end), "{word} is in the file");
            gone += usize::from(!is_there);
        }
        assert!(gone > 0);
    }
}

fn memmem(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|b| *b == first) {
        at += next;
        if bytes[at..].starts_with(wanted) {
            return true;
        }
        at += 1;
    }
    false
}

/// All that the tables say, with names for the numbers of sessions and streams, which depend on what was there before.
fn dump(db: &Connection) -> BTreeMap<&'static str, Vec<String>> {
    let rows = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n).unwrap());
            Ok(format!("{:?}", values.collect::<Vec<_>>()))
        });
        let mut rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    };
    let session = |column: &str| {
        format!(
            "(SELECT name || ' ' || namespace || ' ' || is_stream FROM sessions WHERE id = {column})"
        )
    };
    let stream = "(SELECT uuid FROM streams t WHERE t.id = x.stream)";
    let sums = "first_time, last_time, records, operations, denied, would_deny, turns";
    let mut tables = BTreeMap::new();
    tables.insert("meta", rows("SELECT * FROM meta"));
    let (own, first, thread) = (session("own"), session("first"), session("thread"));
    tables.insert("streams", rows(&format!("SELECT uuid, is_named, namespace, pod, service_account, uid, {own}, {first}, {thread} FROM streams")));
    let thread = session("x.thread");
    tables.insert("records", rows(&format!("SELECT leaf, {stream}, seq, segment, offset, length, time, {thread}, x.thread IS NULL FROM records x")));
    let run = RUN
        .replace("(SELECT id FROM streams WHERE uuid = ?1)", "x.stream")
        .replace("?2", "x.seq")
        .replace("seq, leaf", "leaf + x.seq - seq");
    tables.insert(
        "runs",
        rows(&format!("SELECT leaf, ({run}) FROM records x")),
    );
    tables.insert("blocks", rows("SELECT * FROM blocks"));
    tables.insert("segments", rows("SELECT * FROM segments"));
    tables.insert("forget", rows("SELECT * FROM forget"));
    tables.insert(
        "sessions",
        rows(&format!(
            "SELECT name, namespace, is_stream, is_shown, {sums} FROM sessions"
        )),
    );
    let of = session("x.session");
    tables.insert(
        "session_streams",
        rows(&format!("SELECT {of}, {stream} FROM session_streams x")),
    );
    tables.insert(
        "session_sums",
        rows(&format!("SELECT part, {of}, {sums} FROM session_sums x")),
    );
    tables.insert(
        "session_hosts",
        rows(&format!(
            "SELECT part, {of}, host, operations FROM session_hosts x"
        )),
    );
    tables.insert(
        "names",
        rows(&format!(
            "SELECT {stream}, leaf, namespace, pod, service_account FROM names x"
        )),
    );
    tables.insert("words", words(db));
    tables
}

/// Each leaf's terms.
fn words(db: &Connection) -> Vec<String> {
    let mut statement = db
        .prepare("SELECT id, name || ' ' || namespace || ' ' || is_stream FROM sessions")
        .unwrap();
    let sessions = statement.query_map([], |row| {
        let id: i64 = row.get(0)?;
        Ok((
            Field::Thread.term(&id.to_string()),
            row.get::<_, String>(1)?,
        ))
    });
    let sessions: HashMap<_, _> = sessions.unwrap().map(Result::unwrap).collect();
    let leaves: i64 = db
        .query_row("SELECT leaf FROM meta", [], |row| row.get(0))
        .unwrap();
    let mut all = Vec::new();
    for part in 0..=super::super::schema::part_of(u64::try_from(leaves - 1).unwrap()) {
        let table = format!("temp.terms_{part}_{}", all.len());
        db.execute_batch(&format!(
            "CREATE VIRTUAL TABLE {table} USING fts5vocab(main, words_{part}, instance)"
        ))
        .unwrap();
        let mut statement = db
            .prepare(&format!("SELECT term, doc FROM {table}"))
            .unwrap();
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        });
        for row in rows.unwrap() {
            let (term, leaf) = row.unwrap();
            let term = match term.starts_with('t') {
                true => sessions[&term].clone(),
                false => term,
            };
            all.push(format!("{part} {leaf} {term}"));
        }
        drop(statement);
        db.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    all.sort();
    all
}

/// Steps until nothing is left; how many.
fn forget(index: &mut Index, end: Place) -> usize {
    for steps in 0.. {
        match index.forget(end).unwrap() {
            Forgot::Some => {}
            Forgot::All => return steps,
            Forgot::Waits => panic!("nobody reads"),
        }
    }
    0
}

#[test]
fn an_index_that_forgot_is_one_made_anew() {
    for seed in 0..5 {
        let mut kept = Kept::new(seed);
        let mut index = kept.open();
        for round in 0..8 {
            for _ in 0..60 {
                kept.record();
            }
            // It may be behind, or stopped at any step.
            for _ in 0..kept.random.below(3) {
                index.take(kept.end()).unwrap();
            }
            if round % 2 == 1 {
                kept.destroy();
            }
            if kept.random.below(2) == 0 {
                kept.sweep();
            }
            index.deleted();
            for _ in 0..kept.random.below(12) {
                index.forget(kept.end()).unwrap();
                if kept.random.below(4) == 0 {
                    kept.ask();
                }
            }
            if kept.random.below(3) == 0 {
                drop(index);
                index = kept.open();
            }
        }
        while index.take(kept.end()).unwrap() > 0 {}
        forget(&mut index, kept.end());
        kept.ask();
        kept.compare(&index);
    }
}

#[test]
fn what_is_forgotten_stays_so_while_readers_hold_on() {
    let mut kept = Kept::new(99);
    for _ in 0..300 {
        kept.record();
    }
    let mut index = kept.open();
    while index.take(kept.end()).unwrap() > 0 {}
    let reader = kept.ledger.reader();
    let held = reader.db.unchecked_transaction().unwrap();
    assert!(reader.indexed().unwrap() > 0);
    index.db.busy_timeout(std::time::Duration::ZERO).unwrap();
    kept.destroy();
    index.deleted();
    while index.forget(kept.end()).unwrap() == Forgot::Some {}
    assert_eq!(index.forget(kept.end()).unwrap(), Forgot::Waits);
    drop(held);
    assert!(forget(&mut index, kept.end()) > 0);
    let wal = kept.ledger.dir.join("index.sqlite-wal");
    assert_eq!(fs::metadata(wal).unwrap().len(), 0);
    kept.compare(&index);
    // Nothing was deleted: nothing is made anew.
    index.deleted();
    assert_eq!(forget(&mut index, kept.end()), 2);
}

#[test]
fn names_of_sessions_and_hosts_leave_nothing_in_pages_that_were_split() {
    let mut kept = Kept::new(7);
    for number in 0..600 {
        let (name, host) = (kept.word(), kept.word());
        let long = "x".repeat(number % 90);
        let mut event = http(number % 2, &format!("https://{host}{long}.example/"));
        event.session = Some(SessionInfo {
            id: Some(format!("{name}{long}")),
            ..SessionInfo::default()
        });
        kept.put(Some(number % 2), &event, None);
    }
    let mut index = kept.open();
    while index.take(kept.end()).unwrap() > 0 {}
    let mut sweeper = Sweeper::new(&kept.ledger.dir, StreamId::of_ledger(ORIGIN));
    let newest = kept.end().segment;
    sweeper.look(newest, || {}).unwrap();
    let gone = BTreeSet::from([kept.ledger.chains[0].stream().clone()]);
    for segment in 0..newest {
        sweeper.rewrite(segment, &gone).unwrap();
    }
    index.deleted();
    forget(&mut index, kept.end());
    kept.compare(&index);
}
