use std::ops::Range;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    messages::{asked, asked_in},
    record::{HttpInfo, NewestInfo},
};

const FAR: usize = 1 << 20;

fn found(request: &str, limit: usize) -> Option<Found> {
    let mut newest = Newest::new(limit);
    newest.push(request.as_bytes());
    newest.finish()
}

fn text(request: &str) -> String {
    found(request, FAR)
        .map(|found| found.text)
        .unwrap_or_default()
}

#[test]
fn the_newest_messages_are_those_since_the_last_answer_wherever_they_stand() {
    let old = r#"{"role":"user","content":"old"},{"role":"assistant","content":[{"role":"user","messages":[1]}]}"#;
    for (messages, newest) in [
        (
            r#"{"role":"user","content":"Hi"}"#,
            r#"{"role":"user","content":"Hi"}"#,
        ),
        (
            &*format!("{old} ,\n {{\"content\":[{{\"a\":\"]\\\"}}\"}}],\"role\":\"user\"}}"),
            "{\"content\":[{\"a\":\"]\\\"}\"}],\"role\":\"user\"}",
        ),
        (
            &format!("{old},{{\"a\":1}} , {{\"b\":[]}}"),
            r#"{"a":1},{"b":[]}"#,
        ),
        // An answer that the model is to go on with.
        (
            &format!("{old},{{\"role\":\"user\"}},{{\"role\":\"assistant\",\"content\":\"I\"}}"),
            r#"{"role":"user"},{"role":"assistant","content":"I"}"#,
        ),
        (
            r#"{"role":"assistant"},{"ro\u006ce":"assist\u0061nt"},{"x":{"role":"assistant"}},{"role":"user","role":"assistant"},{"role":"assistant","role":"user"}"#,
            r#"{"role":"assistant","role":"user"}"#,
        ),
        (
            r#"{"role":{"role":"assistant"}},["role","assistant"],"assistant" , 7,null"#,
            r#"{"role":{"role":"assistant"}},["role","assistant"],"assistant",7,null"#,
        ),
        ("", ""),
    ] {
        for (before, after) in [
            ("{", "}"),
            (
                r#" {"model":"m","tools":[{"messages":[{"role":"user"}]}],"#,
                r#","system":"messages","stream":true}"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"not this"}],"#,
                r#" , "x":{"messages":[3]}} "#,
            ),
        ] {
            let request = format!("{before}\"messages\" : [ {messages} ]{after}");
            assert_eq!(text(&request), newest, "{request}");
            let escaped = request.replace(r#""messages" :"#, r#""mess\u0061ges":"#);
            assert_eq!(text(&escaped), newest, "{escaped}");
            if let Some(found) = found(&request, FAR) {
                assert!(request[..usize::try_from(found.end).unwrap()].ends_with(']'));
                assert!(request[usize::try_from(found.at).unwrap()..].starts_with(&newest[..2]));
                assert!(!found.truncated);
            }
        }
    }
}

#[test]
fn what_has_no_messages_or_no_end_of_them_gives_nothing() {
    for request in [
        "",
        "null",
        "[]",
        "7",
        "\u{feff}{}",
        "{}",
        "{\"messages\":[]}",
        "{\"messages\":[{}",
        "{\"messages\":{\"a\":[{}]}}",
        "{\"x\":[{}]}",
        "{\"a\":\"messages\",\"b\":[{}]}",
        "{\"messages\":[{}],\"messages\":7}",
        "{\"x\":{\"messages\":[{}]}}",
        "{} {\"messages\":[{}]}",
        "{\"messages\":[\"\u{1}\"]}",
    ] {
        assert_eq!(found(request, FAR), None, "{request}");
    }
    let mut newest = Newest::new(FAR);
    newest.push(b"{\"messages\":[{\"a\":\"\xff\"}]}");
    assert_eq!(newest.finish(), None, "no UTF-8");
    // The rest of a request that broke off is not missed.
    assert_eq!(text("{\"messages\":[{}],\"system\":\"You"), "{}");
    let deep = format!(
        "{{\"messages\":[{}7{}]}}",
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    assert_eq!(text(&deep).len(), 18_001);
}

#[test]
fn of_more_than_is_kept_the_newest_stays_and_of_that_its_beginning() {
    let request = r#"{"messages":[{"role":"assistant"},{"a":"1234"},{"b":"56"},{"c":"7"}]}"#;
    let at = |part: &str| u64::try_from(request.find(part).unwrap()).unwrap();
    let kept = |limit| found(request, limit).map(|found| (found.at, found.text, found.truncated));
    let expect = |at, text: &str, truncated| Some((at, text.to_owned(), truncated));
    assert_eq!(
        kept(33),
        expect(at("{\"a"), r#"{"a":"1234"},{"b":"56"},{"c":"7"}"#, false)
    );
    assert_eq!(
        kept(32),
        expect(at("{\"b"), r#"{"b":"56"},{"c":"7"}"#, true)
    );
    assert_eq!(kept(19), expect(at("{\"c"), r#"{"c":"7"}"#, true));
    assert_eq!(kept(7), expect(at("{\"c"), r#"{"c":"7"#, true));
    assert_eq!(kept(0), expect(at("{\"c"), "", true));
    // Cut inside a character.
    let wide = found("{\"messages\":[\"a\u{e9}\"]}", 3).unwrap();
    assert_eq!((&*wide.text, wide.truncated), ("\"a", true));
    let many = format!("{{\"messages\":[{}]}}", vec!["7"; 100].join(" , "));
    let many = found(&many, FAR).unwrap();
    assert_eq!(
        (many.text.len(), many.truncated),
        (2 * MAX_MESSAGES - 1, true)
    );
}

#[test]
fn what_sets_the_scene_takes_no_room_from_what_is_told() {
    let page = "x".repeat(100);
    for scene in [
        json!({"role": "system", "content": page}).to_string(),
        format!(r#"{{"role":"system","content":"{page}"}}"#),
    ] {
        let prompt = r#"{"role":"user","content":"Hi"}"#;
        let request = format!(r#"{{"messages":[{prompt},{scene}]}}"#);
        let kept = found(&request, 40).unwrap();
        assert_eq!((&*kept.text, kept.truncated), (prompt, false));
        let answered =
            format!(r#"{{"messages":[{{"role":"assistant"}},{scene},{prompt},{scene}]}}"#);
        assert_eq!(text(&answered), prompt);
        assert_eq!(asked(&answered), asked(&request));
    }
}

#[test]
fn what_is_told_is_read_from_the_newest_messages_where_the_record_has_them_apart() {
    let message = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a\nb"}, {"type": "text", "text": "Go \"on\"."}]});
    let request = json!({"messages": [{"role": "user", "content": "x".repeat(100)}, {"role": "assistant", "content": "y"}, message]}).to_string();
    let record = |limit| {
        let found = found(&request, limit).unwrap();
        HttpInfo {
            request_body: Some(crate::record::BodyInfo {
                text: Some(request[..20].to_owned()),
                truncated: true,
                ..Default::default()
            }),
            newest_messages: Some(NewestInfo {
                text: Some(found.text),
                at: found.at,
                truncated: found.truncated,
            }),
            ..HttpInfo::default()
        }
    };
    let whole = asked(&request).unwrap();
    assert_eq!(whole.len(), 2);
    assert_eq!(asked_in(&record(FAR)), Some(Ok(whole.clone())));
    // Of a message that is cut, what is there; nothing of it is lost that stands before the cut.
    for limit in 0..message.to_string().len() {
        let said = asked_in(&record(limit)).unwrap().unwrap();
        assert!(said.len() <= whole.len(), "{said:?}");
    }
    let cut = message.to_string().find("on\\\"").unwrap() + 2;
    let said = asked_in(&record(cut)).unwrap().unwrap();
    let text = |said: &crate::messages::Said| format!("{said:?}");
    assert_eq!(said.first(), whole.first(), "{said:?}");
    assert!(
        said.last().map(text).unwrap().contains("Go \\\"on"),
        "{said:?}"
    );
    let gone = HttpInfo {
        newest_messages: Some(NewestInfo::default()),
        ..HttpInfo::default()
    };
    assert_eq!(asked_in(&gone), None, "deleted");
}

/// What a parser finds in the whole request.
fn parsed(request: &Value) -> Vec<Value> {
    let mut newest: Vec<Value> = Vec::new();
    let messages = request["messages"].as_array().into_iter().flatten();
    for message in messages.filter(|message| message["role"] != "system") {
        if newest
            .last()
            .is_some_and(|last| last["role"] == "assistant")
        {
            newest.clear();
        }
        newest.push(message.clone());
    }
    newest
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|n: f64| json!(n)),
        prop::sample::select(vec![
            "assistant",
            "user",
            "role",
            "messages",
            "\\",
            "\"",
            "]}"
        ])
        .prop_map(Value::from),
        "[a-z\"\\\\\n{}\\[\\],:\u{e9}\u{1f600}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let name = prop_oneof![
            3 => prop::sample::select(vec!["role", "messages", "content"]).prop_map(str::to_owned),
            1 => "[a-z\"\\\\\u{e9}]{0,3}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["user", "assistant", "system"]);
    prop_oneof![
        4 => (role, value()).prop_map(|(role, content)| json!({"role": role, "content": content})),
        1 => value(),
    ]
}

/// A request, with other members on both sides.
fn request() -> impl Strategy<Value = Value> {
    let messages = prop::collection::vec(message(), 0..9);
    (
        prop::collection::vec(value(), 0..3),
        messages,
        any::<bool>(),
    )
        .prop_map(|(others, messages, first)| {
            let mut request = Map::new();
            for (number, other) in others.into_iter().enumerate() {
                // Members are written in the order of their names.
                let name = if first { "z" } else { "a" };
                request.insert(format!("{name}{number}"), other);
            }
            request.insert("messages".to_owned(), messages.into());
            Value::Object(request)
        })
}

fn in_pieces(request: &[u8], sizes: &[usize], limit: usize) -> Option<Found> {
    let mut newest = Newest::new(limit);
    let (mut rest, mut sizes) = (request, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        newest.push(piece);
        rest = after;
    }
    newest.finish()
}

fn range(found: &Found) -> Range<usize> {
    usize::try_from(found.at).unwrap()..usize::try_from(found.end).unwrap()
}

proptest! {
    #[test]
    fn what_is_found_is_what_a_parser_of_the_whole_request_finds(
        request in request(), pretty: bool, sizes in prop::collection::vec(1_usize..40, 1..5), limit in 0_usize..300
    ) {
        let written = if pretty { serde_json::to_string_pretty(&request) } else { serde_json::to_string(&request) }.unwrap();
        let expected = parsed(&serde_json::from_str(&written).unwrap());
        let all = found(&written, FAR);
        let read: Option<Vec<Value>> = all.as_ref().map(|all| serde_json::from_str(&format!("[{}]", all.text)).unwrap());
        prop_assert_eq!(read.unwrap_or_default(), expected.clone());
        for limit in [limit, FAR] {
            let all = found(&written, limit);
            prop_assert_eq!(&all, &in_pieces(written.as_bytes(), &sizes, limit));
            let Some(some) = all else { continue };
            prop_assert!(some.text.len() <= limit);
            let last = written[range(&some)].starts_with(some.text.split(',').next().unwrap());
            prop_assert!(last, "it begins where it says");
            if !some.truncated {
                prop_assert_eq!(&some.text, &found(&written, FAR).unwrap().text);
            }
        }
        // What is told is the same, from either.
        let told = asked(&written).unwrap();
        let info = all.map(|found| NewestInfo { text: Some(found.text), at: found.at, truncated: found.truncated });
        let http = HttpInfo { newest_messages: info, ..HttpInfo::default() };
        prop_assert_eq!(asked_in(&http).unwrap_or(Ok(Vec::new())).unwrap(), told);
    }

    #[test]
    fn any_bytes_in_any_pieces_give_the_same(
        pieces in prop::collection::vec(prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", "\\", " ", "\"messages\"", "\"role\"", "\"assistant\"", "\"messages\":[", "{\"role\":\"user\"}", "7", "\u{e9}", "\u{0}"]), 0..40),
        sizes in prop::collection::vec(1_usize..9, 1..4), limit in 0_usize..40
    ) {
        let bytes = format!("{{{}", pieces.concat());
        prop_assert_eq!(found(&bytes, limit), in_pieces(bytes.as_bytes(), &sizes, limit));
    }
}
