use super::{expression::Expression, types::OBJECTS};

pub(crate) fn expression_for_tests(source: &str) -> Result<Expression, String> {
    Expression::compile(source).map_err(|troubles| {
        let messages: Vec<_> = troubles.into_iter().map(|t| t.message).collect();
        messages.join("; ")
    })
}

/// Paths of all fields, and whether they can be absent.
pub(crate) fn fields_for_tests() -> Vec<(String, bool)> {
    OBJECTS
        .iter()
        .flat_map(|object| {
            let path = |field: &super::types::Field| {
                (format!("{}.{}", object.name, field.name), field.optional)
            };
            object.fields.iter().map(path)
        })
        .collect()
}

use proptest::prelude::*;

use super::{PolicyErrors, compile_policy};
use crate::{decide::fixtures::*, snapshot::Policy};

fn errors(policy: &Policy) -> PolicyErrors {
    compile_policy(policy)
        .map(|_| ())
        .expect_err("the policy is wrong")
}

/// A policy of one rule with this `when`.
fn when(source: &str) -> Policy {
    let mut policy = namespaced("web", "{rules: [{name: r, action: Deny, when: x}]}");
    policy.rules[0].when = Some(source.to_owned());
    policy
}

#[test]
fn an_error_names_policy_rule_line_and_column_and_shows_a_caret() {
    let source = "agent.namespace == \"team\" &&\n  http.metod == \"DELETE\"";
    assert_eq!(
        errors(&when(source)).to_string(),
        concat!(
            "policy team/web, rule \"r\", when, line 2, column 8: unknown field \"metod\" of http; did you mean http.method? ",
            "Its fields: method, scheme, host, path, query, headers, contentType, bodySize, body, detected\n",
            "    http.metod == \"DELETE\"\n",
            "         ^"
        )
    );
    let cluster = cluster(
        "floor",
        "{rules: [{name: r, match: {hosts: [ok.example.com, 'a b']}, action: Deny}]}",
    );
    assert_eq!(
        errors(&cluster).to_string(),
        concat!(
            "policy floor, rule \"r\", match.hosts[1], line 1, column 2: ' ' cannot stand in a host name\n",
            "  a b\n",
            "   ^"
        )
    );
    let mask = namespaced(
        "web",
        "{masks: [{name: ids, patterns: [{name: id, pattern: 'ID-[0-9'}]}]}",
    );
    let text = errors(&mask).to_string();
    assert!(
        text.starts_with("policy team/web, mask \"ids\", patterns[0].pattern, line 1, column 4: "),
        "{text}"
    );
    assert!(text.ends_with("\n  ID-[0-9\n     ^"), "{text}");
}

#[test]
fn a_header_that_masks_must_leave_alone_is_refused_with_its_place() {
    let mask = namespaced(
        "web",
        "{masks: [{name: ids, headers: [set-cookie, 'x-internal-*', content-length]}]}",
    );
    let text = errors(&mask).to_string();
    assert!(
        text.starts_with("policy team/web, mask \"ids\", headers[2], line 1, column 1: "),
        "{text}"
    );
}

#[test]
fn all_errors_of_a_policy_are_said_at_once() {
    let policy = namespaced(
        "web",
        r#"
rules:
  - {name: a, action: Deny, when: 'http.metod == "x" || agent.nam == "y"'}
  - {name: a, action: Deny, match: {hosts: ["*.*.x", 10.0.0.1/8]}}
tls: {passthrough: ["*"]}
"#,
    );
    let errors = errors(&policy);
    let places: Vec<_> = errors
        .0
        .iter()
        .map(|e| (e.field.as_str(), e.column))
        .collect();
    assert_eq!(
        places,
        [
            ("rules[1].name", 1),
            ("when", 6),
            ("when", 28),
            ("match.hosts[0]", 3),
            ("match.hosts[1]", 1),
            ("tls.passthrough[0]", 1)
        ]
    );
}

#[test]
fn expressions_are_refused_with_place_and_advice() {
    let cases: &[(&str, u32, &str)] = &[
        // names
        ("htp.method == \"GET\"", 1, "did you mean http?"),
        ("method == \"GET\"", 1, "did you mean http.method?"),
        ("port == 1", 1, "did you mean destination.port?"),
        (
            "banana == 1",
            1,
            "there are agent, destination, operation, grpc, http",
        ),
        (
            "http.headers[\"x\"] == agent.label.x",
            28,
            "did you mean agent.labels?",
        ),
        ("http == \"GET\"", 1, "read one of its fields"),
        ("http[\"metod\"] == \"GET\"", 7, "did you mean http.method?"),
        ("http[http.path] == \"GET\"", 5, "is read by its name"),
        ("http.method.foo == 1", 13, "a string has no field"),
        ("has(http.nothing)", 10, "unknown field"),
        ("http.path.startWith(\"/\")", 11, "did you mean startsWith?"),
        ("lower(http.path) == \"/\"", 1, "unknown function \"lower\""),
        ("http.path.size(1) == 1", 11, "not called like this"),
        ("timestamp(\"2020\") == 1", 1, "unknown function"),
        ("b\"abc\" == bytes(http.path)", 11, "unknown function"),
        ("Foo{a: 1} == 1", 4, "Foo is not a type"),
        // types
        (
            "http.method",
            1,
            "a string, but a condition must yield true or false",
        ),
        ("1 + 1", 1, "an int, but a condition"),
        ("http.query", 1, "a map, but a condition"),
        ("\"yes\"", 1, "a string, but a condition"),
        (
            "http.method == \"GET\" ? http.path : http.host",
            1,
            "a string, but",
        ),
        (
            "http.method && true",
            6,
            "a side of && must be true or false, and this is a string",
        ),
        ("!http.method", 7, "what ! negates must be"),
        ("http.path ? true : false", 6, "the test of a condition"),
        ("http.method == 1", 13, "a string never equals an int"),
        (
            "destination.port == \"443\"",
            18,
            "an int never equals a string",
        ),
        ("http.method < 1", 13, "no order"),
        (
            "http.method in \"GET POST\"",
            13,
            "write text.contains(part)",
        ),
        (
            "http.method in [1, 2]",
            13,
            "a string where each value is an int",
        ),
        ("http.method in [[\"a\"]]", 13, "finds no lists"),
        (
            "1 in http.headers",
            3,
            "an int where each value is a string",
        ),
        (
            "http.path + 1 == \"/1\"",
            11,
            "takes numbers, and here is a string",
        ),
        ("1 + 1.0 == 2.0", 3, "do not mix"),
        ("-http.path == 1", 1, "takes numbers"),
        ("size(1) == 1", 5, "an int has no size"),
        ("int(http.headers) == 1", 4, "does not convert a map"),
        (
            "destination.port.contains(\"4\")",
            26,
            "contains works on strings",
        ),
        (
            "agent.images[\"a\"] == \"b\"",
            13,
            "a list cannot be indexed with a string",
        ),
        (
            "agent.labels == {\"a\": \"b\"}",
            14,
            "compare their entries",
        ),
        ("{1: 2}.size() == 1", 2, "a key of a map must be a string"),
        (
            "http.path.exists(x, x == \"a\")",
            17,
            "a string cannot be looped over",
        ),
        (
            "agent.images.exists(x, x)",
            24,
            "must be true or false, and this is a string",
        ),
        (
            "agent.images.exists(http, http == \"a\")",
            20,
            "name the loop's variable otherwise",
        ),
        ("http.method == null", 13, "a string never equals null"),
        // literals
        (
            "http.path.matches(http.host)",
            24,
            "must be a literal string",
        ),
        ("http.path.matches(\"[a\")", 19, "RE2 syntax"),
        ("http.path.matches(\"(?=a)\")", 19, "look-around"),
        ("http.path.matches(\"(.{100}){1000}\")", 19, "repeat less"),
        ("inCidr(destination.ip, \"10.0.0.1/8\")", 24, "10.0.0.0/8"),
        (
            "inCidr(destination.ip, [\"10.0.0.0/8\", \"x\"])",
            39,
            "neither an address nor a CIDR",
        ),
        (
            "inCidr(destination.ip, http.host)",
            29,
            "must be literal strings",
        ),
        // syntax
        ("http.method = \"GET\"", 13, "write =="),
        ("http.method == \"GET\" & true", 22, "write &&"),
        ("http.method == \"GET\" and true", 22, "write && for and"),
        ("http.method == \"GET", 16, "not closed"),
        ("http.method == “GET”", 16, "typographic quote"),
        ("(http.method == \"GET\"", 22, "not complete"),
        ("http.method ==", 15, "not complete"),
        ("has(http)", 5, "has() tests a field"),
        ("http.?method == \"GET\"", 5, "optional values"),
        ("agent.images.exists(1, true)", 21, "name of its variable"),
        ("   ", 1, "empty"),
        ("true\n&& ñ == 1", 4, "ñ"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, column, expected)| {
            let errors = errors(&when(source));
            let first = errors.0.first()?;
            let right = first.message.contains(expected) && first.column == *column;
            (!right).then(|| format!("wanted {column} {expected:?}, got\n{errors}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn expressions_that_would_cost_too_much_are_refused() {
    let nested = "agent.images.exists(a, agent.images.exists(b, agent.images.exists(c, c == a)))";
    let chained = "agent.images.map(a, a).map(b, b).map(c, c) == [\"x\"]";
    let list = format!("http.host in [{}\"x\"]", "\"x\", ".repeat(256));
    let joined = format!("{}http.path == \"\"", "http.path + ".repeat(17));
    let deep = format!("{}true{}", "!(false || ".repeat(30), ")".repeat(30));
    let cases = [
        (nested, "nested 2 deep"),
        (chained, "nested 2 deep"),
        (&list, "256 elements"),
        (&joined, "join strings or lists 16 times"),
        (&deep, "levels deep"),
        (
            "agent.images.map(a, a + a) == [\"x\"]",
            "takes numbers only",
        ),
        (
            "[http.path + http.path].map(a, a) == [\"x\"]",
            "takes numbers only",
        ),
        ("agent.images.map(a, [a, a]) == [[\"x\"]]", "constants only"),
        (&"true || ".repeat(300), "bytes and may have 2048"),
    ];
    for (source, expected) in cases {
        let errors = errors(&when(source));
        assert!(errors.to_string().contains(expected), "{source}: {errors}");
    }
    for fine in [
        format!("http.host in [{}\"x\"]", "\"x\", ".repeat(255)),
        format!("{}false", "http.host == \"a.example.com\" || ".repeat(60)),
        "http.body.a.filter(x, x.n > 1).exists(y, y.s in [\"a\", \"b\"])".to_owned(),
        "http.body.a.exists(x, int(x.n) + 1 > 2 && [1, 2].exists(y, y == x.n))".to_owned(),
    ] {
        compile_policy(&when(&fine)).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn rules_whose_parts_do_not_go_together_are_refused() {
    let cases = [
        (
            "match: {protocols: [http, tls]}, when: 'http.method == \"GET\"'",
            "protocols: [http]",
        ),
        (
            "match: {protocols: [tcp], methods: [GET]}",
            "methods are HTTP's",
        ),
        (
            "match: {protocols: [udp], hosts: ['*']}, when: 'destination.port == 1'",
            "cannot have when",
        ),
        ("match: {protocols: [udp]}", "needs match.hosts"),
        (
            "match: {protocols: [icmp], hosts: [a.example.com]}",
            "knows no names",
        ),
        (
            "match: {protocols: [icmp], hosts: ['*'], ports: [1]}",
            "ICMP has no ports",
        ),
        ("match: {protocols: [dns], ports: [53]}", "has no ports"),
        (
            "match: {protocols: [dns], hosts: [10.0.0.0/8]}",
            "has no address yet",
        ),
        (
            "match: {protocols: [dns, tcp]}, when: 'dns.type == \"TXT\"'",
            "protocols: [dns]",
        ),
        (
            "when: 'dns.type == \"TXT\" && http.method == \"GET\"'",
            "protocols: [dns]",
        ),
    ];
    for (rule, expected) in cases {
        let spec = format!("{{rules: [{{name: r, action: Deny, {rule}}}]}}");
        let errors = errors(&namespaced("web", &spec));
        assert!(errors.to_string().contains(expected), "{rule}: {errors}");
    }
}

#[test]
fn each_policy_is_named_where_a_snapshot_has_errors() {
    let snapshot = crate::snapshot::Snapshot::new(vec![
        when("a"),
        cluster("floor", "{tls: {passthrough: [10.0.0.1]}}"),
    ]);
    let errors = super::CompiledSnapshot::compile(&snapshot).expect_err("both are wrong");
    let names: Vec<_> = errors.0.iter().map(|e| e.policy.to_string()).collect();
    assert_eq!(names, ["floor", "team/web"]);
}

#[test]
fn a_rule_that_reads_ws_must_deny_and_be_about_http() {
    for (rule, expected) in [
        ("{name: a, when: 'ws.binary', action: Allow}", "must deny"),
        (
            "{name: a, match: {protocols: [tcp]}, when: 'ws.binary', action: Deny}",
            "protocols: [http]",
        ),
    ] {
        let policy = namespaced("web", &format!("rules: [{rule}]"));
        let errors = compile_policy(&policy).expect_err(rule).to_string();
        assert!(errors.contains(expected), "{errors}");
    }
    let fine = "rules: [{name: a, match: {protocols: [http]}, when: 'ws.binary', action: Deny}]";
    compile_policy(&namespaced("web", fine)).unwrap();
}

#[test]
fn a_detector_that_does_not_exist_is_refused_where_it_is_compared() {
    for source in [
        r#""creditcard" in http.detected"#,
        r#"http.detected.exists(d, d == "creditcard")"#,
        r#"http.detected.exists(d, d in ["email", "creditcard"])"#,
        r#"http.detected == ["creditcard"]"#,
    ] {
        let error = compile_policy(&when(source)).unwrap_err().to_string();
        assert!(error.contains("did you mean creditCard?"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_compiler_panic(source in ".{0,200}") {
        let _ = compile_policy(&when(&source)).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_mixture_of_tokens_makes_compiler_or_evaluator_panic(tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..40)) {
        let source = tokens.concat();
        match compile_policy(&when(&source)) {
            Ok(_) => {
                let snapshot = compile(vec![when(&source)]);
                let mut operation = request("POST", "a.example.com", "/a//b");
                if let Some(http) = operation.http.as_mut() {
                    http.body = crate::decide::BodyView::Complete(br#"{"a": [1, {"b": "c"}]}"#);
                }
                let _ = decide(&snapshot, &operation);
            }
            Err(errors) => prop_assert!(source.trim().is_empty() || errors.to_string().contains('^')),
        }
    }

    #[test]
    fn no_host_pattern_makes_the_parser_panic(pattern in ".{0,80}") {
        let _ = crate::hosts::HostPattern::parse(&pattern);
    }
}

const TOKENS: &[&str] = &[
    "http",
    ".",
    "method",
    "path",
    "body",
    "query",
    "headers",
    "agent",
    "labels",
    "images",
    "a",
    "x",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    " ",
    "==",
    "!=",
    "<",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "?",
    ":",
    " in ",
    "\"s\"",
    "1",
    "2.5",
    "1u",
    "true",
    "false",
    "null",
    "has(",
    "size(",
    ".exists(x,",
    ".map(x,",
    ".filter(x,",
    ".all(x,",
    ".matches(\"a\")",
    "inCidr(",
    "\"10.0.0.0/8\"",
    "http.body",
    "http.detected",
    "ws.detected",
    "http.method",
    "agent.images",
    "\n",
    "é",
];
