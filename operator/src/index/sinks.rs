//! Sinks: from `AuditSink` resources and Secrets to what sidecars get.

use axum::http::Uri;
use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    filter::Filter,
    pod::{LEDGER_TOKEN_FILE, TOKEN_DIR},
    resources::{AuditSink, AuditSinkSpec, Deliverer, Format, HttpSink},
};
use chaperone_sinks::settings::Sink;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::settings::DefaultSink;

/// Name of the sink that every pod has without an `AuditSink`.
pub const DEFAULT_SINK: &str = "default-stdout";
/// Name of the ledger among a pod's sinks. An `AuditSink` cannot have it: names of resources have no underscore (RFC 1123).
pub const LEDGER_SINK: &str = "chaperone_ledger";
/// Records in one batch where a sink does not say.
const DEFAULT_BATCH_SIZE: u32 = 500;

/// What is true of one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkOutcome {
    /// Its name.
    pub name: String,
    /// The generation that was looked at.
    pub generation: i64,
    /// What keeps it from working, one sentence each.
    pub problems: Vec<String>,
    /// Who delivers.
    pub by: Deliverer,
}

/// All sinks, ordered by name, with the credentials that `secret` finds. A sink with a problem is kept: its records wait in the spool and are not
/// lost. Only a sink that cannot be read or has no target at all is left out, and those that the ledger delivers, which no sidecar is told of.
pub fn resolve(
    resources: &[&AuditSink],
    secret: impl Fn(&str) -> Option<Secret>,
    default: DefaultSink,
) -> (Vec<SinkConfig>, Vec<SinkOutcome>) {
    let mut sinks = Vec::new();
    let mut outcomes = Vec::new();
    for resource in resources {
        let name = resource.name_any();
        let by = resource.spec.delivered_by();
        let problems = match by {
            Deliverer::Ledger => of_ledger(&name, &resource.spec, &secret),
            Deliverer::Sidecar => {
                let mut problems = check(&resource.spec);
                let target = target(&resource.spec, &secret, &mut problems);
                sinks.extend(target.map(|target| SinkConfig {
                    name: name.clone(),
                    target,
                    format: resource.spec.format.unwrap_or_default(),
                    filter: resource.spec.filter.clone(),
                }));
                problems
            }
        };
        outcomes.push(SinkOutcome {
            name,
            generation: resource.metadata.generation.unwrap_or_default(),
            problems,
            by,
        });
    }
    let has_stdout = sinks.iter().any(|sink| sink.target == SinkTarget::Stdout);
    if default == DefaultSink::Stdout && !has_stdout {
        sinks.push(SinkConfig {
            name: DEFAULT_SINK.to_owned(),
            target: SinkTarget::Stdout,
            format: Format::Native,
            filter: None,
        });
    }
    sinks.sort_by(|a, b| a.name.cmp(&b.name));
    (sinks, outcomes)
}

/// What is wrong with a sink that the ledger delivers, Secrets included: the ledger reads it by the same function.
fn of_ledger(
    name: &str,
    spec: &AuditSinkSpec,
    secret: &impl Fn(&str) -> Option<Secret>,
) -> Vec<String> {
    Sink::read(name, spec, &|name, key| value(secret(name), key))
        .err()
        .unwrap_or_default()
}

/// These sinks and the ledger at `url`, whose certificate chains to the root (PEM). It gets every record as it is: what it proves is whole streams.
#[must_use]
pub fn with_ledger(sinks: &[SinkConfig], url: String, root_pem: &str) -> Vec<SinkConfig> {
    let ledger = SinkConfig {
        name: LEDGER_SINK.to_owned(),
        target: SinkTarget::Ledger {
            url,
            ca_bundle: root_pem.to_owned(),
            token_file: format!("{TOKEN_DIR}/{LEDGER_TOKEN_FILE}"),
        },
        format: Format::Native,
        filter: None,
    };
    let mut all: Vec<_> = sinks.iter().cloned().chain([ledger]).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// What is wrong with a sink whatever the Secrets are, one sentence each.
#[must_use]
pub fn check(spec: &AuditSinkSpec) -> Vec<String> {
    if spec.delivered_by() == Deliverer::Ledger {
        return Sink::check(spec);
    }
    let mut problems = Vec::new();
    if let Some(Err(errors)) = spec.filter.as_deref().map(Filter::compile) {
        problems.push(errors.to_string());
    }
    let Some(http) = &spec.http else {
        return problems;
    };
    if let Err(problem) = check_url(http) {
        problems.push(format!("spec.http.url: {problem}"));
    }
    if let Some(bundle) = &http.ca_bundle {
        let count = CertificateDer::pem_slice_iter(bundle.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map(|certificates| certificates.len());
        if !count.is_ok_and(|count| count > 0) {
            problems.push("spec.http.caBundle: it is not one or more PEM certificates".to_owned());
        }
    }
    problems
}

/// What credentials of a sink are missing, one sentence each.
pub fn missing_secrets(
    spec: &AuditSinkSpec,
    secret: impl Fn(&str) -> Option<Secret>,
) -> Vec<String> {
    if spec.delivered_by() == Deliverer::Ledger {
        return Sink::missing(spec, &|name, key| value(secret(name), key));
    }
    let mut problems = Vec::new();
    target(spec, &secret, &mut problems);
    problems
}

fn check_url(http: &HttpSink) -> Result<(), String> {
    let url: Uri = http.url.parse().map_err(|error| format!("{error}"))?;
    let authority = url
        .authority()
        .ok_or("it has no host; write https://HOST/PATH")?;
    if authority.as_str().contains('@') {
        return Err("it has credentials in it; use bearerTokenSecret or tlsSecret".to_owned());
    }
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return Err("its port is not a number from 0 to 65535".to_owned());
    }
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if http.allow_insecure == Some(true) => Ok(()),
        Some("http") => Err(
            "http:// sends records in clear; use https://, or set allowInsecure: true".to_owned(),
        ),
        _ => Err("it must start with https://".to_owned()),
    }
}

fn target(
    spec: &AuditSinkSpec,
    secret: &impl Fn(&str) -> Option<Secret>,
    problems: &mut Vec<String>,
) -> Option<SinkTarget> {
    if spec.stdout.is_some() {
        return Some(SinkTarget::Stdout);
    }
    if let Some(file) = &spec.file {
        return Some(SinkTarget::File {
            path: file.name.clone(),
        });
    }
    let http = spec.http.as_ref()?;
    let mut read = |name: &str, key: &str| match value(secret(name), key) {
        Some(value) => Some(value),
        None => {
            problems.push(format!(
                "Secret {name} in Chaperone's namespace has no key {key}, or does not exist; create it"
            ));
            None
        }
    };
    let bearer = http
        .bearer_token_secret
        .as_ref()
        .and_then(|reference| read(&reference.name, &reference.key))
        .map(|token| token.trim().to_owned());
    let tls = http.tls_secret.as_ref();
    let client_cert = tls.and_then(|reference| read(&reference.name, "tls.crt"));
    let client_key = tls.and_then(|reference| read(&reference.name, "tls.key"));
    Some(SinkTarget::Http {
        url: http.url.clone(),
        bearer,
        client_cert,
        client_key,
        ca_bundle: http.ca_bundle.clone(),
        batch_size: http.batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
    })
}

/// The text under a key of a Secret.
#[must_use]
pub fn value(secret: Option<Secret>, key: &str) -> Option<String> {
    let bytes = secret?.data?.remove(key)?.0;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn sink(name: &str, spec: serde_json::Value) -> AuditSink {
        serde_json::from_value(json!({
            "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": name, "generation": 2}, "spec": spec
        }))
        .unwrap()
    }

    fn token(name: &str) -> Option<Secret> {
        (name == "collector").then(|| Secret {
            data: Some([("token".to_owned(), ByteString(b"s3cret\n".to_vec()))].into()),
            ..Secret::default()
        })
    }

    #[test]
    fn credentials_are_resolved_and_sinks_ordered() {
        let http = sink(
            "b",
            json!({"http": {"url": "https://c.example/in", "bearerTokenSecret": {"name": "collector", "key": "token"}}}),
        );
        let file = sink("a", json!({"file": {"name": "audit.jsonl"}}));
        let (sinks, outcomes) = resolve(&[&http, &file], token, DefaultSink::Stdout);
        let names: Vec<_> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["a", "b", DEFAULT_SINK]);
        assert_eq!(
            sinks[1].target,
            SinkTarget::Http {
                url: "https://c.example/in".to_owned(),
                bearer: Some("s3cret".to_owned()),
                client_cert: None,
                client_key: None,
                ca_bundle: None,
                batch_size: 500
            }
        );
        assert!(outcomes.iter().all(|outcome| outcome.problems.is_empty()));
    }

    #[test]
    fn the_default_sink_is_there_unless_switched_off_or_written_out() {
        let stdout = sink("mine", json!({"stdout": {}}));
        let names = |sinks: Vec<SinkConfig>| -> Vec<String> {
            sinks.into_iter().map(|sink| sink.name).collect()
        };
        assert_eq!(
            names(resolve(&[], token, DefaultSink::Stdout).0),
            [DEFAULT_SINK]
        );
        assert_eq!(names(resolve(&[], token, DefaultSink::None).0), [""; 0]);
        assert_eq!(
            names(resolve(&[&stdout], token, DefaultSink::Stdout).0),
            ["mine"]
        );
    }

    #[test]
    fn the_ledger_is_one_more_sink_under_a_name_that_no_resource_can_have() {
        let (sinks, _) = resolve(&[], token, DefaultSink::Stdout);
        let all = with_ledger(&sinks, "https://ledger.c.svc:9445".to_owned(), "the root");
        let names: Vec<_> = all.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, [LEDGER_SINK, DEFAULT_SINK]);
        assert!(LEDGER_SINK.contains('_'), "RFC 1123 has no underscore");
        assert_eq!(
            all[0].target,
            SinkTarget::Ledger {
                url: "https://ledger.c.svc:9445".to_owned(),
                ca_bundle: "the root".to_owned(),
                token_file: "/var/run/secrets/chaperone.dev/ledger-token".to_owned(),
            }
        );
        assert_eq!((all[0].format, &all[0].filter), (Format::Native, &None));
    }

    #[test]
    fn a_sink_without_its_secret_stays_and_says_so() {
        let http = sink(
            "b",
            json!({"http": {"url": "https://c.example/in", "tlsSecret": {"name": "gone"}}}),
        );
        let (sinks, outcomes) = resolve(&[&http], token, DefaultSink::None);
        assert_eq!(sinks.len(), 1);
        assert_eq!(outcomes[0].problems.len(), 2);
        assert!(outcomes[0].problems[0].contains("Secret gone"));
    }

    #[test]
    fn a_wrong_filter_is_named_with_its_place_and_a_right_one_reaches_the_sidecar() {
        let with = |filter: &str| {
            sink(
                "s",
                json!({"stdout": {}, "format": "ECS", "filter": filter}),
            )
        };
        let good = with("record.decision.action == \"Deny\"");
        assert_eq!(check(&good.spec), Vec::<String>::new());
        let (sinks, _) = resolve(&[&good], token, DefaultSink::None);
        assert_eq!(sinks[0].filter, good.spec.filter);
        assert_eq!(sinks[0].format, Format::Ecs);
        let problems = check(&with("record.decision.acton == \"Deny\"").spec);
        assert!(
            problems.len() == 1
                && problems[0].starts_with("spec.filter, line 1, column 17: unknown field")
                && problems[0].ends_with("                  ^"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_sink_of_the_ledger_reaches_no_sidecar_and_is_reported_all_the_same() {
        let with = |secret: &str| {
            let reference = json!({"name": secret, "key": "token"});
            let http = json!({"url": "https://c.example/in", "bearerTokenSecret": reference});
            sink(secret, json!({"from": "Ledger", "http": http}))
        };
        let (good, bad) = (with("collector"), with("gone"));
        let (sinks, outcomes) = resolve(&[&good, &bad], token, DefaultSink::None);
        assert_eq!(sinks, []);
        assert_eq!(outcomes[0].problems, Vec::<String>::new());
        assert!(outcomes[1].problems[0].contains("Secret gone"));
        assert!(outcomes.iter().all(|o| o.by == Deliverer::Ledger));
        assert_eq!(
            check(&bad.spec),
            Vec::<String>::new(),
            "it may be applied a moment later"
        );
        assert!(missing_secrets(&bad.spec, token)[0].contains("Secret gone"));
        let stdout = sink("s", json!({"from": "Ledger", "stdout": {}}));
        assert!(check(&stdout.spec)[0].contains("no kind that the ledger delivers"));
    }

    #[test]
    fn a_bad_url_or_bundle_is_named() {
        let cases = [
            (json!({"url": "https://c.example/in"}), None),
            (
                json!({"url": "http://c.example/in", "allowInsecure": true}),
                None,
            ),
            (json!({"url": "http://c.example/in"}), Some("in clear")),
            (
                json!({"url": "https://u:p@c.example/in"}),
                Some("credentials"),
            ),
            (json!({"url": "https:///in"}), Some("spec.http.url")),
            (
                json!({"url": "https://c.example:99999999/"}),
                Some("spec.http.url"),
            ),
            (
                json!({"url": "https://c.example/in", "caBundle": "x"}),
                Some("caBundle"),
            ),
        ];
        for (http, expected) in cases {
            let problems = check(&sink("s", json!({"http": http})).spec);
            match expected {
                None => assert_eq!(problems, Vec::<String>::new()),
                Some(part) => assert!(
                    problems.len() == 1 && problems[0].contains(part),
                    "{http} {problems:?}"
                ),
            }
        }
    }
}
