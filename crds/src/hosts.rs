//! Host patterns of rules, masks and passthrough lists: `api.example.com`, `*.example.com`, `*`, an address, a CIDR.
//!
//! Owns their syntax and what they match. Refuses what could be read in two ways: ports, URLs, wildcards in the middle, networks with host bits.
//! Invariant: a parsed name is in lower case, ASCII and without a trailing dot, so that matching is comparing bytes.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use thiserror::Error;

/// Longest host name, in bytes (RFC 1035 section 2.3.4, in text form).
const MAX_NAME_BYTES: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// One entry of a `hosts` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: every destination, named or not.
    Any,
    /// A name, matched without regard to case.
    Exact(String),
    /// `*.example.com`: names below the domain at any depth, not the domain itself. Holds `example.com`.
    Below(String),
    /// Addresses: one address is a network of one.
    Network(IpNet),
}

/// Why a host pattern was refused.
#[derive(Error, Clone, Debug, PartialEq, Eq)]
#[error("{message}")]
pub struct HostPatternError {
    /// Byte offset in the pattern where the trouble starts.
    pub offset: usize,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl HostPattern {
    /// Parses one entry.
    ///
    /// # Errors
    /// [`HostPatternError`] when it is none of a name, `*.name`, `*`, an address or a CIDR.
    pub fn parse(pattern: &str) -> Result<Self, HostPatternError> {
        if pattern == "*" {
            return Ok(Self::Any);
        }
        if let Some(network) = parse_network(pattern)? {
            return Ok(Self::Network(network));
        }
        match pattern.strip_prefix("*.") {
            Some(domain) => parse_name(domain, 2).map(Self::Below),
            None => parse_name(pattern, 0).map(Self::Exact),
        }
    }

    /// Whether the pattern matches a destination. `host` is as [`normalize_host`] gives it.
    #[must_use]
    pub fn matches(&self, host: Option<&str>, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Network(network) => network.contains(&ip.to_canonical()),
            Self::Exact(_) | Self::Below(_) => host.is_some_and(|host| self.matches_name(host)),
        }
    }

    /// Whether the pattern matches what a server's certificate is verified for: a name, or an address where there is none. A network never matches a name, whatever lies behind it.
    #[must_use]
    pub fn matches_verified(&self, verified: &str) -> bool {
        let name = normalize_host(verified);
        match name.parse::<IpAddr>() {
            Ok(address) => self.matches(None, address),
            Err(_) => self.matches_name(&name),
        }
    }

    /// Whether it matches every destination, or every address.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Network(network) => network.prefix_len() == 0,
            Self::Exact(_) | Self::Below(_) => false,
        }
    }

    /// Whether the pattern matches a name. Networks never do.
    #[must_use]
    pub fn matches_name(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Self::Network(_) => false,
        }
    }
}

/// A host name as patterns compare it: lower case, without one trailing dot.
#[must_use]
pub fn normalize_host(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Parses an address or a CIDR. An address becomes a network of one.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, HostPatternError> {
    parse_network(text)?.ok_or_else(|| HostPatternError {
        offset: 0,
        message: format!(
            "\"{text}\" is neither an address nor a CIDR; write one such as 10.1.2.3 or 10.0.0.0/8"
        ),
    })
}

/// `None`: this does not look like an address or a network at all.
fn parse_network(pattern: &str) -> Result<Option<IpNet>, HostPatternError> {
    if let Ok(ip) = pattern.parse::<IpAddr>() {
        return Ok(Some(IpNet::from(ip.to_canonical())));
    }
    let Some((address, prefix)) = pattern.split_once('/') else {
        return Ok(None);
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Ok(None);
    };
    let network = prefix
        .parse::<u8>()
        .ok()
        .and_then(|prefix| IpNet::new(ip, prefix).ok())
        .ok_or_else(|| HostPatternError {
            offset: address.len() + 1,
            message: format!(
                "\"{prefix}\" is not a prefix length; {} takes 0 to {}",
                if ip.is_ipv4() { "IPv4" } else { "IPv6" },
                if ip.is_ipv4() { 32 } else { 128 }
            ),
        })?;
    if network.trunc() != network {
        return Err(HostPatternError {
            offset: 0,
            message: format!(
                "{network} has bits set behind its prefix; write {} for the network or {ip} for the address",
                network.trunc()
            ),
        });
    }
    Ok(Some(network))
}

fn parse_name(name: &str, offset: usize) -> Result<String, HostPatternError> {
    let refuse = |at: usize, message: String| {
        Err(HostPatternError {
            offset: offset + at,
            message,
        })
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return refuse(0, "a host name is missing here".to_owned());
    }
    if let Some(at) = name.find("://") {
        return refuse(
            0,
            format!(
                "this is a URL; write the host alone: {}",
                name.get(at + 3..)
                    .and_then(|rest| rest.split(['/', ':']).next())
                    .unwrap_or_default()
            ),
        );
    }
    if let Some((at, c)) = name
        .char_indices()
        .find(|(_, c)| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return refuse(at, wrong_character(c));
    }
    if name.len() > MAX_NAME_BYTES {
        return refuse(
            0,
            format!("a host name has at most {MAX_NAME_BYTES} characters"),
        );
    }
    let mut at = 0;
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return refuse(
                at,
                format!("each part between dots has 1 to {MAX_LABEL_BYTES} characters"),
            );
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(
                at,
                "a part of a host name cannot begin or end with a dash".to_owned(),
            );
        }
        at += label.len() + 1;
    }
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return refuse(
            0,
            format!(
                "\"{name}\" looks like an address but is none; write all four numbers, or a CIDR such as 10.0.0.0/8"
            ),
        );
    }
    Ok(name.to_ascii_lowercase())
}

fn wrong_character(c: char) -> String {
    match c {
        '*' => "* may stand alone or as the first part only: * or *.example.com".to_owned(),
        ':' => "a pattern has no port; write ports in match.ports".to_owned(),
        '/' => "this is neither a name nor a CIDR; a path belongs in when, as in http.path.startsWith(\"/v1/\")".to_owned(),
        c if !c.is_ascii() => format!("{c:?} is not ASCII; write the name in its xn-- form"),
        c => format!("{c:?} cannot stand in a host name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_what_the_documentation_says() {
        let cases = [
            ("*", None, "192.0.2.1", true),
            (
                "api.example.com",
                Some("api.example.com"),
                "192.0.2.1",
                true,
            ),
            (
                "API.Example.com.",
                Some("api.example.com"),
                "192.0.2.1",
                true,
            ),
            (
                "api.example.com",
                Some("xapi.example.com"),
                "192.0.2.1",
                false,
            ),
            ("api.example.com", None, "192.0.2.1", false),
            ("*.example.com", Some("a.example.com"), "192.0.2.1", true),
            ("*.example.com", Some("a.b.example.com"), "192.0.2.1", true),
            ("*.example.com", Some("example.com"), "192.0.2.1", false),
            ("*.example.com", Some("badexample.com"), "192.0.2.1", false),
            ("10.0.0.0/8", Some("a.example.com"), "10.9.8.7", true),
            ("10.0.0.0/8", None, "11.0.0.1", false),
            ("10.1.2.3", None, "10.1.2.3", true),
            ("10.1.2.3", None, "::ffff:10.1.2.3", true),
            ("fd00::/8", None, "fd12::1", true),
            ("::1", None, "::1", true),
        ];
        for (pattern, host, address, expected) in cases {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(host, ip(address)),
                expected,
                "{pattern} on {host:?} {address}"
            );
        }
    }

    #[test]
    fn patterns_that_could_be_misread_are_refused_with_advice() {
        let cases = [
            ("", "missing"),
            ("*.", "missing"),
            (
                "https://api.example.com/v1",
                "write the host alone: api.example.com",
            ),
            ("api.example.com:443", "match.ports"),
            ("a.*.example.com", "* or *.example.com"),
            ("*example.com", "* or *.example.com"),
            ("10.0.0.1/8", "10.0.0.0/8 for the network or 10.0.0.1"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0", "looks like an address"),
            ("exämple.com", "xn--"),
            ("a..b", "between dots"),
            ("-a.com", "dash"),
            ("api.example.com/v1", "http.path"),
            ("a b.com", "' ' cannot stand"),
        ];
        for (pattern, expected) in cases {
            let error = HostPattern::parse(pattern).unwrap_err();
            assert!(error.message.contains(expected), "{pattern}: {error}");
        }
    }

    #[test]
    fn hosts_are_compared_in_lower_case_without_the_root_dot() {
        assert_eq!(normalize_host("API.Example.COM."), "api.example.com");
        assert!(matches!(normalize_host("a.b"), Cow::Borrowed("a.b")));
    }
}
