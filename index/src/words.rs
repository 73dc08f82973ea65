//! Words of a text, and text queries.
//!
//! Owns what a word is, for records and queries alike: a run of letters and digits (Unicode's), in lower case, cut at [`MAX_WORD_BYTES`]. Refuses a syntax of queries that could be wrong: every text is a query, or has no word.
//! Invariant: a word has no ASCII but digits and lower-case letters, so that none means anything to SQLite.

use std::collections::VecDeque;

use thiserror::Error;

/// Longest word, in bytes; what is longer counts as this beginning of it.
pub const MAX_WORD_BYTES: usize = 64;
/// Fewest letters of the beginning of a word: FTS5 gathers the lists of all words that begin so before it gives one leaf.
pub const MIN_PREFIX_LETTERS: usize = 3;
/// Longest text query, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Most words of a text query.
pub const MAX_TEXT_WORDS: usize = 32;

/// What somebody looks for in the texts of records: all of the terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Term>);

/// Words that follow each other in one text, whatever is between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// At least one.
    words: Vec<String>,
    /// Whether the last word may go on.
    is_prefix: bool,
}

/// A text that is no query.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadText {
    /// Nothing to look for.
    #[error("there is no letter and no digit in it")]
    NoWord,
    /// Too long.
    #[error("it is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// A beginning that most words have.
    #[error(
        "the beginning of a word (before *) has {MIN_PREFIX_LETTERS} letters or digits at least"
    )]
    ShortPrefix,
    /// Too many words.
    #[error("it has more than {MAX_TEXT_WORDS} words")]
    TooMany,
}

/// Shows each word of a text.
pub fn each_word(text: &str, mut take: impl FnMut(&str)) {
    let mut word = String::new();
    let mut is_cut = false;
    for char in text.chars() {
        if !char.is_alphanumeric() {
            give(&mut word, &mut is_cut, &mut take);
        } else if !is_cut {
            let before = word.len();
            match char.is_ascii() {
                true => word.push(char.to_ascii_lowercase()),
                // Lower case of one letter may be several characters, not all of them letters.
                false => word.extend(char.to_lowercase().filter(|c| c.is_alphanumeric())),
            }
            if word.len() > MAX_WORD_BYTES {
                word.truncate(before);
                is_cut = true;
            }
        }
    }
    give(&mut word, &mut is_cut, &mut take);
}

fn give(word: &mut String, is_cut: &mut bool, take: &mut impl FnMut(&str)) {
    if !word.is_empty() {
        take(word);
        word.clear();
    }
    *is_cut = false;
}

impl Text {
    /// Reads a query: words and `"words in a row"`, all of which must be there; `*` after a word stands for how it may go on. What punctuation joins (`api.example.com`, `user_id`) is words in a row.
    ///
    /// # Errors
    /// [`BadText`].
    pub fn parse(text: &str) -> Result<Self, BadText> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(BadText::TooLong);
        }
        let mut terms = Vec::new();
        // Every second part stands in quotes; the last one may lack its end.
        for (part, number) in text.split('"').zip(0_usize..) {
            match number % 2 {
                0 => terms.extend(part.split_whitespace().filter_map(Term::of)),
                _ => terms.extend(Term::of(part)),
            }
        }
        let is_short = |prefix: &str| prefix.chars().count() < MIN_PREFIX_LETTERS;
        if terms.iter().filter_map(Term::prefix).any(is_short) {
            return Err(BadText::ShortPrefix);
        }
        let words: usize = terms.iter().map(|term| term.words.len()).sum();
        match words {
            0 => Err(BadText::NoWord),
            1..=MAX_TEXT_WORDS => Ok(Self(terms)),
            _ => Err(BadText::TooMany),
        }
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// Whether each term is in one of these texts.
    #[must_use]
    pub fn is_in(&self, texts: &[&str]) -> bool {
        self.0
            .iter()
            .all(|term| texts.iter().any(|text| term.is_in(text)))
    }
}

impl Term {
    fn of(text: &str) -> Option<Self> {
        let mut words = Vec::new();
        each_word(text, |word| words.push(word.to_owned()));
        (!words.is_empty()).then(|| Self {
            words,
            is_prefix: text.trim_end().ends_with('*'),
        })
    }

    /// The words that must be there whole.
    #[must_use]
    pub fn whole(&self) -> &[String] {
        let end = self.words.len().saturating_sub(usize::from(self.is_prefix));
        self.words.get(..end).unwrap_or_default()
    }

    /// The beginning of a word that must be there.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.words
            .last()
            .filter(|_| self.is_prefix)
            .map(String::as_str)
    }

    fn is_in(&self, text: &str) -> bool {
        let mut last = VecDeque::with_capacity(self.words.len());
        let mut is_in = false;
        each_word(text, |word| {
            if is_in {
                return;
            }
            if last.len() == self.words.len() {
                last.pop_front();
            }
            last.push_back(word.to_owned());
            is_in = self.is_row(&last);
        });
        is_in
    }

    fn is_row(&self, row: &VecDeque<String>) -> bool {
        let whole = self.whole();
        row.len() == self.words.len()
            && row.iter().zip(whole).all(|(found, wanted)| found == wanted)
            && self
                .prefix()
                .is_none_or(|prefix| row.back().is_some_and(|last| last.starts_with(prefix)))
    }
}

#[cfg(test)]
mod tests;
