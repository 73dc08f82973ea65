//! Following against what is on disk, at every end and from every cursor.

use std::fs;

use super::*;
use crate::testing::Folder;

/// Lengths of lines: short ones, one that fills a block, one longer than two, and the longest.
const LENGTHS: [usize; 9] = [
    1,
    2,
    300,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK + 7,
    5,
    MAX_LINE_BYTES,
];

fn line(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| b'a' + u8::try_from(at % 26).unwrap())
        .collect()
}

/// A ledger's segments, each with these lines.
fn write(folder: &Folder, segments: &[&[usize]]) {
    fs::create_dir_all(folder.path(RECORDS)).unwrap();
    for (lengths, number) in segments.iter().zip(0..) {
        let lines = lengths.iter().map(|length| line(*length));
        let bytes: Vec<u8> = lines
            .flat_map(|line| [line, b"\n".to_vec()].concat())
            .collect();
        fs::write(segments::path(&folder.path(RECORDS), number), bytes).unwrap();
    }
}

/// All records up to an end: the cursor before each, and its line's length.
fn all(folder: &Folder, from: Cursor, end: Place) -> Result<Vec<(Cursor, usize)>, FollowError> {
    let mut follower = Follower::new(&folder.0, from);
    let mut found = Vec::new();
    while let Some(record) = follower.next(end)? {
        let Followed {
            leaf, place, line, ..
        } = record;
        assert_eq!((record.length, record.deleted), (line.len(), None));
        assert_eq!(line, self::line(line.len()));
        found.push((Cursor { leaf, place }, line.len()));
    }
    assert!(follower.next(end)?.is_none(), "the end stays the end");
    Ok(found)
}

#[test]
fn each_record_comes_once_and_in_order_from_any_cursor() {
    let folder = Folder::new();
    write(&folder, &[&LENGTHS, &[], &[7], &LENGTHS[2..5]]);
    let end = end_of(&folder.0).unwrap();
    let found = all(&folder, Cursor::START, end).unwrap();
    let lengths: Vec<_> = found.iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [&LENGTHS[..], &[7], &LENGTHS[2..5]].concat());
    let keys = Keys::of(&folder.0);
    let leaves: Vec<_> = found.iter().map(|(cursor, _)| cursor.leaf).collect();
    assert_eq!(leaves, (0..13).collect::<Vec<_>>());
    for (at, (cursor, length)) in found.iter().enumerate() {
        assert_eq!(all(&folder, *cursor, end).unwrap(), found[at..]);
        let there = held_at(&folder.0, &keys, cursor.place, *length).unwrap();
        assert_eq!(there, Some(Held::Record(line(*length))));
    }
}

#[test]
fn nothing_after_the_end_is_given_until_the_end_moves() {
    let folder = Folder::new();
    write(&folder, &[&[3, 4], &[5, 6]]);
    let mut follower = Follower::new(&folder.0, Cursor::START);
    let mut found = Vec::new();
    for (segment, offset) in [(0, 0), (0, 4), (0, 9), (1, 0), (1, 6), (1, 6), (1, 13)] {
        let end = Place { segment, offset };
        let mut some = Vec::new();
        while let Some(record) = follower.next(end).unwrap() {
            some.push(record.line.len());
        }
        found.push(some);
    }
    let expected: [&[usize]; 7] = [&[], &[3], &[4], &[], &[5], &[], &[6]];
    assert_eq!(found, expected);
    assert_eq!(
        follower.cursor(),
        Cursor {
            leaf: 4,
            place: Place {
                segment: 1,
                offset: 13
            }
        }
    );
}

#[test]
fn a_line_that_grows_is_given_once_it_is_committed() {
    let folder = Folder::new();
    write(&folder, &[&[3]]);
    let path = segments::path(&folder.path(RECORDS), 0);
    let mut follower = Follower::new(&folder.0, Cursor::START);
    let end = |offset| Place { segment: 0, offset };
    assert!(follower.next(end(4)).unwrap().is_some());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"abcde");
    fs::write(&path, &bytes).unwrap();
    assert!(follower.next(end(4)).unwrap().is_none());
    bytes.push(b'\n');
    fs::write(&path, &bytes).unwrap();
    assert_eq!(follower.next(end(10)).unwrap().unwrap().line, b"abcde");
}

#[test]
fn a_cursor_that_does_not_fit_is_an_error_and_stays_one() {
    let folder = Folder::new();
    write(&folder, &[&[3, 4], &[5]]);
    let end = end_of(&folder.0).unwrap();
    let from = |segment, offset| Cursor {
        leaf: 1,
        place: Place { segment, offset },
    };
    for (cursor, expected) in [
        (from(0, 1), "no record begins here"),
        (from(0, 3), "no record begins here"),
        (from(1, 7), "ahead of the records"),
        (from(2, 0), "ahead of the records"),
        (from(0, 10), "ends where a record should be"),
        (from(0, u64::MAX), "ends where a record should be"),
    ] {
        let mut follower = Follower::new(&folder.0, cursor);
        for _ in 0..2 {
            let error = follower.next(end).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(follower.cursor(), cursor);
        }
    }
    assert!(
        all(&folder, from(0, 9), end).is_ok(),
        "a segment's end is right"
    );
}

#[test]
fn segments_that_are_not_what_was_committed_are_errors() {
    let end = Place {
        segment: 1,
        offset: 6,
    };
    let fails = |folder: &Folder, end| all(folder, Cursor::START, end).unwrap_err().to_string();
    let folder = Folder::new();
    write(&folder, &[&[3], &[2]]);
    let short = fails(&folder, end);
    assert!(
        short.contains("00000001, byte 3: the segment ends"),
        "{short}"
    );
    let inside = Place {
        segment: 0,
        offset: 2,
    };
    assert!(fails(&folder, inside).contains("byte 0: the segment ends"));
    fs::remove_file(segments::path(&folder.path(RECORDS), 1)).unwrap();
    assert!(fails(&folder, end).contains("00000001.jsonl"));
    let torn = Folder::new();
    write(&torn, &[&[3], &[5]]);
    fs::write(segments::path(&torn.path(RECORDS), 0), "abc").unwrap();
    assert!(fails(&torn, end).contains("00000000, byte 0: the segment ends"));
    let long = Folder::new();
    write(&long, &[&[3, MAX_LINE_BYTES + 1, 3]]);
    let whole = end_of(&long.0).unwrap();
    assert!(fails(&long, whole).contains("byte 4: a line of more"));
}

#[test]
fn a_line_is_read_at_its_place_and_nowhere_else() {
    let folder = Folder::new();
    write(&folder, &[&[3, 4]]);
    let keys = Keys::of(&folder.0);
    let at =
        |offset, length| held_at(&folder.0, &keys, Place { segment: 0, offset }, length).unwrap();
    assert_eq!(at(4, 4), Some(Held::Record(line(4))));
    for (offset, length) in [
        (4, 3),
        (4, 5),
        (0, 8),
        (9, 0),
        (u64::MAX, 3),
        (4, usize::MAX),
    ] {
        assert_eq!(at(offset, length), None, "{offset} {length}");
    }
    let elsewhere = Place {
        segment: 9,
        offset: 0,
    };
    let error = held_at(&folder.0, &keys, elsewhere, 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_directory_ends_after_its_last_whole_line() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path(RECORDS)).unwrap();
    assert_eq!(end_of(&folder.0).unwrap(), Place::default());
    write(&folder, &[&[3], &[5]]);
    let path = segments::path(&folder.path(RECORDS), 1);
    for (bytes, offset) in [("abcde\nabc", 6), ("abc", 0), ("abcde\n\0\0\n", 6)] {
        fs::write(&path, bytes).unwrap();
        let expected = Place { segment: 1, offset };
        assert_eq!(end_of(&folder.0).unwrap(), expected);
    }
}
