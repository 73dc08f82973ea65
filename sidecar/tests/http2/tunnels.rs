//! CONNECT, extended CONNECT and WebSocket on HTTP/2 streams.

use super::*;

/// Bytes of a protocol that nobody reads.
const UNREAD: &[u8] = b"\x00ping";

/// Opens a tunnel to a place by way of the upstream.
async fn tunnel(story: &mut Story, place: &str) -> (h2::SendStream<Bytes>, RecvStream) {
    let connect = Request::connect(place).body(()).unwrap();
    let (response, to) = story.open(connect).await;
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    (to, response.into_body())
}

#[tokio::test]
async fn unread_bytes_in_a_tunnel_pass_where_policy_lets_them() {
    let mut story = Story::begin("").await;
    story.serve(echo).await;
    let (mut to, mut from) = tunnel(&mut story, "db.example.net:5432").await;
    write(&mut to, Bytes::from_static(UNREAD)).await.unwrap();
    assert_eq!(soon(from.data()).await.unwrap().unwrap(), UNREAD);
    to.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut from).await.unwrap().0, b"");
    let records = story.records().await;
    let record = records
        .iter()
        .rfind(|record| record.event.kind == EventKind::Gap)
        .unwrap();
    let gap = record.event.gap.clone().unwrap();
    assert_eq!(
        (gap.reason.as_str(), gap.sent_bytes, gap.received_bytes),
        ("tunnel", Some(5), Some(5))
    );
    assert_eq!(gap.detail.as_deref(), Some("CONNECT db.example.net:5432"));
    let destination = record.event.destination.as_ref().unwrap();
    assert_eq!(destination.proxy.as_deref(), Some("198.51.100.7:443"));
}

#[tokio::test]
async fn unread_bytes_in_a_tunnel_are_refused_where_policy_lets_none_pass() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story.serve(echo).await;
    let (mut to, mut from) = tunnel(&mut story, "db.example.net:5432").await;
    let _ = write(&mut to, Bytes::from_static(UNREAD)).await;
    let reset = soon(from.data()).await.unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(Reason::CONNECT_ERROR));
    let records = story.records().await;
    let gap = records.iter().find(|r| r.event.kind == EventKind::Gap);
    assert_eq!(action(gap.unwrap()), Outcome::Deny);
}

#[tokio::test]
async fn a_place_and_its_proxy_must_both_be_allowed_in_a_stream_too() {
    let allow = |hosts: &str| {
        policy(
            "Enforce",
            &format!(
                "  defaultAction: Deny\n  rules:\n    - name: some\n      match: {{hosts: [{hosts}], protocols: [http]}}\n      action: Allow\n"
            ),
        )
    };
    let both = format!("{HOST}, db.example.net");
    for (hosts, status) in [
        (HOST, StatusCode::FORBIDDEN),
        ("db.example.net", StatusCode::FORBIDDEN),
        (&both, StatusCode::OK),
    ] {
        let mut story = Story::begin(&allow(hosts)).await;
        story.serve(echo).await;
        let connect = Request::connect("db.example.net:5432").body(()).unwrap();
        let (response, _to) = story.open(connect).await;
        assert_eq!(soon(response).await.unwrap().status(), status, "{hosts}");
    }
}

#[tokio::test]
async fn requests_in_a_tunnel_are_judged_masked_and_recorded() {
    let rules = "  rules:\n    - name: no-delete\n      match: {hosts: [api.example.net], methods: [DELETE]}\n      action: Deny\n  masks:\n    - {name: pii, detectors: [email]}\n";
    let mut story = Story::begin(&policy("Enforce", rules)).await;
    story
        .serve(|request, mut respond| async move {
            let mut to = respond.send_response(Response::new(()), false).unwrap();
            let mut from = request.into_body();
            while let Some(Ok(data)) = from.data().await {
                let _ = from.flow_control().release_capacity(data.len());
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n\r\ngrace@navy.example";
                write(&mut to, answer.into()).await.unwrap();
            }
        })
        .await;
    let (mut to, mut from) = tunnel(&mut story, "api.example.net:8080").await;
    for (method, expected) in [("GET", "[masked:email]"), ("DELETE", "403")] {
        let request = format!("{method} /a HTTP/1.1\r\nHost: api.example.net:8080\r\n\r\n");
        write(&mut to, request.into()).await.unwrap();
        let mut heard = String::new();
        while !heard.contains(expected) {
            let data = soon(from.data()).await.unwrap().unwrap();
            let _ = from.flow_control().release_capacity(data.len());
            heard.push_str(std::str::from_utf8(&data).unwrap());
        }
        assert!(!heard.contains("grace"), "{heard}");
    }
    drop((to, from));
    let records = story.records().await;
    let said: Vec<_> = exchanges(&records)
        .iter()
        .map(|record| {
            let operation = record.event.operation.as_ref().unwrap();
            (
                operation.verb.clone(),
                operation.resource.clone(),
                action(record),
            )
        })
        .collect();
    let url = "http://api.example.net:8080/a".to_owned();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said.contains(&("GET".to_owned(), url.clone(), Outcome::Allow)),
        "{said:?}"
    );
    assert!(
        said.contains(&("DELETE".to_owned(), url, Outcome::Deny)),
        "{said:?}"
    );
    assert!(
        records
            .iter()
            .all(|record| record.event.kind != EventKind::Gap)
    );
}

#[tokio::test]
async fn clear_text_in_a_tunnel_names_its_place() {
    let mut story = Story::begin("").await;
    story.serve(echo).await;
    let (mut to, mut from) = tunnel(&mut story, "api.example.net:8080").await;
    let elsewhere = "GET / HTTP/1.1\r\nHost: other.example.net:8080\r\n\r\n";
    write(&mut to, elsewhere.into()).await.unwrap();
    let answer = soon(from.data()).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 421"), "{answer:?}");
}

#[tokio::test]
async fn a_server_behind_a_proxy_that_cannot_be_verified_gets_another_stream_in_audit() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    static TUNNELS: AtomicUsize = AtomicUsize::new(0);
    let (authority, root) = chaperone_sidecar::authority::Authority::self_made("unknown").unwrap();
    let server = authority.server_config("api.example.net").unwrap();
    let mut story = Story::begin(&policy("Audit", "")).await;
    story
        .serve(move |request, mut respond| {
            let acceptor = tokio_rustls::TlsAcceptor::from(server.clone());
            async move {
                TUNNELS.fetch_add(1, Ordering::Relaxed);
                let mut to = respond.send_response(Response::new(()), false).unwrap();
                let (near, far) = tokio::io::duplex(64 * 1024);
                let (mut reader, mut writer) = tokio::io::split(near);
                let mut from = request.into_body();
                let up = async {
                    while let Some(Ok(data)) = from.data().await {
                        let _ = from.flow_control().release_capacity(data.len());
                        writer.write_all(&data).await.unwrap();
                    }
                };
                let down = async {
                    let mut bytes = [0; 4096];
                    while let Ok(read) = reader.read(&mut bytes).await {
                        if read == 0
                            || write(&mut to, Bytes::copy_from_slice(&bytes[..read]))
                                .await
                                .is_err()
                        {
                            break;
                        }
                    }
                };
                let serve = async {
                    if let Ok(mut tls) = acceptor.accept(far).await {
                        tls.write_all(b"behind").await.unwrap();
                        let _ = tls.read(&mut [0; 1]).await;
                    }
                };
                tokio::join!(up, down, serve);
            }
        })
        .await;
    let (mut to, mut from) = tunnel(&mut story, "api.example.net:443").await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok(read) = reader.read(&mut bytes).await {
            if read == 0
                || write(&mut to, Bytes::copy_from_slice(&bytes[..read]))
                    .await
                    .is_err()
            {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(data)) = from.data().await {
            let _ = from.flow_control().release_capacity(data.len());
            if writer.write_all(&data).await.is_err() {
                break;
            }
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("api.example.net").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let mut tls = soon(connector.connect(name, near)).await.unwrap();
    let mut said = [0; 6];
    soon(tls.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"behind");
    assert_eq!(TUNNELS.load(Ordering::Relaxed), 2, "one was used up");
    drop(tls);
    let records = story.records().await;
    let gap = records.iter().find_map(|r| r.event.gap.clone()).unwrap();
    assert_eq!(gap.reason, "unverifiable-upstream");
}

#[tokio::test]
async fn extended_connect_is_offered_where_the_upstream_takes_it() {
    let mut story = Story::begin("").await;
    let mut upstream = story
        .upstream_with(h2::server::Builder::new().enable_connect_protocol())
        .await;
    tokio::spawn(async move {
        while let Some(Ok((request, respond))) = upstream.accept().await {
            let protocol = request.extensions().get::<h2::ext::Protocol>();
            assert_eq!(protocol.unwrap().as_str(), "websocket");
            tokio::spawn(echo(request, respond));
        }
    });
    for _ in 0..100 {
        if story.agent.is_extended_connect_protocol_enabled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let connect = Request::connect(url("/chat"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, mut to) = story.open(connect).await;
    let mut from = soon(response).await.unwrap().into_body();
    write(&mut to, Bytes::from_static(b"ping")).await.unwrap();
    assert_eq!(soon(from.data()).await.unwrap().unwrap(), "ping");
}

/// A WebSocket handshake.
fn handshake(extensions: Option<&str>) -> Request<()> {
    let mut request = Request::connect(url("/chat"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    if let Some(extensions) = extensions {
        request = request.header("sec-websocket-extensions", extensions);
    }
    request.body(()).unwrap()
}

/// Greets in a WebSocket frame, then repeats what it is sent and notes it. Answers with `extension`.
async fn chats(
    story: &mut Story,
    extension: Option<&'static str>,
) -> tokio::sync::mpsc::UnboundedReceiver<Bytes> {
    let mut upstream = story
        .upstream_with(h2::server::Builder::new().enable_connect_protocol())
        .await;
    let (note, noted) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok((request, mut respond))) = upstream.accept().await {
            let note = note.clone();
            tokio::spawn(async move {
                let offered = request.headers().get("sec-websocket-extensions");
                note.send(Bytes::copy_from_slice(
                    offered.map_or(b"", |v| v.as_bytes()),
                ))
                .unwrap();
                let mut response = Response::builder();
                if let Some(extension) = extension {
                    response = response.header("sec-websocket-extensions", extension);
                }
                let response = response.body(()).unwrap();
                let mut to = respond.send_response(response, false).unwrap();
                let greeting = frame(None, "grace@navy.example");
                write(&mut to, greeting.into()).await.unwrap();
                let mut from = request.into_body();
                while let Some(Ok(data)) = from.data().await {
                    let size = data.len();
                    let _ = note.send(data);
                    let _ = from.flow_control().release_capacity(size);
                }
                let _ = to.send_data(Bytes::new(), true);
            });
        }
    });
    for _ in 0..100 {
        if story.agent.is_extended_connect_protocol_enabled() {
            return noted;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("extended CONNECT is not offered");
}

/// A text frame; the agent's has a key.
fn frame(key: Option<[u8; 4]>, text: &str) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    write_frame(&mut out, Opcode::Text, true, key, text.as_bytes());
    out.to_vec()
}

#[tokio::test]
async fn websocket_messages_in_a_stream_are_read_masked_denied_and_recorded() {
    let rules = "  audit: {level: Request}\n  masks:\n    - {name: pii, detectors: [email]}\n  rules:\n    - name: no-drop\n      when: ws.direction == \"send\" && ws.text.contains(\"DROP\")\n      action: Deny\n      message: Dropping is for people.\n";
    // In Enforce, without any rule for tcp: what is read needs none.
    let mut story = Story::begin(&policy("Enforce", rules)).await;
    let mut noted = chats(&mut story, None).await;
    let (response, mut to) = story.open(handshake(Some("x-unread"))).await;
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        soon(noted.recv()).await.unwrap(),
        "",
        "what is not read is not offered"
    );
    let mut from = response.into_body();
    let greeted = soon(from.data()).await.unwrap().unwrap();
    assert_eq!(greeted, frame(None, "[masked:email]"));
    let key = Some([1, 2, 3, 4]);
    for (said, passes) in [("hello", true), ("DROP it", false)] {
        write(&mut to, frame(key, said).into()).await.unwrap();
        let heard = soon(noted.recv()).await.unwrap();
        assert_eq!(heard == frame(key, said), passes, "{heard:?}");
    }
    let closed = soon(from.data()).await.unwrap().unwrap();
    assert_eq!(closed[..4], [0x88, closed[1], 0x03, 0xf0], "1008");
    assert!(closed.ends_with(b"Dropping is for people."), "{closed:?}");
    drop((to, from));
    let records = story.records().await;
    let close = records.iter().find(|r| r.event.kind == EventKind::WsClose);
    let close = close.unwrap().event.ws.as_ref().unwrap();
    assert_eq!((&*close.closed_by, close.code), ("chaperone", Some(1008)));
    let messages = records
        .iter()
        .filter(|r| r.event.kind == EventKind::WsMessage);
    assert_eq!(
        messages.map(action).collect::<Vec<_>>(),
        [Outcome::Allow, Outcome::Deny]
    );
    assert!(records.iter().all(|r| r.event.kind != EventKind::Gap));
}

#[tokio::test]
async fn a_rule_that_reads_bodies_does_not_wait_for_one_of_a_handshake() {
    let rule = "  rules:\n    - name: no-cards\n      when: '\"creditCard\" in http.detected'\n      action: Deny\n";
    let mut story = Story::begin(&policy("Enforce", rule)).await;
    let _noted = chats(&mut story, None).await;
    let (response, _to) = story.open(handshake(None)).await;
    assert_eq!(soon(response).await.unwrap().status(), StatusCode::OK);
    let mut card = handshake(None);
    let note = "4111 1111 1111 1111".parse().unwrap();
    card.headers_mut().insert("x-note", note);
    let (response, _to) = story.open(card).await;
    assert_eq!(
        soon(response).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_websocket_answer_that_was_not_offered_is_refused_in_a_stream_too() {
    let mut story = Story::begin("").await;
    let _noted = chats(&mut story, Some("permessage-deflate")).await;
    let (response, _to) = story.open(handshake(None)).await;
    assert_eq!(
        soon(response).await.unwrap().status(),
        StatusCode::BAD_GATEWAY
    );
    let records = story.records().await;
    let decision = exchanges(&records)[0].event.decision.as_ref().unwrap();
    assert_eq!(decision.reason, "websocket-handshake");
}
