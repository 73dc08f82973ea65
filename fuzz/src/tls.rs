//! The ClientHello.

use chaperone_sidecar::{agree, tls::hello::parse};

use crate::cuts;

/// A ClientHello: a name is canonical, and a prefix that is whole says what the whole says.
pub(crate) fn hello(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Ok(Some(hello)) = &whole {
        let name = hello.server_name.as_deref();
        assert_eq!(name.map(agree::canonical).as_deref(), name);
    }
    for cut in cuts(bytes.len()) {
        if let (Ok(Some(part)), Ok(Some(whole))) = (parse(&bytes[..cut]), &whole) {
            assert_eq!(part, *whole);
        }
    }
}
