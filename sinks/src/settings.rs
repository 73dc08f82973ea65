//! What the ledger delivers by: an `AuditSink` and the Secrets that it names, read into values that can only be right.
//!
//! Owns what of a sink is wrong, in sentences. The operator reports it and the ledger runs by it, so both read it here. Refuses sinks that the sidecars deliver.
//! Invariant: credentials are never printed.

mod kinds;
mod read;

use std::{fmt, time::Duration};

use chaperone_crds::resources::{AuditSinkSpec, Format, PostgresSink, S3Sink, SinkStart};

pub use chaperone_crds::resources::{KafkaCompression, OtlpProtocol, S3Format, SaslMechanism};
pub use kinds::{
    Elasticsearch, Http, Kafka, KafkaLogin, Loki, Nats, NatsLogin, Otlp, Postgres, Redis, S3,
    Splunk, Syslog,
};

use crate::{ClientError, tls};
use read::Reader;

/// A name where none matters.
const ANY_NAME: &str = "sink";
/// Longest name of a sink, in bytes, as the API server has it: it is part of a file's name.
pub const MAX_NAME: usize = 63;

/// A sink that the ledger delivers, with its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Name of the `AuditSink`.
    pub name: String,
    /// How records are written.
    pub format: Format,
    /// Which records it gets.
    pub filter: Option<String>,
    /// Where it begins if it is new.
    pub start: SinkStart,
    /// How many records are sent at once.
    pub batch: Batch,
    /// Where to.
    pub target: Target,
}

/// How many records are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most records.
    pub records: usize,
    /// Most bytes, unless one record is longer.
    pub bytes: usize,
    /// Longest that a record waits for others.
    pub wait: Duration,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An HTTP endpoint.
    Http(Http),
    /// A receiver of OTLP logs.
    Otlp(Otlp),
    /// A receiver of syslog messages.
    Syslog(Syslog),
    /// A table of a PostgreSQL database.
    Postgres(Postgres),
    /// A stream of a Redis server.
    Redis(Redis),
    /// An index of Elasticsearch or OpenSearch.
    Elasticsearch(Elasticsearch),
    /// An HTTP Event Collector of Splunk.
    Splunk(Splunk),
    /// Grafana Loki.
    Loki(Loki),
    /// A stream of NATS JetStream.
    Nats(Nats),
    /// A topic of Kafka.
    Kafka(Kafka),
    /// A bucket of S3.
    S3(S3),
}

/// TLS settings of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates besides the Mozilla roots.
    pub ca_bundle: Option<String>,
    /// Client certificate chain and key, PEM.
    pub client: Option<(String, Credential)>,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(pub String);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Tls {
    /// What it means to rustls.
    ///
    /// # Errors
    /// [`ClientError::Settings`] where it is no certificates or no key.
    pub fn client_config(&self, alpn: Option<&[u8]>) -> Result<rustls::ClientConfig, ClientError> {
        let client = self.client.as_ref();
        let settings = tls::Settings {
            ca_bundle: self.ca_bundle.as_deref(),
            client_cert: client.map(|(chain, _)| chain.as_str()),
            client_key: client.map(|(_, key)| key.0.as_str()),
        };
        tls::client_config(settings, alpn)
    }
}

impl Sink {
    /// Reads an `AuditSink`. `secret` has the text under a key of a Secret in Chaperone's namespace.
    ///
    /// # Errors
    /// What is wrong, one sentence each, at least one.
    pub fn read(
        name: &str,
        spec: &AuditSinkSpec,
        secret: &dyn Fn(&str, &str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        Reader::alone(secret, |reader| reader.sink(name, spec))
    }

    /// What is wrong with an `AuditSink` whatever the Secrets are, one sentence each.
    #[must_use]
    pub fn check(spec: &AuditSinkSpec) -> Vec<String> {
        let mut reader = Reader::new(&|_, _| None);
        reader.sink(ANY_NAME, spec);
        reader.problems
    }

    /// What is wrong with the Secrets that an `AuditSink` names, one sentence each.
    #[must_use]
    pub fn missing(
        spec: &AuditSinkSpec,
        secret: &dyn Fn(&str, &str) -> Option<String>,
    ) -> Vec<String> {
        let mut reader = Reader::new(secret);
        reader.sink(ANY_NAME, spec);
        reader.missing
    }
}

impl Postgres {
    /// Reads what a database is reached by, as a sink says it. `secret` as of [`Sink::read`].
    ///
    /// # Errors
    /// As of [`Sink::read`].
    pub fn read(
        spec: &PostgresSink,
        secret: &dyn Fn(&str, &str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        Reader::alone(secret, |reader| reader.postgres(spec))
    }
}

impl S3 {
    /// Reads what a bucket is reached by, as the sink of this name says it. `secret` as of [`Sink::read`].
    ///
    /// # Errors
    /// As of [`Sink::read`].
    pub fn read(
        name: &str,
        spec: &S3Sink,
        secret: &dyn Fn(&str, &str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        Reader::alone(secret, |reader| reader.s3(name, spec))
    }
}

/// Whether a name can be part of a file's name: as names of resources are.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b))
}

#[cfg(test)]
mod tests;
