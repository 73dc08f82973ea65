//! The text of the rule that decided. A record names policy, rule and the revision of all policies, and has no text: what the cluster has under that name now is found, and whether that is what was in force.

use chaperone_console::{Rule, RuleText};
use chaperone_crds::{
    record::{DecisionInfo, Record},
    resources::PolicyRule,
};
use chaperone_index::store::Found;

use crate::{
    api::{Api, questions::Words},
    refusal::{Code, Refusal},
};

/// What was found.
pub(super) enum Text {
    /// No rule decided.
    None,
    /// Why there is no text.
    Unknown(String),
    /// The rule.
    Known {
        rule: PolicyRule,
        yaml: String,
        now: i64,
        then: Option<i64>,
    },
}

impl Text {
    /// Finds the rule of this record, with the rights of who has this token. What it costs is asked as any question is.
    pub(super) async fn find(
        api: &Api,
        token: &str,
        found: &Found,
        namespace: Option<&str>,
    ) -> Result<Self, Refusal> {
        let record = serde_json::from_slice::<Record>(&found.line).ok();
        let decision = record.and_then(|record| record.event.decision);
        let Some(DecisionInfo {
            policy: Some(policy),
            rule: Some(rule),
            revision,
            ..
        }) = decision
        else {
            return Ok(Self::None);
        };
        let (home, name) = match policy.split_once('/') {
            Some((home, name)) => (Some(home), name),
            None => (None, policy.as_str()),
        };
        if !is_name(name) || !home.is_none_or(is_name) {
            return Ok(Self::Unknown("the policy's name is none".to_owned()));
        }
        let now = match api.authenticator().policy(token, home, name).await {
            Ok(Some(now)) => now,
            Ok(None) => {
                return Ok(Self::Unknown(format!(
                    "there is no policy {policy} any more"
                )));
            }
            Err(refused) if refused.code == Code::Unauthenticated => return Err(refused),
            Err(refused) => return Ok(Self::Unknown(refused.message)),
        };
        let Some(rule) = now.rules.into_iter().find(|known| known.name == rule) else {
            return Ok(Self::Unknown(format!(
                "the policy {policy} (generation {}) has no such rule any more",
                now.generation
            )));
        };
        let yaml = serde_saphyr::to_string(&rule).unwrap_or_default();
        Ok(Self::Known {
            rule,
            yaml,
            now: now.generation,
            then: generation(api, token, found, namespace, revision.as_str(), &policy).await?,
        })
    }

    /// As the page takes it.
    pub(super) fn shown(&self) -> Rule<'_> {
        match self {
            Self::None => Rule::None,
            Self::Unknown(why) => Rule::Unknown(why),
            Self::Known {
                rule,
                yaml,
                now,
                then,
            } => Rule::Found(RuleText {
                yaml,
                when: rule.when.as_deref(),
                now: *now,
                then: *then,
            }),
        }
    }
}

/// Which generation of the policy this revision had, as the stream's own record of kind `config` says.
async fn generation(
    api: &Api,
    token: &str,
    found: &Found,
    namespace: Option<&str>,
    revision: &str,
    policy: &str,
) -> Result<Option<i64>, Refusal> {
    let words = [
        ("stream", found.stream.as_str()),
        ("kind", "config"),
        ("q", revision),
        ("limit", "1"),
    ];
    let mut words: Words = words
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    if let Some(namespace) = namespace {
        words.insert("namespace".to_owned(), namespace.to_owned());
    }
    let told = match api.records(token, words).await {
        Ok(told) => told,
        Err(refused) if refused.code == Code::Unauthenticated => return Err(refused),
        // A right to one record and not to lists, or a made-up revision: then it is not known.
        Err(_) => return Ok(None),
    };
    Ok(told
        .answer
        .first()
        .and_then(|config| in_force(&config.line, revision, policy)))
}

fn in_force(line: &[u8], revision: &str, policy: &str) -> Option<i64> {
    let record = serde_json::from_slice::<Record>(line).ok()?;
    let config = record.event.config?;
    if config.revision.as_str() != revision {
        return None;
    }
    let named = config.policies.iter().find_map(|named| {
        let (name, generation) = named.rsplit_once('@')?;
        (name == policy).then_some(generation)
    });
    named?.parse().ok()
}

/// A name that Kubernetes gives to objects and namespaces (RFC 1123 subdomain): it becomes part of a path of the API server.
fn is_name(name: &str) -> bool {
    let is_of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(is_of_name)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_in_force_is_the_streams_own_word() {
        let line = r#"{"v":"chaperone.dev/v1","stream":"s","seq":1,"prev":"00","time":"t","kind":"config","agent":{"namespace":"agents","pod":"p"},
            "config":{"revision":"dd56de4137951d9c","mode":"Enforce","policies":["agents/coding@3","coding@1"]}}"#;
        let of = |revision, policy| in_force(line.as_bytes(), revision, policy);
        assert_eq!(of("dd56de4137951d9c", "agents/coding"), Some(3));
        assert_eq!(of("dd56de4137951d9c", "coding"), Some(1));
        assert_eq!(of("dd56de4137951d9c", "agents/cod"), None);
        assert_eq!(of("0000000000000000", "coding"), None);
    }

    #[test]
    fn names_that_would_be_paths_are_none() {
        for name in ["coding", "a.b-c", "0"] {
            assert!(is_name(name));
        }
        for name in ["", "..", "a/b", "a?b", "A", "a%2f", "../x", "ü"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
