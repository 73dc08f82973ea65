//! The index against a scan of all records, and against files that are not as it left them.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    pod::PodIdentity,
    record::{
        AgentRef, DecisionInfo, DestinationInfo, Event, EventKind, HttpInfo, IdentityInfo,
        OperationInfo, Outcome, SessionInfo,
    },
    resources::Mode,
};
use chaperone_ledger::follow::{Cursor, Follower, Place, end_of};
use rusqlite::Connection;
use serde_json::Value;

use super::{
    read::RUN,
    search::sql,
    sessions::{by_name_sql, list_sql},
    *,
};
use crate::{
    facts::{Facts, Whose},
    query::{Order, Query},
};

const ORIGIN: &str = "ledger.example/prod";

/// A folder with a ledger's segments, gone with the test.
struct Ledger {
    dir: PathBuf,
    chains: Vec<Chain>,
    own: Chain,
    minute: i64,
}

impl Ledger {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chaperone-index-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("records")).unwrap();
        Self {
            dir,
            chains: (0..4)
                .map(|n| Chain::new(StreamId::from_random([n; 16])))
                .collect(),
            own: Chain::new(StreamId::of_ledger(ORIGIN)),
            minute: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("index.sqlite")
    }

    fn end(&self) -> Place {
        end_of(&self.dir).unwrap()
    }

    /// Opens the index and takes what it lacks.
    fn index(&self) -> (Index, Opened) {
        let (mut index, opened) = Index::open(&self.path(), &self.dir, ORIGIN, self.end()).unwrap();
        while index.take(self.end()).unwrap() > 0 {}
        (index, opened)
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path(), &self.dir).unwrap()
    }

    fn write(&self, line: &[u8]) {
        let newest = self.end();
        let segment = match newest.offset > 20_000 {
            true => newest.segment + 1,
            false => newest.segment,
        };
        let name = format!("records/{segment:08}.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(name));
        file.unwrap().write_all(line).unwrap();
    }

    fn put(&mut self, stream: Option<usize>, event: &Event) {
        self.minute += 1;
        let time = jiff::Timestamp::from_second(1_800_000_000 + 60 * self.minute).unwrap();
        let mut line = Vec::new();
        let chain = match stream {
            Some(number) => &mut self.chains[number],
            None => &mut self.own,
        };
        chain.append(event, time, unsalted, &mut line);
        self.write(&line);
    }

    fn open(&mut self, stream: usize) {
        let agent = agent(stream);
        self.put(Some(stream), &Event::new(EventKind::StreamOpen, agent));
    }

    /// The ledger has found out that a stream is of namespace `true`.
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
            stream: self.chains[stream].stream().to_string(),
            workload,
            image_ids: Vec::new(),
            from: None,
        });
        self.put(None, &event);
    }

    fn http(&mut self, stream: usize, url: &str, session: Option<&str>) {
        let mut event = http(stream, url);
        event.session = session.map(|id| SessionInfo {
            id: Some(id.to_owned()),
            ..SessionInfo::default()
        });
        self.put(Some(stream), &event);
    }

    /// Leaves of all records that are asked for, by reading them all.
    fn scan(&self, query: &Query, named: &[usize]) -> Vec<u64> {
        let mut follower = Follower::new(&self.dir, Cursor::START);
        let mut found = Vec::new();
        let end = self.end();
        while let Some(record) = follower.next(end).unwrap() {
            let json: Value = serde_json::from_slice(record.line).unwrap();
            let stream = json["stream"].as_str().unwrap();
            let facts = Facts::of(&json);
            let known = named
                .iter()
                .find(|n| self.chains[**n].stream().as_str() == stream);
            let [namespace, pod, service_account] = facts.agent.map(str::to_owned);
            let whose = match known {
                Some(number) => Whose {
                    namespace: "true".to_owned(),
                    pod: format!("pod-{number}"),
                    service_account: "coder".to_owned(),
                },
                None => Whose {
                    namespace,
                    pod,
                    service_account,
                },
            };
            if query.asks_for(&json, &facts, &whose, stream) {
                found.push(record.leaf);
            }
        }
        if query.order == Order::Desc {
            found.reverse();
        }
        found
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn agent(stream: usize) -> AgentRef {
    AgentRef {
        namespace: format!("ns-{}", stream % 2),
        pod: format!("pod-{stream}"),
        service_account: String::new(),
    }
}

fn http(stream: usize, url: &str) -> Event {
    let mut event = Event::new(EventKind::Http, agent(stream));
    let host = url.split('/').nth(2).unwrap();
    let is_denied = url.contains("secret");
    event.destination = Some(DestinationInfo {
        host: Some(host.to_owned()),
        ip: "203.0.113.7".to_owned(),
        port: 443,
        ..DestinationInfo::default()
    });
    event.operation = Some(OperationInfo {
        protocol: "http".to_owned(),
        verb: "POST".to_owned(),
        resource: url.to_owned(),
    });
    event.decision = Some(DecisionInfo {
        action: if is_denied {
            Outcome::Deny
        } else {
            Outcome::Allow
        },
        would_deny: url.contains("odd"),
        mode: Mode::Enforce,
        policy: Some("agents/web".to_owned()),
        rule: None,
        revision: chaperone_crds::snapshot::Revision::of(b"x"),
        reason: "rule".to_owned(),
        message: None,
    });
    event.http = Some(HttpInfo {
        status: Some(if is_denied { 403 } else { 200 }),
        ..HttpInfo::default()
    });
    event
}

/// Some hundred records of four streams, three of which are named by the ledger.
fn filled() -> Ledger {
    let mut ledger = Ledger::new();
    for stream in 0..4 {
        if stream > 0 {
            ledger.name(stream);
        }
        ledger.open(stream);
    }
    for number in 0..240_usize {
        let host = ["api.example.com", "example.com", "files.other.org"][number % 3];
        let path = ["v1/messages", "v1/secret", "v2/odd/deep", ""][number % 4];
        let session = ["one", "two", "one"].get(number % 7).copied();
        ledger.http(
            number % 4,
            &format!("https://{host}/{path}?n={number}"),
            session,
        );
    }
    ledger
}

fn query(text: &str) -> Query {
    let pairs = text.split(['&']).filter(|pair| !pair.is_empty());
    Query::parse(pairs.map(|pair| pair.split_once('=').unwrap())).unwrap()
}

/// All pages of an answer.
fn pages(reader: &Reader, text: &str, scope: &Scope) -> Vec<u64> {
    pages_of(reader, query(text), scope)
}

fn pages_of(reader: &Reader, mut query: Query, scope: &Scope) -> Vec<u64> {
    let mut leaves = Vec::new();
    loop {
        let answer = reader.search(&query, scope, Limits::default()).unwrap();
        leaves.extend(answer.found.iter().map(|found| found.leaf));
        query.cursor = answer.cursor;
        if query.cursor.is_none() {
            return leaves;
        }
    }
}

const QUERIES: [&str; 26] = [
    "",
    "order=asc&limit=7",
    "namespace=true&limit=10",
    "namespace=ns-0",
    "namespace=ns-1",
    "pod=pod-2",
    "serviceAccount=coder&limit=1000",
    "host=api.example.com&limit=3",
    "host=API.example.com.&order=asc",
    "host=*.example.com",
    "host=*.org&limit=5",
    "path=/v1",
    "path=/v1/&limit=9",
    "path=/v1/mess",
    "path=/",
    "kind=http&decision=Deny&limit=4",
    "decision=WouldDeny",
    "decision=Allow&status=200&verb=POST",
    "policy=agents/web&reason=rule",
    "policy=agents/we",
    "session=one&limit=11",
    "stream=01010101-0101-4101-8101-010101010101",
    "since=2027-01-15T09:00:00Z&until=2027-01-15T10:30:00Z&limit=8",
    "q=messages",
    "q=\"v1 secret\" exam*&order=asc",
    "kind=stream.identity&q=u1",
];

#[test]
fn each_question_finds_what_a_scan_finds() {
    let ledger = filled();
    let (_index, opened) = ledger.index();
    assert_eq!(opened, Opened::New);
    let reader = ledger.reader();
    let mut found = 0;
    for text in QUERIES {
        let expected = ledger.scan(&query(text), &[1, 2, 3]);
        assert_eq!(pages(&reader, text, &Scope::All), expected, "{text}");
        found += usize::from(!expected.is_empty());
    }
    assert_eq!(
        found,
        QUERIES.len() - 3,
        "but for the three that find nothing"
    );
}

#[test]
fn what_is_before_a_leaf_is_left_out_whatever_the_order_and_the_pages() {
    let ledger = filled();
    let (_index, _) = ledger.index();
    let reader = ledger.reader();
    for text in [
        "order=asc&limit=7",
        "limit=7",
        "host=api.example.com&limit=10",
        "host=api.example.com&order=asc&limit=1",
    ] {
        let all = pages(&reader, text, &Scope::All);
        for from in [0, 1, 100, 200, 249, 1_000] {
            let query = Query {
                from,
                ..query(text)
            };
            let expected: Vec<_> = all.iter().copied().filter(|leaf| *leaf >= from).collect();
            assert_eq!(
                pages_of(&reader, query, &Scope::All),
                expected,
                "{text} {from}"
            );
        }
    }
}

#[test]
fn a_record_is_found_by_stream_and_number() {
    let ledger = filled();
    let (_index, _) = ledger.index();
    let reader = ledger.reader();
    let mut follower = Follower::new(&ledger.dir, Cursor::START);
    while let Some(record) = follower.next(ledger.end()).unwrap() {
        let json: Value = serde_json::from_slice(record.line).unwrap();
        let stream = json["stream"].as_str().unwrap().parse().unwrap();
        let seq = json["seq"].as_u64().unwrap();
        let found = reader.record(&stream, seq).unwrap().unwrap();
        assert_eq!((found.leaf, &*found.line), (record.leaf, record.line));
        assert_eq!(reader.record(&stream, seq + 1_000).unwrap(), None);
    }
    let unknown = StreamId::from_random([77; 16]);
    assert_eq!(reader.record(&unknown, 0).unwrap(), None);
}

#[test]
fn pages_stay_as_they_are_while_records_come_in() {
    let mut ledger = filled();
    let (mut index, _) = ledger.index();
    let reader = ledger.reader();
    for order in ["asc", "desc"] {
        let mut query = query(&format!("host=api.example.com&limit=10&order={order}"));
        let expected = ledger.scan(&query, &[1, 2, 3]);
        let mut leaves = Vec::new();
        loop {
            let answer = reader
                .search(&query, &Scope::All, Limits::default())
                .unwrap();
            leaves.extend(answer.found.iter().map(|found| found.leaf));
            ledger.http(0, "https://api.example.com/new", None);
            while index.take(ledger.end()).unwrap() > 0 {}
            query.cursor = answer.cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(leaves, expected, "{order}");
    }
}

#[test]
fn sessions_have_what_names_them_what_follows_and_what_came_before() {
    let mut ledger = Ledger::new();
    for stream in [0, 1] {
        ledger.open(stream);
        ledger.http(stream, "https://a.example/before", None);
    }
    ledger.http(0, "https://m.example/v1/messages", Some("one"));
    ledger.http(0, "https://b.example/secret", None);
    ledger.http(0, "https://m.example/v1/messages", Some("two"));
    ledger.http(0, "https://c.example/odd", None);
    ledger.http(0, "https://m.example/v1/messages", Some("one"));
    // A pod that waits makes nobody's session longer.
    let quiet = Event::new(EventKind::StreamHeartbeat, agent(0));
    ledger.put(Some(0), &quiet);
    // Another namespace's session of the same name is another.
    ledger.http(3, "https://m.example/v1/messages", Some("one"));
    let (_index, _) = ledger.index();
    let reader = ledger.reader();
    let all = SessionQuery {
        limit: 2,
        ..SessionQuery::default()
    };
    let first = reader.sessions(&all, Limits::default()).unwrap();
    let rest = SessionQuery {
        cursor: first.cursor,
        ..all.clone()
    };
    let rest = reader.sessions(&rest, Limits::default()).unwrap();
    let told: Vec<_> = [&first.found[..], &rest.found]
        .concat()
        .iter()
        .map(|s| (s.namespace.clone(), s.id.clone(), s.records, s.turns))
        .collect();
    let stream = ledger.chains[1].stream().to_string();
    let expected = [
        ("ns-1", "one", 1, 1),
        ("ns-0", "two", 2, 1),
        ("ns-0", "one", 3, 2),
        ("ns-1", &*stream, 2, 0),
    ];
    let expected = expected.map(|(n, id, r, t)| (n.to_owned(), id.to_owned(), r, t));
    let sorted = |mut told: Vec<_>| {
        told.sort();
        told
    };
    assert_eq!(sorted(told), sorted(expected.to_vec()));
    assert!(matches!(
        reader.session("one", None, None),
        Err(IndexError::Ambiguous(2))
    ));
    let one = reader.session("one", Some("ns-0"), None).unwrap().unwrap();
    assert_eq!((one.denied, one.would_deny, one.operations), (1, 0, 3));
    assert_eq!(one.hosts[0].host, "m.example");
    assert_eq!(
        one.first_time.as_deref(),
        Some("2027-01-15T08:05:00.000000Z")
    );
    let scope = reader.scope(&one).unwrap();
    // The stream's open and the first request are its prelude.
    assert_eq!(pages(&reader, "order=asc&limit=2", &scope), [0, 1, 4, 5, 8]);
    assert_eq!(pages(&reader, "decision=Deny", &scope), [5]);
    let two = reader.session("two", None, None).unwrap().unwrap();
    let scope = reader.scope(&two).unwrap();
    assert_eq!(pages(&reader, "order=asc", &scope), [6, 7]);
    let stream = reader
        .session(&stream, None, Some(SessionKind::Stream))
        .unwrap()
        .unwrap();
    assert_eq!(stream.kind, SessionKind::Stream);
    assert_eq!(reader.session("three", None, None).unwrap(), None);
}

#[test]
fn an_index_goes_on_where_it_was_and_is_never_doubled() {
    let mut ledger = filled();
    let (index, _) = ledger.index();
    let before = index.cursor();
    drop(index);
    for number in 0..50 {
        ledger.http(2, &format!("https://late.example/{number}"), None);
    }
    let (index, opened) = ledger.index();
    assert_eq!(opened, Opened::Whole);
    assert_eq!(index.cursor().leaf, before.leaf + 50);
    let reader = ledger.reader();
    let all = pages(&reader, "order=asc&limit=1000", &Scope::All);
    assert_eq!(all, (0..index.cursor().leaf).collect::<Vec<_>>());
    assert_eq!(pages(&reader, "host=late.example", &Scope::All).len(), 50);
}

#[test]
fn an_index_that_does_not_fit_is_made_anew_and_says_why() {
    let alter = |why: &str, change: &dyn Fn(&Ledger)| {
        let ledger = filled();
        let (index, _) = ledger.index();
        index.settle().unwrap();
        drop(index);
        change(&ledger);
        let (index, opened) = ledger.index();
        match opened {
            Opened::Rebuilt(said) => assert!(said.contains(why), "{said}, not {why}"),
            other => panic!("{why}: {other:?}"),
        }
        drop(index);
        let reader = ledger.reader();
        for text in QUERIES {
            let expected = ledger.scan(&query(text), &[1, 2, 3]);
            assert_eq!(pages(&reader, text, &Scope::All), expected, "{why} {text}");
        }
    };
    // As if by an index that was written so: with sums that fit.
    let sql = |ledger: &Ledger, text: &str| {
        let db = Connection::open(ledger.path()).unwrap();
        super::schema::for_writing(&db).unwrap();
        db.execute_batch(text).unwrap();
        super::sums::checkpoint(&db, &ledger.path(), 0).unwrap();
    };
    alter("of version 7", &|l| sql(l, "PRAGMA user_version = 7"));
    alter("other", &|l| sql(l, "UPDATE meta SET origin = 'other'"));
    alter("ahead of them", &|l| sql(l, "UPDATE meta SET segment = 99"));
    alter("not theirs", &|l| sql(l, "UPDATE meta SET leaf = leaf - 1"));
    alter("not theirs", &|l| {
        sql(
            l,
            "DELETE FROM records WHERE leaf = (SELECT max(leaf) FROM records)",
        )
    });
    alter("no record before it", &|l| {
        sql(l, "UPDATE meta SET leaf = 0")
    });
    alter("stands for a number", &|l| {
        sql(l, "UPDATE meta SET leaf = -1")
    });
    alter("no such table", &|l| sql(l, "DROP TABLE meta"));
    alter("damaged", &|l| fs::write(l.path(), [7; 9000]).unwrap());
    alter("", &|l| {
        // While all that counts is in the WAL.
        fs::remove_file(l.path()).unwrap();
        drop(l.index());
        fs::write(l.path(), vec![0x5a; 50_000]).unwrap();
    });
    alter("damaged", &|l| {
        fs::remove_file(super::sums::path(&l.path())).unwrap();
    });
    alter("damaged", &|l| {
        let bytes = fs::read(l.path()).unwrap();
        fs::write(l.path(), &bytes[..bytes.len() / 2]).unwrap();
    });
}

#[test]
fn no_flipped_bit_changes_what_is_found() {
    let mut ledger = filled();
    let (mut index, _) = ledger.index();
    index.settle().unwrap();
    // Some of it waits in the WAL.
    for number in 0..20 {
        ledger.http(1, &format!("https://wal.example/{number}"), None);
    }
    while index.take(ledger.end()).unwrap() > 0 {}
    drop(index);
    let names = ["index.sqlite", "index.sqlite-wal", "index.sqlite.sums"];
    let kept = names.map(|name| fs::read(ledger.dir.join(name)).unwrap());
    assert!(kept.iter().all(|bytes| !bytes.is_empty()));
    let questions = [
        "q=messages&limit=1000",
        "host=wal.example",
        "decision=Deny&limit=1000",
    ];
    let expected = questions.map(|text| ledger.scan(&query(text), &[1, 2, 3]));
    let mut rebuilt = 0;
    for (name, bytes) in names.iter().zip(&kept) {
        for at in (0..bytes.len()).step_by(bytes.len() / 25) {
            for (name, bytes) in names.iter().zip(&kept) {
                fs::write(ledger.dir.join(name), bytes).unwrap();
            }
            let _ = fs::remove_file(ledger.dir.join("index.sqlite-shm"));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(ledger.dir.join(name), flipped).unwrap();
            let (_index, opened) = ledger.index();
            rebuilt += usize::from(matches!(opened, Opened::Rebuilt(_)));
            let reader = ledger.reader();
            let found = questions.map(|text| pages(&reader, text, &Scope::All));
            assert_eq!(found, expected, "{name}, byte {at}");
        }
    }
    assert!(rebuilt >= 15, "{rebuilt}");
}

#[test]
fn a_row_that_leads_elsewhere_is_said_and_never_answered_from() {
    let ledger = filled();
    drop(ledger.index());
    let db = Connection::open(ledger.path()).unwrap();
    super::schema::for_writing(&db).unwrap();
    db.execute_batch("UPDATE records SET offset = (SELECT offset FROM records WHERE leaf = 21), length = (SELECT length FROM records WHERE leaf = 21) WHERE leaf = 20")
        .unwrap();
    let error = ledger
        .reader()
        .search(&query("order=asc"), &Scope::All, Limits::default())
        .unwrap_err();
    assert!(error.is_broken(), "{error}");
}

#[test]
fn a_question_that_would_take_too_long_ends() {
    let ledger = filled();
    drop(ledger.index());
    let reader = ledger.reader();
    let none = Limits {
        time: std::time::Duration::ZERO,
        ..Limits::default()
    };
    // One record at least is looked at: so pages get on.
    let mut query = query("order=asc");
    let mut found = Vec::new();
    loop {
        let answer = reader.search(&query, &Scope::All, none).unwrap();
        assert_eq!(answer.found.len(), 1);
        found.push(answer.found[0].leaf);
        query.cursor = answer.cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ledger.scan(&query, &[]));
    let little = Limits {
        bytes: 1,
        ..Limits::default()
    };
    let answer = reader.search(&query, &Scope::All, little).unwrap();
    assert_eq!(answer.found.len(), 1);
}

#[test]
fn plans_stay_as_they_are() {
    let ledger = filled();
    drop(ledger.index());
    let reader = ledger.reader();
    let plan = |sql: &str| {
        let mut statement = reader
            .db
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let count = statement.parameter_count();
        let values = vec![Option::<i64>::None; count];
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            row.get::<_, String>(3)
        });
        rows.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    for order in [Order::Asc, Order::Desc] {
        let found = plan(&sql(Some(0), order));
        assert!(
            found[0].starts_with("SCAN words_0 VIRTUAL TABLE INDEX"),
            "{found:?}"
        );
        assert_eq!(found[1], "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)");
        assert_eq!(found.len(), 2, "no sorting: {found:?}");
        let expected = ["SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"];
        assert_eq!(plan(&sql(None, order)), expected);
    }
    let found = plan(RUN);
    assert_eq!(
        found[0],
        "SEARCH runs USING PRIMARY KEY (stream=? AND seq<?)"
    );
    let expected =
        ["SEARCH sessions USING INDEX sessions_by_namespace (namespace=? AND is_shown=? AND id<?)"];
    assert_eq!(plan(&list_sql(true)), expected);
    assert_eq!(
        plan(&list_sql(false)),
        ["SEARCH sessions USING INTEGER PRIMARY KEY (rowid<?)"]
    );
    let found = plan(&by_name_sql());
    assert!(found[0].contains("sessions_by_name (name=?)"), "{found:?}");
}

mod forget;
