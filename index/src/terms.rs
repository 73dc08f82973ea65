//! Terms of the index: one for each fact of a record and for each of its words.
//!
//! Owns their form: a letter for the field and a digest of the value, or `w` and a word. A digest may stand for two values; whoever finds a record by a term looks at the record itself, so that this costs time and never
//! shows a record that was not asked for. Refuses to be more than a bounded number for a record.

use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    facts::{Facts, Whose, domains, levels, texts},
    words::each_word,
};

/// Most different words of a record that are indexed: those that come first, by fields in alphabetical order.
pub const MAX_RECORD_WORDS: usize = 4096;

/// What a term is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Kind.
    Kind,
    /// Namespace.
    Namespace,
    /// Pod.
    Pod,
    /// Service account.
    ServiceAccount,
    /// Stream.
    Stream,
    /// Host.
    Host,
    /// The name of the host, or a domain that it is below.
    Domain,
    /// Protocol.
    Protocol,
    /// Verb.
    Verb,
    /// The path, or one above it.
    Path,
    /// Status.
    Status,
    /// What was decided.
    Decision,
    /// Policy.
    Policy,
    /// Rule.
    Rule,
    /// Reason.
    Reason,
    /// The agent's own session.
    Session,
    /// The session that it counts to.
    Thread,
}

impl Field {
    fn letter(self) -> char {
        match self {
            Self::Kind => 'k',
            Self::Namespace => 'n',
            Self::Pod => 'p',
            Self::ServiceAccount => 'a',
            Self::Stream => 'i',
            Self::Host => 'h',
            Self::Domain => 'g',
            Self::Protocol => 'c',
            Self::Verb => 'v',
            Self::Path => 'u',
            Self::Status => 'x',
            Self::Decision => 'd',
            Self::Policy => 'o',
            Self::Rule => 'r',
            Self::Reason => 'e',
            Self::Session => 's',
            Self::Thread => 't',
        }
    }

    /// The term of a value.
    #[must_use]
    pub fn term(self, value: &str) -> String {
        let digest = Sha256::digest(value.as_bytes());
        let (digest, _) = digest.split_at(6);
        format!("{}{}", self.letter(), hex::encode(digest))
    }
}

/// The term of a word, or of the beginning of one.
#[must_use]
pub fn word(word: &str) -> String {
    format!("w{word}")
}

/// The text that the index is given for a record: its terms, with a space between.
#[must_use]
pub fn of(
    record: &Value,
    facts: &Facts<'_>,
    whose: &Whose,
    stream: &str,
    thread: Option<i64>,
) -> String {
    let mut terms = Terms::default();
    terms.put(Field::Kind, Some(facts.kind));
    terms.put(Field::Namespace, Some(&whose.namespace));
    terms.put(Field::Pod, Some(&whose.pod));
    terms.put(Field::ServiceAccount, Some(&whose.service_account));
    terms.put(Field::Stream, Some(stream));
    terms.put(Field::Host, facts.host.as_deref());
    for domain in facts.host.as_deref().into_iter().flat_map(domains) {
        terms.put(Field::Domain, Some(domain));
    }
    terms.put(Field::Protocol, facts.protocol);
    terms.put(Field::Verb, facts.verb);
    for level in facts.path.into_iter().flat_map(levels) {
        terms.put(Field::Path, Some(level));
    }
    terms.put(
        Field::Status,
        facts.status.map(|s| s.to_string()).as_deref(),
    );
    terms.put(Field::Decision, facts.action);
    terms.put(Field::Decision, facts.would_deny.then_some(WOULD_DENY));
    terms.put(Field::Policy, facts.policy);
    terms.put(Field::Rule, facts.rule);
    terms.put(Field::Reason, facts.reason);
    terms.put(Field::Session, facts.session);
    terms.put(Field::Thread, thread.map(|t| t.to_string()).as_deref());
    terms.words(record);
    terms.0
}

/// The value of [`Field::Decision`] for what a policy in Audit would have denied.
pub const WOULD_DENY: &str = "WouldDeny";

#[derive(Default)]
struct Terms(String);

impl Terms {
    fn put(&mut self, field: Field, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push_str(&field.term(value));
            self.0.push(' ');
        }
    }

    fn words(&mut self, record: &Value) {
        let mut known = HashSet::new();
        texts(record, &mut |text| {
            each_word(text, |word| {
                if known.len() < MAX_RECORD_WORDS && !known.contains(word) {
                    known.insert(word.to_owned());
                    self.0.push('w');
                    self.0.push_str(word);
                    self.0.push(' ');
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_letters_and_digits_whatever_the_record_says() {
        let record = json!({
            "kind": "http\" OR", "operation": {"protocol": "http", "resource": "https://x/a\"b/*'c", "verb": "NEAR("},
            "decision": {"action": "Deny", "wouldDeny": true, "reason": "-x"}
        });
        let facts = Facts::of(&record);
        let whose = Whose {
            namespace: "a b".to_owned(),
            ..Whose::default()
        };
        let terms = of(&record, &facts, &whose, "id", Some(7));
        assert!(
            terms.chars().all(|c| c == ' ' || c.is_alphanumeric()),
            "{terms}"
        );
        for term in [
            Field::Namespace.term("a b"),
            Field::Decision.term("Deny"),
            Field::Decision.term(WOULD_DENY),
            Field::Path.term("/a\"b"),
            Field::Thread.term("7"),
            word("near"),
        ] {
            assert!(terms.split(' ').any(|t| t == term), "{term} in {terms}");
        }
        assert!(
            !terms.contains(&Field::Pod.term("")),
            "what is empty has no term"
        );
    }

    #[test]
    fn words_of_a_record_are_bounded() {
        let text: String = (0..10_000).map(|n| format!("word{n} ")).collect();
        let record = json!({"error": text});
        let terms = of(&record, &Facts::of(&record), &Whose::default(), "", None);
        assert_eq!(terms.split_whitespace().count(), MAX_RECORD_WORDS);
    }
}
