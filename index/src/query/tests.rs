use proptest::prelude::*;

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<Query, BadQuery> {
    Query::parse(pairs.iter().copied())
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    for (pairs, expected) in [
        (&[("colour", "red")][..], "there is no parameter \"colour\""),
        (&[("pod", "a"), ("pod", "a")], "pod is there more than once"),
        (&[("pod", "")], "pod has to be of 1 to 2048 bytes"),
        (&[("pod", &long)], "pod has to be of 1 to 2048 bytes"),
        (
            &[("decision", "deny")],
            "decision is one of Allow, Deny, WouldDeny, not \"deny\"",
        ),
        (&[("order", "up")], "order is one of desc, asc, not \"up\""),
        (
            &[("limit", "0")],
            "limit is a number from 1 to 1000, not \"0\"",
        ),
        (
            &[("limit", "-1")],
            "limit is a number from 1 to 1000, not \"-1\"",
        ),
        (
            &[("status", "x")],
            "status is a number from 100 to 999, not \"x\"",
        ),
        (
            &[("since", "yesterday")],
            "since is a time such as 2026-11-29T10:00:00Z, not \"yesterday\"",
        ),
        (
            &[
                ("since", "2026-01-02T00:00:00Z"),
                ("until", "2026-01-02T00:00:00Z"),
            ],
            "since is not before until",
        ),
        (
            &[("stream", "x")],
            "stream is a UUID in lower case, not \"x\"",
        ),
        (
            &[("path", "v1")],
            "path begins with a slash, not as \"v1\" does",
        ),
        (&[("q", "***")], "q: there is no letter and no digit in it"),
        (
            &[("from", "1e3")],
            "from is a number from 0 to 9007199254740992, not \"1e3\"",
        ),
        (
            &[("cursor", "1.02.3")],
            "cursor is what an answer before gave as its cursor",
        ),
    ] {
        assert_eq!(parse(pairs).unwrap_err().to_string(), expected);
    }
}

#[test]
fn nothing_asked_for_is_everything() {
    let query = parse(&[]).unwrap();
    assert_eq!(
        (query.terms(), query.limit, query.order),
        (None, DEFAULT_LIMIT, Order::Desc)
    );
    assert!(query.is_at(None));
    let since = parse(&[("since", "2026-01-02T00:00:00Z")]).unwrap();
    assert_eq!(since.terms(), None);
    assert!(!since.is_at(None), "a record without a time is of no time");
}

#[test]
fn a_cursor_is_what_an_answer_gave() {
    for text in ["1.0.0", "1.7.18446744073709551615"] {
        assert_eq!(text.parse::<PageCursor>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "2.1.1",
        "1.+1.2",
        "1.-1.2",
        "1..2",
        " 1.1.1",
        "1.1.99999999999999999999",
    ] {
        assert_eq!(text.parse::<PageCursor>(), Err(BadCursor), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_asked_of_the_index_is_strings_alone(values in prop::collection::vec(".{1,60}", NAMES.len())) {
        let pairs = NAMES.iter().copied().zip(values.iter().map(String::as_str));
        for pair in pairs {
            let Ok(query) = parse(&[pair]) else { continue };
            let Some(terms) = query.terms() else { continue };
            for term in terms.split(" AND ") {
                let inner = term.trim_end_matches(" *").trim_matches('"');
                prop_assert!(!inner.is_empty() && inner.chars().all(char::is_alphanumeric), "{term}");
            }
        }
    }
}
