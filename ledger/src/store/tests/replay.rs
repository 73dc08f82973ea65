//! A directory that another fills, read as it grows.

use std::{collections::BTreeSet, path::Path};

use super::*;
use crate::follow::Place;

/// What a replica has of a leader's directory.
fn copy(from: &Folder, to: &Folder) {
    fs::create_dir_all(to.0.join("records")).unwrap();
    for file in fs::read_dir(from.0.join("records")).unwrap() {
        let file = file.unwrap();
        let there = to.0.join("records").join(file.file_name());
        fs::copy(file.path(), there).unwrap();
    }
}

/// Reads all there is, a step at a time. Names of the records that were shown.
fn read(replay: &mut Replay, end: Cursor, bytes: u64, shown: &mut Vec<(StreamId, u64)>) {
    let mut each = |kept: Kept<'_>| {
        shown.push((kept.stream.clone(), kept.seq));
        None
    };
    while !replay.read(end.place, bytes, &mut each).unwrap() {}
    assert_eq!(replay.leaves(), end.leaf);
    assert!(replay.read(end.place, bytes, &mut each).unwrap());
}

fn records(folder: &Folder) -> PathBuf {
    segments::path(&folder.0.join("records"), 0)
}

#[test]
fn a_directory_that_grows_is_read_step_by_step_and_opened_as_if_at_once() {
    for bytes in [1, 100, 5000, u64::MAX] {
        let (folder, other) = (Folder::new(), Folder::new());
        let mut store = open(&folder).unwrap();
        let mut replay = Replay::new(&config(&other), Keeper::default());
        let mut shown = Vec::new();
        let streams: Vec<_> = (1..=3).map(|n| (n, lines(n, 60))).collect();
        for step in 0..6 {
            for (stream, lines) in &streams {
                for batch in lines[step * 10..][..10].chunks(3) {
                    take(&mut store, *stream, batch);
                }
            }
            let newest = store.end().place.segment;
            if step % 2 == 1 {
                // Whatever of them was read: the first stream's records are deleted.
                let mut sweeper = Sweeper::new(&folder.0, id(9));
                sweeper.look(newest, || {}).unwrap();
                let gone = BTreeSet::from([id(1)]);
                for segment in 0..newest {
                    sweeper.rewrite(segment, &gone).unwrap();
                    replay.rewritten(segment);
                }
            }
            copy(&folder, &other);
            if step != 2 {
                read(&mut replay, store.end(), bytes, &mut shown);
            }
        }
        for (stream, lines) in &streams {
            take(&mut store, *stream, &lines[60..]);
        }
        store.checkpoint(&[&key(5)], time(1)).unwrap();
        copy(&folder, &other);
        fs::copy(folder.0.join("checkpoint"), other.0.join("checkpoint")).unwrap();
        let before = replay.leaves();
        assert!(before >= 180);
        let mut each = |kept: Kept<'_>| {
            shown.push((kept.stream.clone(), kept.seq));
            None
        };
        let opened = Store::open_after(replay, config(&other), &mut each).unwrap();
        assert_eq!(opened.root(), store.root());
        assert_eq!(opened.committed(), store.committed());
        let mut expected = 0;
        for (stream, lines) in &streams {
            assert!(opened.is_closed(&id(*stream)));
            for seq in 0..lines.len() as u64 {
                let index = opened.index_of(&id(*stream), seq);
                assert_eq!(index, store.index_of(&id(*stream), seq));
                let at = usize::try_from(index.unwrap()).unwrap();
                assert_eq!(shown[at], (id(*stream), seq), "each once, in order");
                expected += 1;
            }
        }
        assert_eq!(shown.len(), expected);
        // What it has made of the tiles is what a start finds to be right.
        let (leaves, root) = (opened.committed(), opened.root());
        drop(opened);
        let again = open(&other).unwrap();
        assert_eq!((again.committed(), again.root()), (leaves, root));
    }
}

#[test]
fn after_an_error_of_the_disk_the_same_is_read_again() {
    let (folder, other) = (Folder::new(), Folder::new());
    let mut store = open(&folder).unwrap();
    for batch in lines(1, 300).chunks(7) {
        take(&mut store, 1, batch);
    }
    copy(&folder, &other);
    let mut replay = Replay::new(&config(&other), Keeper::default());
    let mut shown = Vec::new();
    let mut each = |kept: Kept<'_>| {
        shown.push(kept.seq);
        None
    };
    let end = store.end().place;
    assert!(!replay.read(end, 500, &mut each).unwrap());
    // Neither the records nor the place of the tiles can be read now and then.
    let away = other.0.join("away");
    let mut errors = 0;
    for step in 0.. {
        let hidden = records(&other);
        let path: &Path = if step % 2 == 0 {
            &hidden
        } else {
            &other.0.join("tile")
        };
        if step % 3 == 0 && path.exists() {
            fs::rename(path, &away).unwrap();
            let error = replay.read(end, 500, &mut each);
            errors += u64::from(error.is_err());
            fs::rename(&away, path).unwrap();
        }
        if replay.read(end, 500, &mut each).unwrap() {
            break;
        }
    }
    assert!(errors > 0);
    let opened = Store::open_after(replay, config(&other), &mut each).unwrap();
    assert_eq!(opened.root(), store.root());
    assert!(shown.iter().copied().eq(0..302));
}

#[test]
fn records_that_do_not_fit_are_refused_where_they_stand() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    take(&mut store, 1, &lines(1, 20)[..10]);
    let (end, path) = (store.end().place, records(&folder));
    let whole = fs::read(&path).unwrap();
    let newlines: Vec<_> = memchr::memchr_iter(b'\n', &whole).collect();
    let (second, third) = (newlines[0] + 1, newlines[1] + 1);
    let refused = |bytes: &[u8], end: Place| {
        fs::write(&path, bytes).unwrap();
        let mut replay = Replay::new(&config(&folder), Keeper::default());
        loop {
            match replay.read(end, 10, &mut |_| None) {
                Ok(true) => panic!("taken"),
                Ok(false) => {}
                Err(error) => return (error.to_string(), replay.leaves()),
            }
        }
    };
    let hole = [&whole[..second], &whole[third..]].concat();
    let shorter = Place {
        offset: hole.len() as u64,
        ..end
    };
    let at = format!("byte {second}:");
    let (said, leaves) = refused(&hole, shorter);
    assert!(said.contains(&at) && leaves == 1, "{said}");
    let cut = Place {
        offset: end.offset - 1,
        ..end
    };
    let (said, leaves) = refused(&whole, cut);
    assert!(said.contains("segment 00000000") && leaves == 9, "{said}");
    let (said, _) = refused(&whole[..whole.len() - 1], end);
    assert!(said.contains("00000000.jsonl"), "{said}");
    // Written anew with fewer records than were read.
    fs::write(&path, &whole).unwrap();
    let mut replay = Replay::new(&config(&folder), Keeper::default());
    assert!(replay.read(end, u64::MAX, &mut |_| None).unwrap());
    fs::write(&path, &whole[..second]).unwrap();
    replay.rewritten(0);
    let said = replay.read(end, 10, &mut |_| None).unwrap_err().to_string();
    assert!(said.contains("fewer records"), "{said}");
}
