//! The parser's errors in words that help.

use cel::ParseErrors;

use super::{error::Trouble, types::Scope};

/// The first error, at its place. Later ones mostly follow from it.
pub(super) fn explain(source: &str, scope: &Scope, errors: &ParseErrors) -> Trouble {
    let Some(error) = errors.errors.first() else {
        return Trouble::at(source, 0, "the expression cannot be parsed");
    };
    let (line, column) = error.pos;
    let from_zero = |n: isize| usize::try_from(n.saturating_sub(1)).unwrap_or_default();
    let (line, column) = (from_zero(line), from_zero(column));
    let rest: String = source
        .lines()
        .nth(line)
        .unwrap_or_default()
        .chars()
        .skip(column)
        .collect();
    Trouble::in_line(source, line, column, advice(&error.msg, &rest, scope))
}

/// `rest` is the line from the error's column on.
fn advice(message: &str, rest: &str, scope: &Scope) -> String {
    let first = rest.chars().next();
    if message.contains("has() macro") {
        return "has() tests a field, as in has(http.body) or has(http.body.user); test a key with in, as in \"x-team\" in http.headers".to_owned();
    }
    if message.contains("argument is not an identifier")
        || message.contains("must be a simple name")
    {
        return "the first argument of a loop is the name of its variable, as in list.exists(x, x > 1)".to_owned();
    }
    if message.contains("ecursion limit") {
        return format!(
            "the expression is nested too deeply here; {}",
            scope.if_large
        );
    }
    if message.contains("unsupported syntax") {
        return "optional values (?) are not supported; test with has() or in".to_owned();
    }
    if rest.is_empty() {
        return "the expression ends here, but it is not complete; is a bracket or an operand missing?".to_owned();
    }
    match first {
        Some('=') if !rest.starts_with("==") => "a single = compares nothing; write ==".to_owned(),
        Some('&') if !rest.starts_with("&&") => "a single & means nothing; write &&".to_owned(),
        Some('|') if !rest.starts_with("||") => "a single | means nothing; write ||".to_owned(),
        Some('"' | '\'') => "this string is not closed, or an operator is missing before it".to_owned(),
        Some('“' | '”' | '‘' | '’') => "this is a typographic quote; write \" or '".to_owned(),
        Some('?') => "a condition reads test ? this : that, with brackets around a nested one; optional values are not supported".to_owned(),
        _ => match rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next() {
            Some("and" | "AND") => "write && for and".to_owned(),
            Some("or" | "OR") => "write || for or".to_owned(),
            Some("not" | "NOT") => "write ! for not".to_owned(),
            Some(word) if !word.is_empty() => format!("\"{word}\" cannot stand here; is an operator or a bracket missing before it?"),
            _ => format!("{:?} cannot stand here", first.unwrap_or(' ')),
        },
    }
}
