//! The sidecar's evidence path with the ledger as its sink: the real audit threads and the real program, either of them killed in the middle.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    pod::PodIdentity,
    record::{AgentRef, Event, EventKind},
    resources::Format,
    verify::{Start, verify},
};
use chaperone_sidecar::audit::{self, AuditConfig, AuditHandle, HostNet, Recorder};
use prometheus::Registry;

use crate::world::{Ledger, World};

/// Where the child finds what to do. Without it, the child's test does nothing.
const FOLDER: &str = "CHAPERONE_TEST_SIDECAR_FOLDER";
const URL: &str = "CHAPERONE_TEST_SIDECAR_URL";
const LAST: &str = "CHAPERONE_TEST_SIDECAR_LAST";
/// Times that one of the two is killed.
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
    let identity = PodIdentity {
        namespace: "agents".to_owned(),
        pod: "story".to_owned(),
        ..PodIdentity::default()
    };
    let config = AuditConfig {
        file_dir: None,
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

fn spawn(folder: &Path, ledger: &Ledger, last: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "sidecar::child", "--nocapture"])
        .env(FOLDER, folder)
        .env(URL, format!("https://{}", ledger.api))
        .stdout(Stdio::null());
    if last {
        command.env(LAST, "1");
    }
    command.spawn().unwrap()
}

/// The lines of the sidecar's stream, in the order of the ledger.
fn streamed(world: &World, stream: &str) -> Vec<String> {
    let all = String::from_utf8(world.records()).unwrap();
    let of = format!("\"stream\":\"{stream}\",\"seq\"");
    let lines = all.lines().filter(|line| line.contains(&of));
    lines.map(str::to_owned).collect()
}

#[test]
fn sidecar_and_ledger_killed_in_turn_agree_on_every_record() {
    let world = World::new("story");
    let folder = world.folder.join("sidecar");
    fs::create_dir(&folder).unwrap();
    fs::copy(world.folder.join("tls.crt"), folder.join("tls.crt")).unwrap();
    let mut ledger = world.start();
    world.pin(ledger.api);
    let mut sidecar = spawn(&folder, &ledger, false);
    // The token comes later than the sidecar.
    thread::sleep(Duration::from_millis(300));
    fs::write(folder.join("token"), "pod-story\n").unwrap();
    for kill in 0..KILLS {
        thread::sleep(Duration::from_millis(700 + kill * 97 % 400));
        if kill.is_multiple_of(2) {
            ledger.kill();
            thread::sleep(Duration::from_millis(kill * 31 % 200));
            ledger = world.start();
        } else {
            sidecar.kill().unwrap();
            sidecar.wait().unwrap();
            sidecar = spawn(&folder, &ledger, false);
        }
    }
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    assert!(spawn(&folder, &ledger, true).wait().unwrap().success());
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
    // The file has copies of what came again after a kill.
    let file = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let mut seen = BTreeSet::new();
    let written: Vec<_> = file.lines().filter(|line| seen.insert(*line)).collect();
    assert!(there.len() > 2000, "{}", there.len());
    assert_eq!(there, written, "the same lines in the same order");
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
    let folder = world.folder.join("sidecar");
    fs::create_dir(&folder).unwrap();
    fs::copy(world.folder.join("tls.crt"), folder.join("tls.crt")).unwrap();
    fs::write(folder.join("token"), "pod-story").unwrap();
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
