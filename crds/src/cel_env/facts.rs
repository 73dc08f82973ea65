//! What is worked out once per operation, when the first rule asks: address as text, normalised path, query pairs, parsed body, what detectors find.
//!
//! Owns these lazily made values. Invariant: what is ambiguous is an error (a fault), never one reading of two.

use std::{borrow::Cow, sync::OnceLock};

use super::{
    detected::{self, Answers, Detected, Texts},
    json::{self, Json},
    path,
};
use crate::{
    decide::{BodyView, GrpcMessage, HeaderFields, MessageView, Operation},
    grpc::GrpcCall,
    hosts::normalize_host,
    pod::PodIdentity,
    resources::Protocol,
};

/// Query parameters, decoded, in order. Owned, because most need decoding.
pub(crate) type Pairs = Vec<(String, String)>;
/// UTF-8 byte order mark, which some servers skip before JSON and others refuse.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// What is said of a body that a server would read and we cannot.
pub(super) const ENCODED: Fault = "the body is encoded in a way that is not read";
/// Why a value is not to be had: a sentence.
pub(crate) type Fault = &'static str;

/// Text that had to be made and that values borrow from. CEL copies a value for each loop step that binds it: text that is borrowed costs
/// nothing to copy, so that no expression can make memory grow by looping over large text.
#[derive(Default)]
pub(crate) struct Store {
    /// Strings of the body, or of a message, that had escapes, in order. An operation has one or the other.
    escaped: OnceLock<Vec<String>>,
    /// Headers that are given more than once: lower-case name and joined values.
    joined: OnceLock<Vec<(String, String)>>,
}

impl Store {
    /// The values of a header that is given more than once, joined by `, ` (RFC 9110 section 5.3). `name` is in lower case.
    pub(super) fn joined_header(&self, headers: &dyn HeaderFields, name: &str) -> Option<&str> {
        let joined = self.joined.get_or_init(|| join_repeated(headers));
        let (_, values) = joined.iter().find(|(known, _)| known == name)?;
        Some(values)
    }
}

/// What is not UTF-8 is left out.
fn join_repeated(headers: &dyn HeaderFields) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut repeated: Vec<String> = Vec::new();
    for (name, value) in headers.fields() {
        let Ok(value) = std::str::from_utf8(value) else {
            continue;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push_str(", ");
                values.push_str(value);
                repeated.push(name);
            }
            None => all.push((name, value.to_owned())),
        }
    }
    all.retain(|(name, _)| repeated.contains(name));
    all
}

/// One agent and one operation, with what was worked out about them.
pub(crate) struct Facts<'a> {
    pub(crate) agent: &'a PodIdentity,
    pub(crate) operation: &'a Operation<'a>,
    pub(super) store: &'a Store,
    ip: OnceLock<String>,
    destination_host: OnceLock<Cow<'a, str>>,
    http_host: OnceLock<Cow<'a, str>>,
    method: OnceLock<Cow<'a, str>>,
    content_type: OnceLock<String>,
    path: OnceLock<Result<Cow<'a, str>, Fault>>,
    query: OnceLock<Result<Pairs, Fault>>,
    body: OnceLock<Result<Option<Json<'a>>, Fault>>,
    message: OnceLock<Result<Option<Json<'a>>, Fault>>,
    texts: OnceLock<Result<Texts<'a>, Fault>>,
    detected: Answers,
    message_texts: OnceLock<Result<Texts<'a>, Fault>>,
    message_detected: Answers,
}

impl<'a> Facts<'a> {
    /// Nothing worked out yet.
    pub(crate) fn new(
        agent: &'a PodIdentity,
        operation: &'a Operation<'a>,
        store: &'a Store,
    ) -> Self {
        Self {
            agent,
            operation,
            store,
            ip: OnceLock::new(),
            destination_host: OnceLock::new(),
            http_host: OnceLock::new(),
            method: OnceLock::new(),
            content_type: OnceLock::new(),
            path: OnceLock::new(),
            query: OnceLock::new(),
            body: OnceLock::new(),
            message: OnceLock::new(),
            texts: OnceLock::new(),
            detected: Answers::default(),
            message_texts: OnceLock::new(),
            message_detected: Answers::default(),
        }
    }

    /// Destination address as text; an IPv4 address that came mapped into IPv6 as IPv4. Empty for a DNS query, which has none yet.
    pub(super) fn ip(&self) -> &str {
        self.ip.get_or_init(|| match self.operation.protocol {
            Protocol::Dns => String::new(),
            _ => self.operation.destination.ip.to_canonical().to_string(),
        })
    }

    /// Destination host in lower case; empty where there is none.
    pub(super) fn destination_host(&self) -> &str {
        self.destination_host
            .get_or_init(|| normalize_host(self.operation.destination.host.unwrap_or_default()))
    }

    /// Host of the request in lower case.
    pub(super) fn http_host(&self) -> &str {
        self.http_host
            .get_or_init(|| normalize_host(self.operation.http.map_or("", |http| http.host)))
    }

    /// The method of an HTTP request, as expressions see it.
    pub(crate) fn http_method(&self) -> Option<&str> {
        self.operation.http.as_ref().map(|_| self.method())
    }

    /// Method in upper case: methods are case-sensitive (RFC 9110 section 9.1), but there are servers that take `delete` for `DELETE`.
    pub(super) fn method(&self) -> &str {
        self.method.get_or_init(|| {
            let method = self.operation.http.map_or("", |http| http.method);
            if method.bytes().any(|b| b.is_ascii_lowercase()) {
                Cow::Owned(method.to_ascii_uppercase())
            } else {
                Cow::Borrowed(method)
            }
        })
    }

    /// Media type in lower case, without parameters; empty where there is none.
    pub(super) fn content_type(&self) -> &str {
        self.content_type.get_or_init(|| {
            let value = self.operation.http.and_then(|http| http.content_type);
            value
                .and_then(|value| value.split(';').next())
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        })
    }

    /// Path, decoded and normalised.
    pub(super) fn path(&self) -> Result<&str, Fault> {
        let path = self
            .path
            .get_or_init(|| path::normalize(self.operation.http.map_or("", |http| http.path)));
        path.as_deref().map_err(|fault| *fault)
    }

    /// The remote procedure that a gRPC request calls; `None` when it is not gRPC.
    pub(super) fn grpc(&self) -> Result<Option<GrpcCall<'_>>, Fault> {
        if !GrpcCall::is_grpc(self.content_type()) {
            return Ok(None);
        }
        Ok(GrpcCall::of_path(self.path()?))
    }

    /// Query parameters.
    pub(super) fn query(&self) -> Result<&Pairs, Fault> {
        let query = self
            .query
            .get_or_init(|| path::query(self.operation.http.map_or("", |http| http.query)));
        query.as_ref().map_err(|fault| *fault)
    }

    /// Length of the body as sent, from the head or from the bytes.
    pub(super) fn body_size(&self) -> Option<u64> {
        let http = self.operation.http?;
        http.body_size.or_else(|| match http.body {
            BodyView::Complete(bytes) => u64::try_from(bytes.len()).ok(),
            BodyView::NotRead | BodyView::TooLarge | BodyView::Unreadable => None,
        })
    }

    /// The body as JSON; `None` when it is not JSON.
    pub(super) fn body(&self) -> Result<Option<&Json<'a>>, Fault> {
        let body = self.body.get_or_init(|| self.parse_body());
        match body {
            Ok(body) => Ok(body.as_ref()),
            Err(fault) => Err(*fault),
        }
    }

    /// A body that does not parse is "not JSON" only when its sender did not call it JSON: a lenient server might read what we cannot.
    fn parse_body(&self) -> Result<Option<Json<'a>>, Fault> {
        let bytes = match self.operation.http.map(|http| http.body) {
            Some(BodyView::Complete(bytes)) => bytes,
            Some(BodyView::TooLarge) => return Err("the body is too large to be judged"),
            Some(BodyView::Unreadable) => return Err(ENCODED),
            Some(BodyView::NotRead) | None => return Err("the body was not read"),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        if bytes.starts_with(BYTE_ORDER_MARK) {
            return Err(ENCODED);
        }
        match json::parse(bytes, &self.store.escaped) {
            Ok(json) => Ok(Some(json)),
            Err(json::Fault::Refused(why)) => Err(why),
            Err(json::Fault::Syntax) if self.says_json() => {
                Err("the body is called JSON but does not parse as JSON")
            }
            Err(json::Fault::Syntax) => Ok(None),
        }
    }

    /// What detectors find in the request. They search when the list is asked, each once.
    pub(super) fn detected(&self) -> Result<Detected<'_>, Fault> {
        let texts = self.texts.get_or_init(|| {
            let http = self.operation.http.as_ref();
            http.map_or_else(|| Ok(Texts::new()), detected::texts)
        });
        match texts {
            Ok(texts) => Ok(Detected::new(texts, &self.detected)),
            Err(fault) => Err(*fault),
        }
    }

    /// What detectors find in a text message. As for requests, each searches once.
    pub(super) fn message_detected(&self) -> Result<Detected<'_>, Fault> {
        let texts = self.message_texts.get_or_init(|| {
            let message = self.operation.ws.map(|ws| ws.message);
            message.map_or_else(|| Ok(Texts::new()), detected::message_texts)
        });
        match texts {
            Ok(texts) => Ok(Detected::new(texts, &self.message_detected)),
            Err(fault) => Err(*fault),
        }
    }

    /// Bytes of the message; `None` where it is too long to be judged.
    pub(super) fn message_size(&self) -> Option<u64> {
        match self.operation.ws?.message {
            MessageView::Text(text) => u64::try_from(text.len()).ok(),
            MessageView::Binary(size) => Some(size),
            MessageView::TooLarge => None,
        }
    }

    /// Text of the message; `None` when it is binary.
    pub(super) fn message_text(&self) -> Result<Option<&'a str>, Fault> {
        match self.operation.ws.map(|ws| ws.message) {
            Some(MessageView::Text(text)) => Ok(Some(text)),
            Some(MessageView::Binary(_)) | None => Ok(None),
            Some(MessageView::TooLarge) => Err("the message is too large to be judged"),
        }
    }

    /// The message as JSON; `None` when it is not.
    pub(super) fn message_json(&self) -> Result<Option<&Json<'a>>, Fault> {
        let json = self.message.get_or_init(|| {
            let Some(text) = self.message_text()? else {
                return Ok(None);
            };
            match json::parse(text.as_bytes(), &self.store.escaped) {
                Ok(json) => Ok(Some(json)),
                Err(json::Fault::Refused(why)) => Err(why),
                Err(json::Fault::Syntax) => Ok(None),
            }
        });
        json.as_ref().map(Option::as_ref).map_err(|fault| *fault)
    }

    /// The message of a gRPC call; `None` when the operation is none.
    pub(super) fn grpc_message(&self) -> Result<Option<&Json<'a>>, Fault> {
        let json = self.message.get_or_init(|| {
            let text = match self.operation.grpc.map(|grpc| grpc.message) {
                Some(GrpcMessage::Json(text)) => text,
                Some(GrpcMessage::Unreadable(why)) => return Err(why),
                None => return Ok(None),
            };
            match json::parse(text.as_bytes(), &self.store.escaped) {
                Ok(json) => Ok(Some(json)),
                Err(json::Fault::Refused(why)) => Err(why),
                Err(json::Fault::Syntax) => Err("the message did not become JSON"),
            }
        });
        json.as_ref().map(Option::as_ref).map_err(|fault| *fault)
    }

    fn says_json(&self) -> bool {
        let media = self.content_type();
        media.ends_with("/json") || media.ends_with("+json")
    }
}
