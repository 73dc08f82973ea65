use std::collections::BTreeSet;

use schemars::schema_for;
use serde_json::Value;

use super::*;
use crate::{
    bodies::{detached, is_detached},
    compile::RECORD,
    record::Record,
};

const GOLDEN: &str = include_str!("../../tests/golden/metadata.jsonl");
const BODIES: [&str; 2] = [
    include_str!("../../tests/golden/bodies.jsonl"),
    include_str!("../../tests/golden/v2/bodies.jsonl"),
];

/// The kinds of the golden records that pass.
fn passing(filter: &str) -> Vec<String> {
    let filter = Filter::compile(filter).unwrap_or_else(|e| panic!("{e}"));
    let lines = GOLDEN
        .lines()
        .filter(|line| match filter.passes(line.as_bytes()) {
            Passes::Yes => true,
            Passes::No => false,
            Passes::InDoubt(why) => panic!("{why}: {line}"),
        });
    let kind = |line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone();
    lines
        .map(|line| kind(line).as_str().unwrap().to_owned())
        .collect()
}

fn refused(filter: &str) -> String {
    Filter::compile(filter).unwrap_err().to_string()
}

#[test]
fn a_stream_keeps_its_frame_and_what_the_filter_asks_for() {
    let all = passing("true");
    let frame: Vec<_> = all
        .iter()
        .filter(|kind| kind.starts_with("stream.") || *kind == "config")
        .cloned()
        .collect();
    assert!(frame.len() >= 2 && frame.len() < all.len(), "{all:?}");
    assert_eq!(passing("false"), frame);
    let dns = passing("record.kind == \"dns\"");
    assert_eq!(dns.len(), frame.len() + 1);
    assert!(dns.contains(&"dns".to_owned()));
}

#[test]
fn what_a_record_lacks_reads_as_nothing_and_has_tells() {
    for nothing in [
        "record.ws.sentBytes > 0",
        "record.gap.reason == \"quic\" && record.ws.code == 1",
        "has(record.ws)",
        "has(record.decision.rule) && record.decision.rule == \"\"",
        "\"x\" in record.http.requestHeaders",
        "record.dns.withheld.exists(a, a == \"10.0.0.1\")",
        "record.masked.exists(m, m.mask == \"no such\")",
        "!record.http.complete && record.kind == \"dns\"",
        "record.open.identity.labels.size() > 0 && record.kind == \"http\"",
    ] {
        assert_eq!(passing(nothing), passing("false"), "{nothing}");
    }
    assert_eq!(
        passing("has(record.http)"),
        passing("record.kind == \"http\"")
    );
    assert_eq!(
        passing("record.operation.resource.matches(\"^.*$\")"),
        passing("true")
    );
}

#[test]
fn a_body_and_a_header_can_be_asked_for() {
    let filter = "record.http.requestHeaders[\"accept\"] == \"*/*\" && record.http.requestBody.text.contains(\"[masked:email]\")";
    let filter = Filter::compile(filter).unwrap();
    for bodies in BODIES {
        let passed = |line: &&str| filter.passes(line.as_bytes()) == Passes::Yes;
        assert_eq!(
            bodies.lines().filter(passed).count(),
            bodies.lines().count()
        );
        // Where content was deleted there is none to be asked for.
        let gone = bodies
            .lines()
            .map(|line| detached(line.as_bytes()))
            .find(|line| is_detached(line));
        assert!(gone.is_none_or(|line| filter.passes(&line) == Passes::No));
    }
}

#[test]
fn a_doubt_delivers_and_is_told_without_values() {
    let filter = Filter::compile("record.http.requestHeaders[\"x-none\"] == \"1\"").unwrap();
    let Some(line) = GOLDEN
        .lines()
        .find(|line| line.contains("\"kind\":\"http\""))
    else {
        panic!("no golden record of kind http");
    };
    let Passes::InDoubt(why) = filter.passes(line.as_bytes()) else {
        panic!("it has an answer");
    };
    assert!(why.contains("x-none") && why.contains("has()"), "{why}");
    assert!(matches!(filter.passes(b"no record"), Passes::InDoubt(_)));
    let costly = "record.http.requestBody.text.matches(\"(a|b|ab)*c\") && record.masked.exists(a, record.masked.exists(b, a.mask != b.mask))";
    assert_eq!(
        Filter::compile(costly).unwrap().passes(line.as_bytes()),
        Passes::No
    );
}

#[test]
fn a_wrong_filter_is_refused_with_its_place_and_what_to_do() {
    for (filter, part) in [
        (
            "record.decison.action == \"Deny\"",
            "did you mean record.decision?",
        ),
        (
            "record.decision.acton == \"Deny\"",
            "did you mean record.decision.action?",
        ),
        ("decision.action == \"Deny\"", "record.decision"),
        ("http.method == \"GET\"", "record.http"),
        ("record.http == 1", "read one of its fields"),
        ("record.http.status == \"200\"", "an int"),
        ("record.kind", "must yield true or false"),
        ("record.kind ==", "line 1"),
        ("", "the filter is empty; leave it out"),
        (
            "record.masked.all(a, record.masked.all(b, record.masked.all(c, true)))",
            "loops may be nested",
        ),
        ("record.destination.ip.matches(\"(\")", "line 1"),
    ] {
        let error = refused(filter);
        assert!(error.starts_with("spec.filter, line 1, column"), "{error}");
        assert!(error.contains(part), "{filter}: {error}");
    }
    assert!(refused(&format!("record.kind == \"{}\"", "a".repeat(3000))).contains("bytes"));
    assert_eq!(
        refused("record.decision.acton == \"Deny\"").lines().nth(2),
        Some("                  ^")
    );
}

#[test]
fn heartbeats_are_the_filters_to_judge() {
    let beat = r#"{"kind":"stream.heartbeat"}"#.as_bytes();
    let passes = |filter: &str| Filter::compile(filter).unwrap().passes(beat);
    assert_eq!(passes("record.kind == \"http\""), Passes::No);
    assert_eq!(passes("record.kind.startsWith(\"stream\")"), Passes::Yes);
}

#[test]
fn filters_know_every_part_of_the_record() {
    let schema = schema_for!(Record).to_value();
    let mut expected = BTreeSet::new();
    paths(&schema, &schema, "record", &mut expected);
    let known = RECORD.iter().flat_map(|part| {
        let path = |field: &crate::compile::Field| format!("{}.{}", part.name, field.name);
        part.fields.iter().map(path)
    });
    assert_eq!(known.collect::<BTreeSet<_>>(), expected);
}

fn paths(root: &Value, part: &Value, at: &str, into: &mut BTreeSet<String>) {
    for (name, field) in part["properties"].as_object().unwrap() {
        let path = format!("{at}.{name}");
        // Its texts are where they belong.
        if path == "record.bodies" {
            continue;
        }
        let reference = field["$ref"]
            .as_str()
            .or(field["anyOf"][0]["$ref"].as_str());
        let of = reference.map(|r| &root["$defs"][r.rsplit('/').next().unwrap()]);
        if let Some(of) = of
            && of["properties"].is_object()
        {
            paths(root, of, &path, into);
        }
        into.insert(path);
    }
}
