use crate::{
    compile::expression_for_tests as compile,
    decide::{
        BodyView, GrpcMessage, GrpcView, MessageView, Operation, WsDirection, WsView, fixtures::*,
    },
};

use super::{Facts, Store};

fn eval_on(source: &str, operation: &Operation<'_>) -> Result<bool, String> {
    let agent = agent();
    let store = Store::default();
    compile(source)
        .unwrap_or_else(|why| panic!("{source}: {why}"))
        .evaluate(&Facts::new(&agent, operation, &store))
}

/// On a POST with a JSON body, headers and a query.
fn eval(source: &str) -> Result<bool, String> {
    eval_body(
        source,
        br#"{"user": {"name": "Ana \"A\" B", "tags": ["x", "y"]}, "n": 3, "big": 18446744073709551615, "f": 1.5, "none": null, "ok": true, "rows": [{"id": 1}, {"id": 2}]}"#,
    )
}

fn eval_body(source: &str, body: &[u8]) -> Result<bool, String> {
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("X-Team", "blue"),
        ("x-many", "a"),
        ("X-Many", "b"),
        ("Authorization", "Bearer abc"),
    ];
    let mut operation = request("POST", "Api.Example.com", "/v1/%61dmin//x");
    let http = operation.http.as_mut().unwrap();
    http.headers = &headers;
    http.query = "force=true&q=a+b&q2=%26&dup=1&dup=2";
    http.content_type = Some("application/json; charset=utf-8");
    http.body_size = Some(body.len() as u64);
    http.body = BodyView::Complete(body);
    eval_on(source, &operation)
}

#[test]
fn a_message_is_read_with_the_handshake_that_opened_its_connection() {
    let on = |source: &str, view| {
        let mut operation = request("GET", "ws.example.com", "/chat");
        operation.ws = Some(WsView {
            direction: WsDirection::Send,
            binary: matches!(view, MessageView::Binary(_)),
            message: view,
        });
        eval_on(source, &operation)
    };
    let json = MessageView::Text(r#"{"kind": "say", "n": [1, 2]}"#);
    for source in [
        r#"ws.direction == "send" && !ws.binary && ws.size == 28 && http.path == "/chat""#,
        r#"has(ws.text) && ws.text.contains("say") && ws.text.matches("^\\{")"#,
        r#"has(ws.json) && ws.json.kind == "say" && ws.json.n.exists(n, n == 2)"#,
    ] {
        assert_eq!(on(source, json), Ok(true), "{source}");
    }
    let card = MessageView::Text("pay 4111 1111 1111 1111");
    assert_eq!(on(r#"ws.detected == ["creditCard"]"#, card), Ok(true));
    assert_eq!(on(r#""email" in ws.detected"#, card), Ok(false));
    let untested = on(r#""email" in ws.detected"#, MessageView::Binary(3)).unwrap_err();
    assert!(untested.contains("!ws.binary"), "{untested}");
    let tested = r#"!ws.binary && "email" in ws.detected"#;
    assert_eq!(on(tested, MessageView::Binary(3)), Ok(false));
    assert_eq!(on("has(ws.json)", MessageView::Text("hi")), Ok(false));
    assert_eq!(on("has(ws.text)", MessageView::Binary(3)), Ok(false));
    assert_eq!(
        on("ws.binary && ws.size == 3", MessageView::Binary(3)),
        Ok(true)
    );
    assert!(on("ws.text == \"\"", MessageView::Binary(3)).is_err());
    for source in [
        "ws.text == \"\"",
        "has(ws.text)",
        r#""email" in ws.detected"#,
        "has(ws.json)",
        "ws.size > 1",
    ] {
        assert!(on(source, MessageView::TooLarge).is_err(), "{source}");
    }
}

#[test]
fn every_variable_and_function_of_the_documentation_works() {
    let yes = [
        r#"agent.namespace == "team" && agent.pod == "claude-0" && agent.serviceAccount == "claude""#,
        r#"agent.labels.app == "claude" && agent.labels["tier"] == "test" && "app" in agent.labels && !("no" in agent.labels)"#,
        r#"has(agent.labels.app) && !has(agent.labels.none) && size(agent.labels) == 2"#,
        r#"agent.labels.exists(k, agent.labels[k] == "test")"#,
        r#"agent.images.all(i, i.startsWith("registry.example.com/")) && agent.images[0].endsWith(":1")"#,
        r#"agent.images == ["registry.example.com/claude:1"] && ["registry.example.com/claude:1"] == agent.images"#,
        r#"destination.host == "api.example.com" && destination.ip == "192.0.2.10" && destination.port == 443"#,
        r#"has(destination.host) && has(destination.sni) && destination.sni == "Api.Example.com""#,
        r#"inCidr(destination.ip, "192.0.2.0/24") && !inCidr(destination.ip, ["10.0.0.0/8", "fd00::/8"])"#,
        r#"isIP(destination.ip) && !isIP(destination.host)"#,
        r#"operation.protocol == "http" && operation.verb == "POST" && operation.resource.contains("dmin")"#,
        r#"http.method == "POST" && http.scheme == "https" && http.host == "api.example.com""#,
        r#"http.path == "/v1/admin/x" && http.path.matches("^/v[0-9]+/") && matches(http.path, "(?i)ADMIN")"#,
        r#"http.query.force == "true" && http.query["q"] == "a b" && http.query.q2 == "&""#,
        r#""dup" in http.query && !("none" in http.query) && has(http.query.force) && http.query.size() == 4"#,
        r#"http.headers["x-team"] == "blue" && http.headers["x-many"] == "a, b""#,
        r#""authorization" in http.headers && http.headers.authorization == "[secret]""#,
        r#"http.headers.exists(h, h.startsWith("x-")) && !("X-Team" in http.headers)"#,
        r#"http.contentType == "application/json" && has(http.contentType)"#,
        r#"has(http.bodySize) && http.bodySize > 100"#,
        r#"!("creditCard" in http.detected) && !http.detected.exists(d, d == "awsAccessKey" || d in ["jwt"]) && http.detected == [] && size(http.detected) == 0"#,
        r#"!has(grpc.service) && grpc.service == "" && !has(grpc.method) && grpc.method == """#,
        r#"has(http.body) && http.body.n == 3 && http.body.f == 1.5 && http.body.ok && http.body.none == null"#,
        r#"http.body.big == 18446744073709551615u"#,
        r#"http.body.user.name == "Ana \"A\" B" && has(http.body.user.tags) && !has(http.body.user.age)"#,
        r#"http.body.user.tags == ["x", "y"] && ["x", "y"] == http.body.user.tags && http.body.user.tags != ["x"]"#,
        r#""x" in http.body.user.tags && http.body.user.tags[1] == "y" && size(http.body.user.tags) == 2"#,
        r#"http.body.rows == [{"id": 1}, {"id": 2}] && [{"id": 1}, {"id": 2}] == http.body.rows"#,
        r#"http.body.rows.exists(r, r.id == 2) && http.body.rows.all(r, r.id > 0) && http.body.rows.exists_one(r, r.id == 1)"#,
        r#"http.body.rows.map(r, r.id) == [1, 2] && http.body.rows.filter(r, r.id > 1).size() == 1"#,
        r#"http.body.rows.filter(r, r.id > 1).exists(r, r.id == 2)"#,
        r#"http.body.exists(k, k == "user") && "user" in http.body"#,
        r#"http["method"] == "POST" && http.body["n"] + 1 == 4"#,
        r#"int("4") + 1 == 5 && double(3) == 3.0 && string(3) == "3" && uint(3) == 3u && bool("true")"#,
        r#"(http.method == "GET" ? 1 : 2) == 2"#,
        r#""a" + "b" == "ab" && 7 % 3 == 1 && -1 < 0 && 1.5 * 2.0 == 3.0 && !(1 > 2)"#,
        "http.body.n == 3 ||\n  http.body.missing == 1",
    ];
    for source in yes {
        assert_eq!(eval(source), Ok(true), "{source}");
    }
}

#[test]
fn what_cannot_be_answered_is_an_error_that_says_why() {
    let cases = [
        (
            r#"http.headers["x-none"] == "1""#,
            "\"x-none\" is not there",
        ),
        (r#"http.query.dup == "1""#, "more than once"),
        (r#"http.body.user.age > 1"#, "\"age\" is not there"),
        (r#"http.body.user.tags[7] == "z""#, "shorter"),
        (r#"http.body.n.matches("3")"#, "matches"),
        (r#"http.body.n > "3""#, "no matching overload"),
        (r#"http.body.none.x == 1"#, "no matching overload"),
        (r#"http.body.n / (http.body.n - 3) == 1"#, "divides by zero"),
        (
            r#"inCidr(destination.host, "10.0.0.0/8")"#,
            "not an address",
        ),
        (
            r#"http.body.ok ? http.body.n : true"#,
            "neither true nor false",
        ),
        (
            r#"int(http.body.user.name) == 1"#,
            "int() cannot take this value",
        ),
    ];
    for (source, expected) in cases {
        let error = eval(source).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
        assert!(!error.contains("Ana"), "{source}: {error}");
    }
}

#[test]
fn a_body_is_json_or_it_is_not_there_or_it_is_an_error() {
    let has = |content_type, body| {
        let mut operation = request("POST", "a.example.com", "/");
        let http = operation.http.as_mut().unwrap();
        http.content_type = content_type;
        http.body = body;
        eval_on("has(http.body)", &operation)
    };
    let json = Some("application/json");
    assert_eq!(has(json, BodyView::Complete(b"{}")), Ok(true));
    assert_eq!(has(None, BodyView::Complete(b" [1] ")), Ok(true));
    assert_eq!(has(None, BodyView::Complete(b"name=x")), Ok(false));
    assert_eq!(has(json, BodyView::Complete(b"")), Ok(false));
    for (body, expected) in [
        (BodyView::Complete(&b"{\"a\": 1,}"[..]), "does not parse"),
        (BodyView::Complete(b"{} x"), "does not parse"),
        (
            BodyView::Complete(br#"{"a": 1, "\u0061": 2}"#),
            "a key twice",
        ),
        (BodyView::TooLarge, "too large"),
        (BodyView::NotRead, "not read"),
    ] {
        let error = has(json, body).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let many = format!("[{}1]", "1,".repeat(70_000));
    let error = has(None, BodyView::Complete(many.as_bytes())).unwrap_err();
    assert!(error.contains("too many values"), "{error}");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let error = has(None, BodyView::Complete(deep.as_bytes())).unwrap_err();
    assert!(error.contains("too deeply"), "{error}");
}

#[test]
fn an_encoded_body_cannot_be_judged() {
    for (body, expected) in [
        (BodyView::Unreadable, false),
        (BodyView::Complete(b"{}"), true),
        (BodyView::Complete(b"\xEF\xBB\xBF{}"), false),
    ] {
        let mut operation = request("POST", "a.example.com", "/");
        operation.http.as_mut().unwrap().body = body;
        let answer = eval_on("has(http.body)", &operation);
        assert_eq!(answer.is_ok(), expected, "{answer:?}");
    }
}

#[test]
fn what_detectors_find_is_a_list_of_their_names() {
    let body = br#"{"card": "4111 1111 1111 1111", "mail": "ana@example.com"}"#;
    for source in [
        r#""creditCard" in http.detected && "email" in http.detected"#,
        r#"http.detected.exists(d, d == "creditCard") && http.detected[0] == "email""#,
        r#"["email", "creditCard"] == http.detected && http.detected != ["email"]"#,
        r#"size(http.detected) == 2 && http.detected.all(d, d in ["email", "creditCard"])"#,
        r#"!("awsAccessKey" in http.detected) && http.detected.filter(d, d.startsWith("e")).size() == 1"#,
    ] {
        assert_eq!(eval_body(source, body), Ok(true), "{source}");
    }
    let mut operation = request("POST", "a.example.com", "/");
    operation.http.as_mut().unwrap().body = BodyView::TooLarge;
    let error = eval_on(r#""email" in http.detected"#, &operation).unwrap_err();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn a_method_is_seen_in_upper_case() {
    let operation = request("delete", "a.example.com", "/");
    assert_eq!(eval_on(r#"http.method == "DELETE""#, &operation), Ok(true));
}

#[test]
fn text_with_escapes_reads_like_text_without() {
    let body = br#"{"\u0061": "\n", "b": ["\u00e9", "plain", {"k\t": "\"v\""}]}"#;
    let source = r#"http.body.a == "\n" && http.body.b[0] == "é" && http.body.b[1] == "plain" && http.body.b[2]["k\t"] == "\"v\"""#;
    assert_eq!(eval_body(source, body), Ok(true));
}

#[test]
fn an_absent_name_is_empty_and_has_says_so() {
    let operation = unread(crate::resources::Protocol::Tcp, "::ffff:10.0.0.1", 22);
    let source = r#"!has(destination.host) && destination.host == "" && !has(destination.sni) && destination.sni == "" && destination.ip == "10.0.0.1""#;
    assert_eq!(eval_on(source, &operation), Ok(true));
}

#[test]
fn a_loop_over_a_large_body_ends_in_an_error() {
    let body = format!("[{}0]", "0,".repeat(20_000));
    let source = "http.body.exists(a, http.body.exists(b, a + int(b) == 1))";
    assert_eq!(
        eval_body(source, body.as_bytes()),
        Err(super::budget::EXHAUSTED.to_owned())
    );
    assert_eq!(
        eval_body("http.body.exists(a, a == 1)", body.as_bytes()),
        Ok(false)
    );
}

#[test]
fn the_type_model_and_the_resolver_know_the_same_names() {
    use crate::compile::fields_for_tests;
    for (path, optional) in fields_for_tests() {
        let source = if optional {
            format!("has({path}) || true")
        } else {
            format!("dyn({path}) == dyn({path}) || true")
        };
        let mut operation = get("a.example.com");
        operation.http.as_mut().unwrap().body = BodyView::Complete(b"{}");
        operation.dns = asks("a.example.com", &[]).dns;
        operation.ws = Some(WsView {
            direction: WsDirection::Send,
            binary: false,
            message: MessageView::Text("{}"),
        });
        operation.grpc = Some(GrpcView {
            direction: WsDirection::Send,
            message: GrpcMessage::Json("{}"),
        });
        assert_eq!(eval_on(&source, &operation), Ok(true), "{path}");
        let bare = compile(&format!("dyn({path}) != dyn(\"no such thing\")")).unwrap();
        let agent = agent();
        let store = Store::default();
        let facts = Facts::new(&agent, &operation, &store);
        assert_eq!(bare.evaluate(&facts), Ok(true), "{path}");
    }
}

#[test]
fn the_deepest_admitted_expressions_evaluate_on_a_small_stack() {
    let deepest = |make: &dyn Fn(usize) -> String| {
        (1..200)
            .map(make)
            .take_while(|source| compile(source).is_ok())
            .last()
            .unwrap()
    };
    let sources = [
        deepest(&|n| format!("{}1 == 1", "1 + ".repeat(n))),
        deepest(&|n| format!("http.body{} == 1", ".a".repeat(n))),
        deepest(&|n| format!("dyn({}1{}) == 1", "dyn(".repeat(n), ")".repeat(n))),
        deepest(&|n| format!("{}1{} == [1]", "[".repeat(n), "]".repeat(n))),
        deepest(&|n| format!("{}true{}", "!(false || ".repeat(n), ")".repeat(n))),
        deepest(&|n| format!("{}true{}", "(false ? false : ".repeat(n), ")".repeat(n))),
        deepest(&|n| {
            format!(
                "[1].exists(a, [1].exists(b, {}a == b{}))",
                "(false ? false : ".repeat(n),
                ")".repeat(n)
            )
        }),
    ];
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    let run = move || {
        for source in sources {
            // Whatever the answer: it must come.
            let _ = eval(&source);
        }
    };
    thread.spawn(run).unwrap().join().unwrap();
}
