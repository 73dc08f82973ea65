use std::{io::Write as _, sync::Arc};

use ::parquet::{
    basic::{Compression, Repetition, Type as Physical, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};

use super::*;

fn owned(line: Line<'_>) -> Vec<u8> {
    match line {
        Line::Whole(bytes) | Line::Last(bytes) => bytes.to_vec(),
        Line::TooLong => b"too long".to_vec(),
    }
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lines_come_back_and_what_is_broken_is_a_fault_after_them() {
    let text = (0..2000).map(|n| format!("line {n}\n")).collect::<String>();
    let whole = ndjson(&*packed(text.as_bytes()), owned);
    assert_eq!((whole.records.len(), whole.fault), (2000, None));
    assert_eq!(whole.records[7], (None, b"line 7".to_vec()));
    let frame = packed(text.as_bytes());
    let torn = ndjson(&frame[..frame.len() - 5], owned);
    assert!(torn.fault.is_some());
    let mut other = frame.clone();
    let at = frame.len() - 2;
    other[at] ^= 1;
    assert!(ndjson(&*other, owned).fault.is_some(), "the checksum");
    assert!(ndjson(&b"no zstd"[..], owned).fault.is_some());
}

#[test]
fn a_bomb_does_not_unfold() {
    let lines = ndjson(&*packed(&b"\n".repeat(MAX_RECORDS + 1)), owned);
    assert!(
        lines
            .fault
            .unwrap()
            .contains("more than an object may have")
    );
    let bytes = ndjson(&*packed(&vec![b'a'; MAX_UNFOLDED_BYTES + 1]), owned);
    assert!(
        bytes
            .fault
            .unwrap()
            .contains("more than an object may have")
    );
    // A window of 128 MiB.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![b'a'; 10_000_000]).unwrap();
    let wide = encoder.finish().unwrap();
    assert!(ndjson(&*wide, owned).fault.is_some());
}

/// A file with these rows, as a sink writes it.
fn file(rows: &[(i64, &str)], dictionary: bool) -> Bytes {
    let column = |name, physical| {
        let column = Type::primitive_type_builder(name, physical);
        let column = column.with_repetition(Repetition::OPTIONAL).build();
        Arc::new(column.unwrap())
    };
    let columns = vec![
        column("leaf", Physical::INT64),
        column("record", Physical::BYTE_ARRAY),
    ];
    let schema = Type::group_type_builder("chaperone").with_fields(columns);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_dictionary_enabled(dictionary)
        .build();
    let schema = Arc::new(schema.build().unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels = vec![1; rows.len()];
    let leaves: Vec<_> = rows.iter().map(|(leaf, _)| *leaf).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let leaf = column.typed::<Int64Type>();
    leaf.write_batch(&leaves, Some(&levels), None).unwrap();
    column.close().unwrap();
    let lines: Vec<_> = rows
        .iter()
        .map(|(_, line)| ByteArray::from(*line))
        .collect();
    let mut column = group.next_column().unwrap().unwrap();
    let record = column.typed::<ByteArrayType>();
    record.write_batch(&lines, Some(&levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap().into()
}

#[test]
fn rows_come_back_with_their_numbers() {
    for dictionary in [true, false] {
        let rows = [(7, "seven"), (9, "nine"), (10, "")];
        let read = parquet(file(&rows, dictionary), owned);
        assert_eq!(read.fault, None);
        let expected = rows.map(|(leaf, line)| (Some(leaf as u64), line.as_bytes().to_vec()));
        assert_eq!(read.records, expected);
    }
    let many: Vec<_> = (0..5000).map(|leaf| (leaf, "the same line")).collect();
    let read = parquet(file(&many, true), owned);
    assert_eq!((read.records.len(), read.fault), (5000, None));
}

#[test]
fn a_file_that_is_not_as_a_sink_writes_it_is_a_fault() {
    for (rows, why) in [
        (&[(-1, "a")][..], "no number of a leaf"),
        (&[(1, "a\nb")][..], "not one record each"),
    ] {
        let read = parquet(file(rows, true), owned);
        assert!(read.records.is_empty());
        assert!(read.fault.unwrap().contains(why));
    }
    for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", b"PAR1\xff\xff\xff\x7fPAR1"] {
        let read = parquet(Bytes::copy_from_slice(bytes), owned);
        assert!(read.fault.is_some(), "{bytes:?}");
    }
}

#[test]
fn no_byte_that_is_another_ends_the_program() {
    let sound = file(&[(7, "seven"), (8, "eight"), (9, "nine")], true);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for at in 0..sound.len() {
        for flip in [1, 0x80, 0xff] {
            let mut other = sound.to_vec();
            other[at] ^= flip;
            let read = parquet(other.into(), owned);
            assert!(read.records.len() <= MAX_RECORDS);
        }
    }
    std::panic::set_hook(hook);
}
