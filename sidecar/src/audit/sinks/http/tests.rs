//! The HTTP sink against a real endpoint, alone and as part of the evidence path.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::{Duration, Instant},
};

use chaperone_crds::{
    control::SinkConfig,
    verify::{Start, verify},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::audit::{
    HostNet, NetFuture,
    tests::{Collector, PATIENCE, Reply, config, event, metric, scratch, start_with},
};

fn target(url: &str) -> SinkTarget {
    SinkTarget::Http {
        url: url.to_owned(),
        bearer: None,
        client_cert: None,
        client_key: None,
        ca_bundle: None,
        batch_size: 100,
    }
}

fn sink(target: &SinkTarget) -> HttpSink {
    HttpSink::new(target, Format::Native, Arc::new(HostNet), "0.1.0").unwrap()
}

fn named(target: SinkTarget) -> Vec<SinkConfig> {
    let name = "http".to_owned();
    let format = Format::Native;
    vec![SinkConfig {
        name,
        target,
        format,
        filter: None,
    }]
}

/// A CA, and what it issued: certificate and key as PEM.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, clients: Option<&Self>) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.issue("localhost");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = builder.with_single_cert(vec![certificate], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test]
async fn batches_have_at_most_their_size_and_every_record_is_acknowledged_in_order() {
    let dir = scratch("http-batches");
    let collector = Collector::start(None, |_, _| Reply::Accept).await;
    let (recorder, handle, _) = start_with(config(&dir)).await;
    let url = format!("http://{}/in", collector.address);
    handle.set_sinks(named(target(&url))).unwrap();
    for number in 0..1000 {
        recorder.record(event(number)).await;
    }
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    let report = verify(&collector.lines()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!((report.records(), report.streams[0].copies), (1002, 0));
    assert!(collector.batches().iter().all(|n| *n <= 100));
}

#[tokio::test]
async fn an_endpoint_gets_every_record_in_the_format_that_its_sink_asks_for() {
    for (format, batch_size) in [
        (Format::CloudEvents, 1),
        (Format::CloudEvents, 40),
        (Format::Ocsf, 40),
        (Format::Ecs, 40),
    ] {
        let dir = scratch(&format!("http-{format}-{batch_size}"));
        let collector = Collector::start(None, |request, _| match request {
            0 => Reply::AcceptAndHangUp,
            _ => Reply::Accept,
        })
        .await;
        let (recorder, handle, _) = start_with(config(&dir)).await;
        let mut sinks = named(target(&format!("http://{}/", collector.address)));
        sinks[0].format = format;
        if let SinkTarget::Http { batch_size: b, .. } = &mut sinks[0].target {
            *b = batch_size;
        }
        handle.set_sinks(sinks).unwrap();
        for number in 0..100 {
            recorder.record(event(number)).await;
        }
        assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
        // Each body is one array, one event, or lines of events.
        let body = collector.lines();
        let events: Vec<serde_json::Value> = match (format, batch_size) {
            (Format::CloudEvents, 40) => serde_json::Deserializer::from_slice(&body)
                .into_iter::<Vec<serde_json::Value>>()
                .flat_map(Result::unwrap)
                .collect(),
            _ => serde_json::Deserializer::from_slice(&body)
                .into_iter()
                .map(Result::unwrap)
                .collect(),
        };
        let seq = |event: &serde_json::Value| match format {
            Format::CloudEvents => event["data"]["seq"].as_u64().unwrap(),
            Format::Ocsf => event["metadata"]["sequence"].as_u64().unwrap(),
            _ => event["event"]["sequence"].as_u64().unwrap(),
        };
        let mut seen: Vec<u64> = events.iter().map(seq).collect();
        assert!(seen.len() > 102, "the first batch came twice");
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.into_iter().eq(0..102), "{format}");
        let expected = match (format, batch_size) {
            (Format::CloudEvents, 1) => "application/cloudevents+json; charset=utf-8",
            (Format::CloudEvents, _) => "application/cloudevents-batch+json; charset=utf-8",
            _ => "application/x-ndjson",
        };
        assert!(collector.media_types().iter().all(|m| m == expected));
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_now_and_then_gets_everything_all_the_same() {
    let dir = scratch("http-failures");
    let collector = Collector::start(None, |request, _| match request % 4 {
        0 => Reply::Refuse(503, Vec::new()),
        1 => Reply::AcceptAndHangUp,
        2 => Reply::Refuse(429, vec![("retry-after", "0".to_owned())]),
        _ => Reply::Accept,
    })
    .await;
    let (recorder, handle, registry) = start_with(config(&dir)).await;
    let url = format!("http://{}/", collector.address);
    handle.set_sinks(named(target(&url))).unwrap();
    for number in 0..300 {
        recorder.record(event(number)).await;
    }
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    let report = verify(&collector.lines()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), 302);
    assert!(report.streams[0].copies > 0, "hanging up makes copies");
    assert!(metric(&registry, "chaperone_audit_sink_errors_total") > 0.0);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let dir = scratch("http-413");
    let collector = Collector::start(None, |_, lines| match lines {
        0..20 => Reply::Accept,
        _ => Reply::Refuse(413, Vec::new()),
    })
    .await;
    let (recorder, handle, _) = start_with(config(&dir)).await;
    for number in 0..100 {
        recorder.record(event(number)).await;
    }
    let _ = recorder.record_durable(event(100)).await.unwrap();
    let url = format!("http://{}/", collector.address);
    handle.set_sinks(named(target(&url))).unwrap();
    assert_eq!(handle.close("terminated", PATIENCE).await.undelivered, 0);
    let report = verify(&collector.lines()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
}

#[tokio::test]
async fn a_connection_serves_many_batches_and_carries_the_token() {
    let dialled = Arc::new(Mutex::new(0));
    let collector = Collector::start(None, |_, _| Reply::Accept).await;
    let mut target = target(&format!("http://{}/", collector.address));
    if let SinkTarget::Http { bearer, .. } = &mut target {
        *bearer = Some("secret-token\n".to_owned());
    }
    let net = Arc::new(Counting(dialled.clone()));
    let mut sink = HttpSink::new(&target, Format::Native, net, "0.1.0").unwrap();
    for _ in 0..3 {
        sink.deliver(b"{}\n").await.unwrap();
    }
    assert_eq!(*dialled.lock().unwrap(), 1);
    let token = Some("Bearer secret-token".to_owned());
    assert_eq!(collector.authorization(), vec![token; 3]);
    assert_eq!(collector.requests(), 3);
}

struct Counting(Arc<Mutex<u32>>);

impl SinkNet for Counting {
    fn resolve<'a>(&'a self, host: &'a str) -> NetFuture<'a, Vec<IpAddr>> {
        HostNet.resolve(host)
    }

    fn dial(&self, address: SocketAddr) -> NetFuture<'_, TcpStream> {
        *self.0.lock().unwrap() += 1;
        HostNet.dial(address)
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_when_it_is_in_the_bundle() {
    let authority = Authority::new();
    let collector = Collector::start(Some(authority.server(None)), |_, _| Reply::Accept).await;
    let url = format!("https://localhost:{}/", collector.address.port());
    let error = sink(&target(&url)).deliver(b"{}\n").await.unwrap_err();
    assert_eq!(error.reason(), "tls", "{error}");
    let mut trusting = target(&url);
    if let SinkTarget::Http { ca_bundle, .. } = &mut trusting {
        *ca_bundle = Some(authority.pem.clone());
    }
    sink(&trusting).deliver(b"{}\n").await.unwrap();
    assert_eq!(collector.lines(), b"{}\n");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_there_is_one() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let tls = servers.server(Some(&clients));
    let collector = Collector::start(Some(tls), |_, _| Reply::Accept).await;
    let url = format!("https://localhost:{}/", collector.address.port());
    let mut target = target(&url);
    let SinkTarget::Http {
        ca_bundle,
        client_cert,
        client_key,
        ..
    } = &mut target
    else {
        unreachable!()
    };
    *ca_bundle = Some(servers.pem.clone());
    let (certificate, key) = clients.issue("sidecar");
    *client_cert = Some(certificate);
    *client_key = Some(key);
    sink(&target).deliver(b"{}\n").await.unwrap();
    if let SinkTarget::Http {
        client_cert,
        client_key,
        ..
    } = &mut target
    {
        (*client_cert, *client_key) = (None, None);
    }
    sink(&target).deliver(b"{}\n").await.unwrap_err();
    assert_eq!(collector.requests(), 1);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let unusable = |change: fn(&mut SinkTarget)| {
        let mut bad = target("https://localhost/");
        change(&mut bad);
        let made = HttpSink::new(&bad, Format::Native, Arc::new(HostNet), "0.1.0");
        made.err().expect("unusable").to_string()
    };
    let message = unusable(|t| {
        if let SinkTarget::Http { ca_bundle, .. } = t {
            *ca_bundle = Some("no pem".to_owned());
        }
    });
    assert!(message.contains("caBundle"), "{message}");
    let message = unusable(|t| {
        if let SinkTarget::Http { client_cert, .. } = t {
            *client_cert = Some("cert without key".to_owned());
        }
    });
    assert!(message.contains("together"), "{message}");
    let message = unusable(|t| {
        if let SinkTarget::Http { bearer, .. } = t {
            *bearer = Some("line\nbreak-hunter2".to_owned());
        }
    });
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_a_connect_failure_and_one_that_refuses_needs_a_person() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let began = Instant::now();
    let away = sink(&target(&url)).deliver(b"{}\n").await.unwrap_err();
    assert_eq!((away.reason(), away.needs_a_person()), ("connect", false));
    assert!(began.elapsed() < Duration::from_secs(5));

    let collector = Collector::start(None, |_, _| Reply::Refuse(403, Vec::new())).await;
    let url = format!("http://{}/", collector.address);
    let refused = sink(&target(&url)).deliver(b"{}\n").await.unwrap_err();
    assert_eq!(refused.reason(), "unauthorized");
    assert!(refused.needs_a_person());
    assert!(refused.to_string().contains("403: not now"), "{refused}");
}
