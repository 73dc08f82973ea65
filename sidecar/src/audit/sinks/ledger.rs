//! The ledger as a sink (docs/ledger.md): batches of one stream, each acknowledged once it is on the ledger's disk.
//!
//! Owns what is known of where the ledger stands: asked after a start and after each failure. Refuses to skip: a batch counts as taken only after a 200 to a request that had its last record, so that the
//! ledger has compared it, and by its hash all before it. Invariant: the token goes to an `https` endpoint under the given roots and nowhere else.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_crds::{chain::StreamId, control::SinkTarget, head::Head};
use chaperone_sinks::{
    ClientError, Endpoint,
    client::{Answer, HttpClient, bearer_header},
    net::SinkNet,
    tls,
};
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{self, HeaderValue},
};
use serde::Deserialize;

use super::error::SinkError;
use crate::audit::acknowledged::Acknowledged;

/// Longest file of a token, in bytes, as the ledger takes it.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;

/// The ledger and where it stands.
pub(super) struct LedgerSink {
    client: HttpClient,
    /// What paths begin with: usually nothing.
    prefix: String,
    token_file: String,
    /// The stream that was sent last, and the number of the record that the ledger expects of it.
    known: Option<(StreamId, u64)>,
    acknowledged: Arc<Acknowledged>,
}

/// What the ledger answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Next {
    next_seq: u64,
}

impl LedgerSink {
    /// Reads the settings. Nothing is connected yet.
    pub(super) fn new(
        target: &SinkTarget,
        net: Arc<dyn SinkNet>,
        version: &str,
        acknowledged: Arc<Acknowledged>,
    ) -> Result<Self, SinkError> {
        let SinkTarget::Ledger {
            url,
            ca_bundle,
            token_file,
        } = target
        else {
            return Err(SinkError::Settings("not a ledger".to_owned()));
        };
        let endpoint = Endpoint::parse(url)?;
        if !endpoint.is_tls {
            let why = "the ledger's url must start with https://";
            return Err(SinkError::Settings(why.to_owned()));
        }
        let prefix = endpoint.target.path().trim_end_matches('/').to_owned();
        let tls = Arc::new(tls::trusting_only(ca_bundle)?);
        Ok(Self {
            client: HttpClient::new(endpoint, Some(tls), net, version)?,
            prefix,
            token_file: token_file.clone(),
            known: None,
            acknowledged,
        })
    }

    /// Sends the lines, of which the ledger may have some already; Ok is its acknowledgement of all. `oldest`: there are none before them any more, so that a ledger that lacks some is told to go on without.
    pub(super) async fn deliver(
        &mut self,
        lines: &[u8],
        records: u64,
        oldest: bool,
    ) -> Result<(), SinkError> {
        let first = lines.split(|b| *b == b'\n').next().unwrap_or_default();
        let head = Head::parse(first).map_err(SinkError::NotARecord)?;
        let was_known = self.known.as_ref().is_some_and(|(s, _)| *s == head.stream);
        match self.send(&head, lines, records, oldest).await {
            // It stands elsewhere than where it was: a ledger that was restored, or another one.
            Err(SinkError::Client(ClientError::Status { status: 409, .. })) if was_known => {
                self.send(&head, lines, records, oldest).await
            }
            result => result,
        }
    }

    async fn send(
        &mut self,
        head: &Head,
        lines: &[u8],
        records: u64,
        oldest: bool,
    ) -> Result<(), SinkError> {
        let next = match self.known.take() {
            Some((stream, next)) if stream == head.stream => next,
            _ => self.ask(&head.stream).await?,
        };
        let lacks = next < head.seq;
        if lacks && !oldest {
            return Err(SinkError::Behind {
                stream: head.stream.clone(),
                expected: next,
                from: head.seq,
            });
        }
        let after = head.seq.saturating_add(records);
        if lacks {
            let (stream, from) = (&head.stream, head.seq);
            tracing::warn!(%stream, from, next, "the ledger lacks records that nobody has any more; the stream goes on without them");
        }
        let from = lacks.then_some(head.seq);
        let next = self
            .post(
                &head.stream,
                unknown(lines, head.seq, next.min(after)),
                from,
            )
            .await?;
        if next < after {
            return Err(SinkError::Answer(format!(
                "it expects record {next} after it took {}",
                after.saturating_sub(1)
            )));
        }
        self.acknowledged.taken(&head.stream, next);
        self.known = Some((head.stream.clone(), next));
        Ok(())
    }

    async fn ask(&mut self, stream: &StreamId) -> Result<u64, SinkError> {
        let path = format!("{}/v1/streams/{stream}", self.prefix);
        let request = self.request(Method::GET, &path, Bytes::new())?;
        let answer = self.client.exchange(request).await?;
        read(answer)
    }

    async fn post(
        &mut self,
        stream: &StreamId,
        lines: &[u8],
        from: Option<u64>,
    ) -> Result<u64, SinkError> {
        let query = from.map_or(String::new(), |from| format!("?from={from}"));
        let path = format!("{}/v1/streams/{stream}/records{query}", self.prefix);
        let mut request = self.request(Method::POST, &path, Bytes::copy_from_slice(lines))?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        let answer = self.client.exchange(request).await?;
        read(answer)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, SinkError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| SinkError::Settings(format!("{path} is no path")))?;
        let token = bearer_header(&self.token()?)?;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        Ok(request)
    }

    /// The token as it is now: the kubelet replaces the file long before the token ends.
    fn token(&self) -> Result<String, SinkError> {
        let path = &self.token_file;
        let failed = |source| SinkError::Token {
            path: path.clone(),
            source,
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MAX_TOKEN_BYTES {
            let why = format!("the token {path} is longer than {MAX_TOKEN_BYTES} bytes");
            return Err(SinkError::Settings(why));
        }
        std::fs::read_to_string(path).map_err(failed)
    }
}

/// The lines from the one before number `next` on, of a batch that begins with number `seq`: that one is there already, and its comparison proves all before it.
fn unknown(lines: &[u8], seq: u64, next: u64) -> &[u8] {
    let skip = next.saturating_sub(1).saturating_sub(seq);
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let from = match skip.checked_sub(1) {
        None => 0,
        Some(last) => memchr::memchr_iter(b'\n', lines)
            .nth(last)
            .map_or(lines.len(), |at| at.saturating_add(1)),
    };
    lines.get(from..).unwrap_or_default()
}

fn read(answer: Answer) -> Result<u64, SinkError> {
    if !answer.status.is_success() {
        return Err(answer.into_error().into());
    }
    let body = answer.body.unwrap_or_default();
    let next: Result<Next, _> = serde_json::from_slice(&body);
    next.map(|next| next.next_seq)
        .map_err(|error| SinkError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::HostNet;

    #[test]
    fn of_what_the_ledger_has_only_the_last_record_is_sent_again() {
        let lines = b"5\n6\n7\n8\n";
        for (next, expected) in [
            (0, "5\n6\n7\n8\n"),
            (5, "5\n6\n7\n8\n"),
            (6, "5\n6\n7\n8\n"),
            (7, "6\n7\n8\n"),
            (9, "8\n"),
        ] {
            assert_eq!(unknown(lines, 5, next), expected.as_bytes(), "{next}");
        }
    }

    #[test]
    fn a_ledger_in_clear_text_or_without_roots_is_refused() {
        for (url, ca_bundle) in [
            ("http://ledger.example/", "x"),
            ("https://ledger.example/", ""),
        ] {
            let target = SinkTarget::Ledger {
                url: url.to_owned(),
                ca_bundle: ca_bundle.to_owned(),
                token_file: "/nowhere".to_owned(),
            };
            let error = LedgerSink::new(&target, Arc::new(HostNet), "0.1.0", Arc::default());
            assert_eq!(error.err().unwrap().reason(), "settings", "{url}");
        }
    }
}
