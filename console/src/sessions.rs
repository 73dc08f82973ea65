//! The list of sessions.

use chaperone_index::store::Session;
use maud::{Markup, html};

use crate::{
    Extent,
    form::{Asked, Field, TIME_HINT, extent, field, text},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
    text::inline,
};

/// Characters of a cell.
const CELL_CHARS: usize = 200;
/// Hosts and pods of a session that the list names.
const NAMED: usize = 3;

const FIELDS: [Field; 3] = [
    text(
        "namespace",
        "Namespace",
        "empty: all that you may see, if that is all",
    ),
    text("since", "Not before", TIME_HINT),
    text("until", "Before", TIME_HINT),
];

/// What the list shows.
#[derive(Clone, Debug)]
pub struct SessionsPage<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// What was found.
    pub found: Result<(&'a [Session], &'a Extent), Notice<'a>>,
}

/// The list of sessions, those that began last first.
#[must_use]
pub fn sessions(frame: &Frame<'_>, this: &SessionsPage<'_>) -> String {
    let content = html! {
        @if let Err(why) = &this.found { (summary(why)) }
        form.question method="get" action=(link::to("sessions", &[])) role="search" aria-label="Sessions" {
            @for each in &FIELDS { (field(each, this.asked)) }
            button type="submit" { "Show" }
        }
        @if let Ok((found, far)) = this.found {
            @if !found.is_empty() { (table(found)) }
            (extent("sessions", this.asked, far, found.len(), "sessions"))
        }
    };
    let this = Page {
        title: "Sessions",
        place: Place::Sessions,
        script: None,
        content,
    };
    page(frame, &this)
}

fn table(found: &[Session]) -> Markup {
    html! {
        div.wide role="region" aria-label="Sessions found" tabindex="0" {
            table {
                caption { "What one run of an agent did is a session. The name is the agent's word, or the stream's." }
                thead {
                    tr {
                        th scope="col" { "Session" }
                        th scope="col" { "Began" }
                        th scope="col" { "Last record" }
                        th scope="col" { "Pods" }
                        th.number scope="col" { "Turns" }
                        th.number scope="col" { "Operations" }
                        th.number scope="col" { "Denied" }
                        th.number scope="col" { "Would be" }
                        th scope="col" { "Hosts" }
                    }
                }
                tbody { @for session in found { (row(session)) } }
            }
        }
    }
}

fn row(session: &Session) -> Markup {
    let pods: Vec<_> = session.streams.iter().map(|s| s.pod.as_str()).collect();
    let hosts: Vec<_> = session.hosts.iter().map(|h| h.host.as_str()).collect();
    let time = |time: &Option<String>| time.as_deref().map(short).unwrap_or_default();
    html! {
        tr {
            th scope="row" { a href=(address(session)) { (inline(&session.id, CELL_CHARS)) } }
            td.time { (time(&session.first_time)) }
            td.time { (time(&session.last_time)) }
            td { (inline(&session.namespace, CELL_CHARS)) "/" (some_of(&pods)) }
            td.number { (session.turns) }
            td.number { (session.operations) }
            td.number { (flagged(session.denied, "deny")) }
            td.number { (flagged(session.would_deny, "would-deny")) }
            td { (some_of(&hosts)) }
        }
    }
}

/// The page of a session.
pub(crate) fn address(session: &Session) -> String {
    let kind = kind_word(session);
    link::to(
        "session",
        &[
            ("id", &session.id),
            ("namespace", &session.namespace),
            ("kind", kind),
        ],
    )
}

pub(crate) fn kind_word(session: &Session) -> &'static str {
    use chaperone_index::store::SessionKind;
    match session.kind {
        SessionKind::Agent => "agent",
        SessionKind::Stream => "stream",
    }
}

pub(crate) fn flagged(count: u64, class: &str) -> Markup {
    html! { @if count == 0 { "0" } @else { strong class=(class) { (count) } } }
}

fn some_of(names: &[&str]) -> Markup {
    let more = names.len().saturating_sub(NAMED);
    html! {
        @for (number, name) in names.iter().take(NAMED).enumerate() {
            @if number > 0 { ", " }
            (inline(name, CELL_CHARS))
        }
        @if more > 0 { " and " (more) " more" }
    }
}

/// `2026-11-29 10:00:00` of a time of the index.
pub(crate) fn short(time: &str) -> String {
    let second = time.get(..19).unwrap_or(time);
    second.replacen('T', " ", 1)
}
