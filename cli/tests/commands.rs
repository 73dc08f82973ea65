//! The binary as scripts see it: exit codes, standard output and standard error.

#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use chaperone_crds::{
    chain::{Chain, StreamId},
    record::{AgentRef, Event, EventKind},
};
use chaperone_ledger::{
    cosignature::Time,
    key::{Algorithm, SigningKey},
    store::{Config, Store},
};

/// A whole stream: open, two connections, close.
fn log() -> Vec<u8> {
    let agent = AgentRef {
        namespace: "agents".to_owned(),
        pod: "claude".to_owned(),
        service_account: String::new(),
    };
    let mut chain = Chain::new(StreamId::from_random([7; 16]));
    let mut log = Vec::new();
    let mut close = Event::new(EventKind::StreamClose, agent.clone());
    close.close = serde_json::from_str(r#"{"records":4,"reason":"terminated"}"#).unwrap();
    for event in [
        Event::new(EventKind::StreamOpen, agent.clone()),
        Event::new(EventKind::Connection, agent.clone()),
        Event::new(EventKind::Connection, agent),
        close,
    ] {
        chain.append(
            &event,
            "2026-11-24T10:11:12.345678Z".parse().unwrap(),
            &mut log,
        );
    }
    log
}

fn chaperone(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chaperone"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A program that ends before it has read everything is no failure of the test.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn verify_answers_0_for_an_intact_log() {
    let output = chaperone(&["verify", "-"], &log());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("intact"));
}

#[test]
fn verify_answers_1_and_names_the_first_bad_record() {
    let whole = log();
    let altered = text(&whole)
        .replacen("claude", "cloude", 2)
        .replacen("cloude", "claude", 1);
    let output = chaperone(&["verify", "-"], altered.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout).contains("FIRST BAD RECORD 1"),
        "{}",
        text(&output.stdout)
    );

    let output = chaperone(&["verify", "-o", "json", "-"], altered.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], false);
    assert_eq!(verdict["streams"][0]["firstBadSeq"], 1);
}

#[test]
fn verify_reads_rotated_files_as_one_log() {
    let folder = std::env::temp_dir().join(format!("chaperone-verify-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = log();
    let cut = text(&whole).match_indices('\n').nth(1).unwrap().0;
    let (first, second) = (folder.join("1.jsonl"), folder.join("2.jsonl"));
    // The first file lacks its last newline.
    std::fs::write(&first, &whole[..cut]).unwrap();
    std::fs::write(&second, &whole[cut + 1..]).unwrap();
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());

    let code = |arguments: &[&str]| chaperone(arguments, b"").status.code();
    assert_eq!(code(&["verify", first, second]), Some(0));
    assert_eq!(code(&["verify", second]), Some(1));
    assert_eq!(code(&["verify", "--part", second]), Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A ledger with one stream and two checkpoints, and its public key.
fn ledger(folder: &std::path::Path) -> String {
    ledger_of(folder, &StreamId::from_random([7; 16]), &log())
}

/// A ledger that has this stream, taken in twos with a checkpoint after each, and its public key.
fn ledger_of(folder: &std::path::Path, stream: &StreamId, whole: &[u8]) -> String {
    let origin = "ledger.example/prod";
    let key = SigningKey::generate(origin.parse().unwrap(), Algorithm::Ed25519).unwrap();
    let mut store = Store::open(Config {
        dir: folder.join("ledger"),
        origin: origin.parse().unwrap(),
        keys: vec![key.verifier().clone()],
        segment_bytes: 4096,
        checkpoint_seconds: 60,
    })
    .unwrap();
    let lines: Vec<_> = whole.split_inclusive(|b| *b == b'\n').collect();
    for (half, name) in lines.chunks(2).zip(["first", "second", "third"]) {
        let _ = store.stage(stream, &half.concat()).unwrap();
        let note = store.checkpoint(&[&key], Time::new(1).unwrap()).unwrap();
        std::fs::write(folder.join(name), note).unwrap();
    }
    key.verifier().to_string()
}

#[test]
fn verify_proves_a_ledger_with_its_key_and_checkpoints_kept_elsewhere() {
    let folder = std::env::temp_dir().join(format!("chaperone-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = ledger(&folder);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ledger, first, keys) = (path("ledger"), path("first"), path("keys"));
    std::fs::write(&keys, format!("{key}\n\n")).unwrap();

    let output = chaperone(&["verify", &ledger, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("signed by ledger.example/prod"), "{said}");
    assert!(
        said.ends_with("4 records in 1 streams, 0 after the checkpoint: intact\n"),
        "{said}"
    );
    let with_first = [
        "verify",
        "-o",
        "json",
        &ledger,
        "--key",
        &keys,
        "--checkpoint",
        &first,
    ];
    let output = chaperone(&with_first, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], true);
    assert_eq!(verdict["comparedWith"], serde_json::json!([2]));
    assert_eq!(verdict["checkpoint"]["size"], 4);
    assert_eq!(verdict["log"]["streams"][0]["closed"], true);

    // A byte of a record that no other record vouches for.
    let segment = folder.join("ledger/records/00000000.jsonl");
    let records = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, records.replace("terminated", "Terminated")).unwrap();
    let output = chaperone(&["verify", &ledger, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("as leaf 3 than record 3 of stream"), "{said}");

    for (arguments, words) in [
        (&["verify", &ledger][..], "give the ledger's public key"),
        (&["verify", &ledger, "--part"], "--part is for files"),
        (&["verify", &ledger, "--key", "nonsense"], "neither a key"),
        (&["verify", &keys, &ledger], "verified alone"),
        (&["verify", &keys, "--key", &key], "for one directory"),
        (
            &["verify", folder.to_str().unwrap(), "--key", &key],
            "neither a ledger",
        ),
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_export_takes_out_of_a_ledger_is_proved_with_the_key_alone() {
    let folder = std::env::temp_dir().join(format!("chaperone-export-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = ledger(&folder);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ledger, into) = (path("ledger"), path("evidence"));
    let stream = StreamId::from_random([7; 16]).to_string();
    let export = [
        "export", &ledger, "--key", &key, "--stream", &stream, "--into", &into,
    ];
    let output = chaperone(&export, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("4 records in "), "{said}");
    std::fs::remove_dir_all(&ledger).unwrap();

    let output = chaperone(&["verify", &into, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = chaperone(&["verify", "-o", "json", &into, "--key", &key], b"");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["intact"], true);
    assert_eq!(verdict["subject"]["stream"], stream);
    assert_eq!(verdict["streams"][0]["records"], 4);
    let records = folder.join("evidence/records.jsonl");
    let altered = std::fs::read_to_string(&records)
        .unwrap()
        .replace("terminated", "Terminated");
    std::fs::write(&records, altered).unwrap();
    let output = chaperone(&["verify", &into, "--key", &key], b"");
    assert_eq!(output.status.code(), Some(1));

    for (arguments, words) in [
        (&export[..], "nothing is exported"),
        (&["verify", &into], "give the ledger's public key"),
        (
            &[
                "verify",
                &into,
                "--key",
                &key,
                "--checkpoint",
                &path("first"),
            ],
            "for a ledger",
        ),
        (
            &["export", &ledger, "--key", &key, "--into", &into],
            "--session",
        ),
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_read_or_understood_answers_2() {
    for arguments in [
        &["verify", "/nowhere/audit.jsonl"][..],
        &["verify", "/"],
        &["verify"],
        &["observe", "--file", "/nowhere/audit.jsonl"],
        &["policy", "check", "/nowhere/policy.yaml"],
        &["observe", "--since", "yesterday"],
        &["frobnicate"],
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("error: "), "{arguments:?}");
    }
}

#[test]
fn observe_shows_a_log_from_standard_input() {
    let mut mixed = b"starting\n".to_vec();
    mixed.extend(log());
    let output = chaperone(&["observe", "--file", "-", "--kind", "stream"], &mixed);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    // Not a terminal: no colours.
    assert!(
        lines
            .iter()
            .all(|l| l.starts_with("10:11:12.345 agents/claude "))
    );
    assert!(text(&output.stderr).contains("skipped 1 lines"));
}

#[test]
fn observed_json_can_be_verified() {
    let output = chaperone(&["observe", "--file", "-", "-o", "json"], &log());
    assert_eq!(output.stdout, log());
}

#[test]
fn policy_check_answers_as_the_webhook_would() {
    let policy = |when: &str| {
        format!(
            "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\n\
             spec: {{rules: [{{name: r, when: '{when}', action: Deny}}]}}\n"
        )
    };
    let good = chaperone(
        &["policy", "check", "-"],
        policy("http.method == \"DELETE\"").as_bytes(),
    );
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    let bad = chaperone(
        &["policy", "check", "-o", "json", "-"],
        policy("http.metod == \"DELETE\"").as_bytes(),
    );
    assert_eq!(bad.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(verdict["accepted"], false);
    assert_eq!(verdict["files"][0]["errors"][0]["rule"], "r");
    assert_eq!(verdict["files"][0]["errors"][0]["line"], 1);
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = chaperone(&["completions", shell], b"");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("observe"), "{shell}");
    }
}

#[test]
fn version_is_the_packages() {
    let output = chaperone(&["--version"], b"");
    assert_eq!(
        text(&output.stdout),
        format!("chaperone {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn search_finds_records_of_a_ledgers_directory_and_says_among_how_many() {
    let folder = std::env::temp_dir().join(format!("chaperone-search-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    ledger(&folder);
    let dir = folder.join("ledger");
    let before = std::fs::read_dir(&dir).unwrap().count();
    let dir = dir.to_str().unwrap();
    let search = |arguments: &[&str]| {
        let fixed = ["search", "--dir", dir];
        chaperone(&[&fixed[..], arguments].concat(), b"")
    };
    let all = search(&["--all", "-o", "json", "--order", "asc"]);
    assert_eq!(all.status.code(), Some(0), "{}", text(&all.stderr));
    let lines = text(&all.stdout).lines().count();
    assert!(lines > 2, "{lines}");
    let said = format!("{lines} records, among the first {lines} of {lines}");
    assert!(text(&all.stderr).contains(&said), "{}", text(&all.stderr));
    // What comes out is what went in.
    let verdict = chaperone(&["verify", "-"], &all.stdout);
    assert_eq!(verdict.status.code(), Some(0), "{}", text(&verdict.stdout));

    let some = search(&["--limit", "2", "--kind", "stream.open", "-o", "wide"]);
    assert_eq!(some.status.code(), Some(0));
    assert!(
        text(&some.stdout).starts_with("0 "),
        "{}",
        text(&some.stdout)
    );
    let none = search(&["no such word"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains(&format!("0 records, among the first {lines} of {lines}")));
    let wrong = search(&["--decision", "deny"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("decision is one of Allow, Deny, WouldDeny"));
    let elsewhere = chaperone(&["search", "--dir", folder.to_str().unwrap()], b"");
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(text(&elsewhere.stderr).contains("is no ledger's directory"));

    // An index that is kept is used again, and the directory is only read.
    let index = folder.join("kept");
    for _ in 0..2 {
        let kept = search(&[
            "--index",
            index.to_str().unwrap(),
            "--all",
            "-o",
            "json",
            "--order",
            "asc",
        ]);
        assert_eq!(kept.stdout, all.stdout);
    }
    assert!(index.exists());
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), before);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Answers each request with the next of these, and gives back the requests' heads.
fn https(
    answers: &[&str],
    folder: &std::path::Path,
) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.crt"), made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let served = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut session = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
        let mut tls = rustls::Stream::new(&mut session, &mut tcp);
        let mut heads = Vec::new();
        for answer in answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                std::io::Read::read_exact(&mut tls, &mut byte).unwrap();
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).unwrap());
            tls.write_all(answer.as_bytes()).unwrap();
        }
        heads
    });
    (port, served)
}

#[test]
fn search_asks_a_ledger_again_while_it_is_busy_and_page_after_page() {
    let folder =
        std::env::temp_dir().join(format!("chaperone-search-https-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let page = |cursor: &str, leaf: u64| {
        let body = format!("{{\"leaf\":{leaf},\"record\":{{\"n\":{leaf}}}}}\n");
        format!(
            "HTTP/1.1 200 OK\r\nchaperone-indexed: 7\r\nchaperone-committed: 9\r\n{cursor}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 33\r\n\r\n{\"code\":\"busy\",\"message\":\"later\"}";
    let busy = busy.replace(
        "33",
        &busy.split_once("\r\n\r\n").unwrap().1.len().to_string(),
    );
    let answers = [busy, page("chaperone-cursor: 1.3.7\r\n", 5), page("", 2)];
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let (port, served) = https(&answers, &folder);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let output = chaperone(
        &[
            "search",
            "--ledger",
            &format!("https://localhost:{port}"),
            "--ca",
            &file("ca.crt"),
            "--token-file",
            &file("token"),
            "-n",
            "agents",
            "-o",
            "json",
            "a b",
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "{\"n\":5}\n{\"n\":2}\n");
    assert!(text(&output.stderr).contains("2 records, among the first 7 of 9"));
    let heads = served.join().unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.contains("authorization: Bearer secret\r\n"))
    );
    let first = "GET /v1/records?order=desc&namespace=agents&q=a%20b&limit=100 HTTP/1.1";
    assert!(heads[1].starts_with(first), "{}", heads[1]);
    assert!(heads[2].contains("&limit=99&cursor=1.3.7 "), "{}", heads[2]);

    let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 35\r\n\r\n{\"code\":\"forbidden\",\"message\":\"no\"}";
    let (port, served) = https(&[refused], &folder);
    let output = chaperone(
        &[
            "search",
            "--ledger",
            &format!("https://localhost:{port}"),
            "--ca",
            &file("ca.crt"),
            "--token-file",
            &file("token"),
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("the ledger answers 403: no"),
        "{}",
        text(&output.stderr)
    );
    served.join().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// One session of an agent, with what came before it, as records of one stream.
fn session_log() -> Vec<u8> {
    let agent = r#""agent":{"namespace":"agents","pod":"claude"}"#;
    let allow = r#""decision":{"action":"Allow","mode":"Enforce","revision":"0011223344556677","reason":"default"}"#;
    let model = |text: &str, answer: &str| {
        format!(
            r#"{{"kind":"http",{agent},"operation":{{"protocol":"http","verb":"POST","resource":"https://api.anthropic.com/v1/messages"}},{allow},
            "http":{{"status":200,"requestBody":{{"text":"{text}"}},"responseBody":{{"text":"{answer}"}}}},"session":{{"id":"s1"}}}}"#
        )
    };
    let events = [
        format!(
            r#"{{"kind":"stream.open",{agent},"open":{{"identity":{{"namespace":"agents","pod":"claude","uid":"u","serviceAccount":"a","node":"n"}},"version":"0.1.0"}}}}"#
        ),
        model("Tidy up for [EMAIL]", r"tool_use \u001b[2Jdelete"),
        format!(
            r#"{{"kind":"http",{agent},"operation":{{"protocol":"http","verb":"DELETE","resource":"https://api.example.com/users/1"}},"http":{{"status":403}},
            "decision":{{"action":"Deny","mode":"Enforce","policy":"agents/coding","rule":"no-delete","revision":"0011223344556677","reason":"rule","message":"Ask a human."}}}}"#
        ),
        format!(
            r#"{{"kind":"gap",{agent},"operation":{{"protocol":"tls","verb":"connect","resource":"pinned.example.com:443"}},"gap":{{"reason":"passthrough"}},{allow}}}"#
        ),
        model("tool_result: refused", "Done"),
    ];
    let mut chain = Chain::new(StreamId::from_random([9; 16]));
    let mut log = Vec::new();
    for (event, second) in events.iter().zip([0, 1, 2, 3, 63]) {
        let event: Event = serde_json::from_str(event).unwrap();
        let begin: jiff::Timestamp = "2026-11-24T10:11:12.345678Z".parse().unwrap();
        let time = begin + jiff::SignedDuration::from_secs(second);
        chain.append(&event, time, &mut log);
    }
    log
}

const REPLAYED: &str = "\
== before the first turn ==
  +0:00:00.000 10:11:12.345 agents/claude open       sidecar 0.1.0
== turn 1  +0:00:01.000 ==
  +0:00:01.000 10:11:13.345 agents/claude allow      POST https://api.anthropic.com/v1/messages  200 ↑0 ↓0
      request   Tidy up for [EMAIL]
      response  tool_use \\u{1b}[2Jdelete
! +0:00:02.000 10:11:14.345 agents/claude DENY       DELETE https://api.example.com/users/1  403 ↑0 ↓0  agents/coding no-delete: Ask a human.
? +0:00:03.000 10:11:15.345 agents/claude gap        tls pinned.example.com:443  passthrough
== turn 2  +0:01:03.000 ==
  +0:01:03.000 10:12:15.345 agents/claude allow      POST https://api.anthropic.com/v1/messages  200 ↑0 ↓0
      request   tool_result: refused
      response  Done
";

#[test]
fn replay_shows_a_session_turn_by_turn() {
    let folder = std::env::temp_dir().join(format!("chaperone-replay-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = session_log();
    ledger_of(&folder, &StreamId::from_random([9; 16]), &log);
    let dir = folder.join("ledger");
    let dir = dir.to_str().unwrap();
    let replay = |arguments: &[&str]| {
        let fixed = ["replay", "--dir", dir];
        chaperone(&[&fixed[..], arguments].concat(), b"")
    };
    let plain = replay(&["s1"]);
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain.stderr));
    assert_eq!(text(&plain.stdout), REPLAYED);
    let said = text(&plain.stderr);
    assert_eq!(said, "5 records in 2 turns, among the first 5 of 5\n");

    // The session of the stream is what came before; it is no session of its own.
    let json = replay(&["s1", "-o", "json", "-n", "agents", "--kind", "agent"]);
    let lines = text(&log)
        .lines()
        .zip([(0, 0), (1, 1), (2, 1), (3, 1), (63, 2)]);
    let expected: Vec<_> = lines
        .enumerate()
        .map(|(leaf, (line, (second, turn)))| {
            format!(
                "{{\"leaf\":{leaf},\"atUs\":{second}000000,\"turn\":{turn},\"record\":{line}}}\n"
            )
        })
        .collect();
    let expected = expected
        .concat()
        .replace("\"atUs\":0000000,", "\"atUs\":0,");
    assert_eq!(text(&json.stdout), expected);

    // A filter narrows what is shown and leaves the numbers of turns.
    let some = replay(&["s1", "--body-chars", "4", "tool_result"]);
    let headings = "== turn 2  +0:01:03.000 ==\n";
    assert!(
        text(&some.stdout).starts_with(headings),
        "{}",
        text(&some.stdout)
    );
    assert!(text(&some.stdout).contains("request   tool… (16 more characters)\n"));
    assert!(text(&some.stderr).starts_with("1 of 5 records in 2 turns"));
    let denied = replay(&["s1", "--decision", "Deny"]);
    assert_eq!(text(&denied.stdout).lines().count(), 2);

    // In time: 3 s at four times the speed, and of the minute after them no more than half a second.
    let begin = std::time::Instant::now();
    let timed = replay(&["s1", "--speed", "4", "--skip-idle", "500ms"]);
    let took = begin.elapsed().as_millis();
    assert_eq!(timed.stdout, plain.stdout);
    assert!(took >= 1_250, "{took} ms");

    for (arguments, code, said) in [
        (
            vec!["nobody"],
            2,
            "there is no such session among the 5 records",
        ),
        (
            vec!["s1", "--kind", "stream"],
            2,
            "there is no such session",
        ),
        (vec!["s1", "-n", "others"], 2, "there is no such session"),
        (vec!["s1", "--speed", "0"], 2, "not a number"),
        (vec!["s1", "--skip-idle", "1s"], 2, "--speed"),
        (
            vec!["s1", "--decision", "deny"],
            2,
            "Allow, Deny, WouldDeny",
        ),
        (vec![""], 2, "SESSION is empty"),
    ] {
        let output = replay(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn replay_asks_a_ledger_for_a_session_page_after_page() {
    let folder =
        std::env::temp_dir().join(format!("chaperone-replay-https-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let log = session_log();
    let lines: Vec<_> = text(&log).lines().collect();
    let page = |cursor: &str, lines: &[&str]| {
        let body: String = lines
            .iter()
            .map(|line| format!("{{\"leaf\":7,\"record\":{line}}}\n"))
            .collect();
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nchaperone-indexed: 7\r\nchaperone-committed: 9\r\n{cursor}content-length: {length}\r\n\r\n{body}"
        )
    };
    let answers = [
        page("chaperone-cursor: 1.3.7\r\n", &lines[..2]),
        page("", &lines[2..]),
    ];
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let (port, served) = https(&answers, &folder);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let url = format!("https://localhost:{port}");
    let (ca, token) = (file("ca.crt"), file("token"));
    let source = ["--ledger", &url, "--ca", &ca, "--token-file", &token];
    let session = ["replay", "a/b s1", "-n", "agents", "--kind", "agent"];
    let output = chaperone(&[&session[..], &source[..]].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), REPLAYED);
    let said = "5 records in 2 turns, among the first 7 of 9\n";
    assert_eq!(text(&output.stderr), said);
    let heads = served.join().unwrap();
    let asked = "GET /v1/sessions/a%2Fb%20s1/records?order=asc&limit=1000";
    let rest = "&namespace=agents&kind=agent HTTP/1.1";
    assert!(
        heads[0].starts_with(&format!("{asked}{rest}")),
        "{}",
        heads[0]
    );
    let second = format!("{asked}&cursor=1.3.7{rest}");
    assert!(heads[1].starts_with(&second), "{}", heads[1]);
    std::fs::remove_dir_all(&folder).unwrap();
}
