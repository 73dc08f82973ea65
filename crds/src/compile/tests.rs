use super::{expression::Expression, types::OBJECTS};

pub(crate) fn expression_for_tests(source: &str) -> Result<Expression, String> {
    Expression::compile(source).map_err(|troubles| {
        let messages: Vec<_> = troubles.into_iter().map(|t| t.message).collect();
        messages.join("; ")
    })
}

/// Paths of all fields, and whether they can be absent.
pub(crate) fn fields_for_tests() -> Vec<(String, bool)> {
    OBJECTS
        .iter()
        .flat_map(|object| {
            let path = |field: &super::types::Field| {
                (format!("{}.{}", object.name, field.name), field.optional)
            };
            object.fields.iter().map(path)
        })
        .collect()
}
