use super::{
    BodyView, GrpcMessage, GrpcView, MessageView, Operation, WsDirection, WsView, fixtures::*,
};
use crate::{
    record::Outcome,
    resources::{Action, Mode, Protocol},
    snapshot::Policy,
};

const ALLOW_ALL: &str = "{mode: MODE, rules: [{name: allow, action: Allow}]}";
const DENY_ALL: &str = "{mode: MODE, rules: [{name: deny, action: Deny, message: No.}]}";
const DEFAULT_DENY: &str = "{mode: MODE, defaultAction: Deny}";
const DEFAULT_DENY_ALLOW: &str =
    "{mode: MODE, defaultAction: Deny, rules: [{name: allow, action: Allow}]}";
const ERROR_DENY: &str =
    "{mode: MODE, rules: [{name: oops, action: Deny, when: 'http.headers[\"x-none\"] == \"1\"'}]}";
const ERROR_ALLOW: &str = "{mode: MODE, defaultAction: Deny, rules: [{name: oops, action: Allow, when: 'http.headers[\"x-none\"] == \"1\"'}]}";
const NOTHING: &str = "{mode: MODE}";

/// Name and spec of each policy: `c:` cluster, `n:` namespaced; `+` Enforce, `-` Audit.
type Policies<'a> = &'a [(&'a str, &'a str)];

fn policies(list: Policies<'_>) -> Vec<Policy> {
    list.iter()
        .map(|(name, spec)| {
            let mode = if name.ends_with('+') {
                "Enforce"
            } else {
                "Audit"
            };
            let spec = spec.replace("MODE", mode);
            match name.split_at(2) {
                ("c:", rest) => cluster(rest, &spec),
                (_, rest) => namespaced(rest, &spec),
            }
        })
        .collect()
}

/// A message on a connection that a GET to `ws.example.com` opened.
fn message<'a>(direction: WsDirection, message: MessageView<'a>) -> Operation<'a> {
    Operation {
        ws: Some(WsView {
            direction,
            binary: matches!(message, MessageView::Binary(_)),
            message,
        }),
        ..get("ws.example.com")
    }
}

#[test]
fn rules_that_read_ws_are_about_messages_and_no_other_rule_is() {
    let snapshot = compile(vec![
        namespaced(
            "chat",
            r#"
mode: Enforce
defaultAction: Deny
rules:
  - {name: chat, match: {hosts: [ws.example.com]}, action: Allow}
  - name: no-drop
    match: {hosts: [ws.example.com]}
    when: ws.direction == "send" && has(ws.json) && ws.json.action == "drop"
    action: Deny
"#,
        ),
        namespaced(
            "watch",
            r#"
rules:
  - {name: no-binary, when: ws.binary && http.path == "/", action: Deny}
"#,
        ),
    ]);
    let decide = |operation: &Operation<'_>| line(&decide(&snapshot, operation));
    assert_eq!(decide(&get("ws.example.com")), "Allow team/chat chat rule");
    let text = |text| MessageView::Text(text);
    for (operation, expected) in [
        (
            message(WsDirection::Send, text("hello")),
            "Allow - - default",
        ),
        (
            message(WsDirection::Send, text(r#"{"action": "drop"}"#)),
            "Deny team/chat no-drop rule",
        ),
        (
            message(WsDirection::Receive, text(r#"{"action": "drop"}"#)),
            "Allow - - default",
        ),
        (
            message(WsDirection::Send, MessageView::Binary(3)),
            "Allow+wouldDeny team/watch no-binary rule",
        ),
        (
            message(WsDirection::Send, MessageView::TooLarge),
            "Deny team/chat no-drop evaluation-error",
        ),
    ] {
        assert_eq!(decide(&operation), expected, "{operation:?}");
    }
}

#[test]
fn rules_that_read_a_grpc_message_are_about_messages_and_what_cannot_be_read_denies() {
    let snapshot = compile(vec![namespaced(
        "orders",
        r#"
mode: Enforce
defaultAction: Deny
rules:
  - {name: shop, match: {hosts: [shop.example.com]}, action: Allow}
  - name: small
    match: {hosts: [shop.example.com]}
    when: grpc.direction == "send" && grpc.message.total > 1000
    action: Deny
"#,
    )]);
    let decide = |operation: &Operation<'_>| line(&decide(&snapshot, operation));
    let call = get("shop.example.com");
    let message = |direction, message| Operation {
        grpc: Some(GrpcView { direction, message }),
        ..call
    };
    let total = |json| GrpcMessage::Json(json);
    assert_eq!(decide(&call), "Allow team/orders shop rule");
    for (operation, expected) in [
        (
            message(WsDirection::Send, total(r#"{"total": 1001}"#)),
            "Deny team/orders small rule",
        ),
        (
            message(WsDirection::Send, total(r#"{"total": 9}"#)),
            "Allow - - default",
        ),
        (
            message(WsDirection::Receive, total(r#"{"total": 1001}"#)),
            "Allow - - default",
        ),
        (
            message(WsDirection::Send, GrpcMessage::Unreadable("no")),
            "Deny team/orders small evaluation-error",
        ),
    ] {
        assert_eq!(decide(&operation), expected, "{operation:?}");
    }
}

#[test]
fn every_row_of_the_merge_semantics_holds() {
    let rows: &[(&str, Policies<'_>, &str)] = &[
        ("no policy", &[], "Allow - - default"),
        ("nothing said", &[("n:a+", NOTHING)], "Allow - - default"),
        // 1. any matching Deny denies, a cluster policy's is reported first
        ("deny", &[("n:a+", DENY_ALL)], "Deny team/a+ deny rule"),
        (
            "deny beats allow",
            &[("n:a+", ALLOW_ALL), ("n:b+", DENY_ALL)],
            "Deny team/b+ deny rule",
        ),
        (
            "deny beats a cluster's allow",
            &[("c:a+", ALLOW_ALL), ("n:b+", DENY_ALL)],
            "Deny team/b+ deny rule",
        ),
        (
            "cluster deny reported first",
            &[("n:a+", DENY_ALL), ("c:z+", DENY_ALL)],
            "Deny z+ deny rule",
        ),
        // 2. a cluster default Deny is lifted by a cluster Allow only
        (
            "cluster default",
            &[("c:a+", DEFAULT_DENY)],
            "Deny a+ - default",
        ),
        (
            "namespaced allow cannot lift it",
            &[("c:a+", DEFAULT_DENY), ("n:b+", ALLOW_ALL)],
            "Deny a+ - default",
        ),
        (
            "its own allow lifts it",
            &[("c:a+", DEFAULT_DENY_ALLOW)],
            "Allow a+ allow rule",
        ),
        (
            "another cluster policy's allow lifts it",
            &[("c:a+", DEFAULT_DENY), ("c:b+", ALLOW_ALL)],
            "Allow b+ allow rule",
        ),
        // 3. any matching Allow allows
        (
            "allow beats a namespaced default",
            &[("n:a+", DEFAULT_DENY), ("n:b+", ALLOW_ALL)],
            "Allow team/b+ allow rule",
        ),
        (
            "cluster allow beats a namespaced default",
            &[("n:a+", DEFAULT_DENY), ("c:b+", ALLOW_ALL)],
            "Allow b+ allow rule",
        ),
        // 4. a namespaced default
        (
            "namespaced default",
            &[("n:a+", DEFAULT_DENY)],
            "Deny team/a+ - default",
        ),
        // twice: what happens, and what would
        (
            "audit denies nothing",
            &[("n:a-", DENY_ALL)],
            "Allow+wouldDeny team/a- deny rule",
        ),
        (
            "audit default",
            &[("n:a-", DEFAULT_DENY)],
            "Allow+wouldDeny team/a- - default",
        ),
        (
            "audit allow is cited",
            &[("n:a-", ALLOW_ALL)],
            "Allow team/a- allow rule",
        ),
        (
            "an audit allow never lifts an enforced default",
            &[("n:a+", DEFAULT_DENY), ("n:b-", ALLOW_ALL)],
            "Deny team/a+ - default",
        ),
        (
            "an audit cluster allow never lifts an enforced cluster default",
            &[("c:a+", DEFAULT_DENY), ("c:b-", ALLOW_ALL)],
            "Deny a+ - default",
        ),
        (
            "enforced allow, audit deny",
            &[("n:a+", ALLOW_ALL), ("n:b-", DENY_ALL)],
            "Allow+wouldDeny team/b- deny rule",
        ),
        (
            "enforced deny is what is reported, not an audit cluster deny",
            &[("n:a+", DENY_ALL), ("c:b-", DENY_ALL)],
            "Deny team/a+ deny rule",
        ),
        (
            "an enforced allow is cited before an audit one",
            &[("n:b+", ALLOW_ALL), ("c:a-", ALLOW_ALL)],
            "Allow team/b+ allow rule",
        ),
        // errors fail closed on both sides
        (
            "error in a deny rule",
            &[("n:a+", ERROR_DENY)],
            "Deny team/a+ oops evaluation-error",
        ),
        (
            "error in an allow rule",
            &[("n:a+", ERROR_ALLOW)],
            "Deny team/a+ - default",
        ),
        (
            "error in an audit deny rule",
            &[("n:a-", ERROR_DENY)],
            "Allow+wouldDeny team/a- oops evaluation-error",
        ),
    ];
    for (what, list, expected) in rows {
        let decision = decide(&compile(policies(list)), &get("api.example.com"));
        assert_eq!(line(&decision), *expected, "{what}");
        let errs = list.iter().any(|(_, spec)| spec.contains("oops"));
        assert_eq!(decision.error.is_some(), errs, "{what}");
    }
}

#[test]
fn a_decision_carries_the_message_of_a_denial_only() {
    let denied = decide(
        &compile(policies(&[("n:a+", DENY_ALL)])),
        &get("api.example.com"),
    );
    assert_eq!(denied.message.as_deref(), Some("No."));
    let would = decide(
        &compile(policies(&[("n:a-", DENY_ALL)])),
        &get("api.example.com"),
    );
    assert_eq!(would.message.as_deref(), Some("No."));
    let spec = "{rules: [{name: allow, action: Allow, message: Yes.}]}";
    let allowed = decide(
        &compile(vec![namespaced("a", spec)]),
        &get("api.example.com"),
    );
    assert_eq!(allowed.message, None);
}

#[test]
fn an_error_names_policy_rule_and_reason_but_no_value() {
    let spec =
        r#"{mode: Enforce, rules: [{name: sum, action: Deny, when: 'int(http.query.n) > 1'}]}"#;
    let snapshot = compile(vec![namespaced("web", spec)]);
    let mut operation = get("api.example.com");
    let http = operation.http.as_mut().unwrap();
    http.query = "n=top-secret";
    assert_eq!(
        decide(&snapshot, &operation).error.as_deref(),
        Some("policy team/web, rule sum: int() cannot take this value")
    );
}

#[test]
fn unread_protocols_are_refused_in_enforce_unless_a_rule_allows_them() {
    let allow = "{mode: MODE, rules: [{name: db, match: {protocols: [tcp], hosts: [10.0.0.0/8], ports: [5432]}, action: Allow}]}";
    let rows: &[(Policies<'_>, Protocol, &str, &str)] = &[
        (&[], Protocol::Tcp, "10.1.2.3", "Allow - - default"),
        (
            &[("n:a-", NOTHING)],
            Protocol::Tcp,
            "10.1.2.3",
            "Allow+wouldDeny - - opaque",
        ),
        (
            &[("n:a+", NOTHING)],
            Protocol::Tcp,
            "10.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", NOTHING)],
            Protocol::Tls,
            "10.1.2.3",
            "Allow - - default",
        ),
        (
            &[("n:a+", NOTHING)],
            Protocol::Udp,
            "10.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", allow)],
            Protocol::Tcp,
            "10.1.2.3",
            "Allow team/a+ db rule",
        ),
        (
            &[("n:a+", allow)],
            Protocol::Tcp,
            "11.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", allow)],
            Protocol::Udp,
            "10.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", NOTHING), ("n:b-", allow)],
            Protocol::Tcp,
            "10.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", ALLOW_ALL)],
            Protocol::Tcp,
            "10.1.2.3",
            "Allow team/a+ allow rule",
        ),
        (
            &[("n:a+", ALLOW_ALL)],
            Protocol::Udp,
            "10.1.2.3",
            "Deny - - opaque",
        ),
        (
            &[("n:a+", DENY_ALL)],
            Protocol::Udp,
            "10.1.2.3",
            "Deny team/a+ deny rule",
        ),
    ];
    for (list, protocol, ip, expected) in rows {
        let snapshot = compile(policies(list));
        let decision = decide(&snapshot, &unread(*protocol, ip, 5432));
        assert_eq!(line(&decision), *expected, "{list:?} {protocol:?} {ip}");
    }
}

#[test]
fn on_selects_by_protocol_host_port_and_method() {
    let matches = |on: &str, operation: &Operation<'_>| {
        let spec = format!("{{rules: [{{name: r, match: {on}, action: Deny}}]}}");
        let decision = decide(&compile(vec![namespaced("p", &spec)]), operation);
        decision.rule.is_some()
    };
    let del = request("DELETE", "files.example.com", "/x");
    let rows = [
        ("{}", true),
        ("{methods: [DELETE]}", true),
        ("{methods: [GET, HEAD]}", false),
        ("{protocols: [http]}", true),
        ("{protocols: [tls, tcp]}", false),
        ("{hosts: [files.example.com]}", true),
        ("{hosts: [FILES.example.com.]}", true),
        ("{hosts: ['*.example.com']}", true),
        ("{hosts: ['*']}", true),
        ("{hosts: [example.com]}", false),
        ("{hosts: [192.0.2.0/24]}", true),
        ("{hosts: [192.0.2.10]}", true),
        ("{hosts: [192.0.2.11, 198.51.100.0/24]}", false),
        ("{hosts: [other.example.com, '*.example.com']}", true),
        ("{ports: [443]}", true),
        ("{ports: [80, 8080]}", false),
        (
            "{hosts: ['*.example.com'], ports: [443], methods: [DELETE]}",
            true,
        ),
        (
            "{hosts: ['*.example.com'], ports: [80], methods: [DELETE]}",
            false,
        ),
    ];
    for (on, expected) in rows {
        assert_eq!(matches(on, &del), expected, "{on}");
    }
    let lower = request("delete", "files.example.com", "/x");
    assert!(matches("{methods: [DELETE]}", &lower));
    let ssh = unread(Protocol::Tcp, "192.0.2.10", 22);
    assert!(matches("{ports: [22]}", &ssh));
    assert!(!matches("{methods: [GET]}", &ssh));
}

#[test]
fn a_rule_on_a_grpc_method_denies_that_call_alone() {
    let when = "grpc.service == \"acme.v1.Orders\" && grpc.method == \"Delete\"";
    let spec = format!("{{mode: Enforce, rules: [{{name: r, action: Deny, when: '{when}'}}]}}");
    let compiled = compile(vec![namespaced("p", &spec)]);
    for (path, content_type, outcome) in [
        (
            "/acme.v1.Orders/Delete",
            Some("application/grpc"),
            Outcome::Deny,
        ),
        (
            "/acme.v1.Orders/%44elete",
            Some("application/grpc-web+proto"),
            Outcome::Deny,
        ),
        (
            "/acme.v1.Orders/Get",
            Some("application/grpc"),
            Outcome::Allow,
        ),
        (
            "/acme.v1.Orders/Delete",
            Some("application/json"),
            Outcome::Allow,
        ),
        // It could be read in two ways, and an error of a Deny rule is a match.
        (
            "/acme.v1.Orders/x/../Delete",
            Some("application/grpc"),
            Outcome::Deny,
        ),
    ] {
        let mut operation = request("POST", "a.example.com", path);
        if let Some(http) = &mut operation.http {
            http.content_type = content_type;
        }
        assert_eq!(
            decide(&compiled, &operation).outcome,
            outcome,
            "{path} {content_type:?}"
        );
    }
}

#[test]
fn a_rule_that_reads_http_is_about_http_only() {
    let spec = "{rules: [{name: r, action: Deny, when: 'http.method == \"GET\"'}]}";
    let snapshot = compile(vec![namespaced("p", spec)]);
    assert!(decide(&snapshot, &get("a.example.com")).would_deny);
    let tls = decide(&snapshot, &unread(Protocol::Tls, "192.0.2.10", 443));
    assert!(!tls.would_deny && tls.error.is_none());
}

#[test]
fn a_body_is_needed_only_where_a_candidate_reads_it() {
    let spec = "{rules: [{name: r, match: {hosts: [a.example.com]}, action: Deny, when: 'has(http.body) && http.body.drop == true'}]}";
    let snapshot = compile(vec![namespaced("p", spec)]);
    assert!(snapshot.candidates(&get("a.example.com")).needs_body());
    assert!(!snapshot.candidates(&get("b.example.com")).needs_body());
    let with = |body| {
        let mut operation = get("a.example.com");
        operation.http.as_mut().unwrap().body = body;
        let decision = decide(&snapshot, &operation);
        (decision.would_deny, decision.error.is_some())
    };
    assert_eq!(
        with(BodyView::Complete(br#"{"drop": true}"#)),
        (true, false)
    );
    assert_eq!(
        with(BodyView::Complete(br#"{"drop": false}"#)),
        (false, false)
    );
    assert_eq!(with(BodyView::Complete(br#"{}"#)), (true, true));
    assert_eq!(with(BodyView::Complete(b"")), (false, false));
    assert_eq!(with(BodyView::Complete(b"not json")), (false, false));
    assert_eq!(with(BodyView::TooLarge), (true, true));
    assert_eq!(with(BodyView::NotRead), (true, true));
}

#[test]
fn a_snapshot_takes_the_highest_mode_level_and_body_size() {
    let none = compile(vec![]);
    assert_eq!(none.mode(), Mode::Audit);
    assert_eq!(none.max_body_bytes(), crate::resources::DEFAULT_BODY_BYTES);
    let snapshot = compile(vec![
        namespaced(
            "a",
            "{audit: {level: Request, maxBodyBytes: 10, commit: Disk}}",
        ),
        cluster(
            "b",
            "{mode: Enforce, audit: {level: Metadata, maxBodyBytes: 20}}",
        ),
    ]);
    assert_eq!(snapshot.mode(), Mode::Enforce);
    assert_eq!(snapshot.audit_level(), crate::resources::Level::Request);
    assert_eq!(snapshot.max_body_bytes(), 20);
    assert_eq!(none.audit_commit(), crate::resources::Commit::Async);
    assert_eq!(snapshot.audit_commit(), crate::resources::Commit::Disk);
    assert_eq!(snapshot.policies(), ["b@1", "team/a@1"]);
}

#[test]
fn passthrough_lists_of_all_policies_count() {
    let snapshot = compile(vec![
        namespaced("a", "{tls: {passthrough: [pinned.example.com]}}"),
        cluster("b", "{tls: {passthrough: ['*.bank.example']}}"),
    ]);
    for (sni, expected) in [
        ("pinned.example.com", true),
        ("PINNED.example.com", true),
        ("a.bank.example", true),
        ("bank.example", false),
        ("x.pinned.example.com", false),
    ] {
        assert_eq!(snapshot.is_passthrough(sni), expected, "{sni}");
    }
}

#[test]
fn masks_apply_by_host_and_port_and_equal_sets_are_shared() {
    let snapshot = compile(vec![namespaced(
        "a",
        "{masks: [{name: pii, match: {hosts: ['*.internal']}, detectors: [email]}, {name: ids, match: {ports: [8443]}, patterns: [{name: id, pattern: 'ID-[0-9]{6}'}]}]}",
    )]);
    let ip = "192.0.2.1".parse().unwrap();
    let names = |host, port| -> Vec<String> {
        let set = snapshot.masks_for(host, ip, port);
        let response = set.response.iter().flat_map(|masks| masks.rules());
        response.map(|rule| rule.detector.to_string()).collect()
    };
    assert_eq!(names(Some("a.example.com"), 443), [""; 0]);
    assert_eq!(names(Some("Api.Internal"), 443), ["email"]);
    assert_eq!(names(None, 8443), ["id"]);
    assert_eq!(names(Some("api.internal"), 8443), ["email", "id"]);
    let one = snapshot.masks_for(Some("a.internal"), ip, 443);
    let two = snapshot.masks_for(Some("b.internal"), ip, 80);
    assert!(std::sync::Arc::ptr_eq(&one.records, &two.records));
    assert!(!snapshot.masks_for(None, ip, 443).records.is_empty());
}

#[test]
fn datagram_rules_are_the_enforced_ones_in_the_order_of_the_merge() {
    let snapshot = compile(vec![
        namespaced(
            "a",
            "{mode: Enforce, rules: [{name: ntp, match: {protocols: [udp], hosts: [10.0.0.0/8], ports: [123]}, action: Allow}, {name: ping, match: {protocols: [icmp], hosts: ['*']}, action: Allow}]}",
        ),
        namespaced(
            "b",
            "{mode: Audit, rules: [{name: x, match: {protocols: [udp], hosts: ['*']}, action: Allow}]}",
        ),
        namespaced(
            "c",
            "{mode: Enforce, rules: [{name: no, match: {hosts: [10.9.0.0/16, evil.example]}, action: Deny}]}",
        ),
    ]);
    let rules: Vec<String> = snapshot
        .datagram_rules()
        .iter()
        .map(|r| {
            format!(
                "{:?} {} {} {:?}",
                r.action,
                r.protocol.as_str(),
                r.net,
                r.ports
            )
        })
        .collect();
    assert_eq!(
        rules,
        [
            "Deny udp 10.9.0.0/16 []",
            "Deny icmp 10.9.0.0/16 []",
            "Allow udp 10.0.0.0/8 [123]",
            "Allow icmp 0.0.0.0/0 []",
            "Allow icmp ::/0 []",
        ]
    );
    let guarded = compile(vec![
        cluster("g", "{mode: Enforce, defaultAction: Deny}"),
        namespaced(
            "a",
            "{mode: Enforce, rules: [{name: all, match: {protocols: [udp], hosts: ['*']}, action: Allow}]}",
        ),
    ]);
    assert!(
        guarded
            .datagram_rules()
            .iter()
            .all(|r| r.action == Action::Deny)
    );
}

const NAMED: &str = "{mode: MODE, defaultAction: Deny, rules: [{name: api, match: {hosts: [api.example.com, '*.cdn.example'], methods: [GET], ports: [443]}, action: Allow}, {name: net, match: {hosts: [10.0.0.0/8]}, action: Allow}]}";
const DNS_DENY: &str = "{mode: MODE, rules: [{name: names, match: {protocols: [dns], hosts: ['*.evil.example']}, action: Deny, message: No.}]}";
const DNS_TYPES: &str = "{mode: MODE, rules: [{name: types, when: 'dns.type == \"A\" && dns.name.endsWith(\".odd\")', action: Deny}]}";

#[test]
fn queries_are_judged_by_the_name_and_what_rules_allow_can_be_resolved() {
    let towards = ["api.example.com".to_owned()];
    let rows: [(&str, Policies<'_>, &str, &[String], &str); 16] = [
        ("no policy", &[], "a.example", &[], "Allow - - default"),
        (
            "nothing said",
            &[("n:a+", NOTHING)],
            "a.example",
            &[],
            "Allow - - default",
        ),
        (
            "denied by name",
            &[("n:a+", DNS_DENY)],
            "x.evil.example",
            &[],
            "Deny team/a+ names rule",
        ),
        (
            "in Audit",
            &[("n:a-", DNS_DENY)],
            "x.evil.example",
            &[],
            "Allow+wouldDeny team/a- names rule",
        ),
        (
            "another name",
            &[("n:a+", DNS_DENY)],
            "evil.example",
            &[],
            "Allow - - default",
        ),
        (
            "a Deny is about the name alone",
            &[("n:a+", DNS_DENY)],
            "y",
            &["x.evil.example".to_owned()],
            "Allow - - default",
        ),
        (
            "by expression",
            &[("n:a+", DNS_TYPES)],
            "x.odd",
            &[],
            "Deny team/a+ types rule",
        ),
        (
            "by expression, another",
            &[("n:a+", DNS_TYPES)],
            "x.even",
            &[],
            "Allow - - default",
        ),
        (
            "deny all",
            &[("n:a+", DENY_ALL)],
            "a.example",
            &[],
            "Deny team/a+ deny rule",
        ),
        (
            "an allowed host",
            &[("n:a+", NAMED)],
            "api.example.com",
            &[],
            "Allow team/a+ api rule",
        ),
        (
            "below an allowed domain",
            &[("n:a+", NAMED)],
            "x.y.cdn.example",
            &[],
            "Allow team/a+ api rule",
        ),
        (
            "on the way to an allowed host",
            &[("n:a+", NAMED)],
            "api.example.com.svc.cluster.local",
            &towards,
            "Allow team/a+ api rule",
        ),
        (
            "no allowed host; networks name none",
            &[("n:a+", NAMED)],
            "evil.example",
            &[],
            "Deny team/a+ - default",
        ),
        (
            "a cluster's default",
            &[("c:z+", DEFAULT_DENY), ("n:a+", NAMED)],
            "api.example.com",
            &[],
            "Deny z+ - default",
        ),
        (
            "Audit's Allow lifts nothing",
            &[("n:z+", DEFAULT_DENY), ("n:a-", NAMED)],
            "api.example.com",
            &[],
            "Deny team/z+ - default",
        ),
        (
            "an Allow for everything",
            &[("n:a+", DEFAULT_DENY_ALLOW)],
            "a.example",
            &[],
            "Allow team/a+ allow rule",
        ),
    ];
    for (what, list, name, towards, expected) in rows {
        let snapshot = compile(policies(list));
        let decision = decide(&snapshot, &asks(name, towards));
        assert_eq!(line(&decision), expected, "{what}");
    }
}

#[test]
fn a_deny_rule_on_a_host_leaves_its_name_resolvable_so_that_the_agent_is_told_why() {
    let spec = "{mode: Enforce, rules: [{name: no, match: {hosts: [a.example]}, action: Deny}]}";
    let snapshot = compile(vec![namespaced("p", spec)]);
    assert_eq!(
        line(&decide(&snapshot, &asks("a.example", &[]))),
        "Allow - - default"
    );
    assert_eq!(
        line(&decide(&snapshot, &get("a.example"))),
        "Deny team/p no rule"
    );
}

#[test]
fn metadata_addresses_take_an_allow_of_their_own() {
    let allow = |host: &str| {
        format!(
            "{{mode: MODE, rules: [{{name: own, match: {{hosts: ['{host}']}}, action: Allow}}]}}"
        )
    };
    let (exact, near, far) = (
        allow("169.254.169.254"),
        allow("169.254.0.0/16"),
        allow("0.0.0.0/0"),
    );
    let rows: [(&str, Policies<'_>, &str); 9] = [
        ("no policy", &[], "Allow+wouldDeny - - metadata-address"),
        (
            "Audit",
            &[("n:a-", NOTHING)],
            "Allow+wouldDeny - - metadata-address",
        ),
        ("Enforce", &[("n:a+", NOTHING)], "Deny - - metadata-address"),
        (
            "an Allow of everything",
            &[("n:a+", ALLOW_ALL)],
            "Deny - - metadata-address",
        ),
        (
            "a large network",
            &[("n:a+", &far)],
            "Deny - - metadata-address",
        ),
        ("the address", &[("n:a+", &exact)], "Allow team/a+ own rule"),
        (
            "its network, after others",
            &[("n:A+", ALLOW_ALL), ("n:a+", &near)],
            "Allow team/a+ own rule",
        ),
        (
            "an Audit policy's",
            &[("n:a-", &exact), ("n:b+", NOTHING)],
            "Deny - - metadata-address",
        ),
        (
            "a Deny says more",
            &[("n:a+", &exact), ("n:b+", DENY_ALL)],
            "Deny team/b+ deny rule",
        ),
    ];
    for (what, list, expected) in rows {
        let snapshot = compile(policies(list));
        for ip in ["169.254.169.254", "::ffff:169.254.169.254"] {
            for protocol in [Protocol::Http, Protocol::Tls, Protocol::Tcp] {
                let decision = decide(&snapshot, &unread(protocol, ip, 80));
                assert_eq!(line(&decision), expected, "{what} {ip} {protocol:?}");
            }
        }
    }
}

#[test]
fn what_is_closed_without_a_rule_is_opened_by_one_that_names_it() {
    let rule = |matches: &str| {
        format!("{{mode: Enforce, rules: [{{name: r, match: {{{matches}}}, action: Allow}}]}}")
    };
    for (matches, opens) in [
        ("protocols: [dns], hosts: ['*.example']", true),
        ("protocols: [dns], hosts: ['*']", false),
        ("protocols: [dns]", false),
        ("hosts: ['*.example']", false),
        ("hosts: [10.1.0.0/16]", true),
        ("hosts: [10.0.0.0/8]", false),
    ] {
        let snapshot = compile(vec![namespaced("p", &rule(matches))]);
        let mut operation = asks("a.example", &[]);
        operation.destination.ip = "10.1.2.3".parse().unwrap();
        assert_eq!(
            snapshot.opens(Mode::Enforce, &agent(), &operation),
            opens,
            "{matches}"
        );
        let audit = rule(matches).replace("Enforce", "Audit");
        let snapshot = compile(vec![namespaced("p", &audit)]);
        assert!(
            !snapshot.opens(Mode::Enforce, &agent(), &operation),
            "{matches}"
        );
        assert_eq!(
            snapshot.opens(Mode::Audit, &agent(), &operation),
            opens,
            "{matches}"
        );
    }
}
