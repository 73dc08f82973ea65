use chaperone_crds::resources::Mask;

use super::*;

fn masks() -> Arc<CompiledMasks> {
    let mask: Mask = serde_saphyr::from_str("{name: pii, detectors: [email]}").unwrap();
    Arc::new(CompiledMasks::compile([&mask]).unwrap())
}

fn treat<const N: usize>(
    status: u16,
    has_body: bool,
    fields: [(&str, &str); N],
    strict: bool,
) -> Treatment {
    let message = Message {
        status,
        has_body,
        fields: &fields,
    };
    message.treat(Some(&masks()), strict)
}

#[test]
fn without_masks_and_without_text_everything_passes() {
    let fields = [("content-type", "text/plain")];
    let message = Message {
        status: 200,
        has_body: true,
        fields: &fields,
    };
    assert!(matches!(message.treat(None, true), Treatment::Pass));
    let image = [
        ("Content-Type", "image/png"),
        ("Content-Encoding", "compress"),
    ];
    assert!(matches!(treat(206, true, image, true), Treatment::Pass));
}

#[test]
fn what_cannot_be_read_is_refused_in_enforce_and_passes_in_audit() {
    for (status, fields, why) in [
        (
            200,
            [
                ("content-type", "text/plain"),
                ("content-encoding", "gzip, compress"),
            ],
            Unreadable::Coding("gzip, compress".into()),
        ),
        (
            200,
            [
                ("content-type", "application/octet-stream"),
                ("content-encoding", "dcb"),
            ],
            Unreadable::Coding("dcb".into()),
        ),
        (
            206,
            [
                ("content-type", "text/plain"),
                ("content-range", "bytes 0-1/5"),
            ],
            Unreadable::Partial(206),
        ),
        (
            206,
            [
                ("content-type", "multipart/byteranges; boundary=x"),
                ("a", "b"),
            ],
            Unreadable::Partial(206),
        ),
        (
            226,
            [("content-type", "text/plain"), ("im", "vcdiff")],
            Unreadable::Partial(226),
        ),
    ] {
        match treat(status, true, fields, true) {
            Treatment::Refuse(refused) => assert_eq!(refused, why),
            other => panic!("{other:?}"),
        }
        match treat(status, true, fields, false) {
            Treatment::PassUnread(passed) => assert_eq!(passed, why),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_head_without_a_body_says_what_the_head_with_one_says() {
    let fields = [
        ("content-type", "text/html"),
        ("content-length", "10"),
        ("etag", "\"a\""),
    ];
    let Treatment::HeadOnly(without) = treat(200, false, fields, true) else {
        panic!("a body");
    };
    let Treatment::Filter(with, _) = treat(200, true, fields, true) else {
        panic!("no filter");
    };
    assert_eq!(without, with);
    assert_eq!(without.len(), 2);
}

#[test]
fn the_first_bytes_tell_where_the_type_does_not() {
    let look = |payload: &[u8], coding: &'static str| {
        let fields = [("content-encoding", coding)];
        let Treatment::Look(mut look) = treat(200, true, fields, true) else {
            panic!("no look");
        };
        assert!(look.at(b"", false).is_none());
        (1..payload.len())
            .find_map(|end| look.at(&payload[..end], false))
            .or_else(|| look.at(payload, true))
            .unwrap()
    };
    assert!(matches!(look(b"hello", ""), Treatment::Filter(..)));
    assert!(matches!(look(b"\xff\xd8\xff", ""), Treatment::Pass));
    let gzipped = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"\x7fELF\x02\x01\x00").unwrap();
        encoder.finish().unwrap()
    };
    let Treatment::Look(mut at_once) = treat(200, true, [("content-encoding", "gzip")], true)
    else {
        panic!("no look");
    };
    assert!(matches!(at_once.at(&gzipped, true), Some(Treatment::Pass)));
    assert!(
        matches!(look(b"no gzip at all", "gzip"), Treatment::Filter(..)),
        "to be refused"
    );
}
