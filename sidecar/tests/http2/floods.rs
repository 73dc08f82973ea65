//! Agents that send too much, or too slowly, on one connection of HTTP/2.

use super::*;

#[tokio::test]
async fn rapid_resets_end_the_connection_and_are_recorded() {
    let mut story = Story::begin("").await;
    story.serve(hi).await;
    let mut agent = soon(story.agent.clone().ready()).await.unwrap();
    for _ in 0..5000 {
        let Ok(ready) = soon(agent.ready()).await else {
            break;
        };
        agent = ready;
        let get = Request::get(url("/")).body(()).unwrap();
        let Ok((response, mut body)) = agent.send_request(get, false) else {
            break;
        };
        body.send_reset(Reason::CANCEL);
        drop(response);
        agent = story.agent.clone();
        tokio::task::yield_now().await;
    }
    let ended = soon(&mut story.agent_connection)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    let records = story.records().await;
    let reasons: Vec<_> = records
        .iter()
        .filter(|record| record.event.kind == EventKind::Connection)
        .map(|record| record.event.decision.clone().unwrap().reason)
        .collect();
    assert_eq!(reasons, ["flood"]);
}

/// Writes bytes and awaits the sidecar's goodbye; returns the code of its GOAWAY.
async fn goodbye_to(bytes: &[u8]) -> (u32, Vec<Record>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (agent, upstream, served, setup) = Story::raw("");
    let (mut from, mut to) = tokio::io::split(agent);
    let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], bytes].concat();
    let writing = tokio::spawn(async move {
        let _ = to.write_all(&bytes).await;
        to
    });
    let mut code = None;
    loop {
        let mut head = [0; 9];
        if soon(from.read_exact(&mut head)).await.is_err() {
            break;
        }
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        soon(from.read_exact(&mut rest)).await.unwrap();
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(rest[4..8].try_into().unwrap()));
        }
    }
    drop((from, writing.await, upstream));
    (code.unwrap(), support::raw_records(served, setup).await)
}

#[tokio::test]
async fn floods_of_frames_that_carry_nothing_end_the_connection() {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";
    let calm = u32::from(Reason::ENHANCE_YOUR_CALM);
    for flood in [settings.repeat(5000), ping.repeat(5000)] {
        let (code, records) = goodbye_to(&[&settings[..], &flood].concat()).await;
        assert_eq!(code, calm);
        let last = records
            .iter()
            .rfind(|r| r.event.kind == EventKind::Connection);
        assert_eq!(
            last.unwrap().event.decision.clone().unwrap().reason,
            "flood"
        );
    }
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let headers = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    let continuation = b"\0\0\x01\x09\0\0\0\0\x01\x84";
    let flood = [&settings[..], headers, &continuation.repeat(10_000)].concat();
    let (code, records) = goodbye_to(&flood).await;
    assert_ne!(code, u32::from(Reason::NO_ERROR));
    let last = records
        .iter()
        .rfind(|r| r.event.kind == EventKind::Connection);
    assert_eq!(action(last.unwrap()), Outcome::Deny);
}
