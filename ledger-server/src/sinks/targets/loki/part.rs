//! What goes in one request, and what follows from its answer. Functions of values.

use std::collections::BTreeMap;

use chaperone_crds::record::EventKind;
use jiff::Timestamp;
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value},
};

use super::answer::{Fault, Said};
use crate::sinks::target::{About, Outgoing};

/// Longest name of a namespace (RFC 1123), in bytes.
const LONGEST_NAMESPACE: usize = 63;

/// What labels entries have of their records: few values each, however many pods there are and whatever their records say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    /// Empty where it is no name of a namespace.
    pub(super) namespace: String,
    pub(super) kind: String,
    pub(super) decision: Option<&'static str>,
}

/// A record as an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its time.
    pub(super) time: Timestamp,
    /// Its place in the batch.
    pub(super) place: usize,
}

/// Entries with the same labels, in the order of their times: a server that is strict takes all that can be taken then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) labels: Labels,
    pub(super) entries: Vec<Entry>,
}

/// What goes in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) streams: Vec<Stream>,
    /// Loki has these, unless it finds fault with them too: it only found fault with others of the request before. (Its ingesters had taken the rest by then; what they refuse is said first.)
    is_there: bool,
}

/// What follows from an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct After {
    /// Places of records that are refused for good.
    pub(super) unfit: Vec<usize>,
    /// What must be sent.
    pub(super) then: Vec<Part>,
}

impl Part {
    /// A batch. A record whose time cannot be read is of now.
    pub(super) fn new(batch: &[Outgoing], now: Timestamp) -> Self {
        let mut streams: BTreeMap<Labels, Vec<Entry>> = BTreeMap::new();
        for (place, record) in batch.iter().enumerate() {
            let time = record.about.time.parse().unwrap_or(now);
            let entries = streams.entry(Labels::of(&record.about)).or_default();
            entries.push(Entry { time, place });
        }
        let streams = streams.into_iter().map(|(labels, mut entries)| {
            entries.sort_unstable();
            Stream { labels, entries }
        });
        Self {
            streams: streams.collect(),
            is_there: false,
        }
    }

    /// Each stream by itself.
    pub(super) fn alone(&self) -> Vec<Self> {
        let streams = self.streams.iter();
        streams
            .map(|stream| Self {
                streams: vec![stream.clone()],
                is_there: self.is_there,
            })
            .collect()
    }

    /// What follows from an answer. None: it does not tell which entries it is about.
    pub(super) fn after(&self, said: &Said, batch: &[Outgoing]) -> Option<After> {
        match said {
            Said::Taken => Some(After::default()),
            Said::Late(late) => self.late(late.ignored, late.of),
            Said::Fault(fault, _) => self.at_fault(fault, batch),
        }
    }

    /// So many of so many entries of one stream are behind others that Loki has.
    fn late(&self, ignored: usize, of: usize) -> Option<After> {
        let [stream] = self.streams.as_slice() else {
            // Which stream it was about is not all that there is to know: others may have been late too.
            let then = self.alone();
            return Some(After {
                unfit: Vec::new(),
                then,
            });
        };
        // Fewer where some were at fault, of which nothing is said then.
        let is_all_said = of == stream.entries.len() && (1..=of).contains(&ignored);
        is_all_said.then(|| After {
            unfit: match self.is_there {
                true => Vec::new(),
                // The oldest.
                false => stream
                    .entries
                    .iter()
                    .take(ignored)
                    .map(|e| e.place)
                    .collect(),
            },
            then: Vec::new(),
        })
    }

    /// Some entries can never be taken; what is known of them, is known of all that are older, newer or longer.
    fn at_fault(&self, fault: &Fault, batch: &[Outgoing]) -> Option<After> {
        let is_at_fault = |entry: &Entry| {
            let length = batch.get(entry.place).map_or(0, |record| record.line.len());
            fault.is_of(entry.time, length)
        };
        let count: usize = self.streams.iter().map(|stream| stream.entries.len()).sum();
        let mut unfit = Vec::new();
        let mut streams = Vec::new();
        for stream in &self.streams {
            let (bad, good): (Vec<Entry>, Vec<Entry>) = stream
                .entries
                .iter()
                .partition(|entry| count == 1 || is_at_fault(entry));
            unfit.extend(bad.iter().map(|entry| entry.place));
            if !good.is_empty() {
                streams.push(Stream {
                    labels: stream.labels.clone(),
                    entries: good,
                });
            }
        }
        let then = match streams.is_empty() {
            true => Vec::new(),
            false => vec![Self {
                streams,
                is_there: true,
            }],
        };
        (!unfit.is_empty()).then_some(After { unfit, then })
    }
}

impl Labels {
    fn of(about: &About) -> Self {
        let namespace = about.agent.namespace.as_str();
        let is_name = namespace.len() <= LONGEST_NAMESPACE
            && namespace
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let kind = about.kind.as_str();
        let read: Result<EventKind, value::Error> =
            EventKind::deserialize(kind.into_deserializer());
        let is_kind = read.is_ok();
        let decision = about
            .decision
            .as_ref()
            .and_then(|d| match d.action.as_str() {
                "Allow" => Some("Allow"),
                "Deny" => Some("Deny"),
                _ => None,
            });
        Self {
            namespace: if is_name {
                namespace.to_owned()
            } else {
                String::new()
            },
            kind: if is_kind {
                kind.to_owned()
            } else {
                "other".to_owned()
            },
            decision,
        }
    }
}

/// Places of all entries, ascending.
pub(super) fn places<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Vec<usize> {
    let streams = parts.into_iter().flat_map(|part| &part.streams);
    let mut places: Vec<usize> = streams
        .flat_map(|stream| stream.entries.iter().map(|entry| entry.place))
        .collect();
    places.sort_unstable();
    places
}
