//! NATS JetStream, Kafka and S3.

use chaperone_crds::resources::{KafkaSink, NatsSink, S3Sink, SecretKeyRef};

use rustls_pki_types::ServerName;

use super::Reader;
use crate::settings::{Credential, Kafka, KafkaLogin, Nats, NatsLogin, S3};

/// Port of NATS.
const NATS_PORT: u16 = 4222;
/// Beginning of subjects where a sink does not say.
const NATS_SUBJECT: &str = "chaperone.records";
/// Region where a sink does not say.
const S3_REGION: &str = "us-east-1";

impl Reader<'_> {
    pub(super) fn nats(&mut self, nats: &NatsSink) -> Option<Nats> {
        let host = self.host("spec.nats", &nats.host);
        let (bundle, secret) = (nats.ca_bundle.as_deref(), nats.tls_secret.as_ref());
        let tls = match nats.allow_insecure {
            Some(true) => None,
            _ => Some(self.tls("spec.nats", bundle, secret)?),
        };
        let login = self.nats_login(nats)?;
        Some(Nats {
            host: host?,
            port: nats.port.unwrap_or(NATS_PORT),
            subject: nats.subject.as_deref().unwrap_or(NATS_SUBJECT).to_owned(),
            stream: nats.stream.clone(),
            login,
            tls,
        })
    }

    fn nats_login(&mut self, nats: &NatsSink) -> Option<NatsLogin> {
        if let (Some(user), Some(of)) = (&nats.username, &nats.password_secret) {
            let password = self.password(Some(of))??;
            return Some(NatsLogin::Password(user.clone(), password));
        }
        let one = |reader: &mut Self, of: &SecretKeyRef| {
            let value = reader.key(&of.name, &of.key)?;
            Some(Credential(value.trim().to_owned()))
        };
        match (
            &nats.token_secret,
            &nats.nkey_secret,
            &nats.credentials_secret,
        ) {
            (Some(of), _, _) => one(self, of).map(NatsLogin::Token),
            (_, Some(of), _) => one(self, of).map(NatsLogin::Nkey),
            (_, _, Some(of)) => one(self, of).map(NatsLogin::File),
            _ => Some(NatsLogin::None),
        }
    }

    pub(super) fn kafka(&mut self, kafka: &KafkaSink) -> Option<Kafka> {
        let brokers: Option<Vec<_>> = kafka.brokers.iter().map(|b| self.broker(b)).collect();
        let (bundle, secret) = (kafka.ca_bundle.as_deref(), kafka.tls_secret.as_ref());
        let tls = match kafka.allow_insecure {
            Some(true) => None,
            _ => Some(self.tls("spec.kafka", bundle, secret)?),
        };
        let login = match (&kafka.username, &kafka.password_secret) {
            (Some(username), Some(of)) => Some(KafkaLogin {
                mechanism: kafka.mechanism.unwrap_or_default(),
                username: username.clone(),
                password: self.password(Some(of))??,
            }),
            _ => None,
        };
        Some(Kafka {
            brokers: brokers?,
            topic: kafka.topic.clone(),
            login,
            compression: kafka.compression.unwrap_or_default(),
            tls,
        })
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    fn broker(&mut self, broker: &str) -> Option<(String, u16)> {
        let parts = broker.rsplit_once(':');
        let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port @ 1..)) = parts else {
            self.problem(format!("spec.kafka.brokers: {broker:?} is not HOST:PORT"));
            return None;
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if ServerName::try_from(host).is_err() {
            self.problem(format!(
                "spec.kafka.brokers: {host:?} is no name and no address"
            ));
            return None;
        }
        Some((host.to_owned(), port))
    }

    pub(in crate::settings) fn s3(&mut self, name: &str, s3: &S3Sink) -> Option<S3> {
        if let Some(endpoint) = &s3.endpoint {
            self.url("spec.s3", endpoint, s3.allow_insecure);
        }
        let (bundle, secret) = (s3.ca_bundle.as_deref(), s3.tls_secret.as_ref());
        let tls = self.tls("spec.s3", bundle, secret);
        let keys = &s3.credentials_secret.name;
        let (id, key) = (
            self.key(keys, "access-key-id"),
            self.key(keys, "secret-access-key"),
        );
        let prefix = match &s3.prefix {
            Some(prefix) => prefix.trim_end_matches('/').to_owned(),
            None => format!("chaperone/{name}"),
        };
        let credential = |value: String| Credential(value.trim().to_owned());
        let token = (self.secret)(keys, "session-token").map(credential);
        Some(S3 {
            bucket: s3.bucket.clone(),
            region: s3.region.as_deref().unwrap_or(S3_REGION).to_owned(),
            endpoint: s3
                .endpoint
                .as_deref()
                .map(|url| url.trim_end_matches('/').to_owned()),
            prefix,
            format: s3.format.unwrap_or_default(),
            key_id: id?.trim().to_owned(),
            key: credential(key?),
            token,
            tls: tls?,
        })
    }
}
