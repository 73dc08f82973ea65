//! A model's answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Said, other, text};

/// Most blocks of an answer.
const MAX_BLOCKS: usize = 10_000;

/// What the model answered: a message, or the events of one, as far as they came.
#[must_use]
pub fn answered(response: &str) -> Vec<Said> {
    match serde_json::from_str::<Value>(response) {
        Ok(message) => blocks(&message["content"]),
        Err(_) => Events::read(response).into_said(),
    }
}

fn blocks(content: &Value) -> Vec<Said> {
    let blocks = content.as_array().into_iter().flatten();
    blocks.take(MAX_BLOCKS).map(begun).collect()
}

/// A block as it begins, or as it is where it comes whole.
fn begun(block: &Value) -> Said {
    match block["type"].as_str() {
        Some("text") => Said::Text(text(&block["text"])),
        Some("thinking") => Said::Thinking(text(&block["thinking"])),
        Some("tool_use" | "server_tool_use") => Said::Call {
            call: text(&block["id"]),
            tool: text(&block["name"]),
            input: match &block["input"] {
                // In events the input comes in pieces, after an empty one.
                Value::Object(input) if input.is_empty() => String::new(),
                Value::Null => String::new(),
                input => input.to_string(),
            },
        },
        kind => Said::Text(other(kind)),
    }
}

/// The blocks of an answer that comes in events, by their number.
#[derive(Default)]
struct Events(BTreeMap<u64, Said>);

impl Events {
    fn read(stream: &str) -> Self {
        let mut events = Self::default();
        let data = stream.lines().filter_map(|line| line.strip_prefix("data:"));
        for event in data {
            // Of an answer that is cut, the last line is no JSON.
            if let Ok(event) = serde_json::from_str::<Value>(event.trim_start()) {
                events.take(&event);
            }
        }
        events
    }

    fn take(&mut self, event: &Value) {
        let Some(index) = event["index"].as_u64() else {
            return;
        };
        match event["type"].as_str() {
            Some("content_block_start") if self.0.len() < MAX_BLOCKS => {
                self.0.insert(index, begun(&event["content_block"]));
            }
            Some("content_block_delta") => {
                if let Some(block) = self.0.get_mut(&index) {
                    grow(block, &event["delta"]);
                }
            }
            _ => {}
        }
    }

    fn into_said(self) -> Vec<Said> {
        self.0.into_values().collect()
    }
}

fn grow(block: &mut Said, delta: &Value) {
    let (grows, piece) = match block {
        Said::Text(text) => (text, &delta["text"]),
        Said::Thinking(text) => (text, &delta["thinking"]),
        Said::Call { input, .. } => (input, &delta["partial_json"]),
        Said::Prompt(_) | Said::Result { .. } => return,
    };
    grows.push_str(piece.as_str().unwrap_or_default());
}
