//! What is kept for how long: the retention file.
//!
//! Owns its form. Refuses what it does not know and what could be read in two ways. Invariant: what no rule says is kept for ever.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use chaperone_crds::glob;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, de::Error as _};

/// Longest file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Longest time that a rule may name, in hours: a thousand years.
const MAX_HOURS: i64 = 1000 * 366 * 24;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The first that names a namespace is its.
    #[serde(default)]
    rules: Vec<Rule>,
    /// Of namespaces that no rule names.
    #[serde(default)]
    default: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Names, or patterns: `*` is any text.
    namespaces: Vec<String>,
    #[serde(default, deserialize_with = "age")]
    content: Option<Age>,
    #[serde(default, deserialize_with = "age")]
    records: Option<Age>,
}

/// For how long. Without: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Content of bodies.
    #[serde(default, deserialize_with = "age")]
    pub content: Option<Age>,
    /// Records.
    #[serde(default, deserialize_with = "age")]
    pub records: Option<Age>,
}

/// A time that something is kept, in whole hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(SignedDuration);

impl Age {
    /// Whether what was complete then is older now.
    #[must_use]
    pub fn is_over(self, then: Timestamp, now: Timestamp) -> bool {
        then.checked_add(self.0).is_ok_and(|due| due <= now)
    }
}

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.0.as_hours();
        match hours % 24 {
            0 => write!(f, "{}d", hours / 24),
            _ => write!(f, "{hours}h"),
        }
    }
}

impl Policy {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let length = fs::metadata(path).with_context(|| shown.to_string())?.len();
        if length > MAX_FILE_BYTES {
            bail!("{shown} is longer than {MAX_FILE_BYTES} bytes");
        }
        let text = fs::read_to_string(path).with_context(|| shown.to_string())?;
        Self::parse(&text).with_context(|| shown.to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let policy: Self = serde_saphyr::from_str(text)?;
        for (rule, number) in policy.rules.iter().zip(1..) {
            if rule.namespaces.is_empty() {
                bail!("rule {number} names no namespace");
            }
            for name in &rule.namespaces {
                let is_good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '*');
                if name.is_empty() || name.len() > 63 || !name.chars().all(is_good) {
                    bail!(
                        "rule {number}: {name:?} is neither the name of a namespace nor a pattern of such names"
                    );
                }
            }
            Kept::of(rule)
                .check()
                .with_context(|| format!("rule {number}"))?;
        }
        policy.default.check().context("default")?;
        Ok(policy)
    }

    /// For how long what is of this namespace is kept, and by which rule.
    #[must_use]
    pub fn of(&self, namespace: &str) -> (Kept, String) {
        let names = |rule: &&Rule| {
            rule.namespaces
                .iter()
                .any(|name| glob::matches(name, namespace))
        };
        match self.rules.iter().find(names) {
            Some(rule) => (Kept::of(rule), rule.namespaces.join(", ")),
            None => (self.default, "default".to_owned()),
        }
    }

    /// The shortest time that any content is kept; none where all is kept for ever.
    #[must_use]
    pub fn soonest(&self) -> Option<Age> {
        let rules = self.rules.iter().filter_map(|rule| rule.content);
        rules.chain(self.default.content).min()
    }
}

impl Kept {
    fn of(rule: &Rule) -> Self {
        Self {
            content: rule.content,
            records: rule.records,
        }
    }

    /// Who deletes records and keeps their content has made a mistake.
    fn check(self) -> anyhow::Result<()> {
        if let Some(records) = self.records
            && self.content.is_none_or(|content| content > records)
        {
            bail!(
                "content is kept longer than the records that it belongs to ({records}): say content too"
            );
        }
        Ok(())
    }
}

/// `30d` or `12h`.
fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Age>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || {
        D::Error::custom(format!(
            "{text:?} is no time: say days (30d) or hours (12h)"
        ))
    };
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return Err(wrong()),
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let hours = number
        .checked_mul(hours)
        .filter(|hours| *hours <= MAX_HOURS);
    Ok(Some(Age(SignedDuration::from_hours(
        hours.ok_or_else(wrong)?,
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_a_namespace_is_its() {
        let policy = Policy::parse("rules:\n- namespaces: [agents, \"team-*\"]\n  content: 30d\n  records: 400d\n- namespaces: [\"*-a\"]\n  content: 12h\ndefault:\n  content: 90d\n").unwrap();
        let kept = |namespace: &str| {
            let (kept, rule) = policy.of(namespace);
            let shown = |age: Option<Age>| age.map(|age| age.to_string());
            (shown(kept.content), shown(kept.records), rule)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            kept("agents"),
            (some("30d"), some("400d"), "agents, team-*".to_owned())
        );
        assert_eq!(kept("team-a"), kept("agents"));
        assert_eq!(kept("other-a"), (some("12h"), None, "*-a".to_owned()));
        assert_eq!(kept("agents2"), (some("90d"), None, "default".to_owned()));
        assert_eq!(policy.soonest().unwrap().to_string(), "12h");
        let forever = Policy::parse("rules: []").unwrap();
        assert_eq!(
            (forever.of("x").0, forever.soonest()),
            (Kept::default(), None)
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (text, why) in [
            ("rules:\n- namespaces: [a]\n  content: 30\n", "say days"),
            ("rules:\n- namespaces: [a]\n  content: 30m\n", "say days"),
            ("rules:\n- namespaces: [a]\n  content: -1d\n", "say days"),
            (
                "rules:\n- namespaces: [a]\n  content: 99999999999999999999d\n",
                "say days",
            ),
            (
                "rules:\n- namespaces: []\n  content: 1d\n",
                "names no namespace",
            ),
            ("rules:\n- namespaces: [A/b]\n  content: 1d\n", "neither"),
            ("rules:\n- namespaces: [a]\n  contents: 1d\n", "contents"),
            ("default:\n  records: 10d\n", "content is kept longer"),
            (
                "default:\n  records: 10d\n  content: 11d\n",
                "content is kept longer",
            ),
            ("rule: []", "rule"),
            ("[", ""),
        ] {
            let error = format!("{:#}", Policy::parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_age_is_over_when_it_is_reached() {
        let policy = Policy::parse("default:\n  content: 1d").unwrap();
        let age = policy.of("a").0.content.unwrap();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let then = time("2026-11-01T00:00:00Z");
        assert!(!age.is_over(then, time("2026-11-01T23:59:59Z")));
        assert!(age.is_over(then, time("2026-11-02T00:00:00Z")));
        assert!(!age.is_over(Timestamp::MAX, Timestamp::MAX));
    }
}
