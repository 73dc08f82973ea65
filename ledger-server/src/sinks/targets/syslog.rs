//! Syslog: messages of RFC 5424, framed by octet counting over TLS (RFC 5425) or, where that is allowed, over TCP (RFC 6587).
//!
//! Contract: syslog knows no acknowledgement. A batch counts as taken once it was written; what was written last on a connection ([`WINDOW_BYTES`]) is kept and written again when the connection is found
//! broken, for a receiver that is killed loses what it had not read. So copies come after each break, and nothing is lost unless the ledger is killed too in that moment.

mod message;

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use chaperone_sinks::{
    dial::{Dialer, Stream},
    settings::Syslog,
};
use futures::FutureExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target};

/// Bytes that were written last and are kept: more than the buffers of two kernels hold unread (6 MiB by Linux' default).
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// How long a connection, what is written again and a batch may take together. Less than a delivery waits, so that what is kept is never forgotten.
const WRITE_TIMEOUT: Duration = Duration::from_secs(50);

/// A receiver and what it may not have read.
pub(super) struct SyslogTarget {
    dialer: Dialer,
    facility: u8,
    connection: Option<Stream>,
    written: Window,
}

/// Frames that were written, the oldest first.
#[derive(Default)]
struct Window {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Window {
    fn push(&mut self, frames: Vec<u8>) {
        self.bytes = self.bytes.saturating_add(frames.len());
        self.frames.push_back(frames);
        while self.bytes > WINDOW_BYTES && self.frames.len() > 1 {
            let gone = self.frames.pop_front().map_or(0, |frames| frames.len());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

impl SyslogTarget {
    /// Reads the settings.
    pub(super) fn new(syslog: &Syslog, maker: &Maker) -> Result<Self, Failure> {
        let tls = match &syslog.tls {
            Some(tls) => Some(Arc::new(tls.client_config(None)?)),
            None => None,
        };
        Ok(Self {
            dialer: Dialer {
                host: syslog.host.clone(),
                port: syslog.port,
                tls,
                net: maker.net.clone(),
            },
            facility: syslog.facility,
            connection: None,
            written: Window::default(),
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let frames = message::frames(batch, self.facility);
        // Only a connection on which all was written is kept.
        let kept = self.connection.take().and_then(alive);
        let written = timeout(
            WRITE_TIMEOUT,
            write(&self.dialer, kept, &self.written.frames, &frames),
        )
        .await;
        let connection = written.map_err(|_| {
            let why = format!(
                "the receiver took nothing for {} s",
                WRITE_TIMEOUT.as_secs()
            );
            Failure::soon("timeout", why)
        })??;
        self.connection = Some(connection);
        self.written.push(frames);
        Ok(Answer::default())
    }
}

impl Target for SyslogTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// The connection, if it is alive as far as is known here. A receiver says nothing: what can be read is the connection's end. (What TLS itself says on the way is read by this too.)
fn alive(mut stream: Stream) -> Option<Stream> {
    let mut byte = [0];
    match stream.read(&mut byte).now_or_never() {
        Some(Ok(0) | Err(_)) => None,
        Some(Ok(_)) | None => Some(stream),
    }
}

/// Writes frames, on a new connection after those that were written last.
async fn write(
    dialer: &Dialer,
    kept: Option<Stream>,
    before: &VecDeque<Vec<u8>>,
    frames: &[u8],
) -> Result<Stream, Failure> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let mut stream = dialer.dial().await?;
            for frames in before {
                stream.write_all(frames).await.map_err(broken)?;
            }
            stream
        }
    };
    stream.write_all(frames).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    Ok(stream)
}

fn broken(error: io::Error) -> Failure {
    Failure::soon("connect", format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_kept_within_bounds_and_at_least_the_last_batch() {
        let mut window = Window::default();
        for size in [WINDOW_BYTES / 2, WINDOW_BYTES / 2, 10] {
            window.push(vec![0; size]);
        }
        assert_eq!(
            (window.frames.len(), window.bytes),
            (2, WINDOW_BYTES / 2 + 10)
        );
        window.push(vec![0; WINDOW_BYTES * 2]);
        assert_eq!(
            window.frames.len(),
            1,
            "a batch that is longer than the bound is kept alone"
        );
    }
}
