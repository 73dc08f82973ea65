//! A record in the words of another schema: CloudEvents, OCSF, ECS.
//!
//! Owns what each field of a rendering is made of; `docs/sinks.md` has it as tables. Refuses to lose anything: each rendering holds the record's line, so that the chain can be proved
//! from what a receiver kept. Total: whatever a record's texts hold, it renders, and what does not fit a field's type there is left out of that field, never made up.
//! Invariant: a rendering is one line, and the same record always renders to the same bytes.

mod cloud_events;
mod ecs;
mod ocsf;
mod parts;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{chain::MAX_RECORD_BYTES, record::Record, resources::Format};

/// Longest rendering, in bytes, without its newline: the longest record with every byte escaped, and its bodies or header fields again beside it.
pub const MAX_RENDERED_BYTES: usize = 4 * MAX_RECORD_BYTES;

/// A line that cannot be rendered.
#[derive(Debug, Error)]
#[error(
    "a record that this version cannot read cannot be written as {format} (format: Native takes it): {source}"
)]
pub struct RenderError {
    /// What was asked for.
    pub format: Format,
    /// What is wrong with the line.
    pub source: serde_json::Error,
}

/// Renders a record. `line` is the line that it was read from, without its newline.
#[must_use]
pub fn render(format: Format, record: &Record, line: &str) -> String {
    match format {
        Format::Native => line.to_owned(),
        Format::CloudEvents => cloud_events::render(record, line),
        Format::Ocsf => ocsf::render(record, line),
        Format::Ecs => ecs::render(record, line),
    }
}

/// The path of a URL as it is written, without decoding; `None` for what has no scheme and authority, or no path.
#[must_use]
pub fn url_path(url: &str) -> Option<&str> {
    let path = parts::Url::split(url)?.path;
    (!path.is_empty()).then_some(path)
}

/// Renders lines of records, each ended by a newline, as lines.
///
/// # Errors
/// When one is no record that this version knows.
pub fn render_lines(format: Format, lines: &[u8]) -> Result<Vec<u8>, RenderError> {
    if format == Format::Native {
        return Ok(lines.to_vec());
    }
    let mut out = Vec::with_capacity(lines.len().saturating_mul(2));
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let fault = |source| RenderError { format, source };
        let record = Record::read(line).map_err(fault)?;
        // What was read as JSON is UTF-8.
        let line = String::from_utf8_lossy(line);
        out.extend_from_slice(render(format, &record, &line).as_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

/// How every line of a format begins: by this a torn one is known.
#[must_use]
pub fn beginning(format: Format) -> &'static str {
    match format {
        Format::Native => "{\"v\":",
        Format::CloudEvents => cloud_events::BEGINNING,
        Format::Ocsf => ocsf::BEGINNING,
        Format::Ecs => ecs::BEGINNING,
    }
}

/// An object that begins with `head` (an unclosed object with a field in it), has these fields, and ends with `tail` (as it stands), where there is one.
fn object(head: &str, fields: Map<String, Value>, tail: Option<(&str, &str)>) -> String {
    let fields = Value::Object(fields).to_string();
    let inner = fields
        .strip_prefix('{')
        .and_then(|fields| fields.strip_suffix('}'))
        .unwrap_or_default();
    let mut out = String::with_capacity(
        head.len() + inner.len() + tail.map_or(2, |(name, line)| name.len() + line.len() + 8),
    );
    out.push_str(head);
    if !inner.is_empty() {
        out.push(',');
        out.push_str(inner);
    }
    if let Some((name, line)) = tail {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":");
        out.push_str(line);
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests;
