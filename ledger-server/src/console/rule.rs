//! The text of the rule that decided. A record names policy, rule and the revision of all policies: the stream's own record of that revision has their text. Where it has none (it is too long, or of an older sidecar), what the
//! cluster has under that name now is found, and whether that is what was in force.

use chaperone_console::{Rule, RuleText};
use chaperone_crds::{
    record::{ConfigInfo, DecisionInfo, Record},
    snapshot::Snapshot,
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
        when: Option<String>,
        yaml: String,
        /// Generation of the policy in the cluster, whose text it is; none where it is the stream's own.
        now: Option<i64>,
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
        let record = Record::read(&found.line).ok();
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
        let config = config(api, token, found, namespace, revision.as_str()).await?;
        if let Some(known) = config.as_ref().and_then(|c| recorded(c, &policy, &rule)) {
            return Ok(known);
        }
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
            when: rule.when,
            yaml,
            now: Some(now.generation),
            then: config.and_then(|config| generation(&config, &policy)),
        })
    }

    /// As the page takes it.
    pub(super) fn shown(&self) -> Rule<'_> {
        match self {
            Self::None => Rule::None,
            Self::Unknown(why) => Rule::Unknown(why),
            Self::Known {
                when,
                yaml,
                now,
                then,
            } => Rule::Found(RuleText {
                yaml,
                when: when.as_deref(),
                now: *now,
                then: *then,
            }),
        }
    }
}

/// What the stream's own record says of this revision.
async fn config(
    api: &Api,
    token: &str,
    found: &Found,
    namespace: Option<&str>,
    revision: &str,
) -> Result<Option<ConfigInfo>, Refusal> {
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
    let config = told.answer.first();
    Ok(config.and_then(|config| of_revision(&config.line, revision)))
}

fn of_revision(line: &[u8], revision: &str) -> Option<ConfigInfo> {
    let record = Record::read(line).ok()?;
    let config = record.event.config?;
    (config.revision.as_str() == revision).then_some(config)
}

/// The rule, where the record has the text of the policies.
fn recorded(config: &ConfigInfo, policy: &str, rule: &str) -> Option<Text> {
    let snapshot = Snapshot::of_record(config)?;
    let mut policies = snapshot.policies().iter();
    let policy = policies.find(|known| known.reference.to_string() == policy)?;
    let rule = policy.rules.iter().find(|known| known.name == rule)?;
    Some(Text::Known {
        yaml: serde_saphyr::to_string(rule).unwrap_or_default(),
        when: rule.when.clone(),
        now: None,
        then: Some(policy.generation),
    })
}

fn generation(config: &ConfigInfo, policy: &str) -> Option<i64> {
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
    use chaperone_crds::{resources::Mode, snapshot::Policy};

    use super::*;

    #[test]
    fn the_generation_in_force_is_the_streams_own_word() {
        let line = r#"{"v":"chaperone.dev/v1","stream":"s","seq":1,"prev":"00","time":"t","kind":"config","agent":{"namespace":"agents","pod":"p"},
            "config":{"revision":"dd56de4137951d9c","mode":"Enforce","policies":["agents/coding@3","coding@1"]}}"#;
        let of = |revision, policy| {
            of_revision(line.as_bytes(), revision).and_then(|config| generation(&config, policy))
        };
        assert_eq!(of("dd56de4137951d9c", "agents/coding"), Some(3));
        assert_eq!(of("dd56de4137951d9c", "coding"), Some(1));
        assert_eq!(of("dd56de4137951d9c", "agents/cod"), None);
        assert_eq!(of("0000000000000000", "coding"), None);
    }

    #[test]
    fn a_rule_is_read_out_of_the_record_that_the_revision_names() {
        let spec = serde_json::json!({"mode": "Enforce", "defaultAction": "Allow", "rules": [{"name": "no-delete", "action": "Deny", "when": "http.method == \"DELETE\""}]});
        let spec = serde_json::from_value(spec).unwrap();
        let snapshot = Snapshot::new(vec![Policy::namespaced("agents", "coding", 3, &spec)]);
        let config = snapshot.recorded(Mode::Enforce);
        let Some(Text::Known {
            when, now, then, ..
        }) = recorded(&config, "agents/coding", "no-delete")
        else {
            panic!("the rule is there");
        };
        assert_eq!(
            (when.as_deref(), now, then),
            (Some("http.method == \"DELETE\""), None, Some(3))
        );
        assert!(recorded(&config, "coding", "no-delete").is_none());
        assert!(recorded(&config, "agents/coding", "other").is_none());
        let other = config
            .snapshot
            .as_ref()
            .map(|text| text.replace("DELETE", "PUT"));
        let forged = ConfigInfo {
            snapshot: other,
            ..config
        };
        assert!(recorded(&forged, "agents/coding", "no-delete").is_none());
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
