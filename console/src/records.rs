//! Records that are looked for.

use maud::html;

use crate::{
    Extent, Shown,
    entry::{heads, row},
    form::{Asked, Field, TIME_HINT, choice, extent, field, text},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
};

/// What most questions need.
const FIELDS: [Field; 6] = [
    text(
        "q",
        "Words",
        "all of them; \"in quotes\" in a row; merge* how one begins",
    ),
    text(
        "namespace",
        "Namespace",
        "empty: all that you may see, if that is all",
    ),
    choice("decision", "Decision", &["Allow", "Deny", "WouldDeny"]),
    text(
        "host",
        "Host",
        "a name or address, or *.example.com for names below",
    ),
    text("since", "Not before", TIME_HINT),
    text("until", "Before", TIME_HINT),
];

/// What few do.
const MORE: [Field; 13] = [
    text("path", "Path", "this one, or below it: /v1"),
    text("pod", "Pod", ""),
    text("serviceAccount", "Service account", ""),
    text("session", "Session", "where the record itself names it"),
    text("stream", "Stream", ""),
    choice(
        "kind",
        "Kind",
        &[
            "http",
            "ws.message",
            "ws.close",
            "dns",
            "gap",
            "connection",
            "begin",
            "config",
            "stream.open",
            "stream.resume",
            "stream.close",
            "stream.identity",
            "ledger.read",
        ],
    ),
    text("verb", "Verb", "GET, A, connect, …"),
    text("status", "Status", "of HTTP: 403"),
    text("policy", "Policy", "namespace/name, or name of a cluster's"),
    text("rule", "Rule", ""),
    text("reason", "Reason", "rule, default, …"),
    choice("order", "Order", &["desc", "asc"]),
    text("limit", "Records on a page", "1 to 1000"),
];

/// What the page shows.
#[derive(Clone, Debug)]
pub struct RecordsPage<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// What was found, or why not; None before anything is asked.
    pub found: Option<Result<(&'a [Shown<'a>], &'a Extent), Notice<'a>>>,
}

/// The page that finds records.
#[must_use]
pub fn records(frame: &Frame<'_>, this: &RecordsPage<'_>) -> String {
    let asks_more = MORE.iter().any(|each| this.asked.contains_key(each.name));
    let content = html! {
        @if let Some(Err(why)) = &this.found { (summary(why)) }
        form.question method="get" action=(link::to("records", &[])) role="search" aria-label="Records" {
            @for each in &FIELDS { (field(each, this.asked)) }
            details open[asks_more] {
                summary { "More" }
                div.question { @for each in &MORE { (field(each, this.asked)) } }
            }
            // So that a question without a word is one too.
            button type="submit" name="ask" value="1" { "Search" }
        }
        @if let Some(Ok((found, far))) = this.found {
            @if !found.is_empty() {
                div.wide role="region" aria-label="Records found" tabindex="0" {
                    table {
                        caption { "Records found" }
                        (heads("Day and time"))
                        tbody { @for shown in found { (row(shown, day(shown).as_deref())) } }
                    }
                }
            }
            (extent("records", this.asked, far, found.len(), "records"))
        }
    };
    let this = Page {
        title: "Search",
        place: Place::Records,
        script: None,
        content,
    };
    page(frame, &this)
}

/// The day of a record's time, where that is one.
fn day(shown: &Shown<'_>) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(shown.line).ok()?;
    let day = record.get("time")?.as_str()?.get(..10)?;
    let is_day = day.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    is_day.then(|| day.to_owned())
}
