//! What of a request or response may stand in a record: headers and URLs, masked.

use std::{collections::BTreeMap, sync::Arc};

use chaperone_crds::{decide::HeaderFields, detect::CompiledMasks, record::SessionInfo};

use super::view;
use crate::mask::{leave_alone, mask_all};

/// Longest URL in a record, in bytes. A longer one is cut, and says so.
const MAX_URL_BYTES: usize = 4096;
/// Longest header value in a record, in bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// Longest session hint, in bytes. They are UUIDs.
const MAX_HINT_BYTES: usize = 128;
/// What stands in a record for a header that carries a credential.
const HIDDEN: &str = "[masked:credential]";
/// Parts of the names of headers and query parameters that carry credentials.
const CREDENTIAL_PARTS: [&str; 14] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "api-key",
    "apikey",
    "api_key",
    "auth-key",
    "x-auth",
    "credential",
    "assertion",
    "passw",
    "passphrase",
    "signature",
];
/// Query parameters that carry credentials under names that are too short to be looked for within others: API keys of Google, signatures of Azure.
const CREDENTIAL_PARAMETERS: [&str; 4] = ["key", "sig", "pwd", "jwt"];

/// The headers, as a record may show them. Repeated fields are joined as RFC 9110 §5.3 says.
pub(crate) fn headers(
    headers: &dyn HeaderFields,
    masks: &Arc<CompiledMasks>,
) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.fields() {
        let name = name.to_ascii_lowercase();
        let value = if is_credential(&name) || masks.headers().rule(&name).is_some() {
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
    let Some((before, query)) = url.split_once('?') else {
        return text(url.as_bytes(), MAX_URL_BYTES, masks);
    };
    let mut url = String::with_capacity(url.len());
    url.push_str(before);
    let mut mark = '?';
    for written in query.split('&') {
        url.push(mark);
        mark = '&';
        match credential(written) {
            Some(name) => url.extend([name, "=", HIDDEN]),
            None => url.push_str(written),
        }
    }
    text(url.as_bytes(), MAX_URL_BYTES, masks)
}

/// The name of a query parameter that carries a credential.
fn credential(written: &str) -> Option<&str> {
    let (name, _) = written.split_once('=')?;
    let lower = name.to_ascii_lowercase();
    let hidden = is_credential(&lower) || CREDENTIAL_PARAMETERS.contains(&lower.as_str());
    hidden.then_some(name)
}

/// The hints for correlation that a Claude client sends.
pub(crate) fn session(headers: &dyn HeaderFields) -> Option<SessionInfo> {
    let hint = |name| {
        let value = view::field(headers, name)?;
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
    // The commonest case by far, and this is done for each request.
    if bytes.len() <= limit && leave_alone(masks, bytes) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // Masked before it is cut: a cut secret would not be recognised.
    let (masked, _) = mask_all(masks, bytes);
    let Some(shown) = masked.get(..limit) else {
        return String::from_utf8(masked)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    };
    let mut text = String::from_utf8_lossy(shown).into_owned();
    if shown.len() < masked.len() {
        text.push('\u{2026}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_that_carry_credentials_are_hidden_by_their_name() {
        let masks = Arc::new(CompiledMasks::default());
        for (written, shown) in [
            ("https://a/b?c=d&e", "https://a/b?c=d&e"),
            (
                "https://a/?access_token=x&b=1",
                "https://a/?access_token=[masked:credential]&b=1",
            ),
            (
                "https://a/?X-Amz-Signature=0f&X-Amz-Credential=k/d",
                "https://a/?X-Amz-Signature=[masked:credential]&X-Amz-Credential=[masked:credential]",
            ),
            (
                "https://a/?KEY=x&monkey=y&sig=z",
                "https://a/?KEY=[masked:credential]&monkey=y&sig=[masked:credential]",
            ),
        ] {
            assert_eq!(url(written, &masks), shown);
        }
    }
}
