//! What all subcommands share when they write: exit codes, formats, colours, and text that is safe to print.
//!
//! Invariant: text that an agent or a log file chose passes through [`clean`] before it reaches a terminal.

use std::{
    borrow::Cow,
    env,
    fmt::{self, Write},
    io::{self, IsTerminal},
};

use chaperone_crds::summary::misleads;
use clap::ValueEnum;

/// Exit status when the answer is no.
pub(crate) const NO: u8 = 1;
/// Exit status when there is no answer: usage, unreadable input, unreachable cluster.
pub(crate) const NO_ANSWER: u8 = 2;

/// How a report is written.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// When colours are used.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ColorChoice {
    /// In a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether standard output gets colours.
    pub(crate) fn for_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                io::stdout().is_terminal()
                    && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                    && env::var_os("TERM").is_none_or(|v| v != "dumb")
            }
        }
    }
}

/// A colour or weight, as an SGR parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Green,
    Yellow,
    Magenta,
    BoldRed,
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Magenta => "35",
            Self::BoldRed => "1;31",
            Self::Dim => "2",
        }
    }
}

/// Text in a style, if `on`. Width and alignment count the text alone.
pub(crate) struct Painted<T> {
    pub(crate) text: T,
    pub(crate) style: Style,
    pub(crate) on: bool,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.on || self.style == Style::Plain {
            return self.text.fmt(f);
        }
        write!(f, "\x1b[{}m", self.style.code())?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

/// `text` without anything that a terminal would obey or that would make it read as something else: control characters, line and
/// paragraph separators, bidirectional overrides and what nobody would see are written as escapes.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if misleads(c) {
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (given, safe) in [
            ("GET /a b", "GET /a b"),
            ("grün → 日本", "grün → 日本"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nDENY b", "a\\u{a}DENY b"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("moc.\u{202e}live", "moc.\\u{202e}live"),
            ("a\u{e0041}\u{200b}b", "a\\u{e0041}\\u{200b}b"),
        ] {
            assert_eq!(clean(given), safe);
        }
    }

    #[test]
    fn paint_keeps_widths_and_is_absent_when_off() {
        let deny = |on| Painted {
            text: "DENY",
            style: Style::BoldRed,
            on,
        };
        assert_eq!(format!("{:<6}|", deny(false)), "DENY  |");
        assert_eq!(format!("{:<6}|", deny(true)), "\x1b[1;31mDENY  \x1b[0m|");
    }
}
