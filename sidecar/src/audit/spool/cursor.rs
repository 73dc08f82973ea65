//! `cursor-SINK.json`: how far a sink has acknowledged.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Position, replace};

const PREFIX: &str = "cursor-";
const SUFFIX: &str = ".json";
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct CursorFile {
    format: u32,
    sink: String,
    segment: u64,
    offset: u64,
    records: u64,
}

/// Name of the file. Names of sinks are checked before they come here.
pub(super) fn file_name(sink: &str) -> String {
    format!("{PREFIX}{sink}{SUFFIX}")
}

/// Writes it; survives the death of the process, not of the machine.
pub(super) fn write(dir: &Path, sink: &str, position: Position) -> io::Result<()> {
    let content = serde_json::to_vec(&CursorFile {
        format: FORMAT,
        sink: sink.to_owned(),
        segment: position.segment,
        offset: position.offset,
        records: position.records,
    })?;
    replace(dir, &file_name(sink), &content, false)
}

/// All cursors of the directory. One that cannot be read is as good as absent: the sink gets copies.
pub(super) fn read_all(dir: &Path) -> io::Result<BTreeMap<String, Position>> {
    let mut cursors = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !(name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            continue;
        }
        match parse(&fs::read(entry.path())?) {
            Some((sink, position)) if file_name(&sink) == name => {
                cursors.insert(sink, position);
            }
            _ => tracing::warn!(file = name, "a cursor cannot be read; its sink starts anew"),
        }
    }
    Ok(cursors)
}

fn parse(content: &[u8]) -> Option<(String, Position)> {
    let file: CursorFile = serde_json::from_slice(content).ok()?;
    let position = Position {
        segment: file.segment,
        offset: file.offset,
        records: file.records,
    };
    (file.format == FORMAT).then_some((file.sink, position))
}
