//! Evaluation errors in words. Invariant: no text holds a value of the operation, because it goes into a record.

use cel::ExecutionError;

use super::facts::Facts;

/// Marks errors whose message is ours, and so holds no value.
const OURS: &str = "@chaperone";

/// An error of ours. `message` must not hold a value of the operation.
pub(super) fn fault(message: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError {
        function: OURS.to_owned(),
        message: message.into(),
    }
}

/// The error as a sentence.
pub(super) fn describe(error: &ExecutionError, source: &str, facts: &Facts<'_>) -> String {
    describe_with(error, source, |name| undeclared(name, facts))
}

/// The error as a sentence; `undeclared` says why a variable has no value.
pub(super) fn describe_with(
    error: &ExecutionError,
    source: &str,
    undeclared: impl FnOnce(&str) -> String,
) -> String {
    match error {
        ExecutionError::UndeclaredReference(name) => undeclared(name),
        // A key from the expression's own text gives nothing away; one that the agent sent could.
        ExecutionError::NoSuchKey(key) if source.contains(key.as_str()) && !key.is_empty() => {
            format!("\"{key}\" is not there; test it first, with has() or in")
        }
        ExecutionError::NoSuchKey(_) => {
            "a key that it reads is not there; test it first, with has() or in".to_owned()
        }
        ExecutionError::IndexOutOfBounds(_) => {
            "a list is shorter than it expects; test size() first".to_owned()
        }
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("got {got} where {want} is needed"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number overflows".to_owned(),
        ExecutionError::FunctionError { function, message } if function == OURS => message.clone(),
        ExecutionError::FunctionError { function, .. } => {
            format!("{function}() cannot take this value")
        }
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("these values cannot be combined by {operator}")
        }
        _ => "it cannot be evaluated on this operation".to_owned(),
    }
}

/// Why a variable has no value.
fn undeclared(name: &str, facts: &Facts<'_>) -> String {
    let fault = match name {
        "http.path" | "grpc.service" | "grpc.method" | "has grpc.service" | "has grpc.method" => {
            facts.path().err()
        }
        "http.query" => facts.query().err(),
        "http.bodySize" => {
            Some("http.bodySize is not known for this request; test it with has(http.bodySize)")
        }
        "http.body" | "has http.body" => facts.body().err().or(Some(
            "http.body is there for JSON only; test it with has(http.body)",
        )),
        "http.detected" => facts.detected().err(),
        "ws.detected" => facts.message_detected().err(),
        "grpc.message" | "has grpc.message" => facts.grpc_message().err().or(Some(
            "grpc.message is there for messages of gRPC calls only",
        )),
        "ws.size" => Some("ws.size is not known for this message; test it with has(ws.size)"),
        "ws.text" | "has ws.text" => facts.message_text().err().or(Some(
            "ws.text is there for text messages only; test it with has(ws.text)",
        )),
        "ws.json" | "has ws.json" => facts.message_json().err().or(Some(
            "ws.json is there for JSON only; test it with has(ws.json)",
        )),
        _ => None,
    };
    fault.map_or_else(|| format!("{name} has no value here"), str::to_owned)
}
