//! One `when` expression: parsed, checked, rewritten, ready to be evaluated.
//!
//! Owns the limits on the text and on the shape of the parsed tree. Invariant: an [`Expression`] evaluates without overflowing a 1 MiB stack.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{
    check::{self, Checked},
    error::Trouble,
    parse_error,
    types::{FILTER, RULE, Scope},
};
use crate::{
    cel_env::{self, Facts, Literals},
    resources::MAX_WHEN_BYTES,
};

/// Most levels of a parsed expression. Parsing and evaluation recurse once a level, with 1.5 kB of stack optimised and up to 13 kB in a debug build, so
/// that 48 levels fit into 1 MiB (a test tries). Chains of `&&` and `||` are balanced and count logarithmically.
pub(crate) const MAX_DEPTH: usize = 48;

/// A compiled `when`.
pub(crate) struct Expression {
    source: String,
    tree: IdedExpr,
    literals: Literals,
    reads_http: bool,
    reads_dns: bool,
    reads_body: bool,
    reads_head: bool,
    /// The method that it asks for before anything else.
    method: Option<String>,
    reads_ws: bool,
    reads_grpc_message: bool,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn compile(source: &str) -> Result<Self, Vec<Trouble>> {
        Self::compile_in(source, &RULE)
    }

    /// Compiles a sink's filter: an expression over a record.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn compile_filter(source: &str) -> Result<Self, Vec<Trouble>> {
        Self::compile_in(source, &FILTER)
    }

    fn compile_in(source: &str, scope: &Scope) -> Result<Self, Vec<Trouble>> {
        let one = |trouble| Err(vec![trouble]);
        if source.trim().is_empty() {
            return one(Trouble::at(source, 0, scope.if_empty));
        }
        if source.len() > MAX_WHEN_BYTES {
            return one(Trouble::at(
                source,
                0,
                format!(
                    "the expression has {} bytes and may have {MAX_WHEN_BYTES}; {}",
                    source.len(),
                    scope.if_large
                ),
            ));
        }
        let program = cel_env::environment()
            .compile(source)
            .map_err(|errors| vec![parse_error::explain(source, scope, &errors)])?;
        if let Some(trouble) = too_deep(source, scope, program.expression(), program.source_info())
        {
            return one(trouble);
        }
        let mut tree = program.expression().clone();
        let Checked {
            literals,
            reads_http,
            reads_dns,
            reads_body,
            reads_head,
            reads_ws,
            reads_grpc_message,
        } = check::check(source, scope, program.source_info(), &mut tree)?;
        Ok(Self {
            source: source.to_owned(),
            method: first_method(&tree).map(str::to_owned),
            tree,
            literals,
            reads_http,
            reads_dns,
            reads_body,
            reads_head,
            reads_ws,
            reads_grpc_message,
        })
    }

    /// Evaluates it on one operation.
    ///
    /// # Errors
    /// Why there is no answer, as a sentence.
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Result<bool, String> {
        if let (Some(asked), Some(sent)) = (&self.method, facts.http_method())
            && asked != sent
        {
            return Ok(false);
        }
        cel_env::evaluate(&self.tree, &self.literals, &self.source, facts)
    }

    /// Evaluates a filter on the line of a record.
    ///
    /// # Errors
    /// Why there is no answer, as a sentence.
    pub(crate) fn evaluate_record(&self, line: &[u8]) -> Result<bool, String> {
        cel_env::evaluate_record(&self.tree, &self.literals, &self.source, line)
    }

    /// Whether it reads any part of `http`.
    pub(crate) fn reads_http(&self) -> bool {
        self.reads_http
    }

    /// Whether it reads any part of `dns`.
    pub(crate) fn reads_dns(&self) -> bool {
        self.reads_dns
    }

    /// Whether it reads any part of `ws`.
    pub(crate) fn reads_ws(&self) -> bool {
        self.reads_ws
    }

    /// Whether it reads `grpc.message` or `grpc.direction`.
    pub(crate) fn reads_grpc_message(&self) -> bool {
        self.reads_grpc_message
    }

    /// Whether it reads `http.body` or `http.detected`.
    pub(crate) fn reads_body(&self) -> bool {
        self.reads_body
    }

    /// Whether it reads header fields, or what is made with them: a body.
    pub(crate) fn reads_head(&self) -> bool {
        self.reads_head
    }
}

/// The method of an expression that begins with `http.method == "…" &&`, or is that alone. The rest is not evaluated where that is false, so neither need the beginning be: most rules
/// are about methods that most requests do not have.
fn first_method(tree: &IdedExpr) -> Option<&str> {
    let mut first = tree;
    while let Expr::Call(call) = &first.expr
        && call.func_name == operators::LOGICAL_AND
    {
        first = call.args.first()?;
    }
    let Expr::Call(call) = &first.expr else {
        return None;
    };
    match call.args.as_slice() {
        [left, right] if call.func_name == operators::EQUALS => match (&left.expr, &right.expr) {
            (Expr::Ident(name), Expr::Literal(LiteralValue::String(text)))
            | (Expr::Literal(LiteralValue::String(text)), Expr::Ident(name))
                if name == "http.method" =>
            {
                Some(text.inner())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Walks the tree without recursion: it may be deeper than the stack allows.
fn too_deep(
    source: &str,
    scope: &Scope,
    tree: &IdedExpr,
    positions: &cel::common::ast::SourceInfo,
) -> Option<Trouble> {
    let mut left = vec![(tree, 1_usize)];
    while let Some((expression, depth)) = left.pop() {
        if depth > MAX_DEPTH {
            let (offset, _) = positions.offset_for(expression.id).unwrap_or_default();
            return Some(Trouble::at(
                source,
                usize::try_from(offset).unwrap_or_default(),
                format!(
                    "the expression is nested more than {MAX_DEPTH} levels deep here; join terms with && or ||, which do not nest, or {}",
                    scope.if_large
                ),
            ));
        }
        left.extend(children(expression).map(|child| (child, depth + 1)));
    }
    None
}

fn children(expression: &IdedExpr) -> impl Iterator<Item = &IdedExpr> {
    let children: Vec<&IdedExpr> = match &expression.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Comprehension(of) => vec![
            &of.iter_range,
            &of.accu_init,
            &of.loop_cond,
            &of.loop_step,
            &of.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| entry_parts(&entry.expr))
            .collect(),
        Expr::Struct(of) => of
            .entries
            .iter()
            .flat_map(|entry| entry_parts(&entry.expr))
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    };
    children.into_iter()
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_asked_for_first_is_known_without_evaluating() {
        for (source, expected) in [
            (r#"http.method == "DELETE""#, Some("DELETE")),
            (
                r#""DELETE" == http.method && http.path == "/""#,
                Some("DELETE"),
            ),
            (
                r#"http.method == "PUT" && http.path == "/" && http.query.exists(k, k == "a") && http.host == "b""#,
                Some("PUT"),
            ),
            (r#"http.path == "/" && http.method == "PUT""#, None),
            (r#"http.method == "PUT" || http.path == "/""#, None),
            (r#"http.method != "PUT""#, None),
            (r#"http.path == "PUT""#, None),
        ] {
            let expression = Expression::compile(source).unwrap();
            assert_eq!(expression.method.as_deref(), expected, "{source}");
        }
    }
}
