//! The search for custom patterns: one automaton for all of them, and a second one, run backwards from the end of the text, that
//! finds where a match may have begun that is not all there yet.
//!
//! The second automaton matches the *beginnings* of the patterns' matches. When no beginning reaches from a byte to the end of the
//! text, no match that begins there can still change, whatever follows: that makes the first automaton's matches before that byte
//! final.

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::Regex;
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::{Hir, HirKind, Repetition};

use super::pattern::PATTERN_NFA_LIMIT_BYTES;
use super::{Found, MAX_UNDECIDED_BYTES, Match, Tail};

/// Memory for the states of an automaton, bytes, per thread that searches; when it is full, states are made anew.
const AUTOMATON_CACHE_BYTES: usize = 512 * 1024;
/// The automaton of beginnings is at most so much larger than the patterns' own.
const BEGINNINGS_FACTOR: usize = 4;

type Caches = Pool<
    Cache,
    Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>,
>;

/// All custom patterns of a set.
pub(super) struct Custom {
    matches: Regex,
    beginnings: DFA,
    caches: Caches,
    /// By the pattern's index.
    rules: Vec<usize>,
}

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custom")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Custom {
    /// Compiles checked patterns, each with its rule; earlier ones win where several match.
    ///
    /// # Errors
    /// When the patterns together exceed the size limits.
    pub(super) fn new(patterns: &[(Hir, usize)]) -> Result<Custom, String> {
        let hirs: Vec<&Hir> = patterns.iter().map(|(hir, _)| hir).collect();
        let limit = PATTERN_NFA_LIMIT_BYTES.saturating_mul(patterns.len().max(1));
        let config = Regex::config()
            .utf8_empty(false)
            .nfa_size_limit(Some(limit))
            .hybrid_cache_capacity(AUTOMATON_CACHE_BYTES)
            .which_captures(thompson::WhichCaptures::Implicit);
        let matches = Regex::builder()
            .configure(config)
            .build_many_from_hir(&hirs)
            .map_err(|error| error.to_string())?;
        let beginnings = beginnings(&hirs, limit.saturating_mul(BEGINNINGS_FACTOR))?;
        let dfa = beginnings.clone();
        Ok(Custom {
            matches,
            beginnings,
            caches: Pool::new(Box::new(move || dfa.create_cache())),
            rules: patterns.iter().map(|&(_, rule)| rule).collect(),
        })
    }

    /// The first match that begins at or after `from`.
    pub(super) fn next(&self, text: &[u8], from: usize, eof: bool) -> Found {
        let open = if eof {
            text.len()
        } else {
            self.open_from(text, from)
        };
        let input = Input::new(text).span(from..text.len());
        let Some(found) = self.matches.search(&input) else {
            return Found::Undecided(open);
        };
        match self.rules.get(found.pattern().as_usize()) {
            Some(&rule) if found.start() < open => Found::Match(Match {
                start: found.start(),
                end: found.end(),
                rule,
                tail: Tail::Closed,
            }),
            _ => Found::Undecided(open),
        }
    }

    /// First byte from which a beginning of a match reaches to the end of `text`.
    fn open_from(&self, text: &[u8], from: usize) -> usize {
        let floor = from.max(text.len().saturating_sub(MAX_UNDECIDED_BYTES));
        let input = Input::new(text)
            .span(floor..text.len())
            .anchored(Anchored::Yes);
        let mut cache = self.caches.get();
        match self.beginnings.try_search_rev(&mut cache, &input) {
            Ok(found) => found.map_or(text.len(), |beginning| beginning.offset()),
            // Holding back all that could matter is never wrong, only late.
            Err(_) => floor,
        }
    }
}

fn beginnings(hirs: &[&Hir], limit: usize) -> Result<DFA, String> {
    let beginnings: Vec<Hir> = hirs.iter().map(|hir| beginning_of(hir)).collect();
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .utf8(false)
                .reverse(true)
                .which_captures(thompson::WhichCaptures::None)
                .nfa_size_limit(Some(limit)),
        )
        .build_many_from_hir(&beginnings)
        .map_err(|error| error.to_string())?;
    DFA::builder()
        .configure(
            DFA::config()
                .match_kind(MatchKind::All)
                .cache_capacity(AUTOMATON_CACHE_BYTES)
                .skip_cache_capacity_check(true),
        )
        .build_from_nfa(nfa)
        .map_err(|error| error.to_string())
}

/// An expression for every beginning of what `hir` matches, the empty one and the whole included.
fn beginning_of(hir: &Hir) -> Hir {
    match hir.kind() {
        // Edges are judged by the main automaton, once the text beyond is there.
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Literal(literal) => beginning_of_all(
            literal
                .0
                .iter()
                .map(|&byte| (Hir::literal([byte]), Hir::literal([byte]))),
        ),
        HirKind::Class(_) => optional(hir.clone()),
        HirKind::Capture(capture) => beginning_of(&capture.sub),
        HirKind::Alternation(subs) => Hir::alternation(subs.iter().map(beginning_of).collect()),
        HirKind::Concat(subs) => {
            beginning_of_all(subs.iter().map(|sub| (sub.clone(), beginning_of(sub))))
        }
        HirKind::Repetition(repetition) => Hir::concat(vec![
            Hir::repetition(Repetition {
                min: 0,
                max: repetition.max.map(|max| max.saturating_sub(1)),
                greedy: true,
                sub: repetition.sub.clone(),
            }),
            beginning_of(&repetition.sub),
        ]),
    }
}

/// Beginnings of a sequence: of its first part, or the first part whole and a beginning of the others.
fn beginning_of_all(parts: impl DoubleEndedIterator<Item = (Hir, Hir)>) -> Hir {
    parts.rev().fold(Hir::empty(), |rest, (whole, beginning)| {
        Hir::alternation(vec![optional(beginning), Hir::concat(vec![whole, rest])])
    })
}

fn optional(hir: Hir) -> Hir {
    Hir::repetition(Repetition {
        min: 0,
        max: Some(1),
        greedy: true,
        sub: Box::new(hir),
    })
}
