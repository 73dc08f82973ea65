//! What a custom pattern may be. The admission webhook and the compiler both call [`check_pattern`], so what was admitted compiles.

use std::convert::Infallible;

use regex_automata::nfa::thompson;
use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange, Span};
use regex_syntax::hir::Hir;
use regex_syntax::hir::translate::TranslatorBuilder;

use super::CustomPattern;

/// Longest pattern, characters: long enough for any identifier, short enough to read in an error.
pub const MAX_PATTERN_CHARS: usize = 512;
/// Longest match, bytes: as much as may have to be held back to see a match whole.
pub const MAX_PATTERN_MATCH_BYTES: usize = super::MAX_UNDECIDED_BYTES;
/// Largest automaton of one pattern, bytes; nested repetitions multiply.
pub const PATTERN_NFA_LIMIT_BYTES: usize = 512 * 1024;
/// Deepest nesting of groups and repetitions.
const MAX_NESTING: u32 = 32;

/// Why a pattern is refused, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pattern \"{name}\", column {column}: {problem}\n  {pattern}\n  {caret:>column$}",
    caret = "^"
)]
pub struct PatternError {
    /// Name of the pattern.
    pub name: String,
    /// The pattern as written.
    pub pattern: String,
    /// Character at which the problem begins, from 1.
    pub column: usize,
    /// What is wrong and what to write in its place.
    pub problem: String,
}

/// Checks a pattern.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_pattern(pattern: &CustomPattern) -> Result<(), PatternError> {
    parse(pattern).map(drop)
}

/// Parses a pattern into what the engine compiles.
pub(super) fn parse(pattern: &CustomPattern) -> Result<Hir, PatternError> {
    let refuse = |column: usize, problem: String| PatternError {
        name: pattern.name.clone(),
        pattern: pattern.pattern.clone(),
        column,
        problem,
    };
    let text = pattern.pattern.as_str();
    let chars = text.chars().count();
    if chars > MAX_PATTERN_CHARS {
        let problem = format!(
            "the pattern has {chars} characters; {MAX_PATTERN_CHARS} are allowed: split it"
        );
        return Err(refuse(MAX_PATTERN_CHARS + 1, problem));
    }
    let ast = ast::parse::ParserBuilder::new()
        .nest_limit(MAX_NESTING)
        .build()
        .parse(text)
        .map_err(|error| refuse(column(error.span()), syntax_problem(&error)))?;
    let hir = TranslatorBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .translate(text, &ast)
        .map_err(|error| refuse(column(error.span()), translate_problem(&error)))?;
    check_shape(&ast, &hir).map_err(|(column, problem)| refuse(column, problem))?;
    let nfa = thompson::Compiler::new()
        .configure(nfa_config())
        .build_from_hir(&hir);
    if nfa.is_err() {
        let problem = format!(
            "the pattern compiles to more than {} KiB; use smaller repetition counts",
            PATTERN_NFA_LIMIT_BYTES / 1024
        );
        return Err(refuse(1, problem));
    }
    Ok(hir)
}

fn nfa_config() -> thompson::Config {
    thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(PATTERN_NFA_LIMIT_BYTES))
}

/// What a stream cannot search for, with its column.
fn check_shape(ast: &Ast, hir: &Hir) -> Result<(), (usize, String)> {
    let looks = hir.properties().look_set();
    if looks.contains_anchor() {
        let problem = "text is searched as it streams, so it has no beginning or end to anchor at; leave out ^, $, \\A and \\z, or use \\b";
        return Err((column_of(ast, is_anchor), problem.into()));
    }
    if looks.contains_word_unicode() {
        let problem = "word boundaries are ASCII; leave out the u flag";
        return Err((column_of(ast, is_assertion), problem.into()));
    }
    let Some(shortest) = hir.properties().minimum_len() else {
        return Err((
            1,
            "the pattern can never match; mend the empty class".into(),
        ));
    };
    if shortest == 0 {
        let problem = "the pattern matches the empty text, so it would match everywhere; require at least one character";
        return Err((1, problem.into()));
    }
    match hir.properties().maximum_len() {
        None => {
            let at = column_of(ast, is_unbounded);
            let problem = "a repetition without an upper limit, so that a match has no bounded length; write {1,64} in place of +, {0,64} in place of *, {2,64} in place of {2,}";
            Err((at, problem.into()))
        }
        Some(longest) if longest > MAX_PATTERN_MATCH_BYTES => {
            let problem = format!(
                "a match can have {longest} bytes; {MAX_PATTERN_MATCH_BYTES} are allowed: lower the repetition counts"
            );
            Err((column_of(ast, is_range), problem))
        }
        Some(_) => Ok(()),
    }
}

fn column(span: &Span) -> usize {
    span.start.column
}

fn syntax_problem(error: &ast::Error) -> String {
    use ast::ErrorKind::{NestLimitExceeded, UnsupportedBackreference, UnsupportedLookAround};
    match error.kind() {
        UnsupportedLookAround => {
            "look-around is not in RE2 syntax; match the surroundings too, or use \\b".into()
        }
        UnsupportedBackreference => {
            "back-references are not in RE2 syntax; spell the repetition out".into()
        }
        NestLimitExceeded(limit) => {
            format!("groups and repetitions nest deeper than {limit}; flatten them")
        }
        kind => kind.to_string(),
    }
}

fn translate_problem(error: &regex_syntax::hir::Error) -> String {
    use regex_syntax::hir::ErrorKind::{UnicodeNotAllowed, UnicodePropertyNotFound};
    match error.kind() {
        UnicodeNotAllowed | UnicodePropertyNotFound => {
            "classes are ASCII; write other characters as literals, (é|è) in place of [éè]".into()
        }
        kind => kind.to_string(),
    }
}

/// Column of the first node that `wanted` picks, else 1.
fn column_of(ast: &Ast, wanted: fn(&Ast) -> Option<&Span>) -> usize {
    let finder = Finder {
        wanted,
        column: None,
    };
    match ast::visit(ast, finder) {
        Ok(column) => column.unwrap_or(1),
        Err(never) => match never {},
    }
}

struct Finder {
    wanted: fn(&Ast) -> Option<&Span>,
    column: Option<usize>,
}

impl ast::Visitor for Finder {
    type Output = Option<usize>;
    type Err = Infallible;

    fn finish(self) -> Result<Self::Output, Infallible> {
        Ok(self.column)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        if let Some(span) = (self.wanted)(ast) {
            let found = column(span);
            self.column = Some(self.column.map_or(found, |first| first.min(found)));
        }
        Ok(())
    }
}

fn is_assertion(ast: &Ast) -> Option<&Span> {
    match ast {
        Ast::Assertion(assertion) => Some(&assertion.span),
        _ => None,
    }
}

fn is_anchor(ast: &Ast) -> Option<&Span> {
    use ast::AssertionKind::{EndLine, EndText, StartLine, StartText};
    match ast {
        Ast::Assertion(a) if matches!(a.kind, StartLine | EndLine | StartText | EndText) => {
            Some(&a.span)
        }
        _ => None,
    }
}

fn is_unbounded(ast: &Ast) -> Option<&Span> {
    use RepetitionKind::{OneOrMore, Range, ZeroOrMore};
    match ast {
        Ast::Repetition(repetition) => matches!(
            repetition.op.kind,
            ZeroOrMore | OneOrMore | Range(RepetitionRange::AtLeast(_))
        )
        .then_some(&repetition.op.span),
        _ => None,
    }
}

fn is_range(ast: &Ast) -> Option<&Span> {
    match ast {
        Ast::Repetition(repetition) => Some(&repetition.op.span),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str) -> Result<(), (usize, String)> {
        let pattern = CustomPattern {
            name: "p".into(),
            pattern: pattern.into(),
        };
        check_pattern(&pattern).map_err(|error| (error.column, error.problem))
    }

    #[test]
    fn bounded_patterns_are_accepted() {
        for pattern in [
            r"EMP-\d{6}",
            r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}\b",
            "(?i)secret-[a-z]{1,4089}",
            "Größe",
            r"(?s).{1,4096}",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_where() {
        for (pattern, column, problem) in [
            (r"EMP-\d+", 7, "without an upper limit"),
            (r"a{1,3}b{2,}", 8, "without an upper limit"),
            (r"(a)\1", 4, "back-references are not"),
            (r"a(?=b)", 2, "look-around is not"),
            (r"ab^c", 3, "no beginning or end"),
            (r"a\z", 2, "no beginning or end"),
            (r"a?", 1, "matches the empty text"),
            (r"\b", 1, "matches the empty text"),
            (r"[a&&b]", 1, "never match"),
            (r"x.{4096}", 3, "a match can have 4097 bytes"),
            (r"a[é]", 3, "classes are ASCII"),
            (r"a(?u:\b)", 6, "word boundaries are ASCII"),
            (r"ab(c", 3, "unclosed group"),
            (r"(?:(?:a{1,64}){1,64}|(?:b{1,60}c{1,3}){1,64}){1}", 1, ""),
        ] {
            match check(pattern) {
                Err((at, text)) => {
                    assert!(text.contains(problem), "{pattern}: {text}");
                    assert_eq!(at, column, "{pattern}: {text}");
                }
                Ok(()) => assert!(problem.is_empty(), "{pattern} was accepted"),
            }
        }
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        assert!(check(&deep).unwrap_err().1.contains("nest deeper"));
        assert!(check(&"a".repeat(513)).unwrap_err().1.contains("513"));
        let large = r"(?:(?i:[a-zA-Z0-9]{1,8}|[b-y_][c-x]){1,32}){1,16}";
        assert!(check(large).unwrap_err().1.contains("compiles to more"));
    }

    #[test]
    fn the_message_shows_a_caret() {
        let pattern = CustomPattern {
            name: "staff".into(),
            pattern: "EMP-[0-9]+".into(),
        };
        let message = check_pattern(&pattern).unwrap_err().to_string();
        let lines: Vec<&str> = message.lines().collect();
        assert!(lines[0].starts_with("pattern \"staff\", column 10: a repetition"));
        assert_eq!(lines[1], "  EMP-[0-9]+");
        assert_eq!(lines[2], "           ^");
    }
}
