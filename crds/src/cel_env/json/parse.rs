//! Parsing a body into [`Json`] within limits.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use cel::common::types::{CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Json, List, Map};

/// Most values in one body, each at most 56 bytes in memory: 3.5 MiB.
const MAX_VALUES: u32 = 65_536;
const TOO_MANY: &str = "the body holds too many values to be judged";
const DUPLICATE: &str =
    "an object in the body has a key twice, which servers read in different ways";

/// Why bytes did not become a value.
pub(in crate::cel_env) enum Fault {
    /// They are not JSON.
    Syntax,
    /// They are JSON that is not judged: a sentence says why.
    Refused(&'static str),
}

/// Parses a whole body. Strings with escapes are kept in `escaped`, which must be new.
///
/// # Errors
/// See [`Fault`]. Nesting beyond 128 levels counts as [`Fault::Refused`].
pub(in crate::cel_env) fn parse<'a>(
    bytes: &'a [u8],
    escaped: &'a OnceLock<Vec<String>>,
) -> Result<Json<'a>, Fault> {
    let mut collected = Vec::new();
    let json = pass(bytes, Escaped::Collect(&mut collected))?;
    if collected.is_empty() {
        return Ok(json);
    }
    // Texts with escapes must outlive the values that borrow from them: they are collected first and lent in a second pass.
    let collected = escaped.get_or_init(|| collected);
    pass(bytes, Escaped::Lend(collected.iter()))
}

fn pass<'a>(bytes: &'a [u8], escaped: Escaped<'a, '_>) -> Result<Json<'a>, Fault> {
    let mut state = State {
        left: MAX_VALUES,
        refused: None,
        escaped,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Seed(&mut state)
        .deserialize(&mut deserializer)
        .and_then(|json| deserializer.end().map(|()| json));
    parsed.map_err(|error| match state.refused {
        Some(why) => Fault::Refused(why),
        None if error.to_string().starts_with("recursion limit") => {
            Fault::Refused("the body is nested too deeply to be judged")
        }
        None => Fault::Syntax,
    })
}

struct State<'de, 'c> {
    left: u32,
    refused: Option<&'static str>,
    escaped: Escaped<'de, 'c>,
}

/// What becomes of texts with escapes.
enum Escaped<'de, 'c> {
    /// They are collected.
    Collect(&'c mut Vec<String>),
    /// They are taken from those that were collected.
    Lend(std::slice::Iter<'de, String>),
}

impl<'de> State<'de, '_> {
    fn unescaped(&mut self, text: &str) -> CelString<'de> {
        match &mut self.escaped {
            Escaped::Collect(texts) => {
                texts.push(text.to_owned());
                CelString::from(text.to_owned())
            }
            Escaped::Lend(texts) => CelString::from(texts.next().map_or("", String::as_str)),
        }
    }
}

struct Seed<'s, 'de, 'c>(&'s mut State<'de, 'c>);

impl<'de> DeserializeSeed<'de> for Seed<'_, 'de, '_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        let Some(left) = self.0.left.checked_sub(1) else {
            self.0.refused = Some(TOO_MANY);
            return Err(D::Error::custom(TOO_MANY));
        };
        self.0.left = left;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, 'de, '_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null(CelNull))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Int(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Json::Int(CelInt::from(value)),
            Err(_) => Json::UInt(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Double(CelDouble::from(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(CelString::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(self.0.unescaped(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Seed(self.0))? {
            list.push(value);
        }
        Ok(Json::List(List(Arc::new(list))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut map: Vec<(CelString<'de>, Json<'de>)> = Vec::new();
        while let Some(key) = access.next_key_seed(KeySeed(self.0))? {
            map.push((key, access.next_value_seed(Seed(self.0))?));
        }
        map.sort_by(|(a, _), (b, _)| a.cmp(b));
        let twice = map
            .iter()
            .zip(map.iter().skip(1))
            .any(|((a, _), (b, _))| a == b);
        if twice {
            self.0.refused = Some(DUPLICATE);
            return Err(A::Error::custom(DUPLICATE));
        }
        Ok(Json::Map(Map(Arc::new(map))))
    }
}

struct KeySeed<'s, 'de, 'c>(&'s mut State<'de, 'c>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, 'de, '_> {
    type Value = CelString<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_, 'de, '_> {
    type Value = CelString<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(CelString::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.0.unescaped(value))
    }
}
