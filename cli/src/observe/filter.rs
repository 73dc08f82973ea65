//! Which records are wanted: a function of one record.

use chaperone_crds::{
    record::{EventKind, Record},
    summary::{Verdict, is},
};
use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use jiff::Timestamp;

use chaperone_crds::glob;

/// The verdicts, as the user names them.
const VERDICTS: [(&str, Verdict, &str); 4] = [
    (
        "allow",
        Verdict::Allow,
        "It passed, and would in Enforce too",
    ),
    ("deny", Verdict::Deny, "It was refused"),
    (
        "would-deny",
        Verdict::WouldDeny,
        "It passed; a policy in mode Audit would have denied it",
    ),
    (
        "gap",
        Verdict::Gap,
        "Chaperone could not read it, whether it passed or not",
    ),
];

/// Reads a verdict of the command line.
pub(crate) fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    let names = VERDICTS.map(|(name, _, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names).try_map(|given| {
        let named = VERDICTS.iter().find(|(name, ..)| *name == given);
        named
            .map(|(_, verdict, _)| *verdict)
            .ok_or("not a decision")
    })
}

/// Kinds of records, as the user names them.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Operations that are about to leave (`audit.commit: Disk`).
    Begin,
    /// HTTP requests.
    Http,
    /// WebSocket messages, and connections that are over.
    Ws,
    /// DNS queries.
    Dns,
    /// Traffic that was not read.
    Gap,
    /// Connections that ended before any operation.
    Connection,
    /// Policies that took effect.
    Config,
    /// Streams that begin, resume, go on or end.
    Stream,
}

impl Kind {
    fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Begin => Self::Begin,
            EventKind::Http => Self::Http,
            EventKind::WsMessage | EventKind::WsClose => Self::Ws,
            EventKind::Dns => Self::Dns,
            EventKind::Gap => Self::Gap,
            EventKind::Connection => Self::Connection,
            EventKind::Config => Self::Config,
            EventKind::StreamOpen
            | EventKind::StreamResume
            | EventKind::StreamHeartbeat
            | EventKind::StreamClose
            | EventKind::StreamIdentity
            | EventKind::LedgerRead
            | EventKind::LedgerPod
            | EventKind::LedgerCheckpoint
            | EventKind::LedgerErased
            | EventKind::LedgerHold
            | EventKind::LedgerRelease => Self::Stream,
        }
    }
}

/// What is wanted. An empty list or `None` wants everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) namespace: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) decisions: Vec<Verdict>,
    pub(crate) hosts: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) not_before: Option<Timestamp>,
}

impl Filter {
    /// Whether this record is wanted.
    pub(crate) fn wants(&self, record: &Record) -> bool {
        let event = &record.event;
        self.wants_pod(&event.agent.namespace, &event.agent.pod)
            && (self.kinds.is_empty() || self.kinds.contains(&Kind::of(event.kind)))
            && (self.decisions.is_empty() || self.decisions.iter().any(|d| is(record, *d)))
            && (self.hosts.is_empty() || self.wants_host(record))
            && self.wants_time(&record.time)
    }

    /// Whether records of this pod can be wanted.
    pub(crate) fn wants_pod(&self, namespace: &str, pod: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
            && self.pod.as_deref().is_none_or(|g| glob::matches(g, pod))
    }

    fn wants_host(&self, record: &Record) -> bool {
        let destination = record.event.destination.as_ref();
        let asked = record.event.operation.as_ref();
        let asked = asked.filter(|_| record.event.kind == EventKind::Dns);
        let names = [
            destination.and_then(|d| d.host.as_deref()),
            destination.map(|d| d.ip.as_str()),
            asked.map(|operation| operation.resource.trim_end_matches('.')),
        ];
        names
            .into_iter()
            .flatten()
            .any(|name| self.hosts.iter().any(|g| glob::matches(g, name)))
    }

    /// A time that cannot be read is shown rather than hidden.
    fn wants_time(&self, time: &str) -> bool {
        match (self.not_before, time.parse::<Timestamp>()) {
            (Some(not_before), Ok(time)) => time >= not_before,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use chaperone_crds::summary::foremost;

    use super::*;
    use crate::observe::line::tests::{denied, dns, gap, http, refused_gap, would_deny};

    fn filter() -> Filter {
        Filter::default()
    }

    #[test]
    fn every_filter_narrows() {
        let cases: Vec<(&str, Filter, Record, bool)> = vec![
            ("none", filter(), http(), true),
            (
                "namespace",
                Filter {
                    namespace: Some("agents".into()),
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "other namespace",
                Filter {
                    namespace: Some("agent".into()),
                    ..filter()
                },
                http(),
                false,
            ),
            (
                "pod",
                Filter {
                    pod: Some("claude-*".into()),
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "other pod",
                Filter {
                    pod: Some("claude".into()),
                    ..filter()
                },
                http(),
                false,
            ),
            (
                "host",
                Filter {
                    hosts: vec!["*.example.com".into()],
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "address",
                Filter {
                    hosts: vec!["192.0.2.*".into()],
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "one of two hosts",
                Filter {
                    hosts: vec!["x".into(), "api.*".into()],
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "other host",
                Filter {
                    hosts: vec!["example.com".into()],
                    ..filter()
                },
                http(),
                false,
            ),
            (
                "name asked",
                Filter {
                    hosts: vec!["api.example.com".into()],
                    ..filter()
                },
                dns(),
                true,
            ),
            (
                "kind",
                Filter {
                    kinds: vec![Kind::Dns],
                    ..filter()
                },
                dns(),
                true,
            ),
            (
                "other kind",
                Filter {
                    kinds: vec![Kind::Dns],
                    ..filter()
                },
                http(),
                false,
            ),
            (
                "since",
                Filter {
                    not_before: "2026-11-24T10:00:00Z".parse().ok(),
                    ..filter()
                },
                http(),
                true,
            ),
            (
                "too early",
                Filter {
                    not_before: "2026-11-24T11:00:00Z".parse().ok(),
                    ..filter()
                },
                http(),
                false,
            ),
        ];
        for (name, filter, record, wanted) in cases {
            assert_eq!(filter.wants(&record), wanted, "{name}");
        }
    }

    #[test]
    fn decisions_are_told_apart() {
        use Verdict::{Allow, Deny, Gap, WouldDeny};
        for (name, record, verdicts, first) in [
            ("allowed", http(), vec![Allow], Some(Allow)),
            ("denied", denied(), vec![Deny], Some(Deny)),
            ("would deny", would_deny(), vec![WouldDeny], Some(WouldDeny)),
            ("gap", gap(), vec![Gap], Some(Gap)),
            ("refused gap", refused_gap(), vec![Deny, Gap], Some(Deny)),
            ("nothing decided", dns(), vec![], None),
        ] {
            for verdict in [Allow, Deny, WouldDeny, Gap] {
                let wanted = Filter {
                    decisions: vec![verdict],
                    ..filter()
                };
                assert_eq!(
                    wanted.wants(&record),
                    verdicts.contains(&verdict),
                    "{name} {verdict:?}"
                );
            }
            assert_eq!(foremost(&record), first, "{name}");
        }
    }
}
