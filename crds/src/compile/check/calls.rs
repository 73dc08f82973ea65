//! Operators and functions: which there are, what they take, what they yield.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{Checker, MAX_JOINS};
use crate::compile::{error::nearest, types::Ty};

/// Functions that expressions may call, for suggestions.
const FUNCTIONS: [&str; 19] = [
    "all",
    "bool",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "inCidr",
    "int",
    "isIP",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
    "uint",
];

impl Checker<'_> {
    pub(super) fn call(&mut self, node: &mut IdedExpr) -> Ty {
        let id = node.id;
        let Expr::Call(call) = &mut node.expr else {
            return Ty::Dyn;
        };
        if call.func_name == operators::INDEX
            && let [of, key] = call.args.as_mut_slice()
            && let Some(object) = self.object_of(of)
        {
            let Expr::Literal(LiteralValue::String(name)) = &key.expr else {
                let name = object.name;
                self.trouble(
                    id,
                    format!(
                        "a field of {name} is read by its name, as in {name}.{}",
                        object.field_names()
                    ),
                );
                return Ty::Dyn;
            };
            let name = name.inner().to_owned();
            return self.object_field(node, object, &name, false);
        }
        let mut call = std::mem::take(call);
        let ty = match (call.func_name.as_str(), call.target.is_some()) {
            ("matches", _) => self.matches(id, &mut call),
            ("inCidr", false) => self.in_cidr(id, &mut call),
            (_, true) => self.method(id, &mut call),
            (operators::ADD, false) => self.add(id, &mut call),
            (operators::EQUALS | operators::NOT_EQUALS, false) => self.equality(id, &mut call),
            (_, false) => self.function(id, &mut call),
        };
        node.expr = Expr::Call(call);
        ty
    }

    fn function(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let types: Vec<Ty> = call.args.iter_mut().map(|arg| self.visit(arg)).collect();
        let ids: Vec<u64> = call.args.iter().map(|arg| arg.id).collect();
        match (call.func_name.as_str(), types.as_slice(), ids.as_slice()) {
            (operators::CONDITIONAL, [test, yes, no], [at, ..]) => {
                self.bool_operand(*at, test, "the test of a condition");
                yes.clone().join(no.clone())
            }
            (operators::LOGICAL_AND, [left, right], [at, after]) => {
                self.bool_operand(*at, left, "a side of &&");
                self.bool_operand(*after, right, "a side of &&")
            }
            (operators::LOGICAL_OR, [left, right], [at, after]) => {
                self.bool_operand(*at, left, "a side of ||");
                self.bool_operand(*after, right, "a side of ||")
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [of], [at]) => {
                self.bool_operand(*at, of, "what ! negates")
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [left, right],
                _,
            ) => self.ordered(id, left, right),
            (operators::IN, [value, of], _) => {
                self.detector_names(&types, &call.args);
                self.containment(id, value, of)
            }
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [left, right],
                _,
            ) => self.arithmetic(id, left, right),
            (operators::NEGATE, [of], _) => self.arithmetic(id, of, &Ty::Never),
            (operators::INDEX, [of, key], _) => self.index(id, of, key),
            ("size", [of], _) => self.size(id, of),
            (name @ ("int" | "uint" | "double" | "string" | "bool"), [of], _) => {
                self.conversion(id, name, of)
            }
            ("dyn", [_], _) => Ty::Dyn,
            ("isIP", [of], _) => self.on_text(id, "isIP", of),
            (name, ..) => {
                let message = unknown_function(name);
                self.call_trouble(id, name, message);
                Ty::Dyn
            }
        }
    }

    fn method(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let target = call.target.as_deref_mut();
        let of = target.map_or(Ty::Dyn, |target| self.visit(target));
        let types: Vec<Ty> = call.args.iter_mut().map(|arg| self.visit(arg)).collect();
        match (call.func_name.as_str(), types.as_slice()) {
            (name @ ("contains" | "startsWith" | "endsWith"), [part]) => {
                self.on_text(id, name, &of);
                self.on_text(id, name, part)
            }
            ("size", []) => self.size(id, &of),
            (name, _) => {
                let message = unknown_function(name);
                self.call_trouble(id, name, message);
                Ty::Dyn
            }
        }
    }

    /// The parser's position of a call is its bracket; the name stands before it.
    fn call_trouble(&mut self, id: u64, name: &str, message: String) {
        let offset = self.offset(id);
        let before = self.source.get(..=offset).unwrap_or_default();
        let at = before.rfind(name).unwrap_or(offset);
        self.trouble_at(at, message);
    }

    fn bool_operand(&mut self, id: u64, ty: &Ty, what: &str) -> Ty {
        if !(ty.is_open() || *ty == Ty::Bool) {
            self.trouble(
                id,
                format!(
                    "{what} must be true or false, and this is {ty}; compare it with something"
                ),
            );
        }
        Ty::Bool
    }

    fn ordered(&mut self, id: u64, left: &Ty, right: &Ty) -> Ty {
        let has_order = |ty: &Ty| ty.is_open() || ty.is_number() || *ty == Ty::Text;
        if !(has_order(left) && has_order(right) && left.comparable(right)) {
            self.trouble(id, format!("{left} and {right} have no order"));
        }
        Ty::Bool
    }

    fn containment(&mut self, id: u64, value: &Ty, of: &Ty) -> Ty {
        let element = match of {
            Ty::List(element) => (**element).clone(),
            Ty::Map(_) => Ty::Text,
            ty if ty.is_open() => Ty::Dyn,
            Ty::Text => {
                self.trouble(id, "in looks into lists and maps; for a part of a string write text.contains(part)");
                return Ty::Bool;
            }
            ty => {
                self.trouble(
                    id,
                    format!("in looks into lists and maps, and this is {ty}"),
                );
                return Ty::Bool;
            }
        };
        if matches!(element, Ty::List(_) | Ty::Map(_)) {
            self.trouble(
                id,
                "in finds no lists or maps; write list.exists(x, x == …)",
            );
        } else if !value.comparable(&element) {
            self.trouble(
                id,
                format!("this looks for {value} where each value is {element}"),
            );
        }
        Ty::Bool
    }

    fn arithmetic(&mut self, id: u64, left: &Ty, right: &Ty) -> Ty {
        if let Some(ty) = [left, right]
            .into_iter()
            .find(|ty| !(ty.is_open() || ty.is_number()))
        {
            self.trouble(id, format!("this operator takes numbers, and here is {ty}"));
            return Ty::Dyn;
        }
        if left.is_number() && right.is_number() && left != right {
            self.trouble(
                id,
                format!("{left} and {right} do not mix; convert one with int() or double()"),
            );
            return Ty::Dyn;
        }
        left.clone().join(right.clone())
    }

    /// `+` copies strings and lists, so there it is rationed.
    fn add(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let [left, right] = call.args.as_mut_slice() else {
            return Ty::Dyn;
        };
        if matches!(&left.expr, Expr::Ident(name) if name == "@result") {
            return self.append(left, right);
        }
        let (left, right) = (self.visit(left), self.visit(right));
        if left.is_number() || right.is_number() {
            return self.arithmetic(id, &left, &right);
        }
        if self.loops > 0 {
            self.trouble(id, "in and around loops, + takes numbers only; if these are numbers, say so with int() or double()");
            return Ty::Dyn;
        }
        self.joins += 1;
        if self.joins == MAX_JOINS + 1 {
            self.trouble(
                id,
                format!("an expression may join strings or lists {MAX_JOINS} times"),
            );
        }
        let joins = |ty: &Ty| ty.is_open() || matches!(ty, Ty::Text | Ty::List(_));
        if !(joins(&left) && joins(&right) && left.comparable(&right)) {
            self.trouble(
                id,
                format!("{left} and {right} cannot be added; convert with string()"),
            );
            return Ty::Dyn;
        }
        left.join(right)
    }

    /// What `map`, `filter` and `exists_one` expand to: `@result + [x]`, `@result + 1`.
    fn append(&mut self, left: &mut IdedExpr, right: &mut IdedExpr) -> Ty {
        let before = self.visit(left);
        let added = match &mut right.expr {
            Expr::List(list) => {
                let elements = list.elements.iter_mut();
                Ty::list(elements.fold(Ty::Never, |ty, element| ty.join(self.visit(element))))
            }
            _ => self.visit(right),
        };
        before.join(added)
    }

    fn equality(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let types: Vec<Ty> = call.args.iter_mut().map(|arg| self.visit(arg)).collect();
        let [left, right] = types.as_slice() else {
            return Ty::Bool;
        };
        if matches!((left, right), (Ty::Map(_), Ty::Map(_))) {
            self.trouble(
                id,
                "maps are not compared as a whole; compare their entries",
            );
        } else if !left.comparable(right) {
            self.trouble(id, format!("{left} never equals {right}"));
        }
        self.detector_names(&types, &call.args);
        // A value of a body knows how to compare itself with a literal, not the other way round.
        if right.has_open_part() && !left.has_open_part() {
            call.args.reverse();
        }
        Ty::Bool
    }

    fn index(&mut self, id: u64, of: &Ty, key: &Ty) -> Ty {
        let fits = |wanted: &[Ty]| key.is_open() || wanted.contains(key);
        match of {
            Ty::List(element) if fits(&[Ty::Int, Ty::UInt]) => (**element).clone(),
            Ty::Map(value) if fits(&[Ty::Text]) => (**value).clone(),
            ty if ty.is_open() && fits(&[Ty::Int, Ty::UInt, Ty::Text]) => Ty::Dyn,
            ty => {
                self.trouble(id, format!("{ty} cannot be indexed with {key}"));
                Ty::Dyn
            }
        }
    }

    fn size(&mut self, id: u64, of: &Ty) -> Ty {
        if !(of.is_open() || matches!(of, Ty::Text | Ty::List(_) | Ty::Map(_))) {
            self.trouble(id, format!("{of} has no size"));
        }
        Ty::Int
    }

    fn conversion(&mut self, id: u64, name: &str, of: &Ty) -> Ty {
        let to = match name {
            "int" => Ty::Int,
            "uint" => Ty::UInt,
            "double" => Ty::Double,
            "bool" => Ty::Bool,
            _ => Ty::Text,
        };
        let fits = of.is_open()
            || *of == Ty::Text
            || (of.is_number() && to != Ty::Bool)
            || (*of == Ty::Bool && matches!(to, Ty::Bool | Ty::Text));
        if !fits {
            self.trouble(id, format!("{name}() does not convert {of}"));
        }
        to
    }

    /// A function of strings that yields a bool.
    pub(super) fn on_text(&mut self, id: u64, name: &str, ty: &Ty) -> Ty {
        if !(ty.is_open() || matches!(ty, Ty::Text | Ty::Detector)) {
            self.trouble(id, format!("{name} works on strings, and here is {ty}"));
        }
        Ty::Bool
    }
}

fn unknown_function(name: &str) -> String {
    if FUNCTIONS.contains(&name) {
        return format!("{name} is not called like this; docs/policy.md shows each function");
    }
    match nearest(name, FUNCTIONS) {
        Some(meant) => format!("unknown function \"{name}\"; did you mean {meant}?"),
        None => format!(
            "unknown function \"{name}\"; there are {}",
            FUNCTIONS.join(", ")
        ),
    }
}
