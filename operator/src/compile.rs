//! The policy compiler of the contract, as the operator asks it: can this run, and if not, why.

use chaperone_crds::{
    compile::{CompiledSnapshot, compile_policy},
    snapshot::{Policy, Snapshot},
};

/// Whether a policy compiles.
///
/// # Errors
/// All that is wrong with it, each with policy, rule, line, column and caret.
pub fn policy(policy: &Policy) -> Result<(), String> {
    match compile_policy(policy) {
        Ok(_) => Ok(()),
        Err(errors) => Err(errors.to_string()),
    }
}

/// Whether a merged snapshot compiles. Its policies may compile one by one and yet be too much together.
///
/// # Errors
/// All that is wrong with it.
pub fn snapshot(snapshot: &Snapshot) -> Result<(), String> {
    match CompiledSnapshot::compile(snapshot) {
        Ok(_) => Ok(()),
        Err(errors) => Err(errors.to_string()),
    }
}
