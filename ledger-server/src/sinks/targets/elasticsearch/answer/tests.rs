//! What is believed of an answer, and what not.

use serde_json::{Value, json};

use super::*;

fn item(status: u16, kind: &str) -> Value {
    match kind {
        "" => json!({"create": {"status": status}}),
        kind => json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}}),
    }
}

fn said(items: &[Value]) -> Result<Answer, Failure> {
    let body = json!({"items": items}).to_string();
    read(Some(body.as_bytes()), items.len())
}

#[test]
fn each_record_has_the_fate_that_the_answer_gives_it() {
    let answer = said(&[
        item(201, ""),
        item(409, "version_conflict_engine_exception"),
        item(429, "rejected_execution_exception"),
        item(400, "mapper_parsing_exception"),
        item(503, "unavailable_shards_exception"),
        item(403, "cluster_block_exception"),
    ])
    .unwrap();
    assert_eq!(answer.again, [2, 4, 5]);
    let refused = [(3, "400: mapper_parsing_exception: why".to_owned())];
    assert_eq!(answer.refused, refused);
}

#[test]
fn an_index_that_takes_none_has_failed_and_says_why() {
    for (status, kind, then, reason) in [
        (404, "index_not_found_exception", Then::Rarely, "settings"),
        (400, "index_closed_exception", Then::Rarely, "settings"),
        (403, "security_exception", Then::Rarely, "unauthorized"),
        (429, "cluster_block_exception", Then::Soon, "throttled"),
        (
            503,
            "unavailable_shards_exception",
            Then::Soon,
            "server-error",
        ),
        (302, "", Then::Soon, "server-error"),
    ] {
        let failure = said(&[item(status, kind), item(status, kind)]).unwrap_err();
        assert_eq!((failure.then, failure.reason), (then, reason), "{kind}");
    }
}

#[test]
fn an_answer_of_something_else_says_nothing() {
    for body in [
        &b""[..],
        b"{}",
        b"<html>",
        b"{\"items\":[]}",
        b"{\"items\":[{\"index\":{\"status\":201}}]}",
        b"{\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"status\":201}}]}",
        b"{\"items\":[{\"create\":{\"status\":\"201\"}}]}",
    ] {
        let failure = read(Some(body), 1).unwrap_err();
        assert_eq!((failure.then, failure.reason), (Then::Rarely, "protocol"));
    }
    // A record alone is not given up for an answer that nobody could read.
    assert_eq!(read(None, 1).unwrap_err().then, Then::Rarely);
    assert_eq!(read(None, 2).unwrap_err().then, Then::Fewer);
}

#[test]
fn values_of_a_record_are_not_repeated() {
    let reason = "failed to parse field [a] of type [long] in document with id 'x'. Preview of field's value: 'hunter2'";
    let item = json!({"create": {"status": 400, "error": {"type": "t", "reason": reason}}});
    let answer = said(&[item]).unwrap();
    assert!(answer.refused[0].1.ends_with("'x'."), "{answer:?}");
}
