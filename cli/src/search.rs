//! `chaperone search`: questions about a ledger's records, asked of the ledger or of its directory.
//!
//! Owns arguments and how answers are shown. Refuses to say that there is nothing without saying among how many records that is.

use std::{io, process::ExitCode};

use chaperone_crds::record::Record;
use chaperone_index::query::Query;
use clap::ValueEnum;
use jiff::Timestamp;

use crate::{
    observe::render,
    output::{ColorChoice, NO, clean},
    source::{Page, SourceArgs, Words, pages, time},
};

/// Find records of a ledger: by whose they are, where they went, what was decided, what is in them.
///
/// Asks the cluster's ledger, or another (--ledger), which records that you asked, or reads its directory or a copy of it (--dir).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone search -n agents --decision Deny --since 1h --as audit/auditor
                                                     of the ledger in the cluster, as this service account
  chaperone search -n agents --ledger https://ledger.example:9445 --ca ca.crt --token-file token
  chaperone search --dir /var/lib/chaperone-ledger '\"pull request\" merge*'
                                                     words in a row, and how a word begins
  chaperone search --dir ledger --session 7f3c… --order asc --all -o json >session.jsonl
                                                     records as they were written
  chaperone search --dir ledger --index ledger.index --host '*.example.com' --path /v1/messages
                                                     keeps the index, so that the next question is quick

Exit status: 0 found, 1 nothing found, 2 no answer.")]
pub(crate) struct Args {
    /// Words that must all be in a record; \"in quotes\" those that follow each other; * after a word for how it may go on.
    #[arg(value_name = "WORDS")]
    words: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Only of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only of this pod.
    #[arg(long)]
    pod: Option<String>,
    /// Only of this service account.
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// Only to this name or address, or *.example.com for names below.
    #[arg(long)]
    host: Option<String>,
    /// Only to this path, or one below it.
    #[arg(long)]
    path: Option<String>,
    /// Only records of this kind, such as http, dns or gap.
    #[arg(long)]
    kind: Option<String>,
    /// Only with this verb, such as POST.
    #[arg(long)]
    verb: Option<String>,
    /// Only with this HTTP status.
    #[arg(long)]
    status: Option<String>,
    /// Only with this decision: Allow, Deny or WouldDeny.
    #[arg(long)]
    decision: Option<String>,
    /// Only what this policy decided (namespace/name, or name of a ClusterAgentPolicy).
    #[arg(long)]
    policy: Option<String>,
    /// Only what this rule decided.
    #[arg(long)]
    rule: Option<String>,
    /// Only for this reason, as a word.
    #[arg(long)]
    reason: Option<String>,
    /// Only of this session, as the records name it.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only of this stream.
    #[arg(long, value_name = "UUID")]
    stream: Option<String>,
    /// Not before: a time such as 2026-11-29T10:00:00Z, or so long ago, such as 90s, 10m or 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: a time, or so long ago.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Which come first.
    #[arg(long, value_enum, default_value_t)]
    order: Order,
    /// Most records that are shown.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 100,
        conflicts_with = "all"
    )]
    limit: usize,
    /// Show all that there are.
    #[arg(long)]
    all: bool,
    /// How records are shown: table a line each, wide with leaf, stream and number before it, json as they were written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColorChoice,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    /// The newest first.
    #[default]
    Desc,
    /// The oldest first.
    Asc,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Output {
    #[default]
    Table,
    Wide,
    Json,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let words = args.question(Timestamp::now())?;
    // What is wrong with a question is the same everywhere, and said before anybody is asked.
    Query::parse(words.iter().map(|(name, value)| (*name, value.as_str())))?;
    let mut shown = Shown {
        out: io::stdout().lock(),
        output: args.output,
        color: args.color.for_stdout(),
        count: 0,
    };
    let most = if args.all { usize::MAX } else { args.limit };
    let mut source = args.source.open()?;
    let ask = |words: &Words| source.records(words);
    let last = pages(
        &words,
        most,
        ask,
        |leaf, line| Ok(shown.record(leaf, line)?),
    )?;
    tell(shown.count, &last);
    Ok(match shown.count {
        0 => ExitCode::from(NO),
        _ => ExitCode::SUCCESS,
    })
}

/// How far the answer looks, for the person who asked.
fn tell(count: u64, last: &Page) {
    let records = if count == 1 { "record" } else { "records" };
    let more = match last.cursor {
        Some(_) => " and there may be more (--limit, --all)",
        None => "",
    };
    let Page {
        indexed, committed, ..
    } = last;
    eprintln!("{count} {records}{more}, among the first {indexed} of {committed}");
}

struct Shown<W> {
    out: W,
    output: Output,
    color: bool,
    count: u64,
}

impl<W: io::Write> Shown<W> {
    fn record(&mut self, leaf: u64, line: &[u8]) -> io::Result<()> {
        self.count = self.count.saturating_add(1);
        if self.output == Output::Json {
            self.out.write_all(line)?;
            return self.out.write_all(b"\n");
        }
        // A record of a later version is shown as it stands.
        let record = Record::read(line);
        let text = match &record {
            Ok(record) => render(record, self.color),
            Err(_) => clean(&String::from_utf8_lossy(line)).into_owned(),
        };
        match (self.output, &record) {
            (Output::Wide, Ok(record)) => {
                let (date, _) = record.time.split_once('T').unwrap_or_default();
                let (date, stream) = (clean(date), clean(&record.stream));
                writeln!(self.out, "{leaf} {stream} {} {date} {text}", record.seq)
            }
            (Output::Wide, Err(_)) => writeln!(self.out, "{leaf} {text}"),
            _ => writeln!(self.out, "{text}"),
        }
    }
}

impl Args {
    /// The question, but for limit and cursor.
    fn question(&self, now: Timestamp) -> anyhow::Result<Words> {
        let order = match self.order {
            Order::Desc => "desc",
            Order::Asc => "asc",
        };
        let mut words: Words = vec![("order", order.to_owned())];
        for (name, value) in [
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("serviceAccount", &self.service_account),
            ("host", &self.host),
            ("path", &self.path),
            ("kind", &self.kind),
            ("verb", &self.verb),
            ("status", &self.status),
            ("decision", &self.decision),
            ("policy", &self.policy),
            ("rule", &self.rule),
            ("reason", &self.reason),
            ("session", &self.session),
            ("stream", &self.stream),
        ] {
            words.extend(value.clone().map(|value| (name, value)));
        }
        for (name, value) in [("since", &self.since), ("until", &self.until)] {
            words.extend(value.as_ref().map(|value| (name, time(value, now))));
        }
        if !self.words.is_empty() {
            words.push(("q", self.words.join(" ")));
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn question(line: &str) -> Words {
        let line = Line::parse_from(["search", "--dir", "x"].into_iter().chain(line.split(' ')));
        let now = "2026-11-29T10:00:00Z".parse().unwrap();
        line.args.question(now).unwrap()
    }

    #[test]
    fn each_flag_is_a_parameter_that_the_ledger_knows() {
        let line = "-n a --pod b --service-account c --host d --path /e --kind f --verb g --status 200 --decision Deny --policy h --rule i --reason j --session k \
                    --stream 7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d --since 2h --until 2026-11-29T11:00:00Z --order asc pull request";
        let words = question(line);
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        for name in chaperone_index::query::NAMES {
            let is_paging = ["limit", "cursor", "from"].contains(&name);
            assert_eq!(names.contains(&name), !is_paging, "{name}");
        }
        let value = |name: &str| words.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(value("since"), "2026-11-29T08:00:00Z");
        assert_eq!(value("until"), "2026-11-29T11:00:00Z");
        assert_eq!(value("q"), "pull request");
        let pairs = words.iter().map(|(name, value)| (*name, value.as_str()));
        assert!(Query::parse(pairs).is_ok());
    }
}
