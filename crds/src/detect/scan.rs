//! The search: which match comes next, over all detectors of a set.

use super::{CompiledMasks, Tail};

/// A match. Its bytes are `text[start..end]`, and what [`Tail`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// First byte.
    pub start: usize,
    /// One past the last decided byte.
    pub end: usize,
    /// Index into [`CompiledMasks::rules`].
    pub rule: usize,
    /// What belongs to the match beyond `end`.
    pub tail: Tail,
}

/// What comes next in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A match that no further bytes can change.
    Match(Match),
    /// No match begins before this index; whether one begins at or after it, more bytes must tell. The text's length when nothing
    /// is open. At most [`super::MAX_UNDECIDED_BYTES`] before the end of the text.
    Undecided(usize),
}

impl Found {
    /// Where the match begins, or may begin.
    fn start(&self) -> usize {
        match self {
            Found::Match(found) => found.start,
            Found::Undecided(at) => *at,
        }
    }

    /// Order in which findings are taken: the first in the text, an open question before an answer (it might beat it), then the
    /// rule that was named first.
    fn precedence(&self) -> (usize, Option<usize>) {
        match self {
            Found::Match(found) => (found.start, Some(found.rule)),
            Found::Undecided(at) => (*at, None),
        }
    }
}

/// A search through one text, from left to right; matches do not overlap.
#[derive(Debug)]
pub struct Scan<'a> {
    masks: &'a CompiledMasks,
    text: &'a [u8],
    at: usize,
    eof: bool,
    /// The last answer of each engine; it holds until the search has passed its start.
    answers: [Option<Found>; CompiledMasks::ENGINES],
}

impl<'a> Scan<'a> {
    /// Searches `text` from index `from`. The bytes before `from` are context: when any were dropped, at least
    /// [`super::LOOK_BEHIND_BYTES`] must be left. `eof` says that nothing follows `text`.
    pub fn new(masks: &'a CompiledMasks, text: &'a [u8], from: usize, eof: bool) -> Self {
        Scan {
            masks,
            text,
            at: from.min(text.len()),
            eof,
            answers: [None; CompiledMasks::ENGINES],
        }
    }

    /// What comes next; after a match, the search goes on behind it. After a match with a tail, the caller skips the tail and
    /// begins a new search.
    pub fn next_found(&mut self) -> Found {
        let mut first = Found::Undecided(self.text.len());
        for (engine, answer) in self.answers.iter_mut().enumerate() {
            let found = match *answer {
                Some(found) if found.start() >= self.at => found,
                _ => *answer.insert(self.masks.ask(engine, self.text, self.at, self.eof)),
            };
            if found.precedence() < first.precedence() {
                first = found;
            }
        }
        if let Found::Match(found) = first {
            self.at = found.end;
        }
        first
    }
}
