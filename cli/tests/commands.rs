//! The binary as scripts see it: exit codes, standard output and standard error.

#![allow(clippy::unwrap_used)]

#[path = "commands/player.rs"]
mod player;
#[path = "commands/published.rs"]
mod published;
#[path = "commands/replay.rs"]
mod replay;
#[path = "commands/search.rs"]
mod search;
#[path = "commands/sink.rs"]
mod sink;
#[path = "commands/verify.rs"]
mod verify;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use chaperone_crds::{
    bodies::Salt,
    chain::{Chain, StreamId},
    record::{AgentRef, Event, EventKind},
};
use chaperone_ledger::{
    cosignature::Time,
    key::{Algorithm, SigningKey},
    store::{Config, Store},
};

/// A whole stream: open, two connections, close.
fn log() -> Vec<u8> {
    let agent = AgentRef {
        namespace: "agents".to_owned(),
        pod: "claude".to_owned(),
        service_account: String::new(),
    };
    let mut chain = Chain::new(StreamId::from_random([7; 16]));
    let mut log = Vec::new();
    let mut close = Event::new(EventKind::StreamClose, agent.clone());
    close.close = serde_json::from_str(r#"{"records":4,"reason":"terminated"}"#).unwrap();
    for event in [
        Event::new(EventKind::StreamOpen, agent.clone()),
        Event::new(EventKind::Connection, agent.clone()),
        Event::new(EventKind::Connection, agent),
        close,
    ] {
        chain.append(
            &event,
            "2026-11-24T10:11:12.345678Z".parse().unwrap(),
            || Some(Salt::from_random([7; 16])),
            &mut log,
        );
    }
    log
}

fn chaperone(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chaperone"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A program that ends before it has read everything is no failure of the test.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A ledger with one stream and two checkpoints, and its public key.
fn ledger(folder: &std::path::Path) -> String {
    ledger_of(folder, &StreamId::from_random([7; 16]), &log())
}

/// A ledger that has this stream, taken in twos with a checkpoint after each, and its public key.
fn ledger_of(folder: &std::path::Path, stream: &StreamId, whole: &[u8]) -> String {
    let origin = "ledger.example/prod";
    let key = SigningKey::generate(origin.parse().unwrap(), Algorithm::Ed25519).unwrap();
    let mut store = Store::open(Config {
        dir: folder.join("ledger"),
        origin: origin.parse().unwrap(),
        keys: vec![key.verifier().clone()],
        segment_bytes: 4096,
        checkpoint_seconds: 60,
    })
    .unwrap();
    let lines: Vec<_> = whole.split_inclusive(|b| *b == b'\n').collect();
    for (half, name) in lines.chunks(2).zip(["first", "second", "third"]) {
        let _ = store.stage(stream, &half.concat()).unwrap();
        let note = store.checkpoint(&[&key], Time::new(1).unwrap()).unwrap();
        std::fs::write(folder.join(name), note).unwrap();
    }
    key.verifier().to_string()
}

/// Answers each request with the next of these, and gives back the requests' heads.
fn https(
    answers: &[&str],
    folder: &std::path::Path,
) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.crt"), made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let served = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut session = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
        let mut tls = rustls::Stream::new(&mut session, &mut tcp);
        let mut heads = Vec::new();
        for answer in answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                std::io::Read::read_exact(&mut tls, &mut byte).unwrap();
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).unwrap());
            tls.write_all(answer.as_bytes()).unwrap();
        }
        heads
    });
    (port, served)
}

#[test]
fn what_cannot_be_read_or_understood_answers_2() {
    for arguments in [
        &["verify", "/nowhere/audit.jsonl"][..],
        &["verify", "/"],
        &["verify"],
        &["observe", "--file", "/nowhere/audit.jsonl"],
        &["policy", "check", "/nowhere/policy.yaml"],
        &["observe", "--since", "yesterday"],
        &["frobnicate"],
    ] {
        let output = chaperone(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("error: "), "{arguments:?}");
    }
}

#[test]
fn observe_shows_a_log_from_standard_input() {
    let mut mixed = b"starting\n".to_vec();
    mixed.extend(log());
    let output = chaperone(&["observe", "--file", "-", "--kind", "stream"], &mixed);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    // Not a terminal: no colours.
    assert!(
        lines
            .iter()
            .all(|l| l.starts_with("10:11:12.345 agents/claude "))
    );
    assert!(text(&output.stderr).contains("skipped 1 lines"));
}

#[test]
fn observed_json_can_be_verified() {
    let output = chaperone(&["observe", "--file", "-", "-o", "json"], &log());
    assert_eq!(output.stdout, log());
}

#[test]
fn policy_check_answers_as_the_webhook_would() {
    let policy = |when: &str| {
        format!(
            "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\n\
             spec: {{rules: [{{name: r, when: '{when}', action: Deny}}]}}\n"
        )
    };
    let good = chaperone(
        &["policy", "check", "-"],
        policy("http.method == \"DELETE\"").as_bytes(),
    );
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    let bad = chaperone(
        &["policy", "check", "-o", "json", "-"],
        policy("http.metod == \"DELETE\"").as_bytes(),
    );
    assert_eq!(bad.status.code(), Some(1));
    let verdict: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(verdict["accepted"], false);
    assert_eq!(verdict["files"][0]["errors"][0]["rule"], "r");
    assert_eq!(verdict["files"][0]["errors"][0]["line"], 1);
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = chaperone(&["completions", shell], b"");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("observe"), "{shell}");
    }
}

#[test]
fn version_is_the_packages() {
    let output = chaperone(&["--version"], b"");
    assert_eq!(
        text(&output.stdout),
        format!("chaperone {}\n", env!("CARGO_PKG_VERSION"))
    );
}
