//! Which records a sink gets: a CEL expression over the record.
//!
//! Owns the rule that a doubt delivers: a record that the expression cannot be evaluated on passes, for a log that lacks evidence is worse than one that has too much. Records of a stream's
//! frame (`stream.*` and `config`) pass always, so that a receiver knows of every stream that there is one, whose it is, how it ended, and how many records it had.
//! Invariant: an admitted filter has an answer for every record in bounded steps.

use std::fmt;

use crate::compile::{Expression, Trouble, excerpt};

/// Longest expression, in bytes.
pub const MAX_FILTER_BYTES: usize = crate::resources::MAX_WHEN_BYTES;

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(Expression);

/// Whether a record passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passes {
    /// It does.
    Yes,
    /// The filter keeps it back.
    No,
    /// It passes, because the expression has no answer: why, as a sentence that holds no value of the record.
    InDoubt(String),
}

/// All that is wrong with a filter, at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterErrors(Vec<Trouble>);

impl fmt::Display for FilterErrors {
    /// For each: where and what, the source line, a caret under the column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, trouble) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n\n")?;
            }
            write!(
                f,
                "spec.filter, line {}, column {}: {}",
                trouble.line, trouble.column, trouble.message
            )?;
            if !trouble.source_line.is_empty() {
                let (shown, caret) = excerpt(&trouble.source_line, trouble.column);
                write!(f, "\n  {shown}\n  {caret}^")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for FilterErrors {}

impl Filter {
    /// Compiles an expression over `record`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn compile(source: &str) -> Result<Self, FilterErrors> {
        Expression::compile_filter(source)
            .map(Self)
            .map_err(FilterErrors)
    }

    /// Whether the record of this line passes.
    #[must_use]
    pub fn passes(&self, line: &[u8]) -> Passes {
        if is_frame(line) {
            return Passes::Yes;
        }
        match self.0.evaluate_record(line) {
            Ok(true) => Passes::Yes,
            Ok(false) => Passes::No,
            Err(why) => Passes::InDoubt(why),
        }
    }
}

/// `kind` of a line, and nothing else of it.
#[derive(serde::Deserialize)]
struct Kind<'l> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'l, str>,
}

/// Heartbeats are no part of it: they are many, and who filters has no whole stream anyway.
fn is_frame(line: &[u8]) -> bool {
    serde_json::from_slice::<Kind<'_>>(line).is_ok_and(|head| {
        let of_stream = head.kind.starts_with("stream.") && head.kind != "stream.heartbeat";
        head.kind == "config" || of_stream
    })
}

#[cfg(test)]
mod tests;
