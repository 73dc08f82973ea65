//! The record chain, on disk and as a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chaperone_crds::{
    bodies::{self, Parts},
    chain::RecordHash,
    pod::PodIdentity,
    record::{AgentRef, Event, EventKind},
    verify::{Start, verify as prove},
};
use chaperone_sidecar::audit::{self, AuditConfig, HostNet};
use serde::de::IgnoredAny;
use tokio::runtime::Runtime;

use crate::parts;

/// A stream as a sidecar wrote it.
const GOLDEN: &[u8] = include_bytes!("../../crds/tests/golden/metadata.jsonl");

/// A log: any bytes are judged, and one byte of a sound stream that is another shows.
pub(crate) fn verify(bytes: &[u8]) {
    for start in [Start::Open, Start::Anywhere] {
        let report = prove(bytes, start).expect("bytes in memory can be read");
        assert!(report.line_fault_count <= report.lines);
        assert_eq!(
            report.is_intact(),
            prove(bytes, start).is_ok_and(|r| r.is_intact())
        );
    }
    let [high, low, flip, ..] = *bytes else {
        return;
    };
    let at = usize::from(u16::from_be_bytes([high, low])) % GOLDEN.len();
    let mut edited = GOLDEN.to_vec();
    edited[at] ^= flip;
    let last = GOLDEN[..GOLDEN.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap_or_default();
    let report = prove(&*edited, Start::Open).expect("bytes in memory can be read");
    assert!(flip == 0 || at > last || !report.is_intact());
}

/// A record's line, or its beginning and its content: any bytes have one hash with content and without, and content comes back only where it was.
pub(crate) fn record_bodies(bytes: &[u8]) {
    cut(bytes);
    let (head, tail) = parts(bytes);
    let digest = RecordHash::of(tail).to_string();
    let line = [
        head,
        b",\"bodiesSha256\":\"",
        digest.as_bytes(),
        b"\",\"bodies\":",
        tail,
        b"}",
    ];
    cut(&line.concat());
}

fn cut(line: &[u8]) {
    let without = bodies::detached(line);
    assert_eq!(RecordHash::of(line), RecordHash::of(&without));
    assert_eq!(bodies::detached(&without), without, "a line is cut once");
    if let Parts::With { tail, .. } = bodies::parts(line) {
        assert_eq!(bodies::attach(&without, tail).as_deref(), Some(line));
        assert!(is_object(tail));
    }
    assert!(
        !is_object(line) || is_object(&without),
        "what is left is no JSON"
    );
}

fn is_object(text: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(text).is_ok()
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is a runtime")
});

/// A spool as a crash, a bad disk or a hand left it: `state.json` and the two segments that the input says. A sidecar starts on it, no line that was whole before is lost or
/// altered, and what it adds is a sound chain.
pub(crate) fn spool(bytes: &[u8]) {
    let (state, segments) = parts(bytes);
    let (older, newest) = parts(segments);
    let dir = Dir::new();
    dir.write("state.json", state);
    dir.write("00000000.jsonl", older);
    dir.write("00000001.jsonl", newest);
    RUNTIME.block_on(append(&dir.0));
    let before: Vec<&[u8]> = whole_lines(older).chain(whole_lines(newest)).collect();
    let after = dir.lines();
    assert!(after.len() > before.len(), "nothing was added");
    assert!(
        before.iter().zip(&after).all(|(old, new)| old == new),
        "a line that was whole is lost"
    );
    let added = after[before.len()..].join(&b'\n');
    let start = match added.starts_with(b"{") && includes(&added, b"stream.resume") {
        true => Start::Anywhere,
        false => Start::Open,
    };
    let report = prove(&*added, start).expect("bytes in memory can be read");
    assert!(report.is_intact(), "{report:?}");
}

async fn append(dir: &Path) {
    let config = AuditConfig::new(dir, PodIdentity::default());
    let (recorder, handle) = audit::start(config, Arc::new(HostNet), &prometheus::Registry::new())
        .expect("a sidecar starts on any spool");
    let event = Event::new(EventKind::Http, AgentRef::default());
    recorder.record(event).await;
    let closing = handle.close("terminated", Duration::from_secs(10)).await;
    assert!(closing.closed);
}

fn includes(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Lines that end in a newline.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let whole = end.map(|end| &bytes[..end]);
    whole
        .into_iter()
        .flat_map(|whole| whole.split(|byte| *byte == b'\n'))
}

/// A folder in memory, gone with the run.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "chaperone-fuzz-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let dir = base.join(name);
        fs::create_dir(&dir).expect("there is room for a folder");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, content: &[u8]) {
        if !content.is_empty() {
            fs::write(self.0.join(name), content).expect("there is room for a file");
        }
    }

    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let segments: BTreeSet<PathBuf> = fs::read_dir(&self.0)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<io::Result<_>>()
            })
            .expect("the folder can be read");
        segments
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .map(|path| fs::read(path).expect("a segment can be read"))
            .flat_map(|segment| {
                whole_lines(&segment)
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left in memory is gone with the machine.
        let _ = fs::remove_dir_all(&self.0);
    }
}
