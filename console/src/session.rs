//! One session: its records in order, turn by turn.

use chaperone_index::{
    facts::Facts,
    store::Session,
    timeline::{Offset, Place as InTime, Timeline, Turn},
};
use maud::{Markup, html};
use serde_json::Value;

use crate::{
    Extent, Shown,
    entry::{heads, row},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
    said::said,
    sessions::{address, flagged, kind_word, short},
    text::{inline, plain},
};

/// Characters of a name.
const NAME_CHARS: usize = 200;
/// Hosts that are named.
const HOSTS: usize = 20;

/// Where the page before ended: turns are counted over all records of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Time of the session's first record, in microseconds since 1970.
    pub first: Option<i64>,
    /// The turn that goes on.
    pub turn: Turn,
}

impl Resumed {
    /// Of a link's `from`; what is none is a beginning.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next();
        let (first, number, at) = (next(), next(), next());
        let number = number.and_then(|n| n.parse().ok()).unwrap_or(0);
        let at = at.and_then(|at| at.parse().ok());
        Self {
            first: first.and_then(|first| first.parse().ok()),
            turn: Turn { number, at },
        }
    }

    fn word(self) -> String {
        let shown = |at: Option<i64>| at.map_or(String::new(), |at| at.to_string());
        let Turn { number, at } = self.turn;
        format!("{}.{number}.{}", shown(self.first), shown(at))
    }
}

/// What the page shows.
#[derive(Clone, Debug)]
pub struct SessionPage<'a> {
    /// The session.
    pub session: &'a Session,
    /// Records of it, in the order of leaves, or why there are none.
    pub records: Result<(&'a [Shown<'a>], &'a Extent), Notice<'a>>,
    /// Where the page before ended.
    pub from: Resumed,
}

/// The page of a session.
#[must_use]
pub fn session(frame: &Frame<'_>, this: &SessionPage<'_>) -> String {
    let title = format!("Session {}", plain(&this.session.id, 40));
    let content = html! {
        (about(this.session))
        @match &this.records {
            Err(why) => (summary(why)),
            Ok((records, far)) => (timeline(this, records, far)),
        }
    };
    let this = Page {
        title: &title,
        place: Place::Sessions,
        script: None,
        content,
    };
    page(frame, &this)
}

fn about(session: &Session) -> Markup {
    let time = |time: &Option<String>| time.as_deref().map(short).unwrap_or_default();
    let more = session.hosts.len().saturating_sub(HOSTS);
    html! {
        dl.facts {
            div { dt { "Name" } dd { (inline(&session.id, NAME_CHARS)) " (" @if kind_word(session) == "agent" { "the agent's word" } @else { "a stream's" } ")" } }
            div { dt { "Namespace" } dd { (inline(&session.namespace, NAME_CHARS)) } }
            div { dt { "From" } dd { (time(&session.first_time)) } }
            div { dt { "To" } dd { (time(&session.last_time)) } }
            div { dt { "Records" } dd { (session.records) } }
            div { dt { "Operations" } dd { (session.operations) } }
            div { dt { "Turns" } dd { (session.turns) } }
            div { dt { "Denied" } dd { (flagged(session.denied, "deny")) } }
            div { dt { "Would be denied" } dd { (flagged(session.would_deny, "would-deny")) } }
        }
        details {
            summary { "Streams (" (session.streams.len()) ") and hosts (" (session.hosts.len()) ")" }
            ul { @for stream in &session.streams { li { (inline(&stream.pod, NAME_CHARS)) ": stream " code { (inline(&stream.stream, NAME_CHARS)) } } } }
            ul {
                @for host in session.hosts.iter().take(HOSTS) { li { (inline(&host.host, NAME_CHARS)) ": " (host.operations) } }
                @if more > 0 { li { (more) " more hosts" } }
            }
        }
    }
}

/// Records under the heading of their turn.
struct Group<'a> {
    turn: Turn,
    rows: Vec<(InTime, &'a Shown<'a>)>,
    /// What was said at its beginning, if that is on this page.
    said: Markup,
}

fn timeline(this: &SessionPage<'_>, records: &[Shown<'_>], far: &Extent) -> Markup {
    let mut time = Timeline::resume(this.from.first, this.from.turn);
    let mut first = this.from.first;
    let mut groups: Vec<Group<'_>> = Vec::new();
    for shown in records {
        let record: Value = serde_json::from_slice(shown.line).unwrap_or_default();
        let place = time.place(&record);
        first = first.or_else(|| Facts::of(&record).time);
        match groups.last_mut() {
            Some(group) if group.turn.number == place.turn.number => {
                group.rows.push((place, shown))
            }
            _ => groups.push(Group {
                turn: place.turn,
                rows: vec![(place, shown)],
                said: said(shown.line, &record),
            }),
        }
    }
    let last = groups.last().map_or(this.from.turn, |group| group.turn);
    let next = far.cursor.as_deref().map(|cursor| {
        let from = Resumed { first, turn: last };
        let word = from.word();
        let session = address(this.session);
        // The address has parameters already.
        let more = link::to("", &[("cursor", cursor), ("from", &word)]);
        let more = more.split_once('?').map_or("", |(_, pairs)| pairs);
        format!("{session}&{more}")
    });
    html! {
        @for group in &groups { (turn(group)) }
        p.extent {
            (records.len()) " records here, of the first " (far.indexed) " records of " (far.committed) "."
            @if next.is_none() { " There are no more." }
        }
        @if let Some(next) = next { nav aria-label="Pages" { a.next rel="next" href=(next) { "Next page" } } }
    }
}

fn turn(group: &Group<'_>) -> Markup {
    let number = group.turn.number;
    let id = format!("turn-{number}");
    html! {
        section.turn aria-labelledby=(id) {
            h2 id=(id) {
                @if number == 0 { "Before the first turn" } @else { "Turn " (number) " " span.offset { (Offset(group.turn.at)) } }
            }
            (group.said)
            div.wide role="region" aria-labelledby=(id) tabindex="0" {
                table {
                    (heads("Since the beginning, and time"))
                    tbody { @for (place, shown) in &group.rows { (row(shown, Some(&Offset(place.at).to_string()))) } }
                }
            }
        }
    }
}
