//! What follows from the errors of brokers (<https://kafka.apache.org/protocol#protocol_error_codes>).

use super::wire::Malformed;
use crate::sinks::target::{Failure, Then};

/// Longest text of a broker that is repeated, in characters.
const SAID_CHARS: usize = 200;

pub(super) const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
pub(super) const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// Whether a batch is refused for how large it is.
pub(super) fn is_too_large(code: i16) -> bool {
    // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE.
    matches!(code, 10 | 18)
}

/// Whether a batch is refused for what is in it.
pub(super) fn is_about_records(code: i16) -> bool {
    // INVALID_TIMESTAMP, INVALID_RECORD.
    is_too_large(code) || matches!(code, 32 | 87)
}

/// Whether the broker knows another state of our producer than we do: another producer goes on.
pub(super) fn is_about_the_producer(code: i16) -> bool {
    // OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID, PRODUCER_FENCED.
    matches!(code, 45 | 47 | 49 | 59 | 90)
}

/// A code as a failure. `about`: the topic, or what was asked.
pub(super) fn of(code: i16, about: &str, said: &str) -> Failure {
    let (then, reason, why) = meaning(code);
    let mut message = format!("{about}: {why} (error {code}");
    if !said.is_empty() {
        message.push_str(": ");
        message.push_str(&bounded(said));
    }
    message.push(')');
    Failure::new(then, reason, message)
}

/// What follows, the metric's label, and why.
fn meaning(code: i16) -> (Then, &'static str, &'static str) {
    match code {
        1 => (
            Then::Soon,
            "server-error",
            "the offset is not there any more",
        ),
        3 => (
            Then::Rarely,
            "settings",
            "there is no such topic, or the user may not see it: make it, or allow Describe and Write on it",
        ),
        5 => (
            Then::Soon,
            "server-error",
            "a partition has no leader at the moment",
        ),
        6 => (
            Then::Soon,
            "server-error",
            "the leader of a partition is another by now",
        ),
        7 => (
            Then::Soon,
            "timeout",
            "the broker's replicas did not acknowledge in time",
        ),
        10 | 18 => (
            Then::Soon,
            "server-error",
            "larger than the topic takes (max.message.bytes)",
        ),
        17 => (
            Then::Rarely,
            "settings",
            "the broker takes it for no name of a topic",
        ),
        19 | 20 => (
            Then::Soon,
            "server-error",
            "fewer replicas are in sync than the topic wants (min.insync.replicas)",
        ),
        29 => (
            Then::Rarely,
            "unauthorized",
            "the user may not do that on the topic: it needs Describe, Write and Read",
        ),
        31 => (
            Then::Rarely,
            "unauthorized",
            "the user may write no numbered batches: before Kafka 3.0 it needs IdempotentWrite on the cluster",
        ),
        32 => (
            Then::Soon,
            "server-error",
            "the broker does not take the time of the message: compare the clocks",
        ),
        33 => (
            Then::Rarely,
            "settings",
            "the broker does not know the mechanism",
        ),
        34 => (
            Then::Rarely,
            "settings",
            "the broker wants no login there: leave out username, or use another port",
        ),
        35 => (
            Then::Rarely,
            "settings",
            "the broker does not know the request: it must be Kafka 2.4 or later, or speak its protocol",
        ),
        45 | 47 | 49 | 59 | 90 => (
            Then::Soon,
            "server-error",
            "the broker does not know how far the ledger's producer was: another one goes on",
        ),
        56 => (
            Then::Soon,
            "server-error",
            "the broker cannot write to its disk",
        ),
        58 => (
            Then::Rarely,
            "unauthorized",
            "the broker does not accept username and password",
        ),
        76 => (
            Then::Rarely,
            "settings",
            "the broker does not take the compression",
        ),
        87 => (
            Then::Soon,
            "server-error",
            "the topic does not take the record",
        ),
        89 => (
            Then::Soon,
            "throttled",
            "the broker asks for fewer requests",
        ),
        _ => (Then::Soon, "server-error", "the broker says so"),
    }
}

/// An answer that makes no sense: no broker, or a broken one.
pub(super) fn malformed(_: Malformed) -> Failure {
    Failure::soon("protocol", Malformed)
}

/// What a broker said, as much of it as is repeated.
pub(super) fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SAID_CHARS).collect()
}
