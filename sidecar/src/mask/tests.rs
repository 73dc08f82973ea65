//! What is found, that cuts do not matter, and that nothing waits without need.

use chaperone_crds::detect::{Builtin, CustomPattern, MaskWith};
use chaperone_crds::resources::Mask;
use chaperone_crds::tokenize::{MaskKey, TokenKey};
use proptest::prelude::*;

use super::*;

const ALL: [Builtin; 6] = [
    Builtin::Email,
    Builtin::CreditCard,
    Builtin::UsSsn,
    Builtin::AwsAccessKey,
    Builtin::PrivateKey,
    Builtin::Jwt,
];

const JWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
const KEY_LINE: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";

fn mask(detectors: &[Builtin], patterns: &[(&str, &str)], with: MaskWith) -> Mask {
    Mask {
        name: "pii".into(),
        matches: None,
        detectors: detectors.to_vec(),
        patterns: patterns
            .iter()
            .map(|(name, pattern)| CustomPattern {
                name: (*name).into(),
                pattern: (*pattern).into(),
            })
            .collect(),
        fields: Vec::new(),
        headers: Vec::new(),
        direction: chaperone_crds::resources::Direction::Response,
        with,
        restore_to: Vec::new(),
    }
}

fn key() -> Arc<TokenKey> {
    Arc::new(TokenKey::new(&MaskKey::new([7; 32])))
}

fn compiled(mask: &Mask) -> Arc<CompiledMasks> {
    Arc::new(
        CompiledMasks::compile_for_records([mask])
            .unwrap()
            .with_key(Some(key())),
    )
}

fn everything(with: MaskWith) -> Arc<CompiledMasks> {
    let patterns = [
        ("staff", r"\bEMP-\d{4,6}\b"),
        ("iban", r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}"),
        (
            "across-lines",
            r"(?i)pass(?:word|phrase)?[:=]\s{0,4}\S{1,20}?;",
        ),
        ("nested", r"(?:ab|abc(?:de){0,3}f?)x?"),
    ];
    compiled(&mask(&ALL, &patterns, with))
}

fn masked(masks: &Arc<CompiledMasks>, text: &str) -> String {
    String::from_utf8(mask_all(masks, text.as_bytes()).0).unwrap()
}

fn in_pieces<'a>(masks: &Arc<CompiledMasks>, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut masker = Masker::new(Arc::clone(masks));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out);
        assert!(masker.held() <= HOLD_BACK_BYTES);
    }
    masker.finish(&mut out);
    out
}

#[test]
fn what_is_found_is_redacted_and_the_rest_stays() {
    let masks = compiled(&mask(&ALL, &[], MaskWith::Redact));
    for (text, expected) in [
        ("mail ada@example.com.", "mail [masked:email]."),
        ("<ada.l+x@mail.example.co.uk>", "<[masked:email]>"),
        (
            r#"{"m":"x\nada@example.com\n"}"#,
            r#"{"m":"x\n[masked:email]\n"}"#,
        ),
        (r#""ada\u0040example.com""#, r#""[masked:email]""#),
        (r#""a\u002Bb@example.com""#, r#""[masked:email]""#),
        ("q=a%2Bb%40example.com&z", "q=[masked:email]&z"),
        ("ada&#64;example.com", "[masked:email]"),
        ("a@b.com@c.org, x@y", "[masked:email]@c.org, x@y"),
        ("a@b.com-", "[masked:email]-"),
        (
            "user@localhost @handle a@b.c",
            "user@localhost @handle a@b.c",
        ),
        ("4111 1111 1111 1111", "[masked:creditCard]"),
        ("4111-1111-1111-1111.", "[masked:creditCard]."),
        (
            "378282246310005;6011111111111117",
            "[masked:creditCard];[masked:creditCard]",
        ),
        ("3782 822463 10005", "[masked:creditCard]"),
        ("4222222222222", "[masked:creditCard]"),
        ("123 4111 1111 1111 1111 12", "123 [masked:creditCard] 12"),
        (
            "4111111111111112 x4111111111111111",
            "4111111111111112 x4111111111111111",
        ),
        ("1712345678901 2024-01-15", "1712345678901 2024-01-15"),
        (r"\u00204111111111111111\n", r"\u0020[masked:creditCard]\n"),
        (
            "123-45-6789 000-12-3456 666-12-3456 900-12-3456",
            "[masked:usSsn] 000-12-3456 666-12-3456 900-12-3456",
        ),
        (
            "123-00-6789 123-45-0000 123-45-67890",
            "123-00-6789 123-45-0000 123-45-67890",
        ),
        (r"\n123-45-6789", r"\n[masked:usSsn]"),
        ("AKIAIOSFODNN7EXAMPLE", "[masked:awsAccessKey]"),
        (
            r#""k=1\nASIAIOSFODNN7EXAMPLE\n""#,
            r#""k=1\n[masked:awsAccessKey]\n""#,
        ),
        (
            "XAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPL AKIAIOSFODNN7EXAMPLES",
            "XAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPL AKIAIOSFODNN7EXAMPLES",
        ),
        ("eyJhbGciOiJIUzI1NiJ9.e30", "eyJhbGciOiJIUzI1NiJ9.e30"),
        (
            "eyJpZCI6MX0.eyJpZCI6MX0.eyJpZCI6MX0",
            "eyJpZCI6MX0.eyJpZCI6MX0.eyJpZCI6MX0",
        ),
        (
            "key sk-ant-api03-AbCdEf_123-x, ghp_0123456789abcdefABCDEF0123456789abcd",
            "key [masked:apiToken], [masked:apiToken]",
        ),
        ("xoxb-123456789012-abcdef", "[masked:apiToken]"),
        (
            "\u{e9}\u{1f600} nothing here",
            "\u{e9}\u{1f600} nothing here",
        ),
    ] {
        assert_eq!(masked(&masks, text), expected, "{text}");
    }
    assert_eq!(
        masked(&masks, &format!("Bearer {JWT}.\n")),
        "Bearer [masked:jwt].\n"
    );
    assert_eq!(
        masked(&masks, &format!(r#"{{"t":"\t{JWT}"}}"#)),
        r#"{"t":"\t[masked:jwt]"}"#
    );
    assert_eq!(
        masked(&masks, &format!("session_{JWT}, x{JWT}")),
        "session_[masked:jwt], x[masked:jwt]"
    );
}

#[test]
fn private_keys_go_whole_and_mentions_stay() {
    let masks = CompiledMasks::secrets();
    for line_break in ["\n", "\r\n", r"\n", r"\\n", "%0A"] {
        let key = [
            "-----BEGIN RSA PRIVATE KEY-----",
            KEY_LINE,
            KEY_LINE,
            "x8==",
            "-----END RSA PRIVATE KEY-----",
        ];
        let text = format!("a {} b", key.join(line_break));
        assert_eq!(
            masked(&masks, &text),
            "a [masked:privateKey] b",
            "{line_break:?}"
        );
    }
    let array =
        format!(r#"["-----BEGIN PRIVATE KEY-----","{KEY_LINE}","-----END PRIVATE KEY-----"]"#);
    assert_eq!(masked(&masks, &array), r#"["[masked:privateKey]"]"#);
    let cut_short = format!(
        "-----BEGIN PRIVATE KEY-----\n{KEY_LINE}\n{}",
        "x\n".repeat(40_000)
    );
    assert_eq!(masked(&masks, &cut_short), "[masked:privateKey]");
    for text in [
        "if s.startswith(\"-----BEGIN PRIVATE KEY-----\"): return",
        "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END CERTIFICATE-----",
    ] {
        assert_eq!(masked(&masks, text), text);
    }
}

#[test]
fn tokens_longer_than_the_bound_are_dropped_to_their_end() {
    let masks = everything(MaskWith::Last4);
    let payload = "A".repeat(3 * HOLD_BACK_BYTES);
    let header = "eyJhbGciOiJIUzI1NiJ9";
    // {"alg":"x","x":" and then only As
    let long_header = format!("eyJhbGciOiJ4IiwieCI6I{payload}");
    for text in [
        format!("{header}.{payload}.sig"),
        format!("{long_header}.e30.sig"),
        format!("sk-ant-{payload}"),
    ] {
        let out = masked(&masks, &format!("<{text}>"));
        assert!(out.starts_with("<[masked:") && out.ends_with("]>"), "{out}");
        assert!(out.len() < 30, "{out}");
        let bytes = in_pieces(&masks, text.as_bytes().chunks(7));
        assert_eq!(bytes, mask_all(&masks, text.as_bytes()).0);
    }
    let data = format!("eyJpZCI6I{payload}");
    assert_eq!(masked(&masks, &data), data, "base64 that is no token stays");
}

#[test]
fn the_first_mask_that_names_a_detector_wins() {
    let first = mask(&[Builtin::Email], &[], MaskWith::Last4);
    let second = mask(
        &[Builtin::Email, Builtin::UsSsn],
        &[("digits", "[0-9]{3}")],
        MaskWith::Redact,
    );
    let masks = Arc::new(CompiledMasks::compile([&first, &second]).unwrap());
    let (out, findings) = mask_all(&masks, b"ada@example.com 123-45-6789 456 ada@example.com");
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "***@******e.com [masked:usSsn] [masked:digits] ***@******e.com"
    );
    let counts: Vec<_> = findings
        .iter()
        .map(|f| (f.detector.as_str(), f.count))
        .collect();
    assert_eq!(counts, [("email", 2), ("usSsn", 1), ("digits", 1)]);
}

#[test]
fn patterns_that_are_refused_are_named_with_their_mask() {
    let bad = mask(
        &[],
        &[("ok", "abc"), ("endless", "a+"), ("open", "(")],
        MaskWith::Redact,
    );
    let errors = CompiledMasks::compile([&bad]).unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 2);
    assert!(
        text[0].starts_with("mask \"pii\", pattern \"endless\", column 2:"),
        "{}",
        text[0]
    );
}

#[test]
fn an_event_leaves_at_once() {
    let masks = compiled(&mask(
        &ALL,
        &[("staff", r"\bEMP-\d{4,6}\b")],
        MaskWith::Redact,
    ));
    let mut masker = Masker::new(masks);
    for (event, expected) in [
        (
            "data: {\"text\":\"hello 12\"}\n\n",
            "data: {\"text\":\"hello 12\"}\n\n",
        ),
        ("data: ada@example.com\n\n", "data: [masked:email]\n\n"),
        ("data: EMP-1234\n\n", "data: [masked:staff]\n\n"),
        (
            "data: 4111 1111 1111 1111\n\n",
            "data: [masked:creditCard]\n\n",
        ),
        (
            "data: eyJhbGciOiJIUzI1NiJ9.e30.c2ln\n\n",
            "data: [masked:jwt]\n\n",
        ),
        (
            "data: AKIA and 123-45 and a.b\n\n",
            "data: AKIA and 123-45 and a.b\n\n",
        ),
        (": keep alive, 20%\r\n\r\n", ": keep alive, 20%\r\n\r\n"),
    ] {
        let mut out = Vec::new();
        masker.push(event.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(masker.held(), 0);
    }
    let mut out = Vec::new();
    masker.push(b"{\"to\": \"call me, ada", &mut out);
    assert_eq!(
        out, b"{\"to\": \"call me, ",
        "only what may be an address waits"
    );
}

#[test]
fn a_masker_can_be_used_for_the_next_stream() {
    let mut masker = Masker::new(CompiledMasks::secrets());
    let mut out = Vec::new();
    masker.push(
        format!("-----BEGIN PRIVATE KEY-----\n{KEY_LINE}").as_bytes(),
        &mut out,
    );
    masker.finish(&mut out);
    masker.push(b"plain", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"[masked:privateKey]plain");
}

#[test]
fn nothing_is_left_where_with_is_null_and_a_hash_where_it_is_hash() {
    let null = compiled(&mask(&[Builtin::Email], &[], MaskWith::Null));
    assert_eq!(masked(&null, "to ada@example.com!"), "to !");
    let hash = compiled(&mask(&[Builtin::Email], &[], MaskWith::Hash));
    let out = masked(&hash, "ada@example.com ada%40example.com bob@example.com");
    let hashes: Vec<&str> = out.split(' ').collect();
    assert!(
        hashes[0].starts_with("[hash:email:") && hashes[0].len() == 29,
        "{out}"
    );
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[test]
fn without_a_key_hash_and_token_redact() {
    for with in [MaskWith::Hash, MaskWith::Token] {
        let mask = mask(&[Builtin::Email], &[], with);
        let masks = Arc::new(CompiledMasks::compile([&mask]).unwrap());
        assert_eq!(masked(&masks, "ada@example.com"), "[masked:email]");
    }
}

#[test]
fn tokens_become_values_again_wherever_a_stream_is_cut() {
    let masks = everything(MaskWith::Token);
    let text = "{\"to\":\"ada@example.com\",\"q\":\"a%2Bb%40example.com\",\"card\":\"4111 1111 1111 1111\",\"amex\":378282246310005,\n\"ssn\":\"123-45-6789\",\"id\":\"EMP-1234\",\"iban\":\"DE89 3704 0044 0532 0130 00\"}".to_owned();
    let tokens = masked(&masks, &text);
    for value in ["ada", "4111", "3782", "6789", "EMP", "DE89"] {
        assert!(!tokens.contains(value), "{tokens}");
    }
    assert!(
        tokens.contains("tok_usSsn_") && tokens.contains("tok_staff_"),
        "{tokens}"
    );
    assert_eq!(masked(&masks, &tokens), tokens, "tokens stay as they are");
    let names = ["email", "creditCard", "usSsn", "staff", "iban"];
    let restoring = Arc::new(CompiledMasks::restoring(key(), &names));
    let (whole, findings) = mask_all(&restoring, tokens.as_bytes());
    assert_eq!(String::from_utf8(whole).unwrap(), text);
    assert_eq!(findings[0].count, 7);
    for cut in 0..=tokens.len() {
        let (a, b) = tokens.as_bytes().split_at(cut);
        assert_eq!(
            in_pieces(&restoring, [a, b].into_iter()),
            text.as_bytes(),
            "cut at {cut}"
        );
    }
    assert_eq!(
        in_pieces(&restoring, tokens.as_bytes().chunks(1)),
        text.as_bytes()
    );
}

#[test]
fn only_the_tokens_of_this_namespace_and_of_these_detectors_are_restored() {
    let masks = everything(MaskWith::Token);
    let tokens = masked(&masks, "ada@example.com 4111111111111111 123-45-6789");
    let some = Arc::new(CompiledMasks::restoring(key(), &["usSsn"]));
    let restored = masked(&some, &tokens);
    assert!(
        restored.ends_with(" 123-45-6789") && !restored.contains("4111"),
        "{restored}"
    );
    let other = Arc::new(TokenKey::new(&MaskKey::new([8; 32])));
    let other = Arc::new(CompiledMasks::restoring(other, &["usSsn", "email"]));
    for text in [
        tokens.as_str(),
        "tok_",
        "tok_usSsn_abc",
        "xtok_email_a tok_a@b.tok.invalid",
    ] {
        assert_eq!(masked(&other, text), text);
    }
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "ada",
        "@",
        "example.com",
        ".",
        "..",
        "-",
        "--",
        "%40",
        "%2B",
        "\\u0040",
        "\\u002b",
        "&#64;",
        "+",
        "_",
        "%",
        "\\",
        "\\n",
        "\\u00e9",
        "\n",
        " ",
        "\"",
        ",",
        "4111",
        "1111",
        "4111111111111111",
        "378282246310005",
        "5",
        "12",
        "123",
        "45",
        "6789",
        "123-45-6789",
        "AKIA",
        "ASIA",
        "IOSFODNN7EXAMPLE",
        "eyJ",
        "_eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJIUzI1NiJ9",
        "e30",
        "c2ln",
        "-----BEGIN",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----END ",
        "PRIVATE",
        "-----",
        KEY_LINE,
        "sk-ant-",
        "ghp_",
        "0123456789abcdef",
        "xoxb-",
        "EMP-",
        "1234",
        "password=",
        ";",
        "ab",
        "abc",
        "dede",
        "f",
        "x",
        "DE89",
        "3704",
    ]);
    prop_oneof![
        12 => words.prop_map(|word| word.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 1..4),
        1 => (prop::sample::select(vec![b'a', b'1', b'-', b' ', b'.', b'\\']), 1_usize..90).prop_map(|(b, n)| vec![b; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_result_does_not_depend_on_where_a_stream_is_cut(
        fragments in prop::collection::vec(fragment(), 1..24),
        sizes in prop::collection::vec(1_usize..40, 1..12),
        with in prop::sample::select(vec![MaskWith::Redact, MaskWith::Last4, MaskWith::Null, MaskWith::Hash, MaskWith::Token]),
    ) {
        let masks = everything(with);
        let text = fragments.concat();
        let (whole, _) = mask_all(&masks, &text);
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            prop_assert_eq!(&in_pieces(&masks, [a, b].into_iter()), &whole, "cut at {}", cut);
        }
        prop_assert_eq!(&in_pieces(&masks, text.chunks(1)), &whole, "byte by byte");
        let mut rest = text.as_slice();
        let pieces = sizes.iter().cycle().map_while(|&size| {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        let pieces: Vec<&[u8]> = pieces.collect();
        prop_assert_eq!(&in_pieces(&masks, pieces.into_iter()), &whole);
        if leave_alone(&masks, &text) {
            prop_assert_eq!(&whole, &text);
        }
    }

    #[test]
    fn planted_secrets_never_come_out(
        before in prop::sample::select(vec!["", " ", "\"", "\\n", "%20", "=", "\\u003d", "\u{e9}"]),
        secret in prop::sample::select(vec!["ada@example.com", "4111111111111111", "123-45-6789", "AKIAIOSFODNN7EXAMPLE", JWT]),
        after in prop::sample::select(vec!["", " ", "\"", "\\n", "%20", "&", ",", "\n"]),
        noise in prop::collection::vec(fragment(), 0..8),
        size in 1_usize..30,
    ) {
        let masks = compiled(&mask(&ALL, &[], MaskWith::Redact));
        let mut text = noise.concat();
        text.push(b'\n');
        text.extend_from_slice(before.as_bytes());
        text.extend_from_slice(secret.as_bytes());
        text.extend_from_slice(after.as_bytes());
        let out = in_pieces(&masks, text.chunks(size));
        let found = out.windows(secret.len()).any(|window| window == secret.as_bytes());
        // The noise itself may hold the secret in a place where it is none.
        let in_noise = noise.concat().windows(secret.len()).any(|window| window == secret.as_bytes());
        prop_assert!(!found || in_noise);
    }
}
