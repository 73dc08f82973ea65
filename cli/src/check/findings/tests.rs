//! A cluster in order, and every way in which it is not.

use jiff::{SignedDuration, Timestamp};

use super::{
    super::view::{
        AgentPod, CaBundle, Certificate, ClusterView, Condition, Crd, Evidence, Ledger, LedgerPod,
        Operator, Policy, Seen, Serving, Sidecar, Sink, Status, Webhook,
    },
    Finding, Level,
    control::{RESOURCES, WEBHOOKS},
    findings,
};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn certificate(days: i64) -> Certificate {
    Certificate {
        subject: "CN=Chaperone".to_owned(),
        not_after: now() + SignedDuration::from_hours(24 * days),
    }
}

fn ready() -> Status {
    Status {
        current: true,
        ready: Some(Condition {
            status: true,
            message: String::new(),
        }),
    }
}

fn pod(name: &str) -> AgentPod {
    AgentPod {
        namespace: "agents".to_owned(),
        name: name.to_owned(),
        service_account: "default".to_owned(),
        sidecar: Some(Sidecar {
            version: Some("0.1.0".to_owned()),
            ready: true,
            restarts: 0,
            ledger_token: true,
            applied: Some(Condition {
                status: true,
                message: "0011223344556677".to_owned(),
            }),
        }),
    }
}

/// A cluster in which all is well.
fn well() -> ClusterView {
    ClusterView {
        now: now(),
        version: "0.1.0".to_owned(),
        namespace: "chaperone-system".to_owned(),
        crds: Seen::Yes(
            RESOURCES
                .iter()
                .map(|resource| Crd {
                    name: format!("{resource}.chaperone.dev"),
                    served: vec!["v1alpha1".to_owned()],
                    established: true,
                })
                .collect(),
        ),
        operator: Seen::Yes(Some(Operator {
            name: "chaperone-operator".to_owned(),
            version: Some("0.1.0".to_owned()),
            desired: 2,
            ready: 2,
            updated: 2,
            exempt: vec!["agents/builder".to_owned()],
            default_sink: true,
            ledger: true,
        })),
        webhooks: Seen::Yes(
            WEBHOOKS
                .iter()
                .map(|name| Webhook {
                    name: (*name).to_owned(),
                    failure_policy: Some("Fail".to_owned()),
                    ca_bundle: CaBundle::Certificates(vec![certificate(3650)]),
                })
                .collect(),
        ),
        serving: Seen::Yes(vec![Serving {
            pod: "operator-1".to_owned(),
            result: Ok(certificate(80)),
        }]),
        ledger: Seen::Yes(Some(Ledger {
            name: "chaperone-ledger".to_owned(),
            ephemeral: false,
            pod: LedgerPod::Ready(Some(Serving {
                pod: "chaperone-ledger-0".to_owned(),
                result: Ok(certificate(80)),
            })),
            evidence: Some(Ok(evidence(0))),
        })),
        namespaces: Seen::Yes(vec!["agents".to_owned()]),
        pods: Seen::Yes(vec![pod("claude")]),
        policies: Seen::Yes(vec![Policy {
            name: "AgentPolicy agents/coding".to_owned(),
            status: ready(),
            selected: 1,
            applied: 1,
        }]),
        sinks: Seen::Yes(vec![Sink {
            name: "ledger".to_owned(),
            status: ready(),
            by_ledger: false,
            delivering: None,
        }]),
    }
}

fn edit<T>(seen: &mut Seen<T>) -> &mut T {
    match seen {
        Seen::Yes(it) => it,
        Seen::No(why) => panic!("{why}"),
    }
}

fn not_ok(view: &ClusterView) -> Vec<Finding> {
    let mut found = findings(view);
    found.retain(|f| f.level != Level::Ok);
    found
}

#[test]
fn a_cluster_in_order_has_one_line_for_each_check() {
    let found = findings(&well());
    assert!(
        found
            .iter()
            .all(|f| f.level == Level::Ok && f.mend.is_none()),
        "{found:?}"
    );
    let checks: Vec<_> = found.iter().map(|f| f.check).collect();
    assert_eq!(
        checks,
        [
            "crds",
            "operator",
            "webhooks",
            "certificates",
            "ledger",
            "evidence",
            "namespaces",
            "pods",
            "policies",
            "sinks"
        ]
    );
}

/// A change to a cluster in order, and the finding that it must give.
type Case = (fn(&mut ClusterView), Level, &'static str, &'static str);

fn sidecar(view: &mut ClusterView) -> &mut Sidecar {
    edit(&mut view.pods)[0].sidecar.as_mut().unwrap()
}

/// An exempt pod, which is as it should be, and so many that are silent.
fn evidence(silent: u64) -> Evidence {
    let incomplete = [("exempt".to_owned(), 2), ("silent".to_owned(), silent)];
    Evidence {
        is_watching: true,
        incomplete: incomplete.into(),
    }
}

fn ledger(view: &mut ClusterView) -> &mut Ledger {
    edit(&mut view.ledger).as_mut().unwrap()
}

fn operator(view: &mut ClusterView) -> &mut Operator {
    edit(&mut view.operator).as_mut().unwrap()
}

const CASES: &[Case] = &[
    (
        |v| {
            edit(&mut v.crds).pop();
        },
        Level::Fail,
        "crds",
        "auditsinks.chaperone.dev is not defined",
    ),
    (
        |v| edit(&mut v.crds)[0].served = vec!["v2".to_owned()],
        Level::Fail,
        "crds",
        "not served as v1alpha1 (but as v2)",
    ),
    (
        |v| edit(&mut v.crds)[0].established = false,
        Level::Fail,
        "crds",
        "not established",
    ),
    (
        |v| v.operator = Seen::Yes(None),
        Level::Fail,
        "operator",
        "no operator in namespace chaperone-system",
    ),
    (
        |v| operator(v).ready = 0,
        Level::Fail,
        "operator",
        "none of 2 replicas",
    ),
    (
        |v| operator(v).ready = 1,
        Level::Warn,
        "operator",
        "1 of 2 replicas",
    ),
    (
        |v| operator(v).updated = 1,
        Level::Warn,
        "operator",
        "1 up to date",
    ),
    (
        |v| {
            operator(v).desired = 1;
            operator(v).ready = 1;
        },
        Level::Warn,
        "operator",
        "one replica",
    ),
    (
        |v| v.version = "0.2.0".to_owned(),
        Level::Warn,
        "operator",
        "it has version 0.1.0, this command 0.2.0",
    ),
    (
        |v| {
            edit(&mut v.webhooks).remove(0);
        },
        Level::Fail,
        "webhooks",
        "pods.chaperone.dev is not registered",
    ),
    (
        |v| edit(&mut v.webhooks)[0].failure_policy = Some("Ignore".to_owned()),
        Level::Fail,
        "webhooks",
        "failurePolicy Ignore",
    ),
    (
        |v| edit(&mut v.webhooks)[1].ca_bundle = CaBundle::Absent,
        Level::Fail,
        "webhooks",
        "check-pods.chaperone.dev has no caBundle",
    ),
    (
        |v| edit(&mut v.webhooks)[1].ca_bundle = CaBundle::Unreadable("not PEM".to_owned()),
        Level::Fail,
        "webhooks",
        "cannot be read: not PEM",
    ),
    (
        |v| edit(&mut v.webhooks)[0].ca_bundle = CaBundle::Certificates(vec![certificate(-1)]),
        Level::Fail,
        "webhooks",
        "expired on 2026-11-23",
    ),
    (
        |v| edit(&mut v.webhooks)[0].ca_bundle = CaBundle::Certificates(vec![certificate(30)]),
        Level::Warn,
        "certificates",
        "root CN=Chaperone: expires on 2026-12-24, in 30 days",
    ),
    (
        |v| edit(&mut v.serving)[0].result = Err("unknown issuer".to_owned()),
        Level::Fail,
        "certificates",
        "cannot trust it: unknown issuer",
    ),
    (
        |v| edit(&mut v.serving)[0].result = Ok(certificate(5)),
        Level::Warn,
        "certificates",
        "not renewed in time, expires on 2026-11-29",
    ),
    (
        |v| v.ledger = Seen::Yes(None),
        Level::Fail,
        "ledger",
        "a ledger that is not there",
    ),
    (
        |v| operator(v).ledger = false,
        Level::Warn,
        "ledger",
        "the operator sends nobody there",
    ),
    (
        |v| ledger(v).pod = LedgerPod::Waiting("chaperone-ledger-0 is not ready".to_owned()),
        Level::Fail,
        "ledger",
        "chaperone-ledger-0 is not ready; records wait",
    ),
    (
        |v| {
            ledger(v).pod = LedgerPod::Ready(Some(Serving {
                pod: "chaperone-ledger-0".to_owned(),
                result: Err("unknown issuer".to_owned()),
            }))
        },
        Level::Fail,
        "ledger",
        "sidecars cannot trust it: unknown issuer",
    ),
    (
        |v| {
            ledger(v).pod = LedgerPod::Ready(Some(Serving {
                pod: "chaperone-ledger-0".to_owned(),
                result: Ok(certificate(5)),
            }))
        },
        Level::Warn,
        "ledger",
        "its certificate was not renewed in time",
    ),
    (
        |v| ledger(v).evidence = Some(Ok(evidence(3))),
        Level::Warn,
        "evidence",
        "some is missing, by pods: 3 silent",
    ),
    (
        |v| {
            ledger(v).evidence = Some(Ok(Evidence {
                is_watching: false,
                ..evidence(0)
            }))
        },
        Level::Warn,
        "evidence",
        "does not see which pods run",
    ),
    (
        |v| ledger(v).evidence = Some(Err("no answer".to_owned())),
        Level::Warn,
        "evidence",
        "does not say whether some is missing: no answer",
    ),
    (
        |v| ledger(v).ephemeral = true,
        Level::Warn,
        "ledger",
        "lost with its pod",
    ),
    (
        |v| sidecar(v).ledger_token = false,
        Level::Warn,
        "pods",
        "agents: 1 whose records do not reach the ledger, injected by a version without one: claude",
    ),
    (
        |v| edit(&mut v.namespaces).clear(),
        Level::Warn,
        "namespaces",
        "nothing is captured",
    ),
    (
        |v| edit(&mut v.pods)[0].sidecar = None,
        Level::Fail,
        "pods",
        "agents: 1 without sidecar, started before the namespace was labelled: claude",
    ),
    (
        |v| sidecar(v).ready = false,
        Level::Fail,
        "pods",
        "agents/claude: the sidecar is not ready (0 restarts)",
    ),
    (
        |v| sidecar(v).applied = None,
        Level::Warn,
        "pods",
        "has not said yet",
    ),
    (
        |v| {
            sidecar(v).applied = Some(Condition {
                status: false,
                message: "rule x".to_owned(),
            })
        },
        Level::Fail,
        "pods",
        "does not run its policies: rule x",
    ),
    (
        |v| sidecar(v).version = Some("0.0.9".to_owned()),
        Level::Warn,
        "pods",
        "has sidecar 0.0.9, the operator is 0.1.0",
    ),
    (
        |v| edit(&mut v.policies)[0].status.ready = None,
        Level::Warn,
        "policies",
        "not judged it yet",
    ),
    (
        |v| edit(&mut v.policies)[0].status.current = false,
        Level::Warn,
        "policies",
        "not judged its last change",
    ),
    (
        |v| {
            edit(&mut v.policies)[0].status.ready = Some(Condition {
                status: false,
                message: "does not compile".to_owned(),
            })
        },
        Level::Fail,
        "policies",
        "AgentPolicy agents/coding is not ready: does not compile",
    ),
    (
        |v| edit(&mut v.policies)[0].selected = 2,
        Level::Warn,
        "policies",
        "1 of 2 pods run its current revision",
    ),
    (
        |v| {
            edit(&mut v.sinks)[0].status.ready = Some(Condition {
                status: false,
                message: "no Secret".to_owned(),
            })
        },
        Level::Fail,
        "sinks",
        "AuditSink ledger is not ready: no Secret",
    ),
    (
        |v| {
            edit(&mut v.sinks)[0].delivering = Some(Condition {
                status: false,
                message: "connect: refused".to_owned(),
            })
        },
        Level::Warn,
        "sinks",
        "AuditSink ledger: its target gets nothing: connect: refused",
    ),
    (
        |v| {
            edit(&mut v.sinks)[0].by_ledger = true;
            operator(v).ledger = false;
            v.ledger = Seen::Yes(None);
        },
        Level::Fail,
        "sinks",
        "the ledger would deliver it, and there is none",
    ),
    (
        |v| {
            edit(&mut v.sinks).clear();
            operator(v).default_sink = false;
            operator(v).ledger = false;
            v.ledger = Seen::Yes(None);
        },
        Level::Fail,
        "sinks",
        "traffic waits",
    ),
    (
        |v| v.pods = Seen::No("pods is forbidden".to_owned()),
        Level::Warn,
        "pods",
        "not checked: pods is forbidden",
    ),
];

#[test]
fn everything_that_is_wrong_is_found_with_what_mends_it() {
    for (change, level, check, message) in CASES {
        let mut view = well();
        change(&mut view);
        let found = not_ok(&view);
        let [finding] = found.as_slice() else {
            panic!("{message}: {found:?}");
        };
        assert_eq!(
            (finding.level, finding.check),
            (*level, *check),
            "{finding:?}"
        );
        assert!(finding.message.contains(message), "{finding:?}");
        assert!(
            finding.mend.as_ref().is_some_and(|m| !m.is_empty()),
            "{finding:?}"
        );
    }
}

#[test]
fn without_ledger_or_with_it_alone_a_cluster_is_in_order() {
    let mut view = well();
    operator(&mut view).ledger = false;
    view.ledger = Seen::Yes(None);
    sidecar(&mut view).ledger_token = false;
    assert_eq!(not_ok(&view), []);
    let mut view = well();
    edit(&mut view.sinks).clear();
    operator(&mut view).default_sink = false;
    assert_eq!(not_ok(&view), []);
}

#[test]
fn exempt_pods_are_counted_and_no_failure() {
    let mut view = well();
    let mut builder = pod("builder");
    builder.service_account = "builder".to_owned();
    builder.sidecar = None;
    edit(&mut view.pods).push(builder);
    assert_eq!(not_ok(&view), []);
    assert!(
        findings(&view)
            .iter()
            .any(|f| f.message.starts_with("1 not captured"))
    );
}

#[test]
fn many_pods_make_one_line() {
    let mut view = well();
    let bare = (0..8).map(|n| AgentPod {
        sidecar: None,
        ..pod(&format!("p{n}"))
    });
    view.pods = Seen::Yes(bare.collect());
    let found = not_ok(&view);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].message.ends_with("p0, p1, p2, p3, p4 and 3 more"),
        "{found:?}"
    );
}

#[test]
fn no_sink_is_fine_where_standard_output_is_one() {
    let mut view = well();
    edit(&mut view.sinks).clear();
    assert_eq!(not_ok(&view), []);
}

#[test]
fn a_cluster_without_chaperone_gets_one_answer() {
    let mut view = well();
    view.operator = Seen::Yes(None);
    edit(&mut view.webhooks).clear();
    edit(&mut view.serving).clear();
    let found = findings(&view);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("not installed"), "{found:?}");
}
