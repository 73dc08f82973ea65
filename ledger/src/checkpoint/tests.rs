use proptest::prelude::*;

use super::*;
use crate::key::SigningKey;

/// From C2SP tlog-checkpoint.
const TEXT: &str =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn key(name: &str, algorithm: Algorithm) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), algorithm, [3; 32])
}

#[test]
fn the_checkpoint_of_the_specification_reads_back() {
    let checkpoint: Checkpoint = TEXT.parse().unwrap();
    assert_eq!(checkpoint.origin.as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.to_string(), TEXT);
    let longer = format!("{TEXT}one\ntwo\n");
    let checkpoint: Checkpoint = longer.parse().unwrap();
    assert_eq!(checkpoint.extensions(), ["one", "two"]);
    assert_eq!(checkpoint.to_string(), longer);
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    for text in [
        "",
        "\n",
        TEXT.trim_end(),
        &TEXT.replace("example.com/behind-the-sofa", ""),
        &TEXT.replace("20852163", "020852163"),
        &TEXT.replace("20852163", "+20852163"),
        &TEXT.replace("20852163", "-1"),
        &TEXT.replace("20852163", ""),
        &TEXT.replace("20852163", "18446744073709551616"),
        &TEXT.replace("q2I=", "q2J="),
        &TEXT.replace("q2I=", ""),
        &format!("{TEXT}\n"),
        &format!("{TEXT}one\n\ntwo\n"),
        &"x\n".repeat(2),
        &TEXT.replace("example", &"x".repeat(MAX_ORIGIN_BYTES)),
    ] {
        let read = text.parse::<Checkpoint>();
        assert!(matches!(read, Err(CheckpointError::Form(_))), "{text:?}");
    }
    let most = TEXT.replace("20852163", &u64::MAX.to_string());
    assert_eq!(most.parse::<Checkpoint>().unwrap().size, u64::MAX);
}

#[test]
fn the_log_must_have_signed_whoever_else_did() {
    let checkpoint: Checkpoint = TEXT.parse().unwrap();
    let origin = checkpoint.origin.clone();
    let log = key(origin.as_str(), Algorithm::Ed25519);
    let witness = key("witness.example", Algorithm::CosignatureV1);
    // A cosigner that took the log's name is no log.
    let namesake = key(origin.as_str(), Algorithm::CosignatureV1);
    let known = [&log, &witness, &namesake].map(|k| k.verifier().clone());
    let now = Time::new(9).unwrap();
    let note = checkpoint.sign(&[&log, &witness], now).unwrap();
    let signed = open(&note, &origin, &known).unwrap();
    assert_eq!(signed.checkpoint, checkpoint);
    assert_eq!(signed.signatures.len(), 2);
    let note = checkpoint.sign(&[&witness, &namesake], now).unwrap();
    assert_eq!(open(&note, &origin, &known), Err(CheckpointError::NotByLog));
    let note = checkpoint.sign(&[&log], now).unwrap();
    let refused = open(&note, &origin, &known[1..]);
    assert_eq!(refused, Err(CheckpointError::Note(NoteError::Unsigned)));
}

#[test]
fn a_checkpoint_of_another_log_is_refused_even_under_a_known_key() {
    let log = key("a.example", Algorithm::Ed25519);
    let other = Checkpoint::new("b.example".parse().unwrap(), 0, Hash::of_nothing());
    let note = other.sign(&[&log], Time::default()).unwrap();
    let known = [log.verifier().clone()];
    let refused = open(&note, &"a.example".parse().unwrap(), &known);
    assert!(matches!(refused, Err(CheckpointError::Origin { .. })));
}

proptest! {
    #[test]
    fn what_reads_as_a_checkpoint_is_written_as_it_was(text in "[a-z\n]{0,4}\n?0?[0-9]{0,3}\n[A-Za-z0-9+/]{43}=\n{0,2}[a-z\n]{0,3}") {
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }
}
