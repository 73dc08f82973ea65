//! The writer of a stream: gives an event its place in the hash chain and serialises it, once.
//!
//! Owns the bytes of a record. Refuses clocks and files: time and destination come from the caller. Invariant: the hash of a record is SHA-256 over
//! its line as appended here, without the newline and what [`bodies`] cuts off; the next line carries it in `prev`, and nobody serialises a record a second time.

use std::{fmt, io::Write as _, str::FromStr};

use data_encoding::HEXLOWER;
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    bodies::{self, Parts, Salt},
    record::{BodyInfo, Event, EventKind, RECORD_VERSION},
};

/// Longest line of a record, in bytes, without its newline. Two bodies of the largest `maxBodyBytes` (256 KiB each) fit even where JSON
/// escapes every byte sixfold, and the newest messages of a conversation beside them where it escapes every byte twofold; the rest is room for headers. A longer event is shortened when it is written, never dropped.
pub const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;

/// Room for the fields that the chain itself adds, in bytes, so that appending a metadata record does not grow the buffer twice.
const TYPICAL_RECORD_BYTES: usize = 1024;

/// RFC 3339 with exactly six digits of a second.
static TIME_FORMAT: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Names a stream: a UUID (RFC 9562), in lower case with hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(String);

/// A text that is no [`StreamId`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a stream is named by a UUID in lower case, like 7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d")]
pub struct BadStreamId;

/// SHA-256 over the line of a record, without its newline and without the content of its bodies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordHash([u8; 32]);

/// A text that is no [`RecordHash`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a record's hash is 64 lower-case hex digits")]
pub struct BadRecordHash;

/// A record's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Sequence number.
    pub seq: u64,
    /// Hash of the line.
    pub hash: RecordHash,
}

/// The writing end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    stream: StreamId,
    next_seq: u64,
    prev: RecordHash,
}

impl Chain {
    /// A new stream: the next record is number 0. It should be a `stream.open`.
    #[must_use]
    pub fn new(stream: StreamId) -> Self {
        Self::resume(stream, 0, RecordHash::GENESIS)
    }

    /// A stream that goes on: `next_seq` is the number of the next record, `prev` the hash of the last one.
    #[must_use]
    pub fn resume(stream: StreamId, next_seq: u64, prev: RecordHash) -> Self {
        Self {
            stream,
            next_seq,
            prev,
        }
    }

    /// Name of the stream.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// Number of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Hash of the last record, [`RecordHash::GENESIS`] before the first.
    #[must_use]
    pub fn prev(&self) -> RecordHash {
        self.prev
    }

    /// Appends the event's line and a newline to `out`. An event whose line would be longer than [`MAX_RECORD_BYTES`] loses its bodies (they stand
    /// as empty and truncated), then everything but what identifies it, with an `error` that says so. `salt` is asked where the event has content of bodies; where it gives none, the bodies are lost too: without
    /// a salt their digest would tell what they were once they are deleted.
    pub fn append(
        &mut self,
        event: &Event,
        time: Timestamp,
        salt: impl FnOnce() -> Option<Salt>,
        out: &mut Vec<u8>,
    ) -> Link {
        let start = out.len();
        let has_content = event.content().next().is_some();
        let salt = has_content.then(salt).flatten();
        let mut hash = match salt {
            None if has_content => self.write(&without_bodies(event), time, out),
            _ => self.write(event, time, out),
        };
        if let Some(salt) = salt {
            hash = RecordHash(bodies::put(out, start, salt, event.content()));
        }
        if out.len().saturating_sub(start) > MAX_RECORD_BYTES {
            out.truncate(start);
            hash = self.write(&without_bodies(event), time, out);
        }
        if out.len().saturating_sub(start) > MAX_RECORD_BYTES {
            out.truncate(start);
            hash = self.write(&bare(event), time, out);
        }
        out.push(b'\n');
        let link = Link {
            seq: self.next_seq,
            hash,
        };
        self.next_seq = self.next_seq.saturating_add(1);
        self.prev = hash;
        link
    }

    /// One line. The fields of the chain come first, in fixed order; the event's own object follows with its `{` turned into a comma, which is what
    /// serde's `flatten` would give at several times the cost. Content of bodies is not in it.
    fn write(&self, event: &Event, time: Timestamp, out: &mut Vec<u8>) -> RecordHash {
        let start = out.len();
        out.reserve(TYPICAL_RECORD_BYTES);
        let mut prev = [0; 64];
        self.prev.encode(&mut prev);
        for part in [
            b"{\"v\":\"" as &[u8],
            RECORD_VERSION.as_bytes(),
            b"\",\"stream\":\"",
            self.stream.0.as_bytes(),
            b"\",\"seq\":",
        ] {
            out.extend_from_slice(part);
        }
        write!(out, "{}", self.next_seq).expect("writing to memory does not fail");
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&prev);
        out.extend_from_slice(b"\",\"time\":\"");
        TIME_FORMAT
            .print_timestamp(&time, &mut *out)
            .expect("writing to memory does not fail");
        out.push(b'"');
        let brace = out.len();
        serde_json::to_writer(&mut *out, event)
            .expect("an event serialises: its map keys are strings and memory takes the bytes");
        if let Some(brace) = out.get_mut(brace) {
            *brace = b',';
        }
        // No event ends its line as content does or as what is left of it: this is the hash that `RecordHash::of` gives.
        RecordHash(Sha256::digest(out.get(start..).unwrap_or_default()).into())
    }
}

fn without_bodies(event: &Event) -> Event {
    let mut event = event.clone();
    if let Some(http) = &mut event.http {
        let cut = BodyInfo {
            truncated: true,
            ..BodyInfo::default()
        };
        http.request_body = http.request_body.as_ref().map(|_| cut.clone());
        http.response_body = http.response_body.as_ref().map(|_| cut);
        if let Some(newest) = &mut http.newest_messages {
            newest.text = None;
            newest.truncated = true;
        }
    }
    event
}

fn bare(event: &Event) -> Event {
    /// Most characters of each text that a bare record keeps.
    const KEPT: usize = 1024;
    let cut = |text: &str| text.chars().take(KEPT).collect::<String>();
    let mut bare = Event::new(event.kind, event.agent.clone());
    bare.decision = event.decision.clone();
    bare.timing = event.timing;
    bare.destination = event.destination.clone().map(|mut d| {
        d.host = d.host.as_deref().map(cut);
        d.sni = d.sni.as_deref().map(cut);
        d
    });
    bare.operation = event.operation.clone().map(|mut o| {
        o.verb = cut(&o.verb);
        o.resource = cut(&o.resource);
        o
    });
    bare.error = Some(format!(
        "the record was longer than {MAX_RECORD_BYTES} bytes and was shortened"
    ));
    bare
}

impl EventKind {
    /// The word that stands for the kind in a record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamOpen => "stream.open",
            Self::StreamResume => "stream.resume",
            Self::StreamHeartbeat => "stream.heartbeat",
            Self::StreamClose => "stream.close",
            Self::StreamIdentity => "stream.identity",
            Self::LedgerRead => "ledger.read",
            Self::LedgerPod => "ledger.pod",
            Self::LedgerCheckpoint => "ledger.checkpoint",
            Self::LedgerErased => "ledger.erased",
            Self::LedgerHold => "ledger.hold",
            Self::LedgerRelease => "ledger.release",
            Self::Config => "config",
            Self::Begin => "begin",
            Self::Http => "http",
            Self::WsMessage => "ws.message",
            Self::WsClose => "ws.close",
            Self::Dns => "dns",
            Self::Gap => "gap",
            Self::Connection => "connection",
        }
    }
}

impl StreamId {
    /// A version 4 UUID from 16 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self::from_bytes(bytes, 4)
    }

    /// The stream of the ledger with this origin: what it writes itself. A version 8 UUID (RFC 9562 section 5.8) of SHA-256 over `chaperone.dev/ledger`, a newline and the origin, so that
    /// whoever knows a log knows this stream of it.
    #[must_use]
    pub fn of_ledger(origin: &str) -> Self {
        let digest = Sha256::new()
            .chain_update("chaperone.dev/ledger\n")
            .chain_update(origin)
            .finalize();
        let digest: [u8; 32] = digest.into();
        let (bytes, _) = digest.split_at(16);
        Self::from_bytes(bytes.try_into().expect("half of 32 bytes is 16"), 8)
    }

    fn from_bytes(mut bytes: [u8; 16], version: u8) -> Self {
        bytes[6] = bytes[6] & 0x0f | version << 4;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = hex::encode(bytes);
        for at in [20, 16, 12, 8] {
            text.insert(at, '-');
        }
        Self(text)
    }

    /// The UUID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamId {
    type Err = BadStreamId;

    fn from_str(text: &str) -> Result<Self, BadStreamId> {
        let good = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        good.then(|| Self(text.to_owned())).ok_or(BadStreamId)
    }
}

impl TryFrom<String> for StreamId {
    type Error = BadStreamId;

    fn try_from(text: String) -> Result<Self, BadStreamId> {
        text.parse()
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RecordHash {
    /// What stands in `prev` of a stream's first record: 64 zeros.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash of this line: SHA-256 over it without the content of its bodies, as [`bodies`] says. `line` is without its newline.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        Self::of_parts(bodies::parts(line))
    }

    /// The hash of the line with these pieces.
    #[must_use]
    pub fn of_parts(parts: Parts<'_>) -> Self {
        Self(bodies::hash(parts))
    }

    fn encode(self, out: &mut [u8; 64]) {
        HEXLOWER.encode_mut(&self.0, out);
    }
}

impl FromStr for RecordHash {
    type Err = BadRecordHash;

    fn from_str(text: &str) -> Result<Self, BadRecordHash> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(BadRecordHash);
        }
        // Digits in upper case are none of its.
        let decoded = HEXLOWER.decode_mut(text.as_bytes(), &mut bytes);
        decoded.map_err(|_| BadRecordHash)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 64];
        self.encode(&mut hex);
        f.write_str(std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bodies::unsalted,
        record::{AgentRef, HttpInfo, MessageInfo, Record},
    };

    fn stream() -> StreamId {
        StreamId::from_random([7; 16])
    }

    fn event(kind: EventKind) -> Event {
        Event::new(
            kind,
            AgentRef {
                namespace: "agents".to_owned(),
                pod: "claude-0".to_owned(),
                service_account: "claude".to_owned(),
            },
        )
    }

    fn time() -> Timestamp {
        "2026-11-24T10:00:00.000007Z".parse().unwrap()
    }

    #[test]
    fn a_line_reads_back_as_the_record_that_flatten_would_have_written() {
        let mut chain = Chain::new(stream());
        let mut out = Vec::new();
        let link = chain.append(&event(EventKind::Http), time(), unsalted, &mut out);
        let record: Record = serde_json::from_slice(&out).unwrap();
        assert_eq!(record.seq, 0);
        assert_eq!(record.prev, "0".repeat(64));
        assert_eq!(record.time, "2026-11-24T10:00:00.000007Z");
        let line = out.strip_suffix(b"\n").unwrap();
        assert_eq!(serde_json::to_vec(&record).unwrap(), line);
        assert_eq!(link.hash, RecordHash::of(line));
        assert_eq!(chain.prev(), link.hash);
    }

    fn with_text(text: &str) -> Event {
        let mut event = event(EventKind::Http);
        event.http = Some(HttpInfo {
            request_body: Some(BodyInfo {
                text: Some(text.to_owned()),
                ..BodyInfo::default()
            }),
            ..HttpInfo::default()
        });
        event
    }

    const SALT: Salt = Salt::from_random([0x5a; 16]);

    #[test]
    fn texts_stand_at_the_end_of_the_line_and_are_no_part_of_its_hash() {
        let mut chain = Chain::new(stream());
        let mut out = b"before\n".to_vec();
        let event = with_text("said \"x\"");
        let link = chain.append(&event, time(), || Some(SALT), &mut out);
        let text = String::from_utf8(out).unwrap();
        let line = text.strip_prefix("before\n").unwrap().trim_end();
        let salt = "5a".repeat(16);
        let tail = format!(r#"{{"salt":"{salt}","http.requestBody":{{"text":"said \"x\""}}}}"#);
        let digest = hex::encode(Sha256::digest(&tail));
        let end = format!(
            r#","http":{{"complete":false,"requestBody":{{}}}},"bodiesSha256":"{digest}","bodies":{tail}}}"#
        );
        assert!(line.ends_with(&end), "{line}");
        let bare = line.replace(&format!(r#","bodies":{tail}"#), "");
        assert_eq!(link.hash.to_string(), hex::encode(Sha256::digest(&bare)));
        assert_eq!(link.hash, RecordHash::of(line.as_bytes()));
        assert_eq!(link.hash, RecordHash::of(bare.as_bytes()));
        assert_eq!(chain.prev(), link.hash);
        let record = Record::read(line.as_bytes()).unwrap();
        assert_eq!(record.event, event);
        assert!(!record.is_content_deleted());
        let bare = Record::read(bare.as_bytes()).unwrap();
        assert!(bare.is_content_deleted());
        assert_eq!(bare.event, with_nothing(&event));
    }

    fn with_nothing(event: &Event) -> Event {
        let mut event = event.clone();
        event.http.as_mut().unwrap().request_body = Some(BodyInfo::default());
        event
    }

    #[test]
    fn without_a_salt_no_text_is_written_and_none_is_asked_for_where_there_is_no_text() {
        let mut out = Vec::new();
        let mut chain = Chain::new(stream());
        chain.append(&with_text("secret"), time(), unsalted, &mut out);
        let record = Record::read(&out).unwrap();
        assert!(!record.is_content_deleted() && !out.windows(6).any(|part| part == b"secret"));
        let body = record.event.http.unwrap().request_body.unwrap();
        assert_eq!((body.text, body.truncated), (None, true));
        let asked = || panic!("there is no text");
        chain.append(&event(EventKind::Dns), time(), asked, &mut out);
    }

    proptest! {
        #[test]
        fn any_event_reads_back_and_its_line_is_cut_where_its_texts_begin(
            request: Option<String>, response: Option<String>, message: Option<String>,
            headers in prop::collection::btree_map(".*", ".*", 0..4), name in "bodies|bodiesSha256|.*", salt: [u8; 16]
        ) {
            let body = |text: &Option<String>| text.as_ref().map(|text| BodyInfo { text: Some(text.clone()), ..BodyInfo::default() });
            let mut event = event(EventKind::Http);
            event.http = Some(HttpInfo {
                complete: true,
                request_headers: Some(headers.into_iter().chain([(name.clone(), "5e".repeat(32))]).collect()),
                request_body: body(&request),
                response_body: body(&response),
                content_type: Some(format!("{{\"a\":1,\"{name}\":\"{}\"}}", "5e".repeat(32))),
                ..HttpInfo::default()
            });
            event.message = message.as_ref().map(|_| MessageInfo { body: body(&message), ..MessageInfo::default() });
            event.error = response.clone();
            let mut out = Vec::new();
            let link = Chain::new(stream()).append(&event, time(), || Some(Salt::from_random(salt)), &mut out);
            let line = out.strip_suffix(b"\n").unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(&Record::read(line).unwrap().event, &event);
            let bare = bodies::detached(line);
            prop_assert_eq!(link.hash, RecordHash::of(line));
            prop_assert_eq!(link.hash.to_string(), hex::encode(Sha256::digest(&bare)));
            let has_text = request.is_some() || response.is_some() || message.is_some();
            let is_with = matches!(bodies::parts(line), Parts::With { .. });
            prop_assert_eq!(is_with, has_text);
            prop_assert_eq!(bodies::is_detached(&bare), has_text);
            let read = Record::read(&bare).unwrap();
            prop_assert_eq!(read.is_content_deleted(), has_text);
            prop_assert_eq!(read.event.content().count(), 0);
            prop_assert_eq!(read.event.error, event.error);
        }
    }

    #[test]
    fn a_resumed_chain_writes_what_the_unbroken_one_would_have_written() {
        let mut whole = Chain::new(stream());
        let mut expected = Vec::new();
        whole.append(
            &event(EventKind::StreamOpen),
            time(),
            unsalted,
            &mut expected,
        );
        let mut resumed = Chain::resume(stream(), whole.next_seq(), whole.prev());
        let mut actual = expected.clone();
        whole.append(&event(EventKind::Dns), time(), unsalted, &mut expected);
        resumed.append(&event(EventKind::Dns), time(), unsalted, &mut actual);
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_whole_second_still_has_six_digits() {
        let mut out = Vec::new();
        let whole = "2026-11-24T10:00:00Z".parse().unwrap();
        Chain::new(stream()).append(&event(EventKind::Dns), whole, unsalted, &mut out);
        let record: Record = serde_json::from_slice(&out).unwrap();
        assert_eq!(record.time, "2026-11-24T10:00:00.000000Z");
    }

    #[test]
    fn an_event_that_is_too_long_is_shortened_and_says_so() {
        let mut long = with_text(&"\u{1}".repeat(MAX_RECORD_BYTES));
        let mut out = Vec::new();
        let mut chain = Chain::new(stream());
        chain.append(&long, time(), || Some(SALT), &mut out);
        let record: Record = serde_json::from_slice(&out).unwrap();
        let body = record.event.http.unwrap().request_body.unwrap();
        assert_eq!((body.text, body.truncated), (None, true));

        long.http.as_mut().unwrap().content_type = Some("x".repeat(MAX_RECORD_BYTES));
        out.clear();
        chain.append(&long, time(), || Some(SALT), &mut out);
        let record: Record = serde_json::from_slice(&out).unwrap();
        assert_eq!(record.seq, 1);
        assert!(record.event.error.unwrap().contains("shortened"));
    }

    #[test]
    fn a_stream_is_named_by_a_version_4_uuid() {
        let id = StreamId::from_random([0xff; 16]);
        assert_eq!(id.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!("\"}".parse::<StreamId>(), Err(BadStreamId));
        assert_eq!(
            id.as_str().to_uppercase().parse::<StreamId>(),
            Err(BadStreamId)
        );
    }

    #[test]
    fn a_ledgers_own_stream_is_named_by_a_version_8_uuid_of_its_origin() {
        let id = StreamId::of_ledger("ledger.example/prod");
        // printf 'chaperone.dev/ledger\nledger.example/prod' | sha256sum, with version and variant put in
        assert_eq!(id.as_str(), "adf7d48a-43b4-8226-b0c4-d6c179cf1aaa");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_ne!(id, StreamId::of_ledger("ledger.example/test"));
    }

    #[test]
    fn a_kind_is_written_as_its_word() {
        for kind in [
            EventKind::StreamOpen,
            EventKind::StreamResume,
            EventKind::StreamHeartbeat,
            EventKind::StreamClose,
            EventKind::StreamIdentity,
            EventKind::LedgerRead,
            EventKind::LedgerPod,
            EventKind::LedgerCheckpoint,
            EventKind::LedgerErased,
            EventKind::LedgerHold,
            EventKind::LedgerRelease,
            EventKind::Config,
            EventKind::Begin,
            EventKind::Http,
            EventKind::WsMessage,
            EventKind::WsClose,
            EventKind::Dns,
            EventKind::Gap,
            EventKind::Connection,
        ] {
            assert_eq!(
                serde_json::to_string(&kind).unwrap(),
                format!("\"{}\"", kind.as_str())
            );
        }
    }
}
