//! What the thread does of deletion: on record first, then gone; and holds, which nothing passes.
//!
//! Each of these is a commit of its own: what comes after must find it on disk.

use std::collections::HashSet;

use chaperone_crds::record::{ErasedInfo, EventKind, HoldInfo};
use chaperone_ledger::{
    content::{Day, Entry, KeyId},
    store::Staged,
};

use super::{
    Answer,
    thread::{Thread, acknowledge, not_stored},
};
use crate::{
    api::questions::{is_held, no_such_hold},
    custody::{MAX_HOLDS, REQUEST},
    refusal::{Code, Refusal},
    retention::{name, of_stream, sessions},
};

impl Thread {
    /// Destroys keys of a day.
    pub(super) fn destroy(
        &mut self,
        day: Day,
        keys: &HashSet<KeyId>,
        mut info: ErasedInfo,
    ) -> Result<Answer, Refusal> {
        if self.is_failing() {
            return Err(not_stored());
        }
        let entries = self.store.keys_of(day);
        let entries = entries.map_err(|error| self.keys_failed(&error))?;
        let going = self.going(&entries, keys, info.cause == REQUEST)?;
        let ids: HashSet<KeyId> = going.iter().map(|entry| entry.id).collect();
        if ids.is_empty() {
            return Ok(added(0));
        }
        info.keys = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let streams = going.iter().map(|entry| entry.stream.as_str());
        let of = going.iter().filter_map(|entry| entry.session.as_deref());
        name(&mut info, streams, of);
        let cause = info.cause.clone();
        self.record(|thread| thread.own.erased(&mut thread.store, info))?;
        let destroyed = self.store.destroy(day, &ids);
        destroyed.map_err(|error| self.keys_failed(&error))?;
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        self.metrics
            .erased_keys
            .with_label_values(&[&cause])
            .inc_by(count);
        Ok(added(count))
    }

    /// Which of these keys nothing holds. Of what somebody asked for all go, or none.
    fn going<'e>(
        &self,
        entries: &'e [Entry],
        keys: &HashSet<KeyId>,
        is_asked: bool,
    ) -> Result<Vec<&'e Entry>, Refusal> {
        let state = self.own.custody().read();
        let of = sessions(entries);
        let mut going = Vec::new();
        for entry in entries.iter().filter(|entry| keys.contains(&entry.id)) {
            match state.holds_key(entry, of_stream(&of, &entry.stream)) {
                None => going.push(entry),
                Some(hold) if is_asked => return Err(is_held(&hold.info)),
                Some(_) => {}
            }
        }
        Ok(going)
    }

    /// Puts on record that records go.
    pub(super) fn erased(&mut self, info: ErasedInfo) -> Result<Answer, Refusal> {
        self.record(|thread| thread.own.erased(&mut thread.store, info))
    }

    /// Puts a hold, or its end.
    pub(super) fn hold(&mut self, kind: EventKind, info: &HoldInfo) -> Result<Answer, Refusal> {
        let custody = self.own.custody().clone();
        let (is_there, count) = {
            let state = custody.read();
            (state.holds().contains_key(&info.name), state.holds().len())
        };
        let is_hold = kind == EventKind::LedgerHold;
        if is_hold && is_there {
            let why = format!(
                "there is a hold {:?} already: release it, or take another name",
                info.name
            );
            return Err(Refusal::new(Code::Exists, why));
        }
        if is_hold && count >= MAX_HOLDS {
            return Err(Refusal::new(
                Code::Full,
                format!("there are {MAX_HOLDS} holds already"),
            ));
        }
        if !is_hold && !is_there {
            return Err(no_such_hold(&info.name));
        }
        let time = format!("{:.6}", jiff::Timestamp::now());
        if is_hold {
            // Before it is on disk: should that fail, too much is held until the next start.
            custody.hold(kind, info, &time);
        }
        let answer =
            self.record(|thread| thread.own.hold(&mut thread.store, kind, info.clone()))?;
        custody.hold(kind, info, &time);
        Ok(answer)
    }

    /// Writes a record of the ledger's own and commits it.
    fn record(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<Staged, chaperone_ledger::store::Refused>,
    ) -> Result<Answer, Refusal> {
        if self.is_failing() {
            return Err(not_stored());
        }
        let staged = write(self).map_err(Refusal::from)?;
        let committed = self.commit_now().ok_or_else(not_stored)?;
        acknowledge(staged, committed)
    }

    fn keys_failed(&mut self, error: &std::io::Error) -> Refusal {
        self.failed("keys", error);
        Refusal::new(
            Code::Storage,
            "the keys cannot be read or written now; it is tried again",
        )
    }
}

fn added(added: u64) -> Answer {
    Answer { next_seq: 0, added }
}
