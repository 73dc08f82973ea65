//! A batch as a file of Parquet: a row for each record, in one row group.
//!
//! Owns the columns; docs/sinks.md has them as a table. A record that this version cannot read has its line and its place in the log, and nothing else. Invariant: the same records become the same bytes.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_crds::{
    record::{OperationInfo, Outcome, Record},
    render::url_path,
};
use jiff::Timestamp;
use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::Result,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{ColumnPath, Type},
};

use crate::sinks::target::Outgoing;

/// zstd's own default.
const LEVEL: i32 = 3;
/// The column of the records' lines: each is another, so that neither a dictionary of them nor their order helps.
const LINE: &str = "record";

/// A record as a row.
struct Row<'a> {
    outgoing: &'a Outgoing,
    time: Option<i64>,
    kind: &'a str,
    record: Option<Record>,
}

/// A value of a column, where a row has one.
#[derive(Clone, Copy)]
enum Column {
    Text(fn(&Row<'_>) -> Option<String>),
    Long(fn(&Row<'_>) -> Option<i64>),
    Microseconds(fn(&Row<'_>) -> Option<i64>),
    Int(fn(&Row<'_>) -> Option<i32>),
    Flag(fn(&Row<'_>) -> Option<bool>),
}

use Column::{Flag, Int, Long, Microseconds, Text};

/// Columns in their order. Each may be null, so that one day one may be.
const COLUMNS: [(&str, Column); 26] = [
    ("leaf", Long(|row| i64::try_from(row.outgoing.leaf).ok())),
    ("stream", Text(|row| text(&row.outgoing.about.stream))),
    (
        "seq",
        Long(|row| i64::try_from(row.outgoing.about.seq).ok()),
    ),
    ("time", Microseconds(|row| row.time)),
    ("kind", Text(|row| text(row.kind))),
    (
        "namespace",
        Text(|row| text(&row.outgoing.about.agent.namespace)),
    ),
    ("pod", Text(|row| text(&row.outgoing.about.agent.pod))),
    (
        "service_account",
        Text(|row| text(&row.outgoing.about.agent.service_account)),
    ),
    (
        "session",
        Text(|row| row.record.as_ref()?.event.session.as_ref()?.id.clone()),
    ),
    ("protocol", Text(|row| text(&row.operation()?.protocol))),
    ("method", Text(|row| text(&row.operation()?.verb))),
    ("resource", Text(|row| text(&row.operation()?.resource))),
    (
        "host",
        Text(|row| {
            row.record
                .as_ref()?
                .event
                .destination
                .as_ref()?
                .host
                .clone()
        }),
    ),
    (
        "ip",
        Text(|row| text(&row.record.as_ref()?.event.destination.as_ref()?.ip)),
    ),
    (
        "port",
        Int(|row| Some(row.record.as_ref()?.event.destination.as_ref()?.port.into())),
    ),
    (
        "path",
        Text(|row| url_path(&row.operation()?.resource).map(str::to_owned)),
    ),
    (
        "status",
        Int(|row| Some(row.record.as_ref()?.event.http.as_ref()?.status?.into())),
    ),
    (
        "request_bytes",
        Long(|row| i64::try_from(row.record.as_ref()?.event.http.as_ref()?.request_bytes).ok()),
    ),
    (
        "response_bytes",
        Long(|row| i64::try_from(row.record.as_ref()?.event.http.as_ref()?.response_bytes).ok()),
    ),
    ("decision", Text(|row| row.decision())),
    (
        "would_deny",
        Flag(|row| Some(row.record.as_ref()?.event.decision.as_ref()?.would_deny)),
    ),
    (
        "policy",
        Text(|row| row.record.as_ref()?.event.decision.as_ref()?.policy.clone()),
    ),
    (
        "rule",
        Text(|row| row.record.as_ref()?.event.decision.as_ref()?.rule.clone()),
    ),
    (
        "reason",
        Text(|row| text(&row.record.as_ref()?.event.decision.as_ref()?.reason)),
    ),
    (
        "error",
        Text(|row| row.record.as_ref()?.event.error.clone()),
    ),
    (LINE, Text(|row| text(&row.outgoing.line))),
];

impl<'a> Row<'a> {
    fn of(outgoing: &'a Outgoing) -> Self {
        let time = outgoing.about.time.parse::<Timestamp>().ok();
        Self {
            outgoing,
            time: time.map(Timestamp::as_microsecond),
            kind: &outgoing.about.kind,
            record: serde_json::from_str(&outgoing.line).ok(),
        }
    }

    fn operation(&self) -> Option<&OperationInfo> {
        self.record.as_ref()?.event.operation.as_ref()
    }

    fn decision(&self) -> Option<String> {
        let action = match self.record.as_ref()?.event.decision.as_ref()?.action {
            Outcome::Allow => "Allow",
            Outcome::Deny => "Deny",
        };
        text(action)
    }
}

/// A text, where there is one.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Column {
    fn described(self, name: &str) -> Result<Type> {
        let (physical, logical) = match self {
            Self::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Long(_) => (Physical::INT64, None),
            Self::Microseconds(_) => {
                let utc = LogicalType::timestamp(true, TimeUnit::MICROS);
                (Physical::INT64, Some(utc))
            }
            Self::Int(_) => (Physical::INT32, None),
            Self::Flag(_) => (Physical::BOOLEAN, None),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
    }

    fn write(self, rows: &[Row<'_>], writer: &mut SerializedColumnWriter<'_>) -> Result<()> {
        match (self, writer.untyped()) {
            (Self::Text(of), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let of = |row: &Row<'_>| of(row).map(|text| ByteArray::from(text.into_bytes()));
                let (values, levels) = present(rows, of);
                writer.write_batch(&values, Some(&levels), None)
            }
            (Self::Long(of) | Self::Microseconds(of), ColumnWriter::Int64ColumnWriter(writer)) => {
                let (values, levels) = present(rows, of);
                writer.write_batch(&values, Some(&levels), None)
            }
            (Self::Int(of), ColumnWriter::Int32ColumnWriter(writer)) => {
                let (values, levels) = present(rows, of);
                writer.write_batch(&values, Some(&levels), None)
            }
            (Self::Flag(of), ColumnWriter::BoolColumnWriter(writer)) => {
                let (values, levels) = present(rows, of);
                writer.write_batch(&values, Some(&levels), None)
            }
            // Each column is described by what writes it.
            _ => Err(parquet::errors::ParquetError::General(
                "a column of another type".to_owned(),
            )),
        }
        .map(drop)
    }
}

/// Values that there are, and of each row whether it has one.
fn present<T>(rows: &[Row<'_>], of: impl Fn(&Row<'_>) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let (mut values, mut levels) = (Vec::new(), Vec::with_capacity(rows.len()));
    for row in rows {
        let value = of(row);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    (values, levels)
}

/// The records of a batch, as they are in the log, as a file of Parquet with zstd inside.
pub(super) fn body(batch: &[Outgoing]) -> Result<Bytes> {
    let columns = COLUMNS
        .iter()
        .map(|(name, column)| column.described(name).map(Arc::new));
    let schema = Type::group_type_builder("chaperone")
        .with_fields(columns.collect::<Result<_>>()?)
        .build()?;
    let line = ColumnPath::from(LINE);
    let properties = WriterProperties::builder()
        .set_created_by("chaperone".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_column_dictionary_enabled(line.clone(), false)
        .set_column_statistics_enabled(line, EnabledStatistics::None)
        .build();
    let rows: Vec<_> = batch.iter().map(Row::of).collect();
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (_, column) in &COLUMNS {
        if let Some(mut writer) = group.next_column()? {
            column.write(&rows, &mut writer)?;
            writer.close()?;
        }
    }
    group.close()?;
    file.into_inner().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::{Field, RowAccessor as _},
    };

    use super::*;
    use crate::sinks::batch::outgoing;
    use chaperone_crds::resources::Format;

    fn record(leaf: u64, line: &str) -> Outgoing {
        outgoing(leaf, line.as_bytes(), Format::Native).unwrap()
    }

    const HTTP: &str = r#"{"v":"chaperone.dev/v1","stream":"s","seq":7,"prev":"p","time":"2026-11-29T23:59:59.000001Z","kind":"http","agent":{"namespace":"agents","pod":"coder"},"destination":{"host":"api.example","ip":"192.0.2.1","port":443},"operation":{"protocol":"http","verb":"GET","resource":"https://api.example/a%20b?q"},"decision":{"action":"Deny","mode":"Enforce","policy":"agents/p","revision":"r","reason":"rule"},"http":{"status":403}}"#;

    #[test]
    fn rows_have_what_records_have_and_what_cannot_be_read_has_its_line() {
        let future = r#"{"v":"chaperone.dev/v9","stream":"s","seq":8,"kind":"new"}"#;
        let batch = [record(1, HTTP), record(2, future), record(3, "{")];
        let bytes = body(&batch).unwrap();
        assert_eq!(bytes, body(&batch).unwrap(), "the same bytes");
        let reader = SerializedFileReader::new(bytes).unwrap();
        let rows: Vec<_> = reader
            .get_row_iter(None)
            .unwrap()
            .map(std::result::Result::unwrap)
            .collect();
        assert_eq!(rows.len(), 3);
        let at = |name: &str| {
            COLUMNS
                .iter()
                .position(|(known, _)| *known == name)
                .unwrap()
        };
        let found = |row: usize, name: &str| {
            let (_, field) = rows[row].get_column_iter().nth(at(name)).unwrap();
            field.clone()
        };
        let is = |text: &str| Field::Str(text.to_owned());
        for (name, value) in [
            ("path", is("/a%20b")),
            ("host", is("api.example")),
            ("decision", is("Deny")),
            ("policy", is("agents/p")),
            ("status", Field::Int(403)),
            ("would_deny", Field::Bool(false)),
            ("rule", Field::Null),
            ("record", is(HTTP)),
        ] {
            assert_eq!(found(0, name), value, "{name}");
        }
        let time = rows[0].get_timestamp_micros(at("time")).unwrap();
        assert_eq!(time, 1_795_996_799_000_001);
        assert_eq!(found(1, "kind"), is("new"));
        assert_eq!(found(1, "seq"), Field::Long(8));
        assert_eq!(found(1, "decision"), Field::Null);
        assert_eq!(found(2, "record"), is("{"));
        assert_eq!(found(2, "leaf"), Field::Long(3));
        assert_eq!(found(2, "time"), Field::Null);
    }
}
