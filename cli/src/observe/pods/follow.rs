//! One sidecar's log: read line by line, resumed where a connection broke, each record sent once.

use std::{io, time::Duration};

use chaperone_crds::{pod, record::Record};
use futures::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::LogParams};
use tokio::{sync::mpsc::Sender, time::sleep};

use super::{Message, is_finished};
use crate::observe::feed::MAX_LINE_BYTES;

/// Wait before a pod's log is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// One pod's log.
pub(super) struct Follow {
    pub(super) api: Api<Pod>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) since: Option<Timestamp>,
    /// Stream and number of the last record: a reconnection repeats some.
    pub(super) last: Option<(String, u64)>,
    pub(super) sender: Sender<Message>,
}

impl Follow {
    /// Sends records until the pod is finished, gone or forbidden.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(kube::Error::Api(status)) = self.read().await
                && status.code == 403
            {
                let note = format!(
                    "no log of {}/{}: {}",
                    self.namespace, self.name, status.message
                );
                let _ = self.sender.send(Message::Note(note)).await;
                return;
            }
            sleep(RETRY).await;
            match self.api.get_opt(&self.name).await {
                Ok(Some(pod)) if pod.uid().as_deref() == Some(&self.uid) && !is_finished(&pod) => {}
                Ok(_) => return,
                Err(_) => {}
            }
            if self.sender.is_closed() {
                return;
            }
        }
    }

    /// Reads until the connection or the container ends.
    async fn read(&mut self) -> Result<(), kube::Error> {
        let log = log_params(true, self.since);
        let mut reader = self.api.log_stream(&self.name, &log).await?;
        let mut line = Vec::new();
        loop {
            let message = match read_line(&mut reader, &mut line).await {
                Ok(LineRead::Whole) => match self.parse(&line) {
                    Some(message) => message,
                    None => continue,
                },
                Ok(LineRead::TooLong) => Message::Skipped,
                Ok(LineRead::End) | Err(_) => return Ok(()),
            };
            if self.sender.send(message).await.is_err() {
                return Ok(());
            }
        }
    }

    /// What a line is; nothing where it is empty or was seen before.
    fn parse(&mut self, line: &[u8]) -> Option<Message> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let Ok(record) = Record::read(line) else {
            return Some(Message::Skipped);
        };
        if let Some((stream, seq)) = &self.last
            && *stream == record.stream
            && record.seq <= *seq
        {
            return None;
        }
        self.last = Some((record.stream.clone(), record.seq));
        if let Ok(time) = record.time.parse() {
            self.since = Some(time);
        }
        Some(Message::Record(Box::new(record), line.to_vec()))
    }
}

/// What was read.
pub(super) enum LineRead {
    /// A line, with its newline unless it is the last.
    Whole,
    /// A line that is too long to be a record.
    TooLong,
    /// No more.
    End,
}

/// Reads a line of at most [`MAX_LINE_BYTES`] into `line`; a longer one is passed over.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<LineRead> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(match (too_long, line.is_empty()) {
                (true, _) => LineRead::TooLong,
                (false, true) => LineRead::End,
                (false, false) => LineRead::Whole,
            });
        }
        let (part, ended) = match available.iter().position(|b| *b == b'\n') {
            Some(at) => (available.get(..=at).unwrap_or(available), true),
            None => (available, false),
        };
        too_long |= line.len().saturating_add(part.len()) > MAX_LINE_BYTES;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len();
        reader.consume_unpin(used);
        if ended {
            return Ok(if too_long {
                LineRead::TooLong
            } else {
                LineRead::Whole
            });
        }
    }
}

/// How a sidecar's log is asked for.
pub(super) fn log_params(follow: bool, since_time: Option<Timestamp>) -> LogParams {
    LogParams {
        container: Some(pod::SIDECAR_NAME.to_owned()),
        follow,
        since_time,
        ..LogParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = futures::io::BufReader::with_capacity(3, bytes);
        let (mut line, mut seen) = (Vec::new(), Vec::new());
        loop {
            match read_line(&mut reader, &mut line).await.unwrap() {
                LineRead::Whole => seen.push(String::from_utf8(line.clone()).unwrap()),
                LineRead::TooLong => seen.push("too long".to_owned()),
                LineRead::End => return seen,
            }
        }
    }

    #[tokio::test]
    async fn lines_are_read_across_buffers() {
        assert_eq!(
            lines(b"ab\ncdefg\n\nlast").await,
            ["ab\n", "cdefg\n", "\n", "last"]
        );
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn an_endless_line_takes_no_memory() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + 1];
        bytes.extend(b"\nnext\n");
        let mut reader = futures::io::BufReader::new(bytes.as_slice());
        let mut line = Vec::new();
        let first = read_line(&mut reader, &mut line).await.unwrap();
        assert!(matches!(first, LineRead::TooLong));
        assert!(matches!(
            read_line(&mut reader, &mut line).await.unwrap(),
            LineRead::Whole
        ));
        assert_eq!(line, b"next\n");
    }
}
