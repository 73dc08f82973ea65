//! The hosts file, hosts(5).
//!
//! Owns reading it once, at start: the agent may be able to write it later, and
//! a name that the agent assigned itself proves nothing. Invariant: at most
//! [`MAX_ENTRIES`] entries from at most [`MAX_BYTES`] bytes; lines that make no
//! sense are passed over, as the C library does.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use super::names::normalize;

/// Most bytes read of the file.
const MAX_BYTES: usize = 1 << 20;

/// Most pairs of address and name kept. Kubernetes writes about ten.
const MAX_ENTRIES: usize = 16_384;

/// Longest name that is one, characters (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// Pairs of address and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<(IpAddr, String)>);

impl Hosts {
    /// Reads a hosts file. One that does not exist is empty.
    ///
    /// # Errors
    /// The system's.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        match read_bounded(path.as_ref(), MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => read.map(|bytes| Self::parse(&bytes)),
        }
    }

    /// Reads the content of a hosts file.
    pub fn parse(content: &[u8]) -> Self {
        let content = content.get(..MAX_BYTES).unwrap_or(content);
        let mut entries = Vec::new();
        for line in content.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else {
                continue;
            };
            let meaning = line.split('#').next().unwrap_or_default();
            let mut words = meaning.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words.filter(|name| name.len() <= MAX_NAME) {
                if entries.len() == MAX_ENTRIES {
                    return Self(entries);
                }
                entries.push((address.to_canonical(), normalize(name)));
            }
        }
        Self(entries)
    }

    /// The pairs, in the file's order. Names are in lower case.
    pub fn entries(&self) -> &[(IpAddr, String)] {
        &self.0
    }
}

/// Reads a file up to a limit.
pub(super) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_names_aliases_and_comments_are_read() {
        let content = b"# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1 localhost ip6-localhost # both\n\
            \n\
            10.1.2.3   Pod.Example. pod\r\n\
            ::ffff:10.9.9.9 mapped\n\
            not-an-address name\n\
            10.0.0.9\n\
            \xff\xff broken\n\
            10.0.0.10 last";
        let read: Vec<String> = Hosts::parse(content)
            .entries()
            .iter()
            .map(|(address, name)| format!("{address} {name}"))
            .collect();
        assert_eq!(
            read,
            [
                "127.0.0.1 localhost",
                "::1 localhost",
                "::1 ip6-localhost",
                "10.1.2.3 pod.example",
                "10.1.2.3 pod",
                "10.9.9.9 mapped",
                "10.0.0.10 last",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_empty_and_a_huge_one_is_cut() {
        assert_eq!(Hosts::read("/nonexistent/hosts").unwrap(), Hosts::default());
        let huge = "10.0.0.1 a\n".repeat(200_000);
        assert_eq!(Hosts::parse(huge.as_bytes()).entries().len(), MAX_ENTRIES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hosts_file(bytes in proptest::collection::vec(any::<u8>(), 0..256),
                                      words in "[0-9a-f.:# \t\n]{0,128}") {
            Hosts::parse(&bytes);
            let names = Hosts::parse(words.as_bytes());
            prop_assert!(names.entries().iter().all(|(_, name)| name.len() <= MAX_NAME));
        }
    }
}
