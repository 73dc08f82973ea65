//! The sidecar's side of the control stream against an operator that says what a test tells it to.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use chaperone_crds::control::{Ack, ControlMessage, MAX_MESSAGE_BYTES};
use chaperone_sidecar::{
    authority::Authority,
    control::{ControlError, OperatorClient},
    dns::{Hosts, Names, Resolver},
    egress::Egress,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n";

/// An operator that answers each call with the same parts, and tells what it was asked.
struct Operator {
    client: OperatorClient,
    token: PathBuf,
    asked: mpsc::UnboundedReceiver<String>,
}

impl Operator {
    async fn answering(parts: Vec<String>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (authority, root) = Authority::self_made("operator").unwrap();
        let acceptor = TlsAcceptor::from(authority.server_config("127.0.0.1").unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                tell.send(String::from_utf8(head).unwrap()).unwrap();
                for part in &parts {
                    let _ = stream.write_all(part.as_bytes()).await;
                    let _ = stream.flush().await;
                }
                if !parts.is_empty() {
                    let _ = stream.shutdown().await;
                }
                // Neither side's end: what a sidecar does then is its own affair.
                tokio::spawn(async move { while stream.read_u8().await.is_ok() {} });
            }
        });
        let names = Arc::new(Names::new(Hosts::parse(b"")));
        let resolver = Arc::new(Resolver::with_servers(Vec::new(), None, names));
        let egress = Arc::new(Egress::new(None, resolver, &[]));
        let token = std::env::temp_dir().join(format!("chaperone-token-{}", url.replace('/', "-")));
        std::fs::write(&token, "first\n").unwrap();
        let client = OperatorClient::new(&url, &root, token.clone(), egress).unwrap();
        Self {
            client,
            token,
            asked,
        }
    }

    /// Follows the stream to its end.
    async fn follow(&self) -> (Vec<ControlMessage>, ControlError) {
        let mut messages = Vec::new();
        let ended = self.client.follow(|message| messages.push(message)).await;
        (messages, ended.unwrap_err())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.token);
    }
}

#[tokio::test]
async fn messages_are_lines_however_they_are_cut() {
    let parts = [
        STREAM,
        "{\"type\":\"heart",
        "beat\"}\n{\"type\":\"heartbeat\"}\n{\"ty",
    ];
    let operator = Operator::answering(parts.map(str::to_owned).to_vec()).await;
    let (messages, ended) = operator.follow().await;
    assert_eq!(messages.len(), 2);
    assert!(matches!(ended, ControlError::Message(_)), "{ended}");
}

#[tokio::test]
async fn a_line_that_is_no_message_or_has_no_end_ends_the_stream() {
    for line in [
        "{\"type\":\"nonsense\"}\n".to_owned(),
        "x".repeat(MAX_MESSAGE_BYTES + 100_000),
    ] {
        let operator = Operator::answering(vec![STREAM.to_owned(), line]).await;
        let (messages, ended) = operator.follow().await;
        assert!(messages.is_empty());
        assert!(matches!(ended, ControlError::Message(_)), "{ended}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_is_read_at_each_call() {
    let answer = "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n";
    let mut operator = Operator::answering(vec![answer.to_owned()]).await;
    let ack = Ack {
        revision: chaperone_crds::snapshot::Snapshot::default().revision(),
        accepted: true,
        error: None,
    };
    for token in ["first", "second"] {
        std::fs::write(&operator.token, token).unwrap();
        let refused = operator.client.acknowledge(&ack).await.unwrap_err();
        assert!(matches!(refused, ControlError::Refused { .. }), "{refused}");
        let asked = operator.asked.recv().await.unwrap().to_ascii_lowercase();
        assert!(
            asked.contains(&format!("authorization: bearer {token}\r\n")),
            "{asked}"
        );
    }
    assert!(operator.asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_says_nothing_is_given_up() {
    let operator = Operator::answering(Vec::new()).await;
    let followed = tokio::time::timeout(Duration::from_secs(12), operator.follow());
    let (_, ended) = followed.await.unwrap();
    assert!(matches!(ended, ControlError::Silent(_)), "{ended}");
}
