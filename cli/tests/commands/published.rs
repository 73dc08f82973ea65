//! `chaperone verify --ledger` of a log's files behind a web server that knows nothing of logs.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Child,
};

use super::*;

/// Serves a folder over HTTPS and says on which port.
const SERVER: &str = r#"
import functools, http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=sys.argv[1]))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Published {
    server: Child,
    url: String,
    ca: String,
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Published {
    fn of(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (ca, key) = (folder.join("ca.crt"), folder.join("tls.key"));
        std::fs::write(&ca, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut server = Command::new("python3")
            .args(["-c", SERVER])
            .args([folder, &ca, &key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        said.read_line(&mut port).unwrap();
        Self {
            server,
            url: format!("https://localhost:{}/ledger/", port.trim()),
            ca: ca.to_str().unwrap().to_owned(),
        }
    }

    fn verify(&self, more: &[&str]) -> Output {
        let fixed = ["verify", "--ledger", &self.url, "--ca", &self.ca];
        chaperone(&[&fixed[..], more].concat(), b"")
    }
}

#[test]
fn verify_reads_a_published_log_and_compares_what_was_kept_elsewhere() {
    let folder = std::env::temp_dir().join(format!("chaperone-published-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = ledger(&folder);
    let published = Published::of(&folder);
    let first = folder.join("first");
    let first = first.to_str().unwrap();

    let output = published.verify(&["--key", &key, "--checkpoint", first]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("compared with a checkpoint of 2 records"),
        "{said}"
    );
    assert!(said.ends_with("4 entries of 1 streams: intact\n"), "{said}");
    let output = published.verify(&["--key", &key, "-o", "json"]);
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&verdict["intact"], &verdict["complete"]),
        (&true.into(), &true.into())
    );
    let stream = StreamId::from_random([7; 16]).to_string();
    let numbers =
        serde_json::json!([{"stream": stream, "firstSeq": 0, "nextSeq": 4, "missing": 0}]);
    assert_eq!(verdict["streams"], numbers);

    // Another key; another tree; a log that went back; tiles that are gone.
    let other = SigningKey::generate("ledger.example/prod".parse().unwrap(), Algorithm::Ed25519);
    let other = other.unwrap().verifier().to_string();
    let output = published.verify(&["--key", &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).ends_with("NOT INTACT\n"));
    let bundle = folder.join("ledger/tile/entries/000.p/4");
    let entries = std::fs::read(&bundle).unwrap();
    let mut changed = entries.clone();
    let last = changed.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    std::fs::write(&bundle, changed).unwrap();
    let output = published.verify(&["--key", &key]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("the entries that are served have"), "{said}");
    std::fs::write(&bundle, entries).unwrap();
    let newest = folder.join("newest");
    std::fs::copy(folder.join("ledger/checkpoint"), &newest).unwrap();
    std::fs::copy(first, folder.join("ledger/checkpoint")).unwrap();
    let output = published.verify(&["--key", &key, "--checkpoint", newest.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("the log went back"));
    std::fs::remove_dir_all(folder.join("ledger/tile/entries")).unwrap();
    let output = published.verify(&["--key", &key]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("tile/entries/000.p/2: it is not published"),
        "{said}"
    );

    for (more, words) in [
        (&[][..], "--key"),
        (&["--key", &key, "--record", "x"], "STREAM/NUMBER"),
        (&["--key", &key, "--part"], "--part"),
        (&["--key", &key, "audit.jsonl"], "cannot be used with"),
    ] {
        let output = published.verify(more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{more:?}: {}",
            text(&output.stderr)
        );
    }
    let record = format!("{stream}/1");
    let output = published.verify(&["--key", &key, "--record", &record]);
    assert_eq!(output.status.code(), Some(2), "a web server has no records");
    std::fs::remove_dir_all(&folder).unwrap();
}
