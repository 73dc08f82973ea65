//! A ledger, asked over HTTPS.

use std::{fs, io, io::Read as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use chaperone_index::store::SessionKind;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    HeaderMap, Request, Uri,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tokio_rustls::TlsConnector;

use super::{Named, Page, Words};
use crate::output::clean;

/// How long connecting, and an answer, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer, in bytes: the ledger's have 4 MiB and a record.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;
/// How often a ledger that is busy is asked again, and after how long.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Server {
    runtime: Runtime,
    requests: SendRequest<Empty<Bytes>>,
    authority: String,
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Server {
    pub(crate) fn connect(
        url: &str,
        ca: Option<&Path>,
        token: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let url: Uri = url.parse().context("--ledger is no URL")?;
        ensure!(
            url.scheme_str() == Some("https"),
            "--ledger begins with https://"
        );
        let host = url.host().context("--ledger names no host")?;
        let authority = url.authority().map_or(host, |authority| authority.as_str());
        let (authority, host) = (
            authority.to_owned(),
            host.trim_matches(['[', ']']).to_owned(),
        );
        let port = url.port_u16().unwrap_or(443);
        let token = read_token(token)?;
        let config = config(ca)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let connecting = async { timeout(CONNECT_TIMEOUT, connect(&host, port, config)).await };
        let requests = runtime
            .block_on(connecting)
            .context("no connection in time")?
            .with_context(|| format!("cannot reach {authority}"))?;
        Ok(Self {
            runtime,
            requests,
            authority,
            token,
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

    fn ask(&mut self, path: &str, words: &Words) -> anyhow::Result<Page> {
        let pairs = words
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let path = format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"));
        for _ in 0..TRIES {
            let (status, head, body) = self.get(&path)?;
            match status {
                200 => return read(&head, &body),
                // Busy, or the index is being made.
                503 => std::thread::sleep(PAUSE),
                other => bail!("the ledger answers {other}: {}", said(&body)),
            }
        }
        let (_, _, body) = self.get(&path)?;
        bail!("the ledger is busy: {}", said(&body))
    }

    fn get(&mut self, path: &str) -> anyhow::Result<(u16, HeaderMap, Bytes)> {
        let request = Request::get(path)
            .header("host", &self.authority)
            .header("accept", "application/x-ndjson")
            .header(
                "user-agent",
                concat!("chaperone/", env!("CARGO_PKG_VERSION")),
            )
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())?;
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

async fn connect(
    host: &str,
    port: u16,
    config: ClientConfig,
) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let name = ServerName::try_from(host.to_owned())?;
    let tcp = TcpStream::connect((host, port)).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name, tcp).await?;
    let (requests, connection) = handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(requests)
}

fn config(ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let what = || format!("{} has no certificates", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(what)? {
                roots.add(certificate.with_context(what)?)?;
            }
            ensure!(!roots.is_empty(), what());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn read_token(file: Option<&Path>) -> anyhow::Result<String> {
    let file = file.context("--token-file is missing")?;
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin()
            .lock()
            .take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text),
        false => fs::File::open(file)
            .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    let token = text.trim();
    ensure!(!token.is_empty(), "{} has no token", file.display());
    Ok(token.to_owned())
}

/// A value as a URL's query has it: all but unreserved characters (RFC 3986, section 2.3) as bytes.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                use std::fmt::Write as _;
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use chaperone_index::query::parameters;

    use super::*;

    #[test]
    fn any_value_comes_back_as_it_was_sent() {
        for value in [
            "\"pull request\" a*",
            "a&b=c+d%20#?/",
            "grün → 日本",
            "\u{0}\n",
        ] {
            let pairs = parameters(&format!("q={}", encoded(value))).unwrap();
            assert_eq!(pairs, [("q".to_owned(), value.to_owned())]);
        }
    }

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
