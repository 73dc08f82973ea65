use super::*;
use crate::{
    checkpoint,
    cosignature::Time,
    key::{Algorithm, SigningKey},
    merkle::verify_consistency,
    store::{Config, Store},
    testing::{Folder, ORIGIN, id, key},
};
use chaperone_crds::{
    bodies::unsalted,
    chain::Chain,
    record::{AgentRef, Event, EventKind},
};

fn witness(number: u8) -> SigningKey {
    let name = format!("witness.example/w{number}").parse().unwrap();
    SigningKey::from_seed(name, Algorithm::CosignatureV1, [number; 32])
}

/// The only line that a witness adds.
fn cosignature(note: &[u8], witness: &SigningKey) -> Vec<u8> {
    let signed = note::countersign(note, witness, Time::new(7).unwrap()).unwrap();
    signed[note.len()..].to_vec()
}

fn policy() -> Policy {
    let [one, two, three] = [1, 2, 3].map(|n| witness(n).verifier().to_string());
    let log = key(5).verifier().to_string();
    format!(
        "# who looks\nlog {log}\n\nwitness one {one} https://one.example/\nwitness two {two} https://two.example/w # the other\nwitness three {three}\ngroup pair all one two\ngroup most 1 pair three\nquorum most\n"
    )
    .parse()
    .unwrap()
}

#[test]
fn a_policy_says_who_suffices() {
    let policy = policy();
    let urls: Vec<_> = policy
        .witnesses()
        .iter()
        .map(|w| w.url.as_deref())
        .collect();
    let expected = [
        Some("https://one.example/"),
        Some("https://two.example/w"),
        None,
    ];
    assert_eq!(urls, expected);
    assert_eq!(policy.logs(), [key(5).verifier().clone()]);
    for (signed, suffices) in [
        (&[][..], false),
        (&[1], false),
        (&[1, 2], true),
        (&[3], true),
        (&[1, 3], true),
    ] {
        let signed: Vec<_> = signed
            .iter()
            .map(|n| witness(*n).verifier().clone())
            .collect();
        assert_eq!(
            policy.is_satisfied(|key| signed.contains(key)),
            suffices,
            "{signed:?}"
        );
    }
    let none: Policy = "quorum none".parse().unwrap();
    assert!(none.is_satisfied(|_| false));
}

#[test]
fn a_policy_that_could_mean_two_things_is_refused_with_its_line() {
    let one = format!(
        "witness one {} https://one.example/\n",
        witness(1).verifier()
    );
    let log = key(5).verifier().clone();
    for (text, words) in [
        (String::new(), "no line 'quorum"),
        (one.clone(), "no line 'quorum"),
        (
            "quorum one\n".to_owned(),
            "line 1 of the witness policy: one is not defined before",
        ),
        (
            format!("{one}quorum one\nquorum none"),
            "line 3 of the witness policy: there is a quorum already",
        ),
        (format!("{one}{one}quorum one"), "the name one is taken"),
        (
            format!(
                "{one}{}quorum one",
                one.replace("witness one", "witness two")
            ),
            "is there twice",
        ),
        (
            format!("witness log {log} https://one.example/\nquorum log"),
            "is no witness's key",
        ),
        (
            format!("{one}group g 2 one\nquorum g"),
            "a threshold is any, all, or 1 to 1",
        ),
        (
            format!("{one}group g 0 one\nquorum g"),
            "a threshold is any, all, or 1 to 1",
        ),
        (
            format!("{one}group g 1 one one\nquorum g"),
            "names a member twice",
        ),
        (
            format!("group g 1 one\n{one}quorum g"),
            "one is not defined before",
        ),
        (
            format!("{one}group g any\nquorum g"),
            "it is none of: log VKEY",
        ),
        (
            "witness w w+1 https://x/\nquorum w".to_owned(),
            "w+1 is no key",
        ),
        (
            format!("{}quorum none", "#\n".repeat(1000)),
            "at most 1000 lines",
        ),
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_request_has_the_form_of_the_specification() {
    let proof = [Hash::of_nothing()];
    let text = request(20_852_163, &proof, b"note\n");
    let expected = "old 20852163\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\nnote\n";
    assert_eq!(text, expected.as_bytes());
    assert_eq!(request(0, &[], b"note\n"), b"old 0\n\nnote\n");
}

#[test]
fn only_a_signature_that_is_right_is_added() {
    let origin = ORIGIN.parse().unwrap();
    let checkpoint = checkpoint::Checkpoint::new(origin, 3, Hash::of_nothing());
    let note = checkpoint.sign(&[&key(5)], Time::new(1).unwrap()).unwrap();
    let (its, other) = (
        cosignature(&note, &witness(1)),
        cosignature(&note, &witness(2)),
    );
    let one = witness(1);
    let key_one = one.verifier();
    let signed = add(&note, &its, key_one).unwrap();
    assert_eq!(signed, [&note[..], &its].concat());
    // Whatever else comes with it is left out.
    let more = [&other[..], &its, b"\nx"].concat();
    assert_eq!(add(&note, &more, key_one).unwrap(), signed);
    assert!(matches!(
        add(&note, &other, key_one),
        Err(NoCosignature::NotIts(_))
    ));
    let elsewhere = [b"x".as_slice(), &note].concat();
    assert!(matches!(
        add(&elsewhere, &its, key_one),
        Err(NoCosignature::Note(NoteError::Forged { .. }))
    ));
    assert!(matches!(
        add(&note, &[0xff], key_one),
        Err(NoCosignature::Form)
    ));
    assert!(add(&note, &vec![b'x'; MAX_ANSWER_BYTES + 1], key_one).is_err());
    assert!(add(&note, b"", key_one).is_err());
}

#[test]
fn the_size_of_an_answer_is_a_number_and_a_newline() {
    assert_eq!(size(b"0\n"), Some(0));
    assert_eq!(size(b"20852163\n"), Some(20_852_163));
    for no in [
        &b""[..],
        b"7",
        b"07\n",
        b"+7\n",
        b"7\n\n",
        b"99999999999999999999\n",
        b"\xff\n",
    ] {
        assert_eq!(size(no), None, "{no:?}");
    }
}

#[test]
fn a_proof_out_of_a_directory_leads_from_any_size_to_the_newest() {
    let folder = Folder::new();
    let mut store = Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 1024 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let mut chain = Chain::new(id(1));
    let mut roots = Vec::new();
    for number in 0..600 {
        let kind = if number == 0 {
            EventKind::StreamOpen
        } else {
            EventKind::Dns
        };
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let mut line = Vec::new();
        chain.append(
            &Event::new(kind, AgentRef::default()),
            now,
            unsalted,
            &mut line,
        );
        let _ = store.stage(&id(1), &line).unwrap();
        roots.push(store.root());
    }
    assert!(newest(&folder.0).unwrap().is_none());
    let note = store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
    assert_eq!(newest(&folder.0).unwrap(), Some(note));
    for old in [1, 2, 255, 256, 257, 511, 599, 600] {
        let shown = proof(&folder.0, old, 600).unwrap();
        let (older, newer) = (roots[old as usize - 1], roots[599]);
        verify_consistency(old, 600, &older, &newer, &shown).unwrap();
    }
    assert!(proof(&folder.0, 601, 600).is_err());
}
