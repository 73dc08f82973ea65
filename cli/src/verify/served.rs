//! A ledger that is asked over HTTPS, or a published copy of its log: what is fetched of it, and the verdict for programs.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, bail};
use chaperone_crds::{
    chain::{RecordHash, StreamId},
    verify::{Line, Report, Seen, Verifier},
};
use chaperone_ledger::{
    audit::Trust,
    leaf::Leaf,
    served::{self, Log, NotOpened},
    tile::{Included, NotIncluded},
};
use serde::Serialize;

use super::{Args, Verdict, answer, ledger::CheckpointJson};
use crate::source::Published;

/// One record, as a person names it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    stream: StreamId,
    seq: u64,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = || {
            let (stream, seq) = text.split_once('/')?;
            let (stream, seq) = (stream.parse().ok()?, seq.parse().ok()?);
            Some(Self { stream, seq })
        };
        named()
            .ok_or_else(|| "write STREAM/NUMBER, as chaperone search -o wide shows them".to_owned())
    }
}

pub(super) fn run(published: &Published, args: &Args, trust: &Trust) -> anyhow::Result<ExitCode> {
    if args.part {
        bail!("--part is for files: a ledger has its streams from the beginning");
    }
    let told = tell(published, args, trust)?;
    answer(args.output, &told, &told.json(), told.is_intact())
}

fn tell(published: &Published, args: &Args, trust: &Trust) -> anyhow::Result<Told> {
    let note = published.checkpoint()?;
    let log = match Log::open(published, &note, trust) {
        Ok(log) => log,
        Err(NotOpened::Checkpoint(fault)) => {
            return Ok(Told::NotOpened(format!("the checkpoint: {fault}")));
        }
        Err(kept @ NotOpened::Kept { .. }) => return Err(kept.into()),
    };
    // One record is proved by few hashes; that nothing is missing, only by all entries.
    let is_whole = args.records.is_empty() || !args.streams.is_empty();
    let log_verdict = match is_whole {
        true => log.whole(&args.streams, progress(log.head().size)),
        false => log.beginnings(),
    };
    let log_verdict = log_verdict.context("cannot read the log")?;
    let mut seen = Shown::new(log.included());
    for named in &args.records {
        let (leaf, line) = published.record(&named.stream.to_string(), named.seq)?;
        seen.record(named, leaf, &line)?;
    }
    for stream in &args.streams {
        seen.stream(published, &log_verdict, stream)?;
    }
    Ok(Told::Judged(Box::new(Judged {
        log: log_verdict,
        records: seen.records,
        chains: args.streams.first().map(|_| seen.verifier.finish()),
        faults: seen.faults,
    })))
}

/// Long reading shows how far it is, to a person.
fn progress(size: u64) -> impl FnMut(u64) {
    let is_terminal = io::stderr().is_terminal();
    move |read| {
        if is_terminal && (read.is_multiple_of(65_536) || read == size) && size > 65_536 {
            eprint!("\r{read} of {size} entries");
            if read == size {
                eprintln!();
            }
        }
    }
}

/// Records while they are compared with the tree.
struct Shown<'a> {
    included: Included<'a, Published>,
    verifier: Verifier,
    records: Vec<RecordJson>,
    faults: Vec<String>,
}

impl<'a> Shown<'a> {
    fn new(included: Included<'a, Published>) -> Self {
        Self {
            included,
            verifier: Verifier::exactly_once(usize::MAX),
            records: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn record(&mut self, named: &Named, index: u64, line: &[u8]) -> anyhow::Result<()> {
        let fault = match Seen::of(Line::Whole(line)) {
            Seen::Record(head, hash) if head.stream == named.stream && head.seq == named.seq => {
                self.leaf(
                    index,
                    &Leaf {
                        stream: head.stream,
                        seq: head.seq,
                        record: hash,
                    },
                )?
            }
            Seen::Record(..) => Some("the ledger gave another record".to_owned()),
            _ => Some("the ledger gave something that is no record".to_owned()),
        };
        if let Some(fault) = &fault {
            let (stream, seq) = (&named.stream, named.seq);
            self.faults
                .push(format!("record {seq} of stream {stream}: {fault}"));
        }
        self.records.push(RecordJson {
            stream: named.stream.to_string(),
            seq: named.seq,
            leaf: index,
            included: fault.is_none(),
        });
        Ok(())
    }

    /// Why a leaf is not shown to be in the tree.
    fn leaf(&mut self, index: u64, leaf: &Leaf) -> anyhow::Result<Option<String>> {
        match self.included.show(index, leaf) {
            Ok(()) => Ok(None),
            Err(NotIncluded::Not(reason)) => Ok(Some(format!(
                "it is not leaf {index} of the tree that is signed: {reason}"
            ))),
            Err(unread) => bail!("cannot read the log: {unread}"),
        }
    }

    /// All records of a stream: each in the tree, in a whole chain, and as many as the entries say.
    fn stream(
        &mut self,
        published: &Published,
        log: &served::Verdict,
        stream: &StreamId,
    ) -> anyhow::Result<()> {
        let numbers = log.streams.get(stream);
        let numbers = numbers.with_context(|| {
            format!(
                "the log has no stream {stream} among the {} entries that are signed",
                log.head.size
            )
        })?;
        let signed = log.leaves.get(stream).map_or(&[][..], Vec::as_slice);
        let mut place = Place::new(stream, signed);
        published.stream(stream, |index, line| {
            // Records that nothing has signed yet are for the next time.
            if index >= log.head.size {
                return Ok(());
            }
            let seen = Seen::of(Line::Whole(line));
            if let Seen::Record(head, hash) = &seen {
                let (stream, seq) = (head.stream.clone(), head.seq);
                if let Some(fault) = self.leaf(
                    index,
                    &Leaf {
                        stream,
                        seq,
                        record: *hash,
                    },
                )? {
                    self.faults
                        .push(format!("record {seq} of stream {}: {fault}", head.stream));
                }
                place.come_to(seq, &mut self.verifier);
            }
            self.verifier.take(seen);
            Ok(())
        })?;
        place.come_to(numbers.next, &mut self.verifier);
        for (first, last) in place.unshown {
            // A ledger whose index is behind shows less than it has: what it does not show it must say was deleted.
            let says_so =
                published.is_deleted(stream, first)? && published.is_deleted(stream, last)?;
            if !says_so {
                self.faults.push(format!(
                    "stream {stream}: records {first} to {last} are signed, and the ledger neither shows them nor says that they were deleted"
                ));
            }
        }
        Ok(())
    }
}

/// Where one is in a stream whose leaves are signed.
struct Place<'a> {
    stream: &'a StreamId,
    /// Signed leaves that were not come to yet.
    left: &'a [(u64, RecordHash)],
    next: u64,
    /// Numbers, first and last, of records that are signed and were not shown.
    unshown: Vec<(u64, u64)>,
}

impl<'a> Place<'a> {
    fn new(stream: &'a StreamId, left: &'a [(u64, RecordHash)]) -> Self {
        Self {
            stream,
            left,
            next: 0,
            unshown: Vec::new(),
        }
    }

    /// A record of this number comes: those before it that are signed stand in the chain by their hashes alone, and what is not signed is missing.
    fn come_to(&mut self, seq: u64, verifier: &mut Verifier) {
        while let Some(((number, hash), rest)) = self.left.split_first()
            && *number < seq
        {
            self.left = rest;
            self.pass(*number, verifier);
            verifier.take(Seen::Deleted(self.stream.clone(), *number, *hash));
            match self.unshown.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
                _ => self.unshown.push((*number, *number)),
            }
        }
        if let Some(((number, _), rest)) = self.left.split_first()
            && *number == seq
        {
            self.left = rest;
            self.pass(seq, verifier);
        }
    }

    /// Which numbers are missing is signed; that they are is said once, of the log.
    fn pass(&mut self, seq: u64, verifier: &mut Verifier) {
        if seq > self.next {
            verifier.announce(self.stream.clone(), seq);
        }
        self.next = seq.saturating_add(1);
    }
}

/// What is to be said.
enum Told {
    /// No known key has signed the checkpoint.
    NotOpened(String),
    Judged(Box<Judged>),
}

struct Judged {
    log: served::Verdict,
    records: Vec<RecordJson>,
    /// The chains of the streams that were asked for.
    chains: Option<Report>,
    faults: Vec<String>,
}

impl Told {
    fn is_intact(&self) -> bool {
        match self {
            Self::NotOpened(_) => false,
            Self::Judged(judged) => judged.is_intact() && judged.log.missing() == 0,
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::NotOpened(fault) => Json::NotOpened {
                intact: false,
                faults: [fault.clone()],
            },
            Self::Judged(judged) => Json::Judged(Box::new(judged.json())),
        }
    }
}

impl Judged {
    fn is_intact(&self) -> bool {
        let chains = self.chains.as_ref().is_none_or(Report::is_intact);
        self.log.is_intact() && chains && self.faults.is_empty()
    }

    fn json(&self) -> ServedJson {
        let streams = self
            .log
            .streams
            .iter()
            .map(|(stream, numbers)| NumbersJson {
                stream: stream.to_string(),
                first_seq: numbers.first,
                next_seq: numbers.next,
                missing: numbers.missing,
            });
        let faults = self.log.faults.iter().map(ToString::to_string);
        ServedJson {
            intact: self.is_intact(),
            complete: self.log.is_whole.then(|| self.log.missing() == 0),
            origin: self.log.origin.to_string(),
            checkpoint: CheckpointJson::of(&self.log.head),
            compared_with: self.log.kept.clone(),
            streams: self.log.is_whole.then(|| streams.collect()),
            records: self.records.clone(),
            log: self.chains.as_ref().map(Verdict::of),
            faults: faults.chain(self.faults.iter().cloned()).collect(),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judged = match self {
            Self::NotOpened(fault) => return write!(f, "FAULT: {fault}\nNOT INTACT"),
            Self::Judged(judged) => judged,
        };
        for record in judged.records.iter().filter(|record| record.included) {
            let RecordJson {
                stream, seq, leaf, ..
            } = record;
            writeln!(
                f,
                "record {seq} of stream {stream}: is leaf {leaf} of the tree that is signed"
            )?;
        }
        for chain in judged.chains.iter().flat_map(|report| &report.streams) {
            writeln!(f, "{chain}")?;
        }
        for fault in &judged.faults {
            writeln!(f, "FAULT: {fault}")?;
        }
        write!(f, "{}", judged.log)?;
        match judged.log.is_intact() && !judged.is_intact() {
            true => f.write_str("; what was asked of it: NOT INTACT"),
            false => Ok(()),
        }
    }
}

/// The verdict for programs.
#[derive(Serialize)]
#[serde(untagged)]
enum Json {
    NotOpened { intact: bool, faults: [String; 1] },
    Judged(Box<ServedJson>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServedJson {
    intact: bool,
    /// No stream lacks records after its first one here; absent where not all entries were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    origin: String,
    checkpoint: CheckpointJson,
    /// Sizes of the checkpoints that were kept elsewhere.
    compared_with: Vec<u64>,
    /// What the entries say of each stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<Vec<NumbersJson>>,
    /// The records that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    records: Vec<RecordJson>,
    /// The chains of the streams that were asked for, as of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Verdict>,
    faults: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NumbersJson {
    stream: String,
    first_seq: u64,
    next_seq: u64,
    missing: u64,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordJson {
    stream: String,
    seq: u64,
    leaf: u64,
    /// It is shown to be in the tree that is signed.
    included: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_and_not_shown_stands_in_the_chain_by_its_hash() {
        let stream: StreamId = "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".parse().unwrap();
        let signed: Vec<_> = [0, 1, 2, 5, 6, 8]
            .map(|n: u64| (n, RecordHash::of(&n.to_le_bytes())))
            .to_vec();
        let mut verifier = Verifier::exactly_once(usize::MAX);
        let mut place = Place::new(&stream, &signed);
        place.come_to(2, &mut verifier);
        assert_eq!((place.next, &place.unshown[..]), (3, &[(0, 1)][..]));
        place.come_to(6, &mut verifier);
        place.come_to(9, &mut verifier);
        assert_eq!(place.unshown, [(0, 1), (5, 5), (8, 8)]);
        assert!(place.left.is_empty());
        assert_eq!(verifier.finish().deleted(), 4);
    }
}
