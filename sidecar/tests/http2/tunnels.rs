//! CONNECT, extended CONNECT and WebSocket on HTTP/2 streams.

use super::*;

#[tokio::test]
async fn a_tunnel_passes_where_policy_lets_unread_bytes_pass() {
    let mut story = Story::begin("").await;
    story.serve(echo).await;
    let connect = Request::connect(format!("{HOST}:443")).body(()).unwrap();
    let (response, mut to) = story.open(connect).await;
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut from = response.into_body();
    write(&mut to, Bytes::from_static(b"ping")).await.unwrap();
    assert_eq!(soon(from.data()).await.unwrap().unwrap(), "ping");
    to.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut from).await.unwrap().0, b"");
    let records = story.records().await;
    let gap = records
        .iter()
        .rfind(|record| record.event.kind == EventKind::Gap)
        .and_then(|record| record.event.gap.clone())
        .unwrap();
    assert_eq!(
        (gap.reason.as_str(), gap.sent_bytes, gap.received_bytes),
        ("tunnel", Some(4), Some(4))
    );
}

#[tokio::test]
async fn a_tunnel_is_refused_where_policy_lets_no_unread_bytes_pass() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story.serve(echo).await;
    let connect = Request::connect(format!("{HOST}:443")).body(()).unwrap();
    let (response, _to) = story.open(connect).await;
    assert_eq!(
        soon(response).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
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
