//! Header fields: which values masks replace whole, and which fields masks leave alone.
//!
//! Owns the patterns of names, and the list of fields that frame, route, cache or negotiate: to mask one would break the exchange and hide nothing.

/// Name of the detector of header fields, as records and placeholders cite it.
pub const HEADER: &str = "header";

/// Fields that masks leave alone (RFC 9110, RFC 9111, RFC 9112, RFC 9113, and the Fetch standard's).
const LEFT_ALONE: [&str; 45] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "last-modified",
    "location",
    "pragma",
    "proxy-authenticate",
    "range",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
];
/// Beginnings of the names of fields that say which pages may read an answer (the Fetch standard), and of those that agree on a WebSocket (RFC 6455).
const LEFT_ALONE_PREFIXES: [&str; 2] = ["access-control-", "sec-websocket-"];

/// Whether masks leave a field alone. `name` is in lower case.
pub fn is_left_alone(name: &str) -> bool {
    let mut prefixes = LEFT_ALONE_PREFIXES.iter();
    LEFT_ALONE.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
}

/// Checks a name, or the beginning of names before a `*`. Returns the column, from 0, and what is wrong.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_header(pattern: &str) -> Result<(), (usize, String)> {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    if name.is_empty() {
        return Err((
            0,
            "name a field, or how names begin, as in x-internal-*".into(),
        ));
    }
    let is_name =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.!#$%&'+^`|~".contains(c);
    if let Some(at) = name.chars().position(|c| !is_name(c)) {
        let problem = "a field's name is written in lower case; * stands at the end only";
        return Err((at, problem.into()));
    }
    if name == pattern && is_left_alone(name) {
        let problem = format!(
            "{name} frames, routes or caches the message; masking it would break the exchange"
        );
        return Err((0, problem));
    }
    Ok(())
}

/// The patterns of a set of masks.
#[derive(Debug, Default)]
pub struct HeaderNames {
    /// Name or beginning, whether it is a beginning, and the rule.
    patterns: Vec<(Box<str>, bool, usize)>,
    /// Rules that these patterns have.
    pub(super) rules: usize,
}

impl HeaderNames {
    pub(super) fn add(&mut self, pattern: &str, rule: usize) {
        let name = pattern.strip_suffix('*');
        let begins = name.is_some();
        self.patterns
            .push((name.unwrap_or(pattern).into(), begins, rule));
    }

    /// The rule that selects the values of a field, whose name is in lower case.
    pub fn rule(&self, name: &str) -> Option<usize> {
        if is_left_alone(name) {
            return None;
        }
        self.patterns
            .iter()
            .find(|(known, begins, _)| match begins {
                true => name.starts_with(&**known),
                false => name == &**known,
            })
            .map(|(_, _, rule)| *rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_select_fields_that_masks_may_touch() {
        let mut names = HeaderNames::default();
        names.add("set-cookie", 1);
        names.add("x-internal-*", 2);
        names.add("content-*", 3);
        for (name, rule) in [
            ("set-cookie", Some(1)),
            ("set-cookie2", None),
            ("x-internal-user", Some(2)),
            ("content-length", None),
            ("content-disposition", Some(3)),
        ] {
            assert_eq!(names.rule(name), rule, "{name}");
        }
        for (pattern, column) in [
            ("", 0),
            ("*", 0),
            ("Set-Cookie", 0),
            ("x-*-y", 2),
            ("a b", 1),
            ("host", 0),
        ] {
            assert_eq!(check_header(pattern).unwrap_err().0, column, "{pattern}");
        }
        assert!(check_header("x-internal-*").is_ok());
    }
}
