//! What of a request or response may stand in a record: headers and URLs, masked.

use std::{collections::BTreeMap, sync::Arc};

use chaperone_crds::{detect::CompiledMasks, record::SessionInfo};

use crate::{http1::Headers, mask::mask_all};

/// Longest URL in a record, in bytes. A longer one is cut, and says so.
const MAX_URL_BYTES: usize = 4096;
/// Longest header value in a record, in bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// Longest session hint, in bytes. They are UUIDs.
const MAX_HINT_BYTES: usize = 128;
/// What stands in a record for a header that carries a credential.
const HIDDEN: &str = "[masked:credential]";
/// Parts of header names that carry credentials.
const CREDENTIAL_PARTS: [&str; 8] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "api-key",
    "apikey",
    "password",
    "signature",
];

/// The headers, as a record may show them. Repeated fields are joined as RFC 9110 §5.3 says.
pub(crate) fn headers(headers: &Headers, masks: &Arc<CompiledMasks>) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter() {
        let name = name.to_ascii_lowercase();
        let value = if is_credential(&name) {
            HIDDEN.to_owned()
        } else {
            text(value, MAX_VALUE_BYTES, masks)
        };
        shown
            .entry(name)
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    shown
}

/// The URL, as a record may show it.
pub(crate) fn url(url: &str, masks: &Arc<CompiledMasks>) -> String {
    text(url.as_bytes(), MAX_URL_BYTES, masks)
}

/// The hints for correlation that a Claude client sends.
pub(crate) fn session(headers: &Headers) -> Option<SessionInfo> {
    let hint = |name| {
        let value = headers.get_str(name)?;
        let plain = value.len() <= MAX_HINT_BYTES
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        plain.then(|| value.to_owned())
    };
    let session = SessionInfo {
        id: hint("x-claude-code-session-id"),
        agent_id: hint("x-claude-code-agent-id"),
        request_id: hint("x-client-request-id"),
    };
    (session != SessionInfo::default()).then_some(session)
}

fn is_credential(name: &str) -> bool {
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
}

fn text(bytes: &[u8], limit: usize, masks: &Arc<CompiledMasks>) -> String {
    // Masked before it is cut: a cut secret would not be recognised.
    let (masked, _) = mask_all(masks, bytes);
    let shown = masked.get(..limit).unwrap_or(&masked);
    let mut text = String::from_utf8_lossy(shown).into_owned();
    if shown.len() < masked.len() {
        text.push('\u{2026}');
    }
    text
}
