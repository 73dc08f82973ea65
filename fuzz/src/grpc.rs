//! Messages of gRPC calls, and the frames that HTTP/2's meter counts.

use std::sync::{Arc, LazyLock};

use chaperone_crds::{
    detect::CompiledMasks,
    grpc::{DescriptorSet, Descriptors, GrpcCall, survey, to_json},
    record::MaskedInfo,
    resources::Mask,
};
use chaperone_sidecar::{
    body::{BodyFilter, CodingError, Treatment},
    grpc::{Call, Messages},
    http2::measure,
};

const SHOP: &[u8] = include_bytes!("../../crds/tests/descriptors/shop.binpb");

static CALL: LazyLock<Arc<Call>> = LazyLock::new(|| {
    let set = DescriptorSet::pack("shop", SHOP).expect("the set is sound");
    let (descriptors, _) = Descriptors::load(&[set]);
    let method = descriptors.method(&GrpcCall {
        service: "acme.v1.Orders",
        method: "Watch",
    });
    Arc::new(Call::new(
        "acme.v1.Orders/Watch".to_owned(),
        method,
        true,
        None,
    ))
});
static MASKS: LazyLock<Arc<CompiledMasks>> = LazyLock::new(|| {
    let mask = "{name: pii, detectors: [email, creditCard], fields: [$.id, '$..card', '$.labels.pin', '$.amounts[1]']}";
    let mask: Mask = serde_saphyr::from_str(mask).expect("the mask is sound");
    Arc::new(CompiledMasks::compile([&mask]).expect("the mask compiles"))
});

/// A body of messages in this form: the same however it is cut, in both modes; what nothing was found in leaves as it came.
fn body(media: &str, bytes: &[u8]) {
    for strict in [true, false] {
        let whole = run(media, strict, bytes, bytes.len());
        for size in [1, 7] {
            assert_eq!(whole, run(media, strict, bytes, size), "{media} {strict}");
        }
        let (out, found, end) = whole;
        assert!(strict || end.is_ok(), "Audit passes everything");
        if found.is_empty() && end.is_ok() {
            assert_eq!(out, bytes, "{media}");
        }
    }
}

type End = (Vec<u8>, Vec<MaskedInfo>, Result<(), CodingError>);

fn run(media: &str, strict: bool, bytes: &[u8], size: usize) -> End {
    let fields = [("content-type", media), ("grpc-encoding", "gzip")];
    let treated = CALL.treat(&fields, true, Some(&MASKS), strict);
    let Some(Treatment::Filter(_, mut filter)) = treated else {
        panic!("a described call under masks is filtered");
    };
    let (mut out, mut end) = (Vec::new(), Ok(()));
    for part in bytes.chunks(size.max(1)) {
        filter.push(part);
        end = end.and_then(|()| pull(&mut filter, &mut out));
    }
    filter.end();
    end = end.and_then(|()| pull(&mut filter, &mut out));
    (out, filter.findings().to_vec(), end)
}

fn pull(filter: &mut BodyFilter, out: &mut Vec<u8>) -> Result<(), CodingError> {
    loop {
        let mut piece = Vec::new();
        let more = filter.pull(&mut piece);
        out.append(&mut piece);
        if !more? {
            return Ok(());
        }
    }
}

/// Frames of gRPC and gRPC-Web, and the counter beside them.
pub(crate) fn messages(bytes: &[u8]) {
    body("application/grpc", bytes);
    body("application/grpc-web+proto", bytes);
    let count = |size: usize| {
        let mut messages = Messages::default();
        bytes
            .chunks(size.max(1))
            .for_each(|part| messages.push(part));
        (messages.count, messages.bytes, messages.status())
    };
    assert_eq!(count(bytes.len()), count(3));
}

/// The text form of gRPC-Web.
pub(crate) fn text(bytes: &[u8]) {
    body("application/grpc-web-text", bytes);
}

/// One message, decoded and masked: what leaves is a message of its type, which nothing is found in again.
pub(crate) fn message(bytes: &[u8]) {
    let order = CALL.response().expect("the call is described");
    if let Ok(json) = to_json(order, bytes) {
        serde_json::from_str::<serde_json::Value>(&json).expect("it is JSON");
    }
    let Ok(length) = u32::try_from(bytes.len()) else {
        return;
    };
    let frame = [&[0][..], &length.to_be_bytes(), bytes].concat();
    let (out, found, end) = run("application/grpc", true, &frame, frame.len());
    if end.is_err() || found.is_empty() {
        return;
    }
    let masked = out.get(5..).expect("a frame has a prefix");
    survey(order, masked, u32::MAX).expect("it is of its type");
    let again = run("application/grpc", true, &out, out.len());
    assert_eq!(again.2, Ok(()));
}

/// HTTP/2 frames of an agent: counted the same however they are cut, and as a plain reading of them counts.
pub(crate) fn meter(bytes: &[u8]) {
    let whole = measure(std::iter::once(bytes));
    for size in [1, 10] {
        assert_eq!(whole, measure(bytes.chunks(size)), "{size}");
    }
    let (mut resets, mut controls) = (0, 0);
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let [a, b, c, kind, _flags, _, _, _, _, payload @ ..] = rest {
        match kind {
            3 => resets += 1,
            0 | 1 | 5 | 7..=9 => {}
            _ => controls += 1,
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = payload.get(length..).unwrap_or_default();
    }
    assert_eq!((whole.resets, whole.controls), (resets, controls));
}
