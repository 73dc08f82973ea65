//! What a batch is as the body of a request.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use bytes::Bytes;
use chaperone_crds::resources::Format;
use flate2::{Compression, write::GzEncoder};

/// How a batch stands in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// One JSON object a line.
    Lines,
    /// One CloudEvent, in structured mode.
    Event,
    /// CloudEvents in batched mode (HTTP Protocol Binding 1.0.2 §3.3).
    Events,
}

impl Content {
    /// Not every receiver of CloudEvents takes batches: a sink whose batches have one record sends no batch.
    #[must_use]
    pub fn new(format: Format, batch_size: u32) -> Self {
        match format {
            Format::CloudEvents if batch_size <= 1 => Self::Event,
            Format::CloudEvents => Self::Events,
            Format::Native | Format::Ocsf | Format::Ecs => Self::Lines,
        }
    }

    /// Value of `Content-Type`.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Event => "application/cloudevents+json; charset=utf-8",
            Self::Events => "application/cloudevents-batch+json; charset=utf-8",
        }
    }

    /// The body for these lines, each of which ends with a newline and has none within.
    #[must_use]
    pub fn body(self, lines: &[u8]) -> Cow<'_, [u8]> {
        if self != Self::Events {
            return Cow::Borrowed(lines);
        }
        let events = lines.strip_suffix(b"\n").unwrap_or(lines);
        let mut body = Vec::with_capacity(events.len().saturating_add(2));
        body.push(b'[');
        body.extend(events.iter().map(|b| if *b == b'\n' { b',' } else { *b }));
        body.push(b']');
        Cow::Owned(body)
    }
}

/// A body in coding gzip.
///
/// # Errors
/// None that a buffer in memory has.
pub fn gzip(body: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_events_are_sent_alone_or_as_an_array_and_the_rest_as_lines() {
        let cases: [(Format, u32, &[u8], &str); 4] = [
            (Format::Native, 1, b"{}\n{}\n", "application/x-ndjson"),
            (Format::Ecs, 500, b"{}\n{}\n", "application/x-ndjson"),
            (
                Format::CloudEvents,
                1,
                b"{}\n{}\n",
                "application/cloudevents+json; charset=utf-8",
            ),
            (
                Format::CloudEvents,
                2,
                b"[{},{}]",
                "application/cloudevents-batch+json; charset=utf-8",
            ),
        ];
        for (format, size, body, media_type) in cases {
            let content = Content::new(format, size);
            assert_eq!(content.body(b"{}\n{}\n"), body, "{format}");
            assert_eq!(content.media_type(), media_type);
        }
    }
}
