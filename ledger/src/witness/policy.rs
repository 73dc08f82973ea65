//! Which witnesses there are, and which of them suffice: the policy file of Tessera and torchwood.
//!
//! ```text
//! # comments and empty lines mean nothing
//! log ledger.example/prod+0337ae09+Ac4C…
//! witness w1 witness.example/w1+37d905bb+BC2A… https://witness.example/
//! witness w2 other.example+9c1f3a70+BPq0… https://other.example/witness
//! group most any w1 w2
//! quorum most
//! ```

use std::{collections::BTreeSet, str::FromStr};

use thiserror::Error;

use crate::key::{Algorithm, VerifierKey};

/// Most lines of a policy.
const MAX_LINES: usize = 1000;
/// Most witnesses: a note has at most 64 signatures, and the log's own are among them.
const MAX_WITNESSES: usize = 32;

/// A witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is asked; none of one whose signatures come in another way.
    pub url: Option<String>,
}

/// Which witnesses there are and which suffice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    witnesses: Vec<Witness>,
    logs: Vec<VerifierKey>,
    /// In the order in which they stand: a group names what stands before it, so that none holds itself.
    groups: Vec<Group>,
    /// A witness or group; none where nothing is asked for.
    quorum: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: BTreeSet<String>,
}

/// Why a policy cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// A line is at fault.
    #[error("line {line} of the witness policy: {fault}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        fault: String,
    },
    /// There is no line that says which suffice.
    #[error("the witness policy has no line 'quorum NAME' (or 'quorum none')")]
    NoQuorum,
    /// There are too many.
    #[error("a witness policy has at most {MAX_LINES} lines and {MAX_WITNESSES} witnesses")]
    TooLong,
}

impl Policy {
    /// The witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Keys of the logs that it is for; none where it does not say.
    #[must_use]
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// Whether those who signed suffice.
    #[must_use]
    pub fn is_satisfied(&self, signed: impl Fn(&VerifierKey) -> bool) -> bool {
        let Some(quorum) = &self.quorum else {
            return true;
        };
        let signers = self.witnesses.iter().filter(|w| signed(&w.key));
        let mut satisfied: BTreeSet<&str> = signers.map(|w| w.name.as_str()).collect();
        for group in &self.groups {
            let members = group.members.iter();
            let there = members.filter(|m| satisfied.contains(m.as_str())).count();
            if there >= group.threshold {
                satisfied.insert(&group.name);
            }
        }
        satisfied.contains(quorum.as_str())
    }

    fn knows(&self, name: &str) -> bool {
        let mut witnesses = self.witnesses.iter();
        self.groups.iter().any(|group| group.name == name) || witnesses.any(|w| w.name == name)
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["log", key, ..] => self.logs.push(read_key(key)?),
            ["witness", name, key, url @ ..] if url.len() <= 1 => {
                self.fresh(name)?;
                let key = read_key(key)?;
                if key.algorithm() != Algorithm::CosignatureV1 {
                    return Err(format!("{key} is no witness's key (cosignature/v1)"));
                }
                if self.witnesses.iter().any(|witness| witness.key == key) {
                    return Err(format!("{key} is there twice"));
                }
                self.witnesses.push(Witness {
                    name: (*name).to_owned(),
                    key,
                    url: url.first().map(|url| (*url).to_owned()),
                });
            }
            ["group", name, threshold, members @ ..] if !members.is_empty() => {
                self.fresh(name)?;
                let threshold = match *threshold {
                    "any" => 1,
                    "all" => members.len(),
                    number => number.parse().unwrap_or(0),
                };
                if !(1..=members.len()).contains(&threshold) {
                    return Err(format!(
                        "a threshold is any, all, or 1 to {}",
                        members.len()
                    ));
                }
                if let Some(unknown) = members.iter().find(|member| !self.knows(member)) {
                    return Err(format!("{unknown} is not defined before"));
                }
                let count = members.len();
                let members: BTreeSet<_> = members.iter().map(|m| (*m).to_owned()).collect();
                if members.len() < count {
                    return Err("it names a member twice".to_owned());
                }
                self.groups.push(Group {
                    name: (*name).to_owned(),
                    threshold,
                    members,
                });
            }
            _ => {
                return Err(
                    "it is none of: log VKEY, witness NAME VKEY [URL], group NAME N|any|all MEMBER…, quorum NAME|none"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn fresh(&self, name: &str) -> Result<(), String> {
        match self.knows(name) || name == "none" {
            true => Err(format!("the name {name} is taken")),
            false => Ok(()),
        }
    }
}

fn read_key(text: &str) -> Result<VerifierKey, String> {
    text.parse()
        .map_err(|error| format!("{text} is no key: {error}"))
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self {
            witnesses: Vec::new(),
            logs: Vec::new(),
            groups: Vec::new(),
            quorum: None,
        };
        let mut quorum: Option<Option<String>> = None;
        for (line, number) in text.lines().zip(1..) {
            let fault = |fault| PolicyError::Line {
                line: number,
                fault,
            };
            if number > MAX_LINES || policy.witnesses.len() > MAX_WITNESSES {
                return Err(PolicyError::TooLong);
            }
            let said = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = said.split_ascii_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["quorum", _] if quorum.is_some() => {
                    return Err(fault("there is a quorum already".to_owned()));
                }
                ["quorum", "none"] => quorum = Some(None),
                ["quorum", name] if policy.knows(name) => quorum = Some(Some((*name).to_owned())),
                ["quorum", name] => return Err(fault(format!("{name} is not defined before"))),
                words => policy.line(words).map_err(fault)?,
            }
        }
        policy.quorum = quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(policy)
    }
}
