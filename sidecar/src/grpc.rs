//! gRPC and gRPC-Web inside HTTP: messages counted as they stream and, where a descriptor set has them, read, judged and masked; status; and denials that a client understands.
//!
//! Pure, and the same for every version of HTTP. Invariant: a message that is not changed leaves as the bytes that it came in; and what is held of all calls together is bounded
//! by [`frames::ROOM_BYTES`].

mod call;
mod count;
mod encoding;
mod filter;
mod frames;
mod rewrite;
mod shown;
mod text;

pub use call::{Call, Judge, Verdict};
pub use count::Messages;
pub(crate) use filter::MessageFilter;
pub(crate) use shown::Shown;

use base64::Engine;
use chaperone_crds::{
    decide::HeaderFields,
    grpc::GrpcCall,
    record::{DecisionInfo, GrpcInfo},
};

/// Status code of a call that policy denies (gRPC status codes, 7).
pub(crate) const PERMISSION_DENIED: u32 = 7;
/// Longest text of a denial in a header field, in bytes before it is escaped. Some clients bound all fields to 8 KiB.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Begins what the record says of a call, if the request is one.
pub(crate) fn call(path: &str, content_type: Option<&str>) -> Option<GrpcInfo> {
    Form::of(content_type?)?;
    let call = GrpcCall::of_path(path)?;
    Some(GrpcInfo {
        service: call.service.to_owned(),
        method: call.method.to_owned(),
        ..GrpcInfo::default()
    })
}

/// The status that fields carry: trailers, or the head where there is nothing else ("Trailers-Only").
pub(crate) fn status(fields: &dyn HeaderFields) -> Option<u32> {
    let (_, value) = fields
        .fields()
        .find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The fields of an answer that denies a call: HTTP's status is 200, for gRPC says its own.
pub(crate) fn denial(decision: &DecisionInfo, content_type: &str) -> [(&'static str, String); 3] {
    let said = decision.message.as_deref().unwrap_or("Denied by policy.");
    let by = match (&decision.policy, &decision.rule) {
        (Some(policy), Some(rule)) => format!(" (policy {policy}, rule {rule})"),
        (Some(policy), None) => format!(" (policy {policy})"),
        _ => format!(" ({})", decision.reason),
    };
    let message = format!("{said}{by}");
    [
        ("content-type", content_type.to_owned()),
        ("grpc-status", PERMISSION_DENIED.to_string()),
        ("grpc-message", escaped(&message)),
    ]
}

/// How messages stand in a body, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// gRPC: status in trailers.
    Grpc,
    /// gRPC-Web: trailers are the body's last frame.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl Form {
    /// The form of a body of this `Content-Type`; `None`: it is no gRPC.
    #[must_use]
    pub fn of(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next()?.trim().to_ascii_lowercase();
        if !GrpcCall::is_grpc(&media) {
            return None;
        }
        let kind = media.strip_prefix("application/grpc").unwrap_or_default();
        Some(match kind.split('+').next() {
            Some("-web-text") => Self::WebText,
            Some("-web") => Self::Web,
            _ => Self::Grpc,
        })
    }
}

/// What ends the body of a gRPC-Web call that is denied once its response has begun.
pub(crate) fn last_frame(decision: &DecisionInfo, form: Form) -> Vec<u8> {
    let mut text = String::new();
    for (name, value) in denial(decision, "").into_iter().skip(1) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let frame = [&[count::TRAILERS][..], &length, text.as_bytes()].concat();
    match form {
        Form::WebText => base64::engine::general_purpose::STANDARD
            .encode(frame)
            .into_bytes(),
        Form::Grpc | Form::Web => frame,
    }
}

/// Percent-encodes all but printable ASCII ("gRPC over HTTP2", `Status-Message`).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes().take(MAX_MESSAGE_BYTES) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_path() {
        let info = call(
            "/acme.v1.Orders/Delete",
            Some("application/grpc+proto; a=b"),
        )
        .unwrap();
        assert_eq!(
            (&*info.service, &*info.method),
            ("acme.v1.Orders", "Delete")
        );
        assert_eq!(
            call("/acme.v1.Orders/Delete", Some("application/json")),
            None
        );
        assert_eq!(call("/acme.v1.Orders/Delete", None), None);
    }

    #[test]
    fn messages_of_denials_are_escaped() {
        assert_eq!(escaped("No \u{fc} 100%\n"), "No %C3%BC 100%25%0A");
    }
}
