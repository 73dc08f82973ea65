//! What a machine does to a ledger and a sidecar beside a kill: disks that fail now and then, clocks that are off, a network that is silent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::verify::{Report, Start, verify};
use nix::sys::signal::Signal;

use crate::{
    sidecar::{self, Running, streamed},
    world::{Ledger, Lines, World, stream},
};

/// The disk that fails, to be preloaded.
fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let shim = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&shim)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults.c"))
            .arg("-ldl")
            .status()
            .expect("cc is there");
        assert!(made.success());
        shim
    })
}

fn preloaded(command: &mut Command, folder: &Path, every: u32, switch: &Path) {
    // The kernel knows it without symbolic links.
    fs::create_dir_all(folder).unwrap();
    command
        .env("LD_PRELOAD", shim())
        .env("FAULT_FOLDER", fs::canonicalize(folder).unwrap())
        .env("FAULT_EVERY", every.to_string())
        .env("FAULT_SWITCH", switch);
}

/// The report on all that the ledger has, which must be whole.
fn intact(world: &World) -> Report {
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    let lines = world.records().iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(lines, report.records(), "nothing is there twice");
    report
}

/// A last sidecar delivers all that is left; then its file and the ledger have the same lines in the same order. How many records there are.
fn agree(world: &World, folder: &Path, ledger: Ledger) -> u64 {
    sidecar::last(folder, &ledger);
    ledger.stop();
    let report = intact(world);
    let closed = report.streams.iter().find(|s| s.closed).unwrap();
    let there = streamed(world, closed.stream.as_str());
    assert_eq!(there, sidecar::written(folder));
    closed.records
}

#[test]
fn a_disk_that_fails_now_and_then_loses_nothing_of_sidecar_or_ledger() {
    let world = World::new("eio");
    let folder = sidecar::folder(&world);
    let switch = world.folder.join("fails");
    // Every third write or sync of the ledger, every fifth of the sidecar.
    let start = || {
        let mut command = world.command();
        preloaded(&mut command, &world.data, 3, &switch);
        world.start_as(command)
    };
    let mut ledger = start();
    world.pin(ledger.api);
    let mut child = sidecar::command(&folder, &ledger);
    preloaded(&mut child, &folder.join("spool"), 5, &switch);
    let child = Running(child.spawn().unwrap());
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let mut batch = lines.take(20);
    for round in 0..6 {
        thread::sleep(Duration::from_millis(300));
        fs::write(&switch, "").unwrap();
        // Until it fails under somebody who looks.
        let refused = (0..200).any(|_| match ledger.post("pod-a", &id, &batch) {
            (200, _) => {
                batch = lines.take(20);
                false
            }
            (503, _) => true,
            other => panic!("{other:?}"),
        });
        assert!(refused, "the disk never failed");
        thread::sleep(Duration::from_millis(300));
        // A kill while it fails, and a start on what that left.
        if round % 3 == 2 {
            ledger.kill();
            fs::remove_file(&switch).unwrap();
            ledger = start();
        } else {
            fs::remove_file(&switch).unwrap();
        }
        let end = Instant::now() + Duration::from_secs(30);
        while ledger.post("pod-a", &id, &batch).0 != 200 {
            assert!(Instant::now() < end, "the disk works, and nothing is taken");
            thread::sleep(Duration::from_millis(50));
        }
        batch = lines.take(20);
    }
    drop(child);
    let records = agree(&world, &folder, ledger);
    assert!(records > 1000, "{records}");
}

#[test]
fn a_network_that_is_silent_for_a_while_loses_and_doubles_nothing() {
    let world = World::new("silent");
    let folder = sidecar::folder(&world);
    let ledger = world.start();
    let child = Running(sidecar::command(&folder, &ledger).spawn().unwrap());
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(700));
        // Connections stay open, and nobody answers.
        ledger.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(2));
        ledger.signal(Signal::SIGCONT);
    }
    drop(child);
    agree(&world, &folder, ledger);
}

/// The clock of a program, an hour off, by libfaketime.
pub(crate) fn clock(command: &mut Command, offset: &str) {
    let library = succeeds(
        Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1 | head -1"]),
    );
    command
        .env("LD_PRELOAD", library.trim())
        .env("FAKETIME", offset)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

fn succeeds(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_clock_an_hour_off_changes_no_order_and_checkpoints_go_on() {
    let world = World::new("clock");
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let mut next = 0;
    for offset in ["+0", "+1h", "-1h", "+0"] {
        let mut command = world.command();
        clock(&mut command, offset);
        let ledger: Ledger = world.start_as(command);
        let (status, body) = ledger.post("pod-a", &id, &lines.take(50));
        assert_eq!(status, 200, "{offset}: {body}");
        next += 50;
        let signed = || ledger.metric("chaperone_ledger_checkpoint_records");
        let end = Instant::now() + Duration::from_secs(30);
        while signed() < f64::from(next) {
            assert!(Instant::now() < end, "{offset}: no checkpoint");
            thread::sleep(Duration::from_millis(50));
        }
        ledger.stop();
    }
    let report = intact(&world);
    assert!(report.streams.iter().any(|s| s.records == 200), "{report}");
}
