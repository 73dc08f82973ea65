//! Texts that an agent, a server or a log file wrote, as HTML that shows them and does nothing else.
//!
//! Invariant: every character of the text stands in the HTML, those that mislead by their number; masks are marked by their form, and the form alone: an agent can write it too, so how many there are says the record's `masked`.

use std::{borrow::Cow, sync::LazyLock};

use chaperone_crds::summary::misleads;
use maud::{Markup, html};
use regex::Regex;

/// What masking leaves in a record's text (docs/masking.md): a mask's name, a hash, a token, a header that is a credential.
static MASKS: LazyLock<Regex> = LazyLock::new(|| {
    let forms = r"\[masked(?::[A-Za-z0-9._-]{1,63})?\]|\[hash:[A-Za-z0-9._-]{1,63}:[0-9a-f]{1,64}\]|\[secret\]|tok_[A-Za-z0-9-]{1,63}_[A-Za-z2-7]{8,4096}";
    Regex::new(forms).expect("the pattern is right")
});

/// A text on one line, cut after so many characters.
pub(crate) fn inline(text: &str, chars: usize) -> Markup {
    let (shown, more) = cut(text, chars);
    html! {
        bdi { (marked(shown, false)) @if more { "…" } }
    }
}

/// A text with its lines, cut after so many characters, and how many bytes there are besides.
pub(crate) fn block(text: &str, chars: usize) -> Markup {
    let (shown, _) = cut(text, chars);
    let more = text.len().saturating_sub(shown.len());
    html! {
        pre tabindex="0" { code { (marked(shown, true)) } }
        @if more > 0 {
            p.note { (more) " more bytes are not shown here; the record as it stands has them." }
        }
    }
}

/// Where a title or an attribute takes no markup.
pub(crate) fn plain(text: &str, chars: usize) -> String {
    let (shown, more) = cut(text, chars);
    let mut out = String::with_capacity(shown.len());
    for c in shown.chars() {
        match misleads(c) {
            true => out.push_str(&number(c)),
            false => out.push(c),
        }
    }
    if more {
        out.push('…');
    }
    out
}

fn cut(text: &str, chars: usize) -> (&str, bool) {
    match text.char_indices().nth(chars) {
        Some((end, _)) => (text.get(..end).unwrap_or_default(), true),
        None => (text, false),
    }
}

fn marked(text: &str, has_lines: bool) -> Markup {
    let mut from = 0;
    let mut parts = Vec::new();
    for found in MASKS.find_iter(text) {
        parts.push((text.get(from..found.start()), false));
        parts.push((Some(found.as_str()), true));
        from = found.end();
    }
    parts.push((text.get(from..), false));
    let parts = parts.into_iter();
    let parts = parts.filter_map(|(part, is_mask)| Some((part?, is_mask)));
    html! {
        @for (part, is_mask) in parts {
            @if is_mask { mark.mask title="masked" { (part) } } @else { (visible(part, has_lines)) }
        }
    }
}

/// A run of characters that are shown as they are, or one that is not.
enum Run<'t> {
    Plain(&'t str),
    Odd(char),
}

fn visible(text: &str, has_lines: bool) -> Markup {
    let is_odd = |c: char| misleads(c) && !(has_lines && matches!(c, '\n' | '\t'));
    // CR LF is a line's end as LF is.
    let text = match has_lines && text.contains("\r\n") {
        true => Cow::Owned(text.replace("\r\n", "\n")),
        false => Cow::Borrowed(text),
    };
    let mut runs = Vec::new();
    let mut from = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_odd(*c)) {
        runs.push(Run::Plain(text.get(from..at).unwrap_or_default()));
        runs.push(Run::Odd(c));
        from = at + c.len_utf8();
    }
    runs.push(Run::Plain(text.get(from..).unwrap_or_default()));
    html! {
        @for run in runs {
            @match run {
                Run::Plain(text) => (text),
                Run::Odd(c) => span.odd title="a character that is not shown as it is" { (number(c)) },
            }
        }
    }
}

fn number(c: char) -> String {
    format!("\\u{{{:x}}}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_an_agent_wrote_is_text_and_nothing_else() {
        let shown = inline("<script>alert(1)</script>&\"'\u{202e}x\n", 100).into_string();
        assert!(shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;"));
        assert!(shown.contains("\\u{202e}</span>x") && shown.contains("\\u{a}</span>"));
        assert!(!shown.contains('\u{202e}') && !shown.contains('\n'));
        let lines = block("a\r\nb\tc\u{0}", 100).into_string();
        assert!(lines.contains("a\nb\tc<span"), "{lines}");
    }

    #[test]
    fn masks_are_marked() {
        let text = "to [masked:email], [hash:phone:00ff], tok_iban_abcdefgh, [secret] and [masked]; not [masked:a b]";
        let shown = inline(text, 1000).into_string();
        assert_eq!(shown.matches("<mark class=\"mask\"").count(), 5, "{shown}");
        assert!(shown.contains("not [masked:a b]"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert!(inline("äöü", 2).into_string().contains("äö…"));
        assert!(block("äöü", 2).into_string().contains("2 more bytes"));
        assert_eq!(plain("äö\u{0}ü", 3), "äö\\u{0}…");
    }

    proptest! {
        #[test]
        fn no_text_makes_an_element(text in "\\PC*|[<>&\"'\\x00-\\x20a-z\\[\\]:]*") {
            let shown = block(&text, 10_000).into_string();
            let known = ["<pre tabindex=\"0\">", "</pre>", "<code>", "</code>", "<mark class=\"mask\" title=\"masked\">", "</mark>",
                "<span class=\"odd\" title=\"a character that is not shown as it is\">", "</span>", "<p class=\"note\">", "</p>"];
            let mut rest = shown;
            for tag in known {
                rest = rest.replace(tag, "");
            }
            prop_assert!(!rest.contains('<') && !rest.contains('>') && !rest.contains('"'), "{}", rest);
        }
    }
}
