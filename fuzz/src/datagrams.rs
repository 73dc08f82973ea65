//! What the kernel's packet log brings.

use chaperone_sidecar::capture::{nflog, packet};

/// A logged packet, and a batch of log messages.
pub(crate) fn datagram(bytes: &[u8]) {
    if let Some(head) = packet::head(bytes) {
        assert_eq!(head.source.is_ipv4(), head.destination.is_ipv4());
    }
    let gaps = nflog::gaps(bytes).count();
    assert!(gaps <= bytes.len());
}
