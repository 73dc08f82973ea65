//! `chaperone sink test` of a ledger that answers, refuses, or is something else.

use super::*;

#[test]
fn a_sink_is_tried_once_and_the_answer_is_the_exit_status() {
    let folder = std::env::temp_dir().join(format!("chaperone-sink-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let good = r#"{"sink":"siem","acknowledged":true,"milliseconds":41,"stream":"5f0c"}"#;
    let bad = r#"{"sink":"siem","acknowledged":false,"reason":"connect","message":"refused","milliseconds":3}"#;
    let none = r#"{"code":"not-found","message":"the ledger delivers no sink of this name"}"#;
    for (status, body, code, told) in [
        ("200 OK", good, 0, "sink siem: acknowledged in 41 ms"),
        ("200 OK", bad, 1, "connect: refused"),
        ("404 Not Found", none, 2, "answers 404: the ledger delivers"),
        ("503 Service Unavailable", "{}", 2, "answers 503"),
        ("200 OK", "hello", 2, "no ledger of this version"),
    ] {
        let answer = answer(status, body);
        let (port, served) = https(&[&answer], &folder);
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let url = format!("https://localhost:{port}");
        let (ca, token) = (file("ca.crt"), file("token"));
        let source = ["--ledger", &url, "--ca", &ca, "--token-file", &token];
        let output = chaperone(&[&["sink", "test", "siem"][..], &source[..]].concat(), b"");
        let said = text(&output.stdout).to_owned() + text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(told), "{said}");
        let heads = served.join().unwrap();
        assert!(
            heads[0].starts_with("POST /v1/sinks/siem/test HTTP/1.1"),
            "{}",
            heads[0]
        );
        assert!(heads[0].contains("authorization: Bearer secret\r\n"));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
