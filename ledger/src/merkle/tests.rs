//! The tree against the recursive definition of RFC 6962, the known answers of Certificate Transparency, and damage.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// Inputs and roots of Certificate Transparency's own tests (`merkletree/merkle_tree_test.cc`): the root over the first 1, 2, … leaves.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// All leaves in memory; subtrees by the definition.
struct Leaves(Vec<Hash>);

impl Leaves {
    fn new(count: u64) -> Self {
        Self((0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect())
    }
}

impl Subtrees for Leaves {
    type Error = Infallible;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        let (width, index) = (1_usize << level, usize::try_from(index).unwrap());
        Ok(defined(&self.0[index * width..][..width]))
    }
}

/// MTH of RFC 6962 section 2.1, word for word.
fn defined(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_nothing(),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(split);
            node_hash(&defined(left), &defined(right))
        }
    }
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut range = Range::default();
    assert_eq!(hex::encode(range.root().as_bytes()), empty);
    for (leaf, root) in LEAVES.iter().zip(ROOTS) {
        assert!(range.push(leaf_hash(&hex::decode(leaf).unwrap())));
        assert_eq!(hex::encode(range.root().as_bytes()), root);
    }
}

#[test]
fn a_tree_that_grows_is_the_defined_one() {
    let leaves = Leaves::new(300);
    let mut range = Range::default();
    for size in 0..=300 {
        assert_eq!(range.size(), size as u64);
        assert_eq!(range.root(), defined(&leaves.0[..size]), "{size}");
        assert_eq!(root(&leaves, size as u64), Ok(range.root()));
        if let Some(leaf) = leaves.0.get(size) {
            assert!(range.push(*leaf));
        }
    }
}

#[test]
fn every_leaf_of_every_small_tree_is_proved() {
    let leaves = Leaves::new(66);
    for size in 1..=66 {
        let root = root(&leaves, size).unwrap();
        for index in 0..size {
            let proof = inclusion_proof(&leaves, index, size).unwrap();
            let leaf = &leaves.0[index as usize];
            verify_inclusion(leaf, index, size, &root, &proof).unwrap();
            assert!(proof.len() <= 8);
            // No other place, and no other size that still has the leaf, is proved by it.
            for other in 0..size {
                let shown = verify_inclusion(leaf, other, size, &root, &proof).is_ok();
                assert_eq!(shown, other == index, "{index} of {size} shown as {other}");
            }
        }
    }
}

#[test]
fn every_pair_of_small_trees_is_proved() {
    let leaves = Leaves::new(66);
    let roots: Vec<Hash> = (0..=66).map(|n| root(&leaves, n).unwrap()).collect();
    for new in 0..=66 {
        for old in 0..=new {
            let proof = consistency_proof(&leaves, old, new).unwrap();
            let (old_root, new_root) = (&roots[old as usize], &roots[new as usize]);
            verify_consistency(old, new, old_root, new_root, &proof).unwrap();
            for wrong in 0..=new {
                let shown = verify_consistency(wrong, new, old_root, new_root, &proof).is_ok();
                assert!(!shown || wrong == old, "{old} to {new} shown as {wrong}");
            }
        }
    }
}

#[test]
fn what_no_tree_has_is_refused() {
    let leaves = Leaves::new(9);
    let hash = leaves.0[0];
    let no_leaf = ProveError::NoSuchLeaf { index: 9, size: 9 };
    assert_eq!(inclusion_proof(&leaves, 9, 9), Err(no_leaf));
    let shrinks = ProveError::Shrinks { old: 9, new: 8 };
    assert_eq!(consistency_proof(&leaves, 9, 8), Err(shrinks));
    let long = vec![hash; MAX_PROOF];
    let length = |hashes| Unproven::Length { hashes };
    for (index, size, proof, wanted) in [
        (0, 0, &[][..], Unproven::NoSuchLeaf { index: 0, size: 0 }),
        (9, 9, &[], Unproven::NoSuchLeaf { index: 9, size: 9 }),
        (0, 9, &[], length(0)),
        (0, 1, &[hash], length(1)),
        (u64::MAX - 1, u64::MAX, &long, length(MAX_PROOF)),
    ] {
        let shown = verify_inclusion(&hash, index, size, &hash, proof);
        assert_eq!(shown, Err(wanted), "{index} of {size}");
    }
    for (old, new, proof, wanted) in [
        (2, 1, &[][..], Unproven::Shrinks { old: 2, new: 1 }),
        (1, 1, &[hash], length(1)),
        (0, 9, &[hash], length(1)),
        (4, 9, &[], length(0)),
        (5, 9, &[], length(0)),
        (1 << 63, u64::MAX, &[], length(0)),
        (u64::MAX - 1, u64::MAX, &long, length(MAX_PROOF)),
    ] {
        let shown = verify_consistency(old, new, &hash, &hash, proof);
        assert_eq!(shown, Err(wanted), "{old} to {new}");
    }
    // An empty tree has one root only.
    let shown = verify_consistency(0, 9, &hash, &hash, &[]);
    assert!(matches!(shown, Err(Unproven::Root { .. })), "{shown:?}");
    let nothing = Hash::of_nothing();
    assert_eq!(verify_consistency(0, 9, &nothing, &hash, &[]), Ok(()));
    assert_eq!(verify_consistency(0, 0, &nothing, &nothing, &[]), Ok(()));
    let shown = verify_consistency(0, 0, &nothing, &hash, &[]);
    assert!(matches!(shown, Err(Unproven::Root { .. })), "{shown:?}");
}

#[test]
fn a_hash_reads_back_from_its_text_alone() {
    let hash = leaf_hash(b"x");
    let text = hash.to_string();
    assert_eq!(text.parse(), Ok(hash));
    for other in ["", &text[1..], &format!("{text}="), &text.replace('=', "")] {
        assert_eq!(other.parse::<Hash>(), Err(BadHash), "{other}");
    }
}

fn flip(hash: &mut Hash, bit: usize) {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    *hash = Hash::from_bytes(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bit_that_is_another_breaks_an_inclusion_proof(
        (size, index) in (1_u64..300).prop_flat_map(|size| (Just(size), 0..size)),
        which in any::<prop::sample::Index>(),
        bit in 0_usize..256,
    ) {
        let leaves = Leaves::new(size);
        let mut root = root(&leaves, size).unwrap();
        let mut proof = inclusion_proof(&leaves, index, size).unwrap();
        let mut leaf = leaves.0[index as usize];
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &root, &proof), Ok(()));
        for cut in 0..proof.len() {
            prop_assert!(verify_inclusion(&leaf, index, size, &root, &proof[..cut]).is_err());
        }
        match which.index(proof.len() + 2) {
            0 => flip(&mut leaf, bit),
            1 => flip(&mut root, bit),
            n => flip(&mut proof[n - 2], bit),
        }
        prop_assert!(verify_inclusion(&leaf, index, size, &root, &proof).is_err());
    }

    #[test]
    fn a_bit_that_is_another_breaks_a_consistency_proof(
        (new, old) in (1_u64..300).prop_flat_map(|new| (Just(new), 1..=new)),
        which in any::<prop::sample::Index>(),
        bit in 0_usize..256,
    ) {
        let leaves = Leaves::new(new);
        let (mut old_root, mut new_root) = (root(&leaves, old).unwrap(), root(&leaves, new).unwrap());
        let mut proof = consistency_proof(&leaves, old, new).unwrap();
        prop_assert_eq!(verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()));
        for cut in 0..proof.len() {
            prop_assert!(verify_consistency(old, new, &old_root, &new_root, &proof[..cut]).is_err());
        }
        match which.index(proof.len() + 2) {
            0 => flip(&mut old_root, bit),
            1 => flip(&mut new_root, bit),
            n => flip(&mut proof[n - 2], bit),
        }
        prop_assert!(verify_consistency(old, new, &old_root, &new_root, &proof).is_err());
    }

    #[test]
    fn any_sizes_and_hashes_are_answered(
        first in any::<u64>(),
        second in any::<u64>(),
        seeds in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let proof: Vec<Hash> = seeds.iter().copied().map(Hash::from_bytes).collect();
        let hash = Hash::of_nothing();
        let shown = verify_inclusion(&hash, first, second, &hash, &proof);
        prop_assert!(shown.is_err() || (first, second) == (0, 1));
        let shown = verify_consistency(first, second, &hash, &hash, &proof);
        prop_assert!(shown.is_err() || first == second || first == 0);
    }
}
