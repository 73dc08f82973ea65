//! Standard output as a sink: the cluster's log collector takes it from there.

use std::io::{self, Write as _};

use super::error::SinkError;

/// Writes the lines at once, holding the lock, so that nothing else of this process stands between them. On a thread of the runtime's pool, because the reader may stall.
pub(super) async fn deliver(lines: Vec<u8>) -> Result<(), SinkError> {
    let written = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(&lines)?;
        out.flush()
    });
    match written.await {
        Ok(result) => result.map_err(SinkError::Write),
        Err(error) => Err(SinkError::Write(io::Error::other(error))),
    }
}
