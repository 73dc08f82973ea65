//! What a sink has put into a bucket, read from there: the order of work, and the verdict for programs.

mod place;

use std::{
    fmt,
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use chaperone_bucket::{
    Way,
    archive::{Archive, Fetched, Listed, NotRead, Object, Objects},
    unfold::{self, Unfolded},
};
use chaperone_ledger::{
    archive::{self as copies, Judge, Looked, Missing, Row},
    audit::Trust,
};
use chaperone_sinks::{net::HostNet, settings::S3Format};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{Args, Verdict, answer, ledger::CheckpointJson, trust};

use place::Place;
pub(super) use place::{BucketArgs, SCHEME};

/// Bytes of a mebibyte, for people.
const MIB: u64 = 1024 * 1024;

pub(super) fn run(url: &str, args: &Args) -> anyhow::Result<ExitCode> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let place = args.bucket.read(url, args.published.ca(), &environment)?;
    // Without keys the chains are proved all the same, as of files.
    let trust = match args.keys.is_empty() && args.checkpoints.is_empty() {
        true => Trust::default(),
        false => trust(args)?,
    };
    let told = tell(place, args.part, &trust)?;
    let is_good = told.verdict.is_intact() && told.verdict.is_complete();
    answer(args.output, &told, &told.json(), is_good)
}

fn tell(place: Place, part: bool, trust: &Trust) -> anyhow::Result<Told> {
    let mut judge = Judge::new(trust, part)?;
    let way = Way {
        net: Arc::new(HostNet),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let runtime = runtime()?;
    let archive = Arc::new(Archive::new(&place.s3, &way)?);
    let is_terminal = io::stderr().is_terminal();
    let listed = runtime.block_on(archive.list(|names| {
        if is_terminal {
            eprint!("\rlisting: {names} objects");
        }
    }));
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    let mut listed = listed?;
    let objects: Objects = std::mem::take(&mut listed.objects).into();
    let fetched = archive.fetch(runtime.handle().clone(), Arc::clone(&objects));
    let mut fetched = fetched.context("cannot begin to fetch")?;
    let mut progress = Progress::new(is_terminal, &objects);
    for (object, place) in objects.iter().zip(1..) {
        let unfolded = unfolded(&mut fetched, object)?;
        let records = unfolded.records.into_iter();
        judge.take(copies::Object {
            name: &object.name,
            leaf: object.leaf,
            first: object.first(),
            records: records.map(|(leaf, looked)| Row { leaf, looked }).collect(),
            fault: unfolded.fault,
            next: objects.get(place).map(|next| next.leaf),
        });
        progress.show(place, object.size);
    }
    progress.end();
    Ok(Told {
        place,
        listed,
        verdict: judge.finish(),
    })
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// What is in an object. What is wrong with it is a fault; that it cannot be had ends the proof.
fn unfolded(fetched: &mut Fetched, object: &Object) -> Result<Unfolded<Looked>, NotRead> {
    let mut reader = fetched.object(object);
    let unfolded = match object.format {
        _ if object.is_too_long() => Unfolded {
            records: Vec::new(),
            fault: Some("it is longer than an object may be, and was not read".to_owned()),
        },
        S3Format::Ndjson => unfold::ndjson(&mut reader, Looked::at),
        S3Format::Parquet => {
            let mut file = Vec::new();
            // The reader keeps why it failed.
            let _ = reader.read_to_end(&mut file);
            unfold::parquet(file.into(), Looked::at)
        }
    };
    reader.end()?;
    Ok(unfolded)
}

/// Long reading shows how far it is, to a person.
struct Progress {
    is_shown: bool,
    objects: usize,
    total: u64,
    read: u64,
}

impl Progress {
    fn new(is_terminal: bool, objects: &[Object]) -> Self {
        let sizes = objects.iter().map(|object| object.size);
        let total = sizes.fold(0, u64::saturating_add);
        Self {
            is_shown: is_terminal && total > MIB,
            objects: objects.len(),
            total,
            read: 0,
        }
    }

    fn show(&mut self, object: usize, size: u64) {
        self.read = self.read.saturating_add(size);
        if self.is_shown {
            let (read, total) = (self.read / MIB, self.total / MIB);
            eprint!(
                "\r{read} of {total} MiB, {object} of {} objects",
                self.objects
            );
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprintln!();
        }
    }
}

/// What is to be said.
struct Told {
    place: Place,
    listed: Listed,
    verdict: copies::Verdict,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed { others, shown, .. } = &self.listed;
        if *others > 0 {
            let names = shown.join(", ");
            writeln!(f, "not a sink's, and not read: {others} objects ({names})")?;
        }
        self.verdict.fmt(f)
    }
}

impl Told {
    fn json(&self) -> BucketJson<'_> {
        let verdict = &self.verdict;
        let missing = verdict.missing.iter().map(|missing| {
            let Missing {
                from,
                to,
                records,
                object,
            } = missing;
            MissingJson {
                first_leaf: *from,
                last_leaf: *to,
                records: *records,
                object: (!object.is_empty()).then_some(object),
            }
        });
        let proved = verdict.proved.as_ref();
        BucketJson {
            intact: verdict.is_intact(),
            complete: verdict.is_complete(),
            bucket: &self.place.s3.bucket,
            prefix: &self.place.s3.prefix,
            origin: proved.map(|proved| proved.origin.to_string()),
            checkpoint: proved.map(|proved| CheckpointJson::of(&proved.head)),
            compared_with: &verdict.kept,
            unreached: &verdict.unreached,
            unsigned_checkpoints: verdict.unsigned,
            uncompared_checkpoints: verdict.uncompared,
            objects: verdict.objects,
            records: verdict.records,
            copies: verdict.copies,
            first_leaf: verdict.first,
            next_leaf: verdict.leaves,
            unproved_records: verdict.unproved(),
            missing_records: verdict.missing_records,
            missing: missing.collect(),
            test_objects: self.listed.tests,
            other_objects: self.listed.others,
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
            fault_count: verdict.fault_count,
            log: Verdict::of(&verdict.streams),
        }
    }
}

/// The verdict for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketJson<'a> {
    intact: bool,
    /// Nothing is missing, up to each checkpoint that it was compared with.
    complete: bool,
    bucket: &'a str,
    prefix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The newest that the records were found to be what was signed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointJson>,
    /// Sizes of the checkpoints that were kept elsewhere.
    compared_with: &'a [u64],
    /// Sizes of those that the records do not reach.
    unreached: &'a [u64],
    unsigned_checkpoints: u64,
    uncompared_checkpoints: u64,
    objects: u64,
    records: u64,
    copies: u64,
    first_leaf: u64,
    next_leaf: u64,
    /// Records after the checkpoint.
    unproved_records: u64,
    missing_records: u64,
    /// The first hundred ranges.
    missing: Vec<MissingJson<'a>>,
    test_objects: u64,
    other_objects: u64,
    /// The first hundred.
    faults: Vec<String>,
    fault_count: u64,
    /// The streams, as of a file.
    log: Verdict,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MissingJson<'a> {
    first_leaf: u64,
    last_leaf: u64,
    /// How many of these.
    records: u64,
    /// The object that has the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a String>,
}
