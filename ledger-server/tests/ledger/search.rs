//! Questions about records: who may ask, what is found, what is recorded of it, and that the index follows whatever happens.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Ledger, Lines, World, stream};

/// Asks with curl.
fn ask(ledger: &Ledger, token: &str, path: &str) -> (u16, Value) {
    let (status, body) = ledger.curl(path, token, &[]);
    (status, serde_json::from_str(&body).unwrap())
}

/// Asks until the index has all that is committed.
fn settled(ledger: &Ledger, path: &str) -> Value {
    for _ in 0..150 {
        let (status, body) = ask(ledger, "reader", path);
        assert!(status == 200 || status == 503, "{body}");
        // Each question is a record itself: the index need not have the last ones.
        let lacks = body["committed"].as_u64().unwrap_or(0) - body["indexed"].as_u64().unwrap_or(0);
        if status == 200 && lacks <= 3 && body["indexed"].as_u64() > Some(3) {
            return body;
        }
        thread::sleep(Duration::from_millis(400));
    }
    panic!("the index stayed behind");
}

fn leaves(answer: &Value) -> Vec<u64> {
    let records = answer["records"].as_array().unwrap();
    records
        .iter()
        .map(|r| r["leaf"].as_u64().unwrap())
        .collect()
}

/// All records of kind `dns`, by leaf, over all pages.
fn all(ledger: &Ledger) -> BTreeMap<u64, Value> {
    settled(ledger, "/v1/records?limit=1");
    let mut found = BTreeMap::new();
    let mut path = "/v1/records?kind=dns&order=asc&limit=1000".to_owned();
    loop {
        let (status, body) = ask(ledger, "reader", &path);
        assert_eq!(status, 200, "{body}");
        for record in body["records"].as_array().unwrap() {
            let leaf = record["leaf"].as_u64().unwrap();
            assert!(
                found.insert(leaf, record["record"].clone()).is_none(),
                "twice: {leaf}"
            );
        }
        let Some(cursor) = body["cursor"].as_str() else {
            return found;
        };
        path = format!("/v1/records?kind=dns&order=asc&limit=1000&cursor={cursor}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the ledger recorded of readers.
fn reads(world: &World) -> Vec<Value> {
    let records = world.records();
    let lines = records
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .filter(|record| record["kind"] == "ledger.read")
        .map(|record| record["read"].clone())
        .collect()
}

#[test]
fn records_are_found_by_who_may_see_them_and_each_question_is_recorded_first() {
    let world = World::new("search");
    let ledger = world.start();
    let id = stream(1);
    assert_eq!(
        ledger
            .post("pod-a", &id, &Lines::new(id.clone()).take(30))
            .0,
        200
    );
    let body = settled(&ledger, "/v1/records?kind=dns&limit=5");
    assert_eq!(leaves(&body).len(), 5);
    assert!(body["cursor"].is_string());

    // The pod is of namespace agents, as the API server says: its records name none.
    let (status, body) = ask(&ledger, "team", "/v1/records?namespace=agents&limit=1000");
    assert_eq!(
        (status, leaves(&body).len()),
        (200, 31),
        "its records and whose it is"
    );
    let (status, body) = ask(&ledger, "team", "/v1/records?namespace=other");
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    let (status, body) = ask(&ledger, "team", "/v1/records");
    let why =
        "team may not list records of chaperone.dev in all namespaces: name one with namespace=";
    assert_eq!((status, &body["message"]), (403, &json!(why)));
    let (status, body) = ask(&ledger, "reader", "/v1/records?namespace=other");
    assert_eq!(
        (status, body["records"].as_array().unwrap().len()),
        (200, 0)
    );
    assert!(body["indexed"].as_u64() >= Some(32));
    for _ in 0..3 {
        assert_eq!(
            ask(&ledger, "stranger", "/v1/sessions?namespace=agents").0,
            403
        );
    }
    assert_eq!(ask(&ledger, "forged", "/v1/records").0, 401);
    assert_eq!(ask(&ledger, "", "/v1/records").0, 401);

    let record = format!("/v1/records/{id}/7");
    let (status, body) = ask(&ledger, "reader", &record);
    assert_eq!((status, &body["record"]["seq"]), (200, &json!(7)));
    let (status, _) = ask(&ledger, "team", &format!("{record}?namespace=agents"));
    assert_eq!(status, 200);
    let (status, body) = ask(&ledger, "reader", &format!("{record}?namespace=other"));
    assert_eq!((status, &body["code"]), (404, &json!("not-found")));
    let (status, body) = ask(&ledger, "reader", &format!("/v1/records/{id}/77"));
    assert_eq!((status, &body["code"]), (404, &json!("not-found")));

    let (status, body) = ask(&ledger, "team", "/v1/sessions?namespace=agents");
    assert_eq!(status, 200);
    let session = &body["sessions"][0];
    assert_eq!(
        (&session["id"], &session["kind"]),
        (&json!(id.to_string()), &json!("stream"))
    );
    assert_eq!(
        (&session["records"], &session["operations"]),
        (&json!(30), &json!(29))
    );
    let path = format!("/v1/sessions/{id}");
    assert_eq!(ask(&ledger, "reader", &path).1["pod"], Value::Null);
    assert_eq!(ask(&ledger, "reader", &path).1["streams"][0]["pod"], "a");
    let (status, body) = ask(
        &ledger,
        "reader",
        &format!("{path}/records?kind=stream&limit=1000&order=asc"),
    );
    assert_eq!((status, leaves(&body).len()), (200, 30));
    assert_eq!(ask(&ledger, "reader", "/v1/sessions/none").0, 404);
    assert_eq!(ask(&ledger, "reader", "/v1/sessions/none/records").0, 404);

    let reads = reads(&world);
    let of = |user: &str, what: &str| {
        let count = reads
            .iter()
            .filter(|r| r["user"] == user && r["what"] == what);
        count.count()
    };
    assert_eq!(
        (
            of("team", "records"),
            of("team", "record"),
            of("team", "sessions")
        ),
        (3, 1, 1)
    );
    assert_eq!(
        of("stranger", "sessions"),
        1,
        "refusals of a minute are one record"
    );
    let asked = json!({"namespace": "agents", "limit": "1000"});
    let read = reads.iter().find(|r| r["query"] == asked).unwrap();
    assert_eq!(
        (&read["records"], &read["groups"]),
        (&json!(31), &json!(["system:authenticated"]))
    );
    let refused = reads.iter().find(|r| r["user"] == "stranger").unwrap();
    assert_eq!(
        (&refused["refused"], &refused["records"]),
        (&json!(1), &Value::Null)
    );
}

#[test]
fn bad_parameters_are_said_in_a_sentence_and_lines_are_lines() {
    let world = World::new("questions");
    let ledger = world.start();
    let id = stream(1);
    assert_eq!(
        ledger.post("pod-a", &id, &Lines::new(id.clone()).take(5)).0,
        200
    );
    settled(&ledger, "/v1/records?limit=1");
    for (path, message) in [
        (
            "/v1/records?limit=0",
            "limit is a number from 1 to 1000, not \"0\"",
        ),
        ("/v1/records?colour=red", "there is no parameter \"colour\""),
        ("/v1/records?pod=a&pod=b", "\"pod\" is there more than once"),
        (
            "/v1/records?q=%22*%22",
            "q: there is no letter and no digit in it",
        ),
        (
            "/v1/records?q=%zz",
            "\"%zz\" is not encoded as the query of a URL is",
        ),
        (
            "/v1/records?since=now",
            "since is a time such as 2026-11-29T10:00:00Z, not \"now\"",
        ),
        ("/v1/records/x/1", "a stream's name is a UUID in lower case"),
        (
            "/v1/sessions?pod=a",
            "the parameters here are namespace, since, until, limit, cursor, not \"pod\"",
        ),
        (
            "/v1/sessions/a?kind=x",
            "a session's kind is agent or stream",
        ),
    ] {
        let (status, body) = ask(&ledger, "reader", path);
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("malformed")),
            "{path}"
        );
        if !path.contains("/x/1") {
            assert_eq!(body["message"], message, "{path}");
        }
    }
    for hostile in [
        "%22%20OR%20%22",
        "NEAR(a%20b)",
        "a:b%20%7B%7D%5E-%2B",
        "';DROP%20TABLE%20records;--",
    ] {
        assert_eq!(
            ask(&ledger, "reader", &format!("/v1/records?q=x{hostile}")).0,
            200
        );
    }
    let accept = ["-H", "Accept: application/x-ndjson", "-D", "-"];
    let (status, text) = ledger.curl("/v1/records?kind=dns&limit=2", "reader", &accept);
    assert_eq!(status, 200);
    let (head, lines) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/x-ndjson"),
        "{head}"
    );
    assert!(
        head.contains("chaperone-indexed: ") && head.contains("chaperone-cursor: 1."),
        "{head}"
    );
    assert!(head.contains("cache-control: no-store"), "{head}");
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["record"]["kind"] == "dns"));
}

#[test]
fn readers_cannot_flood_the_log() {
    let world = World::new("flood");
    let ledger = world.start();
    settled(&ledger, "/v1/records?limit=1");
    let before = reads(&world).len();
    let mut refused = 0;
    for _ in 0..12 {
        let urls = format!("https://{}/v1/records?limit=[1-10]", ledger.api);
        let output = std::process::Command::new("curl")
            .args([
                "-s",
                "-Z",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}\n",
                "--cacert",
            ])
            .arg(ledger.ca())
            .args(["-H", "Authorization: Bearer reader", &urls])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        refused += text.lines().filter(|code| *code == "503").count();
    }
    let recorded = reads(&world).len() - before;
    assert!(refused > 0, "{recorded} were recorded");
    assert_eq!(recorded + refused, 120, "each was recorded or refused");
}

#[test]
fn the_index_follows_through_kills_and_is_made_anew_when_it_is_lost() {
    let world = World::new("follow");
    let ids = [1, 2, 3].map(stream);
    let mut lines = ids.clone().map(Lines::new);
    let mut expected = 0;
    for round in 0..4 {
        let ledger = world.start();
        for _ in 0..10 {
            for ((number, id), lines) in (1..).zip(&ids).zip(&mut lines) {
                let batch = lines.take(100);
                assert_eq!(ledger.post(&format!("pod-{number}"), id, &batch).0, 200);
            }
        }
        expected += 3_000;
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(250));
        }
        ledger.kill();
    }
    let ledger = world.start();
    let found = all(&ledger);
    // The first record of each stream is its open.
    assert_eq!(found.len(), expected - 3);
    let stored = world.records();
    let stored: Vec<Value> = stored
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    for (leaf, record) in &found {
        assert_eq!(record, &stored[usize::try_from(*leaf).unwrap()]);
    }
    ledger.stop();

    // Lost, or damaged, while nobody looked.
    let path = world.data.join("index.sqlite");
    for damage in [0, 1] {
        match damage {
            0 => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, vec![0x5a; 50_000]).unwrap(),
        }
        let ledger = world.start();
        assert_eq!(all(&ledger), found);
        ledger.stop();
    }

    // Damaged under its readers.
    let ledger = world.start();
    settled(&ledger, "/v1/records?limit=1");
    let length = fs::metadata(&path).unwrap().len();
    let wal = world.data.join("index.sqlite-wal");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &file,
        &vec![0x5a; usize::try_from(length).unwrap()],
        0,
    )
    .unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&wal)
        .unwrap()
        .set_len(0)
        .unwrap();
    let (id, lines) = (&ids[0], &mut lines[0]);
    assert_eq!(
        ledger.post("pod-1", id, &lines.take(500)).0,
        200,
        "records are taken all the same"
    );
    assert_eq!(all(&ledger).len(), found.len() + 500);
    assert!(ledger.metric("chaperone_ledger_index_rebuilds_total") >= 1.0);
    ledger.stop();
}

#[test]
fn who_waits_for_records_gets_those_from_a_leaf_on_and_no_record_of_reading() {
    let world = World::new("search-wait");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(5)).0, 200);
    let from = settled(&ledger, "/v1/records?limit=1")["indexed"].clone();
    let look = |from: &Value, wait: u64| {
        let path = format!("/v1/records?order=asc&from={from}&wait={wait}");
        let (status, body) = ask(&ledger, "reader", &path);
        assert_eq!(status, 200, "{body}");
        body
    };
    let began = Instant::now();
    let answer = thread::scope(|scope| {
        let waits = scope.spawn(|| look(&from, 20));
        thread::sleep(Duration::from_secs(2));
        assert_eq!(ask(&ledger, "reader", "/v1/sessions").0, 200);
        thread::sleep(Duration::from_secs(2));
        assert!(!waits.is_finished(), "somebody read, and no record came");
        assert_eq!(ledger.post("pod-a", &id, &lines.take(3)).0, 200);
        waits.join().unwrap()
    });
    assert!(began.elapsed() < Duration::from_secs(15));
    let found = answer["records"].as_array().unwrap();
    let numbers: Vec<_> = found.iter().map(|r| r["record"]["seq"].clone()).collect();
    assert_eq!(numbers, [5, 6, 7]);
    assert!(
        leaves(&answer)
            .iter()
            .all(|leaf| Some(*leaf) >= from.as_u64())
    );
    let nothing = look(&answer["indexed"], 1);
    assert_eq!(nothing["records"], json!([]));
    // What was asked stands on record, and so does who reads.
    let asked = reads(&world);
    let waited = |read: &&Value| read["query"]["from"] == json!(from.to_string());
    assert_eq!(asked.iter().find(waited).unwrap()["records"], 3);
    let path = "/v1/records?kind=ledger.read&order=asc&wait=20&from=0";
    let (status, body) = ask(&ledger, "reader", path);
    assert!(status == 200 && !leaves(&body).is_empty(), "{body}");
    for wrong in ["wait=0", "wait=31", "wait=x", "from=-1", "wait=1&wait=2"] {
        let (status, body) = ask(&ledger, "reader", &format!("/v1/records?{wrong}"));
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("malformed")),
            "{wrong}"
        );
    }
    // Who may not look may not wait either.
    let began = Instant::now();
    assert_eq!(ask(&ledger, "forged", "/v1/records?wait=20&from=0").0, 401);
    assert!(began.elapsed() < Duration::from_secs(5));
}
