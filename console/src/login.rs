//! The page that asks who one is.

use chaperone_index::query::encoded;
use maud::html;

use crate::{
    frame::{Frame, Page, Place, page},
    link::ROOT,
    refusal::{Notice, summary},
    text::plain,
};

/// Characters of a provider's or user's name.
const NAME_CHARS: usize = 200;

/// Asks for a token, or offers `provider`; `then` is the page to come to, `why` what was wrong before.
#[must_use]
pub fn login(
    frame: &Frame<'_>,
    then: &str,
    provider: Option<&str>,
    why: Option<&Notice<'_>>,
) -> String {
    let content = html! {
        @if let Some(why) = why { (summary(why)) }
        @if let Some(provider) = provider {
            p { a.button href={ (ROOT) "/oidc/login?then=" (encoded(then)) } { "Log in with " (plain(provider, NAME_CHARS)) } }
            h2 { "Or with a token" }
        }
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

/// Says who one is now, and leads on to `then`.
#[must_use]
pub fn logged_in(frame: &Frame<'_>, user: &str, then: &str) -> String {
    let content = html! {
        p { "You are " strong { (plain(user, NAME_CHARS)) } ". " a href=(then) { "Go on" } }
    };
    let this = Page {
        title: "Logged in",
        place: Place::Elsewhere,
        script: None,
        content,
    };
    page(frame, &this)
}
