//! Records as events of the collector: JSON objects one after the other.

use chaperone_sinks::settings::Splunk;
use jiff::Timestamp;
use serde::Serialize;

use crate::sinks::target::Outgoing;

/// What stands beside the record.
#[derive(Serialize)]
struct Event<'a> {
    /// Seconds since 1970. None where the record's time cannot be read: Splunk takes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<f64>,
    host: &'a str,
    source: &'static str,
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    /// As text, not as an object: Splunk keeps it byte for byte then, so that records can be proved, and finds its fields all the same.
    event: &'a str,
    fields: Fields<'a>,
}

/// Indexed fields. Their values are texts.
#[derive(Serialize)]
struct Fields<'a> {
    chaperone_stream: &'a str,
    chaperone_seq: String,
    chaperone_kind: &'a str,
}

/// The body of a request.
pub(super) fn body(batch: &[Outgoing], settings: &Splunk) -> Vec<u8> {
    let mut body = Vec::new();
    for record in batch {
        let about = &record.about;
        let event = Event {
            time: about.time.parse().ok().map(seconds),
            host: &about.agent.pod,
            source: "chaperone",
            sourcetype: &settings.sourcetype,
            index: settings.index.as_deref(),
            event: &record.line,
            fields: Fields {
                chaperone_stream: &about.stream,
                chaperone_seq: about.seq.to_string(),
                chaperone_kind: &about.kind,
            },
        };
        // Texts and numbers: a buffer in memory takes them.
        let _ = serde_json::to_writer(&mut body, &event);
        body.push(b'\n');
    }
    body
}

/// To the millisecond, which is what a float of this size has for sure.
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 have 41 bits"
)]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
