//! One record as a row of a table.

use chaperone_crds::{
    record::Record,
    summary::{Verdict, clock, decided_by, foremost, masked, operation, outcome, word},
};
use maud::{Markup, html};

use crate::{Shown, link, text::inline};

/// Characters of a cell.
const CELL_CHARS: usize = 300;

/// The heads of the columns of [`row`].
pub(crate) fn heads(first: &str) -> Markup {
    html! {
        thead {
            tr {
                th scope="col" { (first) }
                th scope="col" { "Pod" }
                th scope="col" { "Decision" }
                th scope="col" { "What" }
                th scope="col" { "How it went" }
                th scope="col" { "Decided by" }
            }
        }
    }
}

/// A row; `when` stands beside the record's own time.
pub(crate) fn row(shown: &Shown<'_>, when: Option<&str>) -> Markup {
    let href = link::record(shown.stream, shown.seq, shown.namespace);
    // A record of a later version is shown as it stands.
    let Ok(record) = Record::read(shown.line) else {
        let line = String::from_utf8_lossy(shown.line);
        return html! {
            tr {
                td { @if let Some(when) = when { (when) } }
                td { (inline(shown.namespace, CELL_CHARS)) }
                td {}
                th scope="row" colspan="3" { a href=(href) { (inline(&line, CELL_CHARS)) } }
            }
        };
    };
    let event = &record.event;
    let verdict = foremost(&record);
    let pod = format!("{}/{}", event.agent.namespace, event.agent.pod);
    let went = [outcome(event), masked(event)];
    html! {
        tr class=[row_class(verdict)] {
            td.time {
                @if let Some(when) = when { span.offset { (when) } " " }
                time datetime=(record.time) title=(crate::text::plain(&record.time, 40)) { (inline(clock(&record.time), 20)) }
            }
            td.pod { (inline(&pod, CELL_CHARS)) }
            td { (verdict_mark(&record)) }
            th.what scope="row" { a href=(href) { (inline(&what(&record), CELL_CHARS)) } }
            td {
                @for part in went.iter().filter(|part| !part.is_empty()) { (inline(part, CELL_CHARS)) " " }
                @if let Some(error) = &event.error { span.error { "error: " (inline(error, CELL_CHARS)) } }
            }
            td { (inline(&decided_by(event), CELL_CHARS)) }
        }
    }
}

/// What a record is about; its kind, where it says nothing else.
pub(crate) fn what(record: &Record) -> String {
    match operation(&record.event) {
        text if text.is_empty() => kind(record),
        text => text,
    }
}

/// The kind, as it stands in records.
pub(crate) fn kind(record: &Record) -> String {
    let kind = serde_json::to_value(record.event.kind);
    let kind = kind.ok().and_then(|kind| kind.as_str().map(str::to_owned));
    kind.unwrap_or_default()
}

/// The decision in a word, which says it without its colour too.
pub(crate) fn verdict_mark(record: &Record) -> Markup {
    let verdict = foremost(record);
    let word = word(record.event.kind, verdict).to_lowercase();
    html! { span.verdict.(verdict_class(verdict)) { (word) } }
}

fn verdict_class(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Deny) => "deny",
        Some(Verdict::WouldDeny) => "would-deny",
        Some(Verdict::Gap) => "gap",
        Some(Verdict::Allow) => "allow",
        None => "none",
    }
}

fn row_class(verdict: Option<Verdict>) -> Option<&'static str> {
    matches!(
        verdict,
        Some(Verdict::Deny | Verdict::WouldDeny | Verdict::Gap)
    )
    .then(|| verdict_class(verdict))
}
