//! A batch as OTLP's messages.

use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};

use crate::sinks::target::{Agent, Outgoing, Severity};

/// Neighbours of one agent share a resource, so that the order of the log stays.
pub(super) fn request(
    batch: &[Outgoing],
    version: &str,
    now: Timestamp,
) -> ExportLogsServiceRequest {
    let runs = batch.chunk_by(|a, b| a.about.agent == b.about.agent);
    let resource_logs = runs.map(|run| ResourceLogs {
        resource: run.first().map(|first| resource(&first.about.agent)),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope {
                name: "chaperone".to_owned(),
                version: version.to_owned(),
                ..InstrumentationScope::default()
            }),
            log_records: run.iter().map(|record| log_record(record, now)).collect(),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

fn resource(agent: &Agent) -> Resource {
    let named = [
        ("service.name", "chaperone"),
        ("k8s.namespace.name", &agent.namespace),
        ("k8s.pod.name", &agent.pod),
    ];
    Resource {
        attributes: named
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| attribute(key, Value::StringValue(value.to_owned())))
            .collect(),
        ..Resource::default()
    }
}

fn log_record(record: &Outgoing, now: Timestamp) -> LogRecord {
    let about = &record.about;
    let (number, text) = match about.severity() {
        Severity::Informational => (SeverityNumber::Info, "INFO"),
        Severity::Notice => (SeverityNumber::Info2, "NOTICE"),
        Severity::Warning => (SeverityNumber::Warn, "WARN"),
    };
    LogRecord {
        time_unix_nano: about.time.parse().map_or(0, nanoseconds),
        observed_time_unix_nano: nanoseconds(now),
        severity_number: number.into(),
        severity_text: text.to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(record.line.clone())),
        }),
        attributes: vec![
            attribute("chaperone.stream", Value::StringValue(about.stream.clone())),
            attribute(
                "chaperone.seq",
                Value::IntValue(i64::try_from(about.seq).unwrap_or(i64::MAX)),
            ),
        ],
        event_name: match about.kind.as_str() {
            "" => String::new(),
            kind => format!("chaperone.{kind}"),
        },
        ..LogRecord::default()
    }
}

/// Since 1970; 0 before it, which OTLP reads as unknown.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(pod: &str, seq: u64, line: &str) -> Outgoing {
        let mut about: crate::sinks::target::About = serde_json::from_str(line).unwrap();
        about.agent.pod = pod.to_owned();
        about.seq = seq;
        Outgoing {
            leaf: seq,
            about,
            line: line.to_owned(),
        }
    }

    #[test]
    fn a_record_is_a_log_record_with_its_line_and_the_order_of_the_log_stays() {
        let line = r#"{"stream":"s","kind":"http","time":"2026-11-29T10:00:00.000001Z","decision":{"action":"Deny"}}"#;
        let batch = [
            outgoing("a", 1, line),
            outgoing("a", 2, "{}"),
            outgoing(
                "b",
                3,
                r#"{"decision":{"action":"Allow","wouldDeny":true}}"#,
            ),
            outgoing("a", 4, r#"{"kind":"gap","time":"never"}"#),
        ];
        let request = request(&batch, "1", Timestamp::UNIX_EPOCH);
        let runs: Vec<_> = request
            .resource_logs
            .iter()
            .map(|logs| &logs.scope_logs[0].log_records)
            .collect();
        assert_eq!(
            runs.iter().map(|run| run.len()).collect::<Vec<_>>(),
            [2, 1, 1]
        );
        let first = &runs[0][0];
        let body = first.body.clone().unwrap().value.unwrap();
        assert_eq!(body, Value::StringValue(line.to_owned()));
        assert_eq!(first.time_unix_nano, 1_795_946_400_000_001_000);
        assert_eq!(
            (first.severity_text.as_str(), first.event_name.as_str()),
            ("WARN", "chaperone.http")
        );
        assert_eq!(runs[1][0].severity_text, "NOTICE");
        assert_eq!(
            (runs[2][0].severity_text.as_str(), runs[2][0].time_unix_nano),
            ("NOTICE", 0)
        );
    }
}
