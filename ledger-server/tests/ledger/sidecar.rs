//! The sidecar's evidence path with the ledger as its sink: the real audit threads and the real program, either of them killed in the middle.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::{
    chain::StreamId,
    control::{SinkConfig, SinkTarget},
    pod::PodIdentity,
    record::{AgentRef, Event, EventKind},
    resources::Format,
    verify::{Start, verify},
};
use chaperone_ledger::audit::{Trust, verify as prove};
use chaperone_sidecar::audit::{
    self, AuditConfig, AuditHandle, DEFAULT_SPOOL_BYTES, HostNet, MIN_SPOOL_BYTES, Recorder,
};
use prometheus::Registry;

use crate::world::{Ledger, ORIGIN, World, kills};

/// Where the child finds what to do. Without it, the child's test does nothing.
const FOLDER: &str = "CHAPERONE_TEST_SIDECAR_FOLDER";
const URL: &str = "CHAPERONE_TEST_SIDECAR_URL";
const LAST: &str = "CHAPERONE_TEST_SIDECAR_LAST";
/// Times that one of the two is killed, where nothing else is asked for.
const KILLS: u64 = 10;
/// More than sinks need to take what is left.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn ledger_sink(folder: &Path, url: &str) -> SinkConfig {
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    SinkConfig {
        name: "ledger".to_owned(),
        target: SinkTarget::Ledger {
            url: url.to_owned(),
            ca_bundle: fs::read_to_string(folder.join("tls.crt")).unwrap(),
            token_file: text("token"),
        },
        format: Format::Native,
        filter: None,
    }
}

fn file_sink(folder: &Path) -> SinkConfig {
    SinkConfig {
        name: "file".to_owned(),
        target: SinkTarget::File {
            path: folder.join("audit.jsonl").to_str().unwrap().to_owned(),
        },
        format: Format::Native,
        filter: None,
    }
}

fn start(folder: &Path, registry: &Registry) -> (Recorder, AuditHandle) {
    start_within(folder, registry, DEFAULT_SPOOL_BYTES)
}

fn start_within(
    folder: &Path,
    registry: &Registry,
    max_spool_bytes: u64,
) -> (Recorder, AuditHandle) {
    let identity = PodIdentity {
        namespace: "agents".to_owned(),
        pod: "story".to_owned(),
        ..PodIdentity::default()
    };
    let config = AuditConfig {
        file_dir: None,
        max_spool_bytes,
        ..AuditConfig::new(folder.join("spool"), identity)
    };
    audit::start(config, Arc::new(HostNet), registry).unwrap()
}

fn event() -> Event {
    Event::new(EventKind::Dns, AgentRef::default())
}

/// Not a test by itself: the sidecar that is killed.
#[tokio::test]
async fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let last = env::var_os(LAST).is_some();
    let (recorder, handle) = start(folder, &Registry::new());
    let sinks = vec![
        ledger_sink(folder, &env::var(URL).unwrap()),
        file_sink(folder),
    ];
    handle.set_sinks(sinks).unwrap();
    for number in 0_u64.. {
        recorder.record(event()).await;
        // Some thousand a second: the kills are what is tested, not the rate.
        if number.is_multiple_of(10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if last && number > 1000 {
            break;
        }
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
}

/// A folder for a sidecar, with what it needs to reach the ledger.
pub(crate) fn folder(world: &World) -> PathBuf {
    let folder = world.folder.join("sidecar");
    fs::create_dir(&folder).unwrap();
    fs::copy(world.folder.join("tls.crt"), folder.join("tls.crt")).unwrap();
    fs::write(folder.join("token"), "pod-story\n").unwrap();
    folder
}

/// A sidecar that records until it is killed.
pub(crate) fn command(folder: &Path, ledger: &Ledger) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "sidecar::child", "--nocapture"])
        .env(FOLDER, folder)
        .env(URL, format!("https://{}", ledger.api))
        .stdout(Stdio::null());
    command
}

/// The one after it, to its end: it ends by itself once all is delivered.
pub(crate) fn last(folder: &Path, ledger: &Ledger) {
    let mut command = command(folder, ledger);
    let mut last = Running(command.env(LAST, "1").spawn().unwrap());
    assert!(last.0.wait().unwrap().success());
}

/// A process that does not outlive the test. Dropped, it is killed.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the sidecar's file has, without the copies that came again after a kill.
pub(crate) fn written(folder: &Path) -> Vec<String> {
    let file = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let mut seen = BTreeSet::new();
    let lines = file.lines().filter(|line| seen.insert(*line));
    lines.map(str::to_owned).collect()
}

/// The lines of the sidecar's stream, in the order of the ledger.
pub(crate) fn streamed(world: &World, stream: &str) -> Vec<String> {
    let all = String::from_utf8(world.records()).unwrap();
    let of = format!("\"stream\":\"{stream}\",\"seq\"");
    let lines = all.lines().filter(|line| line.contains(&of));
    lines.map(str::to_owned).collect()
}

#[test]
fn sidecar_and_ledger_killed_in_turn_agree_on_every_record() {
    let world = World::new("story");
    let folder = folder(&world);
    fs::remove_file(folder.join("token")).unwrap();
    let mut ledger = world.start();
    world.pin(ledger.api);
    let start = |ledger: &Ledger| Running(command(&folder, ledger).spawn().unwrap());
    let mut sidecar = start(&ledger);
    // The token comes later than the sidecar.
    thread::sleep(Duration::from_millis(300));
    fs::write(folder.join("token"), "pod-story\n").unwrap();
    for kill in 0..kills(KILLS) {
        thread::sleep(Duration::from_millis(700 + kill * 97 % 400));
        if kill.is_multiple_of(2) {
            ledger.kill();
            thread::sleep(Duration::from_millis(kill * 31 % 200));
            ledger = world.start();
        } else {
            drop(sidecar);
            sidecar = start(&ledger);
        }
    }
    drop(sidecar);
    last(&folder, &ledger);
    ledger.stop();

    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(
        report.streams.len(),
        2,
        "the ledger's own and the sidecar's"
    );
    let stream = report.streams.iter().find(|s| s.closed).unwrap();
    let there = streamed(&world, stream.stream.as_str());
    assert!(there.len() > 2000, "{}", there.len());
    assert_eq!(there, written(&folder), "the same lines in the same order");
}

/// Records that sinks have acknowledged.
fn delivered(registry: &Registry) -> u64 {
    let families = registry.gather();
    let of =
        |f: &&prometheus::proto::MetricFamily| f.name() == "chaperone_audit_sink_records_total";
    let metrics = families.iter().filter(of).flat_map(|f| f.get_metric());
    metrics.map(|m| m.get_counter().get_value() as u64).sum()
}

async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_ledger_that_was_restored_from_a_copy_is_sent_what_it_lacks() {
    let world = World::new("restored");
    let folder = folder(&world);
    let ledger = world.start();
    world.pin(ledger.api);
    let registry = Registry::new();
    let (recorder, handle) = start(&folder, &registry);
    let url = format!("https://{}", ledger.api);
    handle.set_sinks(vec![ledger_sink(&folder, &url)]).unwrap();
    let copy = world.folder.join("copy");
    for round in 0..3 {
        for _ in 0..500 {
            recorder.record(event()).await;
        }
        until(|| delivered(&registry) > 500 * (round + 1)).await;
        if round == 0 {
            assert!(
                Command::new("cp")
                    .arg("-a")
                    .args([&world.data, &copy])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
    ledger.stop();
    fs::remove_dir_all(&world.data).unwrap();
    fs::rename(&copy, &world.data).unwrap();
    let ledger = world.start();
    for _ in 0..100 {
        recorder.record(event()).await;
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
    ledger.stop();
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    let stream = report.streams.iter().find(|s| s.closed).unwrap();
    assert_eq!(stream.records, 1 + 1500 + 100 + 1);
}

/// The ledger's directory as an auditor sees it.
fn proved(world: &World) -> chaperone_ledger::audit::Verdict {
    let trust = Trust {
        keys: vec![world.vkey.parse().unwrap()],
        kept: Vec::new(),
    };
    let verdict = prove(&world.data, &trust).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_ledger_goes_on_without_what_nobody_has_any_more_and_says_so() {
    let world = World::new("lost");
    let folder = folder(&world);
    let registry = Registry::new();
    // Small, so that what every sink has taken soon goes.
    let (recorder, handle) = start_within(&folder, &registry, MIN_SPOOL_BYTES);
    let more = async |records: u64| {
        let before = delivered(&registry);
        for _ in 0..records {
            recorder.record(event()).await;
        }
        until(|| delivered(&registry) >= before + records).await;
    };
    // It begins before there is a ledger.
    handle.set_sinks(vec![file_sink(&folder)]).unwrap();
    more(3000).await;
    let ledger = world.start();
    world.pin(ledger.api);
    let url = format!("https://{}", ledger.api);
    handle.set_sinks(vec![ledger_sink(&folder, &url)]).unwrap();
    more(3000).await;
    ledger.stop();
    let verdict = proved(&world);
    assert!(verdict.is_complete(), "{verdict}");
    let of = |verdict: &chaperone_ledger::audit::Verdict| {
        let mut streams = verdict.streams.streams.iter();
        let own = StreamId::of_ledger(ORIGIN);
        streams.find(|s| s.stream != own).unwrap().clone()
    };
    let first = of(&verdict).first_seq;
    assert!(first > 0, "{verdict}");

    // It is restored from a copy, and its sidecar has less than it lacks.
    let copy = world.folder.join("copy");
    fs::rename(&world.data, &copy).unwrap();
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([&copy, &world.data])
            .status()
            .unwrap()
            .success()
    );
    let ledger = world.start();
    more(6000).await;
    ledger.stop();
    fs::remove_dir_all(&world.data).unwrap();
    fs::rename(&copy, &world.data).unwrap();
    let ledger = world.start();
    for _ in 0..100 {
        recorder.record(event()).await;
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
    let missing = ledger.metric("chaperone_ledger_missing_records_total");
    ledger.stop();
    let verdict = proved(&world);
    assert!(!verdict.is_complete());
    let stream = of(&verdict);
    assert_eq!(stream.first_seq, first);
    assert!(stream.closed && stream.missing.records > 0, "{verdict}");
    assert_eq!(stream.missing.records as f64, missing);
    let lost = format!("INCOMPLETE: {missing} records are missing");
    assert!(verdict.to_string().ends_with(&lost), "{verdict}");

    // And it opens again, with what its own records say.
    let ledger = world.start();
    ledger.stop();
    assert_eq!(of(&proved(&world)).missing, stream.missing);
}
