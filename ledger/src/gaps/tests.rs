use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    pod::PodIdentity,
    record::{AgentRef, CloseInfo, Event, EventKind, IdentityInfo, PodInfo},
};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::store::Kept;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id(number: u8) -> StreamId {
    StreamId::from_random([number; 16])
}

fn agent(pod: &str) -> AgentRef {
    AgentRef {
        namespace: "agents".to_owned(),
        pod: pod.to_owned(),
        service_account: String::new(),
    }
}

fn identity(pod: &str) -> PodIdentity {
    PodIdentity {
        namespace: "agents".to_owned(),
        pod: pod.to_owned(),
        uid: format!("uid-{pod}"),
        node: "node-1".to_owned(),
        ..PodIdentity::default()
    }
}

fn info(pod: &str, state: &str) -> PodInfo {
    PodInfo {
        state: state.to_owned(),
        uid: format!("uid-{pod}"),
        node: "node-1".to_owned(),
        since: (state == RUNNING).then(|| at(0).to_string()),
        ..PodInfo::default()
    }
}

fn running(roster: &mut Roster, pod: &str, seconds: i64) {
    roster.see(&agent(pod), &info(pod, RUNNING), at(seconds));
}

fn ended(roster: &mut Roster, pod: &str, seconds: i64) {
    roster.see(&agent(pod), &info(pod, ENDED), at(seconds));
}

fn heard(roster: &mut Roster, stream: u8, next: u64, closed: bool, seconds: i64) {
    roster.hear(&id(stream), next, closed, Some(at(seconds)), at(seconds));
}

fn find(roster: &Roster, seconds: i64) -> Vec<(String, Reason)> {
    let answer = roster.answer(&Scope::default(), None, at(seconds));
    let gaps = answer.gaps.into_iter();
    gaps.map(|gap| (gap.pod, gap.reason)).collect()
}

fn one(pod: &str, reason: Reason) -> Vec<(String, Reason)> {
    vec![(pod.to_owned(), reason)]
}

#[test]
fn a_pod_that_ran_wrote_and_closed_is_complete_at_every_moment() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    roster.bind(&id(1), &identity("a"), None, at(5));
    for minute in 0..10 {
        heard(&mut roster, 1, 1 + minute as u64, false, 5 + 60 * minute);
        assert!(find(&roster, 60 + 60 * minute).is_empty());
    }
    heard(&mut roster, 1, 12, true, 600);
    assert!(find(&roster, 601).is_empty());
    ended(&mut roster, "a", 602);
    assert!(find(&roster, 1_000_000).is_empty());
    assert_eq!(roster.standing("uid-a"), Standing::Settled);
    // Nothing is kept of it but its uid.
    assert_eq!(roster.not_ended().count(), 0);
}

#[test]
fn a_pod_without_stream_is_told_of_once_it_has_had_time_and_stays_so_when_it_is_gone() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    assert!(find(&roster, 120).is_empty());
    assert_eq!(find(&roster, 121), one("a", Reason::NoStream));
    ended(&mut roster, "a", 300);
    assert!(
        find(&roster, 310).is_empty(),
        "its last records may be under way"
    );
    assert_eq!(find(&roster, 331), one("a", Reason::NoStream));
    let answer = roster.answer(&Scope::default(), None, at(331));
    assert_eq!(answer.gaps[0].since, at(0));
    assert_eq!(answer.gaps[0].ended, Some(at(300)));
    assert!(!answer.is_complete());
}

#[test]
fn a_pod_that_cannot_have_a_stream_says_why_at_once() {
    for (lacks, reason) in [
        ("no-sidecar", Reason::NoSidecar),
        ("no-token", Reason::NoToken),
        ("exempt", Reason::Exempt),
    ] {
        let mut roster = Roster::default();
        let mut seen = info("a", RUNNING);
        seen.lacks = Some(lacks.to_owned());
        roster.see(&agent("a"), &seen, at(0));
        assert_eq!(find(&roster, 0), one("a", reason));
        let answer = roster.answer(&Scope::default(), None, at(0));
        assert_eq!(answer.is_complete(), reason == Reason::Exempt);
    }
}

#[test]
fn silence_is_told_of_after_three_heartbeats_and_ends_with_the_next_record() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    roster.bind(&id(1), &identity("a"), None, at(0));
    heard(&mut roster, 1, 7, false, 100);
    assert!(find(&roster, 310).is_empty());
    assert_eq!(find(&roster, 311), one("a", Reason::Silent));
    let answer = roster.answer(&Scope::default(), None, at(311));
    let gap = &answer.gaps[0];
    assert_eq!((gap.since, gap.next_seq), (at(100), Some(7)));
    assert!(gap.detail.contains("record 6"), "{}", gap.detail);
    heard(&mut roster, 1, 8, false, 320);
    assert!(find(&roster, 330).is_empty());
    // A stream that is closed while its pod runs on is silent too.
    heard(&mut roster, 1, 9, true, 400);
    assert_eq!(find(&roster, 700), one("a", Reason::Silent));
}

#[test]
fn a_ledger_that_could_not_hear_accuses_nobody_of_silence() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    running(&mut roster, "b", 0);
    roster.bind(&id(1), &identity("a"), None, at(0));
    heard(&mut roster, 1, 7, false, 10);
    roster.deaf_until(at(5_000));
    assert!(find(&roster, 5_100).is_empty());
    let both = [
        ("a".to_owned(), Reason::Silent),
        ("b".to_owned(), Reason::NoStream),
    ];
    assert_eq!(find(&roster, 5_211), both);
}

#[test]
fn a_pod_that_ends_without_closing_its_stream_is_told_of_for_as_long_as_is_asked() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    roster.bind(&id(1), &identity("a"), None, at(0));
    heard(&mut roster, 1, 7, false, 10);
    ended(&mut roster, "a", 20);
    assert!(find(&roster, 50).is_empty());
    assert_eq!(find(&roster, 51), one("a", Reason::Unclosed));
    let asked = |since: i64| {
        let scope = Scope {
            ended_since: at(since),
            ..Scope::default()
        };
        roster.answer(&scope, None, at(1_000)).gaps.len()
    };
    assert_eq!((asked(20), asked(21)), (1, 0));
    // The close comes after all.
    heard(&mut roster, 1, 8, true, 60);
    assert!(find(&roster, 100).is_empty());
}

#[test]
fn a_pod_that_went_while_nobody_looked_ended_when_it_was_last_known_to_be_there() {
    let mut roster = Roster::default();
    roster.bind(&id(1), &identity("a"), None, at(0));
    heard(&mut roster, 1, 7, false, 10);
    let gone = PodInfo {
        after: Some(at(10).to_string()),
        since: None,
        ..info("a", ENDED)
    };
    let known: Vec<_> = roster
        .not_ended()
        .map(|(agent, uid, last)| (agent.pod, uid.to_owned(), last))
        .collect();
    assert_eq!(known, [("a".to_owned(), "uid-a".to_owned(), Some(at(10)))]);
    roster.see(&agent("a"), &gone, at(9_000));
    let answer = roster.answer(&Scope::default(), None, at(9_100));
    assert_eq!(answer.gaps[0].ended, Some(at(10)));
    assert_eq!(answer.gaps[0].reason, Reason::Unclosed);
}

#[test]
fn missing_records_are_told_of_whatever_else_the_stream_is() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    roster.bind(&id(1), &identity("a"), Some(40), at(5));
    heard(&mut roster, 1, 42, false, 6);
    roster.bind(&id(1), &identity("a"), Some(50), at(7));
    heard(&mut roster, 1, 60, true, 8);
    ended(&mut roster, "a", 9);
    assert_eq!(find(&roster, 100), one("a", Reason::Hole));
    let answer = roster.answer(&Scope::default(), None, at(100));
    let gap = &answer.gaps[0];
    assert_eq!(
        gap.missing,
        Some(Missing {
            from: 0,
            before: 40
        })
    );
    assert!(
        gap.detail.contains("48 records") && gap.detail.contains("2 places"),
        "{}",
        gap.detail
    );
    for hole in 0..100 {
        let from = Some(100 + 10 * hole);
        roster.bind(&id(1), &identity("a"), from, at(10));
    }
    let answer = roster.answer(&Scope::default(), None, at(100));
    assert!(answer.gaps[0].detail.contains("16 places"), "bounded");
}

#[test]
fn a_stream_that_another_one_replaced_before_its_close_is_unclosed() {
    let mut roster = Roster::default();
    running(&mut roster, "a", 0);
    roster.bind(&id(1), &identity("a"), None, at(0));
    heard(&mut roster, 1, 7, false, 10);
    roster.bind(&id(2), &identity("a"), None, at(20));
    heard(&mut roster, 2, 1, false, 20);
    assert_eq!(find(&roster, 30), one("a", Reason::Unclosed));
    heard(&mut roster, 1, 8, true, 30);
    assert!(find(&roster, 40).is_empty());
    heard(&mut roster, 2, 5, true, 50);
    ended(&mut roster, "a", 51);
    assert_eq!(roster.standing("uid-a"), Standing::Settled);
}

#[test]
fn other_namespaces_are_not_told_of_and_the_order_is_that_of_names() {
    let mut roster = Roster::default();
    for pod in ["c", "a", "b"] {
        running(&mut roster, pod, 0);
    }
    let mut elsewhere = agent("z");
    elsewhere.namespace = "a-team".to_owned();
    roster.see(&elsewhere, &info("z", RUNNING), at(0));
    let pods = |namespace| {
        let scope = Scope {
            namespace,
            ..Scope::default()
        };
        let answer = roster.answer(&scope, Some(at(0)), at(1_000));
        let gaps = answer.gaps.into_iter();
        (answer.pods, gaps.map(|gap| gap.pod).collect::<String>())
    };
    assert_eq!(pods(None), (4, "zabc".to_owned()));
    assert_eq!(pods(Some("agents")), (3, "abc".to_owned()));
    assert_eq!(pods(Some("nobody")), (0, String::new()));
}

#[test]
fn what_ended_long_ago_is_forgotten_and_what_is_settled_when_it_is_gone() {
    let mut roster = Roster::default();
    let day = 24 * 3600;
    running(&mut roster, "old", 0);
    ended(&mut roster, "old", 10);
    running(&mut roster, "new", 0);
    ended(&mut roster, "new", 5 * day);
    running(&mut roster, "there", 0);
    roster.bind(&id(1), &identity("well"), None, at(0));
    heard(&mut roster, 1, 3, true, 1);
    ended(&mut roster, "well", 2);
    // Nobody saw it run, for nobody looked.
    roster.bind(&id(2), &identity("unseen"), None, at(0));
    heard(&mut roster, 2, 3, true, 1);
    roster.forget(at(day));
    assert_eq!(roster.standing("uid-unseen"), Standing::Writes);
    assert_eq!(roster.standing("uid-well"), Standing::Settled);
    roster.forget(at(31 * day));
    roster.keep_settled(|uid| uid == "uid-there");
    assert_eq!(roster.standing("uid-unseen"), Standing::Unknown);
    let standings =
        ["old", "new", "there", "well"].map(|pod| roster.standing(&format!("uid-{pod}")));
    assert_eq!(
        standings,
        [
            Standing::Unknown,
            Standing::Ended,
            Standing::Runs,
            Standing::Unknown
        ]
    );
}

#[test]
fn replaying_the_log_comes_to_the_same_answer() {
    let own = id(9);
    let (mut ours, mut theirs) = (Chain::new(own.clone()), Chain::new(id(1)));
    let mut log: Vec<(StreamId, u64, bool, String, Vec<u8>)> = Vec::new();
    let mut write = |chain: &mut Chain, event: &Event, seconds: i64| {
        let mut line = Vec::new();
        let (seq, time) = (chain.next_seq(), at(seconds));
        chain.append(event, time, unsalted, &mut line);
        line.pop();
        let closes = event.kind == EventKind::StreamClose;
        log.push((chain.stream().clone(), seq, closes, time.to_string(), line));
    };
    let event = |kind| Event::new(kind, agent("a"));
    let pod = |state| Event {
        pod: Some(info("a", state)),
        ..event(EventKind::LedgerPod)
    };
    write(&mut ours, &event(EventKind::StreamOpen), 0);
    write(&mut ours, &pod(RUNNING), 1);
    let bound = Event {
        identity: Some(IdentityInfo {
            stream: id(1).to_string(),
            workload: identity("a"),
            ..IdentityInfo::default()
        }),
        ..event(EventKind::StreamIdentity)
    };
    write(&mut ours, &bound, 2);
    write(&mut theirs, &event(EventKind::StreamOpen), 3);
    write(&mut theirs, &event(EventKind::StreamHeartbeat), 63);
    write(&mut ours, &pod(ENDED), 70);
    let close = Event {
        close: Some(CloseInfo::default()),
        ..event(EventKind::StreamClose)
    };
    write(&mut theirs, &close, 71);
    let replay = |records: usize| {
        let mut roster = Roster::default();
        for (stream, seq, closes, time, line) in log.iter().take(records) {
            roster.replay(
                &own,
                Kept {
                    stream,
                    seq: *seq,
                    time,
                    closes: *closes,
                    line,
                },
            );
        }
        roster
    };
    assert_eq!(find(&replay(2), 500), one("a", Reason::NoStream));
    assert_eq!(find(&replay(5), 500), one("a", Reason::Silent));
    assert_eq!(find(&replay(6), 500), one("a", Reason::Unclosed));
    let all = replay(7);
    assert!(find(&all, 500).is_empty());
    let answer = all.answer(&Scope::default(), None, at(500));
    assert_eq!(answer.log_since, Some(at(0)));
}

#[test]
fn records_that_make_no_sense_teach_nothing() {
    let mut roster = Roster::default();
    let own = id(9);
    for line in [
        &b"no record"[..],
        br#"{"v":"chaperone.dev/v1","stream":"x","seq":0,"prev":"","time":"never","kind":"ledger.pod","agent":{"namespace":"a","pod":"b"}}"#,
        br#"{"v":"chaperone.dev/v1","stream":"x","seq":0,"prev":"","time":"2026-11-29T10:00:00Z","kind":"ledger.pod","agent":{"namespace":"a","pod":"b"},"pod":{"state":"asleep","uid":"u","since":"never","lacks":"sense"}}"#,
    ] {
        let kept = Kept { stream: &own, seq: 0, time: "never", closes: false, line };
        roster.replay(&own, kept);
    }
    heard(&mut roster, 1, 1, false, 1);
    let later = at(0).checked_add(SignedDuration::from_hours(1)).unwrap();
    let answer = roster.answer(&Scope::default(), None, later);
    // A state that is not known is that of a pod that was seen.
    assert!(answer.gaps.iter().all(|gap| gap.uid == "u"), "{answer:?}");
}

#[test]
fn every_reason_has_a_word_an_advice_and_the_same_word_in_json() {
    for reason in Reason::ALL {
        assert_eq!(Reason::of(reason.as_str()), Some(reason));
        let json = serde_json::to_string(&reason).unwrap();
        assert_eq!(json, format!("\"{reason}\""));
        assert!(!reason.advice().is_empty());
    }
    assert_eq!(Reason::of("x"), None);
}
