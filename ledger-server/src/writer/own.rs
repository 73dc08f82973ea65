//! The ledger's own stream: what it records itself, and whose the other streams are.
//!
//! Owns the bindings of streams to pods. Refuses a stream that is bound to another pod, its own, and one that is there without a binding, which no ledger of ours leaves. Invariant: a binding is in the
//! store before, and never committed after, the first record of its stream; at a start the bindings are what these records say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chaperone_crds::{
    bodies::unsalted,
    chain::StreamId,
    pod::PodIdentity,
    record::{
        AgentRef, CheckpointInfo, ErasedInfo, Event, EventKind, HoldInfo, IdentityInfo, OpenInfo,
        PodInfo, ReadInfo, Record,
    },
};
use chaperone_ledger::{
    gaps::Roster,
    store::{Kept, Onward, Refused, Staged, Store},
};
use jiff::Timestamp;

use crate::{
    authenticate::Workload,
    custody::Custody,
    refusal::{Code, Refusal},
};

/// The stream and the bindings.
#[derive(Debug)]
pub(super) struct Own {
    stream: StreamId,
    agent: AgentRef,
    bindings: HashMap<StreamId, Binding>,
    /// Learns of pods and streams what is recorded of them.
    roster: Arc<Mutex<Roster>>,
    /// Learns whose streams are, and what is held.
    custody: Custody,
}

/// Whose a stream is: some 150 bytes for each.
#[derive(Debug)]
struct Binding {
    uid: Box<str>,
    /// [`Workload::digest`] of what was recorded last.
    known: [u8; 32],
}

impl Own {
    pub(super) fn new(
        origin: &str,
        agent: AgentRef,
        roster: Arc<Mutex<Roster>>,
        custody: Custody,
    ) -> Self {
        Self {
            stream: StreamId::of_ledger(origin),
            agent,
            bindings: HashMap::new(),
            roster,
            custody,
        }
    }

    pub(super) fn custody(&self) -> &Custody {
        &self.custody
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a record that is in the store. What it says of a stream that goes on without some of its records.
    pub(super) fn replay(&mut self, kept: Kept<'_>) -> Option<Onward> {
        self.roster().replay(&self.stream, kept);
        let Kept { stream, line, .. } = kept;
        if *stream != self.stream {
            return None;
        }
        // The store has checked the line's head. What else of it cannot be read binds nothing, and a stream without a binding is refused.
        let record = Record::read(line).ok()?;
        self.custody.learn(&record);
        let identity = record.event.identity?;
        let stream: StreamId = identity.stream.parse().ok()?;
        let whose = &identity.workload;
        self.custody.own(&stream, &whose.namespace, &whose.pod);
        let workload = Workload {
            identity: identity.workload,
            image_ids: identity.image_ids,
        };
        let binding = Binding::of(&workload);
        self.bindings.insert(stream.clone(), binding);
        let from = identity.from?;
        Some(Onward { stream, from })
    }

    /// The first record of this process: the stream begins, or goes on. It never ends, for its end would leave the ledger nowhere to record to.
    pub(super) fn begin(&self, store: &mut Store) -> Result<(), Refused> {
        let now = Timestamp::now();
        let mut roster = self.roster();
        roster.begin(now);
        roster.deaf_until(now);
        roster.forget(now);
        drop(roster);
        let kind = match store.next_seq(&self.stream) {
            0 => EventKind::StreamOpen,
            _ => EventKind::StreamResume,
        };
        let mut event = Event::new(kind, self.agent.clone());
        event.open = Some(OpenInfo {
            identity: PodIdentity {
                namespace: self.agent.namespace.clone(),
                pod: self.agent.pod.clone(),
                service_account: self.agent.service_account.clone(),
                ..PodIdentity::default()
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        // The commit that follows has it.
        self.write(store, &event).map(|_| ())
    }

    /// Records that somebody read, or was refused.
    pub(super) fn read(&self, store: &mut Store, read: ReadInfo) -> Result<Staged, Refused> {
        let mut event = Event::new(EventKind::LedgerRead, self.agent.clone());
        event.read = Some(read);
        self.write(store, &event)
    }

    /// Records that a pod was seen to run, or that it has ended.
    pub(super) fn pod(
        &self,
        store: &mut Store,
        agent: &AgentRef,
        pod: PodInfo,
    ) -> Result<Staged, Refused> {
        let mut event = Event::new(EventKind::LedgerPod, agent.clone());
        event.pod = Some(pod.clone());
        let staged = self.write(store, &event)?;
        // What is staged is committed sooner or later; until then the same would be recorded twice.
        self.roster().see(agent, &pod, Timestamp::now());
        Ok(staged)
    }

    /// Records what is about to be deleted.
    pub(super) fn erased(&self, store: &mut Store, info: ErasedInfo) -> Result<Staged, Refused> {
        let mut event = Event::new(EventKind::LedgerErased, self.agent.clone());
        event.erased = Some(info);
        self.write(store, &event)
    }

    /// Records a hold, or its end.
    pub(super) fn hold(
        &self,
        store: &mut Store,
        kind: EventKind,
        info: HoldInfo,
    ) -> Result<Staged, Refused> {
        let mut event = Event::new(kind, self.agent.clone());
        event.hold = Some(info);
        self.write(store, &event)
    }

    /// Records a checkpoint.
    pub(super) fn checkpoint(
        &self,
        store: &mut Store,
        checkpoint: CheckpointInfo,
    ) -> Result<Staged, Refused> {
        let mut event = Event::new(EventKind::LedgerCheckpoint, self.agent.clone());
        event.checkpoint = Some(checkpoint);
        self.write(store, &event)
    }

    /// Whether this pod may speak about the stream, whose next record is `next`; and whether all that is known of the pod is recorded.
    pub(super) fn admit(
        &self,
        stream: &StreamId,
        workload: &Workload,
        next: u64,
    ) -> Result<bool, Refusal> {
        let not_yours = |why: &str| Err(Refusal::new(Code::NotYours, why));
        if *stream == self.stream {
            return not_yours("the stream is the ledger's own");
        }
        match self.bindings.get(stream) {
            Some(binding) if *binding.uid != *workload.identity.uid => {
                not_yours("the stream is another pod's")
            }
            Some(binding) => Ok(binding.known == workload.digest()),
            None if next > 0 => not_yours("it is not recorded whose the stream is"),
            None => Ok(false),
        }
    }

    /// Records whose the stream is, ahead of its records; and with which of them it goes on, where those before are missing.
    pub(super) fn bind(
        &mut self,
        store: &mut Store,
        stream: &StreamId,
        workload: &Workload,
        from: Option<u64>,
    ) -> Result<(), Refused> {
        let mut event = Event::new(
            EventKind::StreamIdentity,
            AgentRef::from(&workload.identity),
        );
        event.identity = Some(IdentityInfo {
            stream: stream.to_string(),
            workload: workload.identity.clone(),
            image_ids: workload.image_ids.clone(),
            from,
        });
        // The commit that has the batch behind it has this too.
        let _with_the_batch = self.write(store, &event)?;
        self.bindings.insert(stream.clone(), Binding::of(workload));
        let whose = &workload.identity;
        self.custody.own(stream, &whose.namespace, &whose.pod);
        let (who, now) = (&workload.identity, Timestamp::now());
        self.roster().bind(stream, who, from, now);
        Ok(())
    }

    fn write(&self, store: &mut Store, event: &Event) -> Result<Staged, Refused> {
        let mut line = Vec::new();
        store
            .chain(&self.stream)
            .append(event, Timestamp::now(), unsalted, &mut line);
        store.stage(&self.stream, &line)
    }
}

impl Binding {
    fn of(workload: &Workload) -> Self {
        Self {
            uid: workload.identity.uid.clone().into(),
            known: workload.digest(),
        }
    }
}
