//! The policy compiler: from policies as data to something that decides.
//!
//! Owns admission: whatever [`compile_policy`] accepts, a sidecar can run. Refuses every policy with an error, and says all errors at once, each with
//! its place and how to mend it. Pure: the webhook, the controller, the sidecar and the command line call the same code.
//! Invariant: rules of a [`CompiledSnapshot`] stand in the order in which the merge wants them: Deny before Allow, cluster policies before
//! namespaced ones, then by policy and rule as written.

mod check;
mod datagrams;
mod error;
mod expression;
mod masks;
mod parse_error;
mod record;
mod rules;
mod snapshot;
mod types;
mod upstreams;

use std::sync::Arc;

pub use datagrams::DatagramRule;
pub use error::{PolicyError, PolicyErrors};
pub(crate) use error::{Trouble, excerpt, nearest};
pub(crate) use expression::Expression;
pub use masks::MaskSet;
#[cfg(test)]
pub(crate) use record::RECORD;
pub(crate) use record::type_of;
pub(crate) use rules::CompiledRule;
pub use snapshot::CompiledSnapshot;
pub(crate) use snapshot::{Defaults, PolicyHead};
#[cfg(test)]
pub(crate) use types::Field;
pub(crate) use types::Ty;
pub use upstreams::{UpstreamEntries, UpstreamTls};

use self::{error::Part, rules::match_host};
use crate::{
    detect::{MaskWith, check_field, check_header, check_pattern},
    hosts::HostPattern,
    resources::{Audit, Mask},
    snapshot::{Policy, PolicyRef},
};

/// One policy, compiled.
#[derive(Debug)]
pub struct CompiledPolicy {
    head: PolicyHead,
    rules: Vec<CompiledRule>,
    masks: Vec<masks::CompiledMask>,
    passthrough: Vec<HostPattern>,
    upstreams: Vec<upstreams::CompiledUpstream>,
    audit: Audit,
}

impl CompiledPolicy {
    /// The policy that it was compiled from.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.head.reference
    }

    /// How many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// Compiles one policy: all that admission checks beyond the schema.
///
/// # Errors
/// All that is wrong with it.
pub fn compile_policy(policy: &Policy) -> Result<CompiledPolicy, PolicyErrors> {
    let mut report = Report {
        policy: &policy.reference,
        errors: Vec::new(),
    };
    let rules = rules::compile(policy, &mut report);
    let masks = compile_masks(policy, &mut report);
    let passthrough = compile_passthrough(policy, &mut report);
    let upstreams = upstreams::compile(policy, &passthrough, &mut report);
    if !report.errors.is_empty() {
        return Err(PolicyErrors(report.errors));
    }
    Ok(CompiledPolicy {
        head: PolicyHead {
            reference: Arc::new(policy.reference.clone()),
            mode: policy.mode,
            default_action: policy.default_action,
        },
        rules,
        masks,
        passthrough,
        upstreams,
        audit: policy.audit.clone().unwrap_or_default(),
    })
}

/// Collects errors of one policy.
struct Report<'p> {
    policy: &'p PolicyRef,
    errors: Vec<PolicyError>,
}

impl Report<'_> {
    fn add(&mut self, part: Part<'_>, field: impl Into<String>, trouble: Trouble) {
        let (rule, mask) = match part {
            Part::Policy => (None, None),
            Part::Rule(name) => (Some(name.to_owned()), None),
            Part::Mask(name) => (None, Some(name.to_owned())),
        };
        self.errors.push(PolicyError {
            policy: self.policy.clone(),
            rule,
            mask,
            field: field.into(),
            line: trouble.line,
            column: trouble.column,
            message: trouble.message,
            source_line: trouble.source_line,
        });
    }

    /// Adds an error for each part whose name another part has.
    fn duplicates<'n>(&mut self, parts: impl Iterator<Item = Part<'n>>) {
        let mut seen = Vec::new();
        for (number, part) in parts.enumerate() {
            let (what, name) = match part {
                Part::Policy => continue,
                Part::Rule(name) => ("rule", name),
                Part::Mask(name) => ("mask", name),
            };
            if seen.contains(&name) {
                let message = format!(
                    "there is another {what} of this name; records cite names, so give each its own"
                );
                let field = format!("{what}s[{number}].name");
                self.add(part, field, Trouble::at(name, 0, message));
            }
            seen.push(name);
        }
    }
}

fn compile_masks(policy: &Policy, report: &mut Report<'_>) -> Vec<masks::CompiledMask> {
    report.duplicates(policy.masks.iter().map(|mask| Part::Mask(&mask.name)));
    let before = report.errors.len();
    let compiled = policy
        .masks
        .iter()
        .map(|mask| compile_mask(mask, report))
        .collect();
    if report.errors.len() == before
        && let Err(why) = masks::together(policy.masks.iter(), None)
    {
        report.add(Part::Policy, "masks", Trouble::at("", 0, why));
    }
    compiled
}

fn compile_mask(mask: &Mask, report: &mut Report<'_>) -> masks::CompiledMask {
    let name = Part::Mask(&mask.name);
    for (number, pattern) in mask.patterns.iter().enumerate() {
        if let Err(error) = check_pattern(pattern) {
            let column = error.column.saturating_sub(1);
            let trouble = Trouble::in_line(&pattern.pattern, 0, column, error.problem);
            report.add(name, format!("patterns[{number}].pattern"), trouble);
        }
    }
    for (number, path) in mask.fields.iter().enumerate() {
        if let Err(error) = check_field(path) {
            let column = error.column.saturating_sub(1);
            let trouble = Trouble::in_line(path, 0, column, error.problem);
            report.add(name, format!("fields[{number}]"), trouble);
        }
    }
    for (number, pattern) in mask.headers.iter().enumerate() {
        if let Err((column, problem)) = check_header(pattern) {
            let trouble = Trouble::in_line(pattern, 0, column, problem);
            report.add(name, format!("headers[{number}]"), trouble);
        }
    }
    let places = mask.fields.len() + mask.headers.len();
    if mask.detectors.is_empty() && mask.patterns.is_empty() && places == 0 {
        let message = "a mask needs at least one entry in detectors, patterns, fields or headers";
        report.add(name, "detectors", Trouble::at("", 0, message));
    }
    if !mask.restore_to.is_empty() && mask.with != MaskWith::Token {
        let message = "only tokens can be restored; set with: Token";
        report.add(name, "restoreTo", Trouble::at("", 0, message));
    }
    let matches = mask.matches.clone().unwrap_or_default();
    masks::CompiledMask {
        hosts: match_host(name, "match.hosts", &matches.hosts, report),
        restore_to: match_host(name, "restoreTo", &mask.restore_to, report),
        ports: matches.ports,
        mask: mask.clone(),
    }
}

fn compile_passthrough(policy: &Policy, report: &mut Report<'_>) -> Vec<HostPattern> {
    let names = policy.tls.iter().flat_map(|tls| &tls.passthrough);
    let mut patterns = Vec::new();
    for (number, name) in names.enumerate() {
        let trouble = match HostPattern::parse(name) {
            Ok(pattern @ (HostPattern::Exact(_) | HostPattern::Below(_))) => {
                patterns.push(pattern);
                continue;
            }
            Ok(HostPattern::Any) => Trouble::at(
                name,
                0,
                "* would let all TLS pass unread; name the servers that cannot be read",
            ),
            Ok(HostPattern::Network(_)) => Trouble::at(
                name,
                0,
                "passthrough goes by the server name of TLS; write a name or *.example.com",
            ),
            Err(error) => Trouble::at(name, error.offset, error.message),
        };
        report.add(Part::Policy, format!("tls.passthrough[{number}]"), trouble);
    }
    patterns
}

#[cfg(test)]
pub(crate) use tests::{expression_for_tests, fields_for_tests};

#[cfg(test)]
mod tests;
