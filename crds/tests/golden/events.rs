//! Events of every kind, with every field, for the golden files.

use std::collections::BTreeMap;

use chaperone_crds::{
    pod::PodIdentity,
    record::{
        AgentRef, BodyInfo, CertificateInfo, CheckpointInfo, CloseInfo, ConfigInfo, DecisionInfo,
        DestinationInfo, DnsInfo, ErasedInfo, Event, EventKind, GapInfo, GrpcInfo, HoldInfo,
        HttpInfo, IdentityInfo, MaskedInfo, MessageInfo, NewestInfo, OpenInfo, OperationInfo,
        Outcome, PodInfo, ReadInfo, SessionInfo, Timing, WsInfo,
    },
    resources::Mode,
    snapshot::{Policy, Revision, Snapshot},
};

/// Name of the file, byte that the stream's UUID is made of, events.
pub(crate) fn golden_streams() -> Vec<(&'static str, u8, Vec<Event>)> {
    vec![
        (
            "metadata",
            0x11,
            vec![
                open(),
                config(),
                dns(),
                allowed(),
                denied(),
                broken(),
                gap(),
                failed(),
                close(9),
            ],
        ),
        ("bodies", 0x22, vec![open(), with_bodies(), close(3)]),
        ("answered", 0x23, vec![open(), answered(), close(3)]),
        ("conversation", 0x24, vec![open(), told(), close(3)]),
        (
            "websocket",
            0x44,
            vec![open(), message(), denied_message(), ws_close(), close(5)],
        ),
        ("calls", 0x55, vec![open(), withheld(), call(), close(4)]),
        ("proxied", 0x66, vec![open(), proxied(), close(3)]),
        ("certified", 0x77, vec![open(), certified(), close(3)]),
        ("unreported", 0x99, vec![open(), unreported(), close(3)]),
        ("begun", 0x88, vec![open(), begin(), ended(), close(4)]),
        ("elsewhere", 0x99, vec![open(), elsewhere(), close(3)]),
        ("bound", 0xaa, vec![open(), bound(), close(3)]),
        ("onward", 0xbb, vec![open(), onward(), close(3)]),
        ("read", 0xcc, vec![open(), read(), unread(), close(4)]),
        ("quiet", 0xdd, vec![open(), heartbeat(), close(3)]),
        ("explained", 0xee, vec![open(), explained(), close(3)]),
        ("published", 0xef, vec![open(), checkpoint(), close(3)]),
        (
            "kept",
            0xed,
            vec![
                open(),
                erased(),
                erased_on_request(),
                records_erased(),
                hold(),
                release(),
                held(|hold| {
                    hold.session = Some("5b7e4b7c-2a55-4a0e-9f0e-1f2d3c4b5a69".to_owned());
                }),
                held(|hold| {
                    hold.stream = Some("7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned());
                }),
                held(|hold| {
                    hold.everything = true;
                    hold.until = Some("2025-12-01T00:00:00Z".to_owned());
                }),
                close(10),
            ],
        ),
        ("seen", 0xee, vec![open(), running(), gone(), close(4)]),
        (
            "resumed",
            0x33,
            vec![open(), dns(), resume(), allowed(), close(5)],
        ),
    ]
}

fn identity() -> PodIdentity {
    PodIdentity {
        namespace: "agents".to_owned(),
        pod: "claude-6d5f7c9b4-x2x7p".to_owned(),
        uid: "0b8a3c1f-2e4d-4c53-9d5b-7d9f1c1e6f0a".to_owned(),
        service_account: "claude".to_owned(),
        node: "node-1".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "claude".to_owned())]),
        images: vec!["registry.example.com/claude:1.2.3".to_owned()],
    }
}

fn event(kind: EventKind) -> Event {
    Event::new(kind, AgentRef::from(&identity()))
}

fn revision() -> Revision {
    Revision::of(b"golden")
}

fn open() -> Event {
    Event {
        open: Some(OpenInfo {
            identity: identity(),
            version: "0.1.0".to_owned(),
        }),
        ..event(EventKind::StreamOpen)
    }
}

fn resume() -> Event {
    Event {
        kind: EventKind::StreamResume,
        ..open()
    }
}

/// A stream goes on without records that nobody has any more.
fn onward() -> Event {
    let mut event = bound();
    if let Some(identity) = &mut event.identity {
        identity.from = Some(41);
    }
    event
}

fn bound() -> Event {
    Event {
        identity: Some(IdentityInfo {
            stream: "7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned(),
            workload: identity(),
            image_ids: vec![format!(
                "registry.example.com/claude@sha256:{}",
                "5e".repeat(32)
            )],
            from: None,
        }),
        ..event(EventKind::StreamIdentity)
    }
}

fn read() -> Event {
    let query = [("namespace", "agents"), ("q", "\"pull request\"")];
    Event {
        read: Some(ReadInfo {
            user: "auditor@example.com".to_owned(),
            uid: "u-17".to_owned(),
            groups: vec!["auditors".to_owned(), "system:authenticated".to_owned()],
            what: "records".to_owned(),
            query: BTreeMap::from(query.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            records: 100,
            refused: 0,
        }),
        ..event(EventKind::LedgerRead)
    }
}

fn unread() -> Event {
    Event {
        read: Some(ReadInfo {
            user: "system:serviceaccount:agents:claude".to_owned(),
            what: "sessions".to_owned(),
            refused: 3,
            ..ReadInfo::default()
        }),
        ..event(EventKind::LedgerRead)
    }
}

/// The checkpoint of docs/ledger-format.md.
fn checkpoint() -> Event {
    let (origin, root) = (
        "ledger.example/prod",
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
    );
    let signature = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=";
    Event {
        checkpoint: Some(CheckpointInfo {
            origin: origin.to_owned(),
            size: 20_852_163,
            root: root.to_owned(),
            note: format!("{origin}\n20852163\n{root}\n\n— {origin} {signature}\n"),
        }),
        ..event(EventKind::LedgerCheckpoint)
    }
}

/// A rule says that content of a day goes.
fn erased() -> Event {
    Event {
        erased: Some(ErasedInfo {
            what: "content".to_owned(),
            cause: "retention".to_owned(),
            rule: Some("agents, team-*: content 30d".to_owned()),
            sessions: vec!["5b7e4b7c-2a55-4a0e-9f0e-1f2d3c4b5a69".to_owned()],
            streams: vec!["7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned()],
            from: "2025-10-24T00:00:00Z".to_owned(),
            until: "2025-10-25T00:00:00Z".to_owned(),
            keys: 2,
            ..ErasedInfo::default()
        }),
        ..event(EventKind::LedgerErased)
    }
}

/// Somebody had a session's content deleted.
fn erased_on_request() -> Event {
    let session = "5b7e4b7c-2a55-4a0e-9f0e-1f2d3c4b5a69".to_owned();
    Event {
        erased: Some(ErasedInfo {
            what: "content".to_owned(),
            cause: "request".to_owned(),
            user: Some("jane@example.com".to_owned()),
            reason: Some("a person asked".to_owned()),
            session: Some(session.clone()),
            namespace: Some("agents".to_owned()),
            sessions: vec![session],
            streams: vec!["7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned()],
            from: "2025-11-24T00:00:00Z".to_owned(),
            until: "2025-11-25T00:00:00Z".to_owned(),
            keys: 1,
            ..ErasedInfo::default()
        }),
        ..event(EventKind::LedgerErased)
    }
}

/// A rule says that records of many streams go.
fn records_erased() -> Event {
    Event {
        erased: Some(ErasedInfo {
            what: "records".to_owned(),
            cause: "retention".to_owned(),
            rule: Some("default: records 400d".to_owned()),
            streams: vec!["7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d".to_owned()],
            more: 3,
            from: "2024-10-20T00:00:01Z".to_owned(),
            until: "2024-10-20T23:59:59Z".to_owned(),
            records: 31_415,
            ..ErasedInfo::default()
        }),
        ..event(EventKind::LedgerErased)
    }
}

fn held(change: impl FnOnce(&mut HoldInfo)) -> Event {
    let mut hold = HoldInfo {
        name: "case-43".to_owned(),
        reason: "an audit".to_owned(),
        user: "jane@example.com".to_owned(),
        ..HoldInfo::default()
    };
    change(&mut hold);
    Event {
        hold: Some(hold),
        ..event(EventKind::LedgerHold)
    }
}

fn hold() -> Event {
    Event {
        hold: Some(HoldInfo {
            name: "case-42".to_owned(),
            reason: "incident 42 is being looked into".to_owned(),
            user: "jane@example.com".to_owned(),
            namespace: Some("agents".to_owned()),
            pod: Some("claude-6d5f7c9b4-x2x7p".to_owned()),
            from: Some("2025-11-01T00:00:00Z".to_owned()),
            ..HoldInfo::default()
        }),
        ..event(EventKind::LedgerHold)
    }
}

fn release() -> Event {
    Event {
        hold: Some(HoldInfo {
            name: "case-42".to_owned(),
            reason: "closed".to_owned(),
            user: "jane@example.com".to_owned(),
            ..HoldInfo::default()
        }),
        ..event(EventKind::LedgerRelease)
    }
}

fn heartbeat() -> Event {
    event(EventKind::StreamHeartbeat)
}

/// A pod without sidecar, of an audited namespace.
fn running() -> Event {
    Event {
        pod: Some(PodInfo {
            state: "running".to_owned(),
            uid: identity().uid,
            node: "node-1".to_owned(),
            lacks: Some("no-sidecar".to_owned()),
            since: Some("2025-11-24T15:59:58Z".to_owned()),
            after: None,
        }),
        ..event(EventKind::LedgerPod)
    }
}

/// It ended while the ledger did not look.
fn gone() -> Event {
    Event {
        pod: Some(PodInfo {
            state: "ended".to_owned(),
            uid: identity().uid,
            after: Some("2025-11-24T16:00:01.234568Z".to_owned()),
            ..PodInfo::default()
        }),
        ..event(EventKind::LedgerPod)
    }
}

fn close(records: u64) -> Event {
    Event {
        close: Some(CloseInfo {
            records,
            reason: "terminated".to_owned(),
        }),
        ..event(EventKind::StreamClose)
    }
}

fn config() -> Event {
    Event {
        config: Some(ConfigInfo {
            revision: revision(),
            mode: Mode::Enforce,
            policies: vec!["agents/coding-agents@3".to_owned(), "baseline@1".to_owned()],
            snapshot: None,
        }),
        ..event(EventKind::Config)
    }
}

/// Policies with their text.
fn explained() -> Event {
    let spec = serde_json::json!({"mode": "Enforce", "defaultAction": "Allow", "rules": [
        {"name": "no-delete", "action": "Deny", "when": "http.method == \"DELETE\"", "message": "Ask a human."}]});
    let spec = serde_json::from_value(spec).unwrap();
    let snapshot = Snapshot::new(vec![Policy::namespaced(
        "agents",
        "coding-agents",
        3,
        &spec,
    )]);
    Event {
        config: Some(snapshot.recorded(Mode::Enforce)),
        ..event(EventKind::Config)
    }
}

fn dns() -> Event {
    Event {
        operation: Some(OperationInfo {
            protocol: "dns".to_owned(),
            verb: "A".to_owned(),
            resource: "api.example.com".to_owned(),
        }),
        dns: Some(DnsInfo {
            rcode: "NOERROR".to_owned(),
            answers: vec!["203.0.113.7".to_owned()],
            withheld: Vec::new(),
        }),
        timing: Some(Timing {
            total_us: 812,
            ..Timing::default()
        }),
        ..event(EventKind::Dns)
    }
}

/// An answer that the agent got without one of its addresses.
fn withheld() -> Event {
    let mut event = dns();
    event.dns = Some(DnsInfo {
        rcode: "NOERROR".to_owned(),
        answers: vec!["203.0.113.7".to_owned()],
        withheld: vec!["127.0.0.1".to_owned()],
    });
    event
}

/// A gRPC call that streamed both ways.
fn call() -> Event {
    let mut event = exchange("POST", 200);
    event.grpc = Some(GrpcInfo {
        service: "files.v1.Files".to_owned(),
        method: "Read".to_owned(),
        status: Some(0),
        request_messages: 1,
        request_message_bytes: 12,
        response_messages: 3,
        response_message_bytes: 4096,
    });
    event
}

fn message() -> Event {
    Event {
        destination: Some(destination()),
        operation: Some(OperationInfo {
            protocol: "http".to_owned(),
            verb: "receive".to_owned(),
            resource: "https://api.example.com/v1/live".to_owned(),
        }),
        decision: Some(decision(Outcome::Allow)),
        message: Some(MessageInfo {
            connection: 7,
            bytes: 31,
            binary: false,
            body: Some(BodyInfo {
                text: Some("{\"mail\":\"[masked:email]\"}".to_owned()),
                ..BodyInfo::default()
            }),
        }),
        masked: vec![MaskedInfo {
            mask: "pii".to_owned(),
            detector: "email".to_owned(),
            count: 1,
        }],
        timing: Some(Timing {
            total_us: 40,
            decide_us: Some(3),
            ..Timing::default()
        }),
        ..event(EventKind::WsMessage)
    }
}

fn denied_message() -> Event {
    Event {
        message: Some(MessageInfo {
            connection: 7,
            bytes: 4,
            binary: true,
            body: None,
        }),
        masked: Vec::new(),
        decision: Some(decision(Outcome::Deny)),
        ..message()
    }
}

fn ws_close() -> Event {
    Event {
        destination: Some(destination()),
        operation: Some(OperationInfo {
            protocol: "http".to_owned(),
            verb: "close".to_owned(),
            resource: "https://api.example.com/v1/live".to_owned(),
        }),
        ws: Some(WsInfo {
            connection: 7,
            closed_by: "agent".to_owned(),
            code: Some(1000),
            sent_messages: 2,
            sent_bytes: 20,
            received_messages: 1,
            received_bytes: 31,
        }),
        timing: Some(Timing {
            total_us: 2_000_000,
            ..Timing::default()
        }),
        ..event(EventKind::WsClose)
    }
}

fn destination() -> DestinationInfo {
    DestinationInfo {
        host: Some("api.example.com".to_owned()),
        ip: "203.0.113.7".to_owned(),
        original_ip: None,
        port: 443,
        sni: Some("api.example.com".to_owned()),
        proxy: None,
        client_certificate: None,
    }
}

fn decision(action: Outcome) -> DecisionInfo {
    DecisionInfo {
        action,
        would_deny: false,
        mode: Mode::Enforce,
        policy: None,
        rule: None,
        revision: revision(),
        reason: "default".to_owned(),
        message: None,
    }
}

fn proxied() -> Event {
    Event {
        destination: Some(DestinationInfo {
            ip: "203.0.113.9".to_owned(),
            sni: None,
            proxy: Some("203.0.113.9:3128".to_owned()),
            ..destination()
        }),
        ..exchange("GET", 200)
    }
}

/// An exchange with a server that was shown a client certificate.
fn certified() -> Event {
    Event {
        destination: Some(DestinationInfo {
            sni: None,
            client_certificate: Some(CertificateInfo {
                subject: "CN=agents, O=Example".to_owned(),
                sha256: "5e".repeat(32),
            }),
            ..destination()
        }),
        ..exchange("GET", 200)
    }
}

/// An exchange with a server that was not at the address that the agent connected to.
fn elsewhere() -> Event {
    Event {
        destination: Some(DestinationInfo {
            original_ip: Some("2001:db8::7".to_owned()),
            sni: None,
            ..destination()
        }),
        ..exchange("GET", 200)
    }
}

/// What `audit.commit: Disk` adds.
fn begin() -> Event {
    Event {
        kind: EventKind::Begin,
        http: None,
        ..allowed()
    }
}

fn ended() -> Event {
    Event {
        begun: Some(1),
        ..allowed()
    }
}

fn exchange(method: &str, status: u16) -> Event {
    Event {
        destination: Some(DestinationInfo {
            sni: None,
            ..destination()
        }),
        operation: Some(OperationInfo {
            protocol: "http".to_owned(),
            verb: method.to_owned(),
            resource: "https://api.example.com/v1/customers?page=2".to_owned(),
        }),
        decision: Some(decision(Outcome::Allow)),
        http: Some(HttpInfo {
            status: Some(status),
            request_bytes: 0,
            response_bytes: 5120,
            complete: true,
            content_type: Some("application/json".to_owned()),
            ..HttpInfo::default()
        }),
        timing: Some(Timing {
            total_us: 10_482,
            upstream_us: Some(9_917),
            decide_us: Some(3),
        }),
        ..event(EventKind::Http)
    }
}

fn allowed() -> Event {
    let mut event = exchange("GET", 200);
    if let Some(decision) = &mut event.decision {
        decision.mode = Mode::Audit;
        decision.would_deny = true;
        decision.policy = Some("agents/trial".to_owned());
        decision.rule = Some("no-customers".to_owned());
        decision.reason = "rule".to_owned();
    }
    event.session = Some(SessionInfo {
        id: Some("5f0c7d6e-1111-4222-8333-944455556666".to_owned()),
        agent_id: Some("agent-1".to_owned()),
        request_id: Some("req-1".to_owned()),
    });
    event
}

fn denied() -> Event {
    let mut event = exchange("DELETE", 403);
    event.decision = Some(DecisionInfo {
        policy: Some("agents/coding-agents".to_owned()),
        rule: Some("no-delete".to_owned()),
        reason: "rule".to_owned(),
        message: Some("Deleting customers needs a person. Ask #data.".to_owned()),
        ..decision(Outcome::Deny)
    });
    event
}

/// The commonest record: no policy had anything to say.
pub(crate) fn by_default() -> Event {
    let mut event = exchange("GET", 200);
    if let Some(decision) = &mut event.decision {
        decision.mode = Mode::Audit;
    }
    event
}

fn broken() -> Event {
    let mut event = by_default();
    if let Some(http) = &mut event.http {
        http.complete = false;
    }
    event.error = Some("the upstream ended its response early".to_owned());
    event
}

fn gap() -> Event {
    Event {
        destination: Some(DestinationInfo {
            host: None,
            ip: "2001:db8::7".to_owned(),
            original_ip: None,
            port: 22,
            sni: None,
            proxy: None,
            client_certificate: None,
        }),
        operation: Some(OperationInfo {
            protocol: "tcp".to_owned(),
            verb: "connect".to_owned(),
            resource: "[2001:db8::7]:22".to_owned(),
        }),
        decision: Some(decision(Outcome::Allow)),
        gap: Some(GapInfo {
            reason: "opaque".to_owned(),
            detail: Some("the server speaks first".to_owned()),
            sent_bytes: Some(1042),
            received_bytes: Some(2210),
            packets: None,
        }),
        ..event(EventKind::Gap)
    }
}

fn unreported() -> Event {
    Event {
        gap: Some(GapInfo {
            reason: "unreported-packets".to_owned(),
            detail: Some("the packet filter logged packets faster than they were read".to_owned()),
            packets: Some(17),
            ..GapInfo::default()
        }),
        ..event(EventKind::Gap)
    }
}

fn failed() -> Event {
    Event {
        destination: Some(destination()),
        error: Some("connection refused by 203.0.113.7:443".to_owned()),
        ..event(EventKind::Connection)
    }
}

/// Texts on both sides, and what an agent may send to have a record cut elsewhere.
fn answered() -> Event {
    let digest = "5e".repeat(32);
    let mut event = with_bodies();
    if let Some(http) = &mut event.http {
        http.request_headers = Some(BTreeMap::from([
            ("accept".to_owned(), "*/*".to_owned()),
            ("bodies".to_owned(), "{\"salt\":\"\"}".to_owned()),
            ("bodiesSha256".to_owned(), digest.clone()),
        ]));
        http.response_bytes = 118;
        http.response_body = Some(BodyInfo {
            text: Some(format!(
                "{{\"a\":1,\"bodiesSha256\":\"{digest}\",\"bodies\":{{\"salt\":\"\"}}}}"
            )),
            truncated: true,
            ..BodyInfo::default()
        });
    }
    event
}

/// A request to a model that is longer than what is kept, and what the model was told last.
fn told() -> Event {
    let mut event = exchange("POST", 200);
    if let Some(http) = &mut event.http {
        http.request_bytes = 1_204_311;
        http.request_headers = Some(BTreeMap::new());
        http.request_body = Some(BodyInfo {
            text: Some(
                "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Tidy".to_owned(),
            ),
            truncated: true,
            ..BodyInfo::default()
        });
        http.newest_messages = Some(NewestInfo {
            text: Some("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\",\"content\":\"mail [masked:email]\\n".to_owned()),
            at: 1_180_004,
            truncated: true,
        });
    }
    event
}

fn with_bodies() -> Event {
    let mut event = exchange("POST", 201);
    if let Some(http) = &mut event.http {
        let headers = |name: &str, value: &str| {
            Some(BTreeMap::from([
                (name.to_owned(), value.to_owned()),
                ("authorization".to_owned(), "[masked:credential]".to_owned()),
            ]))
        };
        http.request_bytes = 70;
        http.request_headers = headers("accept", "*/*");
        http.request_body = Some(BodyInfo {
            text: Some(
                "{\"name\":\"Zoë\",\"mail\":\"[masked:email]\",\"line\":\"a\\nb\\u0001\"}"
                    .to_owned(),
            ),
            ..BodyInfo::default()
        });
        http.response_headers = headers("content-type", "application/octet-stream");
        http.response_body = Some(BodyInfo {
            omitted: Some("binary".to_owned()),
            truncated: true,
            ..BodyInfo::default()
        });
    }
    event.masked = vec![
        MaskedInfo {
            mask: "agents/pii".to_owned(),
            detector: "email".to_owned(),
            count: 1,
        },
        MaskedInfo {
            mask: "builtin".to_owned(),
            detector: "authorization".to_owned(),
            count: 2,
        },
    ];
    event
}
