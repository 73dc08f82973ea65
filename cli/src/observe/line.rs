//! One record as one line of text: a function of the record.

use std::fmt::Write as _;

use chaperone_crds::{
    record::{EventKind, Record},
    summary::{Verdict, clock, decided_by, foremost, masked, operation, outcome, word},
};

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
        paint(clean(clock(&record.time)), Style::Dim),
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

fn style(kind: EventKind, verdict: Option<Verdict>) -> Style {
    match (verdict, kind) {
        (Some(Verdict::Deny), _) => Style::BoldRed,
        (Some(Verdict::WouldDeny), _) | (None, EventKind::Connection) => Style::Yellow,
        (Some(Verdict::Gap), _) => Style::Magenta,
        (Some(Verdict::Allow), EventKind::Dns | EventKind::Begin) | (None, _) => Style::Dim,
        (Some(Verdict::Allow), _) => Style::Green,
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
}
