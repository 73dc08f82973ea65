//! The evidence path as a whole: real files, real sockets, real kills.

mod collector;
mod disk_full;
mod kill;

use std::{fs, path::Path, time::Duration};

use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    record::{OperationInfo, Record},
    render::render_lines,
    resources::Format,
    verify::{Report, Start, verify},
};
use tokio::time::sleep;

use super::*;
pub(super) use collector::{Collector, Reply};

/// More than any test waits for sinks.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of one test, gone at its end.
pub(super) struct Scratch(PathBuf);

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An empty directory of this test run.
pub(super) fn scratch(name: &str) -> Scratch {
    let dir = std::env::temp_dir().join(format!("chaperone-audit-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    Scratch(dir)
}

pub(super) fn identity() -> PodIdentity {
    PodIdentity {
        namespace: "agents".to_owned(),
        pod: "claude-0".to_owned(),
        ..PodIdentity::default()
    }
}

pub(super) fn event(number: usize) -> Event {
    let mut event = Event::new(EventKind::Http, AgentRef::from(&identity()));
    event.operation = Some(OperationInfo {
        protocol: "http".to_owned(),
        verb: "GET".to_owned(),
        resource: format!("https://example.com/{number}"),
    });
    event
}

pub(super) fn file_sink(name: &str, path: &Path) -> SinkConfig {
    SinkConfig {
        name: name.to_owned(),
        target: SinkTarget::File {
            path: path.to_str().unwrap().to_owned(),
        },
        format: Format::Native,
        filter: None,
    }
}

pub(super) fn config(spool: &Path) -> AuditConfig {
    AuditConfig {
        file_dir: None,
        ..AuditConfig::new(spool, identity())
    }
}

/// Starts; waits for the threads of an instance that was dropped to let the spool go.
pub(super) async fn start_with(config: AuditConfig) -> (Recorder, AuditHandle, Registry) {
    for _ in 0..500 {
        let registry = Registry::new();
        match start(config.clone(), Arc::new(HostNet), &registry) {
            Err(AuditError::InUse(_)) => sleep(Duration::from_millis(10)).await,
            Err(other) => panic!("{other}"),
            Ok((recorder, handle)) => return (recorder, handle, registry),
        }
    }
    panic!("the spool stays in use");
}

/// Sum of a metric's values, over all labels.
pub(super) fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|f| f.name() == name);
    metrics
        .flat_map(|f| f.get_metric())
        .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
        .sum()
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_goes_on_and_a_busy_one_does_not() {
    let dir = scratch("heartbeat");
    let out = dir.join("out.jsonl");
    let config = AuditConfig {
        heartbeat: Duration::from_secs(1),
        ..config(&dir.join("spool"))
    };
    let (recorder, handle, registry) = start_with(config).await;
    handle.set_sinks(vec![file_sink("out", &out)]).unwrap();
    for number in 0..30 {
        sleep(Duration::from_millis(50)).await;
        recorder.record(event(number)).await;
    }
    let beats = || {
        let all = records(&out);
        let kinds: Vec<_> = all.iter().map(|record| record.event.kind).collect();
        kinds
            .iter()
            .filter(|kind| **kind == EventKind::StreamHeartbeat)
            .count()
    };
    assert_eq!(beats(), 0, "while events come");
    sleep(Duration::from_millis(3_600)).await;
    let beaten = beats();
    assert!((2..=3).contains(&beaten), "{beaten} in 3.6 s of silence");
    handle.close("terminated", PATIENCE).await;
    let report = judge(&out);
    assert!(report.is_intact() && report.streams[0].closed, "{report}");
    assert!(metric(&registry, "chaperone_audit_records_total") > 33.0);
}

pub(super) fn judge(file: &Path) -> Report {
    let content = fs::read(file).unwrap();
    verify(&content[..], Start::Open).unwrap()
}

pub(super) fn records(file: &Path) -> Vec<Record> {
    let content = fs::read_to_string(file).unwrap();
    let lines = content.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn records_reach_a_file_and_the_closed_stream_verifies() {
    let dir = scratch("whole");
    let file = dir.join("audit.jsonl");
    let (recorder, handle, registry) = start_with(config(&dir.join("spool"))).await;
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    for number in 0..100 {
        recorder.record(event(number)).await;
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert_eq!(
        closing,
        Closing {
            closed: true,
            undelivered: 0
        }
    );
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    assert_eq!((report.records(), report.streams[0].closed), (102, true));
    let operations = records(&file)
        .into_iter()
        .filter_map(|record| record.event.operation);
    let expected = (0..100).map(|n| format!("https://example.com/{n}"));
    assert!(operations.map(|o| o.resource).eq(expected));
    assert!(metric(&registry, "chaperone_audit_sink_records_total") >= 102.0);
    assert_eq!(metric(&registry, "chaperone_audit_records_total"), 102.0);
    assert_eq!(metric(&registry, "chaperone_audit_sink_lag_records"), 0.0);
}

#[tokio::test]
async fn a_file_has_every_record_in_the_format_that_its_sink_asks_for() {
    for format in Format::ALL {
        let dir = scratch(&format!("format-{format}"));
        let (native, file) = (dir.join("native"), dir.join("rendered"));
        let (recorder, handle, _) = start_with(config(&dir.join("spool"))).await;
        let rendered = SinkConfig {
            format,
            ..file_sink("rendered", &file)
        };
        handle
            .set_sinks(vec![file_sink("native", &native), rendered])
            .unwrap();
        for number in 0..100 {
            recorder.record(event(number)).await;
        }
        assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
        let report = judge(&native);
        assert!(report.is_intact() && report.records() == 102, "{report}");
        let expected = render_lines(format, &fs::read(&native).unwrap()).unwrap();
        assert!(fs::read(&file).unwrap() == expected, "{format}");
    }
}

#[tokio::test]
async fn a_filtered_sink_gets_what_passes_and_holds_nothing_up() {
    let dir = scratch("filter");
    let (whole, filtered) = (dir.join("whole"), dir.join("filtered"));
    let (recorder, handle, registry) = start_with(config(&dir.join("spool"))).await;
    let some = SinkConfig {
        filter: Some("record.operation.resource.endsWith(\"7\")".to_owned()),
        ..file_sink("some", &filtered)
    };
    let unreadable = SinkConfig {
        filter: Some("record.of.the.future".to_owned()),
        ..file_sink("all", &whole)
    };
    handle.set_sinks(vec![some, unreadable]).unwrap();
    for number in 0..100 {
        recorder.record(event(number)).await;
    }
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    assert_eq!(judge(&whole).records(), 102);
    let kept = records(&filtered);
    let seqs: Vec<u64> = kept.iter().map(|record| record.seq).collect();
    let expected: Vec<u64> = (0..102)
        .filter(|n| n % 10 == 8 || [0, 101].contains(n))
        .collect();
    assert_eq!(seqs, expected);
    assert_eq!(
        metric(&registry, "chaperone_audit_sink_left_out_records_total"),
        90.0
    );
    // What passed is no whole chain, and the verifier says so.
    let report = verify(&fs::read(&filtered).unwrap()[..], Start::Anywhere).unwrap();
    assert!(!report.is_intact(), "{report}");
}

#[tokio::test]
async fn a_receipt_is_given_once_the_record_is_on_disk() {
    let dir = scratch("receipt");
    let (recorder, _handle, _) = start_with(config(&dir)).await;
    let receipt = recorder.record_durable(event(7)).await.unwrap();
    let written = records(&dir.join("00000000.jsonl"));
    let record = written.last().unwrap();
    assert_eq!(record.seq, receipt.link().seq);
    assert_eq!(record.stream, receipt.stream().as_str());
    assert_eq!(record.event.http, event(7).http);
}

#[tokio::test]
async fn a_sidecar_that_died_resumes_its_stream() {
    let dir = scratch("resume");
    let file = dir.join("audit.jsonl");
    let (recorder, handle, _) = start_with(config(&dir.join("spool"))).await;
    let _ = recorder.record_durable(event(0)).await.unwrap();
    drop(handle);
    // What a kill in the middle of a write leaves.
    let segment = dir.join("spool/00000000.jsonl");
    let mut torn = fs::read(&segment).unwrap();
    torn.extend_from_slice(b"{\"v\":\"chaperone.dev/v1\",\"str");
    let (recorder, handle, _) = loop {
        if fs::File::open(dir.join("spool/lock"))
            .unwrap()
            .try_lock()
            .is_ok()
        {
            fs::write(&segment, &torn).unwrap();
            break start_with(config(&dir.join("spool"))).await;
        }
        sleep(Duration::from_millis(10)).await;
    };
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    recorder.record(event(1)).await;
    assert!(handle.close("terminated", PATIENCE).await.closed);
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    let kinds: Vec<_> = records(&file).iter().map(|r| r.event.kind).collect();
    use EventKind::{Http, StreamClose, StreamOpen, StreamResume};
    assert_eq!(kinds, [StreamOpen, Http, StreamResume, Http, StreamClose]);
}

#[tokio::test]
async fn after_a_close_another_stream_begins_and_both_are_delivered() {
    let dir = scratch("reopen");
    let file = dir.join("audit.jsonl");
    for _ in 0..2 {
        let (recorder, handle, _) = start_with(config(&dir.join("spool"))).await;
        recorder.record(event(0)).await;
        let closing = handle.close("terminated", Duration::from_millis(200)).await;
        assert!(closing.closed && closing.undelivered > 0, "{closing:?}");
    }
    let (_recorder, handle, _) = start_with(config(&dir.join("spool"))).await;
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    handle.close("terminated", PATIENCE).await;
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.streams.len(), 3);
}

#[tokio::test]
async fn a_spool_belongs_to_one_process() {
    let dir = scratch("in-use");
    let _running = start_with(config(&dir)).await;
    let second = start(config(&dir), Arc::new(HostNet), &Registry::new());
    assert!(matches!(second, Err(AuditError::InUse(_))));
}

#[tokio::test]
async fn a_full_spool_makes_recorders_wait_and_loses_nothing() {
    let dir = scratch("limit");
    let file = dir.join("audit.jsonl");
    let small = AuditConfig {
        max_spool_bytes: MIN_SPOOL_BYTES,
        queue_bytes: 64 * 1024,
        ..config(&dir.join("spool"))
    };
    let (recorder, handle, registry) = start_with(small).await;
    let total = 10_000;
    let recording = tokio::spawn(async move {
        for number in 0..total {
            recorder.record(event(number)).await;
        }
    });
    while metric(&registry, "chaperone_audit_spool_blocked") == 0.0 {
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(300)).await;
    assert!(!recording.is_finished());
    assert!(metric(&registry, "chaperone_audit_queue_full_total") > 0.0);
    assert!(metric(&registry, "chaperone_audit_spool_bytes") < 2.5 * MIN_SPOOL_BYTES as f64);

    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    recording.await.unwrap();
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), total as u64 + 2);
    let left = fs::read_dir(dir.join("spool")).unwrap();
    let left = left.filter(|f| {
        f.as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .ends_with("jsonl")
    });
    assert_eq!(left.count(), 1, "delivered segments are deleted");
}

#[tokio::test]
async fn sinks_come_and_go_at_run_time() {
    let dir = scratch("sinks");
    let (a, b) = (dir.join("a.jsonl"), dir.join("b.jsonl"));
    let (recorder, handle, _) = start_with(config(&dir.join("spool"))).await;
    handle.set_sinks(vec![file_sink("a", &a)]).unwrap();
    recorder.record(event(0)).await;
    handle
        .set_sinks(vec![file_sink("a", &a), file_sink("b", &b)])
        .unwrap();
    let _ = recorder.record_durable(event(1)).await.unwrap();
    let lines = |file: &Path| fs::read_to_string(file).unwrap_or_default().lines().count();
    while lines(&a) < 3 || lines(&b) < 3 || !dir.join("spool/cursor-a.json").exists() {
        sleep(Duration::from_millis(10)).await;
    }
    handle.set_sinks(vec![file_sink("b", &b)]).unwrap();
    while dir.join("spool/cursor-a.json").exists() {
        sleep(Duration::from_millis(10)).await;
    }
    recorder.record(event(2)).await;
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    assert_eq!(records(&a).len(), 3);
    assert_eq!(records(&b).len(), 5);
    assert!(judge(&b).is_intact());
}

#[tokio::test]
async fn a_sink_with_unusable_settings_holds_its_records_and_disturbs_no_other() {
    let dir = scratch("misconfigured");
    let file = dir.join("audit.jsonl");
    let (recorder, handle, registry) = start_with(config(&dir.join("spool"))).await;
    let bad = file_sink("bad", &dir);
    handle
        .set_sinks(vec![bad, file_sink("file", &file)])
        .unwrap();
    recorder.record(event(0)).await;
    let closing = handle.close("terminated", Duration::from_secs(1)).await;
    assert_eq!(closing.undelivered, 3);
    assert!(judge(&file).is_intact());
    assert!(metric(&registry, "chaperone_audit_sink_errors_total") > 0.0);
}

#[tokio::test]
async fn names_that_are_no_file_names_are_refused_as_a_whole() {
    let dir = scratch("names");
    let (_recorder, handle, _) = start_with(config(&dir)).await;
    for bad in ["", "../x", "a/b", "a b", &"x".repeat(129)] {
        assert!(
            handle.set_sinks(vec![file_sink(bad, &dir)]).is_err(),
            "{bad}"
        );
    }
    let twice = vec![file_sink("a", &dir), file_sink("a", &dir)];
    assert!(handle.set_sinks(twice).is_err());
}

#[tokio::test]
async fn a_damaged_spool_begins_a_new_stream_and_delivers_what_is_there() {
    let dir = scratch("damaged");
    let spool = dir.join("spool");
    fs::create_dir_all(&spool).unwrap();
    fs::write(spool.join("00000003.jsonl"), "no record at all\n").unwrap();
    fs::write(spool.join("state.json"), "").unwrap();
    fs::write(spool.join("cursor-file.json"), "{}").unwrap();
    let file = dir.join("audit.jsonl");
    let (_recorder, handle, _) = start_with(config(&spool)).await;
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    let report = judge(&file);
    assert_eq!(report.line_fault_count, 1);
    assert_eq!(report.streams.len(), 1);
    assert_eq!(report.streams[0].fault, None);
}
