//! Names of detectors that expressions compare with: one that does not exist would be a rule that never matches.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::Checker;
use crate::{
    compile::{error::nearest, types::Ty},
    detect::Builtin,
};

impl Checker<'_> {
    /// Checks the literals that stand beside a name of a detector, or beside the list of them.
    pub(super) fn detector_names(&mut self, types: &[Ty], args: &[IdedExpr]) {
        let is_detected = |ty: &Ty| match ty {
            Ty::List(of) => **of == Ty::Detector,
            ty => *ty == Ty::Detector,
        };
        if types.iter().any(is_detected) {
            args.iter().for_each(|arg| self.detector_name(arg));
        }
    }

    fn detector_name(&mut self, node: &IdedExpr) {
        match &node.expr {
            Expr::List(list) => {
                for element in &list.elements {
                    self.detector_name(element);
                }
            }
            Expr::Literal(LiteralValue::String(text)) => {
                let name = text.inner();
                let mut known = Builtin::ALL.into_iter().map(Builtin::name);
                if known.any(|known| known == name) {
                    return;
                }
                let all: Vec<_> = Builtin::ALL.into_iter().map(Builtin::name).collect();
                let message = match nearest(name, all.iter().copied()) {
                    Some(meant) => {
                        format!("no detector is called \"{name}\"; did you mean {meant}?")
                    }
                    None => format!(
                        "no detector is called \"{name}\"; there are {}",
                        all.join(", ")
                    ),
                };
                self.trouble(node.id, message);
            }
            _ => {}
        }
    }
}
