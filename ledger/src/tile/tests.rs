use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::merkle::{
    Range, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
    verify_inclusion,
};

fn tile(row: Row, index: u64, width: u16) -> Tile {
    let width = Width::new(width).unwrap();
    Tile { row, index, width }
}

/// Tiles in memory, as a folder would have them.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Source for Memory {
    type Error = ();

    fn read(&self, tile: Tile) -> Result<Vec<u8>, ()> {
        self.0.get(&tile.to_string()).cloned().ok_or(())
    }
}

/// The tiles and the root of a tree of this many leaves.
fn build(size: u64) -> (Memory, Range) {
    let (mut builder, mut range, mut memory) =
        (Builder::default(), Range::default(), Memory::default());
    for n in 0..size {
        let leaf = leaf_hash(&n.to_be_bytes());
        assert!(range.push(leaf));
        for full in builder.push(leaf) {
            let before = memory
                .0
                .insert(full.tile.to_string(), write_hashes(&full.hashes));
            assert_eq!(before, None, "given away twice");
        }
    }
    assert_eq!(builder.size(), size);
    for tile in Tile::partial(size) {
        if let Row::Hashes(level) = tile.row {
            let edge = builder.edge(level).unwrap();
            assert_eq!(edge.len(), usize::from(tile.width.get()));
            memory.0.insert(tile.to_string(), write_hashes(edge));
        }
    }
    assert_eq!(builder.root(), range.root());
    (memory, range)
}

#[test]
fn paths_are_those_of_the_specification() {
    for (text, wanted) in [
        ("tile/0/000", tile(Row::Hashes(0), 0, 256)),
        ("tile/3/x001/x234/067", tile(Row::Hashes(3), 1_234_067, 256)),
        ("tile/63/x001/000.p/1", tile(Row::Hashes(63), 1000, 1)),
        ("tile/entries/999.p/255", tile(Row::Entries, 999, 255)),
        (
            "tile/0/x018/x446/x744/x073/x709/x551/615.p/112",
            tile(Row::Hashes(0), u64::MAX, 112),
        ),
    ] {
        assert_eq!(text.parse(), Ok(wanted));
        assert_eq!(wanted.to_string(), text);
    }
}

#[test]
fn other_paths_name_no_tile() {
    for text in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/00a",
        "tile/0/+01",
        "tile/0/x000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x1/000",
        "tile/0/000/",
        "/tile/0/000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p",
        "tile/0/../000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x018/x446/x744/x073/x709/x551/x615/000",
    ] {
        assert_eq!(text.parse::<Tile>(), Err(BadPath), "{text}");
    }
}

#[test]
fn a_tree_has_the_tiles_that_the_specification_counts() {
    // Its own example: 273 full tiles and one of 112, one full and one of 17, one of 1.
    let partial: Vec<Tile> = Tile::partial(70_000).collect();
    let wanted = [
        tile(Row::Entries, 273, 112),
        tile(Row::Hashes(0), 273, 112),
        tile(Row::Hashes(1), 1, 17),
        tile(Row::Hashes(2), 0, 1),
    ];
    assert_eq!(partial, wanted);
    let partial: Vec<Tile> = Tile::partial(256).collect();
    assert_eq!(partial, [tile(Row::Hashes(1), 0, 1)]);
    assert_eq!(Tile::partial(0).count(), 0);
    assert_eq!(
        Tile::within(Row::Hashes(0), 272, 70_000),
        Some(tile(Row::Hashes(0), 272, 256))
    );
    assert_eq!(Tile::within(Row::Hashes(0), 274, 70_000), None);
    assert_eq!(Tile::within(Row::Hashes(0), u64::MAX, u64::MAX), None);
    assert_eq!(Tile::within(Row::Hashes(63), 0, u64::MAX), None);
    assert_eq!(Tile::partial(u64::MAX).count(), 9);
}

#[test]
fn proofs_read_out_of_tiles_verify() {
    let size = 70_000;
    let (memory, range) = build(size);
    let tree = TileTree::new(&memory, size);
    assert_eq!(root(&tree, size), Ok(range.root()));
    for index in [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
        let proof = inclusion_proof(&tree, index, size).unwrap();
        let leaf = leaf_hash(&index.to_be_bytes());
        verify_inclusion(&leaf, index, size, &range.root(), &proof).unwrap();
    }
    for old in [1, 255, 256, 257, 65_536, 65_537, 69_999] {
        let (_, older) = build(old);
        let proof = consistency_proof(&tree, old, size).unwrap();
        verify_consistency(old, size, &older.root(), &range.root(), &proof).unwrap();
    }
}

#[test]
fn tiles_that_are_missing_short_or_outside_are_named() {
    let (mut memory, _) = build(600);
    let tree = TileTree::new(&memory, 600);
    assert_eq!(tree.hashes(0, 3), Err(TreeError::Outside));
    assert_eq!(tree.hashes(1, 0).unwrap().len(), 2);
    assert_eq!(tree.hashes(2, 0), Err(TreeError::Outside));
    use crate::merkle::Subtrees as _;
    assert_eq!(tree.subtree(0, u64::MAX), Err(TreeError::Outside));
    assert_eq!(tree.subtree(u8::MAX, 0), Err(TreeError::Outside));
    assert_eq!(tree.subtree(8, 2), Err(TreeError::Outside));
    let last = tile(Row::Hashes(0), 2, 88);
    memory.0.get_mut(&last.to_string()).unwrap().pop();
    let fault = BadTile::Hashes {
        width: 88,
        bytes: 88 * 32 - 1,
    };
    let tree = TileTree::new(&memory, 600);
    let wanted = TreeError::Bad { tile: last, fault };
    assert_eq!(root(&tree, 600), Err(wanted));
    memory.0.remove(&last.to_string());
    let tree = TileTree::new(&memory, 600);
    let (tile, error) = (last, ());
    assert_eq!(root(&tree, 600), Err(TreeError::Source { tile, error }));
}

#[test]
fn a_bundle_is_entries_with_their_lengths() {
    let longest = vec![7; usize::from(u16::MAX)];
    let entries = [&b""[..], b"one", &longest];
    let mut bundle = Vec::new();
    for entry in entries {
        write_entry(&mut bundle, entry).unwrap();
    }
    assert_eq!(&bundle[..7], b"\0\0\0\x03one");
    let three = Width::new(3).unwrap();
    assert_eq!(read_entries(&bundle, three), Ok(entries.to_vec()));
    let refused = Err(BadTile::Entries { width: 3 });
    for cut in [0, 1, 3, 6, 7, 8, bundle.len() - 1] {
        assert_eq!(read_entries(&bundle[..cut], three), refused, "{cut}");
    }
    assert_eq!(read_entries(&[&bundle[..], &[0]].concat(), three), refused);
    assert!(read_entries(&bundle, Width::new(2).unwrap()).is_err());
    assert!(read_entries(&bundle, Width::new(4).unwrap()).is_err());
    let before = bundle.len();
    assert_eq!(
        write_entry(&mut bundle, &vec![0; 65_536]),
        Err(EntryTooLong)
    );
    assert_eq!(bundle.len(), before);
}

proptest! {
    #[test]
    fn a_path_reads_back(level in 0_u8..64, entries: bool, index: u64, width in 1_u16..=256) {
        let row = if entries { Row::Entries } else { Row::Hashes(level) };
        let tile = tile(row, index, width);
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }

    #[test]
    fn any_text_that_reads_as_a_path_is_the_path(text in "tile/(entries|[0-9]{1,2})/(x?[0-9]{3}/){0,2}x?[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text);
        }
    }

    #[test]
    fn any_bytes_are_a_bundle_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), width in 1_u16..8) {
        let width = Width::new(width).unwrap();
        if let Ok(entries) = read_entries(&bytes, width) {
            let mut again = Vec::new();
            for entry in entries {
                write_entry(&mut again, entry).unwrap();
            }
            prop_assert_eq!(again, bytes);
        }
    }
}
