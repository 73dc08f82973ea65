use proptest::prelude::*;

use super::*;

fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    each_word(text, |word| found.push(word.to_owned()));
    found
}

#[test]
fn words_are_letters_and_digits_in_lower_case() {
    assert_eq!(
        words("GET https://API.example.com/v1/user_id?q=Straße%20ÉTÉ"),
        [
            "get", "https", "api", "example", "com", "v1", "user", "id", "q", "straße", "20été"
        ]
    );
    assert!(words(" -- \u{0} \"*\" ").is_empty());
    let long = "x".repeat(100);
    assert_eq!(words(&format!("{long} y")), [&long[..MAX_WORD_BYTES], "y"]);
    let wide = "é".repeat(100);
    assert_eq!(words(&wide), [&wide[..MAX_WORD_BYTES]]);
}

#[test]
fn a_query_is_words_rows_and_beginnings() {
    for (query, text, expected) in [
        ("token", "a token here", true),
        ("token", "tokens here", false),
        ("tok*", "tokens here", true),
        ("here token", "a token here", true),
        ("\"here token\"", "a token here", false),
        ("\"token here\"", "a token, here", true),
        ("\"token her*\"", "a token, here", true),
        ("\"tok her*\"", "a token, here", false),
        ("api.example.com", "https://api.example.com/x", true),
        ("api.example.com", "example.api.com", false),
        ("token missing", "a token here", false),
        ("\"unclosed row", "an unclosed row", true),
        ("ÉTÉ", "été", true),
        ("a a b", "a b", true),
        ("\"a a b\"", "a a a b", true),
        (
            "NEAR(a b) AND NOT x:y OR {z}",
            "near a b and not x y or z",
            true,
        ),
    ] {
        let parsed = Text::parse(query).unwrap();
        assert_eq!(parsed.is_in(&[text]), expected, "{query} in {text}");
    }
    let both = Text::parse("one two").unwrap();
    assert!(
        both.is_in(&["one", "two"]),
        "terms may be in different texts"
    );
    assert!(!Text::parse("\"one two\"").unwrap().is_in(&["one", "two"]));
}

#[test]
fn what_is_no_query_is_named() {
    assert_eq!(Text::parse(""), Err(BadText::NoWord));
    assert_eq!(Text::parse("\"*\" -"), Err(BadText::NoWord));
    assert_eq!(Text::parse("tok* to*"), Err(BadText::ShortPrefix));
    assert_eq!(Text::parse("\"a token t*\""), Err(BadText::ShortPrefix));
    assert_eq!(Text::parse(&"x".repeat(1025)), Err(BadText::TooLong));
    assert_eq!(Text::parse(&"x ".repeat(33)), Err(BadText::TooMany));
    assert!(Text::parse(&"x ".repeat(32)).is_ok());
}

proptest! {
    #[test]
    fn every_text_has_the_words_that_it_is_asked_for(text in ".{0,200}") {
        let found = words(&text);
        for word in &found {
            prop_assert!(word.len() <= MAX_WORD_BYTES && !word.is_empty());
            prop_assert!(word.chars().all(char::is_alphanumeric), "{word:?}");
            prop_assert!(!word.chars().any(|c| c.is_ascii_uppercase()));
        }
        if let Ok(query) = Text::parse(&text) {
            prop_assert!(query.is_in(&[&text]), "{query:?}");
        }
    }
}
