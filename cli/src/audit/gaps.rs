//! `chaperone audit gaps`: which pods leave no evidence, or not all of it. Owns arguments and how the answer is told; the judgement is `chaperone_ledger::gaps`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    process::ExitCode,
};

use chaperone_ledger::gaps::{Answer, Gap, Reason};
use jiff::{SignedDuration, Timestamp};

use crate::{
    output::{Format, NO, NO_ANSWER, clean},
    source::{SourceArgs, Words, time},
};

/// Which pods that ran in audited namespaces have no stream of records, one with a gap, or one that was not closed?
///
/// The ledger watches pods and puts on record which of them ran. Each should have a stream here that goes on while it runs (with a heartbeat each minute at least) and is closed when it ends. Those of which this is not so are told of, with
/// what to do: those that are there, and those that ended in the last seven days.
///
/// With --dir the answer is made of the records of a ledger's directory, as it was when the newest of them was written.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone audit gaps --ledger https://ledger.example --token-file token -A
  chaperone audit gaps --ledger https://ledger.example --token-file token -n agents --since 720h
  chaperone audit gaps --dir copy-of-ledger --output json

Exit status: 0 nothing is missing, 1 something is, 2 no answer (the ledger does not see pods, cannot be reached, or refuses).")]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Only pods of this namespace.
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Pods of all namespaces, as without -n.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only this: no-sidecar, no-token, no-stream, hole, silent, unclosed, exempt.
    #[arg(long, value_name = "WORD", value_parser = reason)]
    reason: Option<Reason>,
    /// Tell of pods that ended since then: a time such as 2026-11-29T10:00:00Z, or so long ago, such as 24h. The ledger remembers 30 days.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = args.source.gaps(&args.words(Timestamp::now()))?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => text(&mut out, &answer)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &answer).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    let sees = args.source.is_directory() || answer.watching_since.is_some();
    if !sees {
        eprintln!(
            "the ledger does not see which pods run now (its log says why): others may leave no evidence"
        );
    }
    Ok(match (answer.is_complete(), sees) {
        (false, _) => ExitCode::from(NO),
        (true, false) => ExitCode::from(NO_ANSWER),
        (true, true) => ExitCode::SUCCESS,
    })
}

impl Args {
    fn words(&self, now: Timestamp) -> Words {
        let mut words = Words::new();
        words.extend(self.namespace.clone().map(|name| ("namespace", name)));
        words.extend(self.reason.map(|reason| ("reason", reason.to_string())));
        words.extend(self.since.as_ref().map(|text| ("since", time(text, now))));
        words
    }
}

fn reason(word: &str) -> Result<Reason, String> {
    let all = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::of(word).ok_or_else(|| format!("expected one of {}", all()))
}

/// A table, and once for each reason what to do. What names a pod was chosen by who made it.
fn text(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    if !answer.gaps.is_empty() {
        let head = [
            "NAMESPACE",
            "POD",
            "WHAT",
            "SINCE",
            "LAST RECORD",
            "POD IS",
            "",
        ];
        let rows = answer.gaps.iter().map(|gap| row(gap, answer.at));
        table(
            out,
            [head.map(str::to_owned)].into_iter().chain(rows).collect(),
        )?;
        writeln!(out)?;
    }
    let reasons: BTreeSet<_> = answer.gaps.iter().map(|gap| gap.reason).collect();
    for reason in reasons {
        writeln!(out, "{reason}: {}", reason.advice())?;
    }
    if answer.left_out > 0 {
        writeln!(
            out,
            "and {} more: ask for one namespace or --reason",
            answer.left_out
        )?;
    }
    let wrong: BTreeSet<_> = answer
        .gaps
        .iter()
        .filter(|gap| gap.reason.is_wrong())
        .map(|gap| &gap.uid)
        .collect();
    let verdict = match wrong.len() {
        0 => "no evidence is missing".to_owned(),
        1 => "of 1 pod evidence is missing".to_owned(),
        pods => format!("of {pods} pods evidence is missing"),
    };
    let there = answer.pods;
    let ended = seconds(answer.ended_since);
    writeln!(
        out,
        "{verdict}: {there} pods that are there, and those that ended since {ended}, at {}",
        seconds(answer.at)
    )
}

fn row(gap: &Gap, now: Timestamp) -> [String; 7] {
    let ago = |then: Timestamp| age(now.duration_since(then));
    let last = gap.last_record.map_or("none".to_owned(), ago);
    let is = gap
        .ended
        .map_or("there".to_owned(), |at| format!("gone, {}", ago(at)));
    [
        clean(&gap.namespace).into_owned(),
        clean(&gap.pod).into_owned(),
        gap.reason.to_string(),
        ago(gap.since),
        last,
        is,
        clean(&gap.detail).into_owned(),
    ]
}

fn table(out: &mut impl Write, rows: Vec<[String; 7]>) -> io::Result<()> {
    let mut widths = [0_usize; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// How long ago, in the largest two units.
fn age(ago: SignedDuration) -> String {
    let seconds = ago.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s ago"),
        (0, 0, _) => format!("{minutes}m ago"),
        (0, ..) => format!("{hours}h{minutes}m ago"),
        _ => format!("{days}d{hours}h ago"),
    }
}

/// A time without fractions.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).map_or_else(|_| time.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(pod: &str, reason: Reason) -> Gap {
        Gap {
            namespace: "agents".to_owned(),
            pod: pod.to_owned(),
            uid: pod.to_owned(),
            node: "node-1".to_owned(),
            reason,
            detail: "nothing has come after record 6, not even a heartbeat".to_owned(),
            advice: reason.advice().to_owned(),
            since: "2026-11-29T07:48:00Z".parse().unwrap(),
            ended: None,
            stream: None,
            last_record: Some("2026-11-29T07:48:00Z".parse().unwrap()),
            next_seq: Some(7),
            missing: None,
        }
    }

    fn told(gaps: Vec<Gap>) -> String {
        let answer = Answer {
            at: "2026-11-29T10:00:00.25Z".parse().unwrap(),
            watching_since: None,
            log_since: None,
            ended_since: "2026-11-22T10:00:00Z".parse().unwrap(),
            pods: 41,
            gaps,
            left_out: 0,
        };
        let mut out = Vec::new();
        text(&mut out, &answer).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_answer_says_who_what_since_when_and_what_to_do() {
        let mut gone = gap("bad\u{1b}[2J", Reason::Unclosed);
        gone.ended = Some("2026-11-27T09:00:00Z".parse().unwrap());
        let told = told(vec![
            gap("claude-0", Reason::Silent),
            gone,
            gap("ci-7", Reason::Exempt),
        ]);
        let lines: Vec<_> = told.lines().collect();
        assert!(lines[0].starts_with("NAMESPACE  POD"), "{told}");
        assert!(
            lines[1].contains("claude-0")
                && lines[1].contains("silent")
                && lines[1].contains("2h12m ago"),
            "{told}"
        );
        assert!(
            lines[2].contains("gone, 2d1h ago") && !told.contains('\u{1b}'),
            "{told}"
        );
        assert!(
            told.contains("\nunclosed: its sidecar was killed"),
            "{told}"
        );
        let last = "of 2 pods evidence is missing: 41 pods that are there, and those that ended since 2026-11-22T10:00:00Z, at 2026-11-29T10:00:00Z";
        assert_eq!(lines.last(), Some(&last));
    }

    #[test]
    fn where_nothing_is_missing_that_is_all_that_is_said() {
        assert!(told(Vec::new()).starts_with("no evidence is missing: 41 pods"));
    }
}
