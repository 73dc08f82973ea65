//! HTTP/2 frames as bytes (RFC 9113 §4.1), for what no client library would send.

#![allow(dead_code, reason = "each story uses a part")]

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A connection's beginning: the preface and empty settings.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A header list as literals that no table remembers (RFC 7541 §6.2.2).
pub(crate) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(list: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        text(&mut block, name.as_ref());
        text(&mut block, value.as_ref());
    }
    block
}

/// A string without Huffman coding (RFC 7541 §5.2).
pub(crate) fn text(block: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).unwrap());
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend_from_slice(text);
}

/// What came of stream 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A response with this status.
    Answer(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    Goaway(u32),
    /// The end of the connection.
    Closed,
}

/// Reads frames until one says what came of it.
pub(crate) async fn ending(from: &mut (impl AsyncRead + Unpin)) -> Ending {
    while let Ok((kind, payload)) = read(from).await {
        let code = |at: usize| {
            let bytes = payload
                .get(at..at + 4)
                .and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        match kind {
            HEADERS => return Ending::Answer(status(&payload)),
            RST_STREAM => return Ending::Reset(code(0)),
            GOAWAY if code(4) != 0 => return Ending::Goaway(code(4)),
            _ => {}
        }
    }
    Ending::Closed
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}

/// Reads frames until one of this kind and stream comes; returns its payload. `seen` is told of each.
pub(crate) async fn until(
    from: &mut (impl AsyncRead + Unpin),
    kind: u8,
    stream: u32,
    mut seen: impl FnMut(u8, u32),
) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.unwrap();
        seen(head[3], of);
        if (head[3], of) == (kind, stream) {
            return payload;
        }
    }
}

/// The status at the beginning of a header block (RFC 7541, appendix A and B: digits only).
pub(crate) fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let update = block
        .iter()
        .take_while(|byte| **byte & 0xe0 == 0x20)
        .count();
    match &block[update..] {
        [first, ..] if first & 0x80 != 0 => INDEXED[usize::from(first & 0x7f) - 8],
        [_, length, text @ ..] if length & 0x80 != 0 => digits(&text[..usize::from(length & 0x7f)]),
        [_, 3, text @ ..] => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
        other => panic!("no status in {other:?}"),
    }
}

/// Three digits in Huffman code: 0 to 2 have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = number(&bits[at..at + 5]);
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => (number(&bits[at..at + 6]) - 22, 6),
        };
        value = value * 10 + digit;
        at += length;
    }
    value
}
