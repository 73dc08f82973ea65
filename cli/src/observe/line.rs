//! One record as one line of text: a function of the record.

use std::fmt::{self, Write};

use chaperone_crds::record::{Event, EventKind, Record};

use super::filter::{Verdict, foremost};
use crate::output::{Painted, Style, clean};

/// The record as a line, without newline: time (UTC), pod, decision, operation, outcome, and which policy and rule decided.
pub(crate) fn render(record: &Record, color: bool) -> String {
    let event = &record.event;
    let verdict = foremost(record);
    let style = style(event.kind, verdict);
    let paint = |text, style| Painted {
        text,
        style,
        on: color,
    };
    let mut line = format!(
        "{} {} {} ",
        paint(clock(&record.time), Style::Dim),
        clean(&format!("{}/{}", event.agent.namespace, event.agent.pod)),
        Painted {
            text: format_args!("{:<10}", word(event.kind, verdict)),
            style,
            on: color
        },
    );
    line.push_str(&clean(&operation(event)));
    for part in [outcome(event), decided_by(event), masked(event)] {
        if !part.is_empty() {
            line.push_str("  ");
            line.push_str(&clean(&part));
        }
    }
    if let Some(error) = &event.error {
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "  {}",
            Painted {
                text: clean(&format!("error: {error}")),
                style: Style::Yellow,
                on: color
            }
        );
    }
    line
}

/// `HH:MM:SS.mmm` of an RFC 3339 time in UTC, or what is there if it is something else.
fn clock(time: &str) -> String {
    let time = clean(time);
    match time.split_once('T') {
        Some((_, clock)) => clock.get(..12).unwrap_or(clock).to_owned(),
        None => time.into_owned(),
    }
}

fn word(kind: EventKind, verdict: Option<Verdict>) -> &'static str {
    match (verdict, kind) {
        (Some(Verdict::Deny), _) => "DENY",
        (Some(Verdict::WouldDeny), _) => "would-deny",
        (Some(Verdict::Gap), _) => "gap",
        // Queries precede all else: those that pass are named by what they are.
        (Some(Verdict::Allow) | None, EventKind::Dns) => "dns",
        (Some(Verdict::Allow) | None, EventKind::Begin) => "begin",
        (Some(Verdict::Allow), _) => "allow",
        (None, EventKind::Config) => "config",
        (None, EventKind::StreamOpen) => "open",
        (None, EventKind::StreamResume) => "resume",
        (None, EventKind::StreamIdentity) => "identity",
        (None, EventKind::LedgerRead) => "read",
        (None, EventKind::StreamClose | EventKind::WsClose) => "close",
        (None, EventKind::Connection) => "failed",
        (None, EventKind::Http | EventKind::WsMessage | EventKind::Gap) => "-",
    }
}

fn style(kind: EventKind, verdict: Option<Verdict>) -> Style {
    match (verdict, kind) {
        (Some(Verdict::Deny), _) => Style::BoldRed,
        (Some(Verdict::WouldDeny), _) | (None, EventKind::Connection) => Style::Yellow,
        (Some(Verdict::Gap), _) => Style::Magenta,
        (Some(Verdict::Allow), EventKind::Dns | EventKind::Begin) | (None, _) => Style::Dim,
        (Some(Verdict::Allow), _) => Style::Green,
    }
}

/// What was meant to be done.
fn operation(event: &Event) -> String {
    if let Some(operation) = &event.operation {
        let what = match event.kind {
            EventKind::Begin | EventKind::Http | EventKind::WsMessage | EventKind::Dns => {
                &operation.verb
            }
            _ => &operation.protocol,
        };
        return format!("{what} {}", operation.resource);
    }
    if let Some(open) = &event.open {
        return format!("sidecar {}", open.version);
    }
    if let Some(identity) = &event.identity {
        return format!("stream {} is of {}", identity.stream, identity.workload.uid);
    }
    if let Some(read) = &event.read {
        return format!("{} read {}", read.user, read.what);
    }
    if let Some(close) = &event.close {
        return format!("{} records, {}", close.records, close.reason);
    }
    if let Some(config) = &event.config {
        let policies = if config.policies.is_empty() {
            "no policies".to_owned()
        } else {
            config.policies.join(", ")
        };
        return format!("{:?} {policies}", config.mode);
    }
    event
        .destination
        .as_ref()
        .map_or_else(String::new, |d| match &d.host {
            Some(host) => format!("{host}:{}", d.port),
            None => format!("{}:{}", d.ip, d.port),
        })
}

/// How it went: status, bytes up and down, time.
fn outcome(event: &Event) -> String {
    let mut parts = Vec::new();
    if let Some(http) = &event.http {
        parts.push(
            http.status
                .map_or("no response".to_owned(), |s| s.to_string()),
        );
        parts.push(format!(
            "↑{} ↓{}",
            Bytes(http.request_bytes),
            Bytes(http.response_bytes)
        ));
        if !http.complete {
            parts.push("incomplete".to_owned());
        }
    }
    if let Some(status) = event.grpc.as_ref().and_then(|grpc| grpc.status) {
        parts.push(format!("grpc-status {status}"));
    }
    if let Some(message) = &event.message {
        parts.push(Bytes(message.bytes).to_string());
    }
    if let Some(ws) = &event.ws {
        parts.push(
            ws.code
                .map_or_else(|| "no code".to_owned(), |c| c.to_string()),
        );
        parts.push(format!("by {}", clean(&ws.closed_by)));
        parts.push(format!(
            "↑{} ↓{}",
            Bytes(ws.sent_bytes),
            Bytes(ws.received_bytes)
        ));
    }
    if let Some(dns) = &event.dns {
        parts.push(dns.rcode.clone());
        parts.extend(dns.answers.iter().cloned());
        if !dns.withheld.is_empty() {
            parts.push(format!("withheld {}", dns.withheld.join(" ")));
        }
    }
    if let Some(gap) = &event.gap {
        parts.push(gap.reason.clone());
        if let (Some(sent), Some(received)) = (gap.sent_bytes, gap.received_bytes) {
            parts.push(format!("↑{} ↓{}", Bytes(sent), Bytes(received)));
        }
        parts.extend(gap.packets.map(|packets| format!("{packets} packets")));
        parts.extend(gap.detail.clone());
    }
    if let Some(timing) = &event.timing {
        parts.push(Micros(timing.total_us).to_string());
    }
    parts.join(" ")
}

/// Policy, rule and message, or the reason where no policy decided. Nothing for what passed by default.
fn decided_by(event: &Event) -> String {
    let Some(decision) = &event.decision else {
        return String::new();
    };
    let mut text = match (&decision.policy, &decision.rule) {
        (Some(policy), Some(rule)) => format!("{policy} {rule}"),
        (Some(policy), None) => format!("{policy} {}", decision.reason),
        (None, _) if decision.reason == "default" => String::new(),
        (None, _) => decision.reason.clone(),
    };
    if let Some(message) = &decision.message {
        let _ = write!(text, ": {message}");
    }
    text
}

fn masked(event: &Event) -> String {
    let found: Vec<_> = event
        .masked
        .iter()
        .map(|m| format!("{}×{}", m.detector, m.count))
        .collect();
    if found.is_empty() {
        String::new()
    } else {
        format!("masked {}", found.join(" "))
    }
}

/// A number of bytes in at most five characters: `0`, `999`, `1.2K`, `34K`, `5.6M`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 1024_u64;
        for name in ["K", "M", "G", "T"] {
            if self.0 < unit {
                break;
            }
            let tenths = u128::from(self.0) * 10 / u128::from(unit);
            if tenths < 100 {
                return write!(f, "{}.{}{name}", tenths / 10, tenths % 10);
            }
            if tenths < 10_240 || name == "T" {
                return write!(f, "{}{name}", tenths / 10);
            }
            unit *= 1024;
        }
        write!(f, "{}", self.0)
    }
}

/// A duration in microseconds: `850µs`, `12ms`, `3.4s`.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us}µs"),
            us @ 1_000..1_000_000 => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{}.{}s", us / 1_000_000, us / 100_000 % 10),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HEAD: &str = r#""v":"chaperone.dev/v1","stream":"s","seq":7,"prev":"00","time":"2026-11-24T10:11:12.345678Z","agent":{"namespace":"agents","pod":"claude-7d9f"}"#;
    const TO: &str = r#""destination":{"host":"api.example.com","ip":"192.0.2.7","port":443}"#;

    fn record(rest: &str) -> Record {
        serde_json::from_str(&format!("{{{HEAD},{rest}}}")).unwrap()
    }

    pub(crate) fn http() -> Record {
        record(&format!(
            r#""kind":"http",{TO},"operation":{{"protocol":"http","verb":"GET","resource":"https://api.example.com/users"}},"http":{{"status":200,"responseBytes":34999}},
            "decision":{{"action":"Allow","mode":"Enforce","revision":"0011223344556677","reason":"default"}},
            "masked":[{{"mask":"pii","detector":"email","count":3}}],"timing":{{"totalUs":12345}}"#
        ))
    }

    pub(crate) fn denied() -> Record {
        record(&format!(
            r#""kind":"http",{TO},"operation":{{"protocol":"http","verb":"DELETE","resource":"https://api.example.com/users/1"}},"http":{{"status":403}},
            "decision":{{"action":"Deny","mode":"Enforce","policy":"agents/coding","rule":"no-delete","revision":"0011223344556677","reason":"rule","message":"Ask a human."}},
            "timing":{{"totalUs":850}}"#
        ))
    }

    pub(crate) fn would_deny() -> Record {
        let mut record = denied();
        let decision = record.event.decision.as_mut().unwrap();
        decision.action = chaperone_crds::record::Outcome::Allow;
        decision.would_deny = true;
        record
    }

    pub(crate) fn dns() -> Record {
        record(
            r#""kind":"dns","operation":{"protocol":"dns","verb":"A","resource":"api.example.com."},"dns":{"rcode":"NOERROR","answers":["192.0.2.7"]}"#,
        )
    }

    /// A query whose only address was withheld.
    fn withheld() -> Record {
        let mut record = dns();
        let dns = record.event.dns.as_mut().unwrap();
        dns.answers.clear();
        dns.withheld.push("127.0.0.1".to_owned());
        record
    }

    pub(crate) fn gap() -> Record {
        record(&format!(
            r#""kind":"gap",{TO},"operation":{{"protocol":"tls","verb":"connect","resource":"api.example.com:443"}},
            "gap":{{"reason":"passthrough","sentBytes":1234,"receivedBytes":5678901}},
            "decision":{{"action":"Allow","mode":"Audit","revision":"0011223344556677","reason":"default"}}"#
        ))
    }

    fn unreported() -> Record {
        record(r#""kind":"gap","gap":{"reason":"unreported-packets","packets":17}"#)
    }

    pub(crate) fn refused_gap() -> Record {
        let mut record = gap();
        record.event.decision.as_mut().unwrap().action = chaperone_crds::record::Outcome::Deny;
        record
    }

    #[test]
    fn each_kind_of_record_reads_as_one_line() {
        let open = record(
            r#""kind":"stream.open","open":{"identity":{"namespace":"agents","pod":"claude-7d9f","uid":"u","serviceAccount":"a","node":"n"},"version":"0.1.0"}"#,
        );
        let config = record(
            r#""kind":"config","config":{"revision":"0011223344556677","mode":"Enforce","policies":["agents/coding@3"]}"#,
        );
        let identity = record(
            r#""kind":"stream.identity","identity":{"stream":"7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d","workload":{"namespace":"agents","pod":"claude-7d9f","uid":"u1","serviceAccount":"a","node":"n"}}"#,
        );
        let close = record(r#""kind":"stream.close","close":{"records":8,"reason":"terminated"}"#);
        let failed = record(&format!(
            r#""kind":"connection",{TO},"error":"upstream refused the connection""#
        ));
        for (record, expected) in [
            (
                http(),
                "allow      GET https://api.example.com/users  200 ↑0 ↓34K 12ms  masked email×3",
            ),
            (
                denied(),
                "DENY       DELETE https://api.example.com/users/1  403 ↑0 ↓0 850µs  agents/coding no-delete: Ask a human.",
            ),
            (
                would_deny(),
                "would-deny DELETE https://api.example.com/users/1  403 ↑0 ↓0 850µs  agents/coding no-delete: Ask a human.",
            ),
            (dns(), "dns        A api.example.com.  NOERROR 192.0.2.7"),
            (
                withheld(),
                "dns        A api.example.com.  NOERROR withheld 127.0.0.1",
            ),
            (
                gap(),
                "gap        tls api.example.com:443  passthrough ↑1.2K ↓5.4M",
            ),
            (unreported(), "gap          unreported-packets 17 packets"),
            (
                refused_gap(),
                "DENY       tls api.example.com:443  passthrough ↑1.2K ↓5.4M",
            ),
            (open, "open       sidecar 0.1.0"),
            (config, "config     Enforce agents/coding@3"),
            (
                identity,
                "identity   stream 7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d is of u1",
            ),
            (close, "close      8 records, terminated"),
            (
                failed,
                "failed     api.example.com:443  error: upstream refused the connection",
            ),
        ] {
            let expected = format!("10:11:12.345 agents/claude-7d9f {expected}");
            assert_eq!(render(&record, false), expected);
        }
    }

    #[test]
    fn an_agent_cannot_write_to_the_terminal() {
        let mut record = http();
        record.event.operation.as_mut().unwrap().resource =
            "https://x/\x1b]0;owned\x07\n10:00 DENY".into();
        record.time = "\x1b[2J".into();
        record.event.error = Some("\x1b[31mred".into());
        let line = render(&record, false);
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }

    #[test]
    fn colour_frames_the_decision_only() {
        let line = render(&denied(), true);
        assert!(
            line.contains("\x1b[1;31mDENY      \x1b[0m DELETE"),
            "{line:?}"
        );
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (10 * 1024, "10K"),
            (1024 * 1024 - 1, "1023K"),
            (1024 * 1024, "1.0M"),
            (5 << 40, "5.0T"),
            (u64::MAX, "16777215T"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (us, text) in [(999, "999µs"), (1_000, "1ms"), (3_450_000, "3.4s")] {
            assert_eq!(Micros(us).to_string(), text);
        }
    }
}
