//! A disk that is full, for real: a tmpfs of a few MiB in a mount namespace of one thread. Needs root.

use std::thread;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::*;

/// A tmpfs of 4 MiB at `dir` that only this thread and those it starts can see.
fn small_disk(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, as root");
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    mount(none, dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
}

/// Runs a scene on a full disk of its own: the scene gets a directory outside of it, and the disk.
fn on_small_disk<F: Future<Output = ()>>(
    name: &str,
    scene: impl FnOnce(PathBuf, PathBuf) -> F + Send + 'static,
) {
    let dir = scratch(name);
    let disk = dir.join("disk");
    fs::create_dir(&disk).unwrap();
    let outside = dir.to_path_buf();
    let stage = move || {
        small_disk(&disk);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(scene(outside, disk));
    };
    thread::spawn(stage).join().unwrap();
}

#[test]
fn on_a_full_disk_records_wait_and_go_on_when_there_is_space_again() {
    on_small_disk("disk-full", full_and_freed);
}

#[test]
fn a_disk_smaller_than_a_segment_only_slows_down() {
    on_small_disk("disk-small", small);
}

async fn small(dir: PathBuf, disk: PathBuf) {
    let (recorder, handle, registry) = start_with(config(&disk.join("spool"))).await;
    let file = dir.join("audit.jsonl");
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    let total = 40_000;
    for number in 0..total {
        recorder.record(event(number)).await;
    }
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), total as u64 + 2);
    assert!(fs::metadata(&file).unwrap().len() > 8 * 1024 * 1024);
    assert!(metric(&registry, "chaperone_audit_spool_errors_total") > 0.0);
}

async fn full_and_freed(dir: PathBuf, disk: PathBuf) {
    let settings = AuditConfig {
        queue_bytes: 64 * 1024,
        ..config(&disk.join("spool"))
    };
    let (recorder, handle, registry) = start_with(settings).await;
    let _ = recorder.record_durable(event(0)).await.unwrap();

    let ballast = disk.join("ballast");
    // Fails when the disk is full, which is the point.
    let _ = fs::write(&ballast, vec![0; 5 * 1024 * 1024]);
    // More than one batch and the queue hold in memory.
    let total = 6_000;
    let recording = tokio::spawn(async move {
        for number in 1..total {
            recorder.record(event(number)).await;
        }
    });
    while metric(&registry, "chaperone_audit_spool_errors_total") < 2.0 {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(300)).await;
    assert!(!recording.is_finished());
    assert_eq!(metric(&registry, "chaperone_audit_spool_blocked"), 1.0);

    fs::remove_file(&ballast).unwrap();
    let file = dir.join("audit.jsonl");
    handle.set_sinks(vec![file_sink("file", &file)]).unwrap();
    recording.await.unwrap();
    let closing = handle.close("terminated", PATIENCE).await;
    assert!(closing.closed && closing.undelivered == 0, "{closing:?}");
    let report = judge(&file);
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), total as u64 + 2);
    assert_eq!(metric(&registry, "chaperone_audit_spool_blocked"), 0.0);
}
