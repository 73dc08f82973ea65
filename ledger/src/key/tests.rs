use super::*;

/// From the documentation of golang.org/x/mod/sumdb/note.
const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const SKEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

#[test]
fn keys_of_go_read_back_and_belong_together() {
    let (public, private): (VerifierKey, SigningKey) =
        (VKEY.parse().unwrap(), SKEY.parse().unwrap());
    assert_eq!(public.to_string(), VKEY);
    assert_eq!(private.to_secret_text(), SKEY);
    assert_eq!(private.verifier(), &public);
    assert_eq!(public.algorithm(), Algorithm::Ed25519);
    assert_eq!(public.id().to_string(), "c74f20a3");
}

#[test]
fn a_key_of_a_witness_has_another_id() {
    let name: KeyName = "witness.example/w1".parse().unwrap();
    let ids = [Algorithm::Ed25519, Algorithm::CosignatureV1].map(|algorithm| {
        let key = SigningKey::from_seed(name.clone(), algorithm, [7; 32]);
        let text = key.to_secret_text();
        assert_eq!(
            text.parse::<SigningKey>().unwrap().verifier(),
            key.verifier()
        );
        let public = key.verifier().to_string();
        assert_eq!(public.parse().as_ref(), Ok(key.verifier()));
        key.verifier().id()
    });
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_secret_is_not_shown() {
    let key: SigningKey = SKEY.parse().unwrap();
    let shown = format!("{key:?}");
    assert!(!shown.contains("AYEKFALV"), "{shown}");
}

#[test]
fn two_new_keys_differ() {
    let name: KeyName = "a".parse().unwrap();
    let new = || SigningKey::generate(name.clone(), Algorithm::Ed25519).unwrap();
    assert_ne!(new().verifier(), new().verifier());
}

#[test]
fn what_is_no_key_is_refused() {
    let form = BadKey::Form(VERIFIER_FORM);
    for (text, wanted) in [
        ("", &form),
        ("PeterNeumann", &form),
        ("PeterNeumann+c74f20a3", &form),
        (&VKEY.replace("c74f", "C74F"), &form),
        (&VKEY.replace("c74f20a3", "c74f20"), &form),
        (&VKEY.replace("TW", "TW=="), &form),
        (&VKEY.replace("TW", ""), &form),
        (&format!("{VKEY}{}", "A".repeat(1024)), &form),
        (&VKEY.replace("PeterNeumann", ""), &BadKey::Name),
        (
            &VKEY.replace("PeterNeumann", "Peter Neumann"),
            &BadKey::Name,
        ),
        (&VKEY.replace("PeterNeumann", "a\u{2003}b"), &BadKey::Name),
        (&VKEY.replace("+AR", "+BR"), &BadKey::Algorithm(5)),
    ] {
        assert_eq!(text.parse::<VerifierKey>().as_ref(), Err(wanted), "{text}");
    }
    let other = VKEY.replace("PeterNeumann", "PeterNewmann");
    let refused = other.parse::<VerifierKey>();
    assert!(matches!(refused, Err(BadKey::Id { .. })), "{refused:?}");
    let form = BadKey::Form(SIGNING_FORM);
    assert_eq!(VKEY.parse::<SigningKey>().unwrap_err(), form);
    let other = SKEY.replace("AYEKF", "AYEKE").parse::<SigningKey>();
    assert!(matches!(other, Err(BadKey::Id { .. })), "{other:?}");
}
