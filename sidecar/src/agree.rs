//! Whether the names that an agent gives are one place: SNI, Host, and the address it connected to.
//!
//! Invariant: a name is policy's `destination.host` only if it was agreed. Otherwise an agent could name an allowed host and reach another.

use std::net::IpAddr;

use crate::{dns::Names, egress::Egress};

/// A host as policy compares it: lower case, without the root's dot or brackets, an address in the one form that RFC 5952 gives it.
#[must_use]
pub fn canonical(host: &str) -> String {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

/// Whether `host` (canonical) is the place at `ip`: the address itself, a name that the resolver gave this address for, or one that it gives it for now.
pub async fn host_has_address(host: &str, ip: IpAddr, names: &Names, egress: &Egress) -> bool {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return literal.to_canonical() == ip.to_canonical();
    }
    if names.agrees(host, ip) {
        return true;
    }
    match egress.resolve_for_agent(host).await {
        Ok(addresses) => addresses
            .iter()
            .any(|address| address.to_canonical() == ip.to_canonical()),
        Err(error) => {
            tracing::debug!(host, %error, "cannot resolve a host to check its address");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_case_root_dot_and_brackets() {
        for (written, expected) in [
            ("API.Example.COM.", "api.example.com"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("[2001:db8:0:0::1]", "2001:db8::1"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
            // Not the same name: one root's dot is all that a name has.
            ("a.example..", "a.example."),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(canonical(written), expected);
        }
    }
}
