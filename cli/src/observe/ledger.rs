//! Records as the ledger takes them, from where it stands or from an earlier time on.
//!
//! A look asks for records from a leaf on and waits for some; the next one goes on where the answer ended, so that no record is shown twice or left out, also across restarts of the ledger.

use std::{
    io::Write,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use chaperone_crds::summary::Verdict;
use chaperone_index::query::{MAX_LIMIT, PageCursor};

use super::{
    Args,
    feed::Feed,
    filter::{Filter, Kind},
};
use crate::source::{Answered, Page, Source, Words, pages, reached};

/// How long a look waits for records.
const WAIT_SECONDS: u64 = 25;
/// The least between two looks: each is a record of the ledger.
const STEP: Duration = Duration::from_millis(500);
/// The pause after the first look that failed, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Shows the records of the ledger that `args` names.
pub(super) fn observe(args: &Args, feed: &mut Feed<impl Write>) -> anyhow::Result<()> {
    let words = question(feed.filter());
    let in_order = with(&words, &[("order", "asc")]);
    let mut source = reached(&args.ledger)?;
    if args.no_follow || feed.filter().not_before.is_some() {
        let ask = |words: &Words| source.records(words);
        let last = pages(&in_order, usize::MAX, ask, |_, line| Ok(feed.line(line)?))?;
        if args.no_follow {
            let Page {
                indexed, committed, ..
            } = last;
            eprintln!("among the first {indexed} of {committed} records of the ledger");
            return Ok(());
        }
        return follow(source, &in_order, last.indexed, feed);
    }
    let from = source.records(&with(&words, &[("limit", "1")]))?.indexed;
    follow(source, &in_order, from, feed)
}

/// Shows what the ledger takes from this leaf on, until the user ends it.
fn follow(
    mut source: Source,
    words: &Words,
    from: u64,
    feed: &mut Feed<impl Write>,
) -> anyhow::Result<()> {
    end_with_interrupt()?;
    let (mut from, mut pause) = (from, PAUSE);
    loop {
        let asked = Instant::now();
        let look = [
            ("from", &*from.to_string()),
            ("wait", &WAIT_SECONDS.to_string()),
            ("limit", &MAX_LIMIT.to_string()),
        ];
        match source.records(&with(words, &look)) {
            Ok(page) => {
                for (_, line) in &page.records {
                    feed.line(line)?;
                }
                from = next(&page, from);
                pause = PAUSE;
                if page.cursor.is_none() {
                    thread::sleep(STEP.saturating_sub(asked.elapsed()));
                }
            }
            Err(error) if error.is::<Answered>() => return Err(error),
            Err(error) => {
                if pause == PAUSE {
                    eprintln!("the ledger is away, and tried again: {error:#}");
                }
                thread::sleep(pause.saturating_sub(asked.elapsed()));
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// The first leaf that this answer did not look at.
fn next(page: &Page, from: u64) -> u64 {
    let cursor = page.cursor.as_deref().and_then(|text| text.parse().ok());
    if let Some(PageCursor { next, .. }) = cursor {
        return next;
    }
    if page.committed < from {
        eprintln!(
            "the ledger has {} records, and had {from}: an older copy was put back; what it takes from now on is shown",
            page.committed
        );
        return page.indexed;
    }
    page.indexed.max(from)
}

/// What the ledger is asked for: all that the filter wants, and, where a question cannot say it, more, which the filter takes out.
fn question(filter: &Filter) -> Words {
    let mut words = Words::new();
    let mut put = |name, value: Option<&str>| {
        words.extend(value.map(|value| (name, value.to_owned())));
    };
    put("namespace", filter.namespace.as_deref());
    put(
        "pod",
        filter.pod.as_deref().filter(|pod| !pod.contains('*')),
    );
    put("kind", only(&filter.kinds).and_then(kind));
    put("decision", only(&filter.decisions).and_then(decision));
    let since = filter.not_before.map(|time| time.to_string());
    put("since", since.as_deref());
    words
}

fn with(words: &Words, more: &[(&'static str, &str)]) -> Words {
    let more = more
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    words.iter().cloned().chain(more).collect()
}

fn only<T>(wanted: &[T]) -> Option<&T> {
    match wanted {
        [one] => Some(one),
        _ => None,
    }
}

fn kind(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Begin => Some("begin"),
        Kind::Http => Some("http"),
        Kind::Dns => Some("dns"),
        Kind::Gap => Some("gap"),
        Kind::Connection => Some("connection"),
        Kind::Config => Some("config"),
        // Several kinds of records each.
        Kind::Ws | Kind::Stream => None,
    }
}

fn decision(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Allow => Some("Allow"),
        Verdict::Deny => Some("Deny"),
        Verdict::WouldDeny => Some("WouldDeny"),
        _ => None,
    }
}

/// Looks wait in the ledger's answer: an interrupt ends the program, as it ends any feed, in good order.
fn end_with_interrupt() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wait = move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            process::exit(0);
        }
    };
    thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(wait)
        .context("no thread for interrupts")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use chaperone_index::query::Query;

    use super::*;

    fn page(indexed: u64, committed: u64, cursor: Option<&str>) -> Page {
        Page {
            records: Vec::new(),
            indexed,
            committed,
            cursor: cursor.map(str::to_owned),
        }
    }

    #[test]
    fn the_next_look_goes_on_where_the_answer_ended() {
        assert_eq!(next(&page(9, 12, None), 5), 9);
        assert_eq!(next(&page(90, 90, Some("1.40.90")), 5), 40);
        // The index is being made anew.
        assert_eq!(next(&page(3, 12, None), 9), 9);
        // An older copy was put back.
        assert_eq!(next(&page(3, 4, None), 9), 3);
    }

    #[test]
    fn what_one_word_says_is_asked_of_the_ledger_and_the_rest_is_left_to_the_filter() {
        let all = Filter {
            namespace: Some("agents".to_owned()),
            pod: Some("claude-0".to_owned()),
            decisions: vec![Verdict::WouldDeny],
            hosts: Vec::new(),
            kinds: vec![Kind::Http],
            not_before: Some("2026-11-29T10:00:00Z".parse().unwrap()),
        };
        let words = question(&all);
        let pairs = words.iter().map(|(name, value)| (*name, value.as_str()));
        assert!(Query::parse(pairs).is_ok());
        assert_eq!(words.len(), 5, "{words:?}");
        let loose = Filter {
            pod: Some("claude-*".to_owned()),
            decisions: vec![Verdict::Deny, Verdict::Gap],
            hosts: vec!["*.example.com".to_owned()],
            kinds: vec![Kind::Ws],
            ..Filter::default()
        };
        assert!(question(&loose).is_empty());
    }
}
