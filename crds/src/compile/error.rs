//! What is wrong with a policy, where, and how to mend it.

use std::fmt;

use crate::snapshot::PolicyRef;

/// Most characters of a source line that an error shows; a longer line is cut around the place.
const SHOWN_CHARS: usize = 100;

/// One error in one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The policy.
    pub policy: PolicyRef,
    /// Name of the rule; `None` where the error is not about a rule.
    pub rule: Option<String>,
    /// Name of the mask; `None` where the error is not about a mask.
    pub mask: Option<String>,
    /// Field, as a path from the rule, mask or `spec`: `when`, `match.hosts[2]`, `tls.passthrough[0]`.
    pub field: String,
    /// Line in the field's text, from 1.
    pub line: u32,
    /// Column in the line, in characters, from 1.
    pub column: u32,
    /// What is wrong and how to mend it.
    pub message: String,
    /// The line that it is about.
    pub source_line: String,
}

impl fmt::Display for PolicyError {
    /// Three lines: where and what, the source line, a caret under the column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}, ", self.policy)?;
        if let Some(rule) = &self.rule {
            write!(f, "rule \"{rule}\", ")?;
        }
        if let Some(mask) = &self.mask {
            write!(f, "mask \"{mask}\", ")?;
        }
        write!(
            f,
            "{}, line {}, column {}: {}",
            self.field, self.line, self.column, self.message
        )?;
        if self.source_line.is_empty() {
            return Ok(());
        }
        let (shown, caret) = excerpt(&self.source_line, self.column);
        write!(f, "\n  {shown}\n  {caret}^")
    }
}

impl std::error::Error for PolicyError {}

/// The part of a line around a column, and the white space that puts a caret under it.
pub(crate) fn excerpt(line: &str, column: u32) -> (String, String) {
    let at = usize::try_from(column)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let skipped = if at >= SHOWN_CHARS {
        at - SHOWN_CHARS / 2
    } else {
        0
    };
    let shown: String = line.chars().skip(skipped).take(SHOWN_CHARS).collect();
    // A tab stays a tab, so that the caret stands under its column at any tab width.
    let caret = line
        .chars()
        .skip(skipped)
        .take(at - skipped)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    (shown, caret)
}

/// What part of a policy an error is about.
#[derive(Clone, Copy)]
pub(crate) enum Part<'n> {
    Policy,
    Rule(&'n str),
    Mask(&'n str),
}

/// All errors of one policy or snapshot, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    /// The errors, one after the other, with an empty line between two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// One error in one text, before it is known which policy the text is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) message: String,
    pub(crate) source_line: String,
}

impl Trouble {
    /// An error at a byte offset of a text.
    pub(crate) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count();
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        Self::in_line(text, line, column, message)
    }

    /// An error at a line and a column, both from 0.
    pub(crate) fn in_line(
        text: &str,
        line: usize,
        column: usize,
        message: impl Into<String>,
    ) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
        let (line, column) = with_text(text, line, column);
        Self {
            line: number(line),
            column: number(column),
            message: message.into(),
            source_line: text.lines().nth(line).unwrap_or_default().to_owned(),
        }
    }
}

/// The same place, or, on an empty line, the end of the text before it (else the beginning of the text after it): an expression that breaks off is wrong where it ends, and a caret
/// needs a line to stand under.
fn with_text(text: &str, line: usize, column: usize) -> (usize, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let has_text = |line: &&str| !line.trim().is_empty();
    if lines.get(line).is_some_and(has_text) {
        return (line, column);
    }
    let before = lines.get(..line.min(lines.len())).unwrap_or_default();
    if let Some(last) = before.iter().rposition(has_text) {
        return (
            last,
            lines
                .get(last)
                .map_or(0, |line| line.trim_end().chars().count()),
        );
    }
    lines
        .iter()
        .position(has_text)
        .map_or((line, column), |first| (first, 0))
}

/// The name among `known` that is nearest to `name`, if one is near enough to have been meant.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.len().max(name.len()) / 3 + 1 && *distance < name.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two names. Names are short: a long one is cut.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 40;
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y))
                .min(above + 1)
                .min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let fields = ["method", "scheme", "host", "path", "query"];
        assert_eq!(nearest("metod", fields), Some("method"));
        assert_eq!(nearest("Path", fields), Some("path"));
        assert_eq!(nearest("querry", fields), Some("query"));
        assert_eq!(nearest("banana", fields), None);
        assert_eq!(nearest("x", fields), None);
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn an_expression_that_breaks_off_is_wrong_where_it_ends() {
        let trouble = Trouble::at("method ==\n\n", 11, "it ends here");
        assert_eq!((trouble.line, trouble.column), (1, 10));
        assert_eq!(trouble.source_line, "method ==");
    }

    #[test]
    fn an_excerpt_keeps_the_caret_under_its_column() {
        let line = format!("{}X{}", "a".repeat(150), "b".repeat(150));
        let (shown, caret) = excerpt(&line, 151);
        assert_eq!(shown.chars().nth(caret.len()), Some('X'));
        assert_eq!(excerpt("\tX", 2), ("\tX".to_owned(), "\t".to_owned()));
    }
}
