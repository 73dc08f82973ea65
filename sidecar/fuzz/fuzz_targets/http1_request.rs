//! Any bytes as a request head: no panic, the same answer for a prefix or `None`, written back as
//! read, and read back after an edit.
#![no_main]

use bytes::BytesMut;
use chaperone_sidecar::http1::{limits, parse_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = parse_request(bytes);
    let prefix = parse_request(&bytes[..usize::from(cut).min(bytes.len())]);
    if !matches!(prefix, Ok(None)) {
        assert_eq!(format!("{prefix:?}"), format!("{whole:?}"));
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
});
