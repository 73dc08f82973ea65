//! Rows of Parquet: their numbers in the log, and their records' lines.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType, DataType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        reader::{FileReader as _, RowGroupReader, SerializedFileReader},
    },
    schema::types::ColumnDescPtr,
};

use super::{MAX_RECORDS, MAX_UNFOLDED_BYTES, TOO_MUCH, pages};

/// Columns as a sink writes them.
const LEAF: &str = "leaf";
const RECORD: &str = "record";
/// Rows that are read at once.
const AT_ONCE: usize = 1024;

/// Rows that were read.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Their numbers in the log.
    pub(super) leaves: Vec<u64>,
    /// Their lines, each with a newline.
    pub(super) lines: Vec<u8>,
}

/// Reads them all, or says why not.
pub(super) fn read(file: Bytes) -> Result<Rows, String> {
    // The library asserts of a file what nobody has shown; a store's bytes end no program.
    let read = catch_unwind(AssertUnwindSafe(|| all(file)));
    read.unwrap_or_else(|_| Err("it is no sound file of Parquet".to_owned()))
}

fn all(file: Bytes) -> Result<Rows, String> {
    let reader = SerializedFileReader::new(file.clone()).map_err(no_file)?;
    let mut rows = Rows::default();
    for (number, group) in reader.metadata().row_groups().iter().enumerate() {
        let columns = [LEAF, RECORD].map(|name| place(group, name));
        let [Some(leaf), Some(record)] = columns else {
            return Err(format!("it has no columns {LEAF} and {RECORD}"));
        };
        for column in [leaf, record] {
            pages::check(&file, range(group.column(column))?)?;
        }
        let group = reader.get_row_group(number).map_err(no_file)?;
        leaves(&*group, leaf, &mut rows.leaves)?;
        lines(&*group, record, &mut rows.lines)?;
    }
    let lines = memchr::memchr_iter(b'\n', &rows.lines).count();
    match lines == rows.leaves.len() {
        true => Ok(rows),
        false => Err("its rows are not one record each".to_owned()),
    }
}

fn no_file(error: ParquetError) -> String {
    format!("it is no sound file of Parquet: {error}")
}

/// Where the column of this name is, if it is flat.
fn place(group: &RowGroupMetaData, name: &str) -> Option<usize> {
    let mut columns = group.columns().iter();
    columns.position(|column| {
        let described = column.column_descr();
        let is_flat = described.max_rep_level() == 0 && described.max_def_level() <= 1;
        is_flat && column.column_path().parts() == [name]
    })
}

/// The bytes of a column, as the library will have them.
fn range(column: &ColumnChunkMetaData) -> Result<std::ops::Range<usize>, String> {
    let data = column.data_page_offset();
    let start = column.dictionary_page_offset().unwrap_or(data);
    let place = || {
        let start = usize::try_from(start).ok()?;
        let length = usize::try_from(column.compressed_size()).ok()?;
        Some(start..start.checked_add(length)?)
    };
    place().ok_or_else(|| "a column is nowhere in it".to_owned())
}

fn leaves(group: &dyn RowGroupReader, column: usize, into: &mut Vec<u64>) -> Result<(), String> {
    let described = group.metadata().column(column).column_descr_ptr();
    let ColumnReader::Int64ColumnReader(reader) =
        group.get_column_reader(column).map_err(no_file)?
    else {
        return Err(format!("column {LEAF} is no INT64"));
    };
    each::<Int64Type>(reader, &described, |leaf| {
        let leaf = u64::try_from(leaf).map_err(|_| format!("{leaf} is no number of a leaf"))?;
        into.push(leaf);
        match into.len() > MAX_RECORDS {
            true => Err(TOO_MUCH.to_owned()),
            false => Ok(()),
        }
    })
}

fn lines(group: &dyn RowGroupReader, column: usize, into: &mut Vec<u8>) -> Result<(), String> {
    let described = group.metadata().column(column).column_descr_ptr();
    let ColumnReader::ByteArrayColumnReader(reader) =
        group.get_column_reader(column).map_err(no_file)?
    else {
        return Err(format!("column {RECORD} is no BYTE_ARRAY"));
    };
    each::<ByteArrayType>(reader, &described, |line: ByteArray| {
        let after = into.len().saturating_add(line.len());
        if after >= MAX_UNFOLDED_BYTES {
            return Err(TOO_MUCH.to_owned());
        }
        into.extend_from_slice(line.data());
        into.push(b'\n');
        Ok(())
    })
}

/// Takes each value of a column that has one in each row.
fn each<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    described: &ColumnDescPtr,
    mut take: impl FnMut(T::T) -> Result<(), String>,
) -> Result<(), String> {
    let mut rows = 0_usize;
    loop {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let has_levels = described.max_def_level() > 0;
        let levels = has_levels.then_some(&mut levels);
        let (read, present, _) = reader
            .read_records(AT_ONCE, levels, None, &mut values)
            .map_err(no_file)?;
        rows = rows.saturating_add(read);
        if present < read {
            return Err(format!("a row has no {}", described.name()));
        }
        if rows > MAX_RECORDS {
            return Err(TOO_MUCH.to_owned());
        }
        if read == 0 {
            return Ok(());
        }
        values.into_iter().try_for_each(&mut take)?;
    }
}
