//! `chaperone replay`.

use chaperone_crds::bodies::Salt;

use super::*;

/// One session of an agent, with what came before it, as records of one stream.
pub(super) fn session_log() -> Vec<u8> {
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
        chain.append(&event, time, || Some(Salt::from_random([7; 16])), &mut log);
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

#[test]
fn replay_shows_the_turns_of_a_conversation_that_is_longer_than_what_records_keep() {
    let agent = r#""agent":{"namespace":"agents","pod":"claude"}"#;
    let turn = |newest: &str, cut: bool| {
        let http = serde_json::json!({"status": 200, "requestBytes": 2_000_000, "requestBody": {"text": "{\"messages\":[{\"role\":\"user\",\"content\":\"Old", "truncated": true},
            "newestMessages": {"text": newest, "at": 1_900_000, "truncated": cut}});
        format!(
            r#"{{"kind":"http",{agent},"operation":{{"protocol":"http","verb":"POST","resource":"https://api.anthropic.com/v1/messages"}},"http":{http},"session":{{"id":"s1"}}}}"#
        )
    };
    let events = [
        format!(
            r#"{{"kind":"stream.open",{agent},"open":{{"identity":{{"namespace":"agents","pod":"claude","uid":"u","serviceAccount":"a","node":"n"}},"version":"0.1.0"}}}}"#
        ),
        turn(r#"{"role":"user","content":"Tidy up."}"#, false),
        turn(
            r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"a.txt\nb.t"#,
            true,
        ),
    ];
    let stream = StreamId::from_random([9; 16]);
    let mut chain = Chain::new(stream.clone());
    let mut log = Vec::new();
    for event in &events {
        let event: Event = serde_json::from_str(event).unwrap();
        let time: jiff::Timestamp = "2026-11-24T10:11:12.345678Z".parse().unwrap();
        chain.append(&event, time, || Some(Salt::from_random([7; 16])), &mut log);
    }
    let folder = std::env::temp_dir().join(format!("chaperone-long-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    ledger_of(&folder, &stream, &log);
    let dir = folder.join("ledger");
    let replay = |more: &[&str]| {
        let fixed = ["replay", "--dir", dir.to_str().unwrap(), "s1"];
        let output = chaperone(&[&fixed[..], more].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let plain = replay(&[]);
    let said: Vec<_> = plain
        .lines()
        .filter(|line| line.starts_with("      "))
        .map(str::trim)
        .collect();
    let expected = [
        "prompt    Tidy up.",
        "result    a.txt b.t (the record has no more)",
    ];
    assert_eq!(said, expected, "{plain}");
    let json = replay(&["-o", "json"]);
    assert_eq!(
        json.matches("\"http.newestMessages\":{\"text\":").count(),
        2
    );
    // Words of what is new are found.
    assert_eq!(replay(&["tidy"]).matches("prompt").count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}
