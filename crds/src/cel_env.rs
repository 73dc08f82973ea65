//! The CEL environment: which variables and functions an expression has, and how it is evaluated on one operation.
//!
//! Owns the functions (`functions`), the values that expressions see (`values`, `json`, `detected`, in their common `shape`) and the budget that bounds one evaluation (`budget`).
//! Refuses copying: variables are resolved from the borrowed operation when an expression reads them. Secrets never enter: the values of
//! [`values::SECRET_HEADERS`] are replaced, and no error text holds a value of the operation.
//!
//! Expressions arrive here as [`crate::compile`] rewrote them: each variable path (`http.method`) is one identifier, each presence test of an
//! optional field is an identifier that begins with [`PRESENCE`], and each literal pattern or network is an identifier into [`Literals`].
//! Invariant: an admitted expression evaluates within a 1 MiB stack and within [`budget::UNITS`].

pub(crate) mod budget;
mod detected;
mod facts;
mod faults;
mod functions;
mod json;
mod path;
mod record;
mod shape;
mod values;

use std::sync::{Arc, LazyLock};

use cel::{
    Context, Env, ExecutionError, Value,
    common::{
        ast::IdedExpr,
        types::{CelBool, CelInt, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};

pub(crate) use facts::{Facts, Store};
pub(crate) use functions::{Networks, Pattern};
pub(crate) use record::evaluate_record;
use values::TextMap;

/// Prefix of the identifier that stands for a presence test: `has http.body`. No source text can spell it.
pub(crate) const PRESENCE: &str = "has ";
/// Prefix of the identifier of a literal regular expression: `@pattern0`.
pub(crate) const PATTERN: &str = "@pattern";
/// Prefix of the identifier of a literal network or list of networks: `@networks0`.
pub(crate) const NETWORKS: &str = "@networks";

/// Functions and types, built once.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));

/// The environment that expressions are parsed and evaluated with.
pub(crate) fn environment() -> &'static Arc<Env> {
    &ENV
}

/// What an expression's literals became when it was compiled.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    /// Regular expressions of `matches`.
    pub(crate) patterns: Vec<Pattern>,
    /// Networks of `inCidr`.
    pub(crate) networks: Vec<Networks>,
}

/// Evaluates an expression on one operation.
///
/// # Errors
/// Why there is no answer, as a sentence that holds no value of the operation. `source` is the expression's text: a key that stands in it may be
/// named.
pub(crate) fn evaluate(
    expression: &IdedExpr,
    literals: &Literals,
    source: &str,
    facts: &Facts<'_>,
) -> Result<bool, String> {
    let activation = Activation { facts, literals };
    run(expression, &activation, |error| {
        faults::describe(error, source, facts)
    })
}

/// Evaluates an expression with these variables. `describe` says an error in words.
fn run(
    expression: &IdedExpr,
    variables: &dyn VariableResolver,
    describe: impl FnOnce(&ExecutionError) -> String,
) -> Result<bool, String> {
    budget::begin();
    let mut context = Context::with_env(Arc::clone(&ENV));
    context.set_variable_resolver(variables);
    // Not `resolve_val`: it is inlined into the caller, and a debug build of the caller has frames of 50 kB a level.
    let result = Value::resolve(expression, &context);
    if budget::exhausted() {
        return Err(budget::EXHAUSTED.to_owned());
    }
    match result {
        Ok(Value::Bool(answer)) => Ok(answer),
        Ok(_) => Err("it yields neither true nor false".to_owned()),
        Err(error) => Err(describe(&error)),
    }
}

/// The literal of an expression that an identifier stands for.
fn literal<'l>(literals: &'l Literals, name: &str) -> Option<CowVal<'l, 'l>> {
    if let Some(number) = name.strip_prefix(PATTERN) {
        let pattern = literals.patterns.get(number.parse::<usize>().ok()?)?;
        return Some(CowVal::Borrowed(pattern));
    }
    let number = name.strip_prefix(NETWORKS)?.parse::<usize>().ok()?;
    Some(CowVal::Borrowed(literals.networks.get(number)?))
}

/// Resolves the identifiers of one expression on one operation.
struct Activation<'f, 'a> {
    facts: &'f Facts<'a>,
    literals: &'f Literals,
}

impl VariableResolver for Activation<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if !budget::charge(budget::STEP) {
            return None;
        }
        let facts = self.facts;
        let operation = facts.operation;
        if let Some(http) = name.strip_prefix("http.") {
            return self.http(http);
        }
        if let Some(ws) = name.strip_prefix("ws.") {
            return self.ws(ws);
        }
        let text = match name {
            "operation.protocol" => operation.protocol.as_str(),
            "operation.verb" => operation.verb,
            "operation.resource" => operation.resource,
            "destination.host" => facts.destination_host(),
            "destination.ip" => facts.ip(),
            "destination.port" => {
                return Some(CowVal::owned(CelInt::from(i64::from(
                    operation.destination.port,
                ))));
            }
            "destination.sni" => operation.destination.sni.unwrap_or_default(),
            "dns.name" => operation.dns?.name,
            "dns.type" => operation.dns?.kind,
            "grpc.service" => facts.grpc().ok()?.map_or("", |call| call.service),
            "grpc.method" => facts.grpc().ok()?.map_or("", |call| call.method),
            "grpc.direction" => operation.grpc?.direction.as_str(),
            "grpc.message" => {
                return Some(CowVal::Borrowed(facts.grpc_message().ok()??.as_val()));
            }
            "agent.namespace" => &facts.agent.namespace,
            "agent.pod" => &facts.agent.pod,
            "agent.serviceAccount" => &facts.agent.service_account,
            "agent.labels" => return Some(CowVal::owned(TextMap::labels(&facts.agent.labels))),
            "agent.images" => return Some(CowVal::owned(values::text_list(&facts.agent.images))),
            _ => return self.internal(name),
        };
        Some(CowVal::owned(CelString::from(text)))
    }
}

impl Activation<'_, '_> {
    fn http<'b>(&'b self, field: &str) -> Option<CowVal<'b, 'b>> {
        let http = self.facts.operation.http.as_ref()?;
        let text = match field {
            "method" => self.facts.method(),
            "scheme" => http.scheme,
            "host" => self.facts.http_host(),
            "path" => self.facts.path().ok()?,
            "contentType" => self.facts.content_type(),
            "query" => return Some(CowVal::owned(TextMap::query(self.facts.query().ok()?))),
            "headers" => {
                return Some(CowVal::owned(TextMap::headers(
                    http.headers,
                    self.facts.store,
                )));
            }
            "bodySize" => {
                let size = i64::try_from(self.facts.body_size()?).ok()?;
                return Some(CowVal::owned(CelInt::from(size)));
            }
            "detected" => return Some(CowVal::owned(self.facts.detected().ok()?)),
            "body" => return Some(CowVal::Borrowed(self.facts.body().ok()??.as_val())),
            _ => return None,
        };
        Some(CowVal::owned(CelString::from(text)))
    }

    fn ws<'b>(&'b self, field: &str) -> Option<CowVal<'b, 'b>> {
        let ws = self.facts.operation.ws.as_ref()?;
        let text = match field {
            "direction" => ws.direction.as_str(),
            "binary" => return Some(CowVal::owned(CelBool::from(ws.binary))),
            "size" => {
                let size = i64::try_from(self.facts.message_size()?).ok()?;
                return Some(CowVal::owned(CelInt::from(size)));
            }
            "text" => self.facts.message_text().ok()??,
            "json" => return Some(CowVal::Borrowed(self.facts.message_json().ok()??.as_val())),
            "detected" => return Some(CowVal::owned(self.facts.message_detected().ok()?)),
            _ => return None,
        };
        Some(CowVal::owned(CelString::from(text)))
    }

    /// Presence tests and literals.
    fn internal<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(field) = name.strip_prefix(PRESENCE) {
            return self
                .present(field)
                .map(|is| CowVal::owned(CelBool::from(is)));
        }
        literal(self.literals, name)
    }

    /// `None`: it cannot be told, because the body or the path could not be judged.
    fn present(&self, field: &str) -> Option<bool> {
        let destination = &self.facts.operation.destination;
        Some(match field {
            "destination.host" => destination.host.is_some(),
            "destination.sni" => destination.sni.is_some(),
            "http.contentType" => !self.facts.content_type().is_empty(),
            "http.bodySize" => self.facts.body_size().is_some(),
            "http.body" => self.facts.body().ok()?.is_some(),
            "grpc.service" | "grpc.method" => self.facts.grpc().ok()?.is_some(),
            "grpc.message" => self.facts.grpc_message().ok()?.is_some(),
            "ws.size" => self.facts.message_size().is_some(),
            "ws.text" => self.facts.message_text().ok()?.is_some(),
            "ws.json" => self.facts.message_json().ok()?.is_some(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
