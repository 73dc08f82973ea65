//! The kinds that search: Elasticsearch and OpenSearch, Splunk, Loki.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_crds::resources::{ElasticsearchSink, LokiSink, SecretKeyRef, SplunkSink};
use hyper::header::HeaderValue;

use super::Reader;
use crate::settings::{Credential, Elasticsearch, Loki, Splunk};

/// Index where a sink does not say.
const ELASTICSEARCH_INDEX: &str = "chaperone-records";
/// Source type where a sink does not say.
const SPLUNK_SOURCETYPE: &str = "chaperone:record";
/// What entries of Loki have of their records, as labels and as structured metadata.
const LOKI_OWN_NAMES: [&str; 9] = [
    "service_name",
    "namespace",
    "kind",
    "decision",
    "stream",
    "seq",
    "pod",
    "leaf",
    "level",
];
/// Most labels besides these: Loki 3 takes 15 of a stream unless it is told otherwise.
const LOKI_MOST_LABELS: usize = 10;
/// Longest name and value of a label, in bytes: half of what Loki takes unless it is told otherwise.
const LOKI_LONGEST_NAME: usize = 512;
const LOKI_LONGEST_VALUE: usize = 1024;

impl Reader<'_> {
    pub(super) fn elasticsearch(&mut self, sink: &ElasticsearchSink) -> Option<Elasticsearch> {
        self.url("spec.elasticsearch", &sink.url, sink.allow_insecure);
        let authorization = match &sink.api_key_secret {
            Some(of) => self.scheme("ApiKey", of).map(Some),
            None => self.authorization(
                sink.username.as_deref(),
                sink.password_secret.as_ref(),
                sink.bearer_token_secret.as_ref(),
            ),
        };
        let (bundle, secret) = (sink.ca_bundle.as_deref(), sink.tls_secret.as_ref());
        let tls = self.tls("spec.elasticsearch", bundle, secret);
        let index = sink.index.as_deref().unwrap_or(ELASTICSEARCH_INDEX);
        Some(Elasticsearch {
            url: sink.url.clone(),
            index: index.to_owned(),
            authorization: authorization?,
            tls: tls?,
        })
    }

    /// What the server knows the ledger by, where the sink says so: a name and a password, or a token. `None` if it is not there.
    fn authorization(
        &mut self,
        username: Option<&str>,
        password: Option<&SecretKeyRef>,
        bearer: Option<&SecretKeyRef>,
    ) -> Option<Option<Credential>> {
        if let (Some(username), Some(of)) = (username, password) {
            let password = self.password(Some(of))??;
            let pair = STANDARD.encode(format!("{username}:{}", password.0));
            return Some(Some(Credential(format!("Basic {pair}"))));
        }
        match bearer {
            Some(of) => self.scheme("Bearer", of).map(Some),
            None => Some(None),
        }
    }

    pub(super) fn loki(&mut self, sink: &LokiSink) -> Option<Loki> {
        self.url("spec.loki", &sink.url, sink.allow_insecure);
        self.labels(&sink.labels);
        let authorization = self.authorization(
            sink.username.as_deref(),
            sink.password_secret.as_ref(),
            sink.bearer_token_secret.as_ref(),
        );
        let (bundle, secret) = (sink.ca_bundle.as_deref(), sink.tls_secret.as_ref());
        let tls = self.tls("spec.loki", bundle, secret);
        if let Some(tenant) = &sink.tenant
            && HeaderValue::from_str(tenant).is_err()
        {
            self.problem(format!("spec.loki.tenant: {tenant:?} is no header value"));
        }
        Some(Loki {
            url: sink.url.clone(),
            tenant: sink.tenant.clone(),
            labels: sink.labels.clone(),
            structured_metadata: sink.structured_metadata.unwrap_or(false),
            authorization: authorization?,
            tls: tls?,
        })
    }

    /// Labels that Loki takes, and that do not stand in the place of a record's own.
    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > LOKI_MOST_LABELS {
            self.problem(format!(
                "spec.loki.labels: there are {}; at most {LOKI_MOST_LABELS} are taken",
                labels.len()
            ));
        }
        for (name, value) in labels {
            let why = match name.as_str() {
                name if LOKI_OWN_NAMES.contains(&name) => "is what entries have of their records",
                name if !is_label(name) => {
                    "is no name of a label: letters, digits and _, no digit first and no __ at the beginning"
                }
                _ if !(1..=LOKI_LONGEST_VALUE).contains(&value.len()) => {
                    "has no value, or one of more than 1024 bytes"
                }
                _ => continue,
            };
            self.problem(format!("spec.loki.labels: {name:?} {why}"));
        }
    }

    pub(super) fn splunk(&mut self, sink: &SplunkSink) -> Option<Splunk> {
        self.url("spec.splunk", &sink.url, sink.allow_insecure);
        let authorization = self.scheme("Splunk", &sink.token_secret);
        let (bundle, secret) = (sink.ca_bundle.as_deref(), sink.tls_secret.as_ref());
        let tls = self.tls("spec.splunk", bundle, secret);
        let sourcetype = sink.sourcetype.as_deref().unwrap_or(SPLUNK_SOURCETYPE);
        Some(Splunk {
            url: sink.url.clone(),
            authorization: authorization?,
            index: sink.index.clone(),
            sourcetype: sourcetype.to_owned(),
            acknowledge: sink.acknowledge.unwrap_or(true),
            tls: tls?,
        })
    }

    /// A value of `Authorization` in this scheme. `None` if it is not there.
    fn scheme(&mut self, scheme: &str, of: &SecretKeyRef) -> Option<Credential> {
        let value = self.key(&of.name, &of.key)?;
        let value = format!("{scheme} {}", value.trim());
        if HeaderValue::from_str(&value).is_err() {
            self.missing.push(no_header(of));
            return None;
        }
        Some(Credential(value))
    }
}

/// Whether Loki takes a label of this name from outside (those that begin with two underscores are its own).
fn is_label(name: &str) -> bool {
    (1..=LOKI_LONGEST_NAME).contains(&name.len())
        && !name.starts_with("__")
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A credential that no header can carry.
pub(super) fn no_header(of: &SecretKeyRef) -> String {
    let SecretKeyRef { name, key } = of;
    format!("key {key} of Secret {name} has characters that no header can have")
}
