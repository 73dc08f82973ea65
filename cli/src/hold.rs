//! `chaperone hold` and `chaperone erase`: what whoever answers for evidence asks of the ledger. The ledger puts who asked and why on record, and does it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    output::{Format, clean},
    source::{self, LedgerArgs},
};

/// Keep evidence from being deleted: legal holds.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone hold add case-42 --namespace agents --reason 'incident 42' --as legal/custodian
  chaperone hold list
  chaperone hold release case-42 --reason 'closed'")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Add(Box<Add>),
    List(List),
    Release(Release),
}

/// Puts a legal hold: what it names is deleted by nothing, until it is released.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).multiple(true).args(["session", "stream", "namespace", "everything"]))]
struct Add {
    /// Its name, as Kubernetes names things.
    name: String,
    /// Why. It is on record, with who asks.
    #[arg(long)]
    reason: String,
    /// Hold this session; with --namespace the one in that namespace.
    #[arg(long, value_name = "ID", conflicts_with_all = ["stream", "pod", "everything"])]
    session: Option<String>,
    /// Hold this stream.
    #[arg(long, value_name = "UUID", conflicts_with_all = ["namespace", "everything"])]
    stream: Option<String>,
    /// Hold this namespace.
    #[arg(short, long, conflicts_with = "everything")]
    namespace: Option<String>,
    /// Of the namespace this pod alone.
    #[arg(long, requires = "namespace")]
    pod: Option<String>,
    /// Hold all that there is.
    #[arg(long)]
    everything: bool,
    /// Of that what came at this time or later: RFC 3339, or a duration ago (72h).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Of that what came before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Lists the legal holds.
#[derive(clap::Args)]
struct List {
    /// Those of this namespace alone.
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Ends a legal hold: what it held may be deleted from then on.
#[derive(clap::Args)]
struct Release {
    /// Its name.
    name: String,
    /// Why. It is on record, with who asks.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Delete a session's content for good, at once: what its requests and answers said. Records and proofs stay.
///
/// A legal hold keeps it. What the session says afterwards stays.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone erase --session 7f3c1a9e-… --namespace agents --reason 'a person asked' --as legal/custodian

Exit status: 0 erased, 2 not (a hold keeps it, there is none, no right, no answer).")]
pub(crate) struct Erase {
    /// The session.
    #[arg(long, value_name = "ID")]
    session: String,
    /// The one in this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Why. It is on record, with who asks.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// A hold, as the ledger has it.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hold {
    name: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    everything: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

/// All of them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Holds {
    holds: Vec<Hold>,
}

/// Why a hold ends.
#[derive(Serialize)]
pub(crate) struct Why {
    reason: String,
}

/// What is to be erased.
#[derive(Serialize)]
pub(crate) struct Asked {
    session: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

/// What was.
#[derive(Deserialize)]
pub(crate) struct Erased {
    session: String,
    namespace: String,
    keys: u64,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.command {
        Command::Add(args) => {
            let now = Timestamp::now();
            let time = |text: Option<String>| text.map(|text| source::time(&text, now));
            let hold = Hold {
                name: args.name,
                reason: args.reason,
                session: args.session,
                stream: args.stream,
                namespace: args.namespace,
                pod: args.pod,
                everything: args.everything,
                from: time(args.from),
                until: time(args.until),
                ..Hold::default()
            };
            let hold = source::hold(&args.ledger, &hold)?;
            writeln!(out, "held: {}", line(&hold))?;
        }
        Command::List(args) => {
            let holds = source::holds(&args.ledger, args.namespace.as_deref())?;
            list(&mut out, &holds, args.output)?;
        }
        Command::Release(args) => {
            let why = Why {
                reason: args.reason,
            };
            let hold = source::release(&args.ledger, &args.name, &why)?;
            writeln!(out, "released: {}", line(&hold))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `chaperone erase`.
pub(crate) fn erase(args: Erase) -> anyhow::Result<ExitCode> {
    let asked = Asked {
        session: args.session,
        reason: args.reason,
        namespace: args.namespace,
    };
    let Erased {
        session,
        namespace,
        keys,
    } = source::erase(&args.ledger, &asked)?;
    let (session, namespace) = (clean(&session), clean(&namespace));
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "content of session {session} of {namespace} is deleted: {keys} keys are destroyed, records and proofs stay"
    )?;
    Ok(ExitCode::SUCCESS)
}

fn list(out: &mut impl Write, holds: &Holds, format: Format) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, holds).map_err(io::Error::from)?;
            writeln!(out)
        }
        Format::Text if holds.holds.is_empty() => writeln!(out, "no legal holds"),
        Format::Text => holds
            .holds
            .iter()
            .try_for_each(|hold| writeln!(out, "{}", line(hold))),
    }
}

/// A hold in one line.
fn line(hold: &Hold) -> String {
    let mut what = Vec::new();
    let subjects = [
        ("session", &hold.session),
        ("stream", &hold.stream),
        ("namespace", &hold.namespace),
        ("pod", &hold.pod),
        ("from", &hold.from),
        ("until", &hold.until),
    ];
    if hold.everything {
        what.push("everything".to_owned());
    }
    for (name, value) in subjects {
        what.extend(value.as_ref().map(|value| format!("{name} {value}")));
    }
    let by = [("by", &hold.user), ("since", &hold.since)];
    let by = by
        .iter()
        .filter_map(|(word, value)| Some(format!(" {word} {}", value.as_ref()?)));
    let by: String = by.collect();
    let line = format!("{}: {}{by}: {}", hold.name, what.join(", "), hold.reason);
    clean(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_told_in_a_line_each_without_what_a_terminal_obeys() {
        let holds: Holds = serde_json::from_str(
            r#"{"holds":[{"name":"case-42","reason":"in\u001b[31mcident","user":"jane","namespace":"agents","pod":"claude-0","from":"2026-11-01T00:00:00Z","since":"2026-11-29T10:00:00Z","new":1},{"name":"all","reason":"audit","everything":true}]}"#,
        )
        .unwrap();
        let mut out = Vec::new();
        list(&mut out, &holds, Format::Text).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("case-42: namespace agents, pod claude-0, from 2026-11-01T00:00:00Z by jane since 2026-11-29T10:00:00Z: in"),
            "{text}"
        );
        assert_eq!(lines[1], "all: everything: audit");
        assert!(!text.contains('\u{1b}'));
        let mut out = Vec::new();
        list(&mut out, &Holds { holds: Vec::new() }, Format::Text).unwrap();
        assert_eq!(out, b"no legal holds\n");
    }
}
