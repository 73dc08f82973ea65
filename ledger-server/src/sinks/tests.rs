//! Where sinks begin and go on.

use chaperone_ledger::{follow::Place, store::Keeper};
use chaperone_sinks::{
    net::HostNet,
    settings::{Batch, Http, Target, Tls},
};

use super::*;

/// A manager over a folder of its own, and what tells it where the records end.
fn manager(name: &str) -> (Manager, watch::Sender<Cursor>, PathBuf) {
    let dir = std::env::temp_dir().join(format!("chaperone-place-{name}-{}", std::process::id()));
    // A killed run may have left it.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let (end, committed) = watch::channel(at(100));
    let manager = Manager {
        around: Surroundings {
            keeper: Keeper::default(),
            dir: dir.clone(),
            committed,
            net: Arc::new(HostNet),
            version: "0".to_owned(),
            agent: Default::default(),
        },
        files: Files::open(&dir, Keeper::default()).unwrap(),
        metrics: SinkMetrics::new(&Registry::new()),
        make: Arc::new(|_| unreachable!("nothing is sent")),
        desired: Vec::new(),
        running: BTreeMap::new(),
        trials: BTreeMap::new(),
        shared: Arc::default(),
    };
    (manager, end, dir)
}

fn at(leaf: u64) -> Cursor {
    let place = Place {
        segment: 0,
        offset: leaf * 10,
    };
    Cursor { leaf, place }
}

fn sink(start: SinkStart) -> Sink {
    Sink {
        name: "s".to_owned(),
        format: Default::default(),
        filter: None,
        start,
        batch: Batch {
            records: 1,
            bytes: 1,
            wait: Duration::ZERO,
        },
        target: Target::Http(Http {
            url: String::new(),
            bearer: None,
            tls: Tls::default(),
        }),
    }
}

#[test]
fn a_new_sink_begins_where_it_says_and_one_that_was_there_goes_on() {
    let (manager, end, dir) = manager("begin");
    let now = sink(SinkStart::Now);
    assert_eq!(manager.place(&now).unwrap(), at(100));
    end.send_replace(at(200));
    assert_eq!(
        manager.place(&now).unwrap(),
        at(100),
        "its place is kept at once"
    );
    manager.files.remove("s").unwrap();
    assert_eq!(
        manager.place(&sink(SinkStart::Oldest)).unwrap(),
        Cursor::START
    );
    assert_eq!(manager.place(&now).unwrap(), Cursor::START);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_sink_that_is_removed_keeps_its_place_for_a_while() {
    let (manager, _end, dir) = manager("grace");
    manager.files.keep("s", at(7), None).unwrap();
    manager.forget(&|_| false);
    let left = manager.files.cursor("s").unwrap().unwrap().left;
    assert!(left.is_some());
    manager.forget(&|_| false);
    assert_eq!(
        manager.files.cursor("s").unwrap().unwrap().left,
        left,
        "since it was removed"
    );
    assert_eq!(manager.place(&sink(SinkStart::Oldest)).unwrap(), at(7));
    assert_eq!(
        manager.files.cursor("s").unwrap().unwrap().left,
        None,
        "it is there again"
    );
    let long_ago = now() - GRACE.as_secs();
    manager.files.keep("s", at(7), Some(long_ago)).unwrap();
    manager.forget(&|name| name == "s");
    assert!(
        manager.files.cursor("s").unwrap().is_some(),
        "it is desired"
    );
    manager.forget(&|_| false);
    assert_eq!(manager.files.cursor("s").unwrap(), None);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_sink_ahead_of_a_ledger_that_was_put_back_goes_on_with_what_comes() {
    let (manager, _end, dir) = manager("ahead");
    manager.files.keep("s", at(101), None).unwrap();
    assert_eq!(manager.place(&sink(SinkStart::Oldest)).unwrap(), at(100));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_cursor_that_cannot_be_read_is_never_taken_for_none() {
    let (manager, _end, dir) = manager("broken");
    manager.files.keep("s", at(7), None).unwrap();
    let path = dir.join("sinks/s.cursor");
    let whole = std::fs::read(&path).unwrap();
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(manager.place(&sink(SinkStart::Oldest)).is_err(), "{end}");
    }
    std::fs::write(
        &path,
        String::from_utf8(whole).unwrap().replace(":1,", ":2,"),
    )
    .unwrap();
    assert!(manager.place(&sink(SinkStart::Oldest)).is_err());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn names_of_refused_records_are_kept_within_bounds() {
    let (manager, _end, dir) = manager("refused");
    let reason = "why ".repeat(1000);
    let one = || files::Refused {
        time: "t".to_owned(),
        leaf: 1,
        stream: "x",
        seq: 2,
        records: 1,
        reason: &reason,
    };
    for _ in 0..300 {
        let many: Vec<_> = (0..100).map(|_| one()).collect();
        manager.files.refuse("s", &many).unwrap();
    }
    let size = |name: &str| {
        std::fs::metadata(dir.join("sinks").join(name))
            .unwrap()
            .len()
    };
    let all = size("s.refused.jsonl") + size("s.refused.1.jsonl");
    assert!((4 << 20..9 << 20).contains(&all), "{all}");
    std::fs::remove_dir_all(dir).unwrap();
}
