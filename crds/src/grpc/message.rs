//! A message as JSON, by its descriptor: what policies read and records show.
//!
//! Owns the bounds on what a few bytes may unfold to, and [`survey`], which holds a message to its descriptor. Refuses what two parsers could read in two ways: a message field
//! that is not repeated and stands twice, whose parts a parser would merge.
//!
//! JSON is the canonical mapping of protocol buffers, with two changes for those who compare: 64-bit integers are numbers, and fields without presence stand there with their
//! default. Fields that the descriptor does not know are not in it.

use std::io;

use prost_reflect::{
    Cardinality, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    SerializeOptions,
};

use super::wire::{Malformed, WireField, WireValue, next};
use crate::decide::MAX_JUDGED_BODY_BYTES;

/// Deepest nesting of messages; parsers stop at 100.
const MAX_DEPTH: usize = 64;
/// Most values of a message that becomes JSON. A packed number is one byte, and a hundred in memory.
pub const MAX_VALUES: u32 = 65_536;
/// Full name of the type that holds a message of any type.
pub const ANY: &str = "google.protobuf.Any";

/// Why a message cannot be read. The text holds no value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.why())]
pub enum Undecodable {
    /// It is no message of its type.
    Malformed,
    /// It is nested deeper than parsers follow.
    Deep,
    /// It has more values than are read.
    Values,
    /// As JSON it is longer than [`MAX_JUDGED_BODY_BYTES`].
    TooLarge,
    /// It holds a message of a type that no descriptor set has.
    UnknownType,
}

impl Undecodable {
    /// As a sentence.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Malformed => "the message is not of the type that its descriptor says",
            Self::Deep => "the message is nested too deeply to be read",
            Self::Values => "the message holds too many values to be read",
            Self::TooLarge => "the message is too large to be read",
            Self::UnknownType => {
                "the message holds a google.protobuf.Any of a type that the descriptor set lacks"
            }
        }
    }
}

impl From<Malformed> for Undecodable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A field of a message, or an extension of it.
pub enum Known {
    /// A field.
    Field(FieldDescriptor),
    /// An extension (proto2).
    Extension(ExtensionDescriptor),
}

impl Known {
    /// What the descriptor knows under this number.
    #[must_use]
    pub fn of(message: &MessageDescriptor, number: u32) -> Option<Self> {
        let extension = || message.get_extension(number).map(Self::Extension);
        message
            .get_field(number)
            .map(Self::Field)
            .or_else(extension)
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Field(field) => field.kind(),
            Self::Extension(extension) => extension.kind(),
        }
    }

    /// Whether it may stand more than once.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        let cardinality = match self {
            Self::Field(field) => field.cardinality(),
            Self::Extension(extension) => extension.cardinality(),
        };
        cardinality == Cardinality::Repeated
    }

    /// Whether it is a map.
    #[must_use]
    pub fn is_map(&self) -> bool {
        match self {
            Self::Field(field) => field.is_map(),
            Self::Extension(extension) => extension.is_map(),
        }
    }

    /// Its name in JSON.
    #[must_use]
    pub fn json_name(&self) -> &str {
        match self {
            Self::Field(field) => field.json_name(),
            Self::Extension(extension) => extension.json_name(),
        }
    }
}

/// What a survey found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Whether there are fields that the descriptor does not know.
    pub unknown: bool,
}

/// Holds a message of at most `most` values to its descriptor.
///
/// # Errors
/// As [`Undecodable`].
pub fn survey(message: &MessageDescriptor, bytes: &[u8], most: u32) -> Result<Survey, Undecodable> {
    let mut surveyor = Surveyor {
        left: most,
        found: Survey::default(),
    };
    surveyor.message(message, bytes, 0)?;
    Ok(surveyor.found)
}

/// A message as JSON of at most [`MAX_JUDGED_BODY_BYTES`].
///
/// # Errors
/// As [`Undecodable`].
pub fn to_json(message: &MessageDescriptor, bytes: &[u8]) -> Result<String, Undecodable> {
    // Before anything is allocated for its values, or recursed into.
    survey(message, bytes, MAX_VALUES)?;
    let decoded =
        DynamicMessage::decode(message.clone(), bytes).map_err(|_| Undecodable::Malformed)?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut out = Bounded(Vec::new());
    let mut json = serde_json::Serializer::new(&mut out);
    match decoded.serialize_with_options(&mut json, &options) {
        Ok(()) => String::from_utf8(out.0).map_err(|_| Undecodable::Malformed),
        Err(error) if error.is_io() => Err(Undecodable::TooLarge),
        Err(_) => Err(Undecodable::Malformed),
    }
}

/// Takes no more than is judged.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_JUDGED_BODY_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Surveyor {
    left: u32,
    found: Survey,
}

impl Surveyor {
    fn message(
        &mut self,
        message: &MessageDescriptor,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), Undecodable> {
        if depth > MAX_DEPTH {
            return Err(Undecodable::Deep);
        }
        if message.full_name() == ANY
            && let Some((inner, value)) = unpack(message, bytes)?
        {
            self.message(&inner, value, depth.saturating_add(1))?;
        }
        let (mut rest, mut once) = (bytes, Vec::new());
        while let Some(field) = next(&mut rest)? {
            self.count(1)?;
            match Known::of(message, field.number) {
                Some(known) => self.field(&known, &field, &mut once, depth)?,
                None => self.found.unknown = true,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        known: &Known,
        field: &WireField<'_>,
        once: &mut Vec<u32>,
        depth: usize,
    ) -> Result<(), Undecodable> {
        match (known.kind(), field.value) {
            (Kind::Message(inner), WireValue::Length(bytes) | WireValue::Group(bytes)) => {
                if !known.is_repeated() {
                    if once.contains(&field.number) {
                        return Err(Undecodable::Malformed);
                    }
                    once.push(field.number);
                }
                self.message(&inner, bytes, depth.saturating_add(1))
            }
            (Kind::String | Kind::Bytes, WireValue::Length(_)) => Ok(()),
            (kind, WireValue::Length(bytes)) if known.is_repeated() => {
                self.count(packed(&kind, bytes)?)
            }
            (kind, value) if fits(&kind, value) => Ok(()),
            _ => Err(Undecodable::Malformed),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), Undecodable> {
        let values = u32::try_from(values).map_err(|_| Undecodable::Values)?;
        self.left = self.left.checked_sub(values).ok_or(Undecodable::Values)?;
        Ok(())
    }
}

/// The message inside an `Any`, and its type; `None` where it is empty.
///
/// # Errors
/// Where its type is not known, or it says it twice.
pub fn unpack<'a>(
    any: &MessageDescriptor,
    bytes: &'a [u8],
) -> Result<Option<(MessageDescriptor, &'a [u8])>, Undecodable> {
    let (mut url, mut value, mut rest) = (None, None, bytes);
    while let Some(field) = next(&mut rest)? {
        let place = match field.number {
            1 => &mut url,
            2 => &mut value,
            _ => continue,
        };
        let WireValue::Length(bytes) = field.value else {
            return Err(Undecodable::Malformed);
        };
        if place.replace(bytes).is_some() {
            return Err(Undecodable::Malformed);
        }
    }
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return match value {
            Some(value) if !value.is_empty() => Err(Undecodable::UnknownType),
            _ => Ok(None),
        };
    };
    let url = std::str::from_utf8(url).map_err(|_| Undecodable::Malformed)?;
    let name = url.rsplit('/').next().unwrap_or_default();
    let inner = any.parent_pool().get_message_by_name(name);
    let inner = inner.ok_or(Undecodable::UnknownType)?;
    Ok(Some((inner, value.unwrap_or_default())))
}

/// How many numbers are packed in these bytes.
fn packed(kind: &Kind, bytes: &[u8]) -> Result<usize, Undecodable> {
    match width(kind) {
        Some(Width::Varint) => {
            let mut rest = bytes;
            let mut count = 0_usize;
            while !rest.is_empty() {
                super::wire::varint(&mut rest)?;
                count = count.saturating_add(1);
            }
            Ok(count)
        }
        Some(Width::Four) if bytes.len().is_multiple_of(4) => Ok(bytes.len() / 4),
        Some(Width::Eight) if bytes.len().is_multiple_of(8) => Ok(bytes.len() / 8),
        _ => Err(Undecodable::Malformed),
    }
}

fn fits(kind: &Kind, value: WireValue<'_>) -> bool {
    matches!(
        (width(kind), value),
        (Some(Width::Varint), WireValue::Varint(_))
            | (Some(Width::Four), WireValue::Four(_))
            | (Some(Width::Eight), WireValue::Eight(_))
    )
}

enum Width {
    Varint,
    Four,
    Eight,
}

/// How a number is written; `None`: it is none.
fn width(kind: &Kind) -> Option<Width> {
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => Some(Width::Varint),
        Kind::Sint32 | Kind::Sint64 | Kind::Bool | Kind::Enum(_) => Some(Width::Varint),
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => Some(Width::Four),
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => Some(Width::Eight),
        Kind::String | Kind::Bytes | Kind::Message(_) => None,
    }
}

#[cfg(test)]
mod tests;
