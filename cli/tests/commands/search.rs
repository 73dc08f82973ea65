//! `chaperone search`.

use super::*;

#[test]
fn search_finds_records_of_a_ledgers_directory_and_says_among_how_many() {
    let folder = std::env::temp_dir().join(format!("chaperone-search-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    ledger(&folder);
    let dir = folder.join("ledger");
    let before = std::fs::read_dir(&dir).unwrap().count();
    let dir = dir.to_str().unwrap();
    let search = |arguments: &[&str]| {
        let fixed = ["search", "--dir", dir];
        chaperone(&[&fixed[..], arguments].concat(), b"")
    };
    let all = search(&["--all", "-o", "json", "--order", "asc"]);
    assert_eq!(all.status.code(), Some(0), "{}", text(&all.stderr));
    let lines = text(&all.stdout).lines().count();
    assert!(lines > 2, "{lines}");
    let said = format!("{lines} records, among the first {lines} of {lines}");
    assert!(text(&all.stderr).contains(&said), "{}", text(&all.stderr));
    // What comes out is what went in.
    let verdict = chaperone(&["verify", "-"], &all.stdout);
    assert_eq!(verdict.status.code(), Some(0), "{}", text(&verdict.stdout));

    let some = search(&["--limit", "2", "--kind", "stream.open", "-o", "wide"]);
    assert_eq!(some.status.code(), Some(0));
    assert!(
        text(&some.stdout).starts_with("0 "),
        "{}",
        text(&some.stdout)
    );
    let none = search(&["no such word"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains(&format!("0 records, among the first {lines} of {lines}")));
    let wrong = search(&["--decision", "deny"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("decision is one of Allow, Deny, WouldDeny"));
    let elsewhere = chaperone(&["search", "--dir", folder.to_str().unwrap()], b"");
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(text(&elsewhere.stderr).contains("is no ledger's directory"));

    // An index that is kept is used again, and the directory is only read.
    let index = folder.join("kept");
    for _ in 0..2 {
        let kept = search(&[
            "--index",
            index.to_str().unwrap(),
            "--all",
            "-o",
            "json",
            "--order",
            "asc",
        ]);
        assert_eq!(kept.stdout, all.stdout);
    }
    assert!(index.exists());
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), before);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn search_asks_a_ledger_again_while_it_is_busy_and_page_after_page() {
    let folder =
        std::env::temp_dir().join(format!("chaperone-search-https-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let page = |cursor: &str, leaf: u64| {
        let body = format!("{{\"leaf\":{leaf},\"record\":{{\"n\":{leaf}}}}}\n");
        format!(
            "HTTP/1.1 200 OK\r\nchaperone-indexed: 7\r\nchaperone-committed: 9\r\n{cursor}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 33\r\n\r\n{\"code\":\"busy\",\"message\":\"later\"}";
    let busy = busy.replace(
        "33",
        &busy.split_once("\r\n\r\n").unwrap().1.len().to_string(),
    );
    let answers = [busy, page("chaperone-cursor: 1.3.7\r\n", 5), page("", 2)];
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let (port, served) = https(&answers, &folder);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let output = chaperone(
        &[
            "search",
            "--ledger",
            &format!("https://localhost:{port}"),
            "--ca",
            &file("ca.crt"),
            "--token-file",
            &file("token"),
            "-n",
            "agents",
            "-o",
            "json",
            "a b",
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "{\"n\":5}\n{\"n\":2}\n");
    assert!(text(&output.stderr).contains("2 records, among the first 7 of 9"));
    let heads = served.join().unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.contains("authorization: Bearer secret\r\n"))
    );
    let first = "GET /v1/records?order=desc&namespace=agents&q=a%20b&limit=100 HTTP/1.1";
    assert!(heads[1].starts_with(first), "{}", heads[1]);
    assert!(heads[2].contains("&limit=99&cursor=1.3.7 "), "{}", heads[2]);

    let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 35\r\n\r\n{\"code\":\"forbidden\",\"message\":\"no\"}";
    let (port, served) = https(&[refused], &folder);
    let output = chaperone(
        &[
            "search",
            "--ledger",
            &format!("https://localhost:{port}"),
            "--ca",
            &file("ca.crt"),
            "--token-file",
            &file("token"),
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("the ledger answers 403: no"),
        "{}",
        text(&output.stderr)
    );
    served.join().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
