//! Checking an expression: names, types and cost; and rewriting it for the evaluator (see [`crate::cel_env`]).
//!
//! Owns the walk over the tree. What is not known before the expression runs (parts of a JSON body) is let through and may be an evaluation error.
//! Invariant: a tree that passes reads known names only, yields a bool, and cannot make memory grow beyond some tens of MiB: loops are nested
//! [`MAX_LOOPS`] deep at most, build nothing but lists of borrowed values, and literal lists have [`MAX_LITERALS`] elements in all.

mod calls;
mod detectors;
mod literals;

use cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo,
};

use super::{
    error::{Trouble, nearest},
    types::{FieldKind, Object, Scope, Ty},
};
use crate::cel_env::{Literals, PRESENCE};

/// Most loops (`all`, `exists`, `exists_one`, `map`, `filter`) in one another, a loop over another loop's result included. Each multiplies the work.
pub(crate) const MAX_LOOPS: usize = 2;
/// Most elements of all literal lists and maps of one expression.
pub(crate) const MAX_LITERALS: usize = 256;
/// Most `+` on strings or lists in one expression. Each copies its operands.
pub(crate) const MAX_JOINS: usize = 16;

/// What the walk found out.
pub(super) struct Checked {
    pub(super) literals: Literals,
    pub(super) reads_http: bool,
    pub(super) reads_dns: bool,
    pub(super) reads_body: bool,
    pub(super) reads_head: bool,
    pub(super) reads_ws: bool,
    pub(super) reads_grpc_message: bool,
}

/// Checks a tree and rewrites it in place.
///
/// # Errors
/// All troubles, in the order in which they stand in the text.
pub(super) fn check(
    source: &str,
    scope: &Scope,
    positions: &SourceInfo,
    tree: &mut IdedExpr,
) -> Result<Checked, Vec<Trouble>> {
    let mut checker = Checker {
        source,
        scope,
        positions,
        scopes: Vec::new(),
        loops: 0,
        in_step: 0,
        elements: 0,
        joins: 0,
        troubles: Vec::new(),
        checked: Checked {
            literals: Literals::default(),
            reads_http: false,
            reads_dns: false,
            reads_body: false,
            reads_head: false,
            reads_ws: false,
            reads_grpc_message: false,
        },
    };
    let ty = checker.visit(tree);
    if !(ty == Ty::Bool || ty.is_open()) {
        checker.trouble_at(
            0,
            format!("the expression yields {ty}, but a condition must yield true or false; compare it with something"),
        );
    }
    if checker.troubles.is_empty() {
        return Ok(checker.checked);
    }
    checker.troubles.sort_by_key(|(offset, _)| *offset);
    Err(checker
        .troubles
        .into_iter()
        .map(|(_, trouble)| trouble)
        .collect())
}

struct Checker<'s> {
    source: &'s str,
    scope: &'s Scope,
    positions: &'s SourceInfo,
    /// Loop variables, innermost last.
    scopes: Vec<(String, Ty)>,
    /// Loops around this place, ranges of loops included.
    loops: usize,
    /// Loops whose step this place is in.
    in_step: usize,
    elements: usize,
    joins: usize,
    troubles: Vec<(usize, Trouble)>,
    checked: Checked,
}

impl Checker<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Ty {
        let id = node.id;
        match &mut node.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => {
                let name = std::mem::take(name);
                let ty = self.variable(id, &name);
                node.expr = Expr::Ident(name);
                ty
            }
            Expr::Select(_) => self.select(node),
            Expr::Call(_) => self.call(node),
            Expr::List(list) => {
                self.literal_elements(
                    id,
                    list.elements.iter().all(is_constant),
                    list.elements.len(),
                );
                let elements = list.elements.iter_mut();
                let of = elements.fold(Ty::Never, |ty, element| ty.join(self.visit(element)));
                Ty::list(of)
            }
            Expr::Map(map) => {
                let constant = map.entries.iter().all(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => is_constant(&entry.value),
                    EntryExpr::StructField(_) => false,
                });
                self.literal_elements(id, constant, map.entries.len());
                let mut of = Ty::Never;
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.expect(&mut entry.key, &Ty::Text, "a key of a map");
                        of = of.join(self.visit(&mut entry.value));
                    }
                }
                Ty::map(of)
            }
            Expr::Comprehension(of) => {
                let mut of = std::mem::take(of);
                let ty = self.comprehension(id, &mut of);
                node.expr = Expr::Comprehension(of);
                ty
            }
            Expr::Struct(of) => {
                let message = format!(
                    "{} is not a type here; write a map as {{\"key\": value}}",
                    of.type_name
                );
                self.trouble(id, message);
                Ty::Dyn
            }
            Expr::Unspecified => {
                self.trouble(id, "this part cannot be read");
                Ty::Dyn
            }
        }
    }

    /// Visits a part that must have a type.
    fn expect(&mut self, node: &mut IdedExpr, wanted: &Ty, what: &str) {
        let id = node.id;
        let ty = self.visit(node);
        if !(ty.is_open() || ty == *wanted) {
            self.trouble(id, format!("{what} must be {wanted}, and this is {ty}"));
        }
    }

    fn variable(&mut self, id: u64, name: &str) -> Ty {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(known, _)| known == name) {
            return ty.clone();
        }
        let message = if let Some(object) = self.scope.object(name) {
            format!(
                "{name} is no value of its own; read one of its fields: {}",
                object.field_names()
            )
        } else if let Some(object) = self
            .scope
            .objects
            .iter()
            .rev()
            .find(|object| object.field(name).is_some())
        {
            format!(
                "unknown variable \"{name}\"; did you mean {}.{name}?",
                object.name
            )
        } else {
            let known = self.scope.objects.iter().map(|object| object.name);
            // A part of a variable is no variable.
            let known = known.filter(|name| !name.contains('.'));
            let known: Vec<&str> = known
                .chain(
                    self.scopes
                        .iter()
                        .map(|(name, _)| name.as_str())
                        .filter(|name| !name.starts_with('@')),
                )
                .collect();
            match nearest(name, known.iter().copied()) {
                Some(meant) => format!("unknown variable \"{name}\"; did you mean {meant}?"),
                None => format!(
                    "unknown variable \"{name}\"; there are {}",
                    known.join(", ")
                ),
            }
        };
        self.trouble(id, message);
        Ty::Dyn
    }

    fn select(&mut self, node: &mut IdedExpr) -> Ty {
        let id = node.id;
        let Expr::Select(select) = &mut node.expr else {
            return Ty::Dyn;
        };
        if let Some(object) = self.object_of(&select.operand) {
            let (field, test) = (std::mem::take(&mut select.field), select.test);
            return self.object_field(node, object, &field, test);
        }
        let SelectExpr {
            operand,
            field,
            test,
        } = select;
        let of = self.visit(operand);
        let ty = self.member(id, &of, field);
        if *test { Ty::Bool } else { ty }
    }

    /// The variable that a node names, where no loop variable hides it.
    fn object_of(&self, node: &IdedExpr) -> Option<&'static Object> {
        let path = path(node)?;
        let root = path.split('.').next().unwrap_or_default();
        let hidden = self.scopes.iter().any(|(known, _)| known == root);
        self.scope.object(&path).filter(|_| !hidden)
    }

    /// A field of a variable: one identifier from here on.
    fn object_field(&mut self, node: &mut IdedExpr, object: &Object, name: &str, test: bool) -> Ty {
        let Some(field) = object.field(name) else {
            let meant = nearest(name, object.fields.iter().map(|field| field.name));
            let meant = meant.map_or_else(String::new, |meant| {
                format!("; did you mean {}.{meant}?", object.name)
            });
            self.field_trouble(
                node.id,
                name,
                format!(
                    "unknown field \"{name}\" of {}{meant} Its fields: {}",
                    object.name,
                    object.field_names()
                ),
            );
            return Ty::Dyn;
        };
        let path = format!("{}.{}", object.name, field.name);
        if let (FieldKind::Part, false, Some(part)) = (&field.kind, test, self.scope.object(&path))
        {
            let fields = part.field_names();
            self.field_trouble(
                node.id,
                name,
                format!("{path} is no value of its own; read one of its fields: {fields}"),
            );
            return Ty::Dyn;
        }
        self.checked.reads_http |= matches!(object.name, "http" | "grpc");
        self.checked.reads_dns |= object.name == "dns";
        self.checked.reads_body |= matches!(path.as_str(), "http.body" | "http.detected");
        let is_of_head =
            |path: &str| matches!(path, "http.headers" | "http.contentType" | "http.bodySize");
        self.checked.reads_head |= is_of_head(&path) || self.checked.reads_body;
        self.checked.reads_ws |= object.name == "ws";
        self.checked.reads_grpc_message |=
            matches!(path.as_str(), "grpc.message" | "grpc.direction");
        if !test {
            node.expr = Expr::Ident(path);
            return field.ty();
        }
        node.expr = if field.optional {
            Expr::Ident(format!("{PRESENCE}{path}"))
        } else {
            Expr::Literal(LiteralValue::Boolean(true.into()))
        };
        Ty::Bool
    }

    /// A field or key of a value.
    fn member(&mut self, id: u64, of: &Ty, key: &str) -> Ty {
        match of {
            Ty::Map(value) => (**value).clone(),
            ty if ty.is_open() => Ty::Dyn,
            ty => {
                self.field_trouble(id, key, format!("{ty} has no field \"{key}\""));
                Ty::Dyn
            }
        }
    }

    fn comprehension(&mut self, id: u64, of: &mut ComprehensionExpr) -> Ty {
        self.loops += 1;
        if self.loops == MAX_LOOPS + 1 {
            self.trouble(id, format!("loops may be nested {MAX_LOOPS} deep, a loop over a loop's result included; fold a filter into exists with &&, or {}", self.scope.if_large));
        }
        let range = self.visit(&mut of.iter_range);
        let element = match range {
            Ty::List(element) => *element,
            Ty::Map(_) => Ty::Text,
            ty if ty.is_open() => Ty::Dyn,
            ty => {
                self.trouble(
                    id,
                    format!("{ty} cannot be looped over; a list or a map can"),
                );
                Ty::Dyn
            }
        };
        if self.scope.object(&of.iter_var).is_some() {
            self.trouble(
                id,
                format!(
                    "{} is a variable of its own; name the loop's variable otherwise",
                    of.iter_var
                ),
            );
        }
        let start = self.visit_internal(&mut of.accu_init);
        self.scopes.push((of.accu_var.clone(), start));
        self.scopes.push((of.iter_var.clone(), element));
        self.in_step += 1;
        self.visit(&mut of.loop_cond);
        let step = self.visit(&mut of.loop_step);
        self.in_step -= 1;
        self.scopes.truncate(self.scopes.len().saturating_sub(2));
        self.scopes.push((of.accu_var.clone(), step));
        let result = self.visit(&mut of.result);
        self.scopes.pop();
        self.loops -= 1;
        result
    }

    /// Visits a part that a macro made, which costs nothing.
    fn visit_internal(&mut self, node: &mut IdedExpr) -> Ty {
        let elements = self.elements;
        let ty = self.visit(node);
        self.elements = elements;
        ty
    }

    fn literal_elements(&mut self, id: u64, constant: bool, count: usize) {
        if self.in_step > 0 && !constant {
            self.trouble(id, "inside a loop, a list or map may hold constants only");
        }
        let before = self.elements;
        self.elements += count;
        if before <= MAX_LITERALS && self.elements > MAX_LITERALS {
            self.trouble(id, format!("the literal lists of an expression may have {MAX_LITERALS} elements in all; {}", self.scope.if_large));
        }
    }

    fn trouble(&mut self, id: u64, message: impl Into<String>) {
        let offset = self.offset(id);
        self.trouble_at(offset, message);
    }

    /// A trouble about a name after a dot: the parser's position is the dot's.
    fn field_trouble(&mut self, id: u64, name: &str, message: String) {
        let offset = self.offset(id);
        let rest = self.source.get(offset..).unwrap_or_default();
        let skip = rest.find(name).unwrap_or_default();
        self.trouble_at(offset + skip, message);
    }

    fn trouble_at(&mut self, offset: usize, message: impl Into<String>) {
        self.troubles
            .push((offset, Trouble::at(self.source, offset, message)));
    }

    /// Byte offset of a node. That of a field is its dot's: the name behind it is meant.
    fn offset(&self, id: u64) -> usize {
        let (start, _) = self.positions.offset_for(id).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or_default();
        let rest = self.source.get(start..).unwrap_or_default();
        match rest.strip_prefix('.') {
            Some(name) => start + 1 + (name.len() - name.trim_start().len()),
            None => start,
        }
    }
}

/// The path that a node spells: `a`, `a.b`.
fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let of = path(&select.operand)?;
            Some(format!("{of}.{}", select.field))
        }
        _ => None,
    }
}

fn literal_type(literal: &LiteralValue) -> Ty {
    match literal {
        LiteralValue::Boolean(_) => Ty::Bool,
        LiteralValue::Bytes(_) => Ty::Bytes,
        LiteralValue::Double(_) => Ty::Double,
        LiteralValue::Int(_) => Ty::Int,
        LiteralValue::Null => Ty::Null,
        LiteralValue::String(_) => Ty::Text,
        LiteralValue::UInt(_) => Ty::UInt,
    }
}

fn is_constant(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(_) => true,
        Expr::Call(call) => call.func_name == "-_" && call.args.iter().all(is_constant),
        Expr::List(list) => list.elements.iter().all(is_constant),
        _ => false,
    }
}
