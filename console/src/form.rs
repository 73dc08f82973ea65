//! Forms of questions: fields with what was asked, and links to the next page of an answer.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::{Extent, link};

/// What was asked: names and values of parameters, as the user gave them.
pub type Asked = BTreeMap<String, String>;

/// A field of a form.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    /// How to write it. Empty: that is plain.
    pub(crate) hint: &'static str,
    /// The words that may stand there. Empty: any.
    pub(crate) words: &'static [&'static str],
}

/// Of a field for text.
pub(crate) const fn text(name: &'static str, label: &'static str, hint: &'static str) -> Field {
    Field {
        name,
        label,
        hint,
        words: &[],
    }
}

/// Of a field for one of some words.
pub(crate) const fn choice(
    name: &'static str,
    label: &'static str,
    words: &'static [&'static str],
) -> Field {
    Field {
        name,
        label,
        hint: "",
        words,
    }
}

/// A time's hint.
pub(crate) const TIME_HINT: &str = "2026-11-29T10:00:00Z, or so long ago: 2h";

pub(crate) fn field(field: &Field, asked: &Asked) -> Markup {
    let Field {
        name,
        label,
        hint,
        words,
    } = field;
    let given = asked.get(*name).map_or("", String::as_str);
    let hint_id = (!hint.is_empty()).then(|| format!("{name}-hint"));
    html! {
        div.field {
            label for=(name) { (label) }
            @if let Some(id) = &hint_id { p.hint id=(id) { (hint) } }
            @if words.is_empty() {
                input id=(name) name=(name) value=(given) spellcheck="false" autocomplete="off" aria-describedby=[&hint_id];
            } @else {
                select id=(name) name=(name) {
                    option value="" { "any" }
                    @for word in *words {
                        option value=(word) selected[*word == given] { (word) }
                    }
                }
            }
        }
    }
}

/// How far an answer looks, and the way to its next page.
pub(crate) fn extent(
    page: &str,
    asked: &Asked,
    extent: &Extent,
    shown: usize,
    what: &str,
) -> Markup {
    let next = extent.cursor.as_deref().map(|cursor| {
        let with = asked.iter().filter(|(name, _)| *name != "cursor");
        let mut pairs: Vec<_> = with.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        pairs.push(("cursor", cursor));
        link::to(page, &pairs)
    });
    html! {
        p.extent {
            (shown) " " (what) " here, of the first " (extent.indexed) " records of " (extent.committed) "."
            @if next.is_none() { " There are no more." }
        }
        @if let Some(next) = next {
            nav aria-label="Pages" { a.next rel="next" href=(next) { "Next page" } }
        }
    }
}
