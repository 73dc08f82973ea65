//! `state.json`: where the chain stands at the beginning of the newest segment.

use std::{fs, io, path::Path};

use chaperone_crds::chain::{Chain, StreamId};
use serde::{Deserialize, Serialize};

use super::{MAX_SEQ, replace};

const FILE: &str = "state.json";
/// The only format there is.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateFile {
    format: u32,
    stream: StreamId,
    segment: u64,
    next_seq: u64,
    prev: String,
}

/// Writes it; on disk when this returns.
pub(super) fn write(dir: &Path, chain: &Chain, segment: u64) -> io::Result<()> {
    let content = serde_json::to_vec(&StateFile {
        format: FORMAT,
        stream: chain.stream().clone(),
        segment,
        next_seq: chain.next_seq(),
        prev: chain.prev().to_string(),
    })?;
    replace(dir, FILE, &content, true)
}

/// The chain that it names; `None` where there is no file.
///
/// # Errors
/// `InvalidData` where the content is not what [`write`] writes.
pub(super) fn read(dir: &Path) -> io::Result<Option<Chain>> {
    let content = match fs::read(dir.join(FILE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let state: StateFile = serde_json::from_slice(&content).map_err(|e| bad(e.to_string()))?;
    if state.format != FORMAT {
        return Err(bad(format!("format {} is not known", state.format)));
    }
    if state.next_seq > MAX_SEQ {
        return Err(bad(format!("no sidecar wrote {} records", state.next_seq)));
    }
    let prev = state.prev.parse().map_err(|e| bad(format!("{e}")))?;
    Ok(Some(Chain::resume(state.stream, state.next_seq, prev)))
}
