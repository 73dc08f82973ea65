//! `chaperone replay`: what one session did, in order, with the turns of its model as the thread.
//!
//! Owns arguments, and playing in time without a terminal. Refuses judgement: it shows what the ledger gives, and says among how many records; `chaperone export` and `chaperone verify` prove it.

mod pace;
mod player;
mod screen;
mod terminal;
mod text;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chaperone_index::{
    facts::{Facts, Whose},
    query::Query,
    store::SessionKind,
    timeline::{Place, Timeline},
};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    output::ColorChoice,
    source::{Named, Page, SourceArgs, Words, pages},
};
use pace::{Pace, Played};
use screen::Screen;
use text::{Look, entry, heading};

/// Most bytes of records that are held to be played. A session is read whole before it plays: the ledger's patience and a token's life are shorter than a session.
const MAX_HELD_BYTES: usize = 512 * 1024 * 1024;

/// Show what one session did, in order, with the turns of its model as the thread.
///
/// Of the cluster's ledger, or another (--ledger), which records that you asked, or of its directory or a copy of it (--dir).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  chaperone replay 7f3c1a9e-… --as audit/auditor     of the ledger in the cluster, as this service account
  chaperone replay 7f3c1a9e-… --ledger https://ledger.example:9445 --ca ca.crt --token-file token
  chaperone replay --dir ledger 7f3c1a9e-… --speed 10 --skip-idle 2s
                                                     in time, ten times as fast, and no wait longer than 2 s
  chaperone replay --dir ledger 7f3c1a9e-… -o plain | less -R
                                                     all at once, without the player
  chaperone replay --dir ledger 7f3c1a9e-… 'rm -rf'  only records that have these words
  chaperone replay --dir ledger 7f3c1a9e-… --decision Deny --body-chars 0
                                                     only what was refused, without bodies
  chaperone replay --dir ledger 7f3c1a9e-… -o json | jq 'select(.turn == 3).record'

! is what was denied, ~ what would have been, ? a gap.
Exit status: 0 shown, 2 no answer (there is no such session, or several).")]
pub(crate) struct Args {
    /// The session's name, or the stream's.
    session: String,
    /// Only records that have all these words; \"in quotes\" those that follow each other; * after a word for how it may go on.
    #[arg(value_name = "WORDS")]
    words: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Namespace of the session, where several have one of this name.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Whether the agent named the session, or it is a stream's, where there are both.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only to this name or address, or *.example.com for names below.
    #[arg(long)]
    host: Option<String>,
    /// Only to this path, or one below it.
    #[arg(long)]
    path: Option<String>,
    /// Only with this decision: Allow, Deny or WouldDeny.
    #[arg(long)]
    decision: Option<String>,
    /// Play in time, so many times as fast as it was. Default: all at once; in a terminal it waits for a key.
    #[arg(long, value_name = "NUMBER", value_parser = speed)]
    speed: Option<f64>,
    /// Longest wait between two records, such as 2s.
    #[arg(long, value_name = "DURATION", requires = "speed", value_parser = duration)]
    skip_idle: Option<Duration>,
    /// Characters of each body that are shown, where the record has one; 0 is none.
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    body_chars: usize,
    /// How records are written: plain for people, json an object for each with the record as it stands. Default: in a terminal a player (? shows its keys), else plain.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: ColorChoice,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The agent named it.
    Agent,
    /// It is a stream, and has the stream's name.
    Stream,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Plain,
    Json,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // What is wrong with a question is said before anybody is asked.
    let wanted = args.wanted()?;
    let output = match args.output {
        Some(output) => output,
        None if is_screen() => return on_screen(args, &wanted),
        None => Output::Plain,
    };
    let mut replay = Replay {
        out: io::stdout().lock(),
        wanted,
        output,
        look: args.look(),
        timeline: Timeline::default(),
        heading: None,
        shown: 0,
        of: 0,
    };
    let last = match args.pace() {
        None => args.read(|leaf, line| replay.take(leaf, line, |_| {}))?,
        Some(pace) => {
            let mut held = Held::default();
            let last = args.read(|leaf, line| held.take(leaf, line))?;
            let mut waiting = Waiting::start(pace);
            for (leaf, line) in held.records {
                replay.take(leaf, &line, |at| waiting.wait(at))?;
            }
            last
        }
    };
    tell(replay.shown, replay.of, &replay.timeline, &last);
    Ok(ExitCode::SUCCESS)
}

/// Whether there is a terminal that obeys.
fn is_screen() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn on_screen(args: &Args, wanted: &Query) -> anyhow::Result<ExitCode> {
    let mut held = Held::default();
    let last = args.read(|leaf, line| held.take(leaf, line))?;
    let of = held.records.len() as u64;
    let mut timeline = Timeline::default();
    let mut records = Vec::new();
    for (leaf, line) in held.records {
        let record = parsed(leaf, &line)?;
        let place = timeline.place(&record);
        if wants(wanted, &record) {
            records.push((place, line));
        }
    }
    let shown = records.len() as u64;
    let screen = Screen::new(&args.session, records, args.pace(), args.look());
    let code = match screen {
        Some(screen) => terminal::play(screen)?,
        None => ExitCode::SUCCESS,
    };
    tell(shown, of, &timeline, &last);
    Ok(code)
}

impl Args {
    /// Which of the session's records are shown. Read here, not asked for: turns are counted over all.
    fn wanted(&self) -> anyhow::Result<Query> {
        let words = (!self.words.is_empty()).then(|| self.words.join(" "));
        let parameters = [
            ("host", self.host.as_deref()),
            ("path", self.path.as_deref()),
            ("decision", self.decision.as_deref()),
            ("q", words.as_deref()),
        ];
        let given = parameters.into_iter();
        let given = given.filter_map(|(name, value)| Some((name, value?)));
        Ok(Query::parse(given)?)
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace {
            speed: self.speed?,
            longest: self.skip_idle,
        })
    }

    fn look(&self) -> Look {
        Look {
            color: self.color.for_stdout(),
            body_chars: self.body_chars,
        }
    }

    /// Takes all records of the session in the order of leaves. The last page.
    fn read(&self, take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<Page> {
        ensure!(!self.session.is_empty(), "SESSION is empty");
        let named = Named {
            id: self.session.clone(),
            namespace: self.namespace.clone(),
            kind: self.kind.map(|kind| match kind {
                Kind::Agent => SessionKind::Agent,
                Kind::Stream => SessionKind::Stream,
            }),
        };
        let words: Words = vec![("order", "asc".to_owned())];
        let mut source = self.source.open()?;
        let ask = |words: &Words| source.session(&named, words);
        pages(&words, usize::MAX, ask, take)
    }
}

/// Records that wait to be played.
#[derive(Default)]
struct Held {
    records: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Held {
    fn take(&mut self, leaf: u64, line: &[u8]) -> anyhow::Result<()> {
        self.bytes = self.bytes.saturating_add(line.len());
        ensure!(
            self.bytes <= MAX_HELD_BYTES,
            "the session has more than {} MiB of records, too much to play; use -o plain without --speed",
            MAX_HELD_BYTES / 1024 / 1024
        );
        self.records.push((leaf, line.to_vec()));
        Ok(())
    }
}

/// Waits until a record is due.
struct Waiting {
    started: Instant,
    played: Played,
}

impl Waiting {
    fn start(pace: Pace) -> Self {
        Self {
            started: Instant::now(),
            played: Played::nothing(pace),
        }
    }

    fn wait(&mut self, at: Option<i64>) {
        let due = self.played.due(at);
        thread::sleep(due.saturating_sub(self.started.elapsed()));
    }
}

struct Replay<W> {
    out: W,
    wanted: Query,
    output: Output,
    look: Look,
    timeline: Timeline,
    /// Number of the turn whose heading was written last.
    heading: Option<u64>,
    shown: u64,
    of: u64,
}

impl<W: io::Write> Replay<W> {
    /// Shows a record if it is wanted, when `wait` returns.
    fn take(
        &mut self,
        leaf: u64,
        line: &[u8],
        mut wait: impl FnMut(Option<i64>),
    ) -> anyhow::Result<()> {
        let record = parsed(leaf, line)?;
        let place = self.timeline.place(&record);
        self.of = self.of.saturating_add(1);
        if !wants(&self.wanted, &record) {
            return Ok(());
        }
        wait(place.at);
        self.shown = self.shown.saturating_add(1);
        match self.output {
            Output::Plain => self.plain(line, place)?,
            Output::Json => self.json(leaf, line, place)?,
        }
        self.out.flush()?;
        Ok(())
    }

    fn plain(&mut self, line: &[u8], place: Place) -> io::Result<()> {
        let number = place.turn.number;
        if self.heading != Some(number) {
            self.heading = Some(number);
            writeln!(self.out, "{}", heading(place.turn, self.look))?;
        }
        self.out.write_all(entry(line, place, self.look).as_bytes())
    }

    /// The record stands in it byte for byte.
    fn json(&mut self, leaf: u64, line: &[u8], place: Place) -> io::Result<()> {
        write!(self.out, r#"{{"leaf":{leaf},"#)?;
        if let Some(at) = place.at {
            write!(self.out, r#""atUs":{at},"#)?;
        }
        write!(self.out, r#""turn":{},"record":"#, place.turn.number)?;
        self.out.write_all(line)?;
        self.out.write_all(b"}\n")
    }
}

/// How much there was, for the person who asked.
fn tell(shown: u64, of: u64, timeline: &Timeline, last: &Page) {
    let Page {
        indexed, committed, ..
    } = last;
    let turns = timeline.turns();
    let s = |count: u64| if count == 1 { "" } else { "s" };
    let some = match shown == of {
        true => String::new(),
        false => format!("{shown} of "),
    };
    eprintln!(
        "{some}{of} record{} in {turns} turn{}, among the first {indexed} of {committed}",
        s(of),
        s(turns)
    );
}

fn parsed(leaf: u64, line: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(line).with_context(|| format!("leaf {leaf} is no record"))
}

/// Whether a record has what is asked for. Whose it is was asked with the session.
fn wants(wanted: &Query, record: &Value) -> bool {
    wanted.asks_for(record, &Facts::of(record), &Whose::default(), "")
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=10_000.0).contains(&speed) => Ok(speed),
        _ => Err("not a number from 0.01 to 10000".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "not a duration; write for example 2s or 500ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_and_waits_are_checked() {
        assert_eq!(speed("0.25"), Ok(0.25));
        for bad in ["0", "-1", "NaN", "inf", "fast", "1e9"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("1s500ms"), Ok(Duration::from_millis(1_500)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }

    #[test]
    fn what_is_too_much_to_hold_is_refused() {
        let mut held = Held {
            bytes: MAX_HELD_BYTES - 3,
            ..Held::default()
        };
        assert!(held.take(1, b"{}").is_ok());
        let error = held.take(2, b"{}").unwrap_err().to_string();
        assert!(error.contains("512 MiB"), "{error}");
    }
}
