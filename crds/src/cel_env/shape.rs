//! What lists and maps that look their values up when they are read have in common, as CEL asks it of its values.

use cel::{
    ExecutionError,
    common::{
        types::{CelInt, CelUInt},
        value::Val,
    },
};

use super::{budget, values::size};

/// The part of [`Val`] that says what kind of value it is, and that it can be searched, indexed, gone over and measured.
macro_rules! looked_up {
    ($cel_type:ident) => {
        fn get_type(&self) -> &Type {
            &$cel_type
        }

        fn cel_type() -> &'static Type {
            &$cel_type
        }

        fn as_container(&self) -> Option<&dyn Container> {
            Some(self)
        }

        fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
        where
            Self: 'v,
        {
            Some(self)
        }

        fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
        where
            Self: 'v,
        {
            Some(self)
        }

        fn as_sizer(&self) -> Option<&dyn Sizer> {
            Some(self)
        }
    };
}

/// The part of [`cel::common::traits::Indexer`] that gives a value away: a copy of it.
macro_rules! copied {
    () => {
        fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
        where
            Self: 'v,
        {
            self.get(key).map(CowVal::into_owned)
        }
    };
}

pub(super) use {copied, looked_up};

/// What stands at an index of a list.
///
/// # Errors
/// When the index is no whole number, or there is nothing.
pub(super) fn at<'b, T>(elements: &'b [T], index: &dyn Val) -> Result<&'b T, ExecutionError> {
    let number = if let Some(index) = index.downcast_ref::<CelInt>() {
        usize::try_from(*index.inner()).ok()
    } else if let Some(index) = index.downcast_ref::<CelUInt>() {
        usize::try_from(*index.inner()).ok()
    } else {
        return Err(ExecutionError::UnexpectedType {
            got: index.get_type().name().to_owned(),
            want: "int".to_owned(),
        });
    };
    number
        .and_then(|number| elements.get(number))
        .ok_or_else(|| ExecutionError::IndexOutOfBounds(cel::Value::Null))
}

/// Whether `other`, any kind of list, holds what this one does. The compiler puts values of ours on the left of `==`.
pub(super) fn same_elements<'v, T>(
    elements: &[T],
    value: impl Fn(&T) -> &(dyn Val + 'v),
    other: &dyn Val,
) -> bool {
    let (Some(other), Some(length)) = (other.as_iterable(), other.as_sizer()) else {
        return false;
    };
    if length.size() != size(elements.len()) || !budget::charge_bytes(elements.len()) {
        return false;
    }
    let mut others = other.iter();
    elements.iter().all(|element| {
        let other = others.next();
        other.is_some_and(|other| value(element).equals(other))
    })
}
