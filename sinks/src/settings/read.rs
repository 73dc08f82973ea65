//! How an `AuditSink` is read.

mod far;
mod search;

use std::time::Duration;

use chaperone_crds::{
    filter::Filter,
    resources::{
        AuditSinkSpec, BatchSettings, Deliverer, Format, HttpSink, OtlpSink, PostgresSink,
        RedisSink, SecretKeyRef, SecretRef, SyslogSink,
    },
};
use rustls_pki_types::ServerName;

use super::{
    Batch, Credential, Http, Otlp, OtlpProtocol, Postgres, Redis, S3Format, Sink, Syslog, Target,
    Tls, is_name,
};
use crate::{Endpoint, client::bearer_header};

/// What a batch is where a sink does not say.
const USUAL: Usual = Usual {
    records: 500,
    bytes: 1024 * 1024,
    wait_milliseconds: 500,
};
/// The same of Splunk: each batch waits for an acknowledgement of a second or more.
const SPLUNK: Usual = Usual {
    records: 5000,
    bytes: 4 * 1024 * 1024,
    wait_milliseconds: 500,
};
/// The same of S3: each batch is an object, and whoever reads them wants few.
const S3: Usual = Usual {
    records: 50_000,
    bytes: 32 * 1024 * 1024,
    wait_milliseconds: 300_000,
};
/// Port of syslog over TLS (RFC 5425 section 4.1).
const SYSLOG_PORT: u16 = 6514;
/// `log audit` (RFC 5424, table 1).
const SYSLOG_FACILITY: u8 = 13;
/// Port of PostgreSQL.
const POSTGRES_PORT: u16 = 5432;
/// Table where a sink does not say.
const POSTGRES_TABLE: &str = "chaperone_records";
/// Port of Redis.
const REDIS_PORT: u16 = 6379;
/// Key where a sink does not say.
const REDIS_KEY: &str = "chaperone:records";
/// Reads one sink, and notes what is wrong with it.
pub(super) struct Reader<'a> {
    secret: &'a dyn Fn(&str, &str) -> Option<String>,
    pub(super) problems: Vec<String>,
    /// Secrets that are not there or cannot be used: what may be mended without a change to the sink.
    pub(super) missing: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(secret: &'a dyn Fn(&str, &str) -> Option<String>) -> Self {
        Self {
            secret,
            problems: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Reads one thing, or says all that is wrong with it.
    pub(super) fn alone<T>(
        secret: &'a dyn Fn(&str, &str) -> Option<String>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Result<T, Vec<String>> {
        let mut reader = Self::new(secret);
        let value = read(&mut reader);
        reader.problems.append(&mut reader.missing);
        match value {
            Some(value) if reader.problems.is_empty() => Ok(value),
            _ => Err(reader.problems),
        }
    }

    pub(super) fn sink(&mut self, name: &str, spec: &AuditSinkSpec) -> Option<Sink> {
        if !is_name(name) {
            self.problem(format!("{name:?} is no name of an AuditSink"));
        }
        if let Some(Err(errors)) = spec.filter.as_deref().map(Filter::compile) {
            self.problem(errors.to_string());
        }
        if spec.delivered_by() != Deliverer::Ledger {
            self.problem("it is delivered by the sidecars; add from: Ledger".to_owned());
        }
        let is_parquet = spec.s3.as_ref().and_then(|s3| s3.format) == Some(S3Format::Parquet);
        if is_parquet && spec.format.unwrap_or_default() != Format::Native {
            let why = "spec.s3.format: Parquet holds the record itself; leave out spec.format";
            self.problem(why.to_owned());
        }
        Some(Sink {
            name: name.to_owned(),
            format: spec.format.unwrap_or_default(),
            filter: spec.filter.clone(),
            start: spec.start.unwrap_or_default(),
            batch: batch(spec),
            target: self.target(name, spec)?,
        })
    }

    fn target(&mut self, name: &str, spec: &AuditSinkSpec) -> Option<Target> {
        if let Some(http) = &spec.http {
            return self.http(http).map(Target::Http);
        }
        if let Some(otlp) = &spec.otlp {
            return self.otlp(otlp).map(Target::Otlp);
        }
        if let Some(syslog) = &spec.syslog {
            return self.syslog(syslog).map(Target::Syslog);
        }
        if let Some(postgres) = &spec.postgres {
            return self.postgres(postgres).map(Target::Postgres);
        }
        if let Some(redis) = &spec.redis {
            return self.redis(redis).map(Target::Redis);
        }
        if let Some(elasticsearch) = &spec.elasticsearch {
            return self.elasticsearch(elasticsearch).map(Target::Elasticsearch);
        }
        if let Some(splunk) = &spec.splunk {
            return self.splunk(splunk).map(Target::Splunk);
        }
        if let Some(loki) = &spec.loki {
            return self.loki(loki).map(Target::Loki);
        }
        if let Some(nats) = &spec.nats {
            return self.nats(nats).map(Target::Nats);
        }
        if let Some(kafka) = &spec.kafka {
            return self.kafka(kafka).map(Target::Kafka);
        }
        if let Some(s3) = &spec.s3 {
            return self.s3(name, s3).map(Target::S3);
        }
        self.problem("it has no kind that the ledger delivers; use another kind".to_owned());
        None
    }

    fn http(&mut self, http: &HttpSink) -> Option<Http> {
        self.url("spec.http", &http.url, http.allow_insecure);
        let bearer = self.bearer(http.bearer_token_secret.as_ref());
        let tls = self.tls(
            "spec.http",
            http.ca_bundle.as_deref(),
            http.tls_secret.as_ref(),
        );
        Some(Http {
            url: http.url.clone(),
            bearer: bearer?,
            tls: tls?,
        })
    }

    fn otlp(&mut self, otlp: &OtlpSink) -> Option<Otlp> {
        let protocol = otlp.protocol.unwrap_or_default();
        self.url("spec.otlp", &otlp.url, otlp.allow_insecure);
        let has_path = Endpoint::parse(&otlp.url).is_ok_and(|e| e.target != "/");
        if protocol == OtlpProtocol::Grpc && has_path {
            self.problem("spec.otlp.url: gRPC has no path; leave it out".to_owned());
        }
        let bearer = self.bearer(otlp.bearer_token_secret.as_ref());
        let tls = self.tls(
            "spec.otlp",
            otlp.ca_bundle.as_deref(),
            otlp.tls_secret.as_ref(),
        );
        Some(Otlp {
            url: otlp.url.clone(),
            protocol,
            bearer: bearer?,
            tls: tls?,
        })
    }

    fn syslog(&mut self, syslog: &SyslogSink) -> Option<Syslog> {
        let tls = match syslog.allow_insecure {
            Some(true) => None,
            _ => Some(self.tls(
                "spec.syslog",
                syslog.ca_bundle.as_deref(),
                syslog.tls_secret.as_ref(),
            )?),
        };
        Some(Syslog {
            host: self.host("spec.syslog", &syslog.host)?,
            port: syslog.port.unwrap_or(SYSLOG_PORT),
            facility: syslog.facility.unwrap_or(SYSLOG_FACILITY),
            tls,
        })
    }

    pub(super) fn postgres(&mut self, postgres: &PostgresSink) -> Option<Postgres> {
        let host = self.host("spec.postgres", &postgres.host);
        let (bundle, secret) = (postgres.ca_bundle.as_deref(), postgres.tls_secret.as_ref());
        let tls = match postgres.allow_insecure {
            Some(true) => None,
            _ => Some(self.tls("spec.postgres", bundle, secret)?),
        };
        let password = self.password(postgres.password_secret.as_ref())?;
        let table = postgres.table.as_deref().unwrap_or(POSTGRES_TABLE);
        Some(Postgres {
            host: host?,
            port: postgres.port.unwrap_or(POSTGRES_PORT),
            database: postgres.database.clone(),
            user: postgres.user.clone(),
            password,
            table: table.to_owned(),
            tls,
        })
    }

    fn redis(&mut self, redis: &RedisSink) -> Option<Redis> {
        let host = self.host("spec.redis", &redis.host);
        let (bundle, secret) = (redis.ca_bundle.as_deref(), redis.tls_secret.as_ref());
        let tls = match redis.allow_insecure {
            Some(true) => None,
            _ => Some(self.tls("spec.redis", bundle, secret)?),
        };
        let password = self.password(redis.password_secret.as_ref())?;
        Some(Redis {
            host: host?,
            port: redis.port.unwrap_or(REDIS_PORT),
            key: redis.key.as_deref().unwrap_or(REDIS_KEY).to_owned(),
            max_length: redis.max_length,
            username: redis.username.clone(),
            password,
            tls,
        })
    }

    /// A password, where one is asked for. `None` if it is not there.
    fn password(&mut self, of: Option<&SecretKeyRef>) -> Option<Option<Credential>> {
        let Some(of) = of else {
            return Some(None);
        };
        let password = self.key(&of.name, &of.key)?;
        // As the file that it was made from usually ends.
        Some(Some(Credential(password.trim_end_matches('\n').to_owned())))
    }

    /// A name or address that TLS can verify.
    fn host(&mut self, path: &str, host: &str) -> Option<String> {
        if ServerName::try_from(host).is_err() {
            self.problem(format!("{path}.host: {host:?} is no name and no address"));
            return None;
        }
        Some(host.to_owned())
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn url(&mut self, path: &str, url: &str, insecure: Option<bool>) {
        match Endpoint::parse(url) {
            Err(error) => self.problem(format!("{path}.url: {error}")),
            Ok(endpoint) if !endpoint.is_tls && insecure != Some(true) => self.problem(format!(
                "{path}.url: http:// sends records in clear; use https://, or set allowInsecure: true"
            )),
            Ok(_) => {}
        }
    }

    /// A bearer token, where one is asked for. `None` if it is not there.
    fn bearer(&mut self, reference: Option<&SecretKeyRef>) -> Option<Option<Credential>> {
        let Some(reference) = reference else {
            return Some(None);
        };
        let token = self.key(&reference.name, &reference.key)?.trim().to_owned();
        if bearer_header(&token).is_err() {
            self.missing.push(search::no_header(reference));
            return None;
        }
        Some(Some(Credential(token)))
    }

    /// TLS settings that rustls takes.
    fn tls(
        &mut self,
        path: &str,
        ca_bundle: Option<&str>,
        secret: Option<&SecretRef>,
    ) -> Option<Tls> {
        let mut tls = Tls {
            ca_bundle: ca_bundle.map(str::to_owned),
            client: None,
        };
        if let Err(error) = tls.client_config(None) {
            self.problem(format!("{path}: {error}"));
            return None;
        }
        if let Some(SecretRef { name }) = secret {
            let (chain, key) = (self.key(name, "tls.crt"), self.key(name, "tls.key"));
            tls.client = Some((chain?, Credential(key?)));
            if let Err(error) = tls.client_config(None) {
                self.missing.push(format!("Secret {name}: {error}"));
                return None;
            }
        }
        Some(tls)
    }

    fn key(&mut self, name: &str, key: &str) -> Option<String> {
        let value = (self.secret)(name, key);
        if value.is_none() {
            self.missing.push(format!(
                "Secret {name} in Chaperone's namespace has no key {key}, or does not exist; create it"
            ));
        }
        value
    }
}

/// Most of a batch, and how long it fills.
struct Usual {
    records: u32,
    bytes: u32,
    wait_milliseconds: u32,
}

fn batch(spec: &AuditSinkSpec) -> Batch {
    let unsaid = BatchSettings::default();
    let said = spec.batch.as_ref().unwrap_or(&unsaid);
    let http = spec.http.as_ref().and_then(|http| http.batch_size);
    let size = |value: u32| usize::try_from(value.max(1)).unwrap_or(usize::MAX);
    let usual = match (&spec.splunk, &spec.s3) {
        (Some(_), _) => SPLUNK,
        (_, Some(_)) => S3,
        _ => USUAL,
    };
    let wait = said.wait_milliseconds.unwrap_or(usual.wait_milliseconds);
    Batch {
        records: size(said.records.or(http).unwrap_or(usual.records)),
        bytes: size(said.bytes.unwrap_or(usual.bytes)),
        wait: Duration::from_millis(u64::from(wait)),
    }
}
