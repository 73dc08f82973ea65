use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    record::{
        AgentRef, Bodies, BodyInfo, Content, DestinationInfo, Event, EventKind, HttpInfo,
        OperationInfo,
    },
    verify::{Start, verify},
};

const GOLDEN: [&str; 4] = [
    include_str!("../../tests/golden/metadata.jsonl"),
    include_str!("../../tests/golden/bodies.jsonl"),
    include_str!("../../tests/golden/v2/bodies.jsonl"),
    include_str!("../../tests/golden/begun.jsonl"),
];

fn record(resource: &str, host: &str, agent: &str) -> (Record, String) {
    let agent = AgentRef {
        namespace: agent.to_owned(),
        pod: agent.to_owned(),
        service_account: agent.to_owned(),
    };
    let mut event = Event::new(EventKind::Http, agent);
    event.operation = Some(OperationInfo {
        protocol: "http".to_owned(),
        verb: host.to_owned(),
        resource: resource.to_owned(),
    });
    event.destination = Some(DestinationInfo {
        host: Some(host.to_owned()),
        ip: resource.to_owned(),
        proxy: Some(host.to_owned()),
        ..DestinationInfo::default()
    });
    event.http = Some(HttpInfo {
        status: Some(200),
        request_bytes: u64::MAX,
        ..HttpInfo::default()
    });
    let record = Record {
        v: "chaperone.dev/v2".to_owned(),
        stream: "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned(),
        seq: 3,
        prev: "0".repeat(64),
        time: resource.to_owned(),
        event,
        bodies_sha256: None,
        bodies: None,
    };
    let line = serde_json::to_string(&record).unwrap();
    (record, line)
}

/// The line that a rendering holds, as `docs/sinks.md` says to take it out.
fn line_within(format: Format, rendered: &str) -> String {
    let verbatim = |mark: &str| {
        let (_, rest) = rendered.split_once(mark).unwrap();
        rest.strip_suffix('}').unwrap().to_owned()
    };
    match format {
        Format::Native => rendered.to_owned(),
        Format::CloudEvents => verbatim(",\"data\":"),
        Format::Ecs => verbatim(",\"chaperone\":"),
        Format::Ocsf => {
            let event: Value = serde_json::from_str(rendered).unwrap();
            event["raw_data"].as_str().unwrap().to_owned()
        }
    }
}

#[test]
fn a_stream_is_proved_from_what_any_format_holds() {
    for golden in GOLDEN {
        for format in Format::ALL {
            let rendered = render_lines(format, golden.as_bytes()).unwrap();
            let rendered = String::from_utf8(rendered).unwrap();
            let lines = rendered
                .lines()
                .map(|line| line_within(format, line) + "\n");
            let lines: String = lines.collect();
            assert_eq!(lines, golden, "{format}");
            assert!(verify(lines.as_bytes(), Start::Open).unwrap().is_intact());
        }
    }
}

#[test]
fn a_line_that_is_no_record_is_told_and_passes_as_it_is() {
    let foreign = b"{\"v\":\"chaperone.dev/v2\",\"kind\":\"dream\"}\n";
    assert_eq!(render_lines(Format::Native, foreign).unwrap(), foreign);
    for format in [Format::CloudEvents, Format::Ocsf, Format::Ecs] {
        let error = render_lines(format, foreign).unwrap_err().to_string();
        assert!(error.contains(&format.to_string()), "{error}");
    }
}

#[test]
fn an_attribute_of_a_cloud_event_has_no_character_that_none_may_have() {
    let (record, line) = record("https://a/\u{7}\u{85}\u{ffff}\u{fdd0}x", "h", "a b/c");
    let event: Value = serde_json::from_str(&render(Format::CloudEvents, &record, &line)).unwrap();
    assert_eq!(
        event["subject"],
        "https://a/\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"
    );
    assert_eq!(
        event["source"],
        "/apis/v1/namespaces/a%20b%2Fc/pods/a%20b%2Fc"
    );
    assert_eq!(event["time"], Value::Null);
}

#[test]
fn a_url_is_taken_apart_as_it_is_written() {
    let cases = [
        (
            "https://a.example/p?q=1#f",
            Some(("https", "a.example", None, "/p", Some("q=1"))),
        ),
        (
            "http://[2001:db8::1]:8080/x",
            Some(("http", "2001:db8::1", Some(8080), "/x", None)),
        ),
        (
            "http://[2001:db8::1]/x",
            Some(("http", "2001:db8::1", None, "/x", None)),
        ),
        ("wss://u:p@h:443", Some(("wss", "h", Some(443), "", None))),
        ("https://h:99999/", Some(("https", "h", None, "/", None))),
        ("https://h?x", Some(("https", "h", None, "", Some("x")))),
        ("h:443", None),
        ("://h", None),
        ("https://", None),
    ];
    for (text, expected) in cases {
        let url = parts::Url::split(text);
        let parts = url.map(|u| (u.scheme, u.host, u.port, u.path, u.query));
        assert_eq!(parts, expected, "{text}");
    }
}

#[test]
fn the_longest_record_keeps_within_the_bound() {
    let (mut record, _) = record("https://h/", "h", "a");
    record.event.http.as_mut().unwrap().request_body = Some(BodyInfo::default());
    record.bodies_sha256 = Some("0".repeat(64));
    record.bodies = Some(Bodies {
        salt: "0".repeat(32),
        request: Some(Content {
            text: "\"".repeat(MAX_RECORD_BYTES / 2 - 1024),
        }),
        ..Bodies::default()
    });
    let line = serde_json::to_string(&record).unwrap();
    let record = Record::read(line.as_bytes()).unwrap();
    assert!(line.len() > MAX_RECORD_BYTES - 4096 && line.len() <= MAX_RECORD_BYTES);
    for format in Format::ALL {
        let length = render(format, &record, &line).len();
        assert!(length <= MAX_RENDERED_BYTES, "{format}: {length}");
    }
}

proptest! {
    /// Whatever stands in a record's texts: one line of JSON, that begins as its format does and holds the record.
    #[test]
    fn any_record_renders(resource in ".*", host in ".*", agent in ".*") {
        let (record, line) = record(&resource, &host, &agent);
        for format in Format::ALL {
            let rendered = render(format, &record, &line);
            prop_assert!(rendered.starts_with(beginning(format)));
            prop_assert!(!rendered.contains('\n'));
            serde_json::from_str::<Value>(&rendered).unwrap();
            prop_assert_eq!(line_within(format, &rendered), line.clone());
        }
    }
}
