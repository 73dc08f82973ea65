//! The body of a push request: `{"streams":[{"stream":{LABELS},"values":[["NANOSECONDS","LINE",{METADATA}]]}]}` ([Loki's HTTP API](https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs)).

use std::collections::BTreeMap;

use chaperone_sinks::settings::Loki;
use serde::Serialize;

use super::part::{Entry, Part, Stream};
use crate::sinks::target::{Outgoing, Severity};

#[derive(Serialize)]
struct Body<'a> {
    streams: Vec<Labelled<'a>>,
}

#[derive(Serialize)]
struct Labelled<'a> {
    stream: BTreeMap<&'a str, &'a str>,
    values: Vec<Value<'a>>,
}

/// An array of two or three.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Plain(String, &'a str),
    With(String, &'a str, Metadata<'a>),
}

/// What stands beside an entry. Its values are texts.
#[derive(Serialize)]
struct Metadata<'a> {
    stream: &'a str,
    seq: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
    level: &'static str,
}

/// Writes a part. A record that is in no log has no leaf.
pub(super) fn body(part: &Part, batch: &[Outgoing], settings: &Loki, has_leaves: bool) -> Vec<u8> {
    let value = |entry: &Entry| {
        let record = batch.get(entry.place)?;
        let time = entry.time.as_nanosecond().to_string();
        Some(match settings.structured_metadata {
            false => Value::Plain(time, &record.line),
            true => Value::With(time, &record.line, metadata(record, has_leaves)),
        })
    };
    let labelled = |stream| Labelled {
        stream: labels(stream, settings),
        values: stream.entries.iter().filter_map(value).collect(),
    };
    let body = Body {
        streams: part.streams.iter().map(labelled).collect(),
    };
    // Texts alone: a buffer in memory takes them.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn labels<'a>(stream: &'a Stream, settings: &'a Loki) -> BTreeMap<&'a str, &'a str> {
    let said = settings.labels.iter();
    let mut labels: BTreeMap<&str, &str> = said
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let own = &stream.labels;
    labels.extend([("service_name", "chaperone"), ("kind", own.kind.as_str())]);
    // A label without a value is none.
    if !own.namespace.is_empty() {
        labels.insert("namespace", &own.namespace);
    }
    labels.extend(own.decision.map(|decision| ("decision", decision)));
    labels
}

fn metadata(record: &Outgoing, has_leaf: bool) -> Metadata<'_> {
    Metadata {
        stream: &record.about.stream,
        seq: record.about.seq.to_string(),
        pod: &record.about.agent.pod,
        leaf: has_leaf.then(|| record.leaf.to_string()),
        level: match record.about.severity() {
            Severity::Warning => "warn",
            Severity::Notice | Severity::Informational => "info",
        },
    }
}
