//! Any bytes as a response head: no panic, the same answer for a prefix or `None`, written back as
//! read, and sound after it was re-framed.
#![no_main]

use bytes::BytesMut;
use chaperone_sidecar::http1::{BodyFraming, Version, limits, parse_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (cut, method, bytes) = input;
    let method = match method % 3 {
        0 => "GET",
        1 => "HEAD",
        _ => "CONNECT",
    };
    let whole = parse_response(bytes, method);
    let prefix = parse_response(&bytes[..usize::from(cut).min(bytes.len())], method);
    if !matches!(prefix, Ok(None)) {
        assert_eq!(format!("{prefix:?}"), format!("{whole:?}"));
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
});
