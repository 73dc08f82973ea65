//! Metrics as Prometheus reads them.

use prometheus::{Encoder, Registry, TextEncoder};

/// The content type of the text exposition format, and what is registered, in it.
#[must_use]
pub fn render(registry: &Registry) -> (String, String) {
    let encoder = TextEncoder::new();
    let text = encoder
        .encode_to_string(&registry.gather())
        .unwrap_or_default();
    (encoder.format_type().to_owned(), text)
}
