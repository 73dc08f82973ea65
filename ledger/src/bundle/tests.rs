//! Bundles of a ledger with several streams and sessions, and each way to falsify one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use chaperone_crds::{
    bodies::{Salt, detached, unsalted},
    chain::Chain,
    pod::PodIdentity,
    record::{
        AgentRef, BodyInfo, ConfigInfo, Event, EventKind, HttpInfo, IdentityInfo, SessionInfo,
    },
    resources::Mode,
    snapshot::{Policy, Snapshot},
};

use super::*;
use crate::testing::{Folder, ORIGIN, id, key};
use crate::{
    cosignature::Time,
    follow::{Cursor, Follower, end_of},
    key::VerifierKey,
    store::{Config, Store},
    tile::{Source, Tile},
};

fn keys() -> Vec<VerifierKey> {
    vec![key(5).verifier().clone()]
}

/// The lines of a stream in which every third record is of session `ours`, with the text of a body, and the others of none or `other`.
fn lines(stream: u8, count: u64) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(id(stream));
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    (0..count)
        .map(|seq| {
            let kind = match seq {
                0 => EventKind::StreamOpen,
                _ => EventKind::Http,
            };
            let mut event = Event::new(kind, AgentRef::default());
            let session = match seq % 3 {
                _ if seq == 0 => None,
                0 => Some("ours"),
                1 => Some("other"),
                _ => None,
            };
            event.session = session.map(|id| SessionInfo {
                id: Some(id.to_owned()),
                ..SessionInfo::default()
            });
            event.error = (session == Some("other")).then(|| "not for your eyes".to_owned());
            event.http = (session == Some("ours")).then(|| HttpInfo {
                request_body: Some(BodyInfo {
                    text: Some(format!("{{\"%\\n\":\"said {seq}\"}}")),
                    ..BodyInfo::default()
                }),
                ..HttpInfo::default()
            });
            let mut line = Vec::new();
            chain.append(&event, now, || Some(Salt::from_random([7; 16])), &mut line);
            line
        })
        .collect()
}

/// A ledger of 500 records of stream 1 and 100 of stream 2, all signed, and 10 more that are not.
fn ledger(folder: &Folder) -> PathBuf {
    let dir = folder.path("ledger");
    let mut store = Store::open(Config {
        dir: dir.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: keys(),
        segment_bytes: 32 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let (first, second) = (lines(1, 510), lines(2, 100));
    let mut take = |stream: u8, batch: &[Vec<u8>]| {
        let _ = store.stage(&id(stream), &batch.concat()).unwrap();
        store.commit().unwrap();
    };
    take(1, &first[..120]);
    take(2, &second[..50]);
    take(1, &first[120..500]);
    take(2, &second[50..]);
    store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
    let _ = store.stage(&id(1), &first[500..].concat()).unwrap();
    store.commit().unwrap();
    dir
}

fn ours() -> Subject {
    Subject::Session("ours".to_owned())
}

fn bundle(folder: &Folder, context: bool) -> PathBuf {
    let (ledger, into) = (ledger(folder), folder.path("bundle"));
    export(&ledger, &into, &ours(), &keys(), context).unwrap();
    into
}

#[test]
fn a_session_is_proved_without_its_ledger_and_others_say_nothing() {
    let folder = Folder::new();
    let (ledger, into) = (ledger(&folder), folder.path("bundle"));
    let exported = export(&ledger, &into, &ours(), &keys(), false).unwrap();
    // Numbers 3, 6, … 498 of stream 1, and 3, 6, … 99 of stream 2.
    assert_eq!((exported.records, exported.unsigned), (166 + 33, 3));
    assert_eq!(exported.withheld, (496 - 166) + (97 - 33));
    fs::remove_dir_all(&ledger).unwrap();
    let verdict = verify(&into, &keys()).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    assert_eq!(verdict.records(), exported.records);
    let shown = &verdict.streams[&id(1)];
    assert_eq!((shown.first, shown.last, shown.records), (3, 498, 166));
    assert_eq!((shown.context, shown.withheld), (0, 330));
    let records = fs::read_to_string(into.join(RECORDS)).unwrap();
    assert!(!records.contains("not for your eyes"));
    let text = verdict.to_string();
    assert!(text.ends_with("session ours: 199 records, each in the ledger that was signed, none missing between: intact"), "{text}");
    let readme = fs::read_to_string(into.join(README)).unwrap();
    assert!(
        readme.contains("# Evidence: session ours\n\n199 records"),
        "{readme}"
    );
}

/// What the commands of a bundle's README say in it, those of the block with this number.
fn by_hand(bundle: &Path, block: usize) -> String {
    let readme = fs::read_to_string(bundle.join(README)).unwrap();
    let blocks = readme.split("```sh\n").skip(1);
    let mut commands = blocks.map(|block| block.split("```").next().unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(commands.nth(block).unwrap());
    let said = shell.current_dir(bundle).output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn content_can_be_deleted_from_a_bundle_and_altered_in_none_and_by_hand_too_it_shows() {
    let folder = Folder::new();
    let bundle = bundle(&folder, false);
    let counts = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(counts(&by_hand(&bundle, 1), "is in leaves.txt"), 199);
    assert_eq!(counts(&by_hand(&bundle, 2), "are as they were"), 199);
    let records = fs::read_to_string(bundle.join(RECORDS)).unwrap();
    assert_eq!(counts(&records, "said "), 199);

    let half = records.lines().zip(0..).map(|(line, number)| match number {
        0..100 => String::from_utf8(detached(line.as_bytes()).into()).unwrap() + "\n",
        _ => line.to_owned() + "\n",
    });
    let half: String = half.collect();
    fs::write(bundle.join(RECORDS), &half).unwrap();
    assert_eq!(counts(&half, "said "), 99);
    let verdict = verify(&bundle, &keys()).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    let deleted = verdict.streams.values().map(|shown| shown.deleted_content);
    assert_eq!(deleted.sum::<u64>(), 100);
    let text = verdict.to_string();
    assert!(
        text.contains("withheld, of which the hashes are here, content of "),
        "{text}"
    );
    assert_eq!(counts(&by_hand(&bundle, 1), "is in leaves.txt"), 199);
    assert_eq!(counts(&by_hand(&bundle, 2), "are as they were"), 99);

    fs::write(bundle.join(RECORDS), half.replace("said 498", "said 499")).unwrap();
    let verdict = verify(&bundle, &keys()).unwrap();
    assert_eq!(verdict.fault_count, 1, "{verdict}");
    assert_eq!(counts(&by_hand(&bundle, 2), "ARE OTHERS"), 1);
}

#[test]
fn with_context_everything_between_is_shown_and_a_stream_is_all_of_it() {
    let folder = Folder::new();
    let into = bundle(&folder, true);
    let verdict = verify(&into, &keys()).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    let shown = &verdict.streams[&id(1)];
    assert_eq!(
        (shown.records, shown.context, shown.withheld),
        (166, 330, 0)
    );

    let stream = folder.path("stream");
    let subject = Subject::Stream(id(2));
    export(&folder.path("ledger"), &stream, &subject, &keys(), false).unwrap();
    let verdict = verify(&stream, &keys()).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    assert_eq!(verdict.records(), 100);
}

#[test]
fn what_cannot_be_exported_says_why_and_leaves_no_folder() {
    let folder = Folder::new();
    let (ledger, into) = (ledger(&folder), folder.path("bundle"));
    let nobody = Subject::Session("nobody".to_owned());
    let refused = export(&ledger, &into, &nobody, &keys(), false).unwrap_err();
    assert!(matches!(refused, ExportError::Nothing(_)), "{refused}");
    let other = key(6);
    let refused = export(&ledger, &into, &ours(), &[other.verifier().clone()], false);
    assert!(matches!(refused, Err(ExportError::Checkpoint(_))));
    fs::remove_file(ledger.join("tile/0/001")).unwrap();
    let refused = export(&ledger, &into, &ours(), &keys(), false).unwrap_err();
    assert!(refused.to_string().contains("tile/0/001"), "{refused}");
    assert!(!into.exists());
    fs::create_dir(&into).unwrap();
    let refused = export(&ledger, &into, &ours(), &keys(), false).unwrap_err();
    assert!(matches!(refused, ExportError::Write { .. }), "{refused}");
    assert!(into.exists(), "what was there is not touched");
}

fn edit(file: &Path, edit: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, edit(text)).unwrap();
}

/// Asserts that an edit of the bundle is found, in these words.
fn at_fault(words: &str, change: impl FnOnce(&Path)) {
    let folder = Folder::new();
    let into = bundle(&folder, false);
    change(&into);
    let verdict = verify(&into, &keys()).unwrap();
    let text = verdict.to_string();
    assert!(!verdict.is_intact(), "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
}

fn drop_line(text: &str, number: usize) -> String {
    let lines = text.split_inclusive('\n').enumerate();
    let kept = lines.filter(|(at, _)| *at != number);
    kept.map(|(_, line)| line).collect()
}

#[test]
fn every_way_to_falsify_a_bundle_is_found() {
    at_fault("but not with the bytes that its leaf has", |into| {
        edit(&into.join(RECORDS), |text| {
            text.replacen("10:00:00", "10:00:01", 1)
        });
    });
    at_fault(
        "stream 01010101-0101-4101-8101-010101010101: record 5 is missing, record 6 follows",
        |into| {
            edit(&into.join(LEAVES), |text| drop_line(&text, 2));
        },
    );
    at_fault("of which there is no leaf", |into| {
        edit(&into.join(LEAVES), |text| drop_line(&text, 0));
    });
    at_fault(
        "is not in the tree that is signed: another one is there",
        |into| {
            edit(&into.join(LEAVES), |text| {
                text.replacen("chaperone-record/1 0101", "chaperone-record/1 0201", 1)
            });
        },
    );
    at_fault("for the second time", |into| {
        edit(&into.join(RECORDS), |text| text.repeat(2));
    });
    at_fault("of leaves.txt is no leaf", |into| {
        edit(&into.join(LEAVES), |text| format!("{text}nonsense\n"));
    });
    at_fault("of leaves.txt is no leaf", |into| {
        edit(&into.join(LEAVES), |text| text.repeat(2));
    });
    at_fault("is empty", |into| {
        edit(&into.join(RECORDS), |text| format!("\n{text}"))
    });
    at_fault("the proof leads to the root", |into| {
        let tile = into.join("tile/0/000");
        let mut bytes = fs::read(&tile).unwrap();
        bytes[40] ^= 1;
        fs::write(tile, bytes).unwrap();
    });
    at_fault("tile/0/001", |into| {
        fs::remove_file(into.join("tile/0/001")).unwrap()
    });
    at_fault("there is no checkpoint", |into| {
        fs::remove_file(into.join(CHECKPOINT)).unwrap();
    });
    at_fault("the checkpoint: ", |into| {
        edit(&into.join(CHECKPOINT), |text| {
            text.replacen("600", "601", 1)
        });
    });
    at_fault("nothing is proved", |into| {
        edit(&into.join(IDENTITY), |text| {
            text.replacen("ours", "theirs", 1)
        });
    });
    at_fault("nothing is proved", |into| {
        fs::write(into.join(RECORDS), "").unwrap();
        fs::write(into.join(LEAVES), "").unwrap();
    });
}

#[test]
fn what_would_never_end_is_refused() {
    let folder = Folder::new();
    let into = bundle(&folder, false);
    for name in [RECORDS, LEAVES, CHECKPOINT, IDENTITY] {
        let (file, kept) = (into.join(name), into.join("kept"));
        fs::rename(&file, &kept).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let refused = verify(&into, &keys()).unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        fs::rename(&kept, &file).unwrap();
    }
    // A tile longer than any is a fault of it, and is not read to its end.
    let tile = fs::File::create(into.join("tile/0/000")).unwrap();
    tile.set_len(1 << 40).unwrap();
    assert!(!verify(&into, &keys()).unwrap().is_intact());
}

#[test]
fn a_forged_bundle_with_a_key_of_its_own_is_refused() {
    let folder = Folder::new();
    let into = bundle(&folder, false);
    let mine = key(7);
    let verdict = verify(&into, &[mine.verifier().clone()]).unwrap();
    assert!(
        matches!(verdict.faults[..], [Fault::Checkpoint(_)]),
        "{verdict}"
    );
    assert!(!verdict.is_intact());
    fs::write(into.join(IDENTITY), "{}").unwrap();
    assert!(verify(&into, &keys()).is_err());
}

/// A ledger's tiles, as whoever is asked for them gives them.
struct Tiles(PathBuf);

impl Source for Tiles {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(tile.to_string()))
    }
}

/// Each record of the ledger with its leaf, as whoever is asked for it gives it: with its content.
fn all(ledger: &Path) -> Vec<(u64, Vec<u8>)> {
    let end = end_of(ledger).unwrap();
    let mut follower = Follower::new(ledger, Cursor::START);
    let mut all = Vec::new();
    while let Some(record) = follower.next(end).unwrap() {
        all.push((record.leaf, record.line.to_vec()));
    }
    all
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_bundle_of_what_a_ledger_gave_is_the_bundle_of_its_directory() {
    let folder = Folder::new();
    let ledger = ledger(&folder);
    let note = fs::read(ledger.join("checkpoint")).unwrap();
    let size = 600;
    let tiles = Tiles(ledger.clone());
    for (subject, context) in [
        (ours(), false),
        (ours(), true),
        (Subject::Stream(id(2)), false),
    ] {
        let mut held = Held::new(&tiles, size);
        for (leaf, line) in all(&ledger) {
            let looked = chaperone_crds::head::Head::parse(&line).unwrap();
            let named = Named::of(&looked, &line);
            if context || subject.has(&looked.stream, named.session.as_deref()) {
                held.take(leaf, &line).unwrap();
            } else if named.about.is_some() {
                held.explain(leaf, &line).unwrap();
            }
        }
        let (into, expected) = (folder.path("asked"), folder.path("expected"));
        let made = export_held(&held, &note, &into, &subject, &keys(), context).unwrap();
        let wanted = export(&ledger, &expected, &subject, &keys(), context).unwrap();
        assert_eq!(made, wanted);
        let names = |files: BTreeMap<PathBuf, Vec<u8>>, base: &Path| -> Vec<_> {
            let named = files.into_iter();
            named
                .map(|(path, bytes)| (path.strip_prefix(base).unwrap().to_owned(), bytes))
                .collect()
        };
        assert_eq!(
            names(files(&into), &into),
            names(files(&expected), &expected)
        );
        assert!(verify(&into, &keys()).unwrap().is_intact());
        fs::remove_dir_all(&into).unwrap();
        fs::remove_dir_all(&expected).unwrap();
    }
}

#[test]
fn a_ledger_that_contradicts_its_entries_is_exported_from_by_nobody() {
    let folder = Folder::new();
    let ledger = ledger(&folder);
    let note = fs::read(ledger.join("checkpoint")).unwrap();
    let tiles = Tiles(ledger.clone());
    let all = all(&ledger);
    let into = folder.path("asked");
    let export = |held: &Held<'_, Tiles>| {
        let error = export_held(held, &note, &into, &ours(), &keys(), false).unwrap_err();
        assert!(!into.exists(), "{error}");
        error.to_string()
    };
    // A record of another leaf.
    let mut held = Held::new(&tiles, 600);
    held.take(4, &all[3].1).unwrap();
    assert!(export(&held).contains("the record that the ledger gave for it"));
    let nothing = Held::new(&tiles, 600);
    assert!(export(&nothing).contains("no record of session ours"));
    assert!(held.take(5, b"{}").is_err() && held.take(5, b"").is_err());
    fs::remove_dir_all(ledger.join("tile")).unwrap();
    let mut held = Held::new(&tiles, 600);
    held.take(3, &all[3].1).unwrap();
    assert!(export(&held).contains("tile/entries/000"));
}

/// A ledger that says whose its stream is, of a stream in which policies took effect twice, with text and without, and decided once each.
fn explained(folder: &Folder) -> PathBuf {
    let dir = folder.path("ledger");
    let mut store = Store::open(Config {
        dir: dir.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: keys(),
        segment_bytes: 32 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    let snapshot = |message: &str| {
        let spec = serde_json::json!({"mode": "Enforce", "defaultAction": "Allow", "rules": [{"name": "no", "action": "Deny", "message": message}]});
        let spec = serde_json::from_value(spec).unwrap();
        Snapshot::new(vec![Policy::namespaced("agents", "coding", 3, &spec)])
    };
    let used = snapshot("used").recorded(Mode::Enforce);
    let bare = ConfigInfo {
        snapshot: None,
        ..snapshot("bare").recorded(Mode::Enforce)
    };
    let unused = snapshot("unused").recorded(Mode::Enforce);
    let config = |config: &ConfigInfo| Event {
        config: Some(config.clone()),
        ..Event::new(EventKind::Config, AgentRef::default())
    };
    let decided = |config: &ConfigInfo| {
        Event {
        session: Some(SessionInfo {
            id: Some("ours".to_owned()),
            ..SessionInfo::default()
        }),
        decision: serde_json::from_value(serde_json::json!({"action": "Deny", "mode": "Enforce", "revision": config.revision, "reason": "rule"})).unwrap(),
        ..Event::new(EventKind::Http, AgentRef::default())
    }
    };
    let open = || Event::new(EventKind::StreamOpen, AgentRef::default());
    let identity = Event {
        identity: Some(IdentityInfo {
            stream: id(1).to_string(),
            workload: PodIdentity {
                namespace: "agents".to_owned(),
                pod: "claude".to_owned(),
                ..PodIdentity::default()
            },
            image_ids: Vec::new(),
            from: None,
        }),
        ..Event::new(EventKind::StreamIdentity, AgentRef::default())
    };
    let mut take = |stream: StreamId, events: &[Event]| {
        let mut chain = Chain::new(stream.clone());
        let mut lines = Vec::new();
        for event in events {
            chain.append(event, now, unsalted, &mut lines);
        }
        let _ = store.stage(&stream, &lines).unwrap();
        store.commit().unwrap();
    };
    take(StreamId::of_ledger(ORIGIN), &[open(), identity.clone()]);
    // Another stream says whose the first is: nobody believes it.
    let liar = Event {
        identity: identity.identity.map(|info| IdentityInfo {
            workload: PodIdentity::default(),
            ..info
        }),
        ..Event::new(EventKind::StreamIdentity, AgentRef::default())
    };
    take(id(2), &[open(), liar]);
    take(
        id(1),
        &[
            open(),
            config(&unused),
            config(&used),
            decided(&used),
            config(&bare),
            decided(&bare),
        ],
    );
    store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
    dir
}

#[test]
fn a_bundle_says_whose_its_streams_are_and_which_policies_decided() {
    let folder = Folder::new();
    let (ledger, into) = (explained(&folder), folder.path("bundle"));
    let made = export(&ledger, &into, &ours(), &keys(), false).unwrap();
    assert_eq!(
        (made.records, made.withheld),
        (3, 0),
        "the policies between are shown"
    );
    let verdict = verify(&into, &keys()).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    let pods: Vec<_> = verdict
        .whose
        .iter()
        .map(|whose| whose.workload.pod.as_str())
        .collect();
    assert_eq!(pods, ["claude"]);
    let mut texts: Vec<_> = verdict
        .policies
        .iter()
        .map(|policies| policies.has_text)
        .collect();
    texts.sort_unstable();
    assert_eq!(
        texts,
        [false, true],
        "the revision that decided nothing is not there"
    );
    assert!(
        verdict
            .to_string()
            .contains("agents/coding@3, with their text")
    );
    let about = fs::read_to_string(into.join("about.jsonl")).unwrap();
    assert_eq!(about.lines().count(), 3, "{about}");

    for (from, to) in [("claude", "Claude"), ("used", "ab"), ("\n", "\n\n")] {
        fs::write(into.join("about.jsonl"), about.replacen(from, to, 1)).unwrap();
        assert!(!verify(&into, &keys()).unwrap().is_intact(), "{from}");
    }
    let twice = format!("{about}{about}");
    fs::write(into.join("about.jsonl"), twice).unwrap();
    assert!(!verify(&into, &keys()).unwrap().is_intact());
    // An older bundle has neither; one of both alone is none.
    fs::remove_file(into.join("about.jsonl")).unwrap();
    assert!(verify(&into, &keys()).unwrap().is_intact());
}
