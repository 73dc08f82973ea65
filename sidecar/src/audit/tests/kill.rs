//! kill -9 under load, many times: the test runs itself as a child process, and kills it.

use std::{
    env,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use super::*;

/// Where the child finds what to do. Without it, the child's test does nothing.
const SPOOL: &str = "CHAPERONE_TEST_KILL_SPOOL";
const URL: &str = "CHAPERONE_TEST_KILL_URL";
const FILE: &str = "CHAPERONE_TEST_KILL_FILE";
const LAST: &str = "CHAPERONE_TEST_KILL_LAST";
const KILLS: u64 = 10;
/// What the file sink has of a child before it is killed, at least: some 120 records.
const WORK_BYTES: u64 = 64 * 1024;

/// Bytes that the file sink has.
fn delivered(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("audit.jsonl")).map_or(0, |file| file.len())
}

fn spawn(dir: &Path, collector: &Collector, last: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "audit::tests::kill::child", "--nocapture"])
        .env(SPOOL, dir.join("spool"))
        .env(FILE, dir.join("audit.jsonl"))
        .env(URL, format!("http://{}/", collector.address))
        .stdout(Stdio::null());
    if last {
        command.env(LAST, "1");
    }
    command.spawn().unwrap()
}

/// Not a test by itself: the process that is killed.
#[tokio::test]
async fn child() {
    let Some(spool) = env::var_os(SPOOL) else {
        return;
    };
    let last = env::var_os(LAST).is_some();
    let settings = AuditConfig {
        max_spool_bytes: MIN_SPOOL_BYTES,
        ..config(Path::new(&spool))
    };
    let (recorder, handle, _) = start_with(settings).await;
    let http = SinkTarget::Http {
        url: env::var(URL).unwrap(),
        bearer: None,
        client_cert: None,
        client_key: None,
        ca_bundle: None,
        batch_size: 300,
    };
    let http = SinkConfig {
        name: "http".to_owned(),
        target: http,
        format: Format::Native,
        filter: None,
    };
    let file = file_sink("file", Path::new(&env::var(FILE).unwrap()));
    handle.set_sinks(vec![http, file]).unwrap();
    for number in 0.. {
        recorder.record(event(number)).await;
        if last && number > 1000 {
            break;
        }
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sidecar_killed_under_load_leaves_an_intact_chain_at_every_sink() {
    let dir = scratch("kill");
    let collector = Collector::start(None, |request, _| match request % 7 {
        3 => Reply::AcceptAndHangUp,
        5 => Reply::Refuse(503, Vec::new()),
        _ => Reply::Accept,
    })
    .await;
    for kill in 0..KILLS {
        let had = delivered(&dir);
        let mut child = spawn(&dir, &collector, false);
        // On a busy machine it may take long to come up: what is killed has to be at work.
        let began = Instant::now();
        while delivered(&dir) < had.saturating_add(WORK_BYTES) {
            assert!(began.elapsed() < PATIENCE, "the child does nothing");
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(kill * 37 % 250));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut last = spawn(&dir, &collector, true);
    let status = tokio::task::spawn_blocking(move || last.wait().unwrap());
    assert!(status.await.unwrap().success());

    let at_http = verify(&collector.lines()[..], Start::Open).unwrap();
    assert!(at_http.is_intact(), "{at_http}");
    let in_file = judge(&dir.join("audit.jsonl"));
    assert!(in_file.is_intact(), "{in_file}");
    assert_eq!(at_http.streams.len(), 1);
    assert!(at_http.streams[0].closed && in_file.streams[0].closed);
    assert_eq!(at_http.records(), in_file.records());
    assert!(at_http.records() > 2000, "{at_http}");
    let resumed = records(&dir.join("audit.jsonl"));
    let resumed = resumed
        .iter()
        .filter(|r| r.event.kind == EventKind::StreamResume);
    assert!(resumed.count() > 0);
}
