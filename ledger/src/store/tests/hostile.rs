//! Lines that a hostile sender makes, and what became of those that were taken once.

use super::*;

#[test]
fn whatever_stands_around_a_record_what_is_taken_is_a_line_that_a_start_knows() {
    let folder = Folder::new();
    let store = open(&folder).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for line in [&lines(1, 0)[0], &with_text()[0]] {
        let stream = Head::parse(line.trim_ascii_end()).unwrap().stream;
        for at in 0..line.len() {
            for more in [" ", "\t", "\r", "}", "{}", " sealed/1 ", "\0"] {
                let (before, after) = line.split_at(at);
                let hostile = [before, more.as_bytes(), after].concat();
                let bare = hostile.strip_suffix(b"\n").unwrap();
                if store.check(&stream, &hostile, None).is_ok() {
                    assert_eq!(Stored::read(bare), Ok(Stored::Record(bare)));
                    taken += 1;
                } else {
                    refused += 1;
                }
            }
        }
    }
    assert!(taken > 0 && refused > taken, "{taken}, {refused}");
    let blank = with(&lines(1, 0)[0], "}\n", "} \n");
    let said = store.check(&id(1), &blank, None).unwrap_err().to_string();
    assert!(said.contains("does not end with the brace"), "{said}");
}

#[test]
fn a_close_that_counts_wrong_and_was_taken_once_stays_and_is_no_obstacle() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let (all, other) = (lines(1, 4), lines(2, 4));
    let wrong = with(&all[5], r#""records":6"#, r#""records":7"#);
    take(&mut store, 1, &all[..5]);
    drop(store);
    let newest = folder.newest();
    let there = [fs::read(&newest).unwrap(), wrong.clone()].concat();
    fs::write(newest, there).unwrap();
    let mut store = open(&folder).unwrap();
    assert!(store.is_closed(&id(1)));
    // As a sidecar sends it that has not heard that it was taken.
    let receipt = take(&mut store, 1, &[all[4].clone(), wrong]);
    assert_eq!((receipt.next_seq, receipt.added), (6, 0));
    let refused = store.stage(&id(1), &all[5]).unwrap_err();
    assert!(matches!(refused, Refused::Differs { seq: 5 }), "{refused}");
    assert_eq!(take(&mut store, 2, &other).added, 6);
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);
    assert_eq!(open(&folder).unwrap().committed().leaves(), 12);
}
