//! What is read of an `AuditSink`, and what is said of one that cannot be used.

use serde_json::{Value, json};

use super::*;

fn spec(value: Value) -> AuditSinkSpec {
    serde_json::from_value(value).unwrap()
}

fn secret(name: &str, key: &str) -> Option<String> {
    match (name, key) {
        ("collector", "token") => Some("s3cret\n".to_owned()),
        ("broken", _) => Some("line\nbreak-hunter2".to_owned()),
        _ => None,
    }
}

#[test]
fn a_sink_is_read_with_its_credentials_which_are_never_printed() {
    let spec = spec(json!({
        "from": "Ledger", "format": "OCSF", "filter": "record.seq > 1", "start": "Now", "batch": {"bytes": 4096, "waitMilliseconds": 0},
        "http": {"url": "https://c.example/in", "bearerTokenSecret": {"name": "collector", "key": "token"}, "batchSize": 7}
    }));
    let sink = Sink::read("s", &spec, &secret).unwrap();
    let batch = Batch {
        records: 7,
        bytes: 4096,
        wait: Duration::ZERO,
    };
    assert_eq!(
        (sink.batch, sink.start, sink.format),
        (batch, SinkStart::Now, Format::Ocsf)
    );
    let Target::Http(http) = &sink.target else {
        panic!("{sink:?}");
    };
    assert_eq!(http.bearer, Some(Credential("s3cret".to_owned())));
    assert!(!format!("{sink:?}").contains("s3cret"), "{sink:?}");
    assert_eq!(Sink::check(&spec), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_sink_is_said_apart_from_what_its_secrets_lack() {
    let http = |more: Value| {
        let mut http = json!({"url": "https://c.example/in"});
        http.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"from": "Ledger", "http": http})
    };
    let cases = [
        (
            json!({"stdout": {}}),
            Some("delivered by the sidecars"),
            None,
        ),
        (
            json!({"http": {"url": "https://c.example/"}}),
            Some("add from: Ledger"),
            None,
        ),
        (
            http(json!({"url": "http://c.example/in"})),
            Some("in clear"),
            None,
        ),
        (
            http(json!({"url": "https://u:p@c.example/in"})),
            Some("spec.http.url"),
            None,
        ),
        (http(json!({"caBundle": "x"})), Some("caBundle"), None),
        (
            http(json!({"bearerTokenSecret": {"name": "gone", "key": "t"}})),
            None,
            Some("Secret gone"),
        ),
        (
            http(json!({"bearerTokenSecret": {"name": "broken", "key": "t"}})),
            None,
            Some("no header can have"),
        ),
        (
            http(json!({"tlsSecret": {"name": "gone"}})),
            None,
            Some("no key tls.crt"),
        ),
        (
            http(json!({"tlsSecret": {"name": "broken"}})),
            None,
            Some("Secret broken: "),
        ),
        (
            json!({"otlp": {"url": "http://c.example:4318"}}),
            Some("in clear"),
            None,
        ),
        (
            json!({"otlp": {"url": "https://c.example:4317/v1", "protocol": "GRPC"}}),
            Some("gRPC has no path"),
            None,
        ),
        (
            json!({"otlp": {"url": "https://c.example:4317", "tlsSecret": {"name": "gone"}}}),
            None,
            Some("no key tls.crt"),
        ),
        (
            json!({"syslog": {"host": "no host"}}),
            Some("spec.syslog.host"),
            None,
        ),
        (
            json!({"syslog": {"host": "logs.example", "caBundle": "x"}}),
            Some("spec.syslog"),
            None,
        ),
        (
            json!({"postgres": {"host": "db", "database": "d", "user": "u", "passwordSecret": {"name": "gone", "key": "p"}}}),
            None,
            Some("Secret gone"),
        ),
        (
            json!({"elasticsearch": {"url": "http://search.example:9200"}}),
            Some("in clear"),
            None,
        ),
        (
            json!({"elasticsearch": {"url": "https://search.example", "apiKeySecret": {"name": "broken", "key": "k"}}}),
            None,
            Some("no header can have"),
        ),
        (
            json!({"splunk": {"url": "https://splunk.example:8088", "tokenSecret": {"name": "gone", "key": "t"}}}),
            None,
            Some("Secret gone"),
        ),
        (
            json!({"loki": {"url": "http://loki.example:3100"}}),
            Some("in clear"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "labels": {"cluster-name": "prod"}}}),
            Some("\"cluster-name\" is no name of a label"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "labels": {"__name__": "x"}}}),
            Some("is no name of a label"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "labels": {"kind": "x"}}}),
            Some("what entries have of their records"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "labels": {"cluster": ""}}}),
            Some("has no value"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "labels": {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1", "f": "1", "g": "1", "h": "1", "i": "1", "j": "1", "k": "1"}}}),
            Some("at most 10"),
            None,
        ),
        (
            json!({"loki": {"url": "https://loki.example", "bearerTokenSecret": {"name": "gone", "key": "t"}}}),
            None,
            Some("Secret gone"),
        ),
        (
            json!({"nats": {"host": "nats", "nkeySecret": {"name": "gone", "key": "seed"}}}),
            None,
            Some("Secret gone"),
        ),
        (
            json!({"kafka": {"brokers": ["kafka.example:9093"], "topic": "t", "username": "u", "passwordSecret": {"name": "gone", "key": "p"}}}),
            None,
            Some("Secret gone"),
        ),
        (
            json!({"kafka": {"brokers": ["kafka.example:9093", "kafka.example:0"], "topic": "t"}}),
            Some("is not HOST:PORT"),
            None,
        ),
        (
            json!({"kafka": {"brokers": ["a b:9093"], "topic": "t"}}),
            Some("is no name and no address"),
            None,
        ),
        (
            json!({"s3": {"bucket": "audit", "endpoint": "http://s3.example", "credentialsSecret": {"name": "collector"}}}),
            Some("in clear"),
            Some("no key access-key-id"),
        ),
        (
            json!({"format": "ECS", "s3": {"bucket": "audit", "format": "Parquet", "credentialsSecret": {"name": "gone"}}}),
            Some("Parquet holds the record itself"),
            Some("Secret gone"),
        ),
        (
            json!({"from": "Ledger", "filter": "record.sq > 1", "http": {"url": "https://c.example/"}}),
            Some("spec.filter, line 1"),
            None,
        ),
    ];
    for (value, problem, lacks) in cases {
        let spec = spec(value.clone());
        let problems = Sink::check(&spec);
        assert_eq!(
            problems.is_empty(),
            problem.is_none(),
            "{value} {problems:?}"
        );
        assert!(
            problems.concat().contains(problem.unwrap_or_default()),
            "{value} {problems:?}"
        );
        let missing = Sink::missing(&spec, &secret);
        assert_eq!(missing.is_empty(), lacks.is_none(), "{value} {missing:?}");
        assert!(
            missing.concat().contains(lacks.unwrap_or_default()),
            "{value} {missing:?}"
        );
        let all = Sink::read("s", &spec, &secret).unwrap_err().concat();
        assert!(!all.contains("hunter2"), "{all}");
    }
    for name in ["", "../x", ".x", "a/b", "A", &"a".repeat(64)] {
        let good = spec(json!({"from": "Ledger", "http": {"url": "https://c.example/"}}));
        assert!(Sink::read(name, &good, &secret).is_err(), "{name}");
    }
}

#[test]
fn credentials_of_searching_kinds_are_headers_in_their_schemes() {
    let key = json!({"name": "collector", "key": "token"});
    let cases = [
        (
            json!({"username": "u", "passwordSecret": key}),
            "Basic dTpzM2NyZXQ=",
        ),
        (json!({"apiKeySecret": key}), "ApiKey s3cret"),
        (json!({"bearerTokenSecret": key}), "Bearer s3cret"),
    ];
    for (more, expected) in cases {
        let mut elasticsearch = json!({"url": "https://search.example"});
        let all = elasticsearch.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        let spec = spec(json!({"elasticsearch": elasticsearch}));
        let Target::Elasticsearch(read) = Sink::read("s", &spec, &secret).unwrap().target else {
            panic!("{spec:?}");
        };
        assert_eq!(read.authorization, Some(Credential(expected.to_owned())));
        assert_eq!(read.index, "chaperone-records");
    }
    let loki = json!({"url": "https://loki.example", "tenant": "audit", "labels": {"cluster": "prod"}, "username": "u", "passwordSecret": key});
    let sink = Sink::read("s", &spec(json!({"loki": loki})), &secret).unwrap();
    let Target::Loki(read) = &sink.target else {
        panic!("{sink:?}");
    };
    let basic = Credential("Basic dTpzM2NyZXQ=".to_owned());
    assert_eq!(read.authorization, Some(basic));
    assert!(!read.structured_metadata && read.tenant.as_deref() == Some("audit"));
    let splunk = spec(json!({"splunk": {"url": "https://s.example", "tokenSecret": key}}));
    let sink = Sink::read("s", &splunk, &secret).unwrap();
    assert_eq!((sink.batch.records, sink.batch.bytes), (5000, 4 << 20));
    assert!(!format!("{sink:?}").contains("s3cret"), "{sink:?}");
}

#[test]
fn brokers_are_names_and_addresses_and_a_login_is_by_proof_unless_it_says_otherwise() {
    let kafka = json!({"brokers": ["kafka.example:9093", "[::1]:9094", "10.0.0.1:1"], "topic": "t", "username": "u", "passwordSecret": {"name": "collector", "key": "token"}});
    let spec = spec(json!({"kafka": kafka}));
    let sink = Sink::read("s", &spec, &secret).unwrap();
    let Target::Kafka(read) = &sink.target else {
        panic!("{spec:?}");
    };
    let brokers = [("kafka.example", 9093), ("::1", 9094), ("10.0.0.1", 1)];
    assert_eq!(
        read.brokers,
        brokers.map(|(host, port)| (host.to_owned(), port))
    );
    let login = read.login.as_ref().unwrap();
    assert_eq!(login.mechanism.name(), "SCRAM-SHA-512");
    assert!(!format!("{sink:?}").contains("s3cret"), "{sink:?}");
}
