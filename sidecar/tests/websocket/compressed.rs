//! Messages under permessage-deflate.

use super::*;

pub(super) const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// A compressed frame, as its sender writes it.
pub(super) fn compressed(with: &mut Compress, key: Option<[u8; 4]>, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 100);
    with.compress_vec(text, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    let mut frame = frame(Opcode::Text, true, key, &out);
    frame[0] |= 0x40;
    frame
}

/// A compressed payload, as its receiver reads it.
fn inflated(with: &mut Decompress, payload: &[u8]) -> String {
    let mut out = Vec::with_capacity(10_000);
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    with.decompress_vec(&whole, &mut out, FlushDecompress::Sync)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn compressed_messages_are_judged_and_pass_as_they_were_written() {
    let offered =
        "Sec-WebSocket-Extensions: x-other, permessage-deflate; client_max_window_bits\r\n";
    let mut story = Story::begin(&no_drop("Enforce")).await;
    story.send(&request(offered)).await;
    let asked = story.asked("\r\n\r\n").await;
    assert!(
        asked.contains("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
        "{asked}"
    );
    story.answer(&answer(DEFLATE)).await;
    story.heard("\r\n\r\n").await;
    let mut agent = Compress::new(Compression::default(), false);
    let mut upstream = Decompress::new(false);
    for _ in 0..3 {
        let frame = compressed(
            &mut agent,
            Some(KEY),
            b"SELECT the same thing again and again",
        );
        story.agent.write_all(&frame).await.unwrap();
        let mut got = take(&mut story.upstream, frame.len()).await;
        assert_eq!(got, frame);
        chaperone_sidecar::websocket::apply_mask(&mut got[6..], KEY, 0);
        assert_eq!(
            inflated(&mut upstream, &got[6..]),
            "SELECT the same thing again and again"
        );
    }
    let frame = compressed(&mut agent, Some(KEY), b"SELECT the same DROP thing");
    story.agent.write_all(&frame).await.unwrap();
    assert_eq!(short(&rest(&mut story.agent).await).0, 0x8);
    assert_eq!(rest(&mut story.upstream).await[0], 0x88);
    story.records().await;
}

#[tokio::test]
async fn compressed_text_under_a_mask_reaches_the_agent_whole_and_in_clear() {
    let mut story = open(&masks("Metadata"), DEFLATE, DEFLATE).await;
    let mut upstream = Compress::new(Compression::default(), false);
    for _ in 0..3 {
        let frame = compressed(&mut upstream, None, b"mail jane.doe@example.com today");
        story.upstream.write_all(&frame).await.unwrap();
        let expected = b"mail [masked:email] today";
        let heard = take(&mut story.agent, expected.len() + 2).await;
        assert_eq!((heard[0], &heard[2..]), (0x81, &expected[..]));
    }
    let records = story.records().await;
    let ws = of(&records, EventKind::WsClose)[0]
        .event
        .ws
        .clone()
        .unwrap();
    assert_eq!((ws.received_messages, ws.received_bytes), (3, 3 * 31));
}

#[tokio::test]
async fn a_bomb_takes_no_memory_and_reaches_nobody_when_a_rule_reads_it() {
    let mut story = open(&no_drop("Enforce"), DEFLATE, DEFLATE).await;
    let mut agent = Compress::new(Compression::best(), false);
    let mut bomb = Vec::with_capacity(1024 * 1024);
    agent
        .compress_vec(
            &vec![b'a'; 200 * 1024 * 1024],
            &mut bomb,
            FlushCompress::Sync,
        )
        .unwrap();
    bomb.truncate(bomb.len() - 4);
    let mut frame = frame(Opcode::Text, true, Some(KEY), &bomb);
    frame[0] |= 0x40;
    let (mut reader, mut writer) = tokio::io::split(story.agent);
    let sent = tokio::spawn(async move {
        let _ = writer.write_all(&frame).await;
        writer
    });
    let mut first = [0; 4];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!((first[0], &first[2..]), (0x88, &1008_u16.to_be_bytes()[..]));
    drop(reader);
    drop(sent.await.unwrap());
    story.agent = tokio::io::duplex(1).0;
    story.records().await;
}
