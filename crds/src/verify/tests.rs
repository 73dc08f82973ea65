use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{
    bodies::{Salt, detached, unsalted},
    chain::{Chain, RecordHash},
    record::{AgentRef, BodyInfo, CloseInfo, Event, EventKind, MessageInfo},
};

fn id(n: u8) -> StreamId {
    StreamId::from_random([n; 16])
}

fn agent() -> AgentRef {
    AgentRef {
        namespace: "agents".to_owned(),
        pod: "claude-0".to_owned(),
        ..AgentRef::default()
    }
}

/// A closed stream of `n` records, one line each, without newlines.
fn stream(name: u8, n: u64) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(id(name));
    (0..n)
        .map(|seq| {
            let kind = match seq {
                0 => EventKind::StreamOpen,
                _ if seq == n - 1 => EventKind::StreamClose,
                _ => EventKind::Dns,
            };
            let mut event = Event::new(kind, agent());
            event.error = Some(format!("note {seq}"));
            event.close = (kind == EventKind::StreamClose).then(|| CloseInfo {
                records: n,
                reason: "terminated".to_owned(),
            });
            let mut line = Vec::new();
            chain.append(&event, Timestamp::UNIX_EPOCH, unsalted, &mut line);
            line.pop();
            line
        })
        .collect()
}

fn report(lines: &[Vec<u8>]) -> Report {
    report_from(lines, Start::Open)
}

fn report_from(lines: &[Vec<u8>], start: Start) -> Report {
    let mut file = lines.join(&b'\n');
    file.push(b'\n');
    verify(&file[..], start).unwrap()
}

fn fault(lines: &[Vec<u8>]) -> Option<Fault> {
    report(lines).streams[0].fault.clone()
}

fn edit(line: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(line.clone()).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    *line = text.replacen(from, to, 1).into_bytes();
}

#[test]
fn a_whole_stream_is_intact_and_closed() {
    let report = report(&stream(1, 10));
    assert!(report.is_intact(), "{report}");
    let verdict = &report.streams[0];
    assert_eq!((verdict.records, verdict.closed), (10, true));
    assert_eq!(verdict.last_time, "1970-01-01T00:00:00.000000Z");
}

#[test]
fn streams_may_be_interleaved() {
    let (a, b) = (stream(1, 5), stream(2, 5));
    let mixed: Vec<_> = a.into_iter().zip(b).flat_map(|(a, b)| [b, a]).collect();
    let report = report(&mixed);
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.streams.len(), 2);
}

/// A closed stream whose records but the first and last have a text.
fn with_texts(n: u64) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(id(1));
    let salt = || Some(Salt::from_random([7; 16]));
    let kinds = (0..n).map(|seq| match seq {
        0 => EventKind::StreamOpen,
        _ if seq == n - 1 => EventKind::WsMessage,
        _ => EventKind::Http,
    });
    kinds
        .map(|kind| {
            let body = BodyInfo {
                text: Some("said".to_owned()),
                ..BodyInfo::default()
            };
            let mut event = Event::new(kind, agent());
            event.message = (kind != EventKind::StreamOpen).then(|| MessageInfo {
                body: Some(body),
                ..MessageInfo::default()
            });
            let mut line = Vec::new();
            chain.append(&event, Timestamp::UNIX_EPOCH, salt, &mut line);
            line.pop();
            line
        })
        .collect()
}

#[test]
fn deleted_content_is_counted_and_no_fault() {
    let mut lines = with_texts(6);
    assert_eq!(report(&lines).deleted_content(), 0);
    for line in &mut lines[2..4] {
        *line = detached(line).into_owned();
    }
    // A copy counts once, with content or without.
    let again: Vec<_> = lines.iter().chain(&with_texts(6)).cloned().collect();
    for lines in [lines, again] {
        let report = report(&lines);
        assert!(report.is_intact(), "{report}");
        assert_eq!(report.streams[0].deleted_content, 2);
        let text = report.to_string();
        assert!(text.contains(", content of 2 deleted: intact\n6 records in 1 streams, content of 2 deleted: intact"), "{text}");
    }
}

#[test]
fn altered_content_is_named_also_in_the_last_record() {
    for at in [3_u64, 5] {
        let mut lines = with_texts(6);
        edit(&mut lines[at as usize], "\"said\"", "\"sung\"");
        assert_eq!(fault(&lines), Some(Fault::Content { seq: at }));
        let mut lines = with_texts(6);
        edit(&mut lines[at as usize], "{\"salt\":\"0", "{\"salt\":\"1");
        assert_eq!(fault(&lines), Some(Fault::Content { seq: at }));
    }
    // Content that no digest commits to.
    let mut lines = stream(1, 4);
    edit(
        &mut lines[2],
        "\"error\"",
        "\"bodies\":{\"salt\":\"\"},\"error\"",
    );
    assert_eq!(fault(&lines), Some(Fault::Content { seq: 2 }));
}

#[test]
fn an_edited_record_is_named() {
    let mut lines = stream(1, 10);
    edit(&mut lines[4], "note 4", "note 5");
    assert_eq!(fault(&lines), Some(Fault::Altered { seq: 4 }));
}

#[test]
fn a_record_with_an_edited_prev_is_named_and_not_its_predecessor() {
    let mut lines = stream(1, 10);
    let prev = RecordHash::of(&lines[3]).to_string();
    edit(&mut lines[4], &prev, &"a".repeat(64));
    assert_eq!(fault(&lines), Some(Fault::Altered { seq: 4 }));
}

#[test]
fn a_removed_record_is_named() {
    let mut lines = stream(1, 10);
    lines.drain(3..5);
    assert_eq!(fault(&lines), Some(Fault::Gap { from: 3, to: 4 }));
}

#[test]
fn a_removed_beginning_is_a_fault_unless_a_part_was_asked_for() {
    let lines = stream(1, 10).split_off(3);
    assert_eq!(fault(&lines), Some(Fault::StartsLate { first: 3 }));
    let part = report_from(&lines, Start::Anywhere);
    assert!(part.is_intact(), "{part}");
    assert_eq!(part.streams[0].first_seq, 3);
}

#[test]
fn reordered_records_are_named() {
    let mut lines = stream(1, 10);
    lines.swap(3, 4);
    assert_eq!(fault(&lines), Some(Fault::OutOfOrder { seq: 3 }));
}

#[test]
fn an_inserted_record_is_named() {
    let mut lines = stream(1, 10);
    let mut forged = lines[4].clone();
    edit(&mut forged, "note 4", "forged");
    lines.insert(4, forged);
    assert_eq!(
        report(&lines).streams[0]
            .fault
            .as_ref()
            .map(Fault::first_bad),
        Some(4)
    );
}

#[test]
fn records_after_the_close_are_named() {
    let mut lines = stream(1, 5);
    let mut chain = Chain::resume(id(1), 5, RecordHash::of(&lines[4]));
    let mut line = Vec::new();
    let late = Event::new(EventKind::Dns, agent());
    chain.append(&late, Timestamp::UNIX_EPOCH, unsalted, &mut line);
    line.pop();
    lines.push(line);
    assert_eq!(fault(&lines), Some(Fault::AfterClose { seq: 5 }));
}

#[test]
fn a_close_that_counts_otherwise_is_named() {
    let mut lines = stream(1, 5);
    edit(&mut lines[4], "\"records\":5", "\"records\":6");
    let expected = Fault::CloseCount { seq: 4, counted: 6 };
    assert_eq!(fault(&lines), Some(expected));
}

#[test]
fn a_stream_without_close_is_intact_and_says_that_it_is_open() {
    let mut lines = stream(1, 5);
    lines.pop();
    let report = report(&lines);
    assert!(report.is_intact());
    assert!(report.to_string().contains("not closed"), "{report}");
}

#[test]
fn another_version_is_named() {
    let mut lines = stream(1, 5);
    edit(&mut lines[2], "chaperone.dev/v2", "chaperone.dev/v9");
    let version = "chaperone.dev/v9".to_owned();
    assert_eq!(fault(&lines), Some(Fault::Version { seq: 2, version }));
}

#[test]
fn a_stream_that_begins_with_something_else_than_open_is_named() {
    let mut lines = stream(1, 5);
    edit(&mut lines[0], "stream.open", "dns");
    let kind = "dns".to_owned();
    assert_eq!(fault(&lines), Some(Fault::NotOpened { kind }));
    let mut lines = stream(1, 5);
    edit(&mut lines[0], &"0".repeat(64), &"1".repeat(64));
    assert_eq!(fault(&lines), Some(Fault::NotGenesis));
}

#[test]
fn lines_that_are_no_records_are_named_by_line_and_the_stream_by_what_it_lacks() {
    let mut lines = stream(1, 5);
    lines[2] = b"{\"v\":".to_vec();
    let report = report(&lines);
    assert!(matches!(
        report.line_faults[..],
        [(3, LineFault::NotARecord(_))]
    ));
    assert_eq!(report.streams[0].fault, Some(Fault::Gap { from: 2, to: 2 }));
}

#[test]
fn a_file_that_ends_within_a_record_is_torn_and_one_that_lacks_only_its_newline_is_not() {
    let file = stream(1, 5).join(&b'\n');
    assert!(verify(&file[..], Start::Open).unwrap().is_intact());
    let torn = verify(&file[..file.len() - 1], Start::Open).unwrap();
    assert_eq!(torn.line_faults, [(5, LineFault::Torn)]);
    assert!(!torn.is_intact());
}

#[test]
fn an_empty_file_proves_nothing() {
    let report = verify(&b""[..], Start::Open).unwrap();
    assert!(!report.is_intact());
    assert!(report.to_string().contains("nothing is proved"));
}

#[test]
fn batches_that_come_again_are_counted_and_accepted() {
    let lines = stream(1, 20);
    let mut again = lines[..10].to_vec();
    again.extend_from_slice(&lines[5..10]);
    again.extend_from_slice(&lines[0..]);
    let report = report(&again);
    assert!(report.is_intact(), "{report}");
    assert_eq!(
        (report.streams[0].records, report.streams[0].copies),
        (20, 15)
    );
}

#[test]
fn a_copy_with_other_bytes_is_named() {
    let mut lines = stream(1, 10);
    let mut forged = lines[4].clone();
    edit(&mut forged, "note 4", "forged");
    lines.push(forged);
    assert_eq!(fault(&lines), Some(Fault::Conflict { seq: 4 }));
}

#[test]
fn a_whole_log_delivered_again_is_proved_by_its_chain_however_long_it_is() {
    let lines = stream(1, 6_000);
    let mut again = lines.clone();
    again.extend_from_slice(&lines[..100]);
    again.extend_from_slice(&lines[50..]);
    let good = report(&again);
    assert!(good.is_intact(), "{good}");

    edit(&mut again[6_010], "note 10", "forged");
    let bad = report(&again);
    assert_eq!(bad.streams[0].fault, Some(Fault::Conflict { seq: 10 }));

    let mut cut = lines.clone();
    cut.extend_from_slice(&lines[..100]);
    let unproven = report(&cut);
    assert_eq!(
        unproven.streams[0].fault,
        Some(Fault::UnprovenCopy { seq: 99 })
    );
}

#[test]
fn the_verdict_reads_as_one_line_that_names_the_first_bad_record() {
    let mut lines = stream(1, 5);
    edit(&mut lines[2], "note 2", "note 3");
    insta::assert_snapshot!(report(&lines), @r"
    stream 01010101-0101-4101-8101-010101010101 of agents/claude-0: 5 records from 0, 1970-01-01T00:00:00.000000Z to 1970-01-01T00:00:00.000000Z, closed: FIRST BAD RECORD 2: record 2 was altered: its bytes do not hash to what record 3 carries in prev
    5 records in 1 streams: NOT INTACT
    ");
}

proptest! {
    #[test]
    fn no_single_byte_can_change_unseen_before_the_last_record(
        at in any::<proptest::sample::Index>(), with in any::<u8>()
    ) {
        let lines = stream(1, 6);
        let mut file = lines.join(&b'\n');
        let protected = file.len() - lines[5].len() - 1;
        let at = at.index(protected);
        prop_assume!(file[at] != with);
        let line = file[..at].iter().filter(|b| **b == b'\n').count() as u64;
        file[at] = with;
        let report = verify(&file[..], Start::Open).unwrap();
        prop_assert!(!report.is_intact());
        // The stream's own verdict names the record that holds the byte, or the one after a joined line.
        if let Some(verdict) = report.streams.iter().find(|s| s.stream == id(1))
            && let Some(fault) = &verdict.fault
        {
            prop_assert!(fault.first_bad() <= line + 1 && fault.first_bad() + 1 >= line);
        }
    }
}

#[test]
fn beginnings_without_an_end_are_named_and_no_fault() {
    let mut chain = Chain::new(id(1));
    let kinds = [
        (EventKind::StreamOpen, None),
        (EventKind::Begin, None),
        (EventKind::Begin, None),
        (EventKind::Http, Some(2)),
        (EventKind::Begin, None),
        (EventKind::Dns, None),
    ];
    let lines: Vec<_> = kinds
        .into_iter()
        .map(|(kind, begun)| {
            let mut event = Event::new(kind, agent());
            event.begun = begun;
            let mut line = Vec::new();
            chain.append(&event, Timestamp::UNIX_EPOCH, unsalted, &mut line);
            line.pop();
            line
        })
        .collect();
    let report = report(&lines);
    assert!(report.is_intact());
    assert_eq!(report.streams[0].unfinished, Some(vec![1, 4]));
    let text = report.to_string();
    assert!(
        text.contains(", 2 begun without an end (the first: record 1): intact"),
        "{text}"
    );
}
