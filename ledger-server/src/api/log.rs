//! The published log, as C2SP tlog-tiles serves it: `checkpoint`, `tile/LEVEL/INDEX[.p/WIDTH]`, `tile/entries/INDEX[.p/WIDTH]`.
//!
//! Refuses every path that names no tile before it touches the disk. Invariant: what is read lies in `checkpoint` or `tile`.

use std::{io, path::Path};

use axum::{
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use chaperone_ledger::tile::Tile;

use crate::refusal::{Code, Refusal};

/// What a tile is never changes. `private`, because reading takes a right: a shared cache would give it to anyone.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
/// The checkpoint changes every few seconds.
const NEVER: HeaderValue = HeaderValue::from_static("no-cache");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The newest checkpoint, or the newest that enough witnesses have signed.
pub(super) async fn checkpoint(dir: &Path, witnessed: bool) -> Result<Response, Refusal> {
    let name = if witnessed {
        "checkpoint.witnessed"
    } else {
        "checkpoint"
    };
    let note = read(dir, name).await?;
    Ok(([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NEVER)], note).into_response())
}

/// The tile at this path, which begins with `tile/`.
pub(super) async fn tile(dir: &Path, path: &str) -> Result<Response, Refusal> {
    let tile: Tile = path
        .parse()
        .map_err(|_| Refusal::new(Code::NotFound, "the path names no tile"))?;
    let bytes = read(dir, &tile.to_string()).await?;
    Ok(([(CONTENT_TYPE, BYTES), (CACHE_CONTROL, FOREVER)], bytes).into_response())
}

async fn read(dir: &Path, name: &str) -> Result<Vec<u8>, Refusal> {
    match tokio::fs::read(dir.join(name)).await {
        Ok(bytes) => Ok(bytes),
        Err(error) if is_absent(&error) => {
            Err(Refusal::new(Code::NotFound, format!("there is no {name}")))
        }
        Err(error) => {
            tracing::error!(%error, name, "the log cannot be read");
            let why = format!("{name} cannot be read now");
            Err(Refusal::new(Code::Storage, why))
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}
