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
    Answer, Release,
    thread::{Thread, acknowledge, not_stored},
};
use crate::{
    api::questions::{is_held, no_such_hold},
    custody::{MAX_HOLDS, REQUEST},
    refusal::{Code, Refusal},
    retention::{name, of_stream, sessions},
};

const HOLD: EventKind = EventKind::LedgerHold;
const RELEASE: EventKind = EventKind::LedgerRelease;

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

    /// Puts a hold.
    pub(super) fn hold(&mut self, info: &HoldInfo) -> Result<Answer, Refusal> {
        let custody = self.own.custody().clone();
        let (is_there, count) = {
            let state = custody.read();
            (state.holds().contains_key(&info.name), state.holds().len())
        };
        if is_there {
            let why = format!(
                "there is a hold {:?} already: release it, or take another name",
                info.name
            );
            return Err(Refusal::new(Code::Exists, why));
        }
        if count >= MAX_HOLDS {
            return Err(Refusal::new(
                Code::Full,
                format!("there are {MAX_HOLDS} holds already"),
            ));
        }
        let time = format!("{:.6}", jiff::Timestamp::now());
        // Before it is on disk: should that fail, too much is held until the next start.
        custody.hold(HOLD, info, &time);
        self.record(|thread| thread.own.hold(&mut thread.store, HOLD, info.clone()))
    }

    /// Ends a hold, as it is by now: another of its name may be there since it was asked whether it may be ended, and that was not asked of this one.
    pub(super) fn release(&mut self, release: Release) -> Result<Answer, Refusal> {
        let custody = self.own.custody().clone();
        let name = release.hold.info.name.clone();
        let there = custody.read().holds().get(&name).cloned();
        let there = there.ok_or_else(|| no_such_hold(&name))?;
        if there != release.hold {
            let why = format!("the hold {name:?} is another by now: look at it, and ask again");
            return Err(Refusal::new(Code::Exists, why));
        }
        let info = HoldInfo {
            reason: release.reason,
            user: release.user,
            ..there.info
        };
        let recorded = info.clone();
        let answer = self.record(|thread| thread.own.hold(&mut thread.store, RELEASE, recorded))?;
        // After it is on disk: what is held stays so until then.
        custody.hold(RELEASE, &info, "");
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use chaperone_crds::record::{AgentRef, Record};
    use chaperone_ledger::{
        follow::Cursor,
        store::{Config, SEGMENT_BYTES},
    };
    use tokio::sync::watch;

    use super::*;
    use crate::{
        custody::{Custody, Hold},
        metrics::Metrics,
        writer::{Recalled, WriterConfig, thread::Tells},
    };

    fn thread(dir: &Path, custody: &Custody) -> Thread {
        let config = WriterConfig {
            keeper: chaperone_ledger::store::Keeper::default(),
            store: Config {
                dir: dir.to_owned(),
                origin: "ledger.test/log".parse().unwrap(),
                keys: Vec::new(),
                segment_bytes: SEGMENT_BYTES,
                checkpoint_seconds: 5,
            },
            keys: Vec::new(),
            agent: AgentRef::default(),
            roster: std::sync::Arc::default(),
            custody: custody.clone(),
        };
        let tells = Tells {
            end: watch::Sender::new(Cursor::START),
            sign: watch::Sender::new(0),
            other: watch::Sender::new(0),
        };
        let recalled = Recalled::nothing(&config);
        Thread::open(config, recalled, Metrics::new(), tells).unwrap()
    }

    /// What is recorded of holds: which kind, and the namespace that it is about.
    fn recorded(dir: &Path) -> Vec<(EventKind, Option<String>)> {
        let log = fs::read(dir.join("records/00000000.jsonl")).unwrap();
        let lines = log.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(|line| Record::read(line).unwrap().event);
        events
            .filter_map(|event| Some((event.kind, event.hold?.namespace)))
            .collect()
    }

    #[test]
    fn a_hold_is_ended_as_it_is_and_one_that_took_its_name_meanwhile_is_not() {
        let dir = std::env::temp_dir().join(format!("chaperone-release-{}", std::process::id()));
        // A killed run may have left it.
        let _ = fs::remove_dir_all(&dir);
        let custody = Custody::default();
        let mut thread = thread(&dir, &custody);
        let of = |namespace: &str| HoldInfo {
            name: "case-1".to_owned(),
            reason: "a case".to_owned(),
            namespace: Some(namespace.to_owned()),
            ..HoldInfo::default()
        };
        let there = || custody.read().holds().get("case-1").cloned();
        let end = |hold: &Hold| Release {
            hold: hold.clone(),
            reason: "over".to_owned(),
            user: "counsel".to_owned(),
        };
        thread.hold(&of("one")).unwrap();
        let first = there().unwrap();
        thread.release(end(&first)).unwrap();
        // Somebody else asked for the end of the first before that, and is heard now.
        thread.hold(&of("two")).unwrap();
        let second = there().unwrap();
        let refused = thread.release(end(&first)).unwrap_err();
        assert_eq!(refused.code, Code::Exists);
        assert_eq!(there(), Some(second.clone()), "it holds on");
        // Put again as it was, it is another all the same.
        thread.release(end(&second)).unwrap();
        thread.hold(&of("one")).unwrap();
        assert_eq!(thread.release(end(&first)).unwrap_err().code, Code::Exists);
        thread.release(end(&there().unwrap())).unwrap();
        assert_eq!(
            thread.release(end(&first)).unwrap_err().code,
            Code::NotFound
        );
        drop(thread);
        let expected = [
            (HOLD, "one"),
            (RELEASE, "one"),
            (HOLD, "two"),
            (RELEASE, "two"),
            (HOLD, "one"),
            (RELEASE, "one"),
        ];
        let found = recorded(&dir);
        assert_eq!(
            found,
            expected.map(|(kind, of)| (kind, Some(of.to_owned())))
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
