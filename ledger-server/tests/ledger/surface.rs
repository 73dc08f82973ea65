//! The HTTP surface, as curl sees it.

use std::{fs, time::Duration};

use chaperone_ledger::{
    audit::{self, Trust},
    checkpoint::{self, Origin},
    key::VerifierKey,
    leaf::Leaf,
    merkle,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Lines, ORIGIN, World, fails, stream};

#[test]
fn records_are_taken_once_and_refusals_have_codes() {
    let world = World::new("surface");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let first = lines.take(3);
    let second = lines.take(2);
    let later = {
        lines.take(1);
        lines.take(1)
    };
    let post = |batch: &[u8]| ledger.post("pod-a", &id, batch);

    for query in ["from=", "from=x", "from=-1", "from=1&from=2", "form=1"] {
        let path = format!("/v1/streams/{id}/records?{query}");
        let kind = "Content-Type: application/x-ndjson";
        let (status, body) = ledger.curl(&path, "pod-a", &["-H", kind, "--data-binary", "x\n"]);
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains("malformed"), "{query}: {body}");
    }
    let (status, body) = post(&second);
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("hole")),
        "a stream begins with record 0"
    );
    let opened = Lines::new(id.clone()).take(1);
    let other = String::from_utf8(opened)
        .unwrap()
        .replace("stream.open", "dns");
    let (status, body) = post(other.as_bytes());
    assert_eq!((status, &body["code"]), (409, &json!("not-opened")));
    assert_eq!(post(&first), (200, json!({"nextSeq": 3, "added": 3})));
    assert_eq!(post(&first), (200, json!({"nextSeq": 3, "added": 0})));
    let both = [first.clone(), second.clone()].concat();
    assert_eq!(post(&both), (200, json!({"nextSeq": 5, "added": 2})));

    let (status, body) = post(&later);
    assert_eq!(
        (status, &body["code"], &body["expected"]),
        (409, &json!("hole"), &json!(5))
    );
    let changed = String::from_utf8(first.clone())
        .unwrap()
        .replace("dns", "gap");
    let (status, body) = post(changed.as_bytes());
    assert_eq!((status, &body["code"]), (409, &json!("differs")));
    let mut foreign = Lines::new(id.clone());
    foreign.take(5);
    let foreign = foreign.take(1);
    let (status, body) = post(&foreign);
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("broken")),
        "other times, other hashes"
    );
    let lone = Lines::new(id.clone()).take(1);
    let blank = [lone.trim_ascii_end(), b" \n"].concat();
    for bad in [&b"x\n"[..], b"", b"{}\n", &first[..first.len() - 1], &blank] {
        let (status, body) = post(bad);
        assert_eq!((status, &body["code"]), (400, &json!("malformed")));
    }
    let (status, body) = post(&vec![b'x'; 9 * 1024 * 1024]);
    assert_eq!((status, &body["code"]), (413, &json!("too-large")));

    let path = format!("/v1/streams/{id}");
    assert_eq!(
        ledger.curl(&path, "pod-a", &[]),
        (200, r#"{"nextSeq":5}"#.to_owned())
    );
    let unknown = format!("/v1/streams/{}", stream(9));
    assert_eq!(
        ledger.curl(&unknown, "pod-a", &[]),
        (200, r#"{"nextSeq":0}"#.to_owned())
    );
    for (path, token, arguments, status, code) in [
        (&*path, "forged", &[][..], 401, "unauthenticated"),
        (&*path, "reader", &[], 401, "unauthenticated"),
        (&*path, "pod-gone", &[], 403, "forbidden"),
        ("/v1/streams/x", "pod-a", &[], 400, "malformed"),
        ("/v1/elsewhere", "pod-a", &[], 404, "not-found"),
        (
            &*format!("{path}/records"),
            "pod-a",
            &["-d", "x"],
            415,
            "media-type",
        ),
    ] {
        let (found, body) = ledger.curl(path, token, arguments);
        assert_eq!(found, status, "{path} {body}");
        assert!(
            body.contains(&format!(r#""code":"{code}""#)),
            "{path} {body}"
        );
    }
    assert_eq!(ledger.curl(&path, "", &[]).0, 401);
}

#[test]
fn a_close_that_counts_wrong_is_refused_and_the_stream_can_still_end() {
    let world = World::new("close");
    let ledger = world.start();
    let id = stream(1);
    let closed = |records: Option<u64>| {
        let mut lines = Lines::new(id.clone());
        let mut batch = lines.take(3);
        let close = records.map(|records| json!({"records": records, "reason": "terminated"}));
        let agent = json!({"namespace": "team", "pod": "a"});
        let event = json!({"kind": "stream.close", "agent": agent, "close": close});
        lines.event(event, &mut batch);
        batch
    };
    for (records, said) in [
        (Some(3), 3),
        (Some(5), 5),
        (Some(u64::MAX), u64::MAX),
        (None, 0),
    ] {
        let (status, body) = ledger.post("pod-a", &id, &closed(records));
        assert_eq!((status, &body["code"]), (400, &json!("malformed")));
        let why = format!("counts {said} records, where 4 were expected");
        assert!(body.to_string().contains(&why), "{body}");
    }
    let path = format!("/v1/streams/{id}");
    let next = ledger.curl(&path, "pod-a", &[]);
    assert_eq!(next, (200, r#"{"nextSeq":0}"#.to_owned()));
    let taken = ledger.post("pod-a", &id, &closed(Some(4)));
    assert_eq!(taken, (200, json!({"nextSeq": 4, "added": 4})));
    ledger.stop();
    let trust = Trust {
        keys: vec![world.vkey.parse().unwrap()],
        kept: Vec::new(),
    };
    let verdict = audit::verify(&world.data, &trust).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
}

#[test]
fn the_log_is_served_as_tiles_to_who_may_read_it_and_nothing_else_is() {
    let world = World::new("log");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(300)).0, 200);
    // Two of the ledger's own: its open, and whose the stream is.
    let size = 302;
    let origin: Origin = ORIGIN.parse().unwrap();
    let keys = [world.vkey.parse::<VerifierKey>().unwrap()];
    let signed = loop {
        let (status, note) = ledger.curl("/checkpoint", "reader", &[]);
        assert_eq!(status, 200);
        let signed = checkpoint::open(note.as_bytes(), &origin, &keys)
            .unwrap()
            .checkpoint;
        if signed.size == size {
            break signed;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let (_, head) = ledger.curl("/checkpoint", "reader", &["-D", "-", "-o", "/dev/null"]);
    assert!(
        head.contains("content-type: text/plain; charset=utf-8"),
        "{head}"
    );
    assert!(head.contains("cache-control: no-cache"), "{head}");
    let (_, head) = ledger.curl("/tile/0/000", "reader", &["-D", "-", "-o", "/dev/null"]);
    assert!(
        head.contains("content-type: application/octet-stream"),
        "{head}"
    );
    assert!(
        head.contains("immutable") && head.contains("private"),
        "{head}"
    );
    assert!(head.contains("content-length: 8192"), "{head}");

    let full = ledger.curl("/tile/entries/000", "reader", &[]);
    let partial = ledger.curl("/tile/entries/001.p/46", "reader", &[]);
    assert_eq!((full.0, partial.0), (200, 200));
    let entries = [entries(full.1.as_bytes()), entries(partial.1.as_bytes())].concat();
    let mut tree = merkle::Range::default();
    for entry in &entries {
        assert!(tree.push(entry.parse::<Leaf>().unwrap().hash()));
    }
    assert_eq!(tree.root(), signed.root);

    for path in [
        "/tile/entries/001.p/47",
        "/tile/0/009",
        "/tile/0/0",
        "/tile/0/000/",
        "/tile/../records/00000000.jsonl",
        "/records/00000000.jsonl",
        "/tile/..%2frecords%2f00000000.jsonl",
        "/tile/entries/..%2f..%2f..%2fledger.json",
        "/ledger.json",
        "/lock",
        "/tile/0/000.tmp",
        "/tile//0/000",
    ] {
        let (status, body) = ledger.curl(path, "reader", &[]);
        assert_eq!(status, 404, "{path} {body}");
    }
    for (token, status) in [("stranger", 403), ("pod-a", 403), ("forged", 401)] {
        for path in ["/checkpoint", "/tile/0/000"] {
            assert_eq!(ledger.curl(path, token, &[]).0, status, "{token} {path}");
        }
    }
}

/// Entries of a bundle: each with its length before it.
fn entries(mut bundle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        found.push(String::from_utf8(entry.to_vec()).unwrap());
        bundle = rest;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_stops_in_the_middle_leaves_nothing_and_holds_nobody_up() {
    let world = World::new("middle");
    let ledger = world.start();
    let id = stream(1);
    let batch = Lines::new(id.clone()).take(20);
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(ledger.ca()).unwrap();
    let ca =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            &pem,
        );
    roots.add(ca.unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let head = format!(
        "POST /v1/streams/{id}/records HTTP/1.1\r\nhost: x\r\nauthorization: Bearer pod-a\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        batch.len()
    );
    let mut held = Vec::new();
    for number in 0..40 {
        let tcp = tokio::net::TcpStream::connect(ledger.api).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut tls = connector.connect(name, tcp).await.unwrap();
        tls.write_all(head.as_bytes()).await.unwrap();
        // Cut at a line's end too: what came so far would be whole lines.
        let cut = match number % 2 {
            0 => batch.len() / 2,
            _ => batch.iter().position(|b| *b == b'\n').unwrap() + 1,
        };
        tls.write_all(&batch[..cut]).await.unwrap();
        match number % 4 {
            // Half of them end, half stay silent.
            0 | 1 => drop(tls),
            _ => held.push(tls),
        }
    }
    let mut client = ledger.client("pod-a").await;
    assert_eq!(client.next(&id).await.unwrap(), 0);
    let (status, body) = client.post(&id, batch.clone()).await.unwrap();
    assert_eq!((status, body), (200, json!({"nextSeq": 20, "added": 20})));
    // What one of the silent ones ends now is a copy.
    let mut late = held.pop().unwrap();
    let first = batch.iter().position(|b| *b == b'\n').unwrap() + 1;
    late.write_all(&batch[first..]).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = late.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.contains(r#"{"nextSeq":20,"added":0}"#), "{answer}");
}

#[test]
fn what_is_missing_at_the_start_is_said_with_what_to_do() {
    let world = World::new("start");
    fs::remove_file(world.folder.join("skey")).unwrap();
    let text = fails(world.command());
    assert!(
        text.contains("chaperone-ledger generate-key --out"),
        "{text}"
    );
    let world = World::new("start");
    let ledger = world.start();
    let text = fails(world.command());
    assert!(
        text.contains("another process has the ledger open"),
        "{text}"
    );
    let mut again = std::process::Command::new(env!("CARGO_BIN_EXE_chaperone-ledger"));
    again.args(["generate-key", "--origin", ORIGIN, "--out"]);
    again.arg(world.folder.join("skey"));
    assert!(
        fails(again).contains("exists"),
        "a key is never overwritten"
    );
    ledger.stop();
}
