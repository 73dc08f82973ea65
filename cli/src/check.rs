//! `chaperone check`: is a cluster in order, and if not, what mends it.
//!
//! A thin shell: `fetch` looks at the cluster, `findings` judges what was seen, this module writes it down.

mod certificate;
mod fetch;
mod findings;
mod view;

pub(crate) use fetch::{Found, Wire, find};

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use jiff::SignedDuration;
use kube::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::ClusterArgs,
    output::{ColorChoice, Format, NO, Painted, Style, clean},
};
use fetch::Scope;
use findings::{Finding, Level, findings};

/// Pause between two looks with `--wait`.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Look at a cluster and say what is wrong and what mends it.
///
/// Looks at the custom resource definitions, the operator, its webhooks and certificates, the ledger, the labelled namespaces, pods in them that
/// have no sidecar (they started before the label) or whose sidecar lags, policies and sinks. It changes nothing. What you may not read is said and passed over.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone check
  chaperone check -n agents                   only this namespace's pods and policies
  chaperone check --wait 60s                  after an installation: until all is well, or the time is over
  chaperone check -o json | jq '.findings[] | select(.level != \"ok\")'

Exit status: 0 nothing failed, 1 something did, 2 the cluster could not be looked at.")]
pub(crate) struct Args {
    /// Only pods and policies of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Chaperone's own namespace. Default: the one that its webhooks name, else chaperone-system.
    #[arg(long, value_name = "NAMESPACE")]
    system_namespace: Option<String>,
    /// Look again until nothing fails, for at most this long, such as 60s.
    #[arg(long, value_name = "DURATION", value_parser = parse_wait)]
    wait: Option<Duration>,
    /// How findings are written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColorChoice,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let found = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(look(args))?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => write_text(&mut out, &found, args.color.for_stdout())?,
        Format::Json => {
            let report = Report {
                ok: !has_failed(&found),
                findings: &found,
            };
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(if has_failed(&found) {
        ExitCode::from(NO)
    } else {
        ExitCode::SUCCESS
    })
}

/// Looks once, or with `--wait` until nothing fails.
async fn look(args: &Args) -> anyhow::Result<Vec<Finding>> {
    let client = args.cluster.client().await?;
    let scope = Scope {
        system: args.system_namespace.clone(),
        namespace: args.namespace.clone(),
        in_cluster: args.cluster.is_in_cluster(),
    };
    let until = Instant::now() + args.wait.unwrap_or_default();
    loop {
        let result = look_once(&client, &scope).await;
        let well = result.as_ref().is_ok_and(|found| !has_failed(found));
        if well || Instant::now() >= until {
            return result;
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn look_once(client: &Client, scope: &Scope) -> anyhow::Result<Vec<Finding>> {
    Ok(findings(&fetch::view(client, scope).await?))
}

fn has_failed(found: &[Finding]) -> bool {
    found.iter().any(|f| f.level == Level::Fail)
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

fn write_text(out: &mut impl Write, found: &[Finding], color: bool) -> io::Result<()> {
    for finding in found {
        let (text, style) = match finding.level {
            Level::Ok => ("ok", Style::Green),
            Level::Warn => ("warn", Style::Yellow),
            Level::Fail => ("FAIL", Style::BoldRed),
        };
        let level = Painted {
            text,
            style,
            on: color,
        };
        writeln!(
            out,
            "{level:<5} {:<13} {}",
            finding.check,
            clean(&finding.message)
        )?;
        if let Some(mend) = &finding.mend {
            writeln!(out, "{:<19} → {}", "", clean(mend))?;
        }
    }
    let count = |level| found.iter().filter(|f| f.level == level).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => writeln!(out, "All is well."),
        (fails, warns) => writeln!(out, "{fails} failed, {warns} to look at."),
    }
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| "not a duration; write for example 60s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_line_for_each_finding_and_one_for_what_mends_it() {
        let finding = |level, mend: Option<&str>| Finding {
            level,
            check: "pods",
            message: "agents/a: \x1b[2J".to_owned(),
            mend: mend.map(str::to_owned),
        };
        let found = [
            finding(Level::Ok, None),
            finding(Level::Fail, Some("restart it")),
        ];
        let mut out = Vec::new();
        write_text(&mut out, &found, false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok    pods          agents/a: \\u{1b}[2J\n\
             FAIL  pods          agents/a: \\u{1b}[2J\n\
             \x20                   → restart it\n\
             1 failed, 0 to look at.\n"
        );
    }
}
