use super::{Document, parse};
use crate::compile::compile_policy;

const GOOD: &str = r#"
# A file may hold several documents.
apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata:
  name: web
  namespace: team
  labels: {anything: goes}
spec:
  selector:
    matchLabels: {app: claude}
  mode: Enforce
  rules:
    - name: no-delete
      match: {hosts: ["*.example.com"], methods: [DELETE]}
      action: Deny
      message: Ask a person.
---
---
apiVersion: chaperone.dev/v1alpha1
kind: ClusterAgentPolicy
metadata: {name: floor}
spec: {defaultAction: Deny}
---
apiVersion: chaperone.dev/v1alpha1
kind: AuditSink
metadata: {name: lake}
spec:
  http: {url: "https://lake.example.com/ingest"}
"#;

#[test]
fn documents_of_every_kind_are_read() {
    let documents = parse(GOOD).unwrap_or_else(|errors| panic!("{errors}"));
    let titles: Vec<_> = documents.iter().map(Document::title).collect();
    assert_eq!(
        titles,
        [
            "AgentPolicy team/web",
            "ClusterAgentPolicy floor",
            "AuditSink lake"
        ]
    );
    let policy = documents.first().and_then(Document::policy).unwrap();
    assert_eq!(compile_policy(&policy).unwrap().rule_count(), 1);
}

#[test]
fn an_error_shows_its_line_and_a_caret() {
    let yaml = GOOD.replace("methods: [DELETE]", "method: [DELETE]");
    let errors = parse(&yaml).unwrap_err();
    assert_eq!(
        errors.to_string(),
        concat!(
            "line 15, column 41: spec.rules[0].match.method: unknown field \"method\"; did you mean methods?\n",
            "        match: {hosts: [\"*.example.com\"], method: [DELETE]}\n",
            "                                          ^"
        )
    );
}

#[test]
fn all_errors_are_said_at_once() {
    let yaml = GOOD
        .replace("mode: Enforce", "mode: enforce")
        .replace("action: Deny\n", "action: Block\n")
        .replace("defaultAction: Deny", "default: Deny");
    let errors = parse(&yaml).unwrap_err();
    let texts: Vec<_> = errors
        .0
        .iter()
        .map(|e| format!("{} {}", e.line, e.path))
        .collect();
    assert_eq!(
        texts,
        ["12 spec.mode", "16 spec.rules[0].action", "23 spec.default"]
    );
}

#[test]
fn what_the_api_server_refuses_is_refused_with_advice() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\nspec:\n  {spec}\n"
        )
    };
    let sink = |spec: &str| {
        format!(
            "apiVersion: chaperone.dev/v1alpha1\nkind: AuditSink\nmetadata: {{name: s}}\nspec:\n  {spec}\n"
        )
    };
    let cases = [
        ("a: [1".to_owned(), "this is not YAML"),
        ("- 1".to_owned(), "begins with apiVersion"),
        (String::new(), "no document"),
        (
            GOOD.replacen("v1alpha1", "v1", 1),
            "write chaperone.dev/v1alpha1",
        ),
        (
            GOOD.replacen("kind: AgentPolicy", "kind: Policy", 1),
            "write one of AgentPolicy",
        ),
        (
            GOOD.replacen("name: web", "name: Web_1", 1),
            "lower case letters",
        ),
        (
            GOOD.replacen("{name: floor}", "{name: floor, namespace: x}", 1),
            "leave namespace out",
        ),
        (GOOD.replacen("{name: floor}", "{}", 1), "it is missing"),
        (policy("selektor: {}"), "did you mean selector?"),
        (policy("mode: Audit\n  mode: Enforce"), "uplicate"),
        (
            policy("selector: {matchExpressions: [{key: a, operator: Like}]}"),
            "write one of In",
        ),
        (
            policy("selector: {matchExpressions: [{key: a, operator: In}]}"),
            "need values",
        ),
        (policy("rules: {}"), "a list is needed"),
        (
            policy("rules: [{action: Deny}]"),
            "spec.rules[0].name: it is missing",
        ),
        (policy("rules: [{name: A, action: Deny}]"), "does not fit"),
        (policy("rules: [{name: a}]"), "write one of Allow, Deny"),
        (
            policy("rules: [{name: a, action: Deny}, {name: a, action: Allow}]"),
            "another entry of the list has this name",
        ),
        (
            policy("rules: [{name: a, action: Deny, match: {ports: [0]}}]"),
            "from 1 to 65535",
        ),
        (
            policy("rules: [{name: a, action: Deny, match: {ports: ['80']}}]"),
            "a whole number is needed",
        ),
        (
            policy("rules: [{name: a, action: Deny, match: {protocols: [quic]}}]"),
            "write one of http",
        ),
        (
            policy("rules: [{name: a, action: Deny, match: {protocols: [udp]}}]"),
            "packet filter",
        ),
        (
            policy("rules: [{name: a, action: Deny, message: true}]"),
            "a string is needed",
        ),
        (policy("masks: [{name: a}]"), "at least one entry"),
        (policy("audit: {maxBodyBytes: 300000}"), "from 0 to 262144"),
        (
            policy(&format!(
                "rules: [{{name: a, action: Deny, when: \"{}\"}}]",
                "x".repeat(2049)
            )),
            "may have 2048",
        ),
        (sink("stdout: {}\n  file: {name: a}"), "set exactly one of"),
        (sink("http: {url: 'http://x.example'}"), "https://"),
        (sink("file: {name: ../etc}"), "does not fit"),
    ];
    for (yaml, expected) in cases {
        let errors = parse(&yaml)
            .err()
            .unwrap_or_else(|| panic!("accepted: {yaml}"));
        let text = errors.to_string();
        assert!(
            text.contains(expected),
            "wanted {expected:?} for\n{yaml}\ngot\n{text}"
        );
    }
}
