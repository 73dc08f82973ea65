//! Deletion by rules and by request, holds, and that what is gone is nowhere, whatever happens on the way.

use std::{
    fs,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use chaperone_ledger::audit::{self, Trust, Verdict};
use serde_json::{Value, json};

use crate::{
    faults::clock,
    world::{Ledger, Lines, World, stream},
};

/// How long something may take to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A ledger that has a retention file.
struct Kept(World);

impl Kept {
    fn new(name: &str) -> Self {
        let kept = Self(World::new(name));
        kept.rules("rules: []\n");
        let file = kept.0.folder.join("retention.yaml");
        let more = [
            "--retention",
            file.to_str().unwrap(),
            "--sweep-seconds",
            "1",
        ];
        kept.0.more.lock().unwrap().extend(more.map(str::to_owned));
        kept
    }

    fn rules(&self, text: &str) {
        let file = self.0.folder.join("retention.yaml");
        let new = self.0.folder.join("retention.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// The program as it ran so many days ago.
    fn start_ago(&self, days: u32) -> Ledger {
        let mut command = self.0.command();
        clock(&mut command, &format!("-{days}d"));
        self.0.start_as(command)
    }

    fn verdict(&self) -> Verdict {
        let trust = Trust {
            keys: vec![self.0.vkey.parse().unwrap()],
            kept: Vec::new(),
        };
        let verdict = audit::verify(&self.0.data, &trust).unwrap();
        assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
        verdict
    }

    /// Records of the ledger's own of this kind.
    fn own(&self, kind: &str) -> Vec<Value> {
        let records = self.0.records();
        let lines = records.split(|b| *b == b'\n');
        let read = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        read.filter(|record| record["kind"] == kind).collect()
    }

    fn is_anywhere(&self, word: &str) -> bool {
        fn look(dir: &Path, word: &[u8]) -> bool {
            fs::read_dir(dir).unwrap().any(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    return look(&path, word);
                }
                // One that is replaced just now is looked at under its name.
                let bytes = fs::read(&path).unwrap_or_default();
                memchr::memmem::find(&bytes, word).is_some()
            })
        }
        look(&self.0.data, word.as_bytes())
    }
}

/// Somebody who asks all the time.
struct Asks {
    thread: thread::JoinHandle<Vec<String>>,
    ends: mpsc::Sender<()>,
}

impl Asks {
    fn of(ledger: &Ledger) -> Self {
        let asking = ledger.asking("/v1/records?namespace=agents&q=common&limit=1", "team");
        let (ends, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut refused = Vec::new();
            // Not more often than a user may.
            while ended.recv_timeout(Duration::from_millis(120)) == Err(RecvTimeoutError::Timeout) {
                let (status, body) = asking();
                if status != 200 {
                    refused.push(format!("{status} {body}"));
                }
            }
            refused
        });
        Self { thread, ends }
    }

    fn were_all_answered(self) {
        drop(self.ends);
        let refused = self.thread.join().unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn send(ledger: &Ledger, pod: &str, number: u8, lines: &mut Lines, texts: &[(&str, &str)]) {
    let mut batch = Vec::new();
    if lines.next_seq() == 0 {
        lines.append(&mut batch);
    }
    for (session, text) in texts {
        lines.content(session, text, &mut batch);
    }
    let (status, body) = ledger.post(pod, &stream(number), &batch);
    assert_eq!(status, 200, "{body}");
}

fn call(ledger: &Ledger, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let text = body.to_string();
    let arguments = [
        "-X",
        method,
        "-H",
        "Content-Type: application/json",
        "-d",
        &text,
    ];
    let (status, body) = ledger.curl(path, token, &arguments);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// How many records have the word, by the index; none while it is made anew.
fn found(ledger: &Ledger, word: &str) -> Option<usize> {
    // By the beginning of the word: what is asked for is on record, and stays.
    let begin = &word[..word.len() - 2];
    let path = format!("/v1/records?kind=http&q={begin}*");
    let (status, body) = ledger.curl(&path, "reader", &[]);
    let body: Value = serde_json::from_str(&body).unwrap();
    let lacks = body["committed"].as_u64().unwrap_or(9) - body["indexed"].as_u64().unwrap_or(0);
    (status == 200 && lacks <= 3).then(|| body["records"].as_array().unwrap().len())
}

#[test]
fn what_is_due_goes_from_everywhere_and_what_is_held_stays() {
    let kept = Kept::new("retention");
    let ledger = kept.start_ago(40);
    let (mut one, mut two) = (Lines::new(stream(1)), Lines::new(stream(2)));
    for _ in 0..20 {
        send(
            &ledger,
            "pod-one",
            1,
            &mut one,
            &[("s", "alphasecret"), ("t", "tangosecret")],
        );
        send(&ledger, "pod-two", 2, &mut two, &[("u", "uniformsecret")]);
    }
    until("the index has it", || {
        found(&ledger, "alphasecret") == Some(20)
    });
    ledger.stop();
    let size = fs::metadata(kept.0.data.join("records/00000000.jsonl"))
        .unwrap()
        .len();
    assert!(kept.is_anywhere("alphasecret"), "the index knows words");

    let ledger = kept.0.start();
    send(&ledger, "pod-one", 1, &mut one, &[("s", "freshsecret")]);
    until("the index is there", || {
        found(&ledger, "freshsecret") == Some(1)
    });
    let asks = Asks::of(&ledger);
    let hold = json!({"name": "case-1", "reason": "being looked into", "session": "t", "namespace": "agents"});
    let (status, body) = call(&ledger, "POST", "/v1/holds", "stranger", &hold);
    assert_eq!(status, 403, "{body}");
    let (status, body) = call(&ledger, "POST", "/v1/holds", "team", &hold);
    assert_eq!((status, &body["user"]), (201, &json!("team")), "{body}");
    let (status, body) = call(&ledger, "POST", "/v1/holds", "team", &hold);
    assert_eq!((status, &body["code"]), (409, &json!("exists")), "{body}");
    // A file that is wrong changes nothing, and says so.
    kept.rules("default:\n  content: soon\n");
    until("the file is refused", || {
        ledger.metric("chaperone_ledger_sweep_errors_total{stage=\"policy\"}") > 0.0
    });
    assert_eq!(found(&ledger, "alphasecret"), Some(20));
    kept.rules("rules:\n- namespaces: [\"agent*\"]\n  content: 30d\n");
    until("two keys are destroyed", || {
        ledger.metric("chaperone_ledger_erased_keys_total{cause=\"retention\"}") >= 2.0
    });
    for (word, count) in [
        ("alphasecret", 0),
        ("uniformsecret", 0),
        ("tangosecret", 20),
        ("freshsecret", 1),
    ] {
        until(word, || found(&ledger, word) == Some(count));
    }
    until("the segment is written anew", || {
        fs::metadata(kept.0.data.join("records/00000000.jsonl"))
            .unwrap()
            .len()
            < size
    });
    let erased = kept.own("ledger.erased");
    assert_eq!(erased.len(), 1, "{erased:?}");
    let erased = &erased[0]["erased"];
    assert_eq!(
        (&erased["keys"], &erased["what"]),
        (&json!(2), &json!("content")),
        "{erased}"
    );
    assert_eq!(erased["rule"], "agent*: content 30d");
    assert_eq!(erased["sessions"], json!(["s", "u"]));
    for word in ["alphasecret", "uniformsecret"] {
        until("it is forgotten", || !kept.is_anywhere(word));
    }
    asks.were_all_answered();
    assert_eq!(ledger.metric("chaperone_ledger_index_rebuilds_total"), 0.0);
    ledger.stop();
    let verdict = kept.verdict();
    assert_eq!((verdict.contents.there, verdict.contents.gone), (21, 40));

    // Holds are what the log says of them: a restart forgets none. Once it is released, it goes like the rest.
    let ledger = kept.0.start();
    let (status, body) = call(&ledger, "GET", "/v1/holds", "reader", &Value::Null);
    assert_eq!(
        (status, &body["holds"][0]["name"]),
        (200, &json!("case-1")),
        "{body}"
    );
    let release = json!({"reason": "closed"});
    let (status, body) = call(&ledger, "DELETE", "/v1/holds/case-1", "reader", &release);
    assert_eq!(status, 200, "{body}");
    let (status, body) = call(&ledger, "DELETE", "/v1/holds/case-1", "reader", &release);
    assert_eq!(
        (status, &body["code"]),
        (404, &json!("not-found")),
        "{body}"
    );
    until("what was held goes", || {
        found(&ledger, "tangosecret") == Some(0) && !kept.is_anywhere("tangosecret")
    });
    ledger.stop();
    assert_eq!(kept.verdict().contents.there, 1);
    assert_eq!(
        (
            kept.own("ledger.hold").len(),
            kept.own("ledger.release").len()
        ),
        (1, 1)
    );
}

#[test]
fn content_is_erased_at_once_for_who_may_and_where_no_hold_keeps_it() {
    let kept = Kept::new("erasure");
    let ledger = kept.0.start();
    let mut lines = Lines::new(stream(1));
    send(
        &ledger,
        "pod-one",
        1,
        &mut lines,
        &[
            ("s", "alphasecret"),
            ("t", "tangosecret"),
            ("s", "alphasecret"),
        ],
    );
    until("the index has it", || {
        found(&ledger, "alphasecret") == Some(2)
    });
    let erase = |session: &str| json!({"session": session, "namespace": "agents", "reason": "a person asked"});
    for (token, body, expected) in [
        ("stranger", erase("s"), (403, "forbidden")),
        (
            "team",
            json!({"session": "s", "reason": "a person asked"}),
            (403, "forbidden"),
        ),
        (
            "team",
            json!({"session": "s", "namespace": "agents", "reason": " "}),
            (400, "malformed"),
        ),
        (
            "team",
            json!({"session": "s", "namespace": "agents"}),
            (400, "malformed"),
        ),
        ("team", erase("nobody"), (404, "not-found")),
    ] {
        let (status, answer) = call(&ledger, "POST", "/v1/erasures", token, &body);
        assert_eq!(
            (status, answer["code"].as_str().unwrap()),
            expected,
            "{body} {answer}"
        );
    }
    for bad in [
        json!({"name": "x", "reason": "r"}),
        json!({"name": "x", "reason": "r", "everything": true, "namespace": "agents"}),
        json!({"name": "x", "reason": "r", "pod": "one"}),
        json!({"name": "X y", "reason": "r", "everything": true}),
        json!({"name": "x", "reason": "r", "stream": "one"}),
        json!({"name": "x", "reason": "r", "everything": true, "from": "now"}),
        json!({"name": "x", "reason": "r", "everything": true, "since": "2026-01-01T00:00:00Z"}),
    ] {
        let (status, answer) = call(&ledger, "POST", "/v1/holds", "reader", &bad);
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("malformed")),
            "{bad} {answer}"
        );
    }
    let hold = json!({"name": "pod", "reason": "a case", "namespace": "agents", "pod": "one"});
    assert_eq!(call(&ledger, "POST", "/v1/holds", "reader", &hold).0, 201);
    let (status, body) = call(&ledger, "POST", "/v1/erasures", "team", &erase("s"));
    let message = body["message"].as_str().unwrap();
    assert_eq!((status, &body["code"]), (409, &json!("held")));
    assert!(
        message.contains("\"pod\"") && message.contains("a case"),
        "{message}"
    );
    assert_eq!(
        call(
            &ledger,
            "DELETE",
            "/v1/holds/pod",
            "reader",
            &json!({"reason": "done"})
        )
        .0,
        200
    );
    let (status, body) = call(&ledger, "POST", "/v1/erasures", "team", &erase("s"));
    assert_eq!((status, &body["keys"]), (200, &json!(1)), "{body}");
    // At once: nobody is told of it any more, whoever asks.
    let (_, text) = ledger.curl(&format!("/v1/records/{}/1", stream(1)), "reader", &[]);
    assert!(!text.contains("alphasecret"), "{text}");
    until("it is forgotten", || {
        found(&ledger, "alphasecret") == Some(0)
    });
    assert_eq!(found(&ledger, "tangosecret"), Some(1));
    until("the index knows nothing of it", || {
        ledger.metric("chaperone_ledger_index_forgetting") == 0.0
    });
    let folder = fs::read_dir(&kept.0.data).unwrap();
    for file in folder.map(|entry| entry.unwrap().path()) {
        let bytes = fs::read(&file).unwrap_or_default();
        let word = b"alphasecret";
        assert!(memchr::memmem::find(&bytes, word).is_none(), "{file:?}");
    }
    // The session goes on, under another key.
    send(&ledger, "pod-one", 1, &mut lines, &[("s", "aftersecret")]);
    until("what comes after is there", || {
        found(&ledger, "aftersecret") == Some(1)
    });
    ledger.stop();
    assert!(!kept.is_anywhere("alphasecret"));
    let verdict = kept.verdict();
    assert_eq!((verdict.contents.there, verdict.contents.gone), (2, 2));
    let erased = &kept.own("ledger.erased")[0]["erased"];
    assert_eq!(
        (&erased["user"], &erased["cause"]),
        (&json!("team"), &json!("request")),
        "{erased}"
    );
}

#[test]
fn records_are_deleted_when_their_time_is_over_and_the_log_is_whole() {
    let kept = Kept::new("records");
    let ledger = kept.start_ago(40);
    let (mut one, mut two) = (Lines::new(stream(1)), Lines::new(stream(2)));
    send(&ledger, "pod-one", 1, &mut one, &[("s", "alphasecret"); 10]);
    send(
        &ledger,
        "pod-two",
        2,
        &mut two,
        &[("u", "uniformsecret"); 10],
    );
    let hold = json!({"name": "two", "reason": "a case", "stream": stream(2).as_str()});
    assert_eq!(call(&ledger, "POST", "/v1/holds", "reader", &hold).0, 201);
    ledger.stop();
    kept.rules("default:\n  content: 10d\n  records: 30d\n");
    let ledger = kept.0.start();
    send(&ledger, "pod-one", 1, &mut one, &[("s", "freshsecret")]);
    until("records are deleted", || {
        ledger.metric("chaperone_ledger_deleted_records_total") == 11.0
    });
    until("they are forgotten", || !kept.is_anywhere("alphasecret"));
    // Sums too: what is left of the session is what came after.
    until("its sums are those of what is left", || {
        let (_, text) = ledger.curl("/v1/sessions/s?namespace=agents", "reader", &[]);
        let session: Value = serde_json::from_str(&text).unwrap();
        session["records"] == 1
    });
    until("the index is there", || {
        found(&ledger, "freshsecret") == Some(1)
    });
    let (status, body) = ledger.curl(&format!("/v1/records/{}/1", stream(1)), "reader", &[]);
    assert!(
        status == 410 && body.contains("was deleted"),
        "{status} {body}"
    );
    let (status, _) = ledger.curl(&format!("/v1/records/{}/1", stream(2)), "reader", &[]);
    assert_eq!(status, 200);
    // The chain goes on from what is left of it.
    send(&ledger, "pod-one", 1, &mut one, &[("s", "moresecret")]);
    ledger.stop();
    let verdict = kept.verdict();
    assert_eq!(verdict.streams.deleted(), 11);
    assert_eq!((verdict.contents.there, verdict.contents.gone), (12, 0));
    assert!(!kept.is_anywhere("alphasecret"));
    let ledger = kept.0.start();
    send(&ledger, "pod-one", 1, &mut one, &[("s", "lastsecret")]);
    ledger.stop();
    kept.verdict();
    let erased = kept.own("ledger.erased");
    let records = erased
        .iter()
        .find(|r| r["erased"]["what"] == "records")
        .unwrap();
    assert_eq!(records["erased"]["records"], 11);
}

#[test]
fn a_sweep_that_is_killed_again_and_again_comes_to_its_end() {
    let kept = Kept::new("swept");
    let mut one = Lines::new(stream(1));
    for days in [43, 42, 41, 40] {
        let ledger = kept.start_ago(days);
        for _ in 0..10 {
            send(&ledger, "pod-one", 1, &mut one, &[("s", "alphasecret"); 20]);
        }
        ledger.stop();
    }
    kept.rules("default:\n  content: 30d\n");
    for round in 0..6_u64 {
        let ledger = kept.0.start();
        thread::sleep(Duration::from_millis(40 * round));
        ledger.kill();
    }
    let ledger = kept.0.start();
    send(&ledger, "pod-one", 1, &mut one, &[("s", "freshsecret")]);
    until("a sweep ends", || {
        ledger.metric("chaperone_ledger_sweep_timestamp_seconds") > 0.0
    });
    until("the index is there", || {
        found(&ledger, "freshsecret") == Some(1)
    });
    assert_eq!(found(&ledger, "alphasecret"), Some(0));
    until("it is forgotten", || {
        !kept.is_anywhere("alphasecret") && !kept.is_anywhere("sealed/1 202610")
    });
    ledger.stop();
    let verdict = kept.verdict();
    assert_eq!((verdict.contents.there, verdict.contents.gone), (1, 800));
    for folder in ["records", "keys"] {
        let files = fs::read_dir(kept.0.data.join(folder)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = names.filter(|name| name.ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
