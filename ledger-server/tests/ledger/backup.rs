//! Backup and restore, by the commands of docs/backup.md as they stand there.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use chaperone_ledger::audit::{self, Trust, Verdict};
use serde_json::{Value, json};

use crate::world::{Folder, Ledger, Lines, World, stream};

/// The block of the page that begins with this comment.
fn block(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/backup.md");
    let page = fs::read_to_string(page).unwrap();
    let begin = format!("```sh\n# {name}\n");
    let (_, rest) = page.split_once(&begin).expect("the page has the commands");
    rest.split_once("```").unwrap().0.to_owned()
}

fn run(name: &str, ledger: &Path, copy: &Path) {
    let done = Command::new("sh")
        .args(["-euc", &block(name)])
        .env("LEDGER", ledger)
        .env("COPY", copy)
        .output()
        .unwrap();
    assert!(done.status.success(), "{name}: {done:?}");
}

fn verdict(world: &World, dir: &Path, kept: &[&Path]) -> Verdict {
    let trust = Trust {
        keys: vec![world.vkey.parse().unwrap()],
        kept: kept.iter().map(|file| fs::read(file).unwrap()).collect(),
    };
    audit::verify(dir, &trust).unwrap()
}

fn post_from(ledger: &Ledger, token: &str, number: u8, from: u64, batch: &[u8]) -> (u16, Value) {
    let folder = Folder::new("batch");
    fs::write(folder.join("batch"), batch).unwrap();
    let data = format!("@{}", folder.join("batch").display());
    let path = format!("/v1/streams/{}/records?from={from}", stream(number));
    let arguments = [
        "-H",
        "Content-Type: application/x-ndjson",
        "--data-binary",
        &data,
    ];
    let (status, body) = ledger.curl(&path, token, &arguments);
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn a_copy_made_under_load_is_proved_and_put_back_and_says_what_it_lacks() {
    let world = World::new("backup");
    let ledger = Arc::new(world.start());
    let (mut one, mut two) = (Lines::new(stream(1)), Lines::new(stream(2)));
    let first = one.take(400);
    assert_eq!(ledger.post("pod-a", &stream(1), &first).0, 200);
    let is_over = Arc::new(AtomicBool::new(false));
    let load = thread::spawn({
        let (ledger, is_over) = (Arc::clone(&ledger), Arc::clone(&is_over));
        move || {
            let mut batches = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(ledger.post("pod-b", &stream(2), &two.take(90)).0, 200);
                batches += 1;
            }
            (two, batches)
        }
    });
    let mut copies: Vec<std::path::PathBuf> = Vec::new();
    for number in 0..4 {
        thread::sleep(std::time::Duration::from_millis(1200));
        let copy = world.folder.join(&format!("copy-{number}"));
        run("copy", &world.data, &copy);
        let before = copies.last().map(|before| before.join("checkpoint"));
        let before: Vec<&Path> = before.iter().map(|file| file.as_path()).collect();
        let verdict = verdict(&world, &copy, &before);
        assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
        copies.push(copy);
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut two, batches) = load.join().unwrap();
    assert!(batches > 4, "{batches}");
    // After the copy: more of both streams, acknowledged and signed.
    let later = one.take(100);
    assert_eq!(ledger.post("pod-a", &stream(1), &later).0, 200);
    assert_eq!(ledger.post("pod-b", &stream(2), &two.take(100)).0, 200);
    Arc::into_inner(ledger).unwrap().stop();
    let lost = world.folder.join("lost");
    fs::rename(&world.data, &lost).unwrap();

    run("restore", &world.data, copies.last().unwrap());
    let ledger = world.start();
    // The one sidecar still has what is missing, the other has not.
    let path = format!("/v1/streams/{}", stream(1));
    let (_, next) = ledger.curl(&path, "pod-a", &[]);
    assert_eq!(next, "{\"nextSeq\":400}");
    let (status, body) = ledger.post("pod-a", &stream(1), &later);
    assert_eq!((status, body), (200, json!({"nextSeq": 500, "added": 100})));
    let from = two.next_seq();
    let (status, body) = post_from(&ledger, "pod-b", 2, from, &two.take(10));
    assert_eq!((status, &body["added"]), (200, &json!(10)), "{body}");
    let (_, gaps) = ledger.curl("/v1/gaps?reason=hole", "reader", &[]);
    let gaps: Value = serde_json::from_str(&gaps).unwrap();
    assert_eq!(gaps["gaps"][0]["pod"], "b", "{gaps}");
    assert_eq!(gaps["gaps"][0]["missing"]["before"], from);
    ledger.stop();

    let kept = copies.last().unwrap().join("checkpoint");
    let restored = verdict(&world, &world.data, &[&kept]);
    assert!(
        restored.is_intact() && !restored.is_complete(),
        "{restored}"
    );
    // Who kept what was signed after the copy sees that it is gone.
    let newer = verdict(&world, &world.data, &[&lost.join("checkpoint")]);
    assert!(!newer.is_intact(), "{newer}");
}
