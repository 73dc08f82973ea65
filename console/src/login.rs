//! The page that asks for a token.

use maud::html;

use crate::{
    frame::{Frame, Page, Place, page},
    link::ROOT,
    refusal::{Notice, summary},
};

/// Asks for a token; `then` is the page to come to, `why` what was wrong before.
#[must_use]
pub fn login(frame: &Frame<'_>, then: &str, why: Option<&Notice<'_>>) -> String {
    let content = html! {
        @if let Some(why) = why { (summary(why)) }
        p { "You are whoever your token says you are, and see what the cluster's RBAC lets that user see. Make a token:" }
        pre tabindex="0" { code { "kubectl create token NAME -n NAMESPACE --audience chaperone.dev/ledger" } }
        form.stack method="post" action={ (ROOT) "/login" } {
            input type="hidden" name="then" value=(then);
            label for="token" { "Token" }
            p.hint #token-hint { "It stays in the ledger's memory until you log out, the token ends, or the ledger restarts." }
            input #token name="token" type="password" autocomplete="off" spellcheck="false" required aria-describedby="token-hint";
            button type="submit" { "Log in" }
        }
        @if !then.is_empty() { p { "Logged in already, and came by a link from elsewhere? " a href=(then) { "Go on" } } }
    };
    let this = Page {
        title: "Log in",
        place: Place::Elsewhere,
        script: None,
        content,
    };
    page(frame, &this)
}
