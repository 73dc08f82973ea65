//! The kinds of targets that the ledger delivers to, one file each. docs/sinks.md has the contract of each.

mod elasticsearch;
mod http;
mod kafka;
mod loki;
mod nats;
mod otlp;
mod postgres;
mod redis;
mod request;
mod s3;
mod splunk;
mod syslog;

use std::sync::Arc;

use chaperone_sinks::{
    net::SinkNet,
    settings::{self, Sink},
};

use super::target::{Failure, Target};

/// Makes targets from settings. Nothing is connected by that.
#[derive(Clone)]
pub(crate) struct Maker {
    /// The way to endpoints.
    pub(crate) net: Arc<dyn SinkNet>,
    /// Our version, as targets are told it.
    pub(crate) version: String,
}

impl Maker {
    /// The target of a sink.
    pub(super) fn make(&self, sink: &Sink) -> Result<Box<dyn Target>, Failure> {
        Ok(match &sink.target {
            settings::Target::Http(http) => Box::new(http::HttpTarget::new(http, sink, self)?),
            settings::Target::Otlp(otlp) => Box::new(otlp::OtlpTarget::new(otlp, self)?),
            settings::Target::Nats(nats) => Box::new(nats::NatsTarget::new(nats, self)?),
            settings::Target::Kafka(kafka) => Box::new(kafka::KafkaTarget::new(kafka, sink, self)?),
            settings::Target::S3(s3) => Box::new(s3::S3Target::new(s3, self)?),
            settings::Target::Splunk(splunk) => Box::new(splunk::SplunkTarget::new(splunk, self)?),
            settings::Target::Elasticsearch(elasticsearch) => Box::new(
                elasticsearch::ElasticsearchTarget::new(elasticsearch, sink, self)?,
            ),
            settings::Target::Loki(loki) => Box::new(loki::LokiTarget::new(loki, self)?),
            settings::Target::Redis(redis) => Box::new(redis::RedisTarget::new(redis, self)?),
            settings::Target::Syslog(syslog) => Box::new(syslog::SyslogTarget::new(syslog, self)?),
            settings::Target::Postgres(postgres) => {
                Box::new(postgres::PostgresTarget::new(postgres, self)?)
            }
        })
    }
}
