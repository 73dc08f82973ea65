//! A record in words for people: what was decided, what was meant to be done and how it went, in a few words each.
//!
//! Owns the words that terminal and console share. Refuses layout and colour. Total: any record has words. Texts stand in them as the record has them: whoever shows them makes them safe for the place
//! where they are shown, by [`misleads`].

use std::fmt::{self, Write as _};

use crate::record::{ErasedInfo, Event, EventKind, Outcome, Record};

/// What was decided, as people are told it. A record may be several: a refused gap is both `gap` and `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed, and would in Enforce too.
    Allow,
    /// It was refused.
    Deny,
    /// It passed; a policy in mode Audit would have denied it.
    WouldDeny,
    /// Chaperone could not read it, whether it passed or not.
    Gap,
}

/// Whether the record is one of this verdict.
#[must_use]
pub fn is(record: &Record, verdict: Verdict) -> bool {
    let decision = record.event.decision.as_ref();
    let denied = decision.is_some_and(|d| d.action == Outcome::Deny);
    let would_deny = decision.is_some_and(|d| d.would_deny);
    let gap = record.event.kind == EventKind::Gap;
    match verdict {
        Verdict::Allow => decision.is_some() && !denied && !would_deny && !gap,
        Verdict::Deny => denied,
        Verdict::WouldDeny => would_deny,
        Verdict::Gap => gap,
    }
}

/// The verdict that matters most: what was refused, then what would be, then what was not read. `None`: nothing was decided.
#[must_use]
pub fn foremost(record: &Record) -> Option<Verdict> {
    [
        Verdict::Deny,
        Verdict::WouldDeny,
        Verdict::Gap,
        Verdict::Allow,
    ]
    .into_iter()
    .find(|verdict| is(record, *verdict))
}

/// What happened, in a word.
#[must_use]
pub fn word(kind: EventKind, verdict: Option<Verdict>) -> &'static str {
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
        (None, EventKind::StreamHeartbeat) => "heartbeat",
        (None, EventKind::LedgerRead) => "read",
        (None, EventKind::LedgerPod) => "pod",
        (None, EventKind::LedgerCheckpoint) => "checkpoint",
        (None, EventKind::LedgerErased) => "erased",
        (None, EventKind::LedgerHold) => "hold",
        (None, EventKind::LedgerRelease) => "release",
        (None, EventKind::StreamClose | EventKind::WsClose) => "close",
        (None, EventKind::Connection) => "failed",
        (None, EventKind::Http | EventKind::WsMessage | EventKind::Gap) => "-",
    }
}

/// What is deleted, and why.
#[must_use]
pub fn deletion(erased: &ErasedInfo) -> String {
    let what = match erased.what.as_str() {
        "records" => format!("{} records", erased.records),
        _ => format!("content under {} keys", erased.keys),
    };
    let words = |text: &Option<String>| text.clone().unwrap_or_default();
    let why = match &erased.user {
        Some(user) => format!("{user}: {}", words(&erased.reason)),
        None => format!("retention ({})", words(&erased.rule)),
    };
    format!("{what} of {} to {} by {why}", erased.from, erased.until)
}

/// `HH:MM:SS.mmm` of an RFC 3339 time in UTC, or what is there if it is something else.
#[must_use]
pub fn clock(time: &str) -> &str {
    match time.split_once('T') {
        Some((_, clock)) => clock.get(..12).unwrap_or(clock),
        None => time,
    }
}

/// What was meant to be done.
#[must_use]
pub fn operation(event: &Event) -> String {
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
    if let Some(erased) = &event.erased {
        return deletion(erased);
    }
    if let Some(hold) = &event.hold {
        return format!("{} by {}: {}", hold.name, hold.user, hold.reason);
    }
    if let Some(pod) = &event.pod {
        return match &pod.lacks {
            Some(lacks) => format!("{} {} ({lacks})", pod.uid, pod.state),
            None => format!("{} {}", pod.uid, pod.state),
        };
    }
    if let Some(checkpoint) = &event.checkpoint {
        return format!("{} records of {}", checkpoint.size, checkpoint.origin);
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
#[must_use]
pub fn outcome(event: &Event) -> String {
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
        parts.push(format!("by {}", ws.closed_by));
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
#[must_use]
pub fn decided_by(event: &Event) -> String {
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

/// What was masked, by detector.
#[must_use]
pub fn masked(event: &Event) -> String {
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
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

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
#[derive(Clone, Copy, Debug)]
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us}µs"),
            us @ 1_000..1_000_000 => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{}.{}s", us / 1_000_000, us / 100_000 % 10),
        }
    }
}

/// Whether this character shall be shown by its number: a terminal would obey it, it would make a text read as something else, or nobody would see it and a model reads it all the same. Control characters, line and
/// paragraph separators, what sets the direction of a text, what has no width, and tags (U+E0000 to U+E007F, in which whole sentences are smuggled).
#[must_use]
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_the_time_of_day_or_what_is_there() {
        for (time, shown) in [
            ("2026-11-24T10:11:12.345678Z", "10:11:12.345"),
            ("2026-11-24T10", "10"),
            ("at noon", "at noon"),
            ("xTgrün und länger", "grün und länger"),
        ] {
            assert_eq!(clock(time), shown);
        }
    }

    #[test]
    fn what_is_not_seen_or_turns_a_text_round_misleads() {
        for c in
            "\u{0}\n\u{7f}\u{9b}\u{ad}\u{200b}\u{200d}\u{202e}\u{2028}\u{2066}\u{feff}\u{e0041}"
                .chars()
        {
            assert!(misleads(c), "{c:?}");
        }
        for c in "a ~é日😀\u{a0}\u{301}\u{fe0f}\u{fffd}".chars() {
            assert!(!misleads(c), "{c:?}");
        }
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
