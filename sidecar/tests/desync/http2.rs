//! The same of HTTP/2: header lists that a server which translates them to HTTP/1 would read in two ways, and lengths that lie.

use std::sync::Arc;

use bytes::BytesMut;
use chaperone_sidecar::{
    connection::begin,
    http2,
    link::Link,
    shared::Shared,
    wire::{Io, Wire},
};
use http::Response;
use serde::Deserialize;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::{
    HOST, PATIENCE, PIPE_BYTES, Setup,
    frames::{DATA, END_HEADERS, END_STREAM, Ending, HEADERS, ending, fields, frame, hello},
    page, port_of, records_of,
};

/// One case, as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: String,
    /// The header list; what it lacks of a sound one is added unless `bare`.
    fields: Vec<(String, String)>,
    #[serde(default)]
    bare: bool,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    trailers: Vec<(String, String)>,
    /// What has to reach the upstream; nothing where it is absent.
    #[serde(default)]
    pub(crate) upstream: String,
    /// What the agent hears.
    #[serde(default)]
    pub(crate) heard: String,
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/desync/http2.yaml");
        serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn list(&self) -> Vec<(String, String)> {
        let sound = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/first"),
            (":authority", HOST),
        ];
        let missing = sound
            .iter()
            .filter(|(name, _)| !self.bare && !self.fields.iter().any(|(n, _)| n == name))
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        missing.chain(self.fields.iter().cloned()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let last = |last: bool| if last { END_STREAM } else { 0 };
        let (body, trailers) = (self.body.as_deref(), !self.trailers.is_empty());
        let ends = last(body.is_none() && !trailers);
        let mut bytes = hello();
        bytes.extend(frame(HEADERS, END_HEADERS | ends, 1, &fields(&self.list())));
        if let Some(body) = body {
            bytes.extend(frame(DATA, last(!trailers), 1, body.as_bytes()));
        }
        if trailers {
            let block = fields(&self.trailers);
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        }
        bytes
    }
}

/// Takes requests, writes each down in one line, and answers 200.
async fn record(end: DuplexStream) -> Vec<String> {
    let mut asked = Vec::new();
    let Ok(mut connection) = h2::server::handshake(end).await else {
        return asked;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut from) = request.into_parts();
        let mut line = format!("{} {}", head.method, head.uri);
        for (name, value) in &head.headers {
            line += &format!(" {name}={}", String::from_utf8_lossy(value.as_bytes()));
        }
        let (mut body, mut trailers) = (Vec::new(), String::new());
        let reading = async {
            while let Some(data) = from.data().await {
                match data {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(_) => return false,
                }
            }
            match from.trailers().await {
                Ok(None) => true,
                Ok(Some(found)) => {
                    trailers = format!(" trailers {found:?}");
                    true
                }
                Err(_) => false,
            }
        };
        let whole = tokio::select! {
            whole = reading => whole,
            _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => false,
        };
        line += &format!(" {:?}", String::from_utf8_lossy(&body));
        line += &trailers;
        if whole {
            let body = respond.send_response(Response::new(()), true);
            drop(body);
        } else {
            line += " cut";
        }
        asked.push(line);
    }
    asked
}

async fn attack(shared: &Arc<Shared>, number: usize, case: &Case) -> (Vec<String>, Ending) {
    let destination = ([198, 51, 100, 7], port_of(number)).into();
    let link = Link {
        tried: Vec::new(),
        tunnel: None,
        sni: Some(HOST.to_owned()),
        certificate: None,
        ..begin(shared.clone(), destination).unwrap()
    };
    let (mut agent, side) = tokio::io::duplex(PIPE_BYTES);
    let (there, end) = tokio::io::duplex(PIPE_BYTES);
    let recorder = tokio::spawn(record(end));
    let served = tokio::spawn(async move {
        let there: Box<dyn Io> = Box::new(there);
        let upstream = Wire::new(there, BytesMut::new());
        http2::serve(
            &link,
            Wire::new(side, BytesMut::new()),
            Some(upstream),
            true,
        )
        .await;
    });
    agent.write_all(&case.bytes()).await.unwrap();
    let ending = tokio::time::timeout(PATIENCE, ending(&mut agent)).await;
    let ending = ending.unwrap_or_else(|_| panic!("{}: nothing comes of it", case.name));
    drop(agent);
    served.await.unwrap();
    (recorder.await.unwrap(), ending)
}

#[tokio::test]
async fn every_case_of_http2_has_one_meaning_or_none() {
    let (setup, _) = Setup::new("", "", "");
    let cases = Case::all();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (asked, ending) = attack(&setup.shared, number, case).await;
        let (asked, heard) = (asked.join("; "), format!("{ending:?}"));
        if asked != case.upstream || heard != case.heard {
            let asked = serde_json::to_string(&asked).unwrap();
            wrong.push(format!("{}\t{asked}\t{heard}", case.name));
        }
    }
    let records = setup.records().await;
    for (number, case) in cases.iter().enumerate() {
        let its = records_of(&records, number);
        if its.is_empty() {
            wrong.push(format!("{} is in no record", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "other than written:\n{}",
        wrong.join("\n")
    );
    page::is_fresh();
}
