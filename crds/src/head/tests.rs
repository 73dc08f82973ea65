use proptest::prelude::*;

use super::*;
use crate::{
    bodies::Salt,
    chain::Chain,
    record::{AgentRef, BodyInfo, Event, HttpInfo},
};

/// A record with two texts, without its newline.
fn record() -> Vec<u8> {
    let body = |text: &str| BodyInfo {
        text: Some(text.to_owned()),
        ..BodyInfo::default()
    };
    let mut event = Event::new(EventKind::Http, AgentRef::default());
    event.http = Some(HttpInfo {
        request_body: Some(body("said \"}\" and \\\"")),
        response_body: Some(body("\u{7}heard,\n")),
        ..HttpInfo::default()
    });
    let mut line = Vec::new();
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    let mut chain = Chain::new(StreamId::from_random([3; 16]));
    chain.append(&event, now, || Some(Salt::from_random([7; 16])), &mut line);
    line.pop();
    line
}

/// All of the line parsed, its content too, and then its pieces found.
fn plainly(line: &[u8]) -> Option<(Head, RecordHash)> {
    let mut head = Head::parse(line).ok()?;
    let parts = bodies::parts(line);
    if head.content == Content::There && !matches!(parts, Parts::With { .. }) {
        head.content = Content::Altered;
    }
    Some((head, RecordHash::of_parts(parts)))
}

/// The line, with content of which the digest is right whatever it is.
fn with(head: &[u8], tail: &[u8]) -> Vec<u8> {
    let digest = RecordHash::of(tail).to_string();
    let before = [
        b",\"bodiesSha256\":\"",
        digest.as_bytes(),
        b"\",\"bodies\":",
    ]
    .concat();
    [head, &before, tail, b"}"].concat()
}

fn is_read_alike(line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    assert_eq!(Head::parse_hashed(line).ok(), plainly(line), "{text}");
}

#[test]
fn a_record_is_read_with_its_content_and_without() {
    let line = record();
    let bare = bodies::detached(&line);
    let (head, hash) = Head::parse_hashed(&line).unwrap();
    assert_eq!((head.seq, head.content), (0, Content::There));
    let (without, same) = Head::parse_hashed(&bare).unwrap();
    assert_eq!((without.content, same), (Content::Deleted, hash));
    assert_eq!(plainly(&line), Some((head, hash)));
}

#[test]
fn a_record_with_content_twice_is_none() {
    let line = record();
    let Parts::With { head, tail, .. } = bodies::parts(&line) else {
        panic!("it has content");
    };
    for first in ["{}", "null", "7", std::str::from_utf8(tail).unwrap()] {
        let twice = with(&[head, b",\"bodies\":", first.as_bytes()].concat(), tail);
        assert!(matches!(bodies::parts(&twice), Parts::With { .. }));
        let refused = Head::parse_hashed(&twice).unwrap_err().to_string();
        assert!(refused.contains("duplicate field `bodies`"), "{refused}");
        is_read_alike(&twice);
    }
    let null = [head, b",\"bodies\":null}"].concat();
    let (read, _) = Head::parse_hashed(&null).unwrap();
    assert_eq!(read.content, Content::None);
    is_read_alike(&null);
}

/// What a line may be made into another with.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "}",
            "{",
            "\"",
            "\\",
            " ",
            ",",
            "]",
            "[",
            "null",
            "{}",
            ",\"bodies\":null",
            ",\"bodies\":{}",
            "\"bodies\":",
            ",\"seq\":1",
            ",\"x\":{\"y\":[",
            ",\"bodiesSha256\":\"",
            "{\"salt\":\"",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ]
}

proptest! {
    #[test]
    fn a_line_is_read_as_if_its_content_was_parsed_with_it(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..8, pieces()), 0..4),
        is_content in any::<bool>(),
    ) {
        let line = record();
        let Parts::With { head, tail, .. } = bodies::parts(&line) else { unreachable!() };
        let (mut head, mut tail) = (head.to_vec(), tail.to_vec());
        for (at, gone, piece) in &edits {
            let part = if is_content { &mut tail } else { &mut head };
            let from = at.index(part.len() + 1);
            let to = (from + gone).min(part.len());
            part.splice(from..to, piece.iter().copied());
        }
        // With its digest made anew, so that it can be cut wherever the rest allows it, and without.
        is_read_alike(&with(&head, &tail));
        let mut edited = line.clone();
        for (at, gone, piece) in edits {
            let from = at.index(edited.len() + 1);
            let to = (from + gone).min(edited.len());
            edited.splice(from..to, piece);
        }
        is_read_alike(&edited);
    }
}
