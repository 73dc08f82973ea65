//! `chaperone export`: evidence of one session or stream, in a folder that proves itself. Owns arguments and the sentence at the end; the bundle is `chaperone_ledger::bundle`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use chaperone_crds::{
    chain::StreamId,
    record::EventKind,
    verify::{Line, Seen},
};
use chaperone_ledger::{
    audit::Trust,
    bundle::{self, Exported, Held, Subject},
    checkpoint::Checkpoint,
    key::VerifierKey,
    served::Log,
};

use crate::{
    output::clean,
    source::{Published, PublishedArgs},
    verify::read_keys,
};

/// Take the records of one session or stream out of a ledger, with all that proves them.
///
/// The folder holds the records, the hashes that lead from each to the ledger's signed checkpoint, and a README. `chaperone verify` proves it with the ledger's public key and nothing else. What lies between
/// the records but belongs to other sessions is withheld: its hashes show that nothing is missing, and say no more.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone export /var/lib/chaperone-ledger --key ledger.vkey --session 7f3c… --into evidence
  chaperone verify evidence --key ledger.vkey
  chaperone export --ledger cluster --as audit/auditor -n agents --key ledger.vkey --session 7f3c… --into evidence
                                                     of the ledger that the chart runs, which records that you asked

Exit status: 0 exported, 2 not.")]
pub(crate) struct Args {
    /// The ledger's directory, or a copy of it. It is only read, and may be in use.
    #[arg(
        value_name = "LEDGER",
        required_unless_present = "ledger",
        conflicts_with_all = ["ledger", "ca", "token_file", "service_account_token", "system_namespace"]
    )]
    directory: Option<PathBuf>,
    #[command(flatten)]
    published: PublishedArgs,
    /// Public key of the ledger (NAME+ID+BASE64), or a file that has one a line. May be repeated.
    #[arg(long = "key", value_name = "VKEY|FILE", required = true)]
    keys: Vec<String>,
    /// The session, as the records name it (`session.id`).
    #[arg(long, value_name = "ID", required_unless_present = "stream")]
    session: Option<String>,
    /// A whole stream instead: everything that one pod's sidecar recorded.
    #[arg(long, value_name = "UUID", conflicts_with = "session")]
    stream: Option<StreamId>,
    /// The folder to make. It must not be there yet.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    /// With the records between, whatever they are about.
    #[arg(long)]
    between: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let subject = match (&args.session, &args.stream) {
        (_, Some(stream)) => Subject::Stream(stream.clone()),
        (session, None) => Subject::Session(session.clone().unwrap_or_default()),
    };
    let keys = read_keys(&args.keys)?;
    let exported = match (&args.directory, args.published.open()?) {
        (_, Some(published)) => asked(&published, args, &subject, &keys),
        (directory, None) => {
            let directory = directory.clone().unwrap_or_default();
            let exported = bundle::export(&directory, &args.into, &subject, &keys, args.between);
            exported.map_err(anyhow::Error::from)
        }
    };
    let exported = exported.context("nothing is exported")?;
    let into = args.into.display();
    println!(
        "{}: {} records in {into}, {} between withheld",
        clean(&subject.to_string()),
        exported.records,
        exported.withheld
    );
    if exported.unsigned > 0 {
        println!(
            "{} more came after the ledger's newest checkpoint: export again once there is a newer one",
            exported.unsigned
        );
    }
    println!("prove it with: chaperone verify {into} --key VKEY");
    Ok(ExitCode::SUCCESS)
}

/// Exports what a ledger gives that is asked for it.
fn asked(
    published: &Published,
    args: &Args,
    subject: &Subject,
    keys: &[VerifierKey],
) -> anyhow::Result<Exported> {
    let note = published.checkpoint()?;
    let trust = Trust {
        keys: keys.to_vec(),
        kept: Vec::new(),
    };
    let log = Log::open(published, &note, &trust)?;
    let log = log.head().clone();
    let mut held = Held::new(published, log.size);
    match subject {
        Subject::Stream(stream) => hold(published, stream, &mut held, |_| true)?,
        Subject::Session(id) => {
            published.session(id, |leaf, line| Ok(held.take(leaf, line)?))?;
        }
    }
    if args.between {
        for (stream, first, last) in held.spans(subject) {
            let between = |seq| (first..=last).contains(&seq);
            hold(published, &stream, &mut held, between)?;
        }
    }
    explain(published, &log, &held.spans(subject), &mut held)?;
    let exported = bundle::export_held(&held, &note, &args.into, subject, keys, args.between)?;
    Ok(exported)
}

/// Takes what says whose the streams are and which policies were in force.
fn explain(
    published: &Published,
    log: &Checkpoint,
    spans: &[(StreamId, u64, u64)],
    held: &mut Held<'_, Published>,
) -> anyhow::Result<()> {
    let own = StreamId::of_ledger(log.origin.as_str());
    for (stream, ..) in spans {
        for kind in [EventKind::StreamOpen, EventKind::Config] {
            published.of_kind(stream, kind, |leaf, line| Ok(held.explain(leaf, line)?))?;
        }
        let take = |leaf, line: &[u8]| Ok(held.explain(leaf, line)?);
        let told = published.identities(&own, stream, take);
        if let Err(error) = told {
            let error = clean(&error.to_string()).into_owned();
            eprintln!(
                "whose stream {stream} is, the bundle does not say in the ledger's own words: {error}"
            );
        }
    }
    Ok(())
}

/// Takes the records of a stream whose numbers are wanted.
fn hold(
    published: &Published,
    stream: &StreamId,
    held: &mut Held<'_, Published>,
    wanted: impl Fn(u64) -> bool,
) -> anyhow::Result<()> {
    published.stream(stream, |leaf, line| {
        let is_wanted = match Seen::of(Line::Whole(line)) {
            Seen::Record(head, _) => wanted(head.seq),
            // Taking it says what is wrong.
            _ => true,
        };
        if is_wanted {
            held.take(leaf, line)?;
        }
        Ok(())
    })
}
