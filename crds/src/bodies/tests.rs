use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chain::RecordHash;

const TAIL: &str =
    r#"{"salt":"000102030405060708090a0b0c0d0e0f","http.requestBody":{"text":"a \"}\" and \\"}}"#;
const HEAD: &str = r#"{"v":"chaperone.dev/v2","http":{"requestBody":{}}"#;

fn digest(tail: &str) -> String {
    hex::encode(Sha256::digest(tail))
}

fn line(head: &str, tail: &str) -> String {
    let digest = digest(tail);
    format!(r#"{head},"bodiesSha256":"{digest}","bodies":{tail}}}"#)
}

fn bare(head: &str, tail: &str) -> String {
    format!(r#"{head},"bodiesSha256":"{}"}}"#, digest(tail))
}

fn is_whole(line: &str) -> bool {
    matches!(parts(line.as_bytes()), Parts::Whole(all) if all == line.as_bytes())
}

#[test]
fn a_line_is_cut_where_its_content_begins() {
    let line = line(HEAD, TAIL);
    let digest = digest(TAIL);
    let expected = Parts::With {
        head: HEAD.as_bytes(),
        digest: digest.as_bytes(),
        tail: TAIL.as_bytes(),
    };
    assert_eq!(parts(line.as_bytes()), expected);
    let bare = bare(HEAD, TAIL);
    assert_eq!(*detached(line.as_bytes()), *bare.as_bytes());
    let expected = Parts::Detached {
        line: bare.as_bytes(),
        digest: digest.as_bytes(),
    };
    assert_eq!(parts(bare.as_bytes()), expected);
    assert_eq!(
        attach(bare.as_bytes(), TAIL.as_bytes()),
        Some(line.clone().into_bytes())
    );
    // printf '%s' "$bare" | sha256sum
    let hash = hex::encode(Sha256::digest(&bare));
    assert_eq!(RecordHash::of(line.as_bytes()).to_string(), hash);
    assert_eq!(RecordHash::of(bare.as_bytes()).to_string(), hash);
}

#[test]
fn a_line_without_content_is_hashed_whole() {
    for line in [
        "",
        "{}",
        HEAD,
        r#"{"v":"chaperone.dev/v1","http":{"requestBody":{"text":"x"}}}"#,
        r#"{"bodies":{"salt":"00"}}"#,
    ] {
        assert!(is_whole(line), "{line}");
        let hash = hex::encode(Sha256::digest(line));
        assert_eq!(RecordHash::of(line.as_bytes()).to_string(), hash);
    }
}

#[test]
fn content_that_was_altered_makes_another_record() {
    let line = line(HEAD, TAIL);
    let altered = line.replace("and", "und");
    assert!(is_whole(&altered));
    assert_ne!(
        RecordHash::of(line.as_bytes()),
        RecordHash::of(altered.as_bytes())
    );
    let other = TAIL.replace("and", "und");
    assert_eq!(attach(bare(HEAD, TAIL).as_bytes(), other.as_bytes()), None);
}

#[test]
fn what_is_no_content_is_not_cut_off_although_its_digest_is_right() {
    for tail in [
        "",
        "{}",
        "[]",
        r#"{"Salt":"00"}"#,
        r#"{"salt":"00"}}"#,
        r#"{"salt":"00"} "#,
        r#"{"salt":"00"},"x":{}"#,
        r#"{"salt":"00}"#,
        r#"{"salt":"00","bodiesSha256":"00"}"#,
    ] {
        let line = line(HEAD, tail);
        // A name of ours within the content hides where that begins.
        assert!(is_whole(&line), "{line}");
        assert_eq!(attach(bare(HEAD, tail).as_bytes(), tail.as_bytes()), None);
    }
}

#[test]
fn digits_of_a_digest_are_64_and_in_lower_case() {
    let digest = digest(TAIL);
    for other in [
        digest.to_uppercase(),
        digest[1..].to_owned(),
        format!("{digest}0"),
        "é".repeat(32),
        String::new(),
    ] {
        assert!(is_whole(&bare(HEAD, TAIL).replace(&digest, &other)));
        assert!(is_whole(&line(HEAD, TAIL).replace(&digest, &other)));
    }
}

#[test]
fn members_of_these_names_that_are_not_the_outermost_are_not_cut_off() {
    let nested = line(HEAD, TAIL);
    for around in [
        format!(r#"{{"a":{nested}}}"#),
        format!(r#"{{"a":[{nested}]}}"#),
        format!(r#"[{nested}]"#),
        format!(r#"{{"a":{}}}"#, bare(HEAD, TAIL)),
        // As text of an agent.
        json!({ "url": nested, "z": bare(HEAD, TAIL) }).to_string(),
        format!("{nested} "),
        format!("{nested}}}"),
    ] {
        assert!(is_whole(&around), "{around}");
    }
    // Of two, the last is meant.
    let twice = line(&bare(HEAD, TAIL).replace("\"}", "\""), TAIL);
    let Parts::With { head, .. } = parts(twice.as_bytes()) else {
        panic!("{twice}");
    };
    assert!(head.ends_with(b"\""));
}

/// Texts that are most like a cut.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just(line(HEAD, TAIL)),
        Just(bare(HEAD, TAIL)),
        Just(TAIL.to_owned()),
        Just("bodiesSha256".to_owned()),
        Just("bodies".to_owned()),
        Just(digest(TAIL)),
        Just("\",\"bodiesSha256\":\"".to_owned()),
        Just("\\".to_owned()),
    ]
}

/// Objects in objects, as deep as an agent may make them, whose names and texts are those.
fn nested() -> impl Strategy<Value = Value> {
    let leaf = hostile().prop_map(Value::from);
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop::collection::btree_map(hostile(), inner, 0..4)
            .prop_map(|map| map.into_iter().collect::<Value>())
    })
}

/// Bytes that are most like a cut: pieces of one in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(BEFORE_DIGEST.to_vec()),
        Just(digest(TAIL).into_bytes()),
        Just(digest(r#"{"salt":""}"#).into_bytes()),
        Just(BEFORE_TAIL.to_vec()),
        Just(TAIL.as_bytes().to_vec()),
        Just(br#"{"salt":""}"#.to_vec()),
        Just(b"}".to_vec()),
        Just(b"\"}".to_vec()),
        Just(b"{\"a\":".to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What holds for any line.
fn holds(line: &[u8]) {
    let without = detached(line);
    assert_eq!(RecordHash::of(line), RecordHash::of(&without));
    assert_eq!(detached(&without), without, "it is cut once");
    assert_eq!(
        RecordHash::of(line).to_string(),
        hex::encode(Sha256::digest(&without))
    );
    match parts(line) {
        Parts::Whole(all) => assert_eq!((all, &*without), (line, line)),
        Parts::Detached { line: all, .. } => assert_eq!((all, &*without), (line, line)),
        Parts::With { tail, digest, .. } => {
            assert_eq!(digest, hex::encode(Sha256::digest(tail)).as_bytes());
            assert_eq!(attach(&without, tail).as_deref(), Some(line));
        }
    }
    if serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(line).is_ok() {
        assert!(serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&without).is_ok());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_cut_alike(bytes: Vec<u8>, pieces in pieces()) {
        holds(&bytes);
        holds(&pieces);
    }

    #[test]
    fn members_of_these_names_in_maps_of_agents_are_never_cut_off(
        map in prop::collection::btree_map(hostile(), nested(), 1..5), content in nested()
    ) {
        let inner = json!({ "http": { "requestHeaders": map } }).to_string();
        holds(inner.as_bytes());
        prop_assert!(is_whole(&inner));
        // Content is cut off where it begins, whatever is before it and in it.
        let head = inner.strip_suffix('}').unwrap();
        let tail = format!(r#"{{"salt":"{}","x":{content}}}"#, "0f".repeat(16));
        let line = line(head, &tail);
        holds(line.as_bytes());
        let ours = Parts::With {
            head: head.as_bytes(),
            digest: digest(&tail).as_bytes(),
            tail: tail.as_bytes(),
        } == parts(line.as_bytes());
        prop_assert_eq!(ours, !tail.contains(",\"bodiesSha256\":\""));
    }

    #[test]
    fn one_byte_of_a_line_with_content_that_is_another_makes_another_record(
        at in any::<prop::sample::Index>(), with: u8
    ) {
        let line = line(HEAD, TAIL).into_bytes();
        let mut edited = line.clone();
        let at = at.index(line.len());
        edited[at] = with;
        prop_assert_eq!(RecordHash::of(&edited) == RecordHash::of(&line), edited == line);
        holds(&edited);
    }
}
