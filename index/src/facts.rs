//! What of a record is looked for.
//!
//! Owns which fields of the record's JSON these are: docs/audit-record.md has them all, and fields that are new there are found by free text without a change here. Refuses nothing: a line that is no JSON has no facts,
//! a field of another type than the format says is not there.

use chaperone_crds::messages;
use jiff::Timestamp;
use serde_json::Value;

/// Top-level fields whose texts are in every record, or nobody looks for by words.
const FRAME: [&str; 7] = [
    "v",
    "stream",
    "prev",
    "time",
    "kind",
    "bodiesSha256",
    BODIES,
];
/// Texts of bodies, which stand apart from the rest.
const BODIES: &str = "bodies";
/// Of these the one that says what is new in a request, which an index that is full must not miss.
const NEWEST: &str = "http.newestMessages";
/// What in them is none.
const SALT: &str = "salt";
/// Most levels of a path and of a name that are told apart.
pub const MAX_LEVELS: usize = 16;
/// How deep a record is read for its texts; the format has 5 levels.
const MAX_DEPTH: usize = 16;

/// Whose a record is. For streams of which the ledger has recorded it this is the ledger's word, else the record's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Service account; empty where there is none.
    pub service_account: String,
}

impl Whose {
    /// What a record says of itself.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Self {
        let [namespace, pod, service_account] = facts.agent.map(str::to_owned);
        Self {
            namespace,
            pod,
            service_account,
        }
    }
}

/// The facts, as they stand in the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'r> {
    /// Kind.
    pub kind: &'r str,
    /// When, in microseconds since 1970.
    pub time: Option<i64>,
    /// Whose, as the record says itself.
    pub agent: [&'r str; 3],
    /// Where to, in lower case: the name, or the address where there is none; of DNS the name asked.
    pub host: Option<String>,
    /// Protocol.
    pub protocol: Option<&'r str>,
    /// Verb.
    pub verb: Option<&'r str>,
    /// Path of the URL, without query.
    pub path: Option<&'r str>,
    /// Status of HTTP.
    pub status: Option<u64>,
    /// `Allow` or `Deny`.
    pub action: Option<&'r str>,
    /// Whether a policy in Audit would have denied it.
    pub would_deny: bool,
    /// Policy that decided.
    pub policy: Option<&'r str>,
    /// Rule that decided.
    pub rule: Option<&'r str>,
    /// Why, as a word.
    pub reason: Option<&'r str>,
    /// The agent's own session.
    pub session: Option<&'r str>,
}

impl<'r> Facts<'r> {
    /// Of a record's JSON.
    #[must_use]
    pub fn of(record: &'r Value) -> Self {
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let own = |pointer: &str| text(pointer).unwrap_or_default();
        let resource = text("/operation/resource");
        let protocol = text("/operation/protocol");
        let asked = resource.filter(|_| protocol == Some("dns"));
        let host = text("/destination/host")
            .or_else(|| text("/destination/sni"))
            .or_else(|| text("/destination/ip"))
            .or(asked);
        Self {
            kind: own("/kind"),
            time: text("/time").and_then(micros),
            agent: [
                own("/agent/namespace"),
                own("/agent/pod"),
                own("/agent/serviceAccount"),
            ],
            host: host.map(normal_host),
            protocol,
            verb: text("/operation/verb"),
            path: resource.and_then(path_of),
            status: record.pointer("/http/status").and_then(Value::as_u64),
            action: text("/decision/action"),
            would_deny: record.pointer("/decision/wouldDeny") == Some(&Value::Bool(true)),
            policy: text("/decision/policy"),
            rule: text("/decision/rule"),
            reason: text("/decision/reason"),
            session: text("/session/id").filter(|id| !id.is_empty()),
        }
    }

    /// Whether it says what an agent did, rather than how its stream stands.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        matches!(
            self.kind,
            "http" | "ws.message" | "ws.close" | "dns" | "gap" | "connection"
        )
    }

    /// Whether it says that its stream goes on, and nothing else.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        self.kind == "stream.heartbeat"
    }

    /// Whether it is one exchange with a model: a request of the session's own client for messages.
    #[must_use]
    pub fn is_turn(&self) -> bool {
        self.kind == "http"
            && self.session.is_some()
            && messages::is_turn(self.verb.unwrap_or_default(), self.path.unwrap_or_default())
    }
}

/// A host as it is compared.
#[must_use]
pub fn normal_host(host: &str) -> String {
    host.trim_end_matches('.').to_lowercase()
}

/// The path of a URL, from its first slash on; none of what is no URL.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let path = rest.get(rest.find('/')?..)?;
    path.split(['?', '#']).next()
}

/// The beginnings of a path at its slashes, the shortest first, and the path itself, without a slash at the end; at most [`MAX_LEVELS`].
pub fn levels(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at);
    let ends = ends.filter(|at| *at > 0).chain([path.len()]);
    ends.filter_map(|end| path.get(..end))
        .filter(|level| !level.is_empty())
        .take(MAX_LEVELS)
}

/// The domains that a name ends in, the shortest first, and the name itself; at most [`MAX_LEVELS`]: a name that is longer hides nothing of what it is below. None of an address.
pub fn domains(host: &str) -> impl Iterator<Item = &str> {
    let is_name = host.parse::<std::net::IpAddr>().is_err();
    let starts = host.rmatch_indices('.').map(|(at, _)| at.saturating_add(1));
    starts
        .chain([0])
        .filter_map(|start| host.get(start..))
        .filter(move |domain| is_name && !domain.is_empty())
        .take(MAX_LEVELS)
}

/// Microseconds since 1970 of a record's time.
#[must_use]
pub fn micros(time: &str) -> Option<i64> {
    time.parse::<Timestamp>()
        .ok()
        .map(Timestamp::as_microsecond)
}

/// Shows each text of a record: every string in it that is not of its frame. Texts of bodies come last, the newest messages of a conversation first of these.
pub fn texts<'r>(record: &'r Value, take: &mut impl FnMut(&'r str)) {
    let Value::Object(fields) = record else {
        return;
    };
    for (name, value) in fields {
        if !FRAME.contains(&name.as_str()) {
            walk(value, MAX_DEPTH, take);
        }
    }
    if let Some(Value::Object(bodies)) = fields.get(BODIES) {
        let others = bodies
            .iter()
            .filter(|(name, _)| *name != SALT && *name != NEWEST)
            .map(|(_, body)| body);
        let newest = bodies.get(NEWEST).into_iter();
        newest
            .chain(others)
            .for_each(|body| walk(body, MAX_DEPTH, take));
    }
}

fn walk<'r>(value: &'r Value, depth: usize, take: &mut impl FnMut(&'r str)) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    match value {
        Value::String(text) => take(text),
        Value::Array(values) => values.iter().for_each(|value| walk(value, depth, take)),
        Value::Object(fields) => fields.values().for_each(|value| walk(value, depth, take)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_stand_where_the_format_says() {
        let record = json!({
            "v": "chaperone.dev/v1", "stream": "s", "seq": 3, "prev": "00", "time": "2026-11-29T10:00:00.000001Z", "kind": "http",
            "agent": {"namespace": "agents", "pod": "claude-0", "serviceAccount": "coder"},
            "destination": {"host": "API.Example.com.", "ip": "203.0.113.7", "port": 443},
            "operation": {"protocol": "http", "verb": "POST", "resource": "https://api.example.com/v1/messages?beta=true"},
            "decision": {"action": "Allow", "wouldDeny": true, "mode": "Audit", "policy": "agents/web", "rule": "models", "revision": "00", "reason": "rule"},
            "http": {"status": 200, "requestBody": {"text": "hello"}}, "session": {"id": "abc"}
        });
        let facts = Facts::of(&record);
        let expected = Facts {
            kind: "http",
            time: Some(1_795_946_400_000_001),
            agent: ["agents", "claude-0", "coder"],
            host: Some("api.example.com".to_owned()),
            protocol: Some("http"),
            verb: Some("POST"),
            path: Some("/v1/messages"),
            status: Some(200),
            action: Some("Allow"),
            would_deny: true,
            policy: Some("agents/web"),
            rule: Some("models"),
            reason: Some("rule"),
            session: Some("abc"),
        };
        assert_eq!(facts, expected);
        assert!(facts.is_turn() && facts.is_operation());
        let mut found = Vec::new();
        texts(&record, &mut |text| found.push(text));
        assert!(found.contains(&"hello") && found.contains(&"203.0.113.7"));
        assert!(!found.contains(&"chaperone.dev/v1") && !found.contains(&"s"));
    }

    #[test]
    fn texts_of_bodies_come_last_and_without_their_salt() {
        let record = json!({"v": "chaperone.dev/v2", "operation": {"resource": "url"}, "http": {"requestBody": {}}, "bodiesSha256": "digest",
            "bodies": {"salt": "salt", "http.requestBody": {"text": "asked"}, "http.newestMessages": {"text": "new"}, "http.responseBody": {"text": "answered"}}, "timing": {"x": "y"}});
        let mut found = Vec::new();
        texts(&record, &mut |text| found.push(text));
        assert_eq!(found, ["url", "y", "new", "asked", "answered"]);
    }

    #[test]
    fn a_host_is_a_name_or_an_address_or_what_was_asked() {
        let host = |record: Value| Facts::of(&record).host;
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(host(json!({"destination": {"ip": "::1"}})), of("::1"));
        let sni = json!({"destination": {"ip": "::1", "sni": "a.b"}});
        assert_eq!(host(sni), of("a.b"));
        let asked =
            json!({"operation": {"protocol": "dns", "verb": "A", "resource": "A.example."}});
        assert_eq!(host(asked), of("a.example"));
        assert_eq!(
            host(json!({"operation": {"protocol": "tcp", "resource": "x"}})),
            None
        );
    }

    #[test]
    fn what_is_of_another_type_or_no_object_is_not_there() {
        for record in [
            json!(null),
            json!([1]),
            json!({"kind": 3, "time": "x", "agent": [], "http": {"status": "200"}}),
        ] {
            assert_eq!(Facts::of(&record), Facts::default());
        }
        let mut deep = json!("found");
        for _ in 0..MAX_DEPTH {
            deep = json!([deep]);
        }
        let mut found = 0;
        texts(&json!({"a": deep}), &mut |_| found += 1);
        assert_eq!(found, 0);
    }

    #[test]
    fn paths_and_hosts_have_levels() {
        let levels = |path| super::levels(path).collect::<Vec<_>>();
        assert_eq!(levels("/v1/messages/"), ["/v1", "/v1/messages"]);
        assert_eq!(levels("/v1"), ["/v1"]);
        assert_eq!(levels("//a"), ["/", "//a"]);
        assert!(levels("/").is_empty() && levels("").is_empty());
        assert_eq!(levels(&"/x".repeat(100)).len(), MAX_LEVELS);
        let domains = |host| super::domains(host).collect::<Vec<_>>();
        assert_eq!(
            domains("a.example.com"),
            ["com", "example.com", "a.example.com"]
        );
        assert!(domains("203.0.113.7").is_empty() && domains("::1").is_empty());
        let long = format!("{}evil.example", "x.".repeat(100));
        assert_eq!(domains(&long)[1], "evil.example");
        assert_eq!(path_of("https://a"), None);
        assert_eq!(path_of("https://a/b#c"), Some("/b"));
        assert_eq!(path_of("a.b:443"), None);
    }
}
