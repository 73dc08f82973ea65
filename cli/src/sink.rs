//! `chaperone sink`: what an administrator asks of the sinks that the ledger delivers. The ledger has their credentials, so it is the ledger that tries them.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};

use crate::{
    output::{Format, NO, clean},
    source::{self, LedgerArgs},
};

/// Ask of a sink whether it works.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone sink test siem --as chaperone-system/sink-tester
  chaperone sink test siem --ledger https://ledger.example --token-file token --output json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Test(Test),
}

/// Has the ledger send one marked record to a sink, and says what happened.
///
/// The record goes by the sink's settings, in its format and by the code that delivers, beside the delivery, whose place does not move. It is of kind ledger.read with read.what sink.test, and in no log.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone sink test siem --as chaperone-system/sink-tester
  kubectl create token me --audience chaperone.dev/ledger | chaperone sink test siem --ledger https://ledger.example --token-file -

Exit status: 0 acknowledged, 1 not, 2 no answer (the ledger cannot be reached, refuses, or delivers no such sink).")]
struct Test {
    /// Name of the AuditSink.
    name: String,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What happened, as the ledger says it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    sink: String,
    acknowledged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    milliseconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Test(args) => test(args),
    }
}

fn test(args: &Test) -> anyhow::Result<ExitCode> {
    let outcome = source::test_sink(&args.ledger, &args.name)?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => text(&mut out, &outcome)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &outcome).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(match outcome.acknowledged {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NO),
    })
}

fn text(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let Outcome {
        sink,
        acknowledged,
        reason,
        message,
        milliseconds,
        stream,
    } = outcome;
    let what = match acknowledged {
        true => format!("acknowledged in {milliseconds} ms"),
        false => format!("not acknowledged after {milliseconds} ms"),
    };
    writeln!(out, "sink {}: {what}", clean(sink))?;
    let why: Vec<&str> = reason.iter().chain(message).map(String::as_str).collect();
    if !why.is_empty() {
        writeln!(out, "{}", clean(&why.join(": ")))?;
    }
    match stream {
        Some(stream) if *acknowledged => {
            let stream = clean(stream);
            let rest = "seq 0, kind ledger.read, read.what sink.test";
            writeln!(out, "the marked record there: stream {stream}, {rest}")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> String {
        let mut out = Vec::new();
        text(&mut out, &serde_json::from_str(json).unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_outcome_is_told_in_a_few_lines_without_what_a_terminal_obeys() {
        let good = told(r#"{"sink":"siem","acknowledged":true,"milliseconds":41,"stream":"5f0c"}"#);
        assert_eq!(
            good,
            "sink siem: acknowledged in 41 ms\nthe marked record there: stream 5f0c, seq 0, kind ledger.read, read.what sink.test\n"
        );
        let bad = told(
            r#"{"sink":"siem","acknowledged":false,"reason":"tls","message":"bad \u001b[31mroots","milliseconds":9,"stream":"5f0c","new":1}"#,
        );
        assert!(
            bad.starts_with("sink siem: not acknowledged after 9 ms\ntls: bad "),
            "{bad}"
        );
        assert!(!bad.contains('\u{1b}'), "{bad:?}");
    }
}
