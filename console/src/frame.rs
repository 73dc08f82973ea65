//! What all pages share: head, landmarks, where one is, who one is.

use maud::{DOCTYPE, Markup, html};

use crate::{assets, link::ROOT, text::plain};

/// Characters of a title.
const TITLE_CHARS: usize = 80;

/// The pages that the navigation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Sessions, and one of them.
    Sessions,
    /// Records that are looked for, and one of them.
    Records,
    /// Records as they come.
    Live,
    /// Pods whose evidence is missing.
    Gaps,
    /// What a candidate policy would have done.
    Impact,
    /// Outside of these.
    Elsewhere,
}

/// Around a page.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Who is logged in. None: nobody, and there is no navigation.
    pub user: Option<&'a str>,
    /// Which log this is.
    pub origin: &'a str,
}

/// A page's own part.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) place: Place,
    /// Script of the page, a name in `assets`.
    pub(crate) script: Option<&'static str>,
    pub(crate) content: Markup,
}

pub(crate) fn page(frame: &Frame<'_>, page: &Page<'_>) -> String {
    let title = plain(page.title, TITLE_CHARS);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Chaperone" }
                link rel="icon" href=(assets::path("icon.svg"));
                link rel="stylesheet" href=(assets::path("console.css"));
                @if let Some(script) = page.script {
                    script type="module" src=(assets::path(script)) {}
                }
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header {
                    p.name { a href={ (ROOT) "/" } { "Chaperone" } " " span.origin { (plain(frame.origin, TITLE_CHARS)) } }
                    @if let Some(user) = frame.user { (navigation(page.place)) (logged_in(user)) }
                }
                main #main tabindex="-1" {
                    h1 { (title) }
                    (page.content)
                }
                footer {
                    p { "Times are UTC. What you look at here is recorded in the ledger, with your name. What is shown is what the ledger has; " code { "chaperone verify" } " proves it." }
                }
            }
        }
    };
    markup.into_string()
}

fn navigation(here: Place) -> Markup {
    let items = [
        (Place::Sessions, "sessions", "Sessions"),
        (Place::Records, "records", "Search"),
        (Place::Live, "live", "Live"),
        (Place::Gaps, "gaps", "Gaps"),
        (Place::Impact, "impact", "Policy impact"),
    ];
    html! {
        nav aria-label="Main" {
            ul {
                @for (place, path, name) in items {
                    li { a href={ (ROOT) "/" (path) } aria-current=[(place == here).then_some("true")] { (name) } }
                }
            }
        }
    }
}

fn logged_in(user: &str) -> Markup {
    html! {
        form.logout method="post" action={ (ROOT) "/logout" } {
            span.user { bdi { (plain(user, TITLE_CHARS)) } }
            button type="submit" { "Log out" }
        }
    }
}
