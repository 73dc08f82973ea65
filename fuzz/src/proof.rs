//! What the ledger publishes: notes, checkpoints, tiles, proofs.

use chaperone_ledger::{
    checkpoint::Checkpoint,
    cosignature::Time,
    key::{SigningKey, VerifierKey},
    leaf::Leaf,
    merkle::{
        Hash, Range, leaf_hash, node_hash, verify_consistency as consistent,
        verify_inclusion as included,
    },
    note as notes,
    tile::{Tile, Width, read_entries, read_hashes, write_entry, write_hashes},
    witness::{self as witnesses, Policy},
};

/// The key pair of the documentation of golang.org/x/mod/sumdb/note.
const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const SECRET: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

/// A note: any bytes are answered. What opens is text of the note, and opens again after another key has signed. A text that may be signed opens as it was.
pub(crate) fn note(bytes: &[u8]) {
    let secret: SigningKey = SECRET.parse().expect("the key is sound");
    let known: [VerifierKey; 1] = [PUBLIC.parse().expect("the key is sound")];
    if let Ok(opened) = notes::open(bytes, &known) {
        assert!(bytes.starts_with(opened.text.as_bytes()) && opened.text.ends_with('\n'));
        assert_eq!(opened.signatures.len(), 1);
        if let Ok(more) = notes::countersign(bytes, &secret, Time::default()) {
            let again = notes::open(&more, &known).map(|again| again.text.len());
            assert_eq!(again, Ok(opened.text.len()));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(signed) = notes::sign(text, &[&secret], Time::default()) {
        assert_eq!(notes::open(&signed, &known).map(|n| n.text), Ok(text));
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    if let Ok(key) = text.parse::<SigningKey>() {
        assert_eq!(key.to_secret_text(), text);
    }
}

/// Texts with one form: what reads as a checkpoint, a leaf or a tile's path is written as it was.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(leaf) = text.parse::<Leaf>() {
        assert_eq!(leaf.to_string(), text);
    }
}

/// What a witness answers, and which are asked: any bytes are a signature that verifies, or are refused; a policy reads or is refused by line, and asks for what it says.
pub(crate) fn witness(bytes: &[u8]) {
    let known: VerifierKey = PUBLIC.parse().expect("the key is sound");
    let secret: SigningKey = SECRET.parse().expect("the key is sound");
    let note = notes::sign("log\n1\n", &[&secret], Time::default()).expect("it is a text");
    if let Ok(signed) = witnesses::add(&note, bytes, &known) {
        assert!(signed.starts_with(&note) && signed.len() > note.len());
        assert!(notes::open(&signed, std::slice::from_ref(&known)).is_ok());
    }
    if let Some(size) = witnesses::size(bytes) {
        assert_eq!(format!("{size}\n").as_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(policy) = text.parse::<Policy>() {
        // Who is satisfied by nobody is satisfied by all.
        assert!(!policy.is_satisfied(|_| false) || policy.is_satisfied(|_| true));
        assert!(policy.is_satisfied(|_| true));
    }
}

/// A path of a tile.
pub(crate) fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(tile) = text.parse::<Tile>() {
        assert_eq!(tile.to_string(), text);
        assert!(!text.contains(".."), "a path leaves its folder");
    }
}

/// A tile: its first byte is the width less one. What is read is written as it was.
pub(crate) fn bundle(bytes: &[u8]) {
    let Some((width, bytes)) = bytes.split_first() else {
        return;
    };
    let width = Width::new(u16::from(*width) + 1).expect("1 to 256 is a width");
    if let Ok(entries) = read_entries(bytes, width) {
        assert_eq!(entries.len(), usize::from(width.get()));
        let mut again = Vec::new();
        for entry in entries {
            write_entry(&mut again, entry).expect("its length was two bytes");
        }
        assert_eq!(again, bytes);
    }
    if let Ok(hashes) = read_hashes(bytes, width) {
        assert_eq!(write_hashes(&hashes), bytes);
    }
}

/// A proof: two numbers of eight bytes, and hashes. Any are answered, and what is shown of a tree of up to 64 leaves is so by the tree's definition.
pub(crate) fn proof(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let Some((second, rest)) = rest.split_first_chunk::<8>() else {
        return;
    };
    let (first, second) = (u64::from_be_bytes(*first), u64::from_be_bytes(*second));
    let hashes = rest.as_chunks::<32>().0.iter().copied();
    let proof: Vec<Hash> = hashes.map(Hash::from_bytes).collect();
    let claimed = Hash::of_nothing();
    let inclusion = included(&claimed, first, second, &claimed, &proof);
    // The one leaf of a tree is its root.
    assert!(inclusion.is_err() || (first, second) == (0, 1));
    let consistency = consistent(first, second, &claimed, &claimed, &proof);
    assert!(consistency.is_err() || first == second || first == 0);
    small(first % 64, second % 64, &proof);
}

/// The same hashes against real trees: only the right ones prove anything.
fn small(first: u64, second: u64, proof: &[Hash]) {
    let leaves: Vec<Hash> = (0..second).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    let root = defined(&leaves);
    let mut range = Range::default();
    for leaf in &leaves {
        assert!(range.push(*leaf));
    }
    assert_eq!(range.root(), root);
    let Ok(place) = usize::try_from(first) else {
        return;
    };
    if let Some(leaf) = leaves.get(place) {
        let shown = included(leaf, first, second, &root, proof).is_ok();
        assert_eq!(shown, proof == path_of(&leaves, place));
    }
    if let Some(older) = leaves.get(..place) {
        let shown = consistent(first, second, &defined(older), &root, proof).is_ok();
        assert!(!shown || proof.len() <= 7);
    }
}

/// MTH of RFC 6962 section 2.1.
fn defined(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_nothing(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&defined(left), &defined(right))
        }
    }
}

/// PATH of RFC 6962 section 2.1.1.
fn path_of(leaves: &[Hash], place: usize) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, other) = match place.checked_sub(split) {
        Some(place) => (path_of(right, place), left),
        None => (path_of(left, place), right),
    };
    path.push(defined(other));
    path
}
