//! The resolver behind the capture rules, in network namespaces. Needs root and
//! the tools `ip` and `nft`.

#![allow(clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chaperone_crds::pod::{DNS_PORT, EGRESS_MARK};
use chaperone_crds::{
    record::{DecisionInfo, Outcome},
    resources::Mode,
    snapshot::Revision,
};
use chaperone_sidecar::capture::{CaptureConfig, CaptureMode, Exempt, dial, install};
use chaperone_sidecar::dns::{
    Beginning, DnsListeners, Hosts, Judge, Names, ResolvConf, Resolver, Ruling, serve,
};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netns::{OUTSIDE, World, at};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Lets everything pass: what policy says is not these tests' matter.
struct Lenient;

impl Judge for Lenient {
    fn query(&self, _: &str, _: &str) -> Option<Ruling> {
        Some(Ruling {
            decision: DecisionInfo {
                action: Outcome::Allow,
                would_deny: false,
                mode: Mode::Audit,
                policy: None,
                rule: None,
                revision: Revision::of(b""),
                reason: "default".to_owned(),
                message: None,
            },
            error: None,
        })
    }

    fn begin<'a>(&'a self, _: &'a str, _: &'a str, _: &'a Ruling) -> Beginning<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn answer(&self, _: &str, _: &str, _: &[IpAddr], passed: Ruling) -> (Ruling, Vec<IpAddr>) {
        (passed, Vec::new())
    }
}

/// A nameserver outside that has one address for every name.
fn nameserver(world: &World) {
    let socket = world
        .outside
        .run(|| std::net::UdpSocket::bind((OUTSIDE, 53)).unwrap());
    let listener = world
        .outside
        .run(|| std::net::TcpListener::bind((OUTSIDE, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&response(&buffer[..length]), peer).unwrap();
        }
    });
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            stream.write_all(&framed(&response(&query))).unwrap();
        }
    });
}

fn response(query: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    let name = message.queries[0].name().clone();
    message.add_answer(Record::from_rdata(
        name,
        5,
        RData::A(A([203, 0, 113, 5].into())),
    ));
    message.to_vec().unwrap()
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name.parse::<Name>().unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

async fn ask_udp(target: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(target).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = vec![0; 512];
    let length = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut buffer))
        .await
        .expect("the resolver answers")
        .unwrap();
    buffer[..length].to_vec()
}

async fn ask_tcp(target: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = dial(target, None).await.unwrap();
    stream.write_all(&framed(message)).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

#[test]
fn whatever_nameserver_the_agent_asks_the_configured_one_answers_and_it_is_recorded() {
    let world = World::new();
    nameserver(&world);
    world.pod.run_async(|| async {
        let mut config = CaptureConfig::pod(CaptureMode::Enforce);
        // This process serves and asks as root, so root stands for the sidecar.
        config.exempt = Some(Exempt {
            mark: EGRESS_MARK,
            uid: 0,
        });
        install(&config).unwrap();
        let names = Arc::new(Names::new(Hosts::default()));
        let conf = ResolvConf::parse(format!("nameserver {OUTSIDE}").as_bytes()).unwrap();
        let resolver = Arc::new(Resolver::new(&conf, Some(EGRESS_MARK), Arc::clone(&names)));
        let listeners = DnsListeners::bind_loopback(DNS_PORT).unwrap();
        assert_eq!(listeners.udp.len(), 2, "both address families");
        let (sender, mut events) = mpsc::channel(64);
        tokio::spawn(serve(listeners, resolver, Arc::new(Lenient), sender));
        for (number, server) in [OUTSIDE, "198.51.100.1", "127.0.0.53"]
            .into_iter()
            .enumerate()
        {
            let message = query(&format!("name-{number}.example."));
            assert_eq!(
                ask_udp(at(server, 53), &message).await,
                response(&message),
                "{server}"
            );
            assert_eq!(
                ask_tcp(at(server, 53), &message).await,
                response(&message),
                "{server}"
            );
            for _ in 0..2 {
                let event = events.recv().await.unwrap();
                assert_eq!(event.name, format!("name-{number}.example"));
                assert_eq!(event.server, Some(at(OUTSIDE, 53)));
            }
        }
        assert!(names.agrees("name-2.example", IpAddr::from([203, 0, 113, 5])));
    });
}
