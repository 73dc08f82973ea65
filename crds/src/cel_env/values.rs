//! Maps of text as CEL sees them: headers, query parameters, labels. Values are looked up when they are read.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::OnceLock};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as CelIterator, Sizer},
        types::{CelInt, CelList, CelString, MAP_TYPE, Type},
        value::{CowVal, Val},
    },
};

use super::{
    budget,
    facts::{Pairs, Store},
    faults::fault,
    shape::{copied, looked_up},
};
use crate::decide::HeaderFields;

/// Headers whose values policy does not see: credentials. An expression reads [`SECRET_VALUE`] instead, so that it can tell that the header is there.
pub(crate) const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-amz-security-token",
];
/// What stands for the value of a secret header.
const SECRET_VALUE: &str = "[secret]";

/// A map from text to text.
pub(super) struct TextMap<'f> {
    source: Source<'f>,
    /// Keys, made when a loop asks for them.
    keys: OnceLock<Vec<CelString<'static>>>,
}

#[derive(Clone, Copy)]
enum Source<'f> {
    Headers {
        headers: &'f dyn HeaderFields,
        /// Has those that are given more than once.
        store: &'f Store,
    },
    Query(&'f Pairs),
    Labels(&'f BTreeMap<String, String>),
}

impl<'f> TextMap<'f> {
    /// Headers by lower-case name; a repeated header's values are joined by `, ` (RFC 9110 section 5.3).
    pub(super) fn headers(headers: &'f dyn HeaderFields, store: &'f Store) -> Self {
        Self::new(Source::Headers { headers, store })
    }

    /// Query parameters. To read one that is given more than once is a fault: servers differ in which they take.
    pub(super) fn query(pairs: &'f Pairs) -> Self {
        Self::new(Source::Query(pairs))
    }

    /// Labels of the pod.
    pub(super) fn labels(labels: &'f BTreeMap<String, String>) -> Self {
        Self::new(Source::Labels(labels))
    }

    fn new(source: Source<'f>) -> Self {
        Self {
            source,
            keys: OnceLock::new(),
        }
    }

    fn find(&self, key: &str) -> Result<Option<&'f str>, ExecutionError> {
        match self.source {
            Source::Headers { headers, store } => header(headers, store, key),
            Source::Query(pairs) => parameter(pairs, key),
            Source::Labels(labels) => Ok(labels.get(key).map(String::as_str)),
        }
    }

    fn keys(&self) -> &[CelString<'static>] {
        self.keys.get_or_init(|| {
            let mut names: Vec<String> = match self.source {
                Source::Headers { headers, .. } => headers
                    .fields()
                    .map(|(name, _)| name.to_ascii_lowercase())
                    .collect(),
                Source::Query(pairs) => pairs.iter().map(|(name, _)| name.clone()).collect(),
                Source::Labels(labels) => labels.keys().cloned().collect(),
            };
            names.sort_unstable();
            names.dedup();
            names.into_iter().map(CelString::from).collect()
        })
    }
}

/// Expressions know headers by their lower-case names.
fn header<'f>(
    headers: &'f dyn HeaderFields,
    store: &'f Store,
    key: &str,
) -> Result<Option<&'f str>, ExecutionError> {
    if key.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(None);
    }
    let (mut first, mut repeated) = (None, false);
    for (_, value) in headers
        .fields()
        .filter(|(name, _)| name.eq_ignore_ascii_case(key))
    {
        let value =
            std::str::from_utf8(value).map_err(|_| fault("a header that it reads is not UTF-8"))?;
        repeated = first.is_some();
        first = Some(value.trim_matches([' ', '\t']));
    }
    Ok(match first {
        Some(_) if SECRET_HEADERS.contains(&key) => Some(SECRET_VALUE),
        Some(_) if repeated => store.joined_header(headers, key),
        first => first,
    })
}

fn parameter<'f>(pairs: &'f Pairs, key: &str) -> Result<Option<&'f str>, ExecutionError> {
    let mut values = pairs.iter().filter(|(name, _)| name == key);
    let first = values.next();
    if values.next().is_some() {
        return Err(fault(
            "a query parameter that it reads is given more than once",
        ));
    }
    Ok(first.map(|(_, value)| value.as_str()))
}

impl fmt::Debug for TextMap<'_> {
    /// Prints no value: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TextMap")
    }
}

impl Val for TextMap<'_> {
    looked_up!(MAP_TYPE);

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(TextMap::new(self.source))
    }
}

impl Container for TextMap<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        match value.downcast_ref::<CelString<'_>>() {
            // A parameter that is there twice is there.
            Some(key) => Ok(match self.source {
                Source::Query(pairs) => pairs.iter().any(|(name, _)| name == key.inner()),
                _ => self.find(key)?.is_some(),
            }),
            None => Ok(false),
        }
    }
}

impl Indexer for TextMap<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key =
            key.downcast_ref::<CelString<'_>>()
                .ok_or_else(|| ExecutionError::UnexpectedType {
                    got: key.get_type().name().to_owned(),
                    want: "string".to_owned(),
                })?;
        match self.find(key)? {
            Some(value) if budget::charge_bytes(value.len()) => {
                Ok(CowVal::owned(CelString::from(value)))
            }
            Some(_) => Err(fault(budget::EXHAUSTED)),
            None => Err(ExecutionError::no_such_key(key)),
        }
    }

    copied!();
}

impl Iterable for TextMap<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn CelIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements::new(self.keys()))
    }
}

impl Sizer for TextMap<'_> {
    fn size(&self) -> CelInt {
        size(self.keys().len())
    }
}

/// A length as CEL has it.
pub(super) fn size(length: usize) -> CelInt {
    CelInt::from(i64::try_from(length).unwrap_or(i64::MAX))
}

/// What a loop goes over: a value and its length in bytes.
pub(super) trait Element<'a> {
    fn element(&self) -> (&(dyn Val + 'a), usize);
}

impl Element<'static> for CelString<'static> {
    fn element(&self) -> (&(dyn Val + 'static), usize) {
        (self, self.len())
    }
}

/// Lends elements one by one, and ends early when the budget does; the evaluation is then an error.
pub(super) struct Elements<'b, 'a, T> {
    elements: std::slice::Iter<'b, T>,
    values: PhantomData<&'a ()>,
}

impl<'b, 'a, T: Element<'a>> Elements<'b, 'a, T> {
    pub(super) fn new(elements: &'b [T]) -> Self {
        Self {
            elements: elements.iter(),
            values: PhantomData,
        }
    }
}

impl<'b, 'v, 'a: 'v, T: Element<'a>> CelIterator<'b, 'v> for Elements<'b, 'a, T> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        let (value, length) = self.elements.next()?.element();
        budget::charge_bytes(length).then_some(value)
    }
}

/// A list of text.
pub(super) fn text_list(texts: &[String]) -> CelList<'_> {
    let values: Vec<Box<dyn Val + '_>> = texts
        .iter()
        .map(|text| Box::new(CelString::from(text.as_str())) as Box<dyn Val + '_>)
        .collect();
    CelList::from(values)
}
