//! An upstream that keeps every byte, and answers 200 to each request that is whole by the strictest reading.

use chaperone_sidecar::http1::{BodyDecoder, parse_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What reached it.
#[derive(Default)]
pub(crate) struct Asked {
    /// All bytes.
    pub(crate) bytes: Vec<u8>,
    /// Targets of the requests that came whole.
    pub(crate) targets: Vec<String>,
}

/// Serves one connection to its end.
pub(crate) async fn record(mut end: DuplexStream) -> Asked {
    let mut asked = Asked::default();
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 4096]);
    while let Ok(read @ 1..) = end.read(&mut buffer).await {
        asked.bytes.extend_from_slice(&buffer[..read]);
        unread.extend_from_slice(&buffer[..read]);
        while let Some((target, used)) = whole(&unread) {
            unread.drain(..used);
            asked.targets.push(target);
            let _ = end.write_all(OK).await;
        }
    }
    asked
}

/// The request at the beginning of these bytes, if it is whole: its target and its length.
fn whole(bytes: &[u8]) -> Option<(String, usize)> {
    let (head, head_bytes) = parse_request(bytes).ok()??;
    let mut body = BodyDecoder::new(head.framing());
    let progress = body.pump(&bytes[head_bytes..], |_| {}).ok()?;
    let target = head.target_text().to_owned();
    body.is_done()
        .then_some((target, head_bytes + progress.consumed))
}
