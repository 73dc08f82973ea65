//! What is said of a sink, and which Secrets are asked for.

use chaperone_sinks::settings::{Batch, Http, Target, Tls};

use super::*;

fn spec(yaml: serde_json::Value) -> AuditSinkSpec {
    serde_json::from_value(yaml).unwrap()
}

fn desired(sink: Result<(), &str>) -> Desired {
    let name = "s".to_owned();
    let sink = sink.map_err(|problem| vec![problem.to_owned()]);
    let settings = |()| Sink {
        name: name.clone(),
        format: Default::default(),
        filter: None,
        start: Default::default(),
        batch: Batch {
            records: 1,
            bytes: 1,
            wait: Duration::ZERO,
        },
        target: Target::Http(Http {
            url: String::new(),
            bearer: None,
            tls: Tls::default(),
        }),
    };
    Desired {
        sink: sink.map(settings),
        name: name.clone(),
    }
}

#[test]
fn only_secrets_that_sinks_of_the_ledger_name_are_asked_for() {
    let specs = [
        json!({"http": {"url": "https://a.example/", "bearerTokenSecret": {"name": "of-sidecars", "key": "t"}}}),
        json!({"from": "Ledger", "http": {"url": "https://a.example/", "bearerTokenSecret": {"name": "token", "key": "t"}}}),
        json!({"from": "Ledger", "http": {"url": "https://a.example/", "tlsSecret": {"name": "cert"}}}),
        json!({"stdout": {}}),
    ];
    let mut specs: Vec<_> = specs.map(|yaml| ("s".to_owned(), Ok(spec(yaml)))).into();
    specs.push(("s".to_owned(), Err("broken".to_owned())));
    let names: Vec<_> = named(&specs).into_iter().collect();
    assert_eq!(names, ["cert", "token"]);
}

#[test]
fn a_condition_says_what_is_true_and_changes_its_time_with_its_status_only() {
    let health = |failing: Option<&'static str>, sent: bool, refused| Health {
        failing: failing.map(|reason| Failing {
            reason,
            message: "why".to_owned(),
        }),
        sent: sent.then(Timestamp::now),
        refused,
    };
    let cases = [
        (
            Ok(()),
            Some(health(None, true, 0)),
            ("True", "Acknowledged", "its target acknowledges"),
        ),
        (
            Ok(()),
            Some(health(None, false, 0)),
            ("Unknown", "NothingSent", "nothing was sent"),
        ),
        (
            Ok(()),
            Some(health(Some("connect"), true, 0)),
            ("False", "Failing", "connect: why"),
        ),
        (
            Ok(()),
            Some(health(None, true, 3)),
            ("True", "Acknowledged", "some records were refused for good"),
        ),
        (Ok(()), None, ("Unknown", "NotBegun", "not begun")),
        (Err("no Secret"), None, ("False", "Invalid", "no Secret")),
        (
            Err("no Secret"),
            Some(health(None, true, 0)),
            ("False", "Invalid", "no Secret; it goes on"),
        ),
    ];
    for (sink, health, (status, reason, part)) in cases {
        let said = judge(&desired(sink), health.as_ref());
        assert_eq!((said.0, said.1), (status, reason));
        assert!(said.2.contains(part), "{said:?}");
    }
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let first = condition(
        ("True", "Acknowledged", "a".to_owned()),
        1,
        None,
        at("2026-11-29T10:00:00.5Z"),
    );
    let second = condition(
        ("True", "Acknowledged", "b".to_owned()),
        2,
        Some(&first),
        at("2026-11-29T11:00:00Z"),
    );
    assert_eq!(second.last_transition_time, first.last_transition_time);
    let third = condition(
        ("False", "Failing", "c".to_owned()),
        2,
        Some(&second),
        at("2026-11-29T12:00:00Z"),
    );
    assert_eq!(third.last_transition_time.0, at("2026-11-29T12:00:00Z"));
}
