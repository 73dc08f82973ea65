//! Masks on a message of protocol buffers, field by field as it was written.
//!
//! A path means what it means in the message's JSON: `$.customer.mail`, `$.items[0]`, a key of a map, and through `Struct`, `Value`, wrappers and `Any` as if they were what
//! they stand for. Detectors search each string, bytes that are text, and integers as they are written in decimal. What cannot hold the text that takes a value's place (a number,
//! an enum) becomes its zero; a selected message keeps its fields, each such a placeholder.
//!
//! Invariant: fields that do not change, and fields that the descriptor does not know, leave byte by byte as they came, in their order.

use std::collections::HashMap;

use chaperone_crds::{
    detect::{Child, CompiledMasks, Places},
    grpc::{
        ANY, Known, Undecodable, survey, unpack,
        wire::{WireField, WireValue, next, varint, write_varint},
    },
    record::MaskedInfo,
};
use prost_reflect::{Kind, MessageDescriptor};

use crate::{
    body::is_text,
    mask::{Layers, of_field},
};

/// Most values of a message that masks go through: what a processor does in half a second.
const MAX_VALUES: u32 = 1_000_000;

/// What the values of messages go through.
pub(super) struct Rewriter<'r> {
    /// Masks whose paths select.
    pub(super) masks: Option<&'r CompiledMasks>,
    /// What texts go through. Reset at the end of each.
    pub(super) layers: &'r mut Layers,
    /// Values that paths selected.
    pub(super) selected: &'r mut Vec<MaskedInfo>,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// The message anew; `None`: nothing changes.
    pub(super) message: Option<Vec<u8>>,
    /// Whether it has fields that the descriptor does not know, which no mask read.
    pub(super) unknown: bool,
}

/// Where a value stands: where paths do, and the rule that selects it, or a value around it.
#[derive(Clone, Debug, Default)]
struct Place {
    paths: Places,
    rule: Option<usize>,
}

impl Rewriter<'_> {
    /// Rewrites a message.
    ///
    /// # Errors
    /// Where it is not of its type.
    pub(super) fn rewrite(
        &mut self,
        message: &MessageDescriptor,
        bytes: &[u8],
    ) -> Result<Rewritten, Undecodable> {
        let survey = survey(message, bytes, MAX_VALUES)?;
        let paths = self.masks.map(|masks| masks.fields().start());
        let start = Place {
            paths: paths.unwrap_or_default(),
            rule: None,
        };
        Ok(Rewritten {
            message: self.message(message, bytes, &start)?,
            unknown: survey.unknown,
        })
    }

    fn message(
        &mut self,
        message: &MessageDescriptor,
        bytes: &[u8],
        place: &Place,
    ) -> Result<Option<Vec<u8>>, Undecodable> {
        let shape = Shape::of(message);
        let inner = match shape {
            Shape::Any => unpack(message, bytes)?,
            _ => None,
        };
        let (mut out, mut rest) = (Anew::of(bytes), bytes);
        let mut elements: HashMap<u32, u64> = HashMap::new();
        while let Some(field) = next(&mut rest)? {
            let changed = match (Known::of(message, field.number), &inner) {
                // What nobody knows is not shown where all is to be replaced.
                (None, _) if place.rule.is_some() => Some(Vec::new()),
                (None, _) => None,
                (Some(_), Some((inner, value))) if field.number == 2 => {
                    let place = match Shape::of(inner) {
                        Shape::Fields => place.clone(),
                        _ => self.child(place, Child::Member(Some(b"value"))),
                    };
                    let value = self.message(inner, value, &place)?;
                    value.map(|value| length_field(&field, &value))
                }
                (Some(_), Some(_)) if field.number == 1 => None,
                (Some(known), _) => self.field(&known, &field, shape, place, &mut elements)?,
            };
            out.take(&field, changed);
        }
        Ok(out.finish())
    }

    /// A field anew, with its tag; `None`: it does not change.
    fn field(
        &mut self,
        known: &Known,
        field: &WireField<'_>,
        shape: Shape,
        place: &Place,
        elements: &mut HashMap<u32, u64>,
    ) -> Result<Option<Vec<u8>>, Undecodable> {
        let mut place = match shape {
            Shape::Transparent => place.clone(),
            Shape::Fields | Shape::Any => {
                self.child(place, Child::Member(Some(known.json_name().as_bytes())))
            }
        };
        if known.is_map() {
            return self.entry(known, field, &place);
        }
        let number = match known.is_repeated() {
            true => Some(elements.entry(field.number).or_insert(0)),
            false => None,
        };
        match (known.kind(), field.value) {
            (Kind::Message(inner), WireValue::Length(bytes) | WireValue::Group(bytes)) => {
                if let Some(number) = number {
                    place = self.child(&place, Child::Element(*number));
                    *number = number.saturating_add(1);
                }
                let value = self.message(&inner, bytes, &place)?;
                Ok(value.map(|value| match field.value {
                    WireValue::Group(_) => group_field(field, &value),
                    _ => length_field(field, &value),
                }))
            }
            (kind @ (Kind::String | Kind::Bytes), WireValue::Length(bytes)) => {
                if let Some(number) = number {
                    place = self.child(&place, Child::Element(*number));
                    *number = number.saturating_add(1);
                }
                let text = self.text(bytes, &kind, &place);
                Ok(text.map(|text| length_field(field, &text)))
            }
            (kind, WireValue::Length(bytes)) => {
                let packed = self.packed(&kind, bytes, &place, number)?;
                Ok(packed.map(|packed| length_field(field, &packed)))
            }
            (kind, value) => {
                if let Some(number) = number {
                    place = self.child(&place, Child::Element(*number));
                    *number = number.saturating_add(1);
                }
                let zero = self.number(&kind, value, &place);
                Ok(zero.map(|zero| [tag(field), zero].concat()))
            }
        }
    }

    /// An entry of a map: its value stands at its key.
    fn entry(
        &mut self,
        known: &Known,
        field: &WireField<'_>,
        place: &Place,
    ) -> Result<Option<Vec<u8>>, Undecodable> {
        let (Kind::Message(entry), WireValue::Length(bytes)) = (known.kind(), field.value) else {
            return Err(Undecodable::Malformed);
        };
        let key_kind = entry.map_entry_key_field().kind();
        let (mut key, mut rest) = (Vec::new(), bytes);
        while let Some(part) = next(&mut rest)? {
            if part.number == 1 {
                key = key_text(&key_kind, part.value);
            }
        }
        let at = self.child(place, Child::Member(Some(&key)));
        let (mut out, mut rest) = (Anew::of(bytes), bytes);
        while let Some(part) = next(&mut rest)? {
            let changed = match (Known::of(&entry, part.number), part.value) {
                (Some(known), _) if part.number == 2 => {
                    self.field(&known, &part, Shape::Transparent, &at, &mut HashMap::new())?
                }
                // A path selects values and no names.
                (Some(_), WireValue::Length(name)) => {
                    let text = self.text(name, &Kind::String, &Place::default());
                    text.map(|text| length_field(&part, &text))
                }
                (Some(_), _) => None,
                (None, _) => place.rule.map(|_| Vec::new()),
            };
            out.take(&part, changed);
        }
        Ok(out.finish().map(|entry| length_field(field, &entry)))
    }

    /// Packed numbers anew.
    fn packed(
        &mut self,
        kind: &Kind,
        bytes: &[u8],
        place: &Place,
        number: Option<&mut u64>,
    ) -> Result<Option<Vec<u8>>, Undecodable> {
        let mut number = number;
        let (mut out, mut changed, mut rest) = (Vec::new(), false, bytes);
        while !rest.is_empty() {
            let before = rest;
            let value = match kind {
                Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => {
                    WireValue::Four(split(&mut rest, 4)?)
                }
                Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => {
                    WireValue::Eight(split(&mut rest, 8)?)
                }
                _ => WireValue::Varint(varint(&mut rest)?),
            };
            let at = match number.as_deref_mut() {
                Some(number) => {
                    let at = self.child(place, Child::Element(*number));
                    *number = number.saturating_add(1);
                    at
                }
                None => place.clone(),
            };
            match self.number(kind, value, &at) {
                Some(zero) => {
                    changed = true;
                    out.extend(zero);
                }
                None => {
                    let used = before.len().saturating_sub(rest.len());
                    out.extend_from_slice(before.get(..used).unwrap_or_default());
                }
            }
        }
        Ok(changed.then_some(out))
    }

    /// A string, or bytes, anew.
    fn text(&mut self, bytes: &[u8], kind: &Kind, place: &Place) -> Option<Vec<u8>> {
        if let (Some(rule), Some(masks)) = (place.rule, self.masks) {
            self.count(rule);
            return Some(of_field(masks, rule, bytes, true).as_text().to_vec());
        }
        // A mask must not change a byte of a picture.
        if bytes.is_empty() || (*kind == Kind::Bytes && !is_text(bytes)) {
            return None;
        }
        let mut out = Vec::with_capacity(bytes.len());
        self.layers.push(bytes, &mut out);
        self.layers.finish(&mut out);
        (out != bytes).then_some(out)
    }

    /// The zero of a number that is selected, or that a detector finds.
    fn number(&mut self, kind: &Kind, value: WireValue<'_>, place: &Place) -> Option<Vec<u8>> {
        let found = match place.rule {
            Some(rule) => {
                self.count(rule);
                true
            }
            None => decimal(kind, value).is_some_and(|decimal| {
                self.text(decimal.as_bytes(), &Kind::String, &Place::default())
                    .is_some()
            }),
        };
        found.then(|| match (kind, value) {
            (Kind::Enum(names), _) => {
                let mut zero = Vec::new();
                let first = i64::from(names.default_value().number());
                write_varint(first.cast_unsigned(), &mut zero);
                zero
            }
            (_, WireValue::Four(_)) => vec![0; 4],
            (_, WireValue::Eight(_)) => vec![0; 8],
            _ => vec![0],
        })
    }

    /// The place of a child. What stands inside a selected value is selected.
    fn child(&self, place: &Place, child: Child<'_>) -> Place {
        let Some(masks) = self.masks.filter(|_| place.rule.is_none()) else {
            return place.clone();
        };
        if place.paths.is_empty() {
            return Place::default();
        }
        let (paths, rule) = masks.fields().child(&place.paths, child);
        Place { paths, rule }
    }

    fn count(&mut self, rule: usize) {
        let Some(rule) = self.masks.and_then(|masks| masks.rules().get(rule)) else {
            return;
        };
        let known = self
            .selected
            .iter_mut()
            .find(|found| *found.mask == *rule.mask && *found.detector == *rule.detector);
        match known {
            Some(found) => found.count = found.count.saturating_add(1),
            None => self.selected.push(MaskedInfo {
                mask: rule.mask.to_string(),
                detector: rule.detector.to_string(),
                count: 1,
            }),
        }
    }
}

/// How a message stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// An object of its fields.
    Fields,
    /// What its fields hold: `Struct`, `Value`, `ListValue`, wrappers.
    Transparent,
    /// The message inside, or an object that has it as `value`.
    Any,
}

impl Shape {
    fn of(message: &MessageDescriptor) -> Self {
        let name = message.full_name();
        if name == ANY {
            return Self::Any;
        }
        match name.strip_prefix("google.protobuf.") {
            Some("Struct" | "Value" | "ListValue" | "StringValue" | "BytesValue" | "BoolValue") => {
                Self::Transparent
            }
            Some("Int32Value" | "Int64Value" | "UInt32Value" | "UInt64Value" | "FloatValue") => {
                Self::Transparent
            }
            Some("DoubleValue") => Self::Transparent,
            _ => Self::Fields,
        }
    }
}

/// A message that is copied from the first change on.
struct Anew<'b> {
    bytes: &'b [u8],
    /// How much passed unchanged before the first change.
    same: usize,
    out: Option<Vec<u8>>,
}

impl<'b> Anew<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            same: 0,
            out: None,
        }
    }

    fn take(&mut self, field: &WireField<'_>, changed: Option<Vec<u8>>) {
        match (changed, &mut self.out) {
            (None, None) => self.same = self.same.saturating_add(field.raw.len()),
            (None, Some(out)) => out.extend_from_slice(field.raw),
            (Some(field), Some(out)) => out.extend(field),
            (Some(field), None) => {
                let same = self.bytes.get(..self.same).unwrap_or_default();
                self.out = Some([same, &field].concat());
            }
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.out
    }
}

/// The tag as it was written.
fn tag(field: &WireField<'_>) -> Vec<u8> {
    let mut rest = field.raw;
    let _ = varint(&mut rest);
    let length = field.raw.len().saturating_sub(rest.len());
    field.raw.get(..length).unwrap_or_default().to_vec()
}

fn length_field(field: &WireField<'_>, value: &[u8]) -> Vec<u8> {
    let mut out = tag(field);
    write_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn group_field(field: &WireField<'_>, value: &[u8]) -> Vec<u8> {
    let mut out = tag(field);
    out.extend_from_slice(value);
    write_varint(u64::from(field.number) << 3 | 4, &mut out);
    out
}

fn split<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], Undecodable> {
    let (taken, after) = rest
        .split_at_checked(length)
        .ok_or(Undecodable::Malformed)?;
    *rest = after;
    Ok(taken)
}

/// A key of a map as JSON has it.
fn key_text(kind: &Kind, value: WireValue<'_>) -> Vec<u8> {
    match (kind, value) {
        (_, WireValue::Length(text)) => text.to_vec(),
        (Kind::Bool, WireValue::Varint(number)) => (number != 0).to_string().into_bytes(),
        (kind, value) => decimal(kind, value).unwrap_or_default().into_bytes(),
    }
}

/// An integer in decimal; `None`: it is none.
fn decimal(kind: &Kind, value: WireValue<'_>) -> Option<String> {
    let zigzag = |number: u64| (number >> 1).cast_signed() ^ -((number & 1).cast_signed());
    Some(match (kind, value) {
        (Kind::Int32 | Kind::Int64, WireValue::Varint(number)) => number.cast_signed().to_string(),
        (Kind::Uint32 | Kind::Uint64, WireValue::Varint(number)) => number.to_string(),
        (Kind::Sint32 | Kind::Sint64, WireValue::Varint(number)) => zigzag(number).to_string(),
        (Kind::Fixed32, WireValue::Four(bytes)) => {
            u32::from_le_bytes(bytes.try_into().ok()?).to_string()
        }
        (Kind::Sfixed32, WireValue::Four(bytes)) => {
            i32::from_le_bytes(bytes.try_into().ok()?).to_string()
        }
        (Kind::Fixed64, WireValue::Eight(bytes)) => {
            u64::from_le_bytes(bytes.try_into().ok()?).to_string()
        }
        (Kind::Sfixed64, WireValue::Eight(bytes)) => {
            i64::from_le_bytes(bytes.try_into().ok()?).to_string()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
