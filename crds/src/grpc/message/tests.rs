//! Messages of the shop in `tests/descriptors`.

use prost_reflect::prost_types::FileDescriptorSet;
use serde_json::{Value, json};

use super::*;
use crate::grpc::{DescriptorSet, Descriptors, GrpcCall};

const SHOP: &[u8] = include_bytes!("../../../tests/descriptors/shop.binpb");

fn order() -> MessageDescriptor {
    let set = DescriptorSet::pack("test", SHOP).unwrap();
    let broken = DescriptorSet {
        name: "broken".to_owned(),
        packed: "!".to_owned(),
    };
    let (descriptors, unusable) = Descriptors::load(&[broken, set]);
    assert_eq!(unusable.len(), 1);
    let call = GrpcCall {
        service: "acme.v1.Orders",
        method: "Place",
    };
    descriptors.method(&call).unwrap().request
}

fn json(bytes: &[u8]) -> Result<Value, Undecodable> {
    to_json(&order(), bytes).map(|text| serde_json::from_str(&text).unwrap())
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    crate::grpc::wire::write_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn a_message_becomes_json_that_compares() {
    let customer = field(1, b"ana@example.com");
    let bytes = [
        field(1, b"o-1"),
        vec![0x10, 0xe8, 0x07],
        field(3, &customer),
        field(4, b"a"),
        field(4, b"b"),
    ]
    .concat();
    assert_eq!(
        json(&bytes).unwrap(),
        json!({"id": "o-1", "total": 1000, "customer": {"mail": "ana@example.com", "card": 0}, "notes": ["a", "b"],
            "labels": {}, "payload": "", "amounts": [], "recipients": [], "state": "STATE_UNSPECIFIED"})
    );
    assert_eq!(json(b"").unwrap()["total"], 0, "defaults stand there");
    assert_eq!(json(b"").unwrap().get("customer"), None);
}

#[test]
fn what_is_not_of_the_type_is_refused() {
    for (bytes, why) in [
        (vec![0x0a], Undecodable::Malformed),
        (field(2, b"x"), Undecodable::Malformed),
        (vec![0x08, 0x01], Undecodable::Malformed),
        (field(1, b"\xff"), Undecodable::Malformed),
        (
            [field(3, b""), field(3, b"")].concat(),
            Undecodable::Malformed,
        ),
        (field(7, &[1; 70_000]), Undecodable::Values),
        (
            field(8, &field(1, b"type/not.Known")),
            Undecodable::UnknownType,
        ),
        (field(8, &field(2, b"x")), Undecodable::UnknownType),
    ] {
        assert_eq!(json(&bytes), Err(why), "{:x?}", bytes.get(..9));
    }
}

#[test]
fn nesting_is_bounded_through_any_too() {
    let mut plain = Vec::new();
    let mut any = Vec::new();
    for _ in 0..200 {
        plain = field(9, &plain);
        let inner = [field(1, b"t/acme.v1.Order"), field(2, &any)].concat();
        any = field(8, &inner);
    }
    assert_eq!(json(&plain), Err(Undecodable::Deep));
    assert_eq!(json(&any), Err(Undecodable::Deep));
}

#[test]
fn a_message_that_unfolds_to_much_is_too_large() {
    let many = field(9, b"").repeat(60_000);
    assert_eq!(json(&many), Err(Undecodable::Malformed), "twice");
    let big = field(1, &vec![b'\n'; MAX_JUDGED_BODY_BYTES - 100]);
    assert_eq!(json(&big), Err(Undecodable::TooLarge));
}

#[test]
fn unknown_fields_are_seen_and_left_out() {
    let bytes = [field(1, b"o-1"), field(15, b"secret")].concat();
    assert!(survey(&order(), &bytes, 100).unwrap().unknown);
    assert!(!survey(&order(), &field(1, b"o"), 100).unwrap().unknown);
    assert_eq!(json(&bytes).unwrap()["id"], "o-1");
}

#[test]
fn a_set_without_its_imports_or_services_is_refused_in_words() {
    use prost_reflect::prost::Message;
    let mut set = FileDescriptorSet::decode(SHOP).unwrap();
    set.file.remove(0);
    let error = DescriptorSet::pack("orders", &set.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("--include_imports"), "{error}");
    let error = DescriptorSet::pack("orders", b"syntax = \"proto3\";").unwrap_err();
    assert!(error.to_string().contains("protoc"), "{error}");
    set.file.clear();
    let error = DescriptorSet::pack("orders", &set.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("no service"), "{error}");
}
