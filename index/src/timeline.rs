//! A session's records in their order in time, with the turns of its model as the thread: a fold, without a clock or a terminal.
//!
//! Owns when each record is and to which turn it belongs. Invariant: turns are counted over all records of the session, so a filter changes no turn's number.

use std::fmt;

use serde_json::Value;

use crate::facts::Facts;

/// What is known so far.
#[derive(Debug, Default)]
pub struct Timeline {
    first: Option<i64>,
    turn: Turn,
}

/// An exchange with a model, and all that follows it until the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// From 1; 0 is what was before the first.
    pub number: u64,
    /// When it began, in microseconds since the session's first record.
    pub at: Option<i64>,
}

/// A record in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Microseconds since the session's first record; below 0 where another pod's clock is behind. None where the record has no time.
    pub at: Option<i64>,
    /// To which turn it belongs.
    pub turn: Turn,
}

impl Timeline {
    /// A timeline that goes on where another ended: the time of its first record, in microseconds since 1970, and its last turn.
    #[must_use]
    pub fn resume(first: Option<i64>, turn: Turn) -> Self {
        Self { first, turn }
    }

    /// Where the next record stands, in the order of leaves.
    pub fn place(&mut self, record: &Value) -> Place {
        let facts = Facts::of(record);
        self.first = self.first.or(facts.time);
        let since = |time: i64| time.saturating_sub(self.first.unwrap_or(time));
        let at = facts.time.map(since);
        if facts.is_turn() {
            let number = self.turn.number.saturating_add(1);
            self.turn = Turn { number, at };
        }
        Place {
            at,
            turn: self.turn,
        }
    }

    /// Turns so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turn.number
    }
}

/// Time since the session's first record: `+H:MM:SS.mmm`.
#[derive(Clone, Copy, Debug)]
pub struct Offset(pub Option<i64>);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.0 else {
            return f.write_str("+-:--:--.---");
        };
        let sign = if at < 0 { '-' } else { '+' };
        let ms = at.unsigned_abs() / 1_000;
        let (s, m, h) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
        write!(f, "{sign}{h}:{m:02}:{s:02}.{:03}", ms % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(time: &str, resource: &str, verb: &str) -> Value {
        json!({"kind": "http", "time": time, "session": {"id": "s"},
            "operation": {"protocol": "http", "verb": verb, "resource": resource}})
    }

    #[test]
    fn a_request_for_messages_begins_a_turn_and_what_follows_belongs_to_it() {
        let mut timeline = Timeline::default();
        let model = "https://api.anthropic.com/v1/messages?beta=true";
        let places: Vec<_> = [
            at("2026-11-29T10:00:00Z", "https://a/b", "GET"),
            at("2026-11-29T10:00:01.5Z", model, "POST"),
            at("2026-11-29T10:00:02Z", "https://a/b", "GET"),
            at(
                "2026-11-29T10:00:02Z",
                "https://a/v1/messages/count",
                "POST",
            ),
            at("2026-11-29T10:00:09Z", model, "GET"),
            at("2026-11-29T10:00:03Z", model, "POST"),
        ]
        .iter()
        .map(|record| timeline.place(record))
        .map(|place| (place.at.unwrap(), place.turn.number, place.turn.at))
        .collect();
        let first = Some(1_500_000);
        let expected = [
            (0, 0, None),
            (1_500_000, 1, first),
            (2_000_000, 1, first),
            (2_000_000, 1, first),
            (9_000_000, 1, first),
            (3_000_000, 2, Some(3_000_000)),
        ];
        assert_eq!(places, expected);
        assert_eq!(timeline.turns(), 2);
    }

    #[test]
    fn a_record_without_a_time_has_its_turn_all_the_same() {
        let mut timeline = Timeline::default();
        let none = timeline.place(&json!({"time": 7}));
        assert_eq!(none.at, None);
        timeline.place(&at("2026-11-29T10:00:00Z", "https://a/v1/messages", "POST"));
        assert_eq!(timeline.place(&json!(null)).turn.number, 1);
        let earlier = timeline.place(&at("2026-11-29T09:59:59Z", "https://a/", "GET"));
        assert_eq!(earlier.at, Some(-1_000_000));
    }

    #[test]
    fn offsets_have_a_sign() {
        let offset = |at| Offset(at).to_string();
        assert_eq!(offset(Some(-1_500)), "-0:00:00.001");
        assert_eq!(offset(Some(0)), "+0:00:00.000");
        assert_eq!(offset(Some(360_000_000_000)), "+100:00:00.000");
    }
}
