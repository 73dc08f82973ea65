//! The settings of each kind.

use std::collections::BTreeMap;

use super::{Credential, KafkaCompression, OtlpProtocol, S3Format, SaslMechanism, Tls};

/// An HTTP endpoint that takes batches of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub url: String,
    /// Value of `Authorization: Bearer`.
    pub bearer: Option<Credential>,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}

/// A receiver of OTLP logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where; its path is `/v1/logs` where it has none, and none over gRPC.
    pub url: String,
    /// By which transport.
    pub protocol: OtlpProtocol,
    /// Value of `Authorization: Bearer`.
    pub bearer: Option<Credential>,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}

/// A receiver of syslog messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Facility, 0 to 23.
    pub facility: u8,
    /// TLS; none where the sink allows that.
    pub tls: Option<Tls>,
}

/// A table of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// Who the ledger is there.
    pub user: String,
    /// Its password.
    pub password: Option<Credential>,
    /// The table, with or without a schema before it.
    pub table: String,
    /// TLS; none where the sink allows that.
    pub tls: Option<Tls>,
}

/// A stream of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The stream's key.
    pub key: String,
    /// Most entries that it keeps, about.
    pub max_length: Option<u64>,
    /// Who the ledger is there.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Credential>,
    /// TLS; none where the sink allows that.
    pub tls: Option<Tls>,
}

/// An index of Elasticsearch or OpenSearch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elasticsearch {
    /// Where; what path it has stands before the cluster's own.
    pub url: String,
    /// Index, alias or data stream.
    pub index: String,
    /// Value of `Authorization`.
    pub authorization: Option<Credential>,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}

/// An HTTP Event Collector of Splunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splunk {
    /// Where; what path it has stands before the collector's own.
    pub url: String,
    /// Value of `Authorization`.
    pub authorization: Credential,
    /// Index, unless it is the token's.
    pub index: Option<String>,
    /// Source type of events.
    pub sourcetype: String,
    /// Whether a batch counts once it is indexed.
    pub acknowledge: bool,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}

/// Grafana Loki.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loki {
    /// Where; what path it has stands before Loki's own.
    pub url: String,
    /// Value of `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// What each entry is labelled with besides what its record says.
    pub labels: BTreeMap<String, String>,
    /// Whether entries have structured metadata.
    pub structured_metadata: bool,
    /// Value of `Authorization`.
    pub authorization: Option<Credential>,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}

/// Subjects of NATS that a stream takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Beginning of the subjects.
    pub subject: String,
    /// The stream that must take them.
    pub stream: Option<String>,
    /// What the server knows the ledger by.
    pub login: NatsLogin,
    /// TLS; none where the sink allows that.
    pub tls: Option<Tls>,
}

/// What a server of NATS knows the ledger by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    /// Nothing, or the client certificate.
    None,
    /// User and password.
    Password(String, Credential),
    /// A token.
    Token(Credential),
    /// The seed of an NKey.
    Nkey(Credential),
    /// A credentials file.
    File(Credential),
}

/// A topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Hosts, without brackets, and ports of brokers that know the others.
    pub brokers: Vec<(String, u16)>,
    /// The topic.
    pub topic: String,
    /// Who the ledger is there; none where the client certificate says it, or nobody asks.
    pub login: Option<KafkaLogin>,
    /// How batches are compressed.
    pub compression: KafkaCompression,
    /// TLS; none where the sink allows that.
    pub tls: Option<Tls>,
}

/// A user of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaLogin {
    /// How it logs in.
    pub mechanism: SaslMechanism,
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Credential,
}

/// A bucket of S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Where it is; none for AWS.
    pub endpoint: Option<String>,
    /// Beginning of the objects' names, without a slash at its end.
    pub prefix: String,
    /// What objects are.
    pub format: S3Format,
    /// The key's name.
    pub key_id: String,
    /// The key.
    pub key: Credential,
    /// What comes with a key for a while.
    pub token: Option<Credential>,
    /// Whom it trusts, and what it shows.
    pub tls: Tls,
}
