//! A request body as JSON, parsed within limits and kept as CEL values.
//!
//! Owns its own tree instead of `serde_json::Value`: a body of one MiB may hold a hundred thousand small objects, which as maps would take a
//! hundred times its size. Refuses duplicate keys (servers differ in which they take) and more than [`parse::MAX_VALUES`] values.
//! Invariant: objects are sorted by key, keys are unique, and strings without escapes borrow from the body.

mod parse;

use std::{fmt, sync::Arc};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as CelIterator, Sizer},
        types::{
            CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt, LIST_TYPE, MAP_TYPE, Type,
        },
        value::{CowVal, Val},
    },
};

pub(super) use parse::{Fault, parse};

use super::{
    budget,
    faults::fault,
    shape::{at, copied, looked_up, same_elements},
    values::{Element, Elements, size},
};

/// One JSON value.
#[derive(Clone)]
pub(crate) enum Json<'a> {
    Null(CelNull),
    Bool(CelBool),
    Int(CelInt),
    UInt(CelUInt),
    Double(CelDouble),
    Text(CelString<'a>),
    List(List<'a>),
    Map(Map<'a>),
}

/// An array. Shared, so that a loop that binds it copies nothing.
#[derive(Clone)]
pub(crate) struct List<'a>(Arc<Vec<Json<'a>>>);

/// An object.
#[derive(Clone)]
pub(crate) struct Map<'a>(Arc<Vec<(CelString<'a>, Json<'a>)>>);

impl<'a> Json<'a> {
    /// The value as CEL's evaluator handles it.
    pub(super) fn as_val(&self) -> &(dyn Val + 'a) {
        match self {
            Self::Null(value) => value,
            Self::Bool(value) => value,
            Self::Int(value) => value,
            Self::UInt(value) => value,
            Self::Double(value) => value,
            Self::Text(value) => value,
            Self::List(value) => value,
            Self::Map(value) => value,
        }
    }

    /// The value of a field of an object.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Map(map) = self else {
            return None;
        };
        let at = map
            .0
            .binary_search_by(|(key, _)| key.inner().cmp(name))
            .ok()?;
        map.0.get(at).map(|(_, value)| value)
    }

    /// An array without elements.
    pub(super) fn no_list() -> List<'static> {
        List(Arc::default())
    }

    /// An object without fields.
    pub(super) fn no_map() -> Map<'static> {
        Map(Arc::default())
    }

    /// The value as the result of a lookup, paid for by its length.
    pub(super) fn lend<'b, 'v>(&'b self) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        'a: 'v,
    {
        if budget::charge_bytes(self.weight()) {
            Ok(CowVal::Borrowed(self.as_val()))
        } else {
            Err(fault(budget::EXHAUSTED))
        }
    }

    /// Bytes that an operation on the value may look at.
    fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 0,
        }
    }
}

impl<'a> Map<'a> {
    fn find(&self, key: &dyn Val) -> Option<&Json<'a>> {
        let key = key.downcast_ref::<CelString<'_>>()?;
        let at = self
            .0
            .binary_search_by(|(name, _)| name.inner().cmp(key.inner()))
            .ok()?;
        self.0.get(at).map(|(_, value)| value)
    }
}

impl<'a> Element<'a> for Json<'a> {
    fn element(&self) -> (&(dyn Val + 'a), usize) {
        (self.as_val(), self.weight())
    }
}

/// A loop over an object goes over its keys.
impl<'a> Element<'a> for (CelString<'a>, Json<'a>) {
    fn element(&self) -> (&(dyn Val + 'a), usize) {
        (&self.0, self.0.len())
    }
}

impl fmt::Debug for List<'_> {
    /// Prints no value: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({})", self.0.len())
    }
}

impl fmt::Debug for Map<'_> {
    /// Prints no value: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({})", self.0.len())
    }
}

impl Val for List<'_> {
    looked_up!(LIST_TYPE);

    /// Element by element.
    fn equals(&self, other: &dyn Val) -> bool {
        same_elements(&self.0, Json::as_val, other)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for List<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let weight: usize = self.0.iter().map(|value| value.weight().max(1)).sum();
        if !budget::charge_bytes(weight) {
            return Err(fault(budget::EXHAUSTED));
        }
        Ok(self.0.iter().any(|each| each.as_val().equals(value)))
    }
}

impl Indexer for List<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        at(&self.0, index)?.lend()
    }

    copied!();
}

impl Iterable for List<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn CelIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements::new(&self.0))
    }
}

impl Sizer for List<'_> {
    fn size(&self) -> CelInt {
        size(self.0.len())
    }
}

impl Val for Map<'_> {
    looked_up!(MAP_TYPE);

    /// Entry by entry, with any kind of map.
    fn equals(&self, other: &dyn Val) -> bool {
        let (Some(entries), Some(length)) = (other.as_indexer(), other.as_sizer()) else {
            return false;
        };
        length.size() == self.size()
            && budget::charge_bytes(self.0.len())
            && self.0.iter().all(|(key, value)| {
                entries
                    .get(key)
                    .is_ok_and(|other| value.as_val().equals(other.as_ref()))
            })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for Map<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Indexer for Map<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.find(key) {
            Some(value) => value.lend(),
            None => Err(ExecutionError::no_such_key(
                key.downcast_ref::<CelString<'_>>()
                    .map_or("", |key| key.inner()),
            )),
        }
    }

    copied!();
}

impl Iterable for Map<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn CelIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements::new(&self.0))
    }
}

impl Sizer for Map<'_> {
    fn size(&self) -> CelInt {
        size(self.0.len())
    }
}
