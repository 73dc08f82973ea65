//! Bodies of calls in each form, cut anywhere.

use base64::{Engine, engine::general_purpose::STANDARD};
use chaperone_crds::{
    grpc::{DescriptorSet, Descriptors, GrpcCall},
    record::DecisionInfo,
    resources::{Mask, Mode},
    snapshot::Revision,
};
use proptest::prelude::*;

use super::*;
use crate::mask::Format;

const SHOP: &[u8] = include_bytes!("../../../../crds/tests/descriptors/shop.binpb");

fn call(judge: Option<super::super::Judge>) -> Arc<Call> {
    let set = DescriptorSet::pack("shop", SHOP).unwrap();
    let (descriptors, _) = Descriptors::load(&[set]);
    let called = GrpcCall {
        service: "acme.v1.Orders",
        method: "Watch",
    };
    let method = descriptors.method(&called);
    Arc::new(Call::new(
        "acme.v1.Orders/Watch".into(),
        method,
        true,
        judge,
    ))
}

fn filter(media: &str, encoding: &str, call: Arc<Call>, strict: bool) -> MessageFilter {
    let mask = "{name: pii, detectors: [email], fields: [$.id]}";
    let mask: Mask = serde_saphyr::from_str(mask).unwrap();
    let masks = Arc::new(CompiledMasks::compile([&mask]).unwrap());
    let layers = Layers::new(Some(masks.clone()), None, Format::Message);
    let fields = [("grpc-encoding", encoding)];
    let form = Form::of(media).unwrap();
    MessageFilter::new(
        call,
        WsDirection::Receive,
        (form, &fields),
        (Some(masks), layers),
        strict,
    )
}

fn framed_all(messages: &[&[u8]]) -> Vec<u8> {
    let frames = messages.iter().map(|message| framed(0, message).unwrap());
    frames.collect::<Vec<_>>().concat()
}

fn run(filter: &mut MessageFilter, wire: &[u8], size: usize) -> Result<Vec<u8>, CodingError> {
    let mut out = Vec::new();
    for part in wire.chunks(size.max(1)) {
        filter.push(part, &mut out)?;
    }
    filter.finish(&mut out)?;
    Ok(out)
}

/// Padded pieces, decoded one after another as a client does it.
fn decoded(text: &[u8]) -> Vec<u8> {
    let groups = text.chunks(4).map(|group| STANDARD.decode(group).unwrap());
    groups.collect::<Vec<_>>().concat()
}

const NOTE: &[u8] = b"\x22\x0fana@example.com";
const NOTE_MASKED: &[u8] = b"\x22\x0e[masked:email]";
const SAME: &[u8] = b"\x22\x05hello";
const TRAILER: &[u8] = b"grpc-status: 0\r\n";

#[test]
fn messages_are_masked_and_framed_anew_and_others_stay() {
    let wire = framed_all(&[SAME, NOTE, b"", SAME]);
    for size in [1, 2, 3, 7, 100] {
        let mut filter = filter("application/grpc", "identity", call(None), true);
        let out = run(&mut filter, &wire, size).unwrap();
        assert_eq!(out, framed_all(&[SAME, NOTE_MASKED, b"", SAME]));
        assert_eq!(filter.findings()[0].count, 1);
    }
}

#[test]
fn compressed_messages_are_unfolded_and_folded_again() {
    for name in ["gzip", "deflate", "zstd"] {
        let coding = Encoding::of(&[("grpc-encoding", name)]);
        let folded = |text: &[u8]| framed(1, &coding.fold(text).unwrap()).unwrap();
        let wire = [folded(SAME), folded(NOTE), framed_all(&[NOTE])].concat();
        let mut filter = filter("application/grpc+proto", name, call(None), true);
        let out = run(&mut filter, &wire, 5).unwrap();
        assert!(out.starts_with(&folded(SAME)), "{name}");
        assert!(out.ends_with(&framed_all(&[NOTE_MASKED])));
        let between = out[folded(SAME).len()..].strip_suffix(&framed_all(&[NOTE_MASKED])[..]);
        let (prefix, payload) = between.unwrap().split_at(5);
        assert_eq!(
            (prefix[0], coding.unfold(payload).unwrap()),
            (1, NOTE_MASKED.to_vec())
        );
    }
}

#[test]
fn the_text_form_leaves_as_it_came_but_for_what_changes() {
    let trailer = framed(0x80, TRAILER).unwrap();
    let messages: [&[u8]; 4] = [SAME, NOTE, b"\x22\x01x", SAME];
    let expected = [
        framed_all(&[SAME, NOTE_MASKED, b"\x22\x01x", SAME]),
        trailer.clone(),
    ]
    .concat();
    let whole = STANDARD.encode([framed_all(&messages), trailer.clone()].concat());
    let pieces = messages
        .iter()
        .map(|message| STANDARD.encode(framed_all(&[message])));
    let pieces = pieces.collect::<String>() + &STANDARD.encode(&trailer);
    for wire in [whole, pieces] {
        for size in [1, 3, 4, 6, 1000] {
            let mut filter = filter("application/grpc-web-text", "identity", call(None), true);
            let out = run(&mut filter, wire.as_bytes(), size).unwrap();
            assert_eq!(decoded(&out), expected, "{wire} by {size}");
            // Up to the first change it is the text as it was written.
            assert!(out.starts_with(&wire.as_bytes()[..16]));
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_in_enforce_and_said_in_audit() {
    let long = [&[0, 0xff, 0xff, 0xff, 0xff][..], b"x"].concat();
    for (media, wire) in [
        ("application/grpc", framed(0, b"\x0a\xff").unwrap()),
        ("application/grpc", framed(1, SAME).unwrap()),
        ("application/grpc", long),
        ("application/grpc", b"\0\0\0\0\x09abc".to_vec()),
        ("application/grpc-web-text", b"AAAA!AAA".to_vec()),
        ("application/grpc-web-text", b"AAAAAAA".to_vec()),
    ] {
        for size in [1, 100] {
            let mut strict = filter(media, "snappy", call(None), true);
            let refused = run(&mut strict, &wire, size);
            assert!(matches!(refused, Err(CodingError::Message(_))), "{wire:?}");
            let mut lax = filter(media, "snappy", call(None), false);
            assert_eq!(run(&mut lax, &wire, size).unwrap(), wire);
            assert!(matches!(lax.note(), Some(CodingError::Message(_))));
        }
    }
}

#[test]
fn a_message_that_policy_denies_does_not_leave_and_those_before_it_do() {
    let judge = |direction: WsDirection, message: GrpcMessage<'_>| {
        assert_eq!(direction, WsDirection::Receive);
        let denied = match message {
            GrpcMessage::Json(json) => json.contains("evil"),
            GrpcMessage::Unreadable(_) => true,
        };
        Verdict {
            decision: DecisionInfo {
                action: match denied {
                    true => chaperone_crds::record::Outcome::Deny,
                    false => chaperone_crds::record::Outcome::Allow,
                },
                would_deny: false,
                mode: Mode::Enforce,
                policy: None,
                rule: None,
                revision: Revision::of(b""),
                reason: "rule".to_owned(),
                message: None,
            },
            error: None,
        }
    };
    for bad in [
        framed(0, b"\x0a\x04evil").unwrap(),
        framed(0, b"\xff").unwrap(),
    ] {
        let wire = [framed_all(&[SAME]), bad, framed_all(&[SAME])].concat();
        let mut filter = filter("application/grpc", "", call(Some(Arc::new(judge))), false);
        let mut out = Vec::new();
        assert_eq!(filter.push(&wire, &mut out), Err(CodingError::Denied));
        assert_eq!(out, framed_all(&[SAME]));
        assert!(filter.verdict().unwrap().denies());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_body_cut_anywhere_leaves_the_same(
        messages in proptest::collection::vec(prop::sample::select(vec![SAME, NOTE, b"", b"\x0a\x02id", b"\x9a"]), 0..6),
        flags in prop::sample::select(vec![0_u8, 1, 0x80]),
        media in prop::sample::select(vec!["application/grpc", "application/grpc-web", "application/grpc-web-text"]),
        cut in 0..200_usize,
        end in 0..4_usize,
    ) {
        let mut wire = framed_all(&messages);
        wire.extend(framed(flags, TRAILER).unwrap());
        if media.ends_with("text") {
            wire = STANDARD.encode(wire).into_bytes();
        }
        wire.truncate(wire.len() - end);
        let whole = run(&mut filter(media, "gzip", call(None), false), &wire, 1000);
        let mut filter = filter(media, "gzip", call(None), false);
        let (first, second) = wire.split_at(cut.min(wire.len()));
        let mut out = Vec::new();
        filter.push(first, &mut out).unwrap();
        filter.push(second, &mut out).unwrap();
        filter.finish(&mut out).unwrap();
        prop_assert_eq!(Ok(out), whole);
    }
}
