//! A front with TLS and a password before a server that has neither: it passes requests on as they are, and can lose the answers.

use std::{
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::World;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a front does.
#[derive(Default)]
pub(super) struct Front {
    /// Requests reach the server, and its answers nobody.
    pub(super) loses: AtomicBool,
    /// The server knows no gzip: bodies are passed on as they were before it.
    pub(super) unzips: AtomicBool,
    /// Requests passed on.
    pub(super) passed: AtomicUsize,
    authorization: String,
    server: u16,
}

impl Front {
    /// A front before a server on loopback, for as long as the test's process. Without this value of `Authorization` it answers 401.
    pub(super) fn start(world: &World, server: u16, authorization: &str) -> (Arc<Self>, u16) {
        Self::start_at([127, 0, 0, 1], world, server, authorization)
    }

    /// The same at another address.
    pub(super) fn start_at(
        address: [u8; 4],
        world: &World,
        server: u16,
        authorization: &str,
    ) -> (Arc<Self>, u16) {
        let front = Arc::new(Self {
            authorization: authorization.to_owned(),
            server,
            ..Self::default()
        });
        let tls = TlsAcceptor::from(Arc::new(tls(world)));
        let (sender, port) = mpsc::channel();
        let state = front.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(state, tls, address, sender))
        });
        (front, port.recv().unwrap())
    }

    async fn pass(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let is_known = request
            .headers()
            .get("authorization")
            .is_some_and(|value| *value == *self.authorization);
        if !is_known {
            let mut refusal = Response::new(Full::from("who is that?"));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            return Ok(refusal);
        }
        let (mut head, body) = request.into_parts();
        head.headers.remove("authorization");
        let mut body = body.collect().await?.to_bytes();
        if self.unzips.load(Ordering::Relaxed) && head.headers.remove("content-encoding").is_some()
        {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
            head.headers.insert("content-length", plain.len().into());
            body = plain.into();
        }
        let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.server))).await?;
        let (mut requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(server)).await?;
        let driver = tokio::spawn(connection);
        let response = requests
            .send_request(Request::from_parts(head, Full::new(body)))
            .await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        self.passed.fetch_add(1, Ordering::Relaxed);
        match self.loses.load(Ordering::Relaxed) {
            true => Err("lost".into()),
            false => Ok(Response::from_parts(head, Full::new(body))),
        }
    }
}

async fn serve(
    front: Arc<Front>,
    tls: TlsAcceptor,
    address: [u8; 4],
    port: mpsc::Sender<u16>,
) -> Infallible {
    let listener = TcpListener::bind(SocketAddr::from((address, 0)))
        .await
        .unwrap();
    port.send(listener.local_addr().unwrap().port()).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (front, tls) = (front.clone(), tls.clone());
        tokio::spawn(async move {
            // Who does not trust the certificate ends here.
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request| front.clone().pass(request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A lost answer ends the connection.
            let _ = served.await;
        });
    }
}

fn tls(world: &World) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(world.folder.join("tls.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.folder.join("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}
