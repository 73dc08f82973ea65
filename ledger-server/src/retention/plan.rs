//! What is to go: judged over keys and segments, rules and holds, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
};

use chaperone_crds::{chain::StreamId, record::ErasedInfo};
use chaperone_ledger::{
    content::{Day, Entry, KeyId, Keys},
    store::Summary,
};
use jiff::Timestamp;

use super::policy::Policy;
use crate::custody::{About, Hold, RETENTION, State};

/// Names of a kind that a record lists.
pub(crate) const MAX_NAMED: usize = 100;

/// Keys of a day that are due.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// By the rule that says so.
    pub(super) by_rule: BTreeMap<String, HashSet<KeyId>>,
}

impl Due {
    /// Of these keys. What is of nobody known is kept.
    pub(super) fn of(entries: &[Entry], policy: &Policy, state: &State, now: Timestamp) -> Self {
        let sessions = sessions(entries);
        let mut due = Self::default();
        for entry in entries {
            let Some(owner) = state.owner(&entry.stream) else {
                continue;
            };
            let (kept, rule) = policy.of(&owner.namespace);
            let is_due = |age: &super::policy::Age| age.is_over(entry.id.day().ends(), now);
            let Some(age) = kept.content.filter(is_due) else {
                continue;
            };
            if state
                .holds_key(entry, of_stream(&sessions, &entry.stream))
                .is_none()
            {
                let rule = format!("{rule}: content {age}");
                due.by_rule.entry(rule).or_default().insert(entry.id);
            }
        }
        due
    }
}

/// The sessions of each stream that has keys here.
pub(crate) fn sessions(entries: &[Entry]) -> HashMap<&StreamId, HashSet<&str>> {
    let mut sessions: HashMap<&StreamId, HashSet<&str>> = HashMap::new();
    for entry in entries {
        let of = sessions.entry(&entry.stream).or_default();
        of.extend(entry.session.as_deref());
    }
    sessions
}

pub(crate) fn of_stream<'s>(
    sessions: &'s HashMap<&StreamId, HashSet<&'s str>>,
    stream: &StreamId,
) -> &'s HashSet<&'s str> {
    static NONE: std::sync::LazyLock<HashSet<&'static str>> =
        std::sync::LazyLock::new(HashSet::new);
    sessions.get(stream).unwrap_or(&NONE)
}

/// Streams whose records go out of a segment.
#[derive(Debug, Default)]
pub(super) struct Goes {
    /// By the rule that says so: each stream, and how many records.
    by_rule: BTreeMap<String, BTreeMap<StreamId, u64>>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Goes {
    /// Of this segment. Its records are as old as the youngest of them may be: the ledger's own records say how late it was.
    pub(super) fn of(
        known: &BTreeMap<u64, Summary>,
        segment: u64,
        policy: &Policy,
        state: &State,
        now: Timestamp,
    ) -> Self {
        let Some(summary) = known.get(&segment) else {
            return Self::default();
        };
        let told = known.range(segment..).find_map(|(_, summary)| summary.told);
        let Some(until) = told else {
            return Self::default();
        };
        let mut goes = Self {
            from: summary.earliest,
            until: Some(until),
            ..Self::default()
        };
        for (stream, count) in &summary.records {
            let Some(owner) = state.owner(stream) else {
                continue;
            };
            let (kept, rule) = policy.of(&owner.namespace);
            let Some(age) = kept.records.filter(|age| age.is_over(until, now)) else {
                continue;
            };
            // A hold of a session holds all of each stream that it is in.
            let named = known.values().flat_map(|summary| &summary.sessions);
            let sessions = named
                .filter(|(of, _)| of == stream)
                .map(|(_, name)| name.as_str())
                .collect();
            let about = About {
                stream,
                sessions: &sessions,
                from: summary.earliest.unwrap_or(Timestamp::MIN).min(until),
                // What came at that time too.
                until: until
                    .checked_add(jiff::SignedDuration::from_micros(1))
                    .unwrap_or(until),
            };
            if state.held(&about).is_none() {
                let rule = format!("{rule}: records {age}");
                goes.by_rule
                    .entry(rule)
                    .or_default()
                    .insert(stream.clone(), *count);
            }
        }
        goes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_rule.is_empty()
    }

    pub(super) fn streams(&self) -> BTreeSet<StreamId> {
        self.by_rule
            .values()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    /// What is to be recorded before.
    pub(super) fn records(&self) -> Vec<ErasedInfo> {
        let time = |time: Option<Timestamp>| time.unwrap_or(Timestamp::UNIX_EPOCH).to_string();
        let each = self.by_rule.iter().map(|(rule, streams)| {
            let mut info = ErasedInfo {
                what: "records".to_owned(),
                cause: RETENTION.to_owned(),
                rule: Some(rule.clone()),
                records: streams
                    .values()
                    .fold(0, |sum, count| sum.saturating_add(*count)),
                from: time(self.from),
                until: time(self.until),
                ..ErasedInfo::default()
            };
            name(
                &mut info,
                streams.keys().map(StreamId::as_str),
                std::iter::empty(),
            );
            info
        });
        each.collect()
    }
}

/// Names streams and sessions in a record, as many as it has room for.
pub(crate) fn name<'s>(
    info: &mut ErasedInfo,
    streams: impl Iterator<Item = &'s str>,
    sessions: impl Iterator<Item = &'s str>,
) {
    let (streams, sessions): (BTreeSet<_>, BTreeSet<_>) = (streams.collect(), sessions.collect());
    let beyond = |all: &BTreeSet<&str>| all.len().saturating_sub(MAX_NAMED);
    let more = beyond(&streams).saturating_add(beyond(&sessions));
    let some = |all: BTreeSet<&str>| all.into_iter().take(MAX_NAMED).map(str::to_owned).collect();
    info.more = u64::try_from(more).unwrap_or(u64::MAX);
    info.streams = some(streams);
    info.sessions = some(sessions);
}

/// All keys of the streams that sessions of these names are in, in the order in which they were made.
///
/// # Errors
/// The system's.
pub fn about(keys: &Keys, wanted: &HashSet<&str>) -> io::Result<Vec<Entry>> {
    let days = keys.days()?;
    let mut streams = HashSet::new();
    let is_wanted = |entry: &Entry| {
        let session = entry.session.as_deref();
        session.is_some_and(|s| wanted.contains(s)) || wanted.contains(entry.stream.as_str())
    };
    for day in &days {
        let entries = keys.entries(*day)?.into_iter().filter(is_wanted);
        streams.extend(entries.map(|entry| entry.stream));
    }
    let mut found = Vec::new();
    for day in days {
        let entries = keys.entries(day)?.into_iter();
        found.extend(entries.filter(|entry| streams.contains(&entry.stream)));
    }
    Ok(found)
}

/// The keys of a session's content.
#[derive(Debug)]
pub struct Erasure {
    /// The namespace that it is of.
    pub namespace: String,
    /// The keys, by day.
    pub keys: BTreeMap<Day, HashSet<KeyId>>,
}

/// Why nothing can be erased.
#[derive(Debug)]
pub enum NoErasure {
    /// There is none.
    Nothing,
    /// Sessions of several namespaces have this name.
    Ambiguous(BTreeSet<String>),
    /// It is held.
    Held(Box<Hold>),
}

/// Which keys open the content of a session of this name: what counts to it and what came before it in streams whose first session it is; of a stream's own session, which has the stream's name, what counts to no other.
/// Of the keys that [`about`] gives for it; those that were made after `before` are another matter.
///
/// # Errors
/// [`NoErasure`].
pub fn erasure(
    entries: &[Entry],
    state: &State,
    session: &str,
    namespace: Option<&str>,
    before: Option<Timestamp>,
) -> Result<Erasure, NoErasure> {
    let mut first: HashMap<&StreamId, &str> = HashMap::new();
    for entry in entries {
        if let Some(session) = &entry.session {
            first.entry(&entry.stream).or_insert(session);
        }
    }
    let counts = |entry: &&Entry| match &entry.session {
        Some(named) => named == session,
        None => match first.get(&entry.stream) {
            Some(first) => *first == session,
            None => entry.stream.as_str() == session,
        },
    };
    let sessions = sessions(entries);
    let mut namespaces = BTreeSet::new();
    let mut found: BTreeMap<Day, HashSet<KeyId>> = BTreeMap::new();
    for entry in entries.iter().filter(counts) {
        let Some(owner) = state.owner(&entry.stream) else {
            continue;
        };
        let is_before = before.is_none_or(|before| entry.made < before);
        if namespace.is_some_and(|wanted| wanted != &*owner.namespace) || !is_before {
            continue;
        }
        if let Some(hold) = state.holds_key(entry, of_stream(&sessions, &entry.stream)) {
            return Err(NoErasure::Held(Box::new(hold.clone())));
        }
        namespaces.insert(owner.namespace.to_string());
        found.entry(entry.id.day()).or_default().insert(entry.id);
    }
    if namespaces.len() > 1 {
        return Err(NoErasure::Ambiguous(namespaces));
    }
    let namespace = namespaces.pop_first().ok_or(NoErasure::Nothing)?;
    Ok(Erasure {
        namespace,
        keys: found,
    })
}
