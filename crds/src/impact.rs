//! What a candidate policy would have done: a function of the policy and a record.
//!
//! Owns how an operation is made again of its record. Refuses to guess: where policy looks at what the record has not (header fields and bodies below their audit level, values that were masked, a body that was cut), the answer is that it is not
//! known, and why. Invariant: the same compiler and the same `decide` as the sidecar's answer; the candidate is asked alone and as if it were enforced. What it denies by a rule is then denied whatever else is in force; what it denies by default,
//! an Allow of another policy may let pass.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    compile::{CompiledSnapshot, PolicyErrors},
    decide::{BodyView, Decision, Destination, DnsView, HttpView, NO_FIELDS, Operation, Reason},
    pod::PodIdentity,
    record::{DecisionInfo, Event, EventKind, HttpInfo, Outcome, Record},
    resources::{Mode, Protocol},
    snapshot::{Policy, Snapshot},
};

/// Words of `decision.reason` that are policy's to say.
const OF_POLICY: [&str; 5] = [
    "rule",
    "default",
    "evaluation-error",
    "opaque",
    "metadata-address",
];
/// How values begin that masking left in a record (docs/masking.md), also where they stand in a URL.
const MASKS: [&str; 6] = [
    "[masked",
    "[hash:",
    "[secret]",
    "tok_",
    "%5Bmasked",
    "%5Bhash:",
];

/// A policy that is not in force.
#[derive(Debug)]
pub struct Candidate {
    snapshot: CompiledSnapshot,
    /// Its name, as records have it.
    name: String,
}

/// What it would have done with an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Impact {
    /// The same.
    Same,
    /// It passed, and would have been denied.
    Denied {
        /// By this rule; none: by default, which another policy's Allow may lift.
        rule: Option<String>,
        /// Why, as a word of `decision.reason`.
        reason: &'static str,
    },
    /// It was denied by the policy of this name, which as it is now would not.
    Lifted,
    /// It was denied by what is built in: no policy changes that.
    BuiltIn,
    /// It is not known: why, in a sentence.
    Unknown(&'static str),
}

impl Candidate {
    /// Compiles it, as admission does.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(policy: &Policy) -> Result<Self, PolicyErrors> {
        let policy = Policy {
            mode: Mode::Enforce,
            ..policy.clone()
        };
        let name = policy.reference.to_string();
        let snapshot = CompiledSnapshot::compile(&Snapshot::new(vec![policy]))?;
        Ok(Self { snapshot, name })
    }

    /// What it would have done with what this record is about, of this pod. None: the record is about no operation, or about one that another record has.
    #[must_use]
    pub fn judge(&self, record: &Record, agent: &PodIdentity) -> Option<Impact> {
        let event = &record.event;
        let (was, operation) = (event.decision.as_ref()?, event.operation.as_ref()?);
        match event.kind {
            EventKind::Http | EventKind::Dns | EventKind::Gap => {}
            EventKind::WsMessage => {
                return Some(Impact::Unknown(
                    "the record of a message has not the handshake that opened its connection",
                ));
            }
            _ => return None,
        }
        if !OF_POLICY.contains(&was.reason.as_str()) {
            return Some(match was.action {
                Outcome::Deny => Impact::BuiltIn,
                Outcome::Allow => Impact::Same,
            });
        }
        if MASKS.iter().any(|mask| operation.resource.contains(mask)) {
            return Some(Impact::Unknown("a part of its URL was masked"));
        }
        Some(
            self.decide(event, was, agent)
                .unwrap_or_else(Impact::Unknown),
        )
    }

    fn decide(
        &self,
        event: &Event,
        was: &DecisionInfo,
        agent: &PodIdentity,
    ) -> Result<Impact, &'static str> {
        let said = event.operation.as_ref().ok_or("it names no operation")?;
        let protocol = protocol(&said.protocol).ok_or("its protocol is not known")?;
        let to = event.destination.as_ref();
        let name = said.resource.trim_end_matches('.').to_lowercase();
        let host = match protocol {
            Protocol::Dns => Some(name.as_str()),
            _ => to.and_then(|to| to.host.as_deref()),
        };
        let ip = to.map_or(Ok(IpAddr::from([0, 0, 0, 0])), |to| to.ip.parse());
        let fields = headers(event.http.as_ref());
        let url = match protocol {
            Protocol::Http => Some(Url::of(&said.resource).ok_or("its URL cannot be read")?),
            _ => None,
        };
        let mut operation = Operation {
            protocol,
            verb: &said.verb,
            resource: &said.resource,
            destination: Destination {
                host,
                ip: ip.map_err(|_| "its address cannot be read")?,
                port: to.map_or(0, |to| to.port),
                sni: to.and_then(|to| to.sni.as_deref()),
            },
            http: url.as_ref().map(|url| HttpView {
                method: &said.verb,
                scheme: url.scheme,
                host: url.host,
                path: url.path,
                query: url.query,
                headers: &fields,
                content_type: text(&fields, "content-type"),
                body_size: text(&fields, "content-length").and_then(|size| size.parse().ok()),
                body: BodyView::NotRead,
                trailers: NO_FIELDS,
            }),
            ws: None,
            grpc: None,
            dns: (protocol == Protocol::Dns).then_some(DnsView {
                name: &name,
                kind: &said.verb,
                towards: &[],
            }),
        };
        if event.grpc.is_some() && self.snapshot.reads_grpc_messages() {
            return Err("a rule reads messages of gRPC, each of which is judged by itself");
        }
        let candidates = self.snapshot.candidates(&operation);
        if candidates.needs_head() {
            head_is_known(event.http.as_ref(), &fields)?;
        }
        if candidates.needs_body()
            && let Some(http) = &mut operation.http
        {
            http.body = BodyView::Complete(body(event)?);
        }
        let decision = candidates.decide(agent, &operation);
        Ok(self.compare(was, &decision))
    }

    fn compare(&self, was: &DecisionInfo, now: &Decision) -> Impact {
        let own = was.policy.as_deref() == Some(self.name.as_str());
        match (was.action, now.outcome) {
            (Outcome::Allow, Outcome::Deny) => Impact::Denied {
                rule: now
                    .rule
                    .as_ref()
                    .filter(|_| matches!(now.reason, Reason::Rule | Reason::EvaluationError))
                    .map(ToString::to_string),
                reason: now.reason.as_str(),
            },
            (Outcome::Deny, Outcome::Allow) if own => Impact::Lifted,
            _ => Impact::Same,
        }
    }
}

fn protocol(word: &str) -> Option<Protocol> {
    use Protocol::{Dns, Http, Icmp, Tcp, Tls, Udp};
    [Http, Tls, Tcp, Udp, Icmp, Dns]
        .into_iter()
        .find(|protocol| protocol.as_str() == word)
}

/// A URL of a record, taken apart. Its authority may have a port.
struct Url<'u> {
    scheme: &'u str,
    host: &'u str,
    path: &'u str,
    query: &'u str,
}

impl<'u> Url<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        Some(Self {
            scheme,
            host: host.trim_start_matches('[').trim_end_matches(']'),
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }
}

fn headers(http: Option<&HttpInfo>) -> Vec<(String, Vec<u8>)> {
    let fields = http.and_then(|http| http.request_headers.as_ref());
    let fields = fields.into_iter().flat_map(BTreeMap::iter);
    fields
        .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
        .collect()
}

fn text<'f>(fields: &'f [(String, Vec<u8>)], name: &str) -> Option<&'f str> {
    let found = fields.iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(&found.1).ok()
}

/// Credentials are `[secret]` to policy, whatever they are, and stand masked in records: both tell that they are there.
fn head_is_known(
    http: Option<&HttpInfo>,
    fields: &[(String, Vec<u8>)],
) -> Result<(), &'static str> {
    if http.is_none_or(|http| http.request_headers.is_none()) {
        return Err("a rule reads header fields, which the record has not (audit level)");
    }
    let is_masked = |value: &[u8]| {
        std::str::from_utf8(value).is_ok_and(|text| {
            text != "[masked:credential]" && MASKS.iter().any(|mask| text.contains(mask))
        })
    };
    match fields.iter().any(|(_, value)| is_masked(value)) {
        true => Err("a rule reads header fields, and values in them were masked"),
        false => Ok(()),
    }
}

fn body(event: &Event) -> Result<&[u8], &'static str> {
    let http = event.http.as_ref().ok_or("it has no request")?;
    if http.request_bytes == 0 {
        return Ok(b"");
    }
    let body = http.request_body.as_ref();
    let body = body.ok_or("a rule reads bodies, which the record has not (audit level)")?;
    let text = body.text.as_deref().filter(|_| !body.truncated);
    let text = text.ok_or("a rule reads bodies, and the record has not all of this one")?;
    match MASKS.iter().any(|mask| text.contains(mask)) {
        true => Err("a rule reads bodies, and values in this one were masked"),
        false => Ok(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::fixtures::{agent, namespaced};

    fn candidate(spec: &str) -> Candidate {
        Candidate::new(&namespaced("web", spec)).unwrap()
    }

    fn record(change: impl FnOnce(&mut Value)) -> Record {
        let mut record = json!({
            "v": "chaperone.dev/v1", "stream": "s", "seq": 1, "prev": "00", "time": "t", "kind": "http", "agent": {"namespace": "team", "pod": "claude-0"},
            "destination": {"host": "api.example.com", "ip": "192.0.2.10", "port": 443},
            "operation": {"protocol": "http", "verb": "DELETE", "resource": "https://api.example.com/users/1?x=y"},
            "decision": {"action": "Allow", "mode": "Enforce", "revision": "00", "reason": "default"}, "http": {"status": 200}
        });
        change(&mut record);
        serde_json::from_value(record).unwrap()
    }

    fn judged(spec: &str, change: impl FnOnce(&mut Value)) -> Impact {
        candidate(spec).judge(&record(change), &agent()).unwrap()
    }

    fn denied(rule: Option<&str>, reason: &'static str) -> Impact {
        Impact::Denied {
            rule: rule.map(str::to_owned),
            reason,
        }
    }

    const BY_METHOD: &str = r#"{mode: Audit, rules: [{name: no-delete, when: 'http.method == "DELETE" && http.path == "/users/1" && "x" in http.query', action: Deny}]}"#;
    const BY_HEADER: &str =
        r#"{mode: Enforce, rules: [{name: head, when: '"x-team" in http.headers', action: Deny}]}"#;
    const BY_BODY: &str =
        r#"{mode: Enforce, rules: [{name: body, when: 'http.body.a == 1', action: Deny}]}"#;

    #[test]
    fn what_passed_and_would_be_denied_is_told_with_the_rule_also_of_a_policy_in_audit() {
        assert_eq!(judged(BY_METHOD, |_| {}), denied(Some("no-delete"), "rule"));
        let get = |r: &mut Value| r["operation"]["verb"] = json!("GET");
        assert_eq!(judged(BY_METHOD, get), Impact::Same);
        let closed = "{mode: Enforce, defaultAction: Deny}";
        assert_eq!(judged(closed, |_| {}), denied(None, "default"));
        let gap = |r: &mut Value| {
            r["kind"] = json!("gap");
            r["operation"] =
                json!({"protocol": "tcp", "verb": "connect", "resource": "192.0.2.10:443"});
        };
        assert_eq!(judged(BY_METHOD, gap), denied(None, "opaque"));
        let dns = |r: &mut Value| {
            r["kind"] = json!("dns");
            r["operation"] =
                json!({"protocol": "dns", "verb": "A", "resource": "Api.Example.com."});
        };
        let names = r#"{mode: Enforce, rules: [{name: n, match: {protocols: [dns], hosts: [api.example.com]}, action: Deny}]}"#;
        assert_eq!(judged(names, dns), denied(Some("n"), "rule"));
    }

    #[test]
    fn what_the_policy_itself_denied_may_be_lifted_and_what_others_did_is_not() {
        let by = |policy: &str| {
            let decision = json!({"action": "Deny", "mode": "Enforce", "revision": "00", "reason": "rule", "policy": policy, "rule": "old"});
            move |r: &mut Value| {
                r["decision"] = decision;
                r["operation"]["verb"] = json!("GET");
            }
        };
        assert_eq!(judged(BY_METHOD, by("team/web")), Impact::Lifted);
        assert_eq!(judged(BY_METHOD, by("team/other")), Impact::Same);
        let built_in = |r: &mut Value| r["decision"] = json!({"action": "Deny", "mode": "Enforce", "revision": "00", "reason": "host-mismatch"});
        assert_eq!(judged(BY_METHOD, built_in), Impact::BuiltIn);
    }

    #[test]
    fn what_the_record_has_not_is_not_guessed() {
        let unknown = |impact| matches!(impact, Impact::Unknown(_));
        assert!(unknown(judged(BY_HEADER, |_| {})));
        let with = |headers: Value| move |r: &mut Value| r["http"]["requestHeaders"] = headers;
        let there = with(json!({"x-team": "a", "authorization": "[masked:credential]"}));
        assert_eq!(judged(BY_HEADER, there), denied(Some("head"), "rule"));
        assert_eq!(judged(BY_HEADER, with(json!({}))), Impact::Same);
        assert!(unknown(judged(
            BY_HEADER,
            with(json!({"x": "[masked:email]"}))
        )));
        let masked =
            |r: &mut Value| r["operation"]["resource"] = json!("https://a.example/[masked:email]");
        assert!(unknown(judged(BY_METHOD, masked)));

        let body = |body: Value| {
            move |r: &mut Value| {
                r["http"] = json!({"requestBytes": 7, "requestHeaders": {"content-type": "application/json"}, "requestBody": body});
            }
        };
        assert_eq!(
            judged(BY_BODY, body(json!({"text": "{\"a\":1}"}))),
            denied(Some("body"), "rule")
        );
        assert_eq!(
            judged(BY_BODY, body(json!({"text": "{\"a\":2}"}))),
            Impact::Same
        );
        for other in [
            json!({"text": "{\"a\":1", "truncated": true}),
            json!({"omitted": "binary"}),
            json!({"text": "{\"a\":\"[masked:email]\"}"}),
        ] {
            assert!(unknown(judged(BY_BODY, body(other))));
        }
        let message = |r: &mut Value| r["kind"] = json!("ws.message");
        assert!(unknown(judged(BY_METHOD, message)));
    }

    #[test]
    fn records_of_no_operation_are_passed_over_and_odd_ones_never_panic() {
        for kind in ["begin", "ws.close", "connection", "config"] {
            let other = record(|r| r["kind"] = json!(kind));
            assert_eq!(candidate(BY_METHOD).judge(&other, &agent()), None);
        }
        for url in [
            "",
            "x",
            "https://",
            "https://ü",
            "http://[::1]:80?",
            "ftp://a/b",
            "https://a:b@c:9/",
        ] {
            let odd = record(|r| r["operation"]["resource"] = json!(url));
            assert!(candidate(BY_METHOD).judge(&odd, &agent()).is_some());
        }
        let odd = record(|r| r["destination"]["ip"] = json!("x"));
        assert!(matches!(
            candidate(BY_METHOD).judge(&odd, &agent()),
            Some(Impact::Unknown(_))
        ));
    }
}
