//! A name with addresses of both families, whose server listens on one only: the agent connects to the other.

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use captured::DUAL;
use chaperone_crds::record::DestinationInfo;
use h2::{client as h2_client, server as h2_server};
use http::{Request, Response};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::*;

/// The server's port at the address of the other family, where nothing listens.
fn other(upstream: &Upstream) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::LOCALHOST.into(), upstream.address.port())
}

fn destination(record: &Record) -> &DestinationInfo {
    record.event.destination.as_ref().unwrap()
}

/// The address that the connection went to, and the one that the agent connected to.
fn places(record: &Record) -> (&str, Option<&str>) {
    let destination = destination(record);
    (&destination.ip, destination.original_ip.as_deref())
}

/// A rule in Enforce that denies everything to the address where the server is.
fn not_there() -> String {
    policy(
        "Enforce",
        "  defaultAction: Allow\n  rules:\n    - name: not-there\n      match: {hosts: [\"127.0.0.0/8\"]}\n      action: Deny\n",
    )
}

/// What the agent hears that says this at once.
async fn heard(world: &mut World, said: &str) -> io::Result<String> {
    let mut agent = world.dial().await;
    agent.write_all(said.as_bytes()).await?;
    let mut heard = Vec::new();
    agent.read_to_end(&mut heard).await?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test]
async fn over_tls_the_address_that_takes_the_connection_is_judged_and_recorded() {
    for (policies, answer) in [(String::new(), ANSWER), (not_there(), "HTTP/1.1 403")] {
        let upstream = Upstream::tls(DUAL).await;
        let mut world = World::new(&policies, &upstream.root, other(&upstream));
        let root = world.root.clone();
        let close = format!("GET / HTTP/1.1\r\nHost: {DUAL}\r\nConnection: close\r\n\r\n");
        let heard = world.ask(&root, DUAL, &[], &close).await.unwrap();
        assert!(heard.starts_with(answer), "{heard}");
        let records = world.records().await;
        assert_eq!(records.len(), 1);
        assert_eq!(places(&records[0]), ("127.0.0.1", Some("::1")));
    }
}

#[tokio::test]
async fn what_passes_unread_over_tls_is_asked_about_again_for_the_other_address() {
    for (address, passes) in [("192.0.2.0/24", true), ("127.0.0.0/8", false)] {
        let upstream = Upstream::tls(DUAL).await;
        let policies = policy(
            "Enforce",
            &format!(
                "  defaultAction: Allow\n  tls: {{passthrough: [{DUAL}]}}\n  rules:\n    - name: not-there\n      match: {{hosts: [\"{address}\"]}}\n      action: Deny\n"
            ),
        );
        let mut world = World::new(&policies, "", other(&upstream));
        let heard = world.ask(&upstream.root, DUAL, &[], &get(DUAL)).await;
        assert_eq!(heard.is_ok_and(|heard| heard == ANSWER), passes);
        let records = world.records().await;
        assert_eq!(gaps(&records).len(), if passes { 2 } else { 1 });
        assert_eq!(action(&records[0]) == Outcome::Allow, passes);
        assert_eq!(places(&records[0]), ("127.0.0.1", Some("::1")));
    }
}

#[tokio::test]
async fn in_clear_text_a_request_is_judged_again_with_its_body_before_the_other_address_is_dialled()
{
    let reads = "    - name: no-drop\n      match: {protocols: [http]}\n      when: has(http.body) && http.body.action == \"drop\"\n      action: Deny\n";
    let allowing = policy(
        "Enforce",
        &format!("  defaultAction: Allow\n  rules:\n{reads}"),
    );
    let post = format!(
        "POST / HTTP/1.1\r\nHost: {DUAL}\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    );
    let (head, body) = ("c;x=1\r\n", "{\"action\":1}\r\n0\r\nX-Sum: 7\r\n\r\n");
    for (policies, answer) in [
        (allowing.clone(), ANSWER),
        (format!("{}{reads}", not_there()), "HTTP/1.1 403"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut at = listener.local_addr().unwrap();
        at.set_ip(Ipv6Addr::LOCALHOST.into());
        let mut world = World::new(&policies, "", at);
        let mut agent = world.dial().await;
        agent
            .write_all(format!("{post}{head}{body}").as_bytes())
            .await
            .unwrap();
        let allowed = answer == ANSWER;
        if allowed {
            let (mut server, _) = listener.accept().await.unwrap();
            let whole = format!("{post}{head}{body}").len();
            let mut asked = vec![0; whole];
            server.read_exact(&mut asked).await.unwrap();
            let asked = String::from_utf8(asked).unwrap();
            assert!(asked.ends_with(&format!("{head}{body}")), "{asked}");
            server.write_all(ANSWER.as_bytes()).await.unwrap();
        } else {
            agent.shutdown().await.unwrap();
        }
        let mut heard = String::new();
        agent.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with(answer), "{heard}");
        let records = world.records().await;
        assert_eq!(records.len(), 1);
        assert_eq!(places(&records[0]), ("127.0.0.1", Some("::1")));
        assert_eq!(records[0].event.http.as_ref().unwrap().request_bytes, 12);
        if !allowed {
            let accepted = tokio::time::timeout(std::time::Duration::ZERO, listener.accept());
            assert!(accepted.await.is_err(), "a denied request sends nothing");
        }
    }
}

#[tokio::test]
async fn further_requests_and_agents_that_dally_go_to_the_same_address() {
    let upstream = Upstream::clear("").await;
    let mut world = World::new("", "", other(&upstream));
    let mut agent = world.dial().await;
    tokio::time::sleep(first::SERVER_FIRST_WAIT * 2).await;
    agent.write_all(get(DUAL).as_bytes()).await.unwrap();
    let mut heard = String::new();
    agent.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, ANSWER);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world
        .destination
        .set_port(listener.local_addr().unwrap().port());
    let mut agent = world.dial().await;
    agent
        .write_all(get(DUAL).repeat(2).as_bytes())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let kept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..2 {
        let mut asked = vec![0; get(DUAL).len()];
        server.read_exact(&mut asked).await.unwrap();
        server.write_all(kept.as_bytes()).await.unwrap();
    }
    let mut heard = vec![0; kept.len() * 2];
    agent.read_exact(&mut heard).await.unwrap();
    drop(agent);
    let records = world.records().await;
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(places(record), ("127.0.0.1", Some("::1")));
    }
}

/// Answers all requests of one connection.
fn serve_http_2(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut server = h2_server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = server.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
}

#[tokio::test]
async fn streams_of_http_2_in_clear_text_are_judged_again_each() {
    for (policies, status) in [(String::new(), 200), (not_there(), 403)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut at = listener.local_addr().unwrap();
        at.set_ip(Ipv6Addr::LOCALHOST.into());
        let serving = serve_http_2(listener);
        let mut world = World::new(&policies, "", at);
        let (agent, connection) = h2_client::handshake(world.dial().await).await.unwrap();
        let driven = tokio::spawn(connection);
        let mut agent = agent.ready().await.unwrap();
        let responses: Vec<_> = (0..3)
            .map(|number| {
                let url = format!("http://{DUAL}:{}/{number}", at.port());
                let request = Request::get(url).body(()).unwrap();
                agent.send_request(request, true).unwrap().0
            })
            .collect();
        for response in responses {
            assert_eq!(response.await.unwrap().status(), status);
        }
        drop(agent);
        driven.await.unwrap().unwrap();
        let records = world.records().await;
        assert_eq!(records.len(), 3);
        for record in &records {
            assert_eq!(places(record), ("127.0.0.1", Some("::1")));
        }
        serving.abort();
    }
}

#[tokio::test]
async fn what_is_recorded_of_a_connection_of_http_2_says_where_it_went() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut at = listener.local_addr().unwrap();
    at.set_ip(Ipv6Addr::LOCALHOST.into());
    let serving = serve_http_2(listener);
    let mut world = World::new("", "", at);
    let (agent, connection) = h2_client::handshake(world.dial().await).await.unwrap();
    let driven = tokio::spawn(connection);
    let mut agent = agent.ready().await.unwrap();
    for (host, status) in [(DUAL, 200), ("another.example.com", 400)] {
        let url = format!("http://{DUAL}:{}/", at.port());
        let request = Request::get(url).header("host", format!("{host}:{}", at.port()));
        let (response, _) = agent.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), status);
    }
    drop(agent);
    driven.await.unwrap().unwrap();
    let records = world.records().await;
    let kinds: Vec<_> = records.iter().map(|record| record.event.kind).collect();
    assert_eq!(kinds, [EventKind::Http, EventKind::Connection]);
    for record in &records {
        assert_eq!(places(record), ("127.0.0.1", Some("::1")));
    }
    serving.abort();
}

#[tokio::test]
async fn what_is_on_disk_before_a_request_leaves_names_the_address_that_it_goes_to() {
    let disk = policy("Audit", "  audit: {commit: Disk}\n");
    for http_2 in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut at = listener.local_addr().unwrap();
        at.set_ip(Ipv6Addr::LOCALHOST.into());
        let mut world = World::new(&disk, "", at);
        let agent = world.dial().await;
        let (serving, asking) = if http_2 {
            let asking = tokio::spawn(async move {
                let (mut agent, connection) = h2_client::handshake(agent).await.unwrap();
                let driven = tokio::spawn(connection);
                let request = Request::get(format!("http://{DUAL}:{}/", at.port()));
                let (response, _) = agent.send_request(request.body(()).unwrap(), true).unwrap();
                assert_eq!(response.await.unwrap().status(), 200);
                drop(agent);
                driven.await.unwrap().unwrap();
            });
            (serve_http_2(listener), asking)
        } else {
            let serving = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                answer(stream).await.unwrap();
            });
            let asking = tokio::spawn(async move {
                let mut agent = agent;
                agent.write_all(get(DUAL).as_bytes()).await.unwrap();
                let mut heard = String::new();
                agent.read_to_string(&mut heard).await.unwrap();
                assert_eq!(heard, ANSWER);
            });
            (serving, asking)
        };
        asking.await.unwrap();
        serving.abort();
        let records = world.records().await;
        let kinds: Vec<_> = records.iter().map(|record| record.event.kind).collect();
        assert_eq!(kinds, [EventKind::Begin, EventKind::Http]);
        assert_eq!(records[1].event.begun, Some(records[0].seq));
        assert_eq!(places(&records[0]), ("127.0.0.1", Some("::1")));
        assert_eq!(destination(&records[0]), destination(&records[1]));
    }
}

/// Binds a port at which nothing answers: the kernel drops what a full backlog has no room for. Silent as long as what this returns lives.
async fn never_answers(at: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(at)).await {
        waiting.push(connected.unwrap());
    }
    (socket, waiting)
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_waited_for_once_and_the_wait_is_counted() {
    let upstream = Upstream::clear("").await;
    let silent = never_answers(other(&upstream)).await;
    let mut world = World::new("", "", other(&upstream));
    let wait = Duration::from_secs(2);
    for first in [true, false] {
        let since = Instant::now();
        assert_eq!(heard(&mut world, &get(DUAL)).await.unwrap(), ANSWER);
        assert_eq!(since.elapsed() >= wait, first, "{:?}", since.elapsed());
    }
    drop(silent);
    let back = TcpListener::bind(other(&upstream)).await.unwrap();
    let close = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut agent = world.dial().await;
    agent.write_all(close.as_bytes()).await.unwrap();
    let (stream, _) = back.accept().await.unwrap();
    answer(stream).await.unwrap();
    // It has answered: the next agent's connection goes there.
    let mut agent = world.dial().await;
    agent.write_all(get(DUAL).as_bytes()).await.unwrap();
    let (stream, _) = back.accept().await.unwrap();
    answer(stream).await.unwrap();
    let records = world.records().await;
    let took = |record: &Record| {
        let timing = record.event.timing.as_ref().unwrap();
        Duration::from_micros(timing.total_us)
    };
    assert!(took(&records[0]) >= wait && took(&records[1]) < wait);
    let went: Vec<_> = records.iter().map(places).collect();
    let there = ("127.0.0.1", Some("::1"));
    assert_eq!(went, [there, there, ("::1", None), ("::1", None)]);
}

const OPAQUE: &str = "\x05\x01\x02 no protocol that is read\r\n\r\n";

/// What the agent hears that says this once the server may have spoken first.
async fn heard_late(world: &mut World, said: &str) -> io::Result<String> {
    let mut agent = world.dial().await;
    tokio::time::sleep(first::SERVER_FIRST_WAIT * 2).await;
    agent.write_all(said.as_bytes()).await?;
    let mut heard = Vec::new();
    agent.read_to_end(&mut heard).await?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test]
async fn bytes_that_are_not_read_go_where_all_names_of_their_address_lead() {
    // Whoever speaks first.
    let upstream = Upstream::clear("220 ready\r\n").await;
    let mut world = World::new("", "", other(&upstream));
    for late in [false, true] {
        let heard = match late {
            false => heard(&mut world, OPAQUE).await,
            true => heard_late(&mut world, OPAQUE).await,
        };
        assert_eq!(heard.unwrap(), format!("220 ready\r\n{ANSWER}"));
    }
    let records = world.records().await;
    assert_eq!(gaps(&records), ["opaque"; 4]);
    for record in &records {
        assert_eq!(places(record), ("127.0.0.1", Some("::1")));
    }
}

#[tokio::test]
async fn bytes_that_are_not_read_are_judged_again_for_the_other_address() {
    let upstream = Upstream::clear("").await;
    let policies = policy(
        "Enforce",
        &format!(
            "  rules:\n    - name: there\n      match: {{protocols: [tcp], hosts: [{DUAL}]}}\n      action: Allow\n    - name: not-there\n      match: {{protocols: [tcp], hosts: [\"127.0.0.0/8\"]}}\n      action: Deny\n"
        ),
    );
    let mut world = World::new(&policies, "", other(&upstream));
    assert!(heard(&mut world, OPAQUE).await.is_err());
    assert!(heard_late(&mut world, OPAQUE).await.is_err());
    let records = world.records().await;
    assert_eq!(records.len(), 2);
    let rule = |record: &Record| record.event.decision.as_ref().unwrap().rule.clone();
    assert_eq!(rule(&records[0]).as_deref(), Some("not-there"));
    assert_eq!(places(&records[0]), ("127.0.0.1", Some("::1")));
    // What waited to see who speaks first was told nothing of a rule: no byte was there to be refused.
    assert_eq!(reason(&records[1]), "upstream-unreachable");
    assert_eq!(places(&records[1]), ("::1", None));
}

#[tokio::test]
async fn where_not_all_names_lead_elsewhere_what_does_not_say_its_name_stays() {
    let upstream = Upstream::clear_at("[::1]:0", "").await;
    let mut at = upstream.address;
    at.set_ip([127, 0, 0, 1].into());
    let mut world = World::new("", "", at);
    assert!(heard(&mut world, OPAQUE).await.is_err());
    assert!(heard_late(&mut world, OPAQUE).await.is_err());
    let close = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let refused = heard(&mut world, &close).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 502"), "{refused}");
    // A request says it, if late.
    assert_eq!(heard_late(&mut world, &get(DUAL)).await.unwrap(), ANSWER);
    let records = world.records().await;
    let went: Vec<_> = records.iter().map(places).collect();
    let stays = ("127.0.0.1", None);
    assert_eq!(went, [stays, stays, stays, ("::1", Some("127.0.0.1"))]);
}
