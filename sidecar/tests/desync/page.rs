//! `docs/desync.md`, from the cases.

use std::{fmt::Write as _, path::Path};

use chaperone_sidecar::http1::parse_request;

use super::{Case, SMUGGLED, http2_cases};

const INTRODUCTION: &str = "# Requests that two servers could read in two ways

A checkpoint that reads a request in one way while the server behind it reads it in another is none. Each of these was sent through a sidecar, before an upstream that writes down
every byte and before Node's HTTP server with its lenient parser: one request reaches the upstream with one meaning, or nothing does. Either way a record says so. The cases are
[data](../sidecar/tests/desync/http1.yaml), and this page is made from them by the test that runs them (`sidecar/tests/desync_story.rs`).

| what is sent | after | what comes of it |
|---|---|---|
";

const OF_HTTP2: &str = "
## HTTP/2

HTTP/2 is never translated to HTTP/1 here; but the server behind may do it, so what would be read in two ways there is refused too
([data](../sidecar/tests/desync/http2.yaml)).

| what is sent | after | what comes of it |
|---|---|---|
";

/// Fails when the page is not what the cases say; writes it where `UPDATE_DOCS` is set.
pub(crate) fn is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/desync.md");
    let mut page = INTRODUCTION.to_owned();
    for case in &Case::all() {
        let outcome = outcome(case);
        writeln!(page, "| {} | {} | {outcome} |", case.name, case.source).unwrap();
    }
    page += OF_HTTP2;
    for case in &http2_cases::Case::all() {
        let outcome = outcome_of_http2(case);
        writeln!(page, "| {} | {} | {outcome} |", case.name, case.source).unwrap();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/desync.md is not what the cases say: run this test with UPDATE_DOCS=1"
    );
}

/// What comes of a case of HTTP/2, in words.
fn outcome_of_http2(case: &http2_cases::Case) -> String {
    let ending = match case.heard.split_once('(') {
        Some(("Answer", status)) => format!("answered {}", status.trim_end_matches(')')),
        Some(("Reset", _)) => "the stream is reset".to_owned(),
        _ => "the connection ends".to_owned(),
    };
    match (case.upstream.as_str(), case.heard.as_str()) {
        ("", _) => format!("refused ({ending}), nothing reaches the upstream"),
        (_, "Answer(200)") => "one request".to_owned(),
        _ => format!("passes as far as it is sound, then breaks off ({ending})"),
    }
}

/// What comes of a case, in words.
fn outcome(case: &Case) -> String {
    let upstream = case.expected();
    let answers: Vec<String> = case.heard.iter().map(ToString::to_string).collect();
    let answers = answers.join(", ");
    if upstream.is_empty() {
        return match case.heard.is_empty() {
            true => "refused: the connection ends, nothing reaches the upstream".to_owned(),
            false => format!("refused ({answers}), nothing reaches the upstream"),
        };
    }
    let sent = case.pieces().concat();
    let changed = if sent.starts_with(&upstream) {
        "as sent"
    } else {
        "normalised"
    };
    let rest_refused = case.heard.len() > 1 && case.heard.last().is_some_and(|last| *last >= 400);
    match (case.second, case.heard.as_slice()) {
        (true, [200, 200]) => format!("two requests, {changed}, each judged and recorded"),
        (_, [200]) if sent.len() > upstream.len() && sent.contains(SMUGGLED) => {
            format!("one request, {changed}; what follows is not read")
        }
        (_, [200]) => format!("one request, {changed}"),
        _ if rest_refused => format!("one request, {changed}; what follows is refused ({answers})"),
        _ => {
            debug_assert!(parse_request(upstream.as_bytes()).is_ok());
            let ending = if answers.is_empty() {
                String::new()
            } else {
                format!(" ({answers})")
            };
            format!("passes as far as it is sound, then the connection breaks off{ending}")
        }
    }
}
