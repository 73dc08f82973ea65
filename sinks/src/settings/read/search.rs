//! The kinds that search: Elasticsearch and OpenSearch, Splunk.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_crds::resources::{ElasticsearchSink, SecretKeyRef, SplunkSink};
use hyper::header::HeaderValue;

use super::Reader;
use crate::settings::{Credential, Elasticsearch, Splunk};

/// Index where a sink does not say.
const ELASTICSEARCH_INDEX: &str = "chaperone-records";
/// Source type where a sink does not say.
const SPLUNK_SOURCETYPE: &str = "chaperone:record";

impl Reader<'_> {
    pub(super) fn elasticsearch(&mut self, sink: &ElasticsearchSink) -> Option<Elasticsearch> {
        self.url("spec.elasticsearch", &sink.url, sink.allow_insecure);
        let authorization = self.authorization(sink);
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

    /// What the cluster knows the ledger by, where it says so. `None` if it is not there.
    fn authorization(&mut self, sink: &ElasticsearchSink) -> Option<Option<Credential>> {
        if let (Some(username), Some(of)) = (&sink.username, &sink.password_secret) {
            let password = self.password(Some(of))??;
            let pair = STANDARD.encode(format!("{username}:{}", password.0));
            return Some(Some(Credential(format!("Basic {pair}"))));
        }
        if let Some(of) = &sink.api_key_secret {
            return self.scheme("ApiKey", of).map(Some);
        }
        match &sink.bearer_token_secret {
            Some(of) => self.scheme("Bearer", of).map(Some),
            None => Some(None),
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

/// A credential that no header can carry.
pub(super) fn no_header(of: &SecretKeyRef) -> String {
    let SecretKeyRef { name, key } = of;
    format!("key {key} of Secret {name} has characters that no header can have")
}
