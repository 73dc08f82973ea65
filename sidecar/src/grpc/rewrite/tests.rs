//! Tables of paths and detectors on orders of the shop.

use std::sync::Arc;

use chaperone_crds::{
    grpc::{DescriptorSet, Descriptors, GrpcCall, to_json},
    resources::Mask,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mask::Format;

const SHOP: &[u8] = include_bytes!("../../../../crds/tests/descriptors/shop.binpb");

fn order() -> MessageDescriptor {
    let set = DescriptorSet::pack("shop", SHOP).unwrap();
    let call = GrpcCall {
        service: "acme.v1.Orders",
        method: "Place",
    };
    let (descriptors, _) = Descriptors::load(&[set]);
    descriptors.method(&call).unwrap().request
}

fn masks(yaml: &str) -> Arc<CompiledMasks> {
    let mask: Mask = serde_saphyr::from_str(yaml).unwrap();
    Arc::new(CompiledMasks::compile([&mask]).unwrap())
}

fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(u64::from(number) << 3 | 2, &mut out);
    write_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn number(field: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(u64::from(field) << 3, &mut out);
    write_varint(value, &mut out);
    out
}

fn run(masks: &Arc<CompiledMasks>, bytes: &[u8]) -> (Result<Rewritten, Undecodable>, Vec<String>) {
    let mut layers = Layers::new(Some(masks.clone()), None, Format::Message);
    let mut selected = Vec::new();
    let mut rewriter = Rewriter {
        masks: Some(masks),
        layers: &mut layers,
        selected: &mut selected,
    };
    let rewritten = rewriter.rewrite(&order(), bytes);
    let found = layers.findings().iter().chain(&selected);
    let found = found.map(|found| format!("{} {}", found.detector, found.count));
    (rewritten, found.collect())
}

/// The order after masks, as JSON without what is empty.
fn masked(yaml: &str, bytes: &[u8]) -> (Value, Vec<String>) {
    let (rewritten, found) = run(&masks(yaml), bytes);
    let message = rewritten.unwrap().message.unwrap_or(bytes.to_vec());
    let mut json: Value = serde_json::from_str(&to_json(&order(), &message).unwrap()).unwrap();
    let fields = json.as_object_mut().unwrap();
    fields.retain(|_, value| *value != json!("") && *value != json!([]) && *value != json!({}));
    (json, found)
}

fn an_order() -> Vec<u8> {
    let customer = [
        field(1, b"ana@example.com"),
        number(2, 4_111_111_111_111_111),
    ]
    .concat();
    let entry = |key: &[u8], value: &[u8]| field(5, &[field(1, key), field(2, value)].concat());
    let text = |text: &[u8]| field(3, text);
    let extra = [
        field(
            1,
            &[field(1, b"ssn"), field(2, &text(b"078-05-1120"))].concat(),
        ),
        field(1, &[field(1, b"tier"), field(2, &text(b"gold"))].concat()),
    ];
    let any = [
        field(1, b"type.googleapis.com/acme.v1.Customer"),
        field(2, &field(1, b"bob@example.com")),
    ];
    [
        field(1, b"o-1"),
        number(2, 77),
        field(3, &customer),
        field(4, b"call ana@example.com"),
        field(4, b"leave at the door"),
        entry(b"pin", b"1234"),
        entry(b"to", b"home"),
        field(6, b"\x00\xffana@example.com"),
        field(7, &[1, 2, 3]),
        field(8, &any.concat()),
        field(10, &extra.concat()),
        field(11, &field(1, b"SPRING")),
        number(13, 1),
    ]
    .concat()
}

#[test]
fn detectors_search_strings_text_and_integers() {
    let (json, found) = masked(
        "{name: pii, detectors: [email, creditCard, usSsn]}",
        &an_order(),
    );
    assert_eq!(
        json["customer"],
        json!({"mail": "[masked:email]", "card": 0})
    );
    assert_eq!(
        json["notes"],
        json!(["call [masked:email]", "leave at the door"])
    );
    assert_eq!(json["detail"]["mail"], "[masked:email]");
    assert_eq!(
        json["extra"],
        json!({"ssn": "[masked:usSsn]", "tier": "gold"})
    );
    assert_eq!(json["payload"], "AP9hbmFAZXhhbXBsZS5jb20=", "no text");
    assert_eq!(found, ["email 3", "creditCard 1", "usSsn 1"]);
}

#[test]
fn paths_select_what_they_select_in_json() {
    for (path, pointer, expected) in [
        ("$.id", "/id", json!("[masked:field]")),
        ("$.total", "/total", json!(0)),
        (
            "$.customer",
            "/customer",
            json!({"mail": "[masked:field]", "card": 0}),
        ),
        ("$.customer.card", "/customer/card", json!(0)),
        (
            "$.notes[1]",
            "/notes",
            json!(["call ana@example.com", "[masked:field]"]),
        ),
        (
            "$.notes",
            "/notes",
            json!(["[masked:field]", "[masked:field]"]),
        ),
        (
            "$.labels.pin",
            "/labels",
            json!({"pin": "[masked:field]", "to": "home"}),
        ),
        ("$.payload", "/payload", json!("W21hc2tlZDpmaWVsZF0=")),
        ("$.amounts[1]", "/amounts", json!([1, 0, 3])),
        ("$.detail.mail", "/detail/mail", json!("[masked:field]")),
        (
            "$.extra.ssn",
            "/extra",
            json!({"ssn": "[masked:field]", "tier": "gold"}),
        ),
        ("$.coupon", "/coupon", json!("[masked:field]")),
        ("$..mail", "/detail/mail", json!("[masked:field]")),
        ("$..mail", "/customer/mail", json!("[masked:field]")),
        ("$.state", "/state", json!("STATE_UNSPECIFIED")),
    ] {
        let mask = format!("{{name: pii, fields: ['{path}']}}");
        let (json, found) = masked(&mask, &an_order());
        assert_eq!(json.pointer(pointer), Some(&expected), "{path}");
        assert!(found[0].starts_with("field "), "{path}: {found:?}");
    }
}

#[test]
fn fields_that_nobody_knows_stay_and_are_said() {
    let bytes = [an_order(), field(99, b"eve@example.com")].concat();
    let (rewritten, _) = run(&masks("{name: pii, fields: [$.id]}"), &bytes);
    let rewritten = rewritten.unwrap();
    assert!(rewritten.unknown);
    assert!(
        rewritten
            .message
            .unwrap()
            .ends_with(&field(99, b"eve@example.com"))
    );
}

#[test]
fn without_a_match_nothing_changes_and_what_is_no_order_is_refused() {
    let mask = masks("{name: pii, detectors: [iban], fields: [$.never]}");
    let (rewritten, found) = run(&mask, &an_order());
    assert_eq!((rewritten.unwrap().message, found.len()), (None, 0));
    assert_eq!(run(&mask, b"\x0a\xff").0, Err(Undecodable::Malformed));
    assert_eq!(run(&mask, &number(1, 5)).0, Err(Undecodable::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_rewritten_or_refused_and_what_leaves_is_an_order(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mask = masks("{name: pii, detectors: [email, creditCard], fields: ['$..mail', $.total]}");
        if let (Ok(Rewritten { message: Some(message), .. }), _) = run(&mask, &bytes) {
            prop_assert!(survey(&order(), &message, MAX_VALUES).is_ok());
        }
    }
}
