//! What objects of a sink are called: `PREFIX/date=YYYY-MM-DD/LEAF-STREAM-SEQ.ndjson.zst`, or `.parquet`.
//!
//! Owns the form, for who writes it and who reads it. docs/sinks.md has it for people.

use chaperone_sinks::settings::S3Format;

/// Digits of a leaf's number: as many as the highest has, so that names are in the order of the log.
const DIGITS: usize = 20;
/// What begins the name of a day's folder.
const DAY: &str = "date=";
/// The folder beside the days, of records that are in no log.
const TEST: &str = "test";

/// Where an object's first record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begins<'a> {
    /// Its number in the log.
    pub leaf: u64,
    /// Its name: `STREAM-SEQ`, or `leaf-LEAF` of one whose stream was not read.
    pub record: &'a str,
    /// What the object is.
    pub format: S3Format,
}

/// What an object's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// Records of the log.
    Records(Begins<'a>),
    /// A record that is in no log, by which somebody tried the sink.
    Test,
    /// Not a sink's.
    Other,
}

/// Of the object that begins with this record, of this day in UTC.
#[must_use]
pub fn of(prefix: &str, day: &str, begins: Begins<'_>) -> String {
    let Begins {
        leaf,
        record,
        format,
    } = begins;
    let ending = ending(format);
    format!("{prefix}/{DAY}{day}/{leaf:0DIGITS$}-{record}{ending}")
}

/// Of the object of a record that is in no log: beside the days, so that it is among no records of the log.
#[must_use]
pub fn of_test(prefix: &str, record: &str, format: S3Format) -> String {
    format!("{prefix}/{TEST}/{record}{}", ending(format))
}

/// Reads a name.
#[must_use]
pub fn read<'a>(prefix: &str, name: &'a str) -> Name<'a> {
    let within = name.strip_prefix(prefix).and_then(|n| n.strip_prefix('/'));
    let (folder, object) = match within.map(|within| within.split_once('/')) {
        Some(Some((folder, object))) => (folder, object),
        // The prefix is itself a day's.
        Some(None) => {
            let folder = prefix.rsplit('/').next();
            (folder.unwrap_or_default(), within.unwrap_or_default())
        }
        None => return Name::Other,
    };
    match (begins(object), folder) {
        (Some(begins), folder) if folder.starts_with(DAY) => Name::Records(begins),
        (_, TEST) if !object.contains('/') => Name::Test,
        _ => Name::Other,
    }
}

/// Reads the name of an object of records without its prefix.
#[must_use]
pub fn read_object(name: &str) -> Option<Begins<'_>> {
    begins(name.rsplit('/').next()?)
}

/// `LEAF-RECORD.ENDING`.
fn begins(object: &str) -> Option<Begins<'_>> {
    let formats = [S3Format::Ndjson, S3Format::Parquet];
    let (format, stem) = formats
        .into_iter()
        .find_map(|format| Some((format, object.strip_suffix(ending(format))?)))?;
    let (digits, record) = stem.split_at_checked(DIGITS)?;
    let record = record.strip_prefix('-')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = is_number && !record.is_empty() && !record.contains('/');
    Some(Begins {
        leaf: digits.parse().ok().filter(|_| is_one)?,
        record,
        format,
    })
}

fn ending(format: S3Format) -> &'static str {
    match format {
        S3Format::Ndjson => ".ndjson.zst",
        S3Format::Parquet => ".parquet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_written_is_read_again() {
        for format in [S3Format::Ndjson, S3Format::Parquet] {
            let begins = Begins {
                leaf: 41_200,
                record: "6e0c5d36-4f5f-4c1f-8d0a-2f4d6c0e9b11-118",
                format,
            };
            let name = of("chaperone/archive", "2026-11-29", begins);
            assert_eq!(read("chaperone/archive", &name), Name::Records(begins));
            let day = "chaperone/archive/date=2026-11-29";
            assert_eq!(read(day, &name), Name::Records(begins), "a day alone");
            assert_eq!(read("chaperone/arch", &name), Name::Other);
            assert_eq!(read("chaperone", &name), Name::Other);
            let test = of_test("chaperone/archive", "s-0", format);
            assert_eq!(read("chaperone/archive", &test), Name::Test);
        }
        let name = of(
            "a",
            "unknown",
            Begins {
                leaf: u64::MAX,
                record: "leaf-18446744073709551615",
                format: S3Format::Ndjson,
            },
        );
        assert!(matches!(read("a", &name), Name::Records(begins) if begins.leaf == u64::MAX));
    }

    #[test]
    fn what_no_sink_wrote_is_no_name() {
        for name in [
            "",
            "a",
            "a/",
            "a/date=2026-11-29",
            "a/inventory.csv",
            "a/date=2026-11-29/41200-s-1.ndjson.zst",
            "a/date=2026-11-29/00000000000000041200-.parquet",
            "a/date=2026-11-29/00000000000000041200-s-1.ndjson",
            "a/date=2026-11-29/00000000000000041200-s/1.ndjson.zst",
            "a/date=2026-11-29/+0000000000000041200-s-1.ndjson.zst",
            "a/date=2026-11-29/99999999999999999999-s-1.ndjson.zst",
            "a/date=2026-11-29/0000000000000000000é-s-1.ndjson.zst",
            "a/day=1/00000000000000041200-s-1.ndjson.zst",
            "a/test/more/s-0.parquet",
            "b/test/s-0.parquet",
        ] {
            assert_eq!(read("a", name), Name::Other, "{name}");
        }
    }
}
