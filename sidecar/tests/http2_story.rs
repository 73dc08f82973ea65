//! HTTP/2 streams as an agent and an upstream see them, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/masks.rs"]
mod masks;
#[path = "support/http2.rs"]
mod support;
#[path = "http2/tunnels.rs"]
mod tunnels;

use std::time::Duration;

use bytes::Bytes;
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::websocket::{Opcode, write_frame};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response, StatusCode};
use support::{HOST, Story, read, soon, text, url, write};

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n{rest}"
    )
}

fn no_delete(mode: &str) -> String {
    policy(
        mode,
        "  rules:\n    - name: no-delete\n      match: {protocols: [http]}\n      when: http.method == \"DELETE\"\n      action: Deny\n      message: Deleting is for people.\n",
    )
}

fn masks(mode: &str) -> String {
    policy(
        mode,
        "  audit: {level: RequestResponse}\n  masks:\n    - name: pii\n      detectors: [email, usSsn]\n",
    )
}

/// A rule that reads the body of every request.
fn reads_bodies() -> String {
    policy(
        "Enforce",
        "  rules:\n    - name: no-drop\n      match: {protocols: [http]}\n      when: has(http.body) && http.body.action == \"drop\"\n      action: Deny\n",
    )
}

fn exchanges(records: &[Record]) -> Vec<&Record> {
    records
        .iter()
        .filter(|record| record.event.kind == EventKind::Http)
        .collect()
}

fn action(record: &Record) -> Outcome {
    record.event.decision.as_ref().unwrap().action
}

fn error(record: &Record) -> &str {
    record.event.error.as_deref().unwrap_or_default()
}

/// Answers `hi`.
async fn hi(_: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let response = Response::builder().header("content-type", "text/plain");
    let mut body = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    body.send_data(Bytes::from_static(b"hi"), true).unwrap();
}

/// Answers with what it was sent, trailers included.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut from = request.into_body();
    let mut to = respond.send_response(Response::new(()), false).unwrap();
    while let Some(data) = from.data().await {
        let data = data.unwrap();
        let size = data.len();
        write(&mut to, data).await.unwrap();
        from.flow_control().release_capacity(size).unwrap();
    }
    match from.trailers().await.unwrap() {
        Some(trailers) => to.send_trailers(trailers).unwrap(),
        None => to.send_data(Bytes::new(), true).unwrap(),
    }
}

#[tokio::test]
async fn a_request_and_its_response_pass_and_are_recorded() {
    let mut story = Story::begin("").await;
    let (asked, mut questions) = tokio::sync::mpsc::channel(1);
    story
        .serve(move |request, respond| {
            let asked = asked.clone();
            async move {
                asked.send(request.uri().to_string()).await.unwrap();
                hi(request, respond).await;
            }
        })
        .await;
    let response = story.get("/a?b=c").await.unwrap();
    assert_eq!(text(response).await, "hi");
    assert_eq!(questions.recv().await.unwrap(), url("/a?b=c"));
    let records = story.records().await;
    let event = &exchanges(&records)[0].event;
    assert_eq!(event.operation.as_ref().unwrap().resource, url("/a?b=c"));
    let http = event.http.as_ref().unwrap();
    assert_eq!(
        (http.status, http.response_bytes, http.complete),
        (Some(200), 2, true)
    );
    assert_eq!(event.decision.as_ref().unwrap().action, Outcome::Allow);
}

#[tokio::test]
async fn a_denied_stream_leaves_the_others_alone() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story.serve(echo).await;
    let (slow, mut body) = story
        .open(Request::post(url("/slow")).body(()).unwrap())
        .await;
    let delete = Request::delete(url("/x")).body(()).unwrap();
    let refused = story.send(delete).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let told = text(refused).await;
    assert!(
        told.contains("Deleting is for people.") && told.contains("no-delete"),
        "{told}"
    );
    body.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert_eq!(text(soon(slow).await.unwrap()).await, "x");
    let records = story.records().await;
    let actions: Vec<_> = exchanges(&records)
        .iter()
        .map(|r| r.event.decision.as_ref().unwrap().action)
        .collect();
    assert_eq!(actions, [Outcome::Deny, Outcome::Allow]);
}

#[tokio::test]
async fn a_denied_upload_is_answered_before_it_ends() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story.serve(hi).await;
    let delete = Request::delete(url("/x")).body(()).unwrap();
    let (response, _body) = story.open(delete).await;
    let refused = soon(response).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(text(refused).await.contains("no-delete"));
    assert_eq!(text(story.get("/").await.unwrap()).await, "hi");
}

#[tokio::test]
async fn an_authority_that_is_not_the_server_name_is_refused() {
    let mut story = Story::begin("").await;
    story.serve(hi).await;
    let fronted = Request::get("https://other.example.com/").body(()).unwrap();
    let refused = story.send(fronted).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    let ambiguous = Request::get(url("/")).header("host", "other.example.com");
    let refused = story.send(ambiguous.body(()).unwrap()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let same = Request::get(url("/")).header("host", HOST);
    assert_eq!(
        text(story.send(same.body(()).unwrap()).await.unwrap()).await,
        "hi"
    );
}

#[tokio::test]
async fn a_rule_reads_a_body_that_came_in_frames() {
    let mut story = Story::begin(&reads_bodies()).await;
    story.serve(echo).await;
    for (body, status) in [
        ("{\"action\":\"drop\"}", 403),
        ("{\"action\":\"read\"}", 200),
    ] {
        let post = Request::post(url("/q")).header("content-type", "application/json");
        let (response, mut sending) = story.open(post.body(()).unwrap()).await;
        let (one, two) = body.split_at(5);
        sending
            .send_data(Bytes::from_static(one.as_bytes()), false)
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        sending
            .send_data(Bytes::from_static(two.as_bytes()), true)
            .unwrap();
        let response = soon(response).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        if status == 200 {
            assert_eq!(text(response).await, body);
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut story = Story::begin("").await;
    story.serve(echo).await;
    let (response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let (heard, trailers) = read(&mut body).await.unwrap();
    assert_eq!(heard, b"abc");
    assert_eq!(trailers.unwrap()["x-checksum"], "7");
}

#[tokio::test]
async fn interim_responses_pass() {
    let mut story = Story::begin("").await;
    story
        .serve(|request, mut respond| async move {
            let early = Response::builder().status(103).header("link", "</a>");
            respond.send_informational(early.body(()).unwrap()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            hi(request, respond).await;
        })
        .await;
    let mut agent = soon(story.agent.clone().ready()).await.unwrap();
    let get = Request::get(url("/")).body(()).unwrap();
    let (mut response, _) = agent.send_request(get, true).unwrap();
    let early = soon(std::future::poll_fn(|cx| response.poll_informational(cx)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (early.status().as_u16(), &early.headers()["link"]),
        (103, &"</a>".parse().unwrap())
    );
    assert_eq!(text(soon(response).await.unwrap()).await, "hi");
}

#[tokio::test]
async fn many_streams_interleave() {
    let mut story = Story::begin(&no_delete("Enforce")).await;
    story.serve(echo).await;
    let mut under_way = Vec::new();
    for number in 0..60_u32 {
        let (response, body) = story
            .open(Request::post(url(&format!("/{number}"))).body(()).unwrap())
            .await;
        under_way.push((number, response, body));
    }
    // Two small frames a stream: the agent's own codec counts those that it has not read.
    for turn in 0..2_u32 {
        for (number, _, body) in &mut under_way {
            let part = Bytes::from(format!("{number}:{turn};"));
            body.send_data(part, turn == 1).unwrap();
        }
        tokio::task::yield_now().await;
    }
    for (number, response, _) in under_way.into_iter().rev() {
        let heard = text(soon(response).await.unwrap()).await;
        assert_eq!(heard, format!("{number}:0;{number}:1;"));
    }
    assert_eq!(exchanges(&story.records().await).len(), 60);
}

#[tokio::test]
async fn a_slow_reader_slows_its_writer_and_no_other_stream() {
    let mut agent = h2::client::Builder::new();
    agent.initial_connection_window_size(1024 * 1024);
    let mut story = Story::begin_with("", &mut agent).await;
    let (written, mut progress) = tokio::sync::watch::channel(0_usize);
    story
        .serve(move |request, mut respond| {
            let written = written.clone();
            async move {
                if request.uri().path() != "/big" {
                    return hi(request, respond).await;
                }
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                for _ in 0..512 {
                    // Longer than the patience of others: this one may wait.
                    let chunk = Bytes::from(vec![7; 16 * 1024]);
                    write(&mut body, chunk).await.unwrap();
                    written.send_modify(|bytes| *bytes += 16 * 1024);
                }
                body.send_data(Bytes::new(), true).unwrap();
            }
        })
        .await;
    let response = story.get("/big").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let early = *progress.borrow_and_update();
    assert!(
        early < 1024 * 1024,
        "{early} bytes left the upstream unread"
    );
    assert_eq!(text(story.get("/small").await.unwrap()).await, "hi");
    let (bytes, _) = read(&mut response.into_body()).await.unwrap();
    assert_eq!(bytes.len(), 8 * 1024 * 1024);
}

#[tokio::test]
async fn a_slow_upstream_slows_the_agent() {
    let mut story = Story::begin("").await;
    let mut upstream = story.upstream().await;
    let (_response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    let accepting = tokio::spawn(async move {
        let accepted = upstream.accept().await.unwrap().unwrap();
        while upstream.accept().await.is_some() {}
        drop(accepted);
    });
    let mut sent = 0;
    while sent < 4 * 1024 * 1024 {
        let chunk = Bytes::from(vec![1; 16 * 1024]);
        let writing = write(&mut body, chunk);
        if tokio::time::timeout(Duration::from_millis(300), writing)
            .await
            .is_err()
        {
            break;
        }
        sent += 16 * 1024;
    }
    assert!(sent < 1024 * 1024, "{sent} bytes left the agent unread");
    accepting.abort();
}

#[tokio::test]
async fn a_reset_by_the_agent_reaches_the_upstream_with_its_code() {
    let mut story = Story::begin("").await;
    let mut upstream = story.upstream().await;
    let (response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    let (request, mut respond) = soon(upstream.accept()).await.unwrap().unwrap();
    let driving = tokio::spawn(async move { while upstream.accept().await.is_some() {} });
    body.send_reset(Reason::ENHANCE_YOUR_CALM);
    let reason = soon(std::future::poll_fn(|cx| respond.poll_reset(cx)))
        .await
        .unwrap();
    assert_eq!(reason, Reason::ENHANCE_YOUR_CALM);
    drop((response, request, respond));
    let records = story.records().await;
    assert_eq!(
        error(exchanges(&records)[0]),
        "the agent reset the stream (ENHANCE_YOUR_CALM)"
    );
    driving.abort();
}

#[tokio::test]
async fn a_reset_by_the_upstream_reaches_the_agent_with_its_code() {
    let mut story = Story::begin("").await;
    story
        .serve(|request, mut respond| async move {
            if request.uri().path() == "/late" {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"part"), false).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                body.send_reset(Reason::INTERNAL_ERROR);
            } else {
                respond.send_reset(Reason::HTTP_1_1_REQUIRED);
            }
        })
        .await;
    let early = story.get("/early").await.unwrap_err();
    assert_eq!(early.reason(), Some(Reason::HTTP_1_1_REQUIRED));
    let mut late = story.get("/late").await.unwrap().into_body();
    let error = read(&mut late).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    let records = story.records().await;
    let http = exchanges(&records)[1].event.http.as_ref().unwrap();
    assert_eq!((http.status, http.complete), (Some(200), false));
}

#[tokio::test]
async fn an_upstream_that_answers_early_stops_the_upload_and_the_answer_arrives() {
    let mut story = Story::begin("").await;
    story
        .serve(|request, respond| async move {
            hi(Request::new(request.into_body()), respond).await;
        })
        .await;
    let (response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    body.send_data(Bytes::from_static(b"some"), false).unwrap();
    assert_eq!(text(soon(response).await.unwrap()).await, "hi");
    let records = story.records().await;
    assert!(exchanges(&records)[0].event.http.as_ref().unwrap().complete);
}

#[tokio::test]
async fn a_goodbye_of_the_upstream_reaches_the_agent_and_loses_no_request() {
    let mut story = Story::begin("").await;
    let mut upstream = story.upstream().await;
    let agent = story.agent.clone();
    let mut ready = soon(agent.ready()).await.unwrap();
    let get = |path: &str| Request::get(url(path)).body(()).unwrap();
    let (first, _) = ready.send_request(get("/first"), true).unwrap();
    let (request, respond) = soon(upstream.accept()).await.unwrap().unwrap();
    upstream.graceful_shutdown();
    let driving = tokio::spawn(async move {
        while let Some(Ok((request, respond))) = upstream.accept().await {
            hi(request, respond).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    hi(request, respond).await;
    assert_eq!(text(soon(first).await.unwrap()).await, "hi");
    // The agent's connection ends in good order, and its next request is refused before it is sent, or with a code that says so.
    drop(ready);
    let ended = soon(&mut story.agent_connection).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    soon(driving).await.unwrap();
}

#[tokio::test]
async fn streams_that_a_leaving_upstream_did_not_process_may_be_repeated() {
    let (agent, mut upstream, served, setup) = Story::raw("");
    let (mut agent, connection) = h2::client::handshake(agent).await.unwrap();
    let driving = tokio::spawn(connection);
    let get = Request::get(url("/")).body(()).unwrap();
    let (response, _) = agent.send_request(get, true).unwrap();
    // SETTINGS without parameters, and once the request is there: GOAWAY that has processed nothing.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    upstream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut seen = vec![0; 24];
    upstream.read_exact(&mut seen).await.unwrap();
    loop {
        let mut head = [0; 9];
        upstream.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        upstream.read_exact(&mut rest).await.unwrap();
        if head[3] == 1 {
            break;
        }
    }
    upstream
        .write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .await
        .unwrap();
    let error = soon(response).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    drop((agent, upstream));
    driving.abort();
    let records = support::raw_records(served, setup).await;
    assert!(
        crate::error(exchanges(&records)[0]).contains("did not process"),
        "{}",
        crate::error(exchanges(&records)[0])
    );
}

#[tokio::test]
async fn a_stopping_sidecar_says_goodbye_and_finishes_what_is_under_way() {
    let mut story = Story::begin("").await;
    story.serve(echo).await;
    let (response, mut body) = story.open(Request::post(url("/")).body(()).unwrap()).await;
    body.send_data(Bytes::from_static(b"a"), false).unwrap();
    let response = soon(response).await.unwrap();
    story.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    body.send_data(Bytes::from_static(b"b"), true).unwrap();
    assert_eq!(text(response).await, "ab");
    let ended = soon(&mut story.agent_connection).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_head_response_keeps_its_length() {
    let mut story = Story::begin("").await;
    story
        .serve(|_, mut respond| async move {
            let response = Response::builder()
                .header("content-type", "text/plain")
                .header("content-length", "1234");
            respond
                .send_response(response.body(()).unwrap(), true)
                .unwrap();
        })
        .await;
    let head = Request::head(url("/")).body(()).unwrap();
    let response = story.send(head).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1234");
}

fn no_deletes_by_grpc() -> String {
    policy(
        "Enforce",
        "  rules:\n    - name: no-delete\n      match: {protocols: [http]}\n      when: grpc.service == \"acme.v1.Orders\" && grpc.method == \"Delete\"\n      action: Deny\n      message: Löschen is for people.\n",
    )
}

fn call(path: &str) -> Request<()> {
    Request::post(url(path))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_grpc_call_is_denied_in_grpcs_words_and_a_call_that_passes_is_counted() {
    let mut story = Story::begin(&no_deletes_by_grpc()).await;
    story
        .serve(|request, mut respond| async move {
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let mut to = respond.send_response(Response::new(()), false).unwrap();
            to.send_data(Bytes::from_static(b"\0\0\0\0\x03abc\0\0\0"), false)
                .unwrap();
            to.send_data(Bytes::from_static(b"\0\x01x"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            to.send_trailers(trailers).unwrap();
        })
        .await;
    let (response, _body) = story.open(call("/acme.v1.Orders/Delete")).await;
    let refused = soon(response).await.unwrap();
    assert_eq!(refused.status(), StatusCode::OK);
    assert_eq!(refused.headers()["grpc-status"], "7");
    assert_eq!(
        refused.headers()["grpc-message"],
        "L%C3%B6schen is for people. (policy agents/p, rule no-delete)"
    );
    assert_eq!(refused.headers()["content-type"], "application/grpc+proto");
    let (response, mut body) = story.open(call("/acme.v1.Orders/Get")).await;
    body.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true)
        .unwrap();
    let (_, trailers) = read(&mut soon(response).await.unwrap().into_body())
        .await
        .unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "5");
    let records = story.records().await;
    let calls: Vec<_> = exchanges(&records)
        .iter()
        .map(|record| record.event.grpc.clone().unwrap())
        .collect();
    assert_eq!((calls[0].status, &*calls[0].method), (Some(7), "Delete"));
    let passed = &calls[1];
    assert_eq!(
        (&*passed.service, &*passed.method, passed.status),
        ("acme.v1.Orders", "Get", Some(5))
    );
    assert_eq!(
        (
            passed.request_messages,
            passed.request_message_bytes,
            passed.response_messages,
            passed.response_message_bytes
        ),
        (1, 2, 2, 4)
    );
}

#[tokio::test]
async fn a_request_in_a_stream_is_on_disk_before_it_leaves_where_policy_asks() {
    let mut story = Story::begin(&policy("Audit", "  audit: {commit: Disk}\n")).await;
    let spool = story.setup().spool();
    story
        .serve(move |request, respond| {
            let spool = spool.clone();
            async move {
                let begun = |record: &Record| record.event.kind == EventKind::Begin;
                assert!(support::setup::on_disk(&spool).iter().any(begun));
                hi(request, respond).await;
            }
        })
        .await;
    assert_eq!(text(story.get("/a").await.unwrap()).await, "hi");
    let records = story.records().await;
    let begun = records.iter().find(|r| r.event.kind == EventKind::Begin);
    assert_eq!(
        exchanges(&records)[0].event.begun,
        begun.map(|record| record.seq)
    );
    assert!(begun.is_some());
}

#[tokio::test]
async fn a_request_in_a_stream_does_not_leave_where_policy_asks_for_a_ledger_and_there_is_none() {
    let mut story = Story::begin(&policy("Audit", "  audit: {commit: Ledger}\n")).await;
    story.serve(|_, _| async { panic!("it left") }).await;
    let response = story.get("/a").await.unwrap();
    assert_eq!(response.status(), 503);
    let told = text(response).await;
    assert!(told.contains("no-ledger"), "{told}");
    let records = story.records().await;
    let begun = records.iter().find(|r| r.event.kind == EventKind::Begin);
    let over = &exchanges(&records)[0].event;
    assert_eq!(over.begun, begun.map(|record| record.seq));
    assert_eq!(over.decision.as_ref().unwrap().reason, "no-ledger");
}
