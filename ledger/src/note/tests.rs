use proptest::prelude::*;

use super::*;
use crate::key::Algorithm;

/// From the documentation of golang.org/x/mod/sumdb/note.
const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const SKEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

/// From C2SP signed-note.
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn time(seconds: u64) -> Time {
    Time::new(seconds).unwrap()
}

fn keys(texts: &[&str]) -> Vec<VerifierKey> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn witness(seed: u8) -> SigningKey {
    let name = format!("witness.example/{seed}").parse().unwrap();
    SigningKey::from_seed(name, Algorithm::CosignatureV1, [seed; 32])
}

#[test]
fn the_note_of_the_specification_opens() {
    let known = keys(&[VKEY, EXAMPLE_KEY]);
    let opened = open(EXAMPLE.as_bytes(), &known).unwrap();
    assert_eq!(opened.text, "This is an example message.\n");
    assert_eq!(opened.unknown, 0);
    let [by] = opened.signatures[..] else {
        panic!("{opened:?}");
    };
    assert_eq!((by.key, by.time), (&known[1], None));
}

#[test]
fn a_note_is_signed_as_go_signs_it() {
    let key: SigningKey = SKEY.parse().unwrap();
    let note = sign(TEXT, &[&key], Time::default()).unwrap();
    assert_eq!(String::from_utf8(note).unwrap(), format!("{TEXT}\n{LINE}"));
}

#[test]
fn witnesses_sign_with_their_time_and_are_known_by_it() {
    let log: SigningKey = SKEY.parse().unwrap();
    let (one, two) = (witness(1), witness(2));
    let note = sign(TEXT, &[&log], Time::default()).unwrap();
    let note = countersign(&note, &one, time(1_679_315_147)).unwrap();
    let note = countersign(&note, &two, time(7)).unwrap();
    let known = vec![two.verifier().clone(), log.verifier().clone()];
    let opened = open(&note, &known).unwrap();
    let seen: Vec<_> = opened.signatures.iter().map(|s| s.time).collect();
    assert_eq!(seen, [None, Some(time(7))]);
    assert_eq!(opened.unknown, 1);
}

#[test]
fn a_cosignature_of_another_time_is_forged() {
    let one = witness(1);
    let note = sign(TEXT, &[&one], time(1)).unwrap();
    let other = sign(TEXT, &[&one], time(2)).unwrap();
    assert_ne!(note, other);
    let text = String::from_utf8(note).unwrap();
    let start = text.rfind(' ').unwrap() + 1;
    let mut bytes = STANDARD.decode(text[start..].trim_end()).unwrap();
    // The last byte of the time: after the key's ID.
    bytes[11] = 2;
    let forged = format!("{}{}\n", &text[..start], STANDARD.encode(&bytes));
    let known = [one.verifier().clone()];
    let refused = open(forged.as_bytes(), &known);
    assert!(matches!(refused, Err(NoteError::Forged { .. })));
    // More than 2^63 - 1 is no time.
    bytes[4] = 0x80;
    let forged = format!("{}{}\n", &text[..start], STANDARD.encode(&bytes));
    assert!(matches!(
        open(forged.as_bytes(), &known),
        Err(NoteError::Forged { .. })
    ));
}

#[test]
fn whoever_signs_twice_is_one_signer() {
    let one = witness(1);
    let note = sign(TEXT, &[&one], time(1)).unwrap();
    let note = countersign(&note, &one, time(2)).unwrap();
    let known = [one.verifier().clone()];
    let opened = open(&note, &known).unwrap();
    assert_eq!(opened.signatures.len(), 1);
    assert_eq!(opened.signatures[0].time, Some(time(1)));
}

#[test]
fn one_wrong_signature_of_a_known_key_condemns_the_note() {
    let one = witness(1);
    let other = sign("another text\n", &[&one], time(1)).unwrap();
    let other = String::from_utf8(other).unwrap();
    let stolen = other.split("\n\n").nth(1).unwrap();
    let note = format!("{TEXT}\n{LINE}{stolen}");
    let known = [VKEY.parse().unwrap(), one.verifier().clone()];
    let (name, id) = (one.verifier().name().clone(), one.verifier().id());
    let refused = open(note.as_bytes(), &known);
    assert_eq!(refused, Err(NoteError::Forged { name, id }));
    // To whom the key is unknown, it says nothing.
    assert!(open(note.as_bytes(), &known[..1]).is_ok());
}

#[test]
fn notes_that_nobody_known_has_signed_say_nothing() {
    let note = format!("{TEXT}\n{LINE}");
    assert_eq!(open(note.as_bytes(), &[]), Err(NoteError::Unsigned));
    let known = keys(&[EXAMPLE_KEY]);
    assert_eq!(open(note.as_bytes(), &known), Err(NoteError::Unsigned));
    // The name alone makes no known key.
    let namesake =
        SigningKey::from_seed("PeterNeumann".parse().unwrap(), Algorithm::Ed25519, [1; 32]);
    let known = [namesake.verifier().clone()];
    assert_eq!(open(note.as_bytes(), &known), Err(NoteError::Unsigned));
}

#[test]
fn what_is_no_note_is_refused() {
    let known = keys(&[VKEY]);
    let bad = |line| NoteError::Signature { line };
    for (note, wanted) in [
        (String::new(), NoteError::Form),
        (TEXT.to_owned(), NoteError::Form),
        (format!("{TEXT}{LINE}"), NoteError::Form),
        (format!("{TEXT}\n{}", LINE.trim_end()), NoteError::Form),
        (format!("{TEXT}\n"), NoteError::Form),
        (format!("{TEXT}\r\n{LINE}"), NoteError::Characters),
        (format!("a\tb\n\n{LINE}"), NoteError::Characters),
        (format!("{TEXT}\n{LINE}x\n"), bad(2)),
        (format!("{TEXT}\n{LINE}\u{2014} a+b AAAAAAAA\n"), bad(2)),
        (format!("{TEXT}\n{LINE}\u{2014} a AAAA\n"), bad(2)),
        (format!("{TEXT}\n{LINE}\u{2014} a AAAAAA==\n"), bad(2)),
        (format!("{TEXT}\n{}", LINE.replace('=', "")), bad(1)),
        (
            format!("{TEXT}\n{}", LINE.repeat(MAX_SIGNATURES + 1)),
            NoteError::TooManySignatures,
        ),
        ("x".repeat(MAX_NOTE_BYTES + 1), NoteError::TooLong),
    ] {
        let start: String = note.chars().take(200).collect();
        assert_eq!(open(note.as_bytes(), &known), Err(wanted), "{start}");
    }
    assert_eq!(open(b"\xff\n\n", &known), Err(NoteError::Characters));
    let key: SigningKey = SKEY.parse().unwrap();
    let now = Time::default();
    for (text, wanted) in [
        ("no newline", NoteError::Form),
        ("a\r\n", NoteError::Characters),
    ] {
        assert_eq!(sign(text, &[&key], now), Err(wanted));
    }
    assert_eq!(sign(TEXT, &[], now), Err(NoteError::Unsigned));
    let many = vec![&key; MAX_SIGNATURES + 1];
    assert_eq!(sign(TEXT, &many, now), Err(NoteError::TooManySignatures));
    assert!(sign(TEXT, &many[1..], now).is_ok());
}

#[test]
fn sixteen_signatures_and_empty_lines_in_the_text_are_fine() {
    let text = "a\n\nb\n\n\u{2014} c\n";
    let log: SigningKey = SKEY.parse().unwrap();
    let witnesses: Vec<SigningKey> = (1..16).map(witness).collect();
    let mut all = vec![&log];
    all.extend(&witnesses);
    let note = sign(text, &all, time(1)).unwrap();
    let known: Vec<_> = all.iter().map(|k| k.verifier().clone()).collect();
    let opened = open(&note, &known).unwrap();
    assert_eq!((opened.text, opened.signatures.len()), (text, 16));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_bit_that_is_another_makes_no_note(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let known = keys(&[VKEY]);
        let mut note = format!("{TEXT}\n{LINE}").into_bytes();
        let at = at.index(note.len());
        note[at] ^= 1_u8 << bit;
        prop_assert!(open(&note, &known).is_err());
    }

    #[test]
    fn any_text_that_may_be_signed_opens_again(text in "[^\\x00-\\x09\\x0b-\\x1f]{0,80}") {
        let key: SigningKey = SKEY.parse().unwrap();
        let text = format!("{text}\n");
        let note = sign(&text, &[&key], Time::default()).unwrap();
        let known = [key.verifier().clone()];
        let opened = open(&note, &known).unwrap();
        prop_assert_eq!(opened.text, text);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&bytes, &keys(&[VKEY])).is_err());
    }
}
