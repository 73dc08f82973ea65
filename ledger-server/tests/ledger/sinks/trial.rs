//! A sink tried by one marked record.

use super::{
    http::{endpoint, sink},
    *,
};

#[test]
fn a_marked_record_reaches_a_sink_by_its_settings_and_what_happened_is_the_answer() {
    let mut feed = Feed::new("sinks-trial");
    let (taken, address) = endpoint();
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    feed.world.set_secret("c", "token", "t0ken");
    let sinks = [
        sink("siem", address, "  format: CloudEvents\n"),
        sink("away", closed, ""),
        sink("bad", address, "").replace("name: c,", "name: gone,"),
    ];
    feed.world.set_sinks(&sinks.concat());
    feed.start();
    feed.grow(10);
    feed.drained("siem");
    let before = taken.lines().len();
    let outcome = feed.test("siem");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    assert!(outcome["milliseconds"].as_u64() < Some(10_000), "{outcome}");
    let mut lines = taken.lines();
    let event: serde_json::Value = serde_json::from_str(&lines.split_off(before)[0]).unwrap();
    let event = &event[0];
    let record = &event["data"];
    assert_eq!(event["type"], "dev.chaperone.ledger.read", "{event}");
    assert_eq!(record["stream"], outcome["stream"]);
    assert_eq!(
        (&record["read"]["what"], &record["read"]["user"]),
        (&"sink.test".into(), &"reader".into())
    );
    // The delivery went on: who asked is in the log, and the marked record is not.
    feed.drained("siem");
    let records = feed.records();
    assert!(
        records
            .iter()
            .any(|line| line.contains("\"what\":\"sink.test\"")
                && line.contains("\"sink\":\"siem\""))
    );
    let stream = outcome["stream"].as_str().unwrap();
    assert!(records.iter().all(|line| !line.contains(stream)));

    let outcome = feed.test("away");
    assert_eq!(
        (&outcome["acknowledged"], &outcome["reason"]),
        (&false.into(), &"connect".into()),
        "{outcome}"
    );
    let outcome = feed.test("bad");
    assert_eq!(outcome["reason"], "settings", "{outcome}");
    assert!(
        outcome["message"].as_str().unwrap().contains("Secret gone"),
        "{outcome}"
    );
    for (sink, user, status) in [
        ("siem", "stranger", 403),
        ("siem", "", 401),
        ("nowhere", "reader", 404),
        ("..", "reader", 400),
        ("A", "reader", 400),
    ] {
        let path = format!("/v1/sinks/{sink}/test");
        let (found, body) = feed.ledger().curl(&path, user, &["-X", "POST"]);
        assert_eq!(found, status, "{sink} {user}: {body}");
    }
    let (status, _) = feed.ledger().curl("/v1/sinks/siem/test", "reader", &[]);
    assert_eq!(status, 405, "a question alone sends nothing");
    let metrics = feed.ledger().metrics();
    assert!(
        metrics
            .contains("chaperone_ledger_requests_total{code=\"forbidden\",route=\"sink-test\"} 1")
    );
}
