//! Functions whose argument must be a literal, so that it is checked and prepared once: `matches` and `inCidr`.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use regex::RegexBuilder;

use super::Checker;
use crate::{
    cel_env::{NETWORKS, Networks, PATTERN, Pattern},
    compile::types::Ty,
    hosts::parse_cidr,
};

/// Most bytes of one compiled pattern of `matches`, and of its lazily built automaton. A pattern that needs more repeats something large, such as
/// `(.{100}){100}`.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

impl Checker<'_> {
    /// `text.matches("pattern")` or `matches(text, "pattern")`: the pattern becomes an identifier.
    pub(super) fn matches(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let mut parts: Vec<&mut IdedExpr> = call
            .target
            .as_deref_mut()
            .into_iter()
            .chain(&mut call.args)
            .collect();
        let [text, pattern] = parts.as_mut_slice() else {
            self.trouble(
                id,
                "matches takes a string and a pattern, as in http.path.matches(\"^/v[0-9]+/\")",
            );
            return Ty::Bool;
        };
        let ty = self.visit(text);
        self.on_text(id, "matches", &ty);
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            self.trouble(pattern.id, "the pattern of matches must be a literal string: it is checked here, not on each request");
            return Ty::Bool;
        };
        let built = RegexBuilder::new(literal.inner())
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .build();
        match built {
            Ok(regex) => {
                let number = self.checked.literals.patterns.len();
                self.checked.literals.patterns.push(Pattern(regex));
                pattern.expr = Expr::Ident(format!("{PATTERN}{number}"));
            }
            Err(error) => self.trouble(pattern.id, pattern_advice(&error)),
        }
        Ty::Bool
    }

    /// `inCidr(address, "10.0.0.0/8")` or a list of networks: they become an identifier.
    pub(super) fn in_cidr(&mut self, id: u64, call: &mut CallExpr) -> Ty {
        let [address, networks] = call.args.as_mut_slice() else {
            self.trouble(
                id,
                "inCidr takes an address and a CIDR, as in inCidr(destination.ip, \"10.0.0.0/8\")",
            );
            return Ty::Bool;
        };
        let ty = self.visit(address);
        self.on_text(id, "inCidr", &ty);
        let literals: Vec<&IdedExpr> = match &networks.expr {
            Expr::List(list) => list.elements.iter().collect(),
            _ => vec![networks],
        };
        self.literal_elements(id, true, literals.len());
        let mut parsed = Vec::with_capacity(literals.len());
        for literal in literals {
            match &literal.expr {
                Expr::Literal(LiteralValue::String(text)) => match parse_cidr(text.inner()) {
                    Ok(network) => parsed.push(network),
                    Err(error) => self.trouble(literal.id, error.message),
                },
                _ => self.trouble(literal.id, "the networks of inCidr must be literal strings"),
            }
        }
        let number = self.checked.literals.networks.len();
        self.checked.literals.networks.push(Networks(parsed));
        networks.expr = Expr::Ident(format!("{NETWORKS}{number}"));
        Ty::Bool
    }
}

fn pattern_advice(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!(
                "the pattern takes more than {MAX_PATTERN_BYTES} bytes when compiled; repeat less"
            )
        }
        error => {
            // The last line of a syntax error says what it is; the ones before draw the pattern.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let last = last.trim_start_matches("error: ");
            format!("the pattern is no regular expression in RE2 syntax: {last}")
        }
    }
}
