//! Policy: documents, expressions, and what expressions see of a request.
//!
//! `json` and `url` are differential: where a server that reads the request in the usual way would do what a rule denies, the rule denies it.

use std::sync::LazyLock;

use chaperone_crds::{
    compile::{CompiledSnapshot, compile_policy},
    decide::{BodyView, Decision, Destination, HttpView, NO_FIELDS, Operation},
    documents as yaml,
    pod::PodIdentity,
    record::Outcome,
    resources::{AgentPolicySpec, Protocol},
    snapshot::{Policy, Snapshot},
};

use crate::parts;

/// Stack of the thread that evaluates: what the environment promises to need at most, doubled for a build without optimisation.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// A file of policies, and each policy that the schema lets pass.
pub(crate) fn documents(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match yaml::parse(text) {
        Ok(documents) => {
            for policy in documents.iter().filter_map(yaml::Document::policy) {
                match compile_policy(&policy) {
                    Ok(compiled) => assert_eq!(*compiled.reference(), policy.reference),
                    Err(errors) => assert!(!errors.to_string().is_empty()),
                }
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// An expression and the body that it is evaluated on: what compiles has an answer, the same each time, in bounded steps and stack.
pub(crate) fn cel(bytes: &[u8]) {
    let (when, body) = parts(bytes);
    let Ok(when) = std::str::from_utf8(when) else {
        return;
    };
    let rule = format!(
        "mode: Enforce\nrules: [{{name: r, match: {{protocols: [http]}}, when: {}, action: Deny}}]",
        serde_json::Value::from(when)
    );
    let Ok(spec) = serde_saphyr::from_str::<AgentPolicySpec>(&rule) else {
        return;
    };
    let policy = Policy::namespaced("team", "fuzz", 1, &spec);
    let body = body.to_vec();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(
            move || match CompiledSnapshot::compile(&Snapshot::new(vec![policy])) {
                Ok(snapshot) => {
                    let first = decide(&snapshot, "/a?b=c", &body);
                    assert_eq!(first, decide(&snapshot, "/a?b=c", &body));
                }
                Err(errors) => assert!(!errors.to_string().is_empty()),
            },
        )
        .expect("there is a thread")
        .join()
        .expect("the expression was compiled and evaluated");
}

static NO_DROP: LazyLock<CompiledSnapshot> =
    LazyLock::new(|| deny(r#"has(http.body.action) && http.body.action == "drop""#));
static NO_ADMIN: LazyLock<CompiledSnapshot> = LazyLock::new(|| {
    deny(
        r#"http.path == "/admin" || http.path.startsWith("/admin/") || ("do" in http.query && http.query["do"] == "drop")"#,
    )
});

/// A JSON body: whatever serde_json (which takes the last of two equal keys) reads as the denied action is denied.
pub(crate) fn json(bytes: &[u8]) {
    let decision = decide(&NO_DROP, "/", bytes);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    if value.get("action").is_some_and(|action| action == "drop") {
        assert_eq!(decision.outcome, Outcome::Deny, "{decision:?}");
    }
}

/// A path and a query: what a lenient server would take for the denied path or parameter is denied.
pub(crate) fn url(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else {
        return;
    };
    // What a request head lets pass.
    let target = target.trim_matches(|c: char| c.is_ascii_whitespace());
    if !target.starts_with('/') || target.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return;
    }
    let decision = decide(&NO_ADMIN, target, b"");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let served = served_path(path);
    let denied = served == "/admin"
        || served.starts_with("/admin/")
        || query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            unescape(&name.replace('+', " ")) == b"do"
                && unescape(&value.replace('+', " ")) == b"drop"
        });
    if denied {
        assert_eq!(decision.outcome, Outcome::Deny, "{served} {decision:?}");
    }
}

/// The path that a server serves which decodes escapes (but `%2F`), joins slashes and resolves dot segments.
fn served_path(path: &str) -> String {
    let path = path.replace("%2f", "%252F").replace("%2F", "%252F");
    let decoded = String::from_utf8_lossy(&unescape(&path)).into_owned();
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let slash = if decoded.ends_with('/') { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

/// Decodes what is an escape and leaves the rest.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    out
}

fn deny(when: &str) -> CompiledSnapshot {
    let spec = format!(
        "mode: Enforce\nrules: [{{name: r, match: {{protocols: [http]}}, when: {}, action: Deny}}]",
        serde_json::Value::from(when)
    );
    let spec = serde_saphyr::from_str(&spec).expect("the policy is sound");
    let snapshot = Snapshot::new(vec![Policy::namespaced("team", "fuzz", 1, &spec)]);
    CompiledSnapshot::compile(&snapshot).expect("the policy compiles")
}

fn decide(snapshot: &CompiledSnapshot, target: &str, body: &[u8]) -> Decision {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let operation = Operation {
        protocol: Protocol::Http,
        verb: "POST",
        resource: target,
        destination: Destination {
            host: Some("files.example.com"),
            ip: [192, 0, 2, 1].into(),
            port: 443,
            sni: Some("files.example.com"),
        },
        http: Some(HttpView {
            method: "POST",
            scheme: "https",
            host: "files.example.com",
            path,
            query,
            headers: &[("content-type", "application/json")],
            content_type: Some("application/json"),
            body_size: Some(body.len() as u64),
            body: BodyView::Complete(body),
            trailers: NO_FIELDS,
        }),
        dns: None,
        ws: None,
        grpc: None,
    };
    snapshot
        .candidates(&operation)
        .decide(&PodIdentity::default(), &operation)
}
