//! Why there is no answer.

use maud::{Markup, html};

use crate::{
    frame::{Frame, Page, Place, page},
    text::inline,
};

/// Characters of a reason.
const REASON_CHARS: usize = 500;

/// What a person is told in an answer's place.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// In a few words.
    pub title: &'a str,
    /// The ledger's words for it.
    pub message: &'a str,
}

/// A page that says why there is no other.
#[must_use]
pub fn refusal(frame: &Frame<'_>, why: &Notice<'_>) -> String {
    let this = Page {
        title: why.title,
        place: Place::Elsewhere,
        script: None,
        content: html! { p { (inline(why.message, REASON_CHARS)) } },
    };
    page(frame, &this)
}

/// The same above a form.
pub(crate) fn summary(why: &Notice<'_>) -> Markup {
    html! {
        section.problem role="alert" aria-labelledby="problem" {
            h2 #problem { (why.title) }
            p { (inline(why.message, REASON_CHARS)) }
        }
    }
}
