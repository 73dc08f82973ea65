//! An audit record as filters see it.
//!
//! Invariant: every field that the compiler lets pass has a value: the record's, or where it is absent the zero value of its type. `http.complete`, which is absent where it is true, is
//! true. Texts of bodies have the values that they had where they were, in records of any version.

use std::sync::OnceLock;

use cel::{
    common::{
        ast::IdedExpr,
        types::{CelBool, CelInt, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};

use super::{
    Literals, PRESENCE, budget, faults,
    json::{self, Json},
    literal, run,
};
use crate::compile::{Ty, type_of};

/// Evaluates an expression on a record's line.
///
/// # Errors
/// Why there is no answer, as a sentence that holds no value of the record.
pub(crate) fn evaluate_record(
    expression: &IdedExpr,
    literals: &Literals,
    source: &str,
    line: &[u8],
) -> Result<bool, String> {
    let escaped = OnceLock::new();
    let record = json::parse(line, &escaped).map_err(|fault| match fault {
        json::Fault::Syntax => "the record is no JSON".to_owned(),
        json::Fault::Refused(_) => "the record holds more than a filter reads".to_owned(),
    })?;
    let activation = Activation {
        record: &record,
        literals,
    };
    run(expression, &activation, |error| {
        faults::describe_with(error, source, |name| format!("{name} has no value here"))
    })
}

struct Activation<'r> {
    record: &'r Json<'r>,
    literals: &'r Literals,
}

impl VariableResolver for Activation<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if !budget::charge(budget::STEP) {
            return None;
        }
        if let Some(path) = name.strip_prefix(PRESENCE) {
            let there = self.find(path).is_some();
            return Some(CowVal::owned(CelBool::from(there)));
        }
        if let Some(value) = literal(self.literals, name) {
            return Some(value);
        }
        match self.find(name) {
            Some(value) => value.lend().ok(),
            None => zero(name),
        }
    }
}

impl<'r> Activation<'r> {
    fn find(&self, path: &str) -> Option<&'r Json<'r>> {
        let mut names = path.split('.');
        names.next().filter(|root| *root == "record")?;
        names
            .try_fold(self.record, |value, name| value.field(name))
            .or_else(|| self.content(path))
    }

    /// The text of a body, which stands apart from it.
    fn content(&self, path: &str) -> Option<&'r Json<'r>> {
        let place = path.strip_prefix("record.")?.strip_suffix(".text")?;
        let content = self.record.field("bodies")?.field(place)?;
        content.field("text")
    }
}

fn zero<'b>(path: &str) -> Option<CowVal<'b, 'b>> {
    Some(match type_of(path)? {
        Ty::Text => CowVal::owned(CelString::from("")),
        Ty::Bool => CowVal::owned(CelBool::from(path == "record.http.complete")),
        Ty::Int => CowVal::owned(CelInt::from(0_i64)),
        Ty::List(_) => CowVal::owned(Json::no_list()),
        Ty::Map(_) => CowVal::owned(Json::no_map()),
        _ => return None,
    })
}
