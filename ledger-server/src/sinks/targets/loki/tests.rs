//! Answers of Loki, in its words, and what follows from them.

use chaperone_sinks::client;
use hyper::StatusCode;
use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    answer::{self, Fault, Said},
    part::{After, Part, places},
};
use crate::sinks::target::{About, Failure, Outgoing, Then};

fn read(status: u16, body: &str) -> Result<Said, Failure> {
    let status = StatusCode::from_u16(status).unwrap();
    answer::read(client::Answer::new(status, Some(body.to_owned().into())))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A record of this kind and second.
fn record(kind: &str, second: u8) -> Outgoing {
    let about = serde_json::json!({"time": format!("2026-11-29T09:00:{second:02}Z"), "kind": kind, "agent": {"namespace": "agents"}});
    Outgoing {
        leaf: 0,
        about: serde_json::from_value(about).unwrap(),
        line: "x".repeat(usize::from(second)),
    }
}

fn batch(records: &[(&str, u8)]) -> (Vec<Outgoing>, Part) {
    let batch: Vec<_> = records.iter().map(|(k, s)| record(k, *s)).collect();
    let part = Part::new(&batch, Timestamp::UNIX_EPOCH);
    (batch, part)
}

/// Of one stream, one entry in each of so many seconds.
fn late(ignored: usize, of: usize) -> Said {
    let text = format!(
        "entry with timestamp 2026-11-29 09:00:01 +0000 UTC ignored, reason: 'entry out of order' for stream: {{kind=\"dns\"}},\ntotal ignored: {ignored} out of {of}\n"
    );
    read(400, &text).unwrap()
}

fn settled(after: Option<After>) -> (Vec<usize>, Vec<usize>) {
    let After { unfit, then } = after.unwrap();
    (unfit, places(&then))
}

#[test]
fn nothing_but_204_acknowledges_and_the_rest_says_whether_it_passes() {
    assert_eq!(read(204, ""), Ok(Said::Taken));
    let cases = [
        (200, "", Then::Rarely, "protocol"),
        (202, "queued", Then::Rarely, "protocol"),
        (
            260,
            "ingestion blocked for user fake",
            Then::Rarely,
            "protocol",
        ),
        (302, "", Then::Rarely, "refused"),
        (404, "404 page not found", Then::Rarely, "refused"),
        (401, "no org id", Then::Rarely, "unauthorized"),
        (413, "", Then::Fewer, "refused"),
        (
            429,
            "Ingestion rate limit exceeded (limit: 4194304 bytes/sec) while attempting to ingest '9' lines totaling '9' bytes",
            Then::Soon,
            "throttled",
        ),
        (
            429,
            "ingestion rate limit exceeded for user a (limit: 4194304 bytes/sec) while attempting to ingest '4' lines totaling '9000000' bytes, reduce log volume",
            Then::Fewer,
            "throttled",
        ),
        (
            429,
            "Ingestion rate limit exceeded (limit: 4194304 bytes/sec) while attempting to ingest '1' lines totaling '9000000' bytes",
            Then::Soon,
            "throttled",
        ),
        (500, "empty ring", Then::Soon, "server-error"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5242942 vs. 4194304)",
            Then::Fewer,
            "refused",
        ),
        (503, "", Then::Soon, "server-error"),
        (
            400,
            "entry for stream '{a=\"b\"}' has 16 label names; limit 15",
            Then::Rarely,
            "settings",
        ),
        (
            400,
            "stream '{a=\"b\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata`",
            Then::Rarely,
            "settings",
        ),
        (400, "who knows", Then::Refused, "refused"),
        (400, "", Then::Refused, "refused"),
    ];
    for (status, body, then, reason) in cases {
        let failure = read(status, body).unwrap_err();
        assert_eq!((failure.then, failure.reason), (then, reason), "{body}");
    }
}

#[test]
fn words_about_the_request_are_kept_and_what_they_show_of_it_is_not() {
    let said = "loghttp.PushRequest.Streams: []*loghttp.Stream: expect : after object field, error found in #10 byte of ...|hunter2|..., bigger context ...|hunter2|...";
    let failure = read(400, said).unwrap_err();
    assert!(
        failure.message.starts_with("400: loghttp.PushRequest"),
        "{failure:?}"
    );
    assert!(!failure.message.contains("hunter2"), "{failure:?}");
}

#[test]
fn what_is_wrong_with_entries_is_read_in_the_words_of_each_version() {
    let old = time("2026-11-22T09:00:00.5Z");
    let cases = [
        (
            "Max entry size '262144' bytes exceeded for stream '{kind=\"http\"}' while adding an entry with length '300000' bytes",
            Fault::Longer(262_144),
        ),
        (
            "1 errors like: max entry size 262144 bytes exceeded for stream {kind=\"http\"} while adding an entry with length 300000 bytes",
            Fault::Longer(262_144),
        ),
        (
            "Max entry size '256KB' bytes exceeded for stream '{kind=\"http\"}' while adding an entry with length '293KB' bytes",
            Fault::Longer(usize::MAX),
        ),
        (
            "entry for stream '{kind=\"dns\"}' has timestamp too old: 2026-11-22 09:00:00.5 +0000 UTC",
            Fault::Older(Some(old), None),
        ),
        (
            "entry for stream '{kind=\"dns\"}' has timestamp too old: 2026-11-22 10:00:00.5 +0100 CET\n",
            Fault::Older(Some(old), None),
        ),
        (
            "entry for stream '{kind=\"dns\"}' has timestamp too old: 2026-11-01T09:00:00Z, oldest acceptable timestamp is: 2026-11-22T09:00:00Z",
            Fault::Older(
                Some(time("2026-11-01T09:00:00Z")),
                Some(time("2026-11-22T09:00:00Z")),
            ),
        ),
        (
            "entry for stream '{kind=\"dns\"}' has timestamp too new: 2026-12-22T09:00:00Z",
            Fault::Newer(Some(time("2026-12-22T09:00:00Z"))),
        ),
        (
            "entry for stream '{kind=\"dns\"}' has timestamp too old: the day before",
            Fault::Older(None, None),
        ),
    ];
    for (text, expected) in cases {
        let Ok(Said::Fault(fault, why)) = read(400, text) else {
            panic!("{text}");
        };
        assert_eq!(fault, expected, "{text}");
        assert!(why.starts_with("400: ") && !why.contains('\n'), "{why}");
    }
}

#[test]
fn of_a_request_with_one_stream_the_oldest_are_those_that_were_ignored() {
    // As they came, not as they are sent.
    let (batch, part) = batch(&[("dns", 3), ("dns", 1), ("dns", 2), ("dns", 4)]);
    let after = part.after(&late(2, 4), &batch);
    assert_eq!(settled(after), (vec![1, 2], vec![]));
    assert!(late(2, 4).is_strict());
    // Some had no place in the request by then: which, is not said.
    assert_eq!(part.after(&late(2, 3), &batch), None);
    let behind = "entry with timestamp 2026-11-29 09:00:01 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-29T09:00:01Z, oldest acceptable timestamp is: 2026-11-29T10:00:01Z',\nuser 'fake', total ignored: 1 out of 4 for stream: {kind=\"dns\"}";
    let said = read(400, behind).unwrap();
    assert!(!said.is_strict());
    assert_eq!(settled(part.after(&said, &batch)), (vec![1], vec![]));
}

#[test]
fn of_a_request_with_several_streams_each_is_asked_for_alone() {
    let (batch, part) = batch(&[("dns", 3), ("http", 1), ("dns", 2), ("gap", 4)]);
    let After { unfit, then } = part.after(&late(1, 2), &batch).unwrap();
    assert_eq!(unfit, Vec::<usize>::new());
    let each: Vec<_> = then.iter().map(|part| places([part])).collect();
    assert_eq!(each, [vec![0, 2], vec![3], vec![1]]);
}

#[test]
fn entries_at_fault_are_taken_out_and_those_beside_them_are_there_already() {
    let (batch, part) = batch(&[("dns", 30), ("http", 1), ("dns", 2), ("dns", 40)]);
    let long = Said::Fault(Fault::Longer(35), String::new());
    let after = part.after(&long, &batch).unwrap();
    assert_eq!(
        (&after.unfit, places(&after.then)),
        (&vec![3], vec![0, 1, 2])
    );
    let old = Fault::Older(Some(time("2026-11-29T09:00:02Z")), None);
    let after = after.then[0].after(&Said::Fault(old, String::new()), &batch);
    let after = after.unwrap();
    assert_eq!((&after.unfit, places(&after.then)), (&vec![2, 1], vec![0]));
    // Late, because it is there.
    let after = after.then[0].after(&late(1, 1), &batch);
    assert_eq!(settled(after), (vec![], vec![]));
    // Which ones, it does not say.
    let unclear = Said::Fault(Fault::Newer(None), String::new());
    assert_eq!(part.after(&unclear, &batch), None);
}

#[test]
fn a_single_entry_is_what_was_meant() {
    let (batch, part) = batch(&[("dns", 30)]);
    for fault in [
        Fault::Longer(usize::MAX),
        Fault::Older(None, None),
        Fault::Newer(None),
    ] {
        let after = part.after(&Said::Fault(fault, String::new()), &batch);
        assert_eq!(settled(after), (vec![0], vec![]));
    }
}

#[test]
fn labels_have_few_values_whatever_records_say() {
    let about = |value| -> About { serde_json::from_value(value).unwrap() };
    let labels = |about: About| {
        let record = Outgoing {
            leaf: 0,
            about,
            line: String::new(),
        };
        let part = Part::new(&[record], Timestamp::UNIX_EPOCH);
        let labels = part.streams[0].labels.clone();
        (labels.namespace, labels.kind, labels.decision)
    };
    let usual = serde_json::json!({"kind": "ws.message", "agent": {"namespace": "agents-1", "pod": "coder-0"}, "decision": {"action": "Deny"}});
    assert_eq!(
        labels(about(usual)),
        ("agents-1".to_owned(), "ws.message".to_owned(), Some("Deny"))
    );
    let strange = serde_json::json!({"kind": "k17", "agent": {"namespace": "{a=\"b\"}"}, "decision": {"action": "7"}});
    assert_eq!(
        labels(about(strange)),
        (String::new(), "other".to_owned(), None)
    );
}

#[test]
fn a_part_is_written_as_lokis_documentation_has_it() {
    let settings = |structured_metadata| chaperone_sinks::settings::Loki {
        url: String::new(),
        tenant: None,
        labels: [("cluster".to_owned(), "prod".to_owned())].into(),
        structured_metadata,
        authorization: None,
        tls: chaperone_sinks::settings::Tls::default(),
    };
    let (batch, part) = batch(&[("dns", 2), ("dns", 1)]);
    let written = |settings, has_leaves| -> serde_json::Value {
        serde_json::from_slice(&super::push::body(&part, &batch, &settings, has_leaves)).unwrap()
    };
    let labels = serde_json::json!({"cluster": "prod", "kind": "dns", "namespace": "agents", "service_name": "chaperone"});
    assert_eq!(
        written(settings(false), true),
        serde_json::json!({"streams": [{"stream": labels, "values": [["1795942801000000000", "x"], ["1795942802000000000", "xx"]]}]})
    );
    let metadata = serde_json::json!({"stream": "", "seq": "0", "leaf": "0", "level": "info"});
    let value = written(settings(true), true)["streams"][0]["values"][0].clone();
    assert_eq!(
        value,
        serde_json::json!(["1795942801000000000", "x", metadata])
    );
    let value = written(settings(true), false)["streams"][0]["values"][0].clone();
    assert_eq!(value[2]["leaf"], serde_json::Value::Null);
}

/// Words that are read, and what may stand between them.
const WORDS: [&str; 10] = [
    "Max entry size '",
    "has timestamp too old: ",
    ", oldest acceptable timestamp is: ",
    "has timestamp too new: ",
    "total ignored: ",
    " out of ",
    "entry out of order",
    "2026-11-29 09:00:00.5 +0000 UTC",
    "2026-11-29T09:00:00Z",
    "...|",
];

proptest! {
    /// Whatever is answered, each record is refused by name, sent again, taken, or the batch is halved; none is both, and none is sent that was not in the batch.
    #[test]
    fn no_words_stop_the_ledger_or_make_a_record_of_their_own(
        status in prop::sample::select(vec![204_u16, 200, 400, 400, 400, 429, 500]),
        words in prop::collection::vec((prop::sample::select(WORDS.to_vec()), ".{0,6}", 0_u64..50), 0..6),
        records in prop::collection::vec((prop::sample::select(vec!["dns", "http", "?"]), 0_u8..60), 1..8),
    ) {
        let text: String = words.iter().map(|(word, more, number)| format!("{word}{more}{number}")).collect();
        let (batch, part) = batch(&records);
        let said = read(status, &text);
        prop_assert_eq!(said == Ok(Said::Taken), status == 204);
        if let Some(After { unfit, then }) = said.ok().and_then(|said| part.after(&said, &batch)) {
            let mut all = places(&then);
            all.extend(&unfit);
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), places(&then).len() + unfit.len());
            prop_assert!(all.iter().all(|place| *place < batch.len()));
            prop_assert!(status == 204 || !unfit.is_empty() || !then.is_empty(), "nothing but 204 takes all");
        }
    }
}
