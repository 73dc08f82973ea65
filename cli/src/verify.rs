//! `chaperone verify`: proves logs, ledgers and what sinks put into buckets. Owns reading files and telling the verdict; the judgement is `chaperone_crds::verify` and, of a ledger or a copy of one, `chaperone_ledger`.

mod bucket;
mod bundle;
mod keys;
mod ledger;
mod served;

pub(crate) use keys::read_keys;

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use chaperone_crds::{
    chain::StreamId,
    verify::{Report, Start, StreamVerdict, verify},
};
use chaperone_ledger::{
    audit::{self, Trust},
    bundle as bundles,
};
use serde::Serialize;

use crate::{
    output::{Format, NO, clean},
    source::PublishedArgs,
};

/// Most beginnings without an end that are listed of a stream.
const MAX_LISTED: usize = 100;

/// Prove that no record of a log or ledger was changed, removed or moved.
///
/// Reads the files in the order given as one log, so that rotated files may be given together. Streams may be interleaved, and records
/// may be there twice, because sinks deliver at least once. For each stream the verdict names the first record that is missing or
/// cannot be trusted.
///
/// A chain cannot show an edit of a stream's very last record, nor a cut at its end while its close is not known: a stream that is "not closed" may go on elsewhere.
///
/// A ledger's directory, or a copy of it, has a tree over all records and a signed checkpoint, which show both, and whole streams that are gone. Give the ledger's public key, and checkpoints that you
/// kept elsewhere: whoever holds the disk and the signing key can write another history, and only these contradict it.
///
/// Of what an S3 sink has put into a bucket (s3://BUCKET/PREFIX) the objects are read from there, in the order of the log; with --key the tree is made anew of them and compared with checkpoints that you kept elsewhere, and with those that the ledger put on record.
///
/// Of a ledger that is asked over HTTPS (--ledger) every entry that it has signed is read, which names records and has their hashes: they must give the tree that is signed, and no number of a stream may be missing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone verify audit.jsonl
  chaperone verify audit-1.jsonl audit-2.jsonl       one log in two files, the older first
  zcat audit.jsonl.gz | chaperone verify -
  chaperone verify --part yesterday.jsonl            streams may have begun earlier
  chaperone observe -n agents --no-follow -o json | chaperone verify -
  chaperone verify /var/lib/chaperone-ledger --key ledger.example/prod+0337ae09+Ac4C…
  chaperone verify copy-of-ledger --key ledger.vkey --checkpoint last-month.checkpoint
  chaperone verify evidence --key ledger.vkey        a bundle that chaperone export made
  chaperone verify s3://audit/chaperone/archive --key ledger.vkey --checkpoint last-month.checkpoint
                                                     what an S3 sink delivered, complete up to a checkpoint
  chaperone verify --ledger https://ledger.example:9445 --ca ca.crt --token-file token --key ledger.vkey --checkpoint last-month.checkpoint
                                                     all that a ledger has signed, over HTTPS
  chaperone verify --ledger … --key ledger.vkey --record 0707…/41
                                                     that one record is in it

Exit status: 0 intact, 1 not intact or incomplete, 2 unreadable.")]
pub(crate) struct Args {
    /// Files of records, one JSON object a line; - is standard input. Or one directory: a ledger, or an evidence bundle. Or the objects of an S3 sink: s3://BUCKET/PREFIX.
    #[arg(
        required_unless_present = "ledger",
        conflicts_with_all = ["ledger", "token_file", "service_account_token", "system_namespace"],
        value_name = "FILE|DIRECTORY|s3://BUCKET/PREFIX"
    )]
    files: Vec<PathBuf>,
    #[command(flatten)]
    bucket: bucket::BucketArgs,
    #[command(flatten)]
    published: PublishedArgs,
    /// Prove that this record is in the ledger (--ledger), without reading all entries: STREAM/NUMBER. May be repeated.
    #[arg(long = "record", value_name = "STREAM/NUMBER", requires = "ledger")]
    records: Vec<served::Named>,
    /// Prove that all records of this stream are there and whole (--ledger). May be repeated.
    #[arg(long = "stream", value_name = "UUID", requires = "ledger")]
    streams: Vec<StreamId>,
    /// The log is a part: streams may begin at any record.
    #[arg(long, conflicts_with_all = ["keys", "checkpoints"])]
    part: bool,
    /// Public key of the ledger or of a witness (NAME+ID+BASE64), or a file that has one a line. May be repeated.
    #[arg(long = "key", value_name = "VKEY|FILE")]
    keys: Vec<String>,
    /// A checkpoint of the ledger that was kept elsewhere: the ledger must have it as its beginning. May be repeated.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// How the verdict is written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.published.is_named() {
        // What is wrong with the question is said before anybody is asked.
        let trust = trust(args)?;
        if let Some(published) = args.published.open()? {
            return served::run(&published, args, &trust);
        }
    }
    if let Some(url) = bucket(args)? {
        return bucket::run(url, args);
    }
    match directory(args)? {
        Some(Directory::Ledger(path)) => return ledger::run(path, args),
        Some(Directory::Bundle(path)) => return bundle::run(path, args),
        None => {}
    }
    let start = if args.part {
        Start::Anywhere
    } else {
        Start::Open
    };
    let report = verify(open(&args.files)?, start).context("cannot read the log")?;
    answer(
        args.output,
        &report,
        &Verdict::of(&report),
        report.is_intact(),
    )
}

/// The bucket, if one is to be verified.
fn bucket(args: &Args) -> anyhow::Result<Option<&str>> {
    let urls = args.files.iter().filter_map(|path| path.to_str());
    let url = urls
        .into_iter()
        .find(|path| path.starts_with(bucket::SCHEME));
    match (url, args.files.len()) {
        (Some(_), 2..) => bail!("a bucket is verified alone"),
        (None, _) if args.bucket.is_named() => bail!(
            "--endpoint, --region, --credentials and --allow-insecure are for {}BUCKET/PREFIX",
            bucket::SCHEME
        ),
        (None, 1..) if args.published.ca().is_some() => {
            bail!("--ca is for --ledger and {}BUCKET/PREFIX", bucket::SCHEME)
        }
        _ => Ok(url),
    }
}

/// Keys, and checkpoints that were kept elsewhere.
fn trust(args: &Args) -> anyhow::Result<Trust> {
    let keys = read_keys(&args.keys)?;
    let read = |path: &std::path::PathBuf| {
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let kept = args
        .checkpoints
        .iter()
        .map(read)
        .collect::<Result<_, _>>()?;
    Ok(Trust { keys, kept })
}

/// A directory that is to be verified.
enum Directory<'a> {
    Ledger(&'a Path),
    Bundle(&'a Path),
}

/// The directory, if one is to be verified.
fn directory(args: &Args) -> anyhow::Result<Option<Directory<'_>>> {
    let given = !args.keys.is_empty() || !args.checkpoints.is_empty();
    match args.files.as_slice() {
        [path] if audit::is_ledger(path) => Ok(Some(Directory::Ledger(path))),
        [path] if bundles::is_bundle(path) => Ok(Some(Directory::Bundle(path))),
        [path] if path.is_dir() => bail!(
            "{} is neither a ledger, which has a file ledger.json, nor an evidence bundle, which has bundle.json",
            path.display()
        ),
        _ if given => {
            bail!(
                "--key and --checkpoint are for one directory, of a ledger or a bundle, and for a bucket"
            )
        }
        _ if args.files.iter().any(|path| path.is_dir()) => bail!("a directory is verified alone"),
        _ => Ok(None),
    }
}

/// Tells the verdict, and ends with its exit status.
fn answer(
    format: Format,
    text: &impl Display,
    json: &impl Serialize,
    intact: bool,
) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match format {
        Format::Text => write_text(&mut out, text)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, json).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(match intact {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NO),
    })
}

/// All files as one reader, in order.
fn open(files: &[PathBuf]) -> anyhow::Result<Box<dyn BufRead>> {
    let mut log: Box<dyn BufRead> = Box::new(io::empty());
    for (place, path) in files.iter().enumerate() {
        let file = open_one(path).with_context(|| format!("cannot read {}", path.display()))?;
        // A file that lacks its last newline must not run into the next one; an empty line means nothing.
        let separator: &[u8] = if place == 0 { b"" } else { b"\n" };
        log = Box::new(log.chain(separator).chain(file));
    }
    Ok(log)
}

fn open_one(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    Ok(Box::new(BufReader::new(file)))
}

/// The report as the verifier words it. What a log holds may be anything, so each line is cleaned.
fn write_text(out: &mut impl Write, report: &impl Display) -> io::Result<()> {
    for line in report.to_string().lines() {
        writeln!(out, "{}", clean(line))?;
    }
    Ok(())
}

/// The report for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    intact: bool,
    records: u64,
    /// Records whose texts of bodies were deleted.
    deleted_content: u64,
    lines: u64,
    streams: Vec<StreamJson>,
    /// Lines that are no records; the first hundred.
    bad_lines: Vec<BadLine>,
    bad_line_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamJson {
    stream: String,
    agent: String,
    intact: bool,
    records: u64,
    first_seq: u64,
    deleted_content: u64,
    copies: u64,
    first_time: String,
    last_time: String,
    closed: bool,
    /// Beginnings without an end, the first hundred; null where too many were under way at once.
    unfinished: Option<Vec<u64>>,
    unfinished_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_bad_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Serialize)]
struct BadLine {
    line: u64,
    fault: String,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        Self {
            intact: report.is_intact(),
            records: report.records(),
            deleted_content: report.deleted_content(),
            lines: report.lines,
            streams: report.streams.iter().map(StreamJson::of).collect(),
            bad_lines: report
                .line_faults
                .iter()
                .map(|(line, fault)| BadLine {
                    line: *line,
                    fault: fault.to_string(),
                })
                .collect(),
            bad_line_count: report.line_fault_count,
        }
    }
}

impl StreamJson {
    fn of(verdict: &StreamVerdict) -> Self {
        Self {
            stream: verdict.stream.to_string(),
            agent: verdict.agent.clone(),
            intact: verdict.fault.is_none(),
            records: verdict.records,
            first_seq: verdict.first_seq,
            deleted_content: verdict.deleted_content,
            copies: verdict.copies,
            first_time: verdict.first_time.clone(),
            last_time: verdict.last_time.clone(),
            closed: verdict.closed,
            unfinished: verdict
                .unfinished
                .as_ref()
                .map(|all| all.iter().copied().take(MAX_LISTED).collect()),
            unfinished_count: verdict.unfinished.as_ref().map(Vec::len),
            first_bad_seq: verdict.fault.as_ref().map(|f| f.first_bad()),
            fault: verdict.fault.as_ref().map(ToString::to_string),
        }
    }
}
