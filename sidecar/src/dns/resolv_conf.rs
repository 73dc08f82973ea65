//! The resolver's configuration file, resolv.conf(5).
//!
//! Owns finding the nameservers and the search domains. Refuses options: clients
//! keep those for themselves. Read once, at start, because containers of a pod
//! share the file and the agent may be able to write it later.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::hosts::read_bounded;

/// Most bytes read of the file.
const MAX_BYTES: usize = 64 * 1024;

/// Most nameservers used, as in the C library (`MAXNS`).
const MAX_NAMESERVERS: usize = 3;

/// Most search domains used, as in Kubernetes (`MaxDNSSearchPaths`).
const MAX_SEARCH: usize = 32;

/// Port of DNS.
const PORT: u16 = 53;

/// Nameservers, in order of preference and never empty, and search domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    nameservers: Vec<SocketAddr>,
    search: Vec<String>,
}

/// Why there are no nameservers.
#[derive(Debug, thiserror::Error)]
pub enum ResolvConfError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file names none.
    #[error("no line `nameserver ADDRESS` with an IPv4 or IPv6 address")]
    NoNameserver,
}

impl ResolvConf {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// As [`ResolvConfError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ResolvConfError> {
        let path = path.as_ref();
        let content = read_bounded(path, MAX_BYTES).map_err(|source| ResolvConfError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&content)
    }

    /// Reads the content of a configuration file.
    ///
    /// # Errors
    /// [`ResolvConfError::NoNameserver`].
    pub fn parse(content: &[u8]) -> Result<Self, ResolvConfError> {
        let content = content.get(..MAX_BYTES).unwrap_or(content);
        let nameservers: Vec<SocketAddr> = content
            .split(|byte| *byte == b'\n')
            .filter_map(|line| nameserver(std::str::from_utf8(line).ok()?))
            .take(MAX_NAMESERVERS)
            .collect();
        if nameservers.is_empty() {
            return Err(ResolvConfError::NoNameserver);
        }
        Ok(Self {
            nameservers,
            search: search(content),
        })
    }

    /// The nameservers, at least one.
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// The domains with which a short name is completed, in order.
    pub fn search(&self) -> &[String] {
        &self.search
    }
}

/// Domains of the last line `search`, as in resolv.conf(5).
fn search(content: &[u8]) -> Vec<String> {
    let lines = content.split(|byte| *byte == b'\n');
    let mut found = lines.filter_map(|line| {
        let rest = std::str::from_utf8(line).ok()?.strip_prefix("search")?;
        rest.starts_with([' ', '\t']).then_some(rest)
    });
    let domains = found.next_back().unwrap_or_default();
    let domains = domains.split_ascii_whitespace().take(MAX_SEARCH);
    domains
        .map(|domain| domain.trim_end_matches('.').to_owned())
        .filter(|domain| !domain.is_empty())
        .collect()
}

/// The keyword starts the line; what follows the address does not matter.
fn nameserver(line: &str) -> Option<SocketAddr> {
    let rest = line.strip_prefix("nameserver")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let address: IpAddr = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(SocketAddr::new(address.to_canonical(), PORT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(content: &str) -> Vec<String> {
        let read = ResolvConf::parse(content.as_bytes()).unwrap();
        read.nameservers().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nameservers_are_read_in_order_and_the_rest_is_passed_over() {
        assert_eq!(
            parsed(
                "search agents.svc.cluster.local svc.cluster.local\n\
                 nameserver 10.96.0.10\n\
                 options ndots:5\n\
                 ; nameserver 1.1.1.1\n\
                 nameservers 1.1.1.2\n\
                 nameserver\tfd00::a # comment\r\n\
                 nameserver nonsense\n"
            ),
            ["10.96.0.10:53", "[fd00::a]:53"]
        );
    }

    #[test]
    fn the_last_search_line_gives_the_domains() {
        let read = |text: &str| {
            ResolvConf::parse(format!("nameserver 10.0.0.1\n{text}").as_bytes())
                .unwrap()
                .search()
                .to_vec()
        };
        assert_eq!(
            read("search a.example\nsearch agents.svc.cluster.local svc.cluster.local. .\n"),
            ["agents.svc.cluster.local", "svc.cluster.local"]
        );
        assert!(read("searching a.example\noptions ndots:5\n").is_empty());
    }

    #[test]
    fn at_most_three_are_used() {
        let many: String = (1..9).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(parsed(&many), ["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]);
    }

    #[test]
    fn none_is_an_error_that_says_what_is_missing() {
        let error = ResolvConf::parse(b"search example\n").unwrap_err();
        assert!(error.to_string().contains("nameserver ADDRESS"));
        let error = ResolvConf::read("/nonexistent/resolv.conf").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/resolv.conf"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_few_nameservers_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
            lines in proptest::collection::vec("nameserver [0-9a-f.:%]{0,20}", 0..8),
        ) {
            for content in [bytes, lines.join("\n").into_bytes()] {
                if let Ok(read) = ResolvConf::parse(&content) {
                    prop_assert!((1..=MAX_NAMESERVERS).contains(&read.nameservers().len()));
                }
            }
        }
    }
}
