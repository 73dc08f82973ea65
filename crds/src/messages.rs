//! What an exchange with a model says (Anthropic Messages API): what the model was told last, what it answered, which tools it called. A function of the bodies that a record has of request and response.
//!
//! Owns reading both forms of an answer (a message, or server-sent events). Total: a body that is none, or is cut, gives what of it can be read. Memory is bounded by the bodies'. Texts stand as the bodies have them: whoever shows
//! them makes them safe for the place where they are shown.
//!
//! Source: <https://docs.claude.com/en/api/messages> and, of the events, <https://docs.claude.com/en/docs/build-with-claude/streaming>.

mod answer;
mod cut;
mod kept;
pub mod newest;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub use answer::answered;

use crate::record::HttpInfo;

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The agent's words to the model: a person's prompt, or what the agent's program adds.
    Prompt(String),
    /// What a tool gave.
    Result {
        /// Which call of it, as the model named it.
        call: String,
        /// What it gave.
        text: String,
        /// It failed.
        is_error: bool,
    },
    /// The model's words.
    Text(String),
    /// The model's thoughts.
    Thinking(String),
    /// A tool that the model calls.
    Call {
        /// Which call it is, as the model names it.
        call: String,
        /// The tool.
        tool: String,
        /// Its input: JSON, as far as it is there.
        input: String,
    },
}

/// The text ends before its messages do: what is there is not what the model was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// Whether an exchange of a session's own client is one with a model. `path` is without query.
#[must_use]
pub fn is_turn(verb: &str, path: &str) -> bool {
    verb == "POST" && path.ends_with("/v1/messages")
}

/// What the model was told last, as far as the record has it: in the request's body, or apart where that was cut before. `None` where the record has no text of either.
#[must_use]
pub fn asked_in(http: &HttpInfo) -> Option<Result<Vec<Said>, Cut>> {
    let newest = http.newest_messages.as_ref();
    if let Some(text) = newest.and_then(|newest| newest.text.as_deref()) {
        return Some(asked(&cut::completed(format!("{{\"messages\":[{text}"))));
    }
    let body = http.request_body.as_ref();
    body.and_then(|body| body.text.as_deref()).map(asked)
}

/// What the model was told last: the messages since its last answer, which are all that is new in the request. Nothing if there are no messages.
///
/// # Errors
/// [`Cut`].
pub fn asked(request: &str) -> Result<Vec<Said>, Cut> {
    let mut messages = Messages::default();
    // What was read before the text ended, or ceased to be JSON, is there.
    let _ = (&mut messages).deserialize(&mut serde_json::Deserializer::from_str(request));
    match messages.ended {
        true => Ok(messages.newest.iter().flat_map(told).collect()),
        false => Err(Cut),
    }
}

fn told(message: &Value) -> Vec<Said> {
    // Of a message that was cut the role may be gone: those of the model are none of these.
    if message["role"] != "user" && !message["role"].is_null() {
        return Vec::new();
    }
    match &message["content"] {
        Value::String(text) => vec![Said::Prompt(text.clone())],
        Value::Array(blocks) => blocks.iter().map(told_block).collect(),
        _ => Vec::new(),
    }
}

fn told_block(block: &Value) -> Said {
    // A block that was cut may have lost its type.
    let has = |name: &str| !block[name].is_null();
    match block["type"].as_str() {
        Some("text") => Said::Prompt(text(&block["text"])),
        None if has("text") => Said::Prompt(text(&block["text"])),
        kind if kind == Some("tool_result") || kind.is_none() && has("content") => Said::Result {
            call: text(&block["tool_use_id"]),
            text: result(&block["content"]),
            is_error: block["is_error"] == true,
        },
        kind => Said::Prompt(other(kind)),
    }
}

/// A tool's result is a text, or blocks.
fn result(content: &Value) -> String {
    match content {
        Value::Array(blocks) => {
            let texts = blocks.iter().map(|block| match block["type"].as_str() {
                Some("text") => text(&block["text"]),
                kind => other(kind),
            });
            texts.collect::<Vec<_>>().join("\n")
        }
        content => text(content),
    }
}

/// A block that is no text, such as an image.
fn other(kind: Option<&str>) -> String {
    format!("({})", kind.unwrap_or("a block of no known type"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The messages since the last of the model's that another follows, without those that set the scene, of those that could be read; and whether all could.
#[derive(Default)]
struct Messages {
    newest: Vec<Value>,
    ended: bool,
}

impl Messages {
    fn take(&mut self, message: Value) {
        if message["role"] == "system" {
            return;
        }
        let answered = self
            .newest
            .last()
            .is_some_and(|last| last["role"] == "assistant");
        if answered {
            self.newest.clear();
        }
        self.newest.push(message);
    }
}

/// The request: an object that has messages.
impl<'de> DeserializeSeed<'de> for &mut Messages {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Messages {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request for messages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "messages" => {
                    *self = Messages::default();
                    map.next_value_seed(List(self))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The messages, one by one.
struct List<'a>(&'a mut Messages);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(message) = list.next_element()? {
            self.0.take(message);
        }
        self.0.ended = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
