//! Whose evidence is whose, and what of it must not be deleted: what the ledger's own records say of that.
//!
//! Owns the state that deletion is judged by. Refuses to be told of a hold otherwise than by its record. Invariants: what this says is what the log says, at a start as while it runs; where it is not known whose a stream is, every hold of a namespace holds it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use chaperone_crds::{
    chain::StreamId,
    record::{ErasedInfo, EventKind, HoldInfo, Record},
};
use chaperone_ledger::content::Entry;
use jiff::Timestamp;

/// Holds at a time, at most: each deletion is held against all.
pub const MAX_HOLDS: usize = 1000;

/// Erasures that are looked at again at a start, at most: a stop may have broken off those of the last moment.
const MAX_ASKED: usize = 100;

/// The state. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Custody(Arc<RwLock<State>>);

/// What is known.
#[derive(Debug, Default)]
pub struct State {
    owners: HashMap<StreamId, Owner>,
    holds: BTreeMap<String, Hold>,
    /// Erasures that were asked for, which a stop may have broken off.
    asked: VecDeque<(ErasedInfo, Timestamp)>,
}

/// Whose a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its pod.
    pub pod: Box<str>,
}

/// A hold, and since when it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it says.
    pub info: HoldInfo,
    /// Time of its record.
    pub since: String,
}

/// What is to be deleted.
#[derive(Debug)]
pub struct About<'a> {
    /// Of this stream.
    pub stream: &'a StreamId,
    /// Of these sessions, as far as is known.
    pub sessions: &'a HashSet<&'a str>,
    /// Not older than this.
    pub from: Timestamp,
    /// Older than this.
    pub until: Timestamp,
}

impl Custody {
    /// To be looked at. What holds stays while it is held.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns whose a stream is.
    pub(crate) fn own(&self, stream: &StreamId, namespace: &str, pod: &str) {
        let owner = Owner {
            namespace: namespace.into(),
            pod: pod.into(),
        };
        self.write().owners.insert(stream.clone(), owner);
    }

    /// Learns from a record of the ledger's own. It waits for who deletes just now.
    pub(crate) fn learn(&self, record: &Record) {
        let event = &record.event;
        if let Some(hold) = &event.hold {
            self.hold(event.kind, hold, &record.time);
        }
        let asked = event
            .erased
            .as_ref()
            .filter(|erased| erased.cause == REQUEST);
        if let Some((erased, time)) = asked.zip(record.time.parse().ok()) {
            let asked = &mut self.write().asked;
            if asked.len() >= MAX_ASKED {
                asked.pop_front();
            }
            asked.push_back((erased.clone(), time));
        }
    }

    /// A hold, or its end.
    pub(crate) fn hold(&self, kind: EventKind, info: &HoldInfo, time: &str) {
        let mut state = self.write();
        match kind {
            EventKind::LedgerHold => {
                let hold = Hold {
                    info: info.clone(),
                    since: time.to_owned(),
                };
                state.holds.insert(info.name.clone(), hold);
            }
            EventKind::LedgerRelease => drop(state.holds.remove(&info.name)),
            _ => {}
        }
    }
}

/// `erased.cause` of what somebody asked for.
pub(crate) const REQUEST: &str = "request";
/// `erased.cause` of what a rule says.
pub(crate) const RETENTION: &str = "retention";

impl State {
    /// Whose the stream is.
    #[must_use]
    pub fn owner(&self, stream: &StreamId) -> Option<&Owner> {
        self.owners.get(stream)
    }

    /// The holds, by name.
    #[must_use]
    pub fn holds(&self) -> &BTreeMap<String, Hold> {
        &self.holds
    }

    /// The last erasures that were asked for, with the time of each, in order.
    #[must_use]
    pub fn asked(&self) -> &VecDeque<(ErasedInfo, Timestamp)> {
        &self.asked
    }

    /// A hold that keeps this from being deleted.
    #[must_use]
    pub fn held(&self, about: &About<'_>) -> Option<&Hold> {
        let owner = self.owners.get(about.stream);
        self.holds
            .values()
            .find(|hold| hold.info.holds(about, owner))
    }

    /// The same of what a key opens. `sessions` are those of its stream.
    #[must_use]
    pub fn holds_key(&self, key: &Entry, sessions: &HashSet<&str>) -> Option<&Hold> {
        let own: HashSet<&str> = key.session.as_deref().into_iter().collect();
        let day = key.id.day();
        self.held(&About {
            stream: &key.stream,
            // What came before a session was named may belong to any of the stream's.
            sessions: if own.is_empty() { sessions } else { &own },
            from: day.begins(),
            until: day.ends(),
        })
    }
}

trait Holds {
    fn holds(&self, about: &About<'_>, owner: Option<&Owner>) -> bool;
}

impl Holds for HoldInfo {
    fn holds(&self, about: &About<'_>, owner: Option<&Owner>) -> bool {
        // A time that cannot be read is no bound.
        let time = |text: &Option<String>| text.as_deref().and_then(|time| time.parse().ok());
        let from: Timestamp = time(&self.from).unwrap_or(Timestamp::MIN);
        let until: Timestamp = time(&self.until).unwrap_or(Timestamp::MAX);
        if about.until <= from || about.from >= until {
            return false;
        }
        let is = |wanted: &Option<String>, there: Option<&str>| {
            wanted
                .as_deref()
                .zip(there)
                .is_none_or(|(wanted, there)| wanted == there)
        };
        if !is(&self.namespace, owner.map(|owner| &*owner.namespace))
            || !is(&self.pod, owner.map(|owner| &*owner.pod))
        {
            return false;
        }
        if let Some(stream) = &self.stream {
            return stream == about.stream.as_str();
        }
        self.session.as_deref().is_none_or(|session| {
            about.sessions.contains(session) || session == about.stream.as_str()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> StreamId {
        StreamId::from_random([number; 16])
    }

    fn hold(name: &str, change: impl FnOnce(&mut HoldInfo)) -> HoldInfo {
        let mut hold = HoldInfo {
            name: name.to_owned(),
            reason: "a case".to_owned(),
            ..HoldInfo::default()
        };
        change(&mut hold);
        hold
    }

    #[test]
    fn a_hold_holds_what_it_names_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        type Case = (HoldInfo, [bool; 4]);
        let cases: [Case; 8] = [
            (
                hold("all", |h| h.everything = true),
                [true, true, true, true],
            ),
            (
                hold("ns", |h| h.namespace = some("a")),
                [true, false, true, true],
            ),
            (
                hold("pod", |h| (h.namespace, h.pod) = (some("a"), some("one"))),
                [true, false, true, true],
            ),
            (
                hold("stream", |h| h.stream = some(id(1).as_str())),
                [true, false, false, true],
            ),
            (
                hold("session", |h| h.session = some("s")),
                [true, true, false, true],
            ),
            (
                hold("session", |h| {
                    (h.session, h.namespace) = (some("s"), some("b"))
                }),
                [false, true, false, false],
            ),
            (
                hold("early", |h| {
                    (h.everything, h.until) = (true, some("2026-11-02T00:00:00Z"))
                }),
                [true, true, true, false],
            ),
            (
                hold("late", |h| {
                    (h.everything, h.from) = (true, some("2026-11-02T00:00:00Z"))
                }),
                [false, false, false, true],
            ),
        ];
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (info, expected) in cases {
            let custody = Custody::default();
            custody.own(&id(1), "a", "one");
            custody.own(&id(2), "b", "two");
            custody.hold(EventKind::LedgerHold, &info, "2026-11-24T10:00:00Z");
            let state = custody.read();
            let (s, none) = (HashSet::from(["s"]), HashSet::new());
            let held = |stream: &StreamId, sessions: &HashSet<&str>, day: &str, next: &str| {
                let about = About {
                    stream,
                    sessions,
                    from: time(day),
                    until: time(next),
                };
                state.held(&about).is_some()
            };
            let (first, second, third) = (
                "2026-11-01T00:00:00Z",
                "2026-11-02T00:00:00Z",
                "2026-11-03T00:00:00Z",
            );
            let found = [
                held(&id(1), &s, first, second),
                held(&id(2), &s, first, second),
                // Nobody knows whose this is.
                held(&id(3), &none, first, second),
                held(&id(1), &s, second, third),
            ];
            assert_eq!(found, expected, "{info:?}");
            drop(state);
            custody.hold(EventKind::LedgerRelease, &info, "2026-11-25T10:00:00Z");
            assert!(custody.read().holds().is_empty());
        }
    }
}
