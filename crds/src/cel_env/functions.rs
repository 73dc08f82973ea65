//! Functions beside CEL's standard ones: `matches` on patterns that were compiled with the policy, `inCidr`, `isIP`.

use std::{any::Any, fmt, net::IpAddr};

use cel::{
    Env, ExecutionError,
    common::{
        types::{CelBool, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use ipnet::IpNet;
use regex::Regex;

use super::{budget, faults::fault};

/// Type of a compiled pattern; expressions cannot name it.
const PATTERN_TYPE: Type = Type::new_unspecified_type("pattern");
/// Type of parsed networks; expressions cannot name it.
const NETWORKS_TYPE: Type = Type::new_unspecified_type("networks");
static PATTERN: Type = PATTERN_TYPE;
static NETWORKS: Type = NETWORKS_TYPE;

/// A literal pattern of `matches`, compiled.
#[derive(Clone)]
pub(crate) struct Pattern(pub(crate) Regex);

/// The literal networks of `inCidr`, parsed.
#[derive(Clone, Debug)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.as_str()).finish()
    }
}

/// Standard functions and ours. Optional values are off: they would let an expression read a missing field as none without an error.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib().with_optional_support(false);
    let declared = env
        .add_member_overload(
            "matches",
            "text_matches_pattern",
            STRING_TYPE,
            vec![PATTERN_TYPE],
            matches,
        )
        .and_then(|()| {
            env.add_overload(
                "matches",
                "matches_text_pattern",
                vec![STRING_TYPE, PATTERN_TYPE],
                matches,
            )
        })
        .and_then(|()| {
            env.add_overload(
                "inCidr",
                "in_cidr_text_networks",
                vec![STRING_TYPE, NETWORKS_TYPE],
                in_cidr,
            )
        })
        .and_then(|()| env.add_overload("isIP", "is_ip_text", vec![STRING_TYPE], is_ip));
    declared.expect("no standard function has these names");
    env
}

/// `text.matches(pattern)`: whether the pattern is found anywhere in the text.
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = args.as_slice() else {
        return Err(fault("matches takes a text and a pattern"));
    };
    let pattern = pattern
        .downcast_ref::<Pattern>()
        .ok_or_else(|| fault("matches takes a literal pattern"))?;
    let text = text_of(text)?;
    if !budget::charge_bytes(text.len()) {
        return Err(fault(budget::EXHAUSTED));
    }
    Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text))))
}

/// `inCidr(address, networks)`: whether the address lies in one of the networks; an error when it is none.
fn in_cidr<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [address, networks] = args.as_slice() else {
        return Err(fault("inCidr takes an address and networks"));
    };
    let networks = networks
        .downcast_ref::<Networks>()
        .ok_or_else(|| fault("inCidr takes literal networks"))?;
    let address: IpAddr = text_of(address)?.parse().map_err(|_| {
        fault("inCidr was given something that is not an address; test it with isIP")
    })?;
    let address = address.to_canonical();
    let inside = networks.0.iter().any(|network| network.contains(&address));
    Ok(CowVal::owned(CelBool::from(inside)))
}

/// `isIP(text)`: whether the text is an IPv4 or IPv6 address.
fn is_ip<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text] = args.as_slice() else {
        return Err(fault("isIP takes a text"));
    };
    let is = text_of(text)?.parse::<IpAddr>().is_ok();
    Ok(CowVal::owned(CelBool::from(is)))
}

fn text_of<'x>(value: &'x CowVal<'_, '_>) -> Result<&'x str, ExecutionError> {
    value
        .downcast_ref::<CelString<'_>>()
        .map(CelString::inner)
        .ok_or_else(|| fault("a text is needed here"))
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

impl Val for Networks {
    fn get_type(&self) -> &Type {
        &NETWORKS
    }

    fn cel_type() -> &'static Type {
        &NETWORKS
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Networks {}
