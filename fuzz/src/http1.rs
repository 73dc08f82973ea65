//! First bytes, heads and bodies of HTTP/1.x.

use bytes::BytesMut;
use chaperone_sidecar::{
    detect::{DETECT_BYTES, Detected, detect as first},
    http1::{
        BodyDecoder, BodyError, BodyFraming, Headers, Version, limits, parse_request,
        parse_response, write_chunk, write_last_chunk,
    },
};

use crate::cuts;

/// First bytes: a named protocol stays what it is, whatever follows.
pub(crate) fn detect(bytes: &[u8]) {
    let whole = first(bytes);
    for cut in cuts(bytes.len()) {
        let part = first(&bytes[..cut]);
        assert!(
            part == Detected::More || part == whole,
            "{part:?} {whole:?}"
        );
    }
    assert!(whole != Detected::More || bytes.len() < DETECT_BYTES);
}

/// A request head: the same answer for a prefix or none yet, written back as read, and read back after an edit.
pub(crate) fn request(bytes: &[u8]) {
    let whole = parse_request(bytes);
    for cut in cuts(bytes.len()) {
        let prefix = parse_request(&bytes[..cut]);
        assert!(matches!(prefix, Ok(None)) || format!("{prefix:?}") == format!("{whole:?}"));
    }
    let Ok(Some((mut head, used))) = whole else {
        return;
    };
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    assert!(bytes[..used].ends_with(&out));

    head.headers_mut()
        .append("X-Added", b"1")
        .expect("there is room for a line");
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    if head.headers().len() <= limits::MAX_HEADERS && out.len() < limits::MAX_HEAD_BYTES {
        let (again, used) = parse_request(&out).expect("sound").expect("complete");
        assert_eq!(used, out.len());
        assert_eq!(again.method(), head.method());
        assert_eq!(again.target(), head.target());
        assert_eq!(again.authority(), head.authority());
        assert_eq!(again.framing(), head.framing());
        assert!(again.headers().iter().eq(head.headers().iter()));
    }
}

/// A response head: the same answer for a prefix or none yet, written back as read, and sound after it was re-framed.
pub(crate) fn response(bytes: &[u8]) {
    for method in ["GET", "HEAD", "CONNECT"] {
        response_to(method, bytes);
    }
}

fn response_to(method: &str, bytes: &[u8]) {
    let whole = parse_response(bytes, method);
    for cut in cuts(bytes.len()) {
        let prefix = parse_response(&bytes[..cut], method);
        assert!(matches!(prefix, Ok(None)) || format!("{prefix:?}") == format!("{whole:?}"));
    }
    let Ok(Some((mut head, used))) = whole else {
        return;
    };
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    assert_eq!(&bytes[..used], &out[..]);

    let framing = head
        .reframe(Version::Http11)
        .expect("there is room for a line");
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    if head.headers().len() <= limits::MAX_HEADERS && out.len() < limits::MAX_HEAD_BYTES {
        let (again, used) = parse_response(&out, method)
            .expect("sound")
            .expect("complete");
        assert_eq!(used, out.len());
        assert_eq!(again.framing(), framing);
        assert!(!matches!(framing, BodyFraming::Length(_)));
    }
}

/// A body in every framing: each split leads to the same payload, and payload framed anew reads back.
pub(crate) fn body(bytes: &[u8]) {
    let half = bytes.len() as u64 / 2;
    for framing in [
        BodyFraming::Length(half),
        BodyFraming::Length(bytes.len() as u64),
        BodyFraming::UntilClose,
        BodyFraming::Chunked,
    ] {
        body_in(framing, bytes);
    }
}

fn body_in(framing: BodyFraming, bytes: &[u8]) {
    let whole = decode(framing, &[bytes]);
    for cut in cuts(bytes.len()) {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(whole, decode(framing, &[head, tail]));
    }
    let Ok((payload, ..)) = whole else { return };
    let mut wire = BytesMut::new();
    for part in payload.chunks(7) {
        write_chunk(&mut wire, part);
    }
    write_last_chunk(&mut wire, &Headers::default());
    let again = decode(BodyFraming::Chunked, &[&wire]).expect("sound");
    assert_eq!(again, (payload, wire.len(), true));
}

fn decode(framing: BodyFraming, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut body = BodyDecoder::new(framing);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let progress = body.pump(piece, |run| payload.extend_from_slice(run))?;
        assert!(progress.done || progress.consumed == piece.len());
        consumed += progress.consumed;
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64);
    Ok((payload, consumed, body.is_done()))
}
