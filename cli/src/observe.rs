//! `chaperone observe`: the live feed of records, from the sidecars of a cluster, from its ledger or from a file.
//!
//! Owns filters and rendering. Refuses judgement: what it shows is what sidecars wrote; `chaperone verify` proves it.

mod feed;
mod filter;
mod ledger;
mod line;
mod pods;

use std::{
    fs::File,
    io::{self, BufReader},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use chaperone_crds::summary::Verdict;
use jiff::{SignedDuration, Timestamp};

use crate::{
    output::{ColorChoice, Format},
    source::LedgerArgs,
};
use feed::Feed;
use filter::{Filter, Kind, verdicts};
pub(crate) use line::render;

/// Watch what agents do, as it happens.
///
/// Reads the records that sidecars write to their standard output (the chart's default), through the API server; that needs to list pods and
/// read their logs. Or asks a ledger (--ledger), which has those of pods that are gone too, and records that you asked.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone observe                                  everything, in all namespaces
  chaperone observe -n agents --pod 'claude-*'       some pods
  chaperone observe --decision deny --decision would-deny
                                                     what is refused, or would be in Enforce
  chaperone observe --host '*.example.com' --kind http --since 10m
  chaperone observe -n agents --no-follow -o json >audit.jsonl
                                                     records as they were written; `chaperone verify` reads them
  chaperone observe --ledger cluster --as audit/auditor -n agents --since 1h
                                                     what the cluster's ledger has of the last hour, and what it takes from now on
  chaperone observe --file audit.jsonl --decision gap
                                                     from a file, or with - from standard input")]
pub(crate) struct Args {
    /// Only pods of this namespace. Default: all namespaces.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only pods whose name matches; * is any text.
    #[arg(long, value_name = "GLOB")]
    pod: Option<String>,
    /// Only records with this decision. May be repeated.
    #[arg(long, value_parser = verdicts())]
    decision: Vec<Verdict>,
    /// Only destinations whose name or address matches; * is any text. May be repeated.
    #[arg(long, value_name = "GLOB")]
    host: Vec<String>,
    /// Only records of this kind. May be repeated.
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Begin this long ago, such as 90s, 10m or 2h. Default: now; with --no-follow or --file, as far back as there are records.
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<SignedDuration>,
    /// Show what there is and end.
    #[arg(long)]
    no_follow: bool,
    /// Read records from this file instead of a cluster; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context", "ledger", "ca", "token_file", "service_account_token", "system_namespace"])]
    file: Option<PathBuf>,
    /// How records are written: text, or json for the lines as the sidecar wrote them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColorChoice,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout().lock();
    let mut feed = Feed::new(stdout, args.filter(), args.output, args.color.for_stdout());
    let result = match &args.file {
        Some(path) => read_file(path, &mut feed),
        None if args.ledger.is_named() => ledger::observe(args, &mut feed),
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(pods::observe(args, &mut feed)),
    };
    if feed.skipped() > 0 {
        eprintln!(
            "skipped {} lines that are no records (a sidecar's own log lines are among them)",
            feed.skipped()
        );
    }
    result.map(|()| ExitCode::SUCCESS)
}

impl Args {
    fn filter(&self) -> Filter {
        Filter {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            decisions: self.decision.clone(),
            hosts: self.host.clone(),
            kinds: self.kind.clone(),
            not_before: self.not_before(),
        }
    }

    /// The earliest time of records that are wanted.
    fn not_before(&self) -> Option<Timestamp> {
        self.since
            .and_then(|since| Timestamp::now().checked_sub(since).ok())
    }
}

fn read_file(path: &PathBuf, feed: &mut Feed<impl io::Write>) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        feed.read(io::stdin().lock())?;
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        feed.read(BufReader::new(file))?;
    }
    Ok(())
}

fn parse_since(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration.is_negative() => Err("must lie in the past".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a duration; write for example 90s, 10m or 2h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::builder::TypedValueParser as _;

    use super::*;

    #[test]
    fn since_takes_durations_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400)] {
            assert_eq!(parse_since(text), Ok(SignedDuration::from_secs(seconds)));
        }
        assert!(parse_since("-5m").is_err());
        assert!(parse_since("yesterday").is_err());
    }

    #[test]
    fn decisions_are_spelled_as_in_the_documentation() {
        let names: Vec<_> = verdicts()
            .possible_values()
            .into_iter()
            .flatten()
            .map(|v| v.get_name().to_owned())
            .collect();
        assert_eq!(names, ["allow", "deny", "would-deny", "gap"]);
    }
}
