//! Reading a path, and saying where it cannot be read.

use super::{MAX_FIELD_BYTES, MAX_FIELD_STEPS, Selects, Step};

/// Why a path is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field \"{path}\", column {column}: {problem}")]
pub struct FieldError {
    /// The path as written.
    pub path: String,
    /// Character at which the problem begins, from 1.
    pub column: usize,
    /// What is wrong and what to write in its place.
    pub problem: String,
}

/// Checks a path.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_field(path: &str) -> Result<(), FieldError> {
    parse(path).map(drop)
}

/// Parses a path into its steps.
pub(super) fn parse(path: &str) -> Result<Vec<Step>, FieldError> {
    let mut parser = Parser { path, rest: path };
    if path.len() > MAX_FIELD_BYTES {
        let problem = format!("the path is longer than {MAX_FIELD_BYTES} bytes");
        return Err(parser.refuse(problem));
    }
    if !parser.take("$") {
        return Err(
            parser.refuse("a path begins with $, the document, as in $.customer.phone".into())
        );
    }
    let mut steps = Vec::new();
    while !parser.rest.is_empty() {
        if steps.len() == MAX_FIELD_STEPS {
            let problem = format!("a path has {MAX_FIELD_STEPS} steps at most");
            return Err(parser.refuse(problem));
        }
        steps.push(parser.step()?);
    }
    if steps.is_empty() {
        let problem = "$ alone is the whole document; name a value in it, as in $.customer.phone";
        return Err(parser.refuse(problem.into()));
    }
    Ok(steps)
}

struct Parser<'p> {
    path: &'p str,
    rest: &'p str,
}

impl Parser<'_> {
    fn step(&mut self) -> Result<Step, FieldError> {
        let descends = self.take("..");
        let selects = if self.take("[") {
            self.bracket()?
        } else if descends || self.take(".") {
            self.name()?
        } else {
            return Err(self.refuse("expected . or [, as in $.a.b or $.a[0]".into()));
        };
        Ok(Step { descends, selects })
    }

    /// What follows a dot.
    fn name(&mut self) -> Result<Selects, FieldError> {
        if self.take("*") {
            return Ok(Selects::All);
        }
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || !c.is_ascii();
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            let problem = "expected a name or *; a name with other characters is written [\"a b\"]";
            return Err(self.refuse(problem.into()));
        }
        self.rest = rest;
        Ok(Selects::Name(name.into()))
    }

    /// What stands in brackets.
    fn bracket(&mut self) -> Result<Selects, FieldError> {
        let selects = match self.rest.chars().next() {
            Some('*') => {
                self.take("*");
                Selects::All
            }
            Some(quote @ ('"' | '\'')) => Selects::Name(self.quoted(quote)?),
            Some('0'..='9') => self.index()?,
            _ => {
                let problem = "expected *, a number from 0, or a quoted name; filters, slices and numbers from the end need what has not come yet";
                return Err(self.refuse(problem.into()));
            }
        };
        if !self.take("]") {
            return Err(self.refuse("expected ]; write one name or number in brackets".into()));
        }
        Ok(selects)
    }

    fn index(&mut self) -> Result<Selects, FieldError> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let index = digits
            .parse()
            .map_err(|_| self.refuse("this number is too large".into()))?;
        self.rest = rest;
        Ok(Selects::Index(index))
    }

    fn quoted(&mut self, quote: char) -> Result<Box<str>, FieldError> {
        let opening = self.rest;
        let mut chars = opening.char_indices().skip(1);
        let mut name = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = opening.get(at + c.len_utf8()..).unwrap_or_default();
                return Ok(name.into());
            }
            match (c, chars.clone().next()) {
                ('\\', Some((_, escaped))) => {
                    chars.next();
                    name.push(escaped);
                }
                _ => name.push(c),
            }
        }
        Err(self.refuse(format!("the name that begins here has no closing {quote}")))
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn refuse(&self, problem: String) -> FieldError {
        let read = self.path.len() - self.rest.len();
        FieldError {
            path: self.path.to_owned(),
            column: self.path.get(..read).unwrap_or_default().chars().count() + 1,
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_is_refused_where_it_goes_wrong() {
        let long = format!("$.{}", "a".repeat(MAX_FIELD_BYTES));
        let deep = "$".to_owned() + &".a".repeat(MAX_FIELD_STEPS + 1);
        for (path, column) in [
            ("", 1),
            ("customer.phone", 1),
            ("$", 2),
            ("$customer", 2),
            ("$.", 3),
            ("$.a.", 5),
            ("$.a b", 4),
            ("$..", 4),
            ("$.a[", 5),
            ("$.a[-1]", 5),
            ("$.a[1:2]", 6),
            ("$.a[?(@.b)]", 5),
            ("$.a['b", 5),
            ("$.a['b','c']", 8),
            ("$.a[99999999999999999999]", 5),
            ("$.\u{e9}[", 5),
            (long.as_str(), 1),
            (deep.as_str(), 34),
        ] {
            let error = parse(path).unwrap_err();
            assert_eq!(error.column, column, "{error}");
        }
    }
}
