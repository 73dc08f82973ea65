//! Records as they come.

use maud::{Markup, html};

use crate::{
    Shown,
    entry::{heads, row},
    form::{Asked, Field, choice, field, text},
    frame::{Frame, Page, Place, page},
    link,
    refusal::{Notice, summary},
};

const FIELDS: [Field; 4] = [
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
    text("q", "Words", "all of them"),
];

/// What the page shows.
#[derive(Clone, Debug)]
pub struct LivePage<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// The newest records and the leaf before which all were looked at, or why not.
    pub found: Result<(&'a [Shown<'a>], u64), Notice<'a>>,
}

/// The page of new records, the newest first. Its script asks for more rows; without it there is a link.
#[must_use]
pub fn live(frame: &Frame<'_>, this: &LivePage<'_>) -> String {
    let pairs: Vec<_> = this
        .asked
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let content = html! {
        @if let Err(why) = &this.found { (summary(why)) }
        form.question method="get" action=(link::to("live", &[])) role="search" aria-label="New records" {
            @for each in &FIELDS { (field(each, this.asked)) }
            button type="submit" { "Show" }
        }
        @if let Ok((found, after)) = &this.found {
            p {
                a href=(link::to("live", &pairs)) { "Look again" } " "
                button #live-pause type="button" hidden aria-pressed="false" { "Pause" }
            }
            p #live-status role="status" {}
            div #live.wide role="region" aria-label="New records" tabindex="0" data-after=(after) data-path=(link::to("live/rows", &pairs)) {
                table {
                    caption { "New records, the newest first. Records of reading the ledger are left out, your own looking among them." }
                    (heads("Time"))
                    tbody { (rows(found)) }
                }
            }
        }
    };
    let this = Page {
        title: "Live",
        place: Place::Live,
        script: this.found.is_ok().then_some("live.js"),
        content,
    };
    page(frame, &this)
}

/// Rows alone, for a page that is there.
#[must_use]
pub fn live_rows(found: &[Shown<'_>]) -> String {
    rows(found).into_string()
}

fn rows(found: &[Shown<'_>]) -> Markup {
    html! { @for shown in found { (row(shown, None)) } }
}
