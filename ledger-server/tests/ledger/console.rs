//! The console: who is let in, what pages show, and that looking at evidence through it is recorded as asking the API is.

use std::{thread, time::Duration};

use base64::Engine as _;
use chaperone_crds::{bodies, chain::RecordHash};
use chaperone_ledger::{
    checkpoint,
    leaf::Leaf,
    merkle::{Hash, verify_inclusion},
};
use serde_json::{Value, json};

use crate::world::{Ledger, Lines, ORIGIN, World, stream};

const NAME: &str = "__Host-chaperone-console";
const SAME: [&str; 2] = ["-H", "Sec-Fetch-Site: same-origin"];

/// An answer, with its head.
struct Page {
    status: u16,
    head: String,
    body: String,
}

impl Page {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        let mut pairs = lines.filter_map(|line| line.split_once(": "));
        let found = pairs.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}

fn get(ledger: &Ledger, path: &str, arguments: &[&str]) -> Page {
    let more = [&["-D", "-"], arguments].concat();
    let (status, text) = ledger.curl(path, "", &more);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Page {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn try_login(ledger: &Ledger, token: &str, then: &str, from: &[&str]) -> Page {
    let (token, then) = (format!("token={token}"), format!("then={then}"));
    let form = ["--data-urlencode", &token, "--data-urlencode", &then];
    get(ledger, "/console/login", &[&form, from].concat())
}

/// Logs in. What a browser sends from then on.
fn login(ledger: &Ledger, token: &str) -> String {
    let page = try_login(ledger, token, "/console/records?q=a", &SAME);
    assert_eq!(page.status, 303, "{}", page.body);
    assert_eq!(page.header("location"), Some("/console/records?q=a"));
    let cookie = page.header("set-cookie").unwrap();
    let (pair, rest) = cookie.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(pair.len(), NAME.len() + 1 + 64, "256 random bits");
    format!("Cookie: {pair}")
}

fn see(ledger: &Ledger, cookie: &str, path: &str) -> Page {
    get(ledger, path, &["-H", cookie])
}

/// A page of these records, once the index has them.
fn settled(ledger: &Ledger, cookie: &str, path: &str, text: &str) -> Page {
    for _ in 0..100 {
        let page = see(ledger, cookie, path);
        if page.status == 200 && page.body.contains(text) {
            return page;
        }
        thread::sleep(Duration::from_millis(300));
    }
    panic!("no page has {text}");
}

fn reads(world: &World, user: &str) -> Vec<Value> {
    let records = world.records();
    let lines = records.split(|b| *b == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|record| record["read"]["user"] == user)
        .map(|record| record["read"].clone())
        .collect()
}

/// What an agent could write to get at whoever looks.
const HOSTILE: &str =
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}\u{e0041}\" onclick=\"x";

fn events() -> Vec<Value> {
    let agent = json!({"namespace": "agents", "pod": "a", "serviceAccount": "coder"});
    let to = json!({"host": "api.example.com", "ip": "203.0.113.7", "port": 443});
    let session = json!({"id": format!("run {HOSTILE}")});
    let decided = json!({"action": "Deny", "mode": "Enforce", "policy": "agents/coding", "rule": "no-delete", "revision": "dd56de4137951d9c", "reason": "rule", "message": "Ask a human."});
    vec![
        json!({"kind": "stream.open", "agent": agent}),
        json!({"kind": "config", "agent": agent, "config": {"revision": "dd56de4137951d9c", "mode": "Enforce", "policies": ["agents/coding@3"]}}),
        json!({"kind": "http", "agent": agent, "destination": to, "session": session,
            "operation": {"protocol": "http", "verb": "POST", "resource": "https://api.example.com/v1/messages"},
            "decision": {"action": "Allow", "mode": "Enforce", "revision": "dd56de4137951d9c", "reason": "default"},
            "http": {"status": 200, "requestHeaders": {"authorization": "[masked:credential]", "x-evil": HOSTILE}, "requestBody": {"text": format!("to [masked:email] {HOSTILE}")},
                "responseBody": {"text": "y".repeat(200_000), "truncated": true}},
            "masked": [{"mask": "agents/pii", "detector": "email", "count": 1}]}),
        json!({"kind": "http", "agent": agent, "destination": to, "decision": decided,
            "operation": {"protocol": "http", "verb": "DELETE", "resource": format!("javascript:alert(1)//{HOSTILE}")}, "http": {"status": 403}}),
    ]
}

fn filled(ledger: &Ledger) -> String {
    let id = stream(1);
    let (mut lines, mut batch) = (Lines::new(id.clone()), Vec::new());
    for event in events() {
        lines.event(event, &mut batch);
    }
    assert_eq!(ledger.post("pod-a", &id, &batch).0, 200);
    id.to_string()
}

#[test]
fn the_console_lets_in_by_token_and_forgets_who_logs_out() {
    let world = World::new("console-login");
    let ledger = world.start();
    for path in ["/", "/console", "/console/"] {
        let page = get(&ledger, path, &[]);
        assert_eq!(
            (page.status, page.header("location")),
            (303, Some("/console/sessions"))
        );
    }
    let page = get(&ledger, "/console/session?id=a%26b", &[]);
    assert_eq!(page.status, 303);
    let then = "/console/login?then=%2Fconsole%2Fsession%3Fid%3Da%2526b";
    assert_eq!(page.header("location"), Some(then));
    let page = get(&ledger, then, &[]);
    assert_eq!(page.status, 200);
    assert!(
        page.body
            .contains("name=\"then\" value=\"/console/session?id=a%26b\""),
        "{}",
        page.body
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-store"));

    // Not from a page of ours, whatever the token is.
    for from in [
        &["-H", "Sec-Fetch-Site: cross-site"][..],
        &["-H", "Origin: https://evil.example"],
        &[],
    ] {
        let page = try_login(&ledger, "reader", "", from);
        assert_eq!(
            (page.status, page.header("set-cookie")),
            (403, None),
            "{from:?}"
        );
    }
    for (token, status) in [
        ("forged", 401),
        ("", 400),
        ("a b", 400),
        (&"x".repeat(30_000), 400),
    ] {
        let page = try_login(&ledger, token, "", &SAME);
        assert_eq!((page.status, page.header("set-cookie")), (status, None));
        assert!(page.body.contains("role=\"alert\""));
    }
    let page = try_login(&ledger, "reader", "https://evil.example/", &SAME);
    assert_eq!(page.header("location"), Some("/console/sessions"));
    assert_eq!(
        ledger.metric("chaperone_ledger_console_logins_total{result=\"cross-site\"}") as u64,
        3
    );

    let cookie = login(&ledger, "reader");
    assert_eq!(see(&ledger, &cookie, "/console/sessions").status, 200);
    assert_eq!(
        ledger.curl("/v1/sessions", "", &["-H", &cookie]).0,
        401,
        "the API takes no cookie"
    );
    // Somebody else's form does not log out.
    let page = get(
        &ledger,
        "/console/logout",
        &[
            "-X",
            "POST",
            "-H",
            &cookie,
            "-H",
            "Sec-Fetch-Site: cross-site",
        ],
    );
    assert_eq!(page.status, 403);
    assert_eq!(see(&ledger, &cookie, "/console/sessions").status, 200);
    let page = get(
        &ledger,
        "/console/logout",
        &[&["-X", "POST", "-H", &cookie][..], &SAME].concat(),
    );
    assert_eq!(page.status, 303);
    assert!(page.header("set-cookie").unwrap().ends_with("Max-Age=0"));
    assert_eq!(see(&ledger, &cookie, "/console/sessions").status, 303);

    world
        .cluster
        .down
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(try_login(&ledger, "somebody-new", "", &SAME).status, 503);
}

#[test]
fn a_login_ends_with_its_token() {
    let world = World::new("console-end");
    let ledger = world.start();
    let end = jiff::Timestamp::now().as_second() + 3;
    let claims =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{end}}}"));
    let cookie = login(&ledger, &format!("reader.{claims}.x"));
    assert_eq!(see(&ledger, &cookie, "/console/sessions").status, 200);
    thread::sleep(Duration::from_secs(4));
    let page = see(&ledger, &cookie, "/console/sessions");
    assert_eq!(page.status, 401);
    assert!(
        page.body.contains("The login is not accepted"),
        "{}",
        page.body
    );
    assert_eq!(
        see(&ledger, &cookie, "/console/sessions").status,
        303,
        "the login is gone"
    );
}

#[test]
fn pages_show_what_an_agent_wrote_as_text_and_are_recorded_as_questions_are() {
    let world = World::new("console-pages");
    let ledger = world.start();
    let id = filled(&ledger);
    let team = login(&ledger, "team");
    let record = format!("/console/records/{id}/2?namespace=agents");
    let page = settled(&ledger, &team, &record, "Request");
    for needle in [
        "<script>",
        "<img",
        "onclick=\"x\"",
        "\u{202e}",
        "\u{e0041}",
        "href=\"javascript",
    ] {
        assert!(!page.body.contains(needle), "{needle}");
    }
    assert!(page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.body.contains("\\u{202e}") && page.body.contains("\\u{e0041}"));
    assert!(
        page.body
            .contains("<mark class=\"mask\" title=\"masked\">[masked:email]</mark>")
    );
    assert!(
        page.body.contains("134464 more bytes are not shown here"),
        "bodies are cut at 64 Ki characters"
    );
    assert!(page.body.len() < 400_000, "{}", page.body.len());
    let (status, line) = ledger.curl(
        &format!("/console/records/{id}/2/raw?namespace=agents"),
        "",
        &["-H", &team],
    );
    assert_eq!(status, 200);
    let all = world.records();
    // On disk its content is sealed behind it.
    let detached = bodies::detached(line.as_bytes());
    assert!(
        all.split(|b| *b == b'\n')
            .any(|known| known.starts_with(&detached)),
        "byte for byte"
    );
    assert!(matches!(
        bodies::parts(line.as_bytes()),
        bodies::Parts::With { .. }
    ));

    // The rule that decided, of the policy that was in force.
    let page = see(
        &ledger,
        &team,
        &format!("/console/records/{id}/3?namespace=agents"),
    );
    assert!(
        page.body
            .contains("http.method == &quot;DELETE&quot; &amp;&amp; &quot;&lt;b&gt;&quot;"),
        "{}",
        page.body
    );
    assert!(page.body.contains("generation 3, which was in force then"));
    assert!(!page.body.contains("href=\"javascript"));

    let page = see(
        &ledger,
        &team,
        "/console/records?namespace=agents&decision=Deny&ask=1&q=&pod=",
    );
    assert!(
        page.status == 200
            && page
                .body
                .contains(&format!("/console/records/{id}/3?namespace=agents"))
    );
    assert!(page.body.contains("1 records here"), "{}", page.body);
    let page = see(&ledger, &team, "/console/sessions?namespace=agents");
    assert!(page.body.contains("run &lt;/pre&gt;"), "{}", page.body);
    let (_, link) = page
        .body
        .split_once("<a href=\"/console/session?id=run")
        .unwrap();
    let link = format!(
        "/console/session?id=run{}",
        link.split_once('"').unwrap().0.replace("&amp;", "&")
    );
    let page = see(&ledger, &team, &link);
    assert_eq!(page.status, 200, "{link}");
    assert!(
        page.body.contains("Before the first turn") && page.body.contains("Turn 1 "),
        "{}",
        page.body
    );

    let page = see(&ledger, &team, "/console/gaps?namespace=agents&reason=");
    assert!(
        page.status == 200 && page.body.contains("pods that are there"),
        "{}",
        page.body
    );
    let page = see(&ledger, &team, "/console/gaps");
    assert!(page.status == 403 && page.body.contains("<form class=\"question\""));

    // What one may not see, and what cannot be read, is said above the form.
    let page = see(&ledger, &team, "/console/sessions");
    assert_eq!(page.status, 403);
    assert!(
        page.body.contains("name one with namespace=")
            && page.body.contains("<form class=\"question\"")
    );
    let page = see(
        &ledger,
        &team,
        "/console/records?since=soon&namespace=agents",
    );
    assert!(page.status == 400 && page.body.contains("since is a time"));
    assert_eq!(
        see(&ledger, &team, "/console/records?since=2h&namespace=agents").status,
        200
    );
    for (path, status) in [
        (format!("/console/records/{id}/99?namespace=agents"), 404),
        (format!("/console/records/{id}/2?namespace=other"), 403),
        ("/console/session?namespace=agents&id=none".to_owned(), 404),
        ("/console/session?namespace=agents".to_owned(), 404),
        ("/console/records/x/1?namespace=agents".to_owned(), 400),
    ] {
        assert_eq!(see(&ledger, &team, &path).status, status, "{path}");
    }
    let stranger = login(&ledger, "stranger");
    assert_eq!(
        see(&ledger, &stranger, "/console/sessions?namespace=agents").status,
        403
    );
    let page = see(&ledger, &stranger, &record);
    assert!(
        page.status == 403 && !page.body.contains("api.example.com"),
        "{}",
        page.body
    );

    let reads = reads(&world, "team");
    let of = |what: &str| {
        reads
            .iter()
            .filter(|read| read["what"] == what && read["refused"] == Value::Null)
            .count()
    };
    assert!(of("record") >= 4 && of("records") >= 3, "{reads:?}");
    assert_eq!((of("sessions"), of("session")), (1, 4), "{reads:?}");
    assert!(ledger.metric("chaperone_ledger_requests_total{code=\"ok\",route=\"console\"}") >= 5.0);
}

#[test]
fn a_record_has_a_proof_that_stands_alone() {
    let world = World::new("console-proof");
    let ledger = world.start();
    let id = filled(&ledger);
    let path = format!("/v1/records/{id}/3/proof");
    let mut proof = String::new();
    for _ in 0..100 {
        let (status, text) = ledger.curl(&path, "reader", &[]);
        if status == 200 {
            proof = text;
            break;
        }
        // Not indexed, or under no checkpoint yet.
        assert!(matches!(status, 404 | 503), "{status}: {text}");
        thread::sleep(Duration::from_millis(200));
    }
    let (head, note) = proof.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
    let index = lines.next().unwrap().strip_prefix("index ").unwrap();
    let hashes: Vec<Hash> = lines.map(|line| line.parse().unwrap()).collect();
    let keys = [world.vkey.parse().unwrap()];
    let signed = checkpoint::open(note.as_bytes(), &ORIGIN.parse().unwrap(), &keys).unwrap();
    let records = world.records();
    let index: u64 = index.parse().unwrap();
    let line = records
        .split(|b| *b == b'\n')
        .nth(usize::try_from(index).unwrap())
        .unwrap();
    let leaf = Leaf {
        stream: id.parse().unwrap(),
        seq: 3,
        record: RecordHash::of(line),
    };
    let head = &signed.checkpoint;
    verify_inclusion(&leaf.hash(), index, head.size, &head.root, &hashes).unwrap();

    let (status, body) = ledger.curl(&format!("{path}?namespace=other"), "team", &[]);
    assert_eq!(status, 403, "{body}");
    assert_eq!(
        ledger
            .curl(&format!("{path}?namespace=agents"), "team", &[])
            .0,
        200
    );
    assert_eq!(ledger.curl(&path, "", &[]).0, 401);
    let team = login(&ledger, "team");
    let page = see(
        &ledger,
        &team,
        &format!("/console/records/{id}/3/proof?namespace=agents"),
    );
    assert!(page.status == 200 && page.body.starts_with("c2sp.org/tlog-proof@v1\nindex "));
    assert!(
        page.header("content-disposition")
            .unwrap()
            .ends_with("-3.tlog-proof\"")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("sandbox")
    );
    let reads = reads(&world, "team");
    assert_eq!(
        reads
            .iter()
            .filter(|read| read["what"] == "record" && read["records"] == 1)
            .count(),
        2
    );
}

#[test]
fn new_records_come_to_who_waits_and_looking_wakes_nobody() {
    let world = World::new("console-live");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(5)).0, 200);
    let reader = login(&ledger, "reader");
    let last = format!("/console/records/{id}/4?");
    let page = settled(&ledger, &reader, "/console/live?kind=dns", &last);
    let (_, after) = page.body.split_once("data-after=\"").unwrap();
    let after: u64 = after.split_once('"').unwrap().0.parse().unwrap();
    let path = format!("/console/live/rows?after={after}");
    let began = std::time::Instant::now();
    let page = thread::scope(|scope| {
        let waits = scope.spawn(|| see(&ledger, &reader, &path));
        thread::sleep(Duration::from_secs(2));
        // Somebody who looks.
        assert_eq!(see(&ledger, &reader, "/console/sessions").status, 200);
        thread::sleep(Duration::from_secs(2));
        assert!(!waits.is_finished(), "records of reading are none");
        assert_eq!(ledger.post("pod-a", &id, &lines.take(3)).0, 200);
        waits.join().unwrap()
    });
    assert!(began.elapsed() > Duration::from_secs(4));
    assert_eq!(
        (page.status, page.body.matches("<tr").count()),
        (200, 3),
        "{}",
        page.body
    );
    assert_eq!(page.header("chaperone-cut"), Some("false"));
    let next: u64 = page.header("chaperone-after").unwrap().parse().unwrap();
    assert!(next >= after + 3);
    assert_eq!(ledger.post("pod-a", &id, &lines.take(150)).0, 200);
    thread::sleep(Duration::from_secs(3));
    let page = see(
        &ledger,
        &reader,
        &format!("/console/live/rows?after={next}"),
    );
    assert_eq!(page.body.matches("<tr").count(), 100);
    assert_eq!(
        page.header("chaperone-cut"),
        Some("true"),
        "more came than are shown"
    );

    assert_eq!(
        see(&ledger, &reader, "/console/live/rows?after=x").status,
        400
    );
    assert_eq!(get(&ledger, "/console/live/rows?after=1", &[]).status, 401);
    let team = login(&ledger, "team");
    assert_eq!(
        see(&ledger, &team, "/console/live/rows?after=1").status,
        403
    );
}

#[test]
fn a_candidate_policy_is_judged_by_what_happened() {
    let world = World::new("console-impact");
    let ledger = world.start();
    let id = stream(1);
    let (mut lines, mut batch) = (Lines::new(id.clone()), Vec::new());
    let mut all = events();
    all[0]["open"] = json!({"identity": {"namespace": "agents", "pod": "a", "uid": "u", "serviceAccount": "coder", "node": "n", "labels": {"app": "claude"}}, "version": "1"});
    for event in all {
        lines.event(event, &mut batch);
    }
    assert_eq!(ledger.post("pod-a", &id, &batch).0, 200);
    let team = login(&ledger, "team");
    settled(
        &ledger,
        &team,
        &format!("/console/records/{id}/3?namespace=agents"),
        "Decision",
    );
    let judge = |policy: &str, namespace: &str, from: &[&str]| {
        let (policy, namespace) = (format!("policy={policy}"), format!("namespace={namespace}"));
        let form = [
            "-H",
            &team,
            "--data-urlencode",
            &policy,
            "--data-urlencode",
            &namespace,
            "--data-urlencode",
            "since=",
        ];
        get(&ledger, "/console/impact", &[&form[..], from].concat())
    };
    let policy = |selector: &str| {
        format!(
            "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: coding}}\nspec:\n  selector: {{matchLabels: {{app: {selector}}}}}\n  mode: Audit\n  rules:\n    - {{name: no-models, when: 'http.path == \"/v1/messages\"', action: Deny}}\n"
        )
    };
    let page = judge(&policy("claude"), "agents", &SAME);
    assert_eq!(page.status, 200, "{}", page.body);
    let counts: Vec<_> = page
        .body
        .split("<dd>")
        .skip(1)
        .map(|part| part.split("</dd>").next().unwrap())
        .collect();
    // The request to the model; the other's URL, which an agent wrote, cannot be read.
    assert_eq!(
        counts,
        [
            "<strong>1</strong>",
            "<strong>0</strong>",
            "0",
            "0",
            "0",
            "0",
            "1"
        ],
        "{}",
        page.body
    );
    assert!(
        page.body.contains("by rule <bdi>no-models</bdi>")
            && page.body.contains("1: its URL cannot be read")
    );
    let page = judge(&policy("other"), "agents", &SAME);
    assert!(
        page.body
            .contains("<dt>Of pods that it does not select</dt><dd>2</dd>"),
        "{}",
        page.body
    );
    let page = judge("kind: AgentPolicy <b>", "agents", &SAME);
    assert!(
        page.status == 400
            && page.body.contains("The policy is refused")
            && !page.body.contains("<b>")
    );
    assert_eq!(judge(&policy("claude"), "other", &SAME).status, 403);
    assert_eq!(
        judge(&policy("claude"), "agents", &[]).status,
        403,
        "not from a page of ours"
    );
    assert_eq!(judge(&"x".repeat(70_000), "agents", &SAME).status, 400);
    let page = see(&ledger, &team, "/console/impact");
    assert!(page.status == 200 && page.body.contains("<textarea"));
    let asked = reads(&world, "team")
        .into_iter()
        .filter(|read| read["query"]["limit"] == "500" && read["records"] != Value::Null);
    assert_eq!(asked.count(), 2, "judging is a look at records");
}

#[test]
fn the_console_can_be_left_out() {
    let world = World::new("console-off");
    world
        .more
        .lock()
        .unwrap()
        .extend(["--console".to_owned(), "false".to_owned()]);
    let ledger = world.start();
    for path in ["/", "/console/", "/console/login"] {
        assert_eq!(ledger.curl(path, "", &[]).0, 404);
    }
}
