//! A small HTTP endpoint that keeps what it acknowledges.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the collector answers.
#[derive(Clone, Debug)]
pub(in crate::audit) enum Reply {
    /// 200.
    Accept,
    /// The lines are kept, but the sender never learns it.
    AcceptAndHangUp,
    /// This status, with these headers.
    Refuse(u16, Vec<(&'static str, String)>),
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<u8>,
    /// Lines of each accepted request.
    batches: Vec<usize>,
    authorization: Vec<Option<String>>,
    requests: usize,
    media_types: Vec<String>,
}

/// The endpoint. It ends with the runtime that it was started on.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Collector {
    pub(in crate::audit) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    /// `reply` chooses the answer to each request: it gets the request's number, from 0, and its number of lines.
    pub(in crate::audit) async fn start(
        tls: Option<TlsAcceptor>,
        reply: impl Fn(usize, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            kept: Arc::default(),
        };
        let serving = collector.clone();
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (serving, reply, tls) = (serving.clone(), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| serving.answer(request, &*reply));
                    match tls {
                        None => {
                            let _ = http1::Builder::new()
                                .serve_connection(TokioIo::new(tcp), service)
                                .await;
                        }
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                let _ = http1::Builder::new()
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await;
                            }
                        }
                    }
                });
            }
        });
        collector
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        reply: &(impl Fn(usize, usize) -> Reply + ?Sized),
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let media_type = request.headers()["content-type"].to_str().unwrap();
        let media_type = media_type.to_owned();
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map(|v| v.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await;
        let body = body.map_err(std::io::Error::other)?.to_bytes();
        let mut lines = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut lines).unwrap();
        assert!(media_type != "application/x-ndjson" || lines.ends_with(b"\n"));
        let count = lines.iter().filter(|b| **b == b'\n').count();
        let mut kept = self.kept.lock().unwrap();
        let answer = reply(kept.requests, count);
        kept.requests += 1;
        kept.media_types.push(media_type);
        kept.authorization.push(authorization);
        let accepted = !matches!(answer, Reply::Refuse(..));
        if accepted {
            kept.lines.extend_from_slice(&lines);
            kept.batches.push(count);
        }
        match answer {
            Reply::Accept => Ok(Response::new(Full::default())),
            Reply::AcceptAndHangUp => Err(std::io::Error::other("hanging up")),
            Reply::Refuse(status, headers) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(Full::from("not now")).unwrap())
            }
        }
    }

    pub(in crate::audit) fn lines(&self) -> Vec<u8> {
        self.kept.lock().unwrap().lines.clone()
    }

    pub(in crate::audit) fn batches(&self) -> Vec<usize> {
        self.kept.lock().unwrap().batches.clone()
    }

    pub(in crate::audit) fn requests(&self) -> usize {
        self.kept.lock().unwrap().requests
    }

    /// `Content-Type` of each request.
    pub(in crate::audit) fn media_types(&self) -> Vec<String> {
        self.kept.lock().unwrap().media_types.clone()
    }

    pub(in crate::audit) fn authorization(&self) -> Vec<Option<String>> {
        self.kept.lock().unwrap().authorization.clone()
    }
}
