//! Text with structure: replaced numbers, values that paths select, events, lines and forms; and that cuts do not matter there either.

use chaperone_crds::resources::Mask;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn masks(mask: &str) -> Arc<CompiledMasks> {
    let mask: Mask = serde_saphyr::from_str(mask).unwrap();
    Arc::new(CompiledMasks::compile([&mask]).unwrap())
}

fn masked(masks: &Arc<CompiledMasks>, format: Format, text: &str) -> String {
    let (whole, findings) = mask_all_of(masks, format, text.as_bytes());
    for size in [1, 2, 7] {
        let mut masker = Masker::of(Arc::clone(masks), format);
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&whole),
            "{text} in pieces of {size}"
        );
        assert_eq!(masker.findings(), findings, "{text}");
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn a_number_that_is_replaced_becomes_a_string() {
    let masks = masks(
        "{name: pii, detectors: [creditCard, email], patterns: [{name: pin, pattern: '\\b99[0-9]{2}\\b'}]}",
    );
    for (text, expected) in [
        (
            r#"{"card":4111111111111111}"#,
            r#"{"card":"[masked:creditCard]"}"#,
        ),
        (
            r#"[4111111111111111 , 5,"4111111111111111"]"#,
            r#"["[masked:creditCard]" , 5,"[masked:creditCard]"]"#,
        ),
        ("4111111111111111", r#""[masked:creditCard]""#),
        (
            r#"{"a":-4111111111111111}"#,
            r#"{"a":"-[masked:creditCard]"}"#,
        ),
        (r#"{"a":9912.9912e1}"#, r#"{"a":"[masked:pin].9912e1"}"#),
        (r#"{"4111111111111111":1}"#, r#"{"[masked:creditCard]":1}"#),
        (
            r#"{"a":true,"b":null,"c":1.5e-3}"#,
            r#"{"a":true,"b":null,"c":1.5e-3}"#,
        ),
        (
            "{\"a\": \"x\\\"4111111111111111\\\\\"}\n",
            "{\"a\": \"x\\\"[masked:creditCard]\\\\\"}\n",
        ),
    ] {
        assert_eq!(masked(&masks, Format::Json, text), expected);
    }
    assert_eq!(
        masked(&masks, Format::Plain, "[4111111111111111]"),
        "[[masked:creditCard]]",
        "text has no numbers"
    );
}

#[test]
fn what_is_no_json_is_masked_as_text() {
    let masks = masks("{name: pii, detectors: [creditCard, email], fields: [$.a]}");
    for (text, expected) in [
        (
            "<html>4111111111111111 ada@example.com</html>",
            "<html>[masked:creditCard] [masked:email]</html>",
        ),
        (r#"{"b" 4111111111111111}"#, r#"{"b" [masked:creditCard]}"#),
        (r#"{"b":]}"#, r#"{"b":]}"#),
        (r#"{"b":1}}"#, r#"{"b":1}}"#),
        ("\u{1f600} {", "\u{1f600} {"),
        (r#"{"a":"x"#, r#"{"a":"[masked:field]""#),
        (r#"{"a":{"b" 1}, "c":2}"#, r#"{"a":"[masked:field]""#),
    ] {
        assert_eq!(masked(&masks, Format::Json, text), expected);
    }
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 9), "]".repeat(MAX_DEPTH + 9));
    assert_eq!(masked(&masks, Format::Json, &deep), deep);
    let long = format!("{{\"b\":{}}}", "1".repeat(5000));
    assert_eq!(masked(&masks, Format::Json, &long), long);
}

#[test]
fn selected_values_are_replaced_whole_whatever_they_are() {
    let masks = masks(
        r#"{name: pii, detectors: [email], fields: ["$.customer.phone", "$.items[*].ssn", "$..password", '$.a["b c"]', "$.list[1]"]}"#,
    );
    for (text, expected) in [
        (
            r#"{"customer":{"phone":"555 1234","name":"x"}}"#,
            r#"{"customer":{"phone":"[masked:field]","name":"x"}}"#,
        ),
        (
            r#"{"customer":{"phone":{"home":[1,"]}"],"x":"ada@example.com"}},"y":"ada@example.com"}"#,
            r#"{"customer":{"phone":"[masked:field]"},"y":"[masked:email]"}"#,
        ),
        (
            r#"{"items":[{"ssn":1},{"ssn":[2]},{"x":3},4]}"#,
            r#"{"items":[{"ssn":"[masked:field]"},{"ssn":"[masked:field]"},{"x":3},4]}"#,
        ),
        (
            r#"{"q":[{"password":true,"r":{"password":"\"x"}}]}"#,
            r#"{"q":[{"password":"[masked:field]","r":{"password":"[masked:field]"}}]}"#,
        ),
        (
            r#"{"a":{"b c":1.5 , "bc":2},"pass\u0077ord":"x","password":null}"#,
            r#"{"a":{"b c":"[masked:field]" , "bc":2},"pass\u0077ord":"[masked:field]","password":null}"#,
        ),
        (
            r#"{"list":[1,[2,2],3]}"#,
            r#"{"list":[1,"[masked:field]",3]}"#,
        ),
        (
            ")]}'\n{\"password\":\"x\"}",
            ")]}'\n{\"password\":\"[masked:field]\"}",
        ),
        (
            "\u{feff}{\"password\":1}",
            "\u{feff}{\"password\":\"[masked:field]\"}",
        ),
        (
            "{\"password\":1} {\"password\":2}",
            "{\"password\":\"[masked:field]\"} {\"password\":\"[masked:field]\"}",
        ),
        (
            "\u{1e}{\"password\":\"1\n\u{1e}{\"password\":2}\n",
            "\u{1e}{\"password\":\"[masked:field]\"\u{1e}{\"password\":\"[masked:field]\"}\n",
        ),
    ] {
        assert_eq!(masked(&masks, Format::Json, text), expected);
        if text.starts_with('{') && !text.contains(") (") {
            assert_eq!(masked(&masks, Format::Plain, text), expected, "as text");
        }
    }
    let long = format!(r#"{{"password":"{}"}}"#, "x".repeat(100_000));
    assert_eq!(
        masked(&masks, Format::Json, &long),
        r#"{"password":"[masked:field]"}"#
    );
}

#[test]
fn the_end_of_a_selected_value_can_be_shown() {
    let masks = masks("{name: pii, fields: [$.card, $.o, $.n], with: Last4}");
    assert_eq!(
        masked(
            &masks,
            Format::Json,
            r#"{"card":"4111 1111 2222 3333","o":{"a":1},"n":123456789}"#
        ),
        r#"{"card":"**** **** **** 3333","o":"[masked:field]","n":"*****6789"}"#
    );
}

#[test]
fn each_line_is_a_document() {
    let masks = masks("{name: pii, detectors: [creditCard], fields: [$.p]}");
    assert_eq!(
        masked(
            &masks,
            Format::Lines,
            "{\"p\":1}\n{\"p\":\"cut\n<no json> {\"p\":1}\r\n\n4111111111111111\n{\"p\":2}"
        ),
        "{\"p\":\"[masked:field]\"}\n{\"p\":\"[masked:field]\"\n<no json> {\"p\":1}\r\n\n\"[masked:creditCard]\"\n{\"p\":\"[masked:field]\"}"
    );
}

#[test]
fn the_data_of_events_is_masked_by_path_and_the_rest_stays() {
    let masks = masks("{name: pii, detectors: [creditCard, email], fields: [$..p]}");
    for (text, expected) in [
        (
            "event: x\ndata: {\"p\":1,\"q\":4111111111111111}\nid: 5\n\n",
            "event: x\ndata: {\"p\":\"[masked:field]\",\"q\":\"[masked:creditCard]\"}\nid: 5\n\n",
        ),
        (
            "data:{\"a\":\r\ndata: [1,{\"p\":\r\n: a comment\r\ndata:\"x\"}\r\ndata: ]}\r\n\r\ndata: {\"p\":2}\r\n\r\n",
            "data:{\"a\":\r\ndata: [1,{\"p\":\r\n: a comment\r\ndata:\"[masked:field]\"}\r\ndata: ]}\r\n\r\ndata: {\"p\":\"[masked:field]\"}\r\n\r\n",
        ),
        (
            "data: {\"p\":[1,\ndata: 2],\"q\":3}\n\n",
            "data: {\"p\":\ndata: \"[masked:field]\",\"q\":3}\n\n",
        ),
        (
            "data: pay 4111 1111 1111 1111 now\n\ndata: [DONE]\n\n",
            "data: pay [masked:creditCard] now\n\ndata: [DONE]\n\n",
        ),
        (
            "data: {\"p\":\"cut\n\ndata: {\"p\":3}\n\n",
            "data: {\"p\":\n\"[masked:field]\"\ndata: {\"p\":\"[masked:field]\"}\n\n",
        ),
        (
            "datax: {\"p\":1}\ndata\ndata: ada@example.com\n\n",
            "datax: {\"p\":1}\ndata\ndata: [masked:email]\n\n",
        ),
    ] {
        assert_eq!(masked(&masks, Format::Events, text), expected);
    }
}

#[test]
fn an_event_and_a_line_leave_with_their_last_byte() {
    let masks = masks("{name: pii, detectors: [creditCard, email], fields: [$..p]}");
    for (format, text) in [
        (Format::Events, "data: {\"p\":\"x\",\"n\":411111}\n\n"),
        (Format::Events, "data: {\"n\":\ndata: 4111111111111111}\n\n"),
        (Format::Lines, "{\"p\":{\"x\":[]},\"n\":12}\n"),
        (Format::Lines, "4111111111111111\n"),
    ] {
        let mut masker = Masker::of(Arc::clone(&masks), format);
        for _ in 0..3 {
            let mut out = Vec::new();
            masker.push(text.as_bytes(), &mut out);
            let (whole, _) = mask_all_of(&masks, format, text.as_bytes());
            assert_eq!(out, whole, "{text}");
        }
    }
}

#[test]
fn form_fields_are_selected_by_name() {
    let masks = masks(
        r#"{name: pii, detectors: [email], fields: [$.password, '$["user[pin]"]', "$.a.b"]}"#,
    );
    assert_eq!(
        masked(
            &masks,
            Format::Form,
            "a=1&password=x%20y&passw%6Frd=z&mail=ada%40example.com&user%5Bpin%5D=1&b&password=&password"
        ),
        "a=1&password=%5Bmasked%3Afield%5D&passw%6Frd=%5Bmasked%3Afield%5D&mail=%5Bmasked%3Aemail%5D&user%5Bpin%5D=%5Bmasked%3Afield%5D&b&password=%5Bmasked%3Afield%5D&password"
    );
}

/// A document's value, with what paths select replaced: an independent way to the same result.
fn expected(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let selected = name == "p" && !value.is_null();
                let value = match selected {
                    true => json!("[masked:field]"),
                    false => expected(value),
                };
                (name.clone(), value)
            })
            .collect(),
        Value::Array(elements) => elements.iter().map(expected).collect(),
        other => other.clone(),
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|n: f64| json!(n)),
        "[a-z\"\\\\\n{}\\[\\],:\u{e9}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[pq\"\\\\\u{e9}]{1,2}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn fragment() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"p\":",
        "\"q\":",
        "\\",
        "\\u0070",
        "\n",
        "\r\n",
        "\n\n",
        "data: ",
        "data:",
        "id: 1",
        "1",
        "-",
        "4111111111111111",
        "ada@example.com",
        "null",
        "true",
        "x",
        " ",
        "\u{1e}",
        "&",
        "=",
        "p=",
        "%70=",
        "\u{e9}",
        "-----BEGIN PRIVATE KEY-----",
        ")",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_document_stays_json_and_has_what_paths_select_replaced(document in document(), pretty in any::<bool>()) {
        let masks = masks("{name: pii, fields: [$..p]}");
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let out = masked(&masks, Format::Json, &text);
        let value: Value = serde_json::from_str(&out).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value, expected(&document));
    }

    #[test]
    fn text_of_a_format_cut_anywhere_is_masked_the_same(
        fragments in prop::collection::vec(fragment(), 0..40),
        format in prop::sample::select(vec![Format::Plain, Format::Json, Format::Lines, Format::Events, Format::Form]),
    ) {
        let masks = masks("{name: pii, detectors: [creditCard, email, privateKey], patterns: [{name: x, pattern: '[x,] ?1'}], fields: [$..p, $.q]}");
        let text = fragments.concat();
        let (whole, findings) = mask_all_of(&masks, format, text.as_bytes());
        for cut in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let mut masker = Masker::of(Arc::clone(&masks), format);
            let mut out = Vec::new();
            masker.push(a, &mut out);
            masker.push(b, &mut out);
            masker.finish(&mut out);
            prop_assert_eq!(&out, &whole, "cut at {}", cut);
            prop_assert_eq!(masker.findings(), &findings[..]);
        }
    }

    #[test]
    fn without_matches_and_paths_nothing_changes(
        fragments in prop::collection::vec(fragment(), 0..60),
        format in prop::sample::select(vec![Format::Plain, Format::Json, Format::Lines, Format::Events, Format::Form]),
    ) {
        let masks = masks("{name: pii, detectors: [usSsn], fields: [$.never.there]}");
        let text = fragments.concat();
        let (out, _) = mask_all_of(&masks, format, text.as_bytes());
        prop_assert_eq!(out, text.as_bytes());
    }
}
