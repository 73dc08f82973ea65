//! Reads the ClientHello without using it up: rustls parses it, and the bytes stay for whoever gets the connection.

use std::{io, time::Duration};

use rustls::server::Acceptor;

use crate::{
    agree,
    wire::{Io, Wire},
};

/// Most bytes of a ClientHello, its records' headers included. Post-quantum key shares make about 2 KiB; RFC 8446 allows a record of 16 KiB.
const MAX_HELLO_BYTES: usize = 64 * 1024;
/// Longest wait for a whole ClientHello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// ALPN protocols that the sidecar reads (RFC 7301 §6).
const READ_ALPN: [&str; 2] = [H2, "http/1.1"];
/// HTTP/2 over TLS, in ALPN.
pub(crate) const H2: &str = "h2";

/// What a ClientHello says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Server name, canonical.
    pub server_name: Option<String>,
    /// ALPN protocols, in the client's order.
    pub alpn: Vec<String>,
}

impl Hello {
    /// Whether the client offers only protocols that the sidecar does not read.
    pub fn unread_alpn(&self) -> bool {
        !self.alpn.is_empty() && self.read_alpn().next().is_none()
    }

    /// The protocols that the client offers and the sidecar reads, in the client's order.
    pub fn read_alpn(&self) -> impl Iterator<Item = &str> {
        let all = self.alpn.iter().map(String::as_str);
        all.filter(|protocol| READ_ALPN.contains(protocol))
    }

    /// The same, as they are offered to the upstream.
    pub(crate) fn to_offer(&self) -> Vec<Vec<u8>> {
        self.read_alpn().map(|p| p.as_bytes().to_vec()).collect()
    }
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// rustls cannot read it.
    #[error("the ClientHello is malformed: {0}")]
    Malformed(rustls::Error),
    /// It is too long.
    #[error("the ClientHello is longer than {MAX_HELLO_BYTES} bytes")]
    TooLong,
    /// It took too long.
    #[error("the ClientHello took longer than {HELLO_TIMEOUT:?}")]
    TooSlow,
    /// The connection ended.
    #[error("the connection ended in the ClientHello")]
    Ended,
    /// The connection broke.
    #[error("the connection broke in the ClientHello: {0}")]
    Broke(#[from] io::Error),
}

/// Reads until the ClientHello is whole. Its bytes stay in `agent.unread`.
pub(crate) async fn read<A: Io>(agent: &mut Wire<A>) -> Result<Hello, HelloError> {
    tokio::time::timeout(HELLO_TIMEOUT, read_whole(agent))
        .await
        .map_err(|_| HelloError::TooSlow)?
}

async fn read_whole<A: Io>(agent: &mut Wire<A>) -> Result<Hello, HelloError> {
    let mut parsed = 0;
    loop {
        // A hello is whole at the end of a record only. An agent that sends byte by byte must not make the sidecar read all of them at each byte.
        let records = whole_records(&agent.unread);
        if records > parsed {
            parsed = records;
            if let Some(hello) = parse(&agent.unread)? {
                return Ok(hello);
            }
        }
        if agent.unread.len() >= MAX_HELLO_BYTES {
            return Err(HelloError::TooLong);
        }
        if agent.fill().await? == 0 {
            return Err(HelloError::Ended);
        }
    }
}

/// How many TLS records at the beginning of `bytes` are whole (RFC 8446 §5.1: five bytes of header, the last two of them the length).
fn whole_records(mut bytes: &[u8]) -> usize {
    let mut count: usize = 0;
    while let Some([_, _, _, high, low, rest @ ..]) = Some(bytes)
        && let Some(next) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..)
    {
        count = count.saturating_add(1);
        bytes = next;
    }
    count
}

/// The ClientHello at the beginning of `bytes`, if it is whole.
///
/// # Errors
/// When rustls refuses it.
pub fn parse(mut bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes)? == 0 {
            break;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Ok(Some(Hello {
                    server_name: hello.server_name().map(agree::canonical),
                    alpn: hello
                        .alpn()
                        .into_iter()
                        .flatten()
                        .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
                        .collect(),
                }));
            }
            Ok(None) => {}
            Err((error, _)) => return Err(HelloError::Malformed(error)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello_bytes(name: &'static str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn name_and_alpn_are_read_once_the_hello_is_whole() {
        let bytes = hello_bytes("Files.Example.com", &["h2", "http/1.1"]);
        let hello = parse(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("files.example.com"));
        assert_eq!(hello.alpn, ["h2", "http/1.1"]);
        assert!(!hello.unread_alpn());
        assert!(hello.read_alpn().eq(["h2", "http/1.1"]));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{end} bytes");
        }
    }

    #[test]
    fn an_address_gives_no_name_and_h3_alone_is_not_read() {
        let hello = parse(&hello_bytes("192.0.2.1", &["h3"])).unwrap().unwrap();
        assert_eq!(hello.server_name, None);
        assert!(hello.unread_alpn());
    }

    /// A hello whose server name is these bytes.
    fn hello_naming(name: &[u8]) -> Vec<u8> {
        let stand_in = "files.example.com";
        let mut bytes = hello_bytes(stand_in, &[]);
        let at = memchr::memmem::find(&bytes, stand_in.as_bytes()).unwrap();
        bytes[at..at + stand_in.len()].copy_from_slice(name);
        bytes
    }

    #[test]
    fn names_are_read_in_one_form_and_what_is_no_name_is_refused() {
        for (written, read) in [
            (&b"FILES.example.COM"[..], Some("files.example.com")),
            (b"xn--bcher-kva.com", Some("xn--bcher-kva.com")),
            (b"_files.example.co", Some("_files.example.co")),
            (b"files.example.co.", Some("files.example.co")),
        ] {
            let hello = parse(&hello_naming(written)).unwrap().unwrap();
            assert_eq!(hello.server_name.as_deref(), read);
        }
        for written in [
            &b"b\xc3\xbccher.example.c"[..],
            b"files.example.co\0",
            b"files example.com",
            b"*.files.example.c",
            b"files..example.co",
        ] {
            let refused = parse(&hello_naming(written));
            let text = String::from_utf8_lossy(written);
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }

    #[test]
    fn whole_records_are_counted() {
        let record = [0x16, 3, 1, 0, 2, 1, 2];
        let two = [record, record].concat();
        for (end, count) in [(0, 0), (4, 0), (6, 0), (7, 1), (13, 1), (14, 2)] {
            assert_eq!(whole_records(&two[..end]), count, "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut record = vec![0x16, 3, 1];
            record.extend_from_slice(&bytes);
            let _ = parse(&record);
        }
    }
}
