use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use chaperone_crds::{
    record::{DecisionInfo, Outcome},
    resources::Mode,
    snapshot::Revision,
};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::{
    commit::{Unheld, Why},
    dns::{Beginning, Hosts, Names, Ruling},
};

/// Denies names that begin with `no`, cannot record those that begin with `late` before they are asked, and keeps what looks wrong from those that begin with `wary`.
struct Strict;

impl Judge for Strict {
    fn query(&self, name: &str, _: &str) -> Option<Ruling> {
        let action = if name.starts_with("no") {
            Outcome::Deny
        } else {
            Outcome::Allow
        };
        Some(ruling(action))
    }

    fn begin<'a>(&'a self, name: &'a str, _: &'a str, _: &'a Ruling) -> Beginning<'a> {
        let begun = match name.starts_with("late") {
            true => Err(Unheld {
                begun: Some(7),
                why: Why::LedgerSlow,
            }),
            false => Ok(None),
        };
        Box::pin(std::future::ready(begun))
    }

    fn answer(
        &self,
        name: &str,
        _: &str,
        wrong: &[IpAddr],
        passed: Ruling,
    ) -> (Ruling, Vec<IpAddr>) {
        if name.starts_with("wary") {
            (ruling(Outcome::Deny), wrong.to_vec())
        } else {
            (passed, Vec::new())
        }
    }
}

fn ruling(action: Outcome) -> Ruling {
    Ruling {
        decision: DecisionInfo {
            action,
            would_deny: false,
            mode: Mode::Enforce,
            policy: Some("agents/names".to_owned()),
            rule: Some("no-such-names".to_owned()),
            revision: Revision::of(b""),
            reason: "rule".to_owned(),
            message: Some("Ask for another.".to_owned()),
        },
        error: None,
    }
}

const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// How a nameserver of these tests behaves.
#[derive(Clone, Copy, PartialEq)]
enum Nature {
    Honest,
    /// Precedes its answer by one with another id.
    Forging,
    /// Answers over UDP that the answer is too long.
    Truncating,
    Failing,
    /// Every name leads to the pod itself.
    Rebinding,
}

struct Setup {
    address: SocketAddr,
    resolver: Arc<Resolver>,
    events: mpsc::Receiver<DnsQuery>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

async fn serving(servers: Vec<SocketAddr>) -> Setup {
    let listeners = loop {
        let udp = std::net::UdpSocket::bind(LOCAL).unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            break DnsListeners {
                udp: vec![udp],
                tcp: vec![tcp],
            };
        }
    };
    let address = listeners.udp[0].local_addr().unwrap();
    let names = Arc::new(Names::new(Hosts::default()));
    let resolver = Arc::new(Resolver::with_servers(servers, None, names));
    let (sender, events) = mpsc::channel(1);
    let judge = Arc::new(Strict);
    let serving = tokio::spawn(serve(listeners, Arc::clone(&resolver), judge, sender));
    Setup {
        address,
        resolver,
        events,
        serving,
    }
}

fn response(query: &[u8], nature: Nature) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    let name = message.queries[0].name().clone();
    let end = Name::from_str("end.example.").unwrap();
    let data = match message.queries[0].query_type() {
        RecordType::A if nature == Nature::Rebinding => RData::A(A(Ipv4Addr::LOCALHOST)),
        RecordType::A => RData::A(A(Ipv4Addr::new(192, 0, 2, 80))),
        _ => RData::AAAA(AAAA("2001:db8::80".parse().unwrap())),
    };
    match nature {
        Nature::Failing => message.metadata.response_code = ResponseCode::ServFail,
        Nature::Truncating => message.metadata.truncation = true,
        Nature::Honest | Nature::Forging | Nature::Rebinding => {
            message.add_answer(Record::from_rdata(
                name,
                0,
                RData::CNAME(CNAME(end.clone())),
            ));
            message.add_answer(Record::from_rdata(end, 0, data));
        }
    }
    message.to_vec().unwrap()
}

async fn nameserver(nature: Nature) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind(LOCAL).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            let answer = response(&buffer[..length], nature);
            if matches!(nature, Nature::Forging) {
                let mut forged = answer.clone();
                forged[0] ^= 1;
                udp.send_to(&forged, peer).await.unwrap();
            }
            udp.send_to(&answer, peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let query = read_message(&mut stream).await.unwrap().unwrap();
            write_message(&mut stream, &response(&query, Nature::Honest))
                .await
                .unwrap();
        }
    });
    address
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::UdpSocket::bind(LOCAL)
        .unwrap()
        .local_addr()
        .unwrap()
}

fn query(name: &str) -> Vec<u8> {
    Question::write(77, &Name::from_str(name).unwrap(), RecordType::A)
        .unwrap()
        .1
}

async fn ask(address: SocketAddr, message: &[u8]) -> Vec<u8> {
    let reply = ask_within(address, message, Duration::from_secs(10)).await;
    reply.expect("the resolver answers")
}

async fn ask_in_vain(address: SocketAddr, message: &[u8]) {
    assert_eq!(
        ask_within(address, message, Duration::from_millis(300)).await,
        None
    );
}

async fn ask_within(address: SocketAddr, message: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    socket.connect(address).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = vec![0; 4096];
    match timeout(wait, socket.recv(&mut buffer)).await {
        Ok(Ok(length)) => Some(buffer[..length].to_vec()),
        // Nobody listens any more, or nothing came.
        Ok(Err(_)) | Err(_) => None,
    }
}

#[tokio::test]
async fn an_answer_is_forwarded_as_it_is_recorded_and_remembered() {
    let server = nameserver(Nature::Honest).await;
    let mut setup = serving(vec![server]).await;
    let message = query("Api.Example.");
    let reply = ask(setup.address, &message).await;
    assert_eq!(reply, response(&message, Nature::Honest));
    let event = setup.events.recv().await.unwrap();
    assert_eq!(
        (event.name.as_str(), event.query_type.as_str()),
        ("api.example", "A")
    );
    assert_eq!((event.rcode, event.server), ("NOERROR", Some(server)));
    assert_eq!(event.transport, DnsTransport::Udp);
    let address = IpAddr::from([192, 0, 2, 80]);
    assert_eq!(event.answers, [address]);
    assert!(setup.resolver.names().agrees("api.example", address));
    assert!(
        !setup.resolver.names().agrees("end.example", address),
        "only an alias said so"
    );
}

#[tokio::test]
async fn tcp_queries_are_answered_over_tcp_one_after_the_other() {
    let mut setup = serving(vec![nameserver(Nature::Truncating).await]).await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    for name in ["one.example.", "two.example."] {
        write_message(&mut stream, &query(name)).await.unwrap();
        let reply = read_message(&mut stream).await.unwrap().unwrap();
        assert_eq!(reply, response(&query(name), Nature::Honest));
        let event = setup.events.recv().await.unwrap();
        assert_eq!(event.transport, DnsTransport::Tcp);
    }
}

#[tokio::test]
async fn a_truncated_answer_stays_one_so_that_the_client_comes_back_over_tcp() {
    let setup = serving(vec![nameserver(Nature::Truncating).await]).await;
    let reply = ask(setup.address, &query("long.example.")).await;
    assert!(Message::from_vec(&reply).unwrap().metadata.truncation);
}

#[tokio::test]
async fn a_forged_answer_is_not_taken() {
    let setup = serving(vec![nameserver(Nature::Forging).await]).await;
    let reply = ask(setup.address, &query("api.example.")).await;
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.id, 77);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_dead_or_failing() {
    for first in [nobody(), nameserver(Nature::Failing).await] {
        let second = nameserver(Nature::Honest).await;
        let mut setup = serving(vec![first, second]).await;
        ask(setup.address, &query("api.example.")).await;
        let event = setup.events.recv().await.unwrap();
        assert_eq!((event.rcode, event.server), ("NOERROR", Some(second)));
    }
}

#[tokio::test]
async fn without_a_server_the_answer_is_servfail() {
    let mut setup = serving(vec![nobody()]).await;
    let reply = Message::from_vec(&ask(setup.address, &query("a.example.")).await);
    assert_eq!(
        reply.unwrap().metadata.response_code,
        ResponseCode::ServFail
    );
    let event = setup.events.recv().await.unwrap();
    assert_eq!((event.rcode, event.server), ("SERVFAIL", None));
}

#[tokio::test]
async fn a_query_that_must_be_recorded_first_and_cannot_be_is_not_asked() {
    let mut setup = serving(vec![nameserver(Nature::Honest).await]).await;
    let reply = Message::from_vec(&ask(setup.address, &query("late.example.")).await);
    assert_eq!(
        reply.unwrap().metadata.response_code,
        ResponseCode::ServFail
    );
    let event = setup.events.recv().await.unwrap();
    assert_eq!((event.rcode, event.server), ("SERVFAIL", None));
    assert_eq!(event.begun, Some(7), "what was recorded first");
    let error = event.ruling.and_then(|ruling| ruling.error).unwrap();
    assert!(error.contains("did not acknowledge"), "{error}");
}

#[tokio::test]
async fn what_is_not_a_query_gets_an_error_or_silence_and_an_event() {
    let mut setup = serving(vec![nobody()]).await;
    let mut cut = query("a.example.");
    cut.truncate(15);
    let reply = Message::from_vec(&ask(setup.address, &cut).await).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(setup.events.recv().await.unwrap().rcode, "FORMERR");
    let response = response(&query("a.example."), Nature::Failing);
    ask_in_vain(setup.address, &response).await;
    assert_eq!(setup.events.recv().await.unwrap().rcode, "FORMERR");
    let mut transfer = query("zone.example.");
    let kind = transfer.len() - 3;
    transfer[kind] = 252;
    let reply = Message::from_vec(&ask(setup.address, &transfer).await).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(setup.events.recv().await.unwrap().name, "zone.example");
}

#[tokio::test]
async fn a_denied_name_is_refused_without_asking_anybody_and_the_client_is_told_why() {
    let mut setup = serving(vec![nobody()]).await;
    let mut message = Message::from_vec(&query("no.example.")).unwrap();
    message.set_edns(hickory_proto::op::Edns::new());
    let reply = ask(setup.address, &message.to_vec().unwrap()).await;
    let read = Message::from_vec(&reply).unwrap();
    assert_eq!(read.metadata.response_code, ResponseCode::Refused);
    let told = String::from_utf8_lossy(&reply);
    assert!(
        told.contains("denied by policy agents/names, rule no-such-names: Ask for another."),
        "{told}"
    );
    let event = setup.events.recv().await.unwrap();
    assert_eq!((event.rcode, event.server), ("REFUSED", None));
    assert_eq!(event.ruling, Some(ruling(Outcome::Deny)));
}

#[tokio::test]
async fn an_address_that_is_kept_from_the_client_is_not_remembered_either() {
    let mut setup = serving(vec![nameserver(Nature::Rebinding).await]).await;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (name, kept) in [("wary.example", true), ("trusting.example", false)] {
        let reply = ask(setup.address, &query(&format!("{name}."))).await;
        let answers = Message::from_vec(&reply).unwrap().answers;
        let given = answers
            .iter()
            .any(|record| matches!(record.data, RData::A(_)));
        assert_eq!(given, !kept, "{name}");
        let event = setup.events.recv().await.unwrap();
        assert_eq!(
            (event.withheld == [local], event.answers == [local]),
            (kept, !kept)
        );
        assert_eq!(setup.resolver.names().agrees(name, local), !kept);
    }
}

#[tokio::test]
async fn an_answer_waits_for_its_event_and_none_comes_without_a_recorder() {
    let mut setup = serving(vec![nameserver(Nature::Honest).await]).await;
    ask(setup.address, &query("first.example.")).await;
    // The channel is full now.
    ask_in_vain(setup.address, &query("second.example.")).await;
    setup.events.recv().await.unwrap();
    assert_eq!(setup.events.recv().await.unwrap().name, "second.example");
    drop(setup.events);
    setup.serving.await.unwrap().unwrap();
    ask_in_vain(setup.address, &query("third.example.")).await;
}

#[tokio::test]
async fn a_name_can_be_looked_up_now() {
    let setup = serving(vec![nameserver(Nature::Honest).await]).await;
    let found = setup.resolver.addresses("api.example").await.unwrap();
    assert_eq!(
        found,
        [
            IpAddr::from([192, 0, 2, 80]),
            "2001:db8::80".parse().unwrap()
        ]
    );
    assert!(setup.resolver.names().agrees("api.example", found[1]));
    let error = setup.resolver.addresses("a..b").await.unwrap_err();
    assert!(error.to_string().contains("not a domain name"), "{error}");
    let dead = Resolver::with_servers(vec![nobody()], None, Arc::clone(setup.resolver.names()));
    let error = dead.addresses("api.example").await.unwrap_err();
    assert!(
        error.to_string().contains("no nameserver answered"),
        "{error}"
    );
}
