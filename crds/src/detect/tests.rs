//! What is found, and that cuts do not matter: the answers of a search over a text that comes in pieces are those over the whole.

use proptest::prelude::*;

use super::*;
use crate::resources::policy::Mask;

fn all() -> CompiledMasks {
    let mask = Mask {
        name: "all".into(),
        matches: None,
        detectors: Builtin::ALL.to_vec(),
        patterns: Vec::new(),
        fields: Vec::new(),
        headers: Vec::new(),
        direction: crate::resources::Direction::Response,
        with: MaskWith::Redact,
        restore_to: Vec::new(),
    };
    CompiledMasks::compile([&mask]).unwrap()
}

/// Masks a text whose bytes come in pieces of these sizes, over and over: what the sidecar does, in short.
fn masked(masks: &CompiledMasks, text: &[u8], sizes: &[usize]) -> String {
    let (mut out, mut buffer, mut held, mut tail) = (Vec::new(), Vec::new(), 0, Tail::Closed);
    let mut rest = text;
    let mut sizes = sizes.iter().cycle();
    loop {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = after;
        buffer.extend_from_slice(piece);
        let eof = rest.is_empty();
        'search: loop {
            match tail.skip(&buffer, held, eof) {
                Skip::Done(at) => (held, tail) = (at, Tail::Closed),
                Skip::More(at) => {
                    held = at;
                    break;
                }
            }
            let mut scan = Scan::new(masks, &buffer, held, eof);
            loop {
                match scan.next_found() {
                    Found::Undecided(at) => {
                        assert!(buffer.len() - at <= MAX_UNDECIDED_BYTES);
                        out.extend_from_slice(&buffer[held..at]);
                        held = at;
                        break 'search;
                    }
                    Found::Match(found) => {
                        out.extend_from_slice(&buffer[held..found.start]);
                        let bytes = &buffer[found.start..found.end];
                        out.extend_from_slice(masks.replacement(&found, bytes).as_text());
                        (held, tail) = (found.end, found.tail);
                        if tail != Tail::Closed {
                            break;
                        }
                    }
                }
            }
        }
        if eof {
            return String::from_utf8_lossy(&out).into_owned();
        }
        let drop = held.saturating_sub(LOOK_BEHIND_BYTES);
        buffer.drain(..drop);
        held -= drop;
    }
}

#[test]
fn new_detectors_find_what_they_say_and_leave_the_rest() {
    let masks = all();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    for (text, expected) in [
        ("DE89370400440532013000;", "[masked:iban];"),
        (
            r#"{"iban":"GB29 NWBK 6016 1331 9268 19"}"#,
            r#"{"iban":"[masked:iban]"}"#,
        ),
        (
            "call (415) 555-2671 or +44 20 7946 0958.",
            "call [masked:phone] or [masked:phone].",
        ),
        ("1-415-555-2671", "1-[masked:phone]"),
        (
            "from 192.0.2.17:443, 10.0.0.1/24.",
            "from [masked:ipv4]:443, [masked:ipv4]/24.",
        ),
        (
            "q=%2010.0.0.1 \\n10.0.0.2",
            "q=%20[masked:ipv4] \\n[masked:ipv4]",
        ),
        (
            "1.2.3.4.5 v1.2.3.4 Chrome/120.0.0.0 \"version\": \"1.2.3.4\" 256.1.1.1 127.0.0.1",
            "1.2.3.4.5 v1.2.3.4 Chrome/120.0.0.0 \"version\": \"1.2.3.4\" 256.1.1.1 127.0.0.1",
        ),
        (
            "2001:db8::1, [2001:db8:0:0:0:0:2:1]:443 fe80::1%eth0",
            "[masked:ipv6], [[masked:ipv6]]:443 [masked:ipv6]%eth0",
        ),
        (r"\nfe80::1 \bfe80::1", r"\n[masked:ipv6] \b[masked:ipv6]"),
        (
            "std::fmt 10:20:30 add::face ::1 00:11:22:33:44:55:66:77 a:b",
            "std::fmt 10:20:30 add::face ::1 00:11:22:33:44:55:66:77 a:b",
        ),
        (
            "AIzaSyA1234567890abcdefghijklmnopqrstuv",
            "[masked:cloudKey]",
        ),
        ("AccountKey=", "AccountKey="),
        (
            "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",
            "[masked:apiToken]",
        ),
        (
            "[x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]",
            "[[masked:highEntropy]]",
        ),
        (
            "npm_config_registry task-list-of-things",
            "npm_config_registry task-list-of-things",
        ),
        (
            "bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0",
            "bot123456789[masked:apiToken]",
        ),
        (
            "sk-proj-abcdefghijklmnop1234, hf_abcdefghijklmnopqrstuvwxyzABCDEF12",
            "[masked:apiToken], [masked:apiToken]",
        ),
        (
            "token=q7Rz2LxV9bTn4KpW8sYc3HdM",
            "token=[masked:highEntropy]",
        ),
        (
            "token: q7Rz2LxV9bTn4KpW8sYc3HdM",
            "token: [masked:highEntropy]",
        ),
        (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ] {
        assert_eq!(
            masked(&masks, text.as_bytes(), &[usize::MAX >> 1]),
            expected,
            "{text}"
        );
    }
    let expected = |text: &str, masked: &str| text.replace(secret, masked);
    for text in [
        format!("aws_secret_access_key = {secret}\n"),
        format!("\"SecretAccessKey\": \"{secret}\","),
        format!("{{\\\"SecretAccessKey\\\":\\\"{secret}\\\"}}"),
        format!("<SecretAccessKey>{secret}</SecretAccessKey>"),
    ] {
        let out = masked(&masks, text.as_bytes(), &[1000]);
        assert_eq!(out, expected(&text, "[masked:cloudKey]"));
    }
    let pair = format!("ada,AKIAIOSFODNN7EXAMPLE,{secret}\n");
    assert_eq!(
        masked(&masks, pair.as_bytes(), &[7]),
        "ada,[masked:cloudKey]\n"
    );
    let key = format!("AccountKey={}==;x", "aB3/".repeat(21) + "Zz");
    assert_eq!(
        masked(&masks, key.as_bytes(), &[5]),
        "AccountKey=[masked:cloudKey];x"
    );
    let sas = "?sv=2022&sig=pB9zV%2Bq1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%3D&se=1";
    assert_eq!(
        masked(&masks, sas.as_bytes(), &[3]),
        "?sv=2022&sig=[masked:cloudKey]&se=1"
    );
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "DE89",
        "370400440532013000",
        " 3704 0044 0532 0130 00",
        "GB29",
        "NWBK60161331926819",
        "+",
        "+1",
        "(415)",
        " 555-2671",
        "415-555-2671",
        "+49 30",
        " 901820",
        "(0)",
        ".",
        "10.0.0.1",
        "192.",
        "0.2",
        ".17",
        "version",
        "/",
        ":",
        "::",
        "2001:db8:",
        "fe80::1",
        "ffff",
        "%20",
        "%",
        "\\n",
        "\\b",
        "\\u0020",
        "\\",
        "AKIA",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "aws_secret_access_key",
        "SecretAccessKey",
        "secret_",
        "access_key",
        "\": \"",
        " = ",
        ",",
        "AccountKey=",
        "sig=",
        "&",
        "AIza",
        "SyA1234567890abcdefghijklmnopqrstuv",
        "sk-",
        "sk-ant-",
        "sk-or-v1-",
        "ghp_",
        "npm_",
        "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17",
        "xoxe.",
        "xoxb-",
        "SG.",
        "glpat-",
        "12345678",
        ":AA",
        "HdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0",
        "q7Rz2LxV9bTn4KpW8sYc3HdM",
        "=",
        "==",
        "a@b.co",
        "4111111111111111",
        "123-45-6789",
        "\n",
        " ",
        "\"",
        "x",
        "_",
        "7",
        "-----BEGIN PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9",
        ".e30.c2ln",
        "pypi-AgE",
        "dop_v1_",
        "hf_",
    ]);
    prop_oneof![
        14 => words.prop_map(|word| word.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 1..4),
        1 => (prop::sample::select(vec![b'a', b'1', b'Z', b'.', b':', b' ']), 1_usize..140).prop_map(|(byte, n)| vec![byte; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_result_does_not_depend_on_where_a_text_is_cut(
        fragments in prop::collection::vec(fragment(), 1..20),
        sizes in prop::collection::vec(1_usize..60, 1..8),
    ) {
        let masks = all();
        let text = fragments.concat();
        let whole = masked(&masks, &text, &[usize::MAX >> 1]);
        prop_assert_eq!(&masked(&masks, &text, &[1]), &whole, "byte by byte");
        prop_assert_eq!(&masked(&masks, &text, &sizes), &whole);
        for cut in 1..text.len() {
            prop_assert_eq!(&masked(&masks, &text, &[cut, usize::MAX >> 1]), &whole, "cut at {}", cut);
        }
    }
}
