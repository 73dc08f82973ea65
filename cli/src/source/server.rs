//! A ledger, asked over HTTPS.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaperone_index::{query::encoded, store::SessionKind};
use chaperone_ledger::gaps::Answer;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Method, Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{runtime::Runtime, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    Named, Page, Words,
    reach::{LedgerArgs, Reached},
};
use crate::{hold::Holds, output::clean, sink::Outcome};

/// How long connecting, and an answer, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer, in bytes: the ledger's have 4 MiB and a record.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How often a ledger that is busy is asked again, and after how long.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);
/// A token that is refused younger than this is not asked for anew.
const TOKEN_REST: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    runtime: Runtime,
    requests: SendRequest<Full<Bytes>>,
    ledger: Reached,
    args: LedgerArgs,
    /// When the token was read.
    token_read: Instant,
}

/// A refusal that will be the same when the question is asked again.
#[derive(Debug, Error)]
#[error("the ledger answers {status}: {said}{hint}")]
pub(crate) struct Answered {
    status: u16,
    said: String,
    hint: &'static str,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Server {
    pub(crate) fn connect(args: &LedgerArgs) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let ledger = runtime.block_on(args.reach())?;
        Ok(Self {
            requests: runtime.block_on(connect(&ledger))?,
            runtime,
            ledger,
            args: args.clone(),
            token_read: Instant::now(),
        })
    }

    pub(crate) fn records(&mut self, words: &Words) -> anyhow::Result<Page> {
        self.ask("/v1/records", words)
    }

    pub(crate) fn session(&mut self, session: &Named, words: &Words) -> anyhow::Result<Page> {
        let mut words = words.clone();
        words.extend(session.namespace.clone().map(|name| ("namespace", name)));
        words.extend(
            session
                .kind
                .map(|kind| ("kind", kind_word(kind).to_owned())),
        );
        let path = format!("/v1/sessions/{}/records", encoded(&session.id));
        self.ask(&path, &words)
    }

    /// A record by stream and number, with its leaf. None: the ledger has no such record, or not yet.
    pub(crate) fn record(
        &mut self,
        stream: &str,
        seq: u64,
        namespace: Option<&str>,
    ) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
        let words = namespace.map(|name| format!("?namespace={}", encoded(name)));
        let words = words.unwrap_or_default();
        let answer = self.patiently(&format!("/v1/records/{}/{seq}{words}", encoded(stream)))?;
        match answer {
            (200, _, body) => Ok(Some(item(&body).context("what answers is no ledger")?)),
            (404, _, _) => Ok(None),
            (other, _, body) => bail!("the ledger answers {other}: {}", said(&body)),
        }
    }

    /// Whether the ledger says of a record that it was there, and was deleted.
    pub(crate) fn is_deleted(
        &mut self,
        stream: &str,
        seq: u64,
        namespace: Option<&str>,
    ) -> anyhow::Result<bool> {
        let words = namespace.map(|name| format!("?namespace={}", encoded(name)));
        let words = words.unwrap_or_default();
        match self.patiently(&format!("/v1/records/{}/{seq}{words}", encoded(stream)))? {
            (410, _, _) => Ok(true),
            (200 | 404, _, _) => Ok(false),
            (other, _, body) => bail!("the ledger answers {other}: {}", said(&body)),
        }
    }

    /// A file of the published log, of so many bytes at most. None where there is none.
    pub(crate) fn file(&mut self, path: &str, limit: usize) -> anyhow::Result<Option<Vec<u8>>> {
        match self.patiently(&format!("/{path}"))? {
            (200, _, body) if body.len() <= limit => Ok(Some(body.to_vec())),
            (200, _, _) => bail!("{path} is too long to be one"),
            (404, _, _) => Ok(None),
            (status @ (401 | 403), _, body) => bail!(
                "the ledger answers {status}: {} (who reads the log needs `get` on /checkpoint and /tile/*: ClusterRole chaperone-log-reader)",
                said(&body)
            ),
            (other, _, body) => bail!("the ledger answers {other}: {}", said(&body)),
        }
    }

    /// Pods whose evidence is missing.
    pub(crate) fn gaps(&mut self, words: &Words) -> anyhow::Result<Answer> {
        let (_, body) = self.ask_for("/v1/gaps", words)?;
        serde_json::from_slice(&body).context("what answers is no ledger of this version")
    }

    /// What became of a marked record to a sink. Asked once: each answer has its own record.
    pub(crate) fn test_sink(&mut self, name: &str) -> anyhow::Result<Outcome> {
        let path = format!("/v1/sinks/{}/test", encoded(name));
        match self.exchange(Method::POST, &path, Bytes::new())? {
            (200, _, body) => {
                serde_json::from_slice(&body).context("what answers is no ledger of this version")
            }
            (other, _, body) => bail!("the ledger answers {other}: {}", said(&body)),
        }
    }

    /// The legal holds.
    pub(crate) fn holds(&mut self, namespace: Option<&str>) -> anyhow::Result<Holds> {
        let words = namespace.map(|name| ("namespace", name.to_owned()));
        let (_, body) = self.ask_for("/v1/holds", &words.into_iter().collect())?;
        serde_json::from_slice(&body).context("what answers is no ledger of this version")
    }

    /// Has the ledger do something. Asked once: each time is on record.
    pub(crate) fn say<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        what: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(what)?;
        match self.exchange(method, path, body.into())? {
            (200 | 201, _, body) => {
                serde_json::from_slice(&body).context("what answers is no ledger of this version")
            }
            (other, _, body) => bail!("the ledger answers {other}: {}", said(&body)),
        }
    }

    fn ask(&mut self, path: &str, words: &Words) -> anyhow::Result<Page> {
        let (head, body) = self.ask_for(path, words)?;
        read(&head, &body)
    }

    fn ask_for(&mut self, path: &str, words: &Words) -> anyhow::Result<(HeaderMap, Bytes)> {
        let pairs = words
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let path = format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"));
        match self.patiently(&path)? {
            (200, head, body) => Ok((head, body)),
            (503, _, body) => bail!("the ledger is busy: {}", said(&body)),
            (status, _, body) => Err(Answered {
                status,
                said: said(&body),
                hint: match status {
                    401 => " (say who asks with --token-file or --as)",
                    _ => "",
                },
            }
            .into()),
        }
    }

    /// An answer; of one that is busy, or makes its index, once it is not or has been asked often enough.
    fn patiently(&mut self, path: &str) -> anyhow::Result<(u16, HeaderMap, Bytes)> {
        for _ in 0..TRIES {
            let answer = self.get(path)?;
            if answer.0 != 503 {
                return Ok(answer);
            }
            std::thread::sleep(PAUSE);
        }
        self.get(path)
    }

    /// An answer, with another token where the one before is over.
    fn get(&mut self, path: &str) -> anyhow::Result<(u16, HeaderMap, Bytes)> {
        let answer = self.get_once(path)?;
        let may_be_over = answer.0 == 401 && self.token_read.elapsed() > TOKEN_REST;
        if may_be_over && let Ok(token) = self.runtime.block_on(self.args.token()) {
            self.ledger.token = token;
            self.token_read = Instant::now();
            return self.get_once(path);
        }
        Ok(answer)
    }

    /// An answer, over another connection where the one before has ended.
    fn get_once(&mut self, path: &str) -> anyhow::Result<(u16, HeaderMap, Bytes)> {
        if self.requests.is_closed() {
            self.requests = self.runtime.block_on(connect(&self.ledger))?;
        }
        match self.exchange(Method::GET, path, Bytes::new()) {
            // Every question may be asked again.
            Err(error) if is_hung_up(&error) => {
                self.requests = self.runtime.block_on(connect(&self.ledger))?;
                self.exchange(Method::GET, path, Bytes::new())
            }
            answer => answer,
        }
    }

    fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(u16, HeaderMap, Bytes)> {
        let uri = format!("{}{path}", self.ledger.prefix);
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", &self.ledger.authority)
            .header("accept", "application/x-ndjson")
            .header(
                "user-agent",
                concat!("chaperone/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(token) = &self.ledger.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body))?;
        let requests = &mut self.requests;
        let exchange = async {
            requests.ready().await?;
            let response = requests.send_request(request).await?;
            let status = response.status().as_u16();
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect();
            let body = body.await.map_err(anyhow::Error::from_boxed)?;
            anyhow::Ok((status, head.headers, body.to_bytes()))
        };
        let exchange = async { timeout(ANSWER_TIMEOUT, exchange).await };
        self.runtime
            .block_on(exchange)
            .context("no answer in time")?
            .context("the ledger did not answer")
    }
}

/// As the ledger's API has it.
fn kind_word(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::Agent => "agent",
        SessionKind::Stream => "stream",
    }
}

/// A line for each record; how far the answer looks stands in its head.
fn read(head: &HeaderMap, body: &[u8]) -> anyhow::Result<Page> {
    let field = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| field(name).and_then(|text| text.parse().ok());
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let records: Option<Vec<_>> = lines.map(item).collect();
    let page = || {
        Some(Page {
            records: records?,
            indexed: number("chaperone-indexed")?,
            committed: number("chaperone-committed")?,
            cursor: field("chaperone-cursor").map(str::to_owned),
        })
    };
    page().context("what answers is no ledger")
}

/// Leaf and record of `{"leaf":N,"record":…}`, the record byte for byte.
fn item(line: &[u8]) -> Option<(u64, Vec<u8>)> {
    let line = std::str::from_utf8(line).ok()?;
    let (leaf, record) = line
        .strip_prefix(r#"{"leaf":"#)?
        .split_once(r#","record":"#)?;
    let record = record.strip_suffix('}')?;
    Some((leaf.parse().ok()?, record.as_bytes().to_vec()))
}

/// What a refusal says, or how an answer of somebody else begins.
fn said(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body).chars().take(200).collect(),
    };
    clean(&text).into_owned()
}

async fn connect(ledger: &Reached) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    timeout(CONNECT_TIMEOUT, dial(ledger))
        .await
        .context("no connection in time")?
        .with_context(|| format!("cannot reach {}", ledger.authority))
}

async fn dial(ledger: &Reached) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let name = ServerName::try_from(ledger.name.clone())?;
    let stream = ledger.dial().await?;
    let connector = TlsConnector::from(Arc::clone(&ledger.config));
    let tls = connector.connect(name, stream).await?;
    let (requests, connection) = handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(requests)
}

/// Whether the connection ended before the answer began.
fn is_hung_up(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<hyper::Error>();
    error.is_some_and(|error| {
        error.is_canceled() || error.is_closed() || error.is_incomplete_message()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_the_bytes_of_its_records() {
        let mut head = HeaderMap::new();
        let body = b"{\"leaf\":3,\"record\":{\"b\":1, \"a\":\"\\u00e9\"}}\n";
        assert!(read(&head, body).is_err(), "somebody else's answer");
        for (name, value) in [
            ("chaperone-indexed", "9"),
            ("chaperone-committed", "10"),
            ("chaperone-cursor", "1.2.9"),
        ] {
            head.insert(name, value.parse().unwrap());
        }
        let page = read(&head, body).unwrap();
        assert_eq!((page.indexed, page.committed), (9, 10));
        assert_eq!(page.cursor.as_deref(), Some("1.2.9"));
        let record = br#"{"b":1, "a":"\u00e9"}"#.to_vec();
        assert_eq!(page.records, [(3, record)]);
        for other in [
            "<html>",
            r#"{"leaf":x,"record":{}}"#,
            r#"{"leaf":1}"#,
            "\u{0}",
        ] {
            assert!(read(&head, other.as_bytes()).is_err(), "{other}");
        }
        assert_eq!(
            said(br#"{"code":"x","message":"no\u001b[2J"}"#),
            "no\\u{1b}[2J"
        );
        assert_eq!(said(b"<html>"), "<html>");
    }
}
