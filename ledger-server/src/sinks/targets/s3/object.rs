//! A batch as an object.

use std::io::{self, Write as _};

use bytes::Bytes;
use chaperone_bucket::name::{self, Begins};
use chaperone_sinks::settings::S3Format;
use jiff::{Timestamp, tz::TimeZone};

use crate::sinks::target::Outgoing;

/// zstd's own default.
const LEVEL: i32 = 3;

/// By the first record: its day in UTC, its number in the log, so that names are in the order of the log, and whose it is, so that no other log has the name.
pub(super) fn name(prefix: &str, first: &Outgoing, format: S3Format) -> String {
    let time = first.about.time.parse::<Timestamp>();
    let day = time.map(|time| {
        time.to_zoned(TimeZone::UTC)
            .strftime("%Y-%m-%d")
            .to_string()
    });
    let day = day.unwrap_or_else(|_| "unknown".to_owned());
    let begins = Begins {
        leaf: first.leaf,
        record: &first.key(),
        format,
    };
    name::of(prefix, &day, begins)
}

/// The lines of a batch in one frame of zstd (RFC 8878), with a checksum. The same records become the same bytes.
pub(super) fn body(batch: &[Outgoing]) -> io::Result<Bytes> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    for record in batch {
        encoder.write_all(record.line.as_bytes())?;
        encoder.write_all(b"\n")?;
    }
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::target::About;

    fn record(leaf: u64, time: &str, line: &str) -> Outgoing {
        Outgoing {
            leaf,
            about: About {
                stream: "s".to_owned(),
                seq: 7,
                time: time.to_owned(),
                ..About::default()
            },
            line: line.to_owned(),
        }
    }

    #[test]
    fn a_name_is_the_first_records_day_and_place() {
        let of = |time| name("chaperone/archive", &record(42, time, ""), S3Format::Ndjson);
        let rest = "00000000000000000042-s-7.ndjson.zst";
        assert_eq!(
            of("2026-11-29T23:59:59.9Z"),
            format!("chaperone/archive/date=2026-11-29/{rest}")
        );
        assert_eq!(
            of("2026-11-30T01:00:00+02:00"),
            format!("chaperone/archive/date=2026-11-29/{rest}")
        );
        assert_eq!(of("soon"), format!("chaperone/archive/date=unknown/{rest}"));
    }

    #[test]
    fn the_same_records_are_the_same_bytes_and_come_back_as_lines() {
        let batch = [record(1, "", "{\"a\":1}"), record(2, "", "{\"b\":2}")];
        let bytes = body(&batch).unwrap();
        assert_eq!(bytes, body(&batch).unwrap());
        assert_eq!(
            zstd::decode_all(&bytes[..]).unwrap(),
            b"{\"a\":1}\n{\"b\":2}\n"
        );
    }
}
