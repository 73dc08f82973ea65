//! What the records say of pods and streams, kept as they come.

use std::collections::{BTreeMap, HashMap, HashSet};

use chaperone_crds::{
    chain::StreamId,
    pod::PodIdentity,
    record::{AgentRef, PodInfo, Record},
};
use jiff::Timestamp;

use super::{
    Answer, CLOSED_FOR, ENDED, MAX_PODS, MAX_TOLD, Missing, REMEMBERED_FOR, RUNNING, Reason, Scope,
    judge::{self, Evidence},
};
use crate::store::Kept;

/// Holes of one stream that are kept apart; further ones widen the last.
const MAX_HOLES: usize = 16;

/// All pods that matter: those that are there, and those that ended with something wrong.
#[derive(Debug, Default)]
pub struct Roster {
    pods: HashMap<Box<str>, Pod>,
    streams: HashMap<StreamId, Stream>,
    /// Uids of pods with which all is well and that nothing more is expected of. They may still be there to be seen.
    settled: HashSet<Box<str>>,
    /// Silence counts from here: before, the ledger could not hear.
    deaf_until: Timestamp,
    log_since: Option<Timestamp>,
}

/// What is known of a pod.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) ran: Option<Ran>,
    pub(super) ended: Option<Ended>,
    /// In the order in which they began.
    pub(super) streams: Vec<StreamId>,
}

/// The ledger saw it run where a stream is expected.
#[derive(Debug)]
pub(super) struct Ran {
    /// When that was recorded.
    pub(super) seen: Timestamp,
    /// When it began.
    pub(super) since: Timestamp,
    /// Why no stream can come.
    pub(super) lacks: Option<Reason>,
}

/// It has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// When that was recorded.
    pub(super) seen: Timestamp,
    /// When it ended, or was last known to be there.
    pub(super) at: Timestamp,
}

/// What is known of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    uid: Box<str>,
    pub(super) next: u64,
    pub(super) is_closed: bool,
    /// The time of its last record, by its sidecar's clock.
    pub(super) last: Option<Timestamp>,
    /// When something of it last came, by the ledger's.
    pub(super) heard: Timestamp,
    pub(super) holes: Vec<(Missing, Timestamp)>,
}

/// Where a pod stands that was put on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known of it.
    Unknown,
    /// It has a stream, and was not seen to run yet.
    Writes,
    /// It runs.
    Runs,
    /// It has ended, or was gone.
    Ended,
    /// It has written all that it had to.
    Settled,
}

impl Roster {
    /// Learns from a record that is in the log, at a start. `own` is the ledger's own stream.
    pub fn replay(&mut self, own: &StreamId, kept: Kept<'_>) {
        let time = kept.time.parse().ok();
        self.log_since = self.log_since.or(time);
        if kept.stream == own {
            if let Ok(record) = serde_json::from_slice(kept.line) {
                self.learn(&record);
            }
            return;
        }
        let heard = Timestamp::MIN;
        self.hear(
            kept.stream,
            kept.seq.saturating_add(1),
            kept.closes,
            time,
            heard,
        );
    }

    /// Learns from a record of the ledger's own.
    pub fn learn(&mut self, record: &Record) {
        let Ok(time) = record.time.parse::<Timestamp>() else {
            return;
        };
        self.log_since = self.log_since.or(Some(time));
        if let Some(identity) = &record.event.identity
            && let Ok(stream) = identity.stream.parse()
        {
            self.bind(&stream, &identity.workload, identity.from, time);
        }
        if let Some(pod) = &record.event.pod {
            self.see(&record.event.agent, pod, time);
        }
    }

    /// The ledger could not hear until now: it did not run, or its disk took nothing.
    pub fn deaf_until(&mut self, now: Timestamp) {
        self.deaf_until = self.deaf_until.max(now);
    }

    /// The log begins, unless it has records.
    pub fn begin(&mut self, now: Timestamp) {
        self.log_since = self.log_since.or(Some(now));
    }

    /// Records of a stream were taken: which one comes next, whether it is closed, the time of the last one, and when that was.
    pub fn hear(
        &mut self,
        id: &StreamId,
        next: u64,
        is_closed: bool,
        last: Option<Timestamp>,
        heard: Timestamp,
    ) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.next = next;
        stream.is_closed = is_closed;
        stream.last = last.or(stream.last);
        stream.heard = heard;
        if is_closed {
            let uid = stream.uid.clone();
            self.settle(&uid);
        }
    }

    /// Where a pod stands.
    #[must_use]
    pub fn standing(&self, uid: &str) -> Standing {
        match self.pods.get(uid) {
            Some(pod) if pod.ended.is_some() => Standing::Ended,
            Some(pod) if pod.ran.is_some() => Standing::Runs,
            Some(_) => Standing::Writes,
            None if self.settled.contains(uid) => Standing::Settled,
            None => Standing::Unknown,
        }
    }

    /// Pods that have not ended, as far as is recorded: whose each is, its uid, and when it was last known to be there.
    pub fn not_ended(&self) -> impl Iterator<Item = (AgentRef, &str, Option<Timestamp>)> {
        let there = self.pods.iter().filter(|(_, pod)| pod.ended.is_none());
        there.map(|(uid, pod)| {
            let agent = AgentRef {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                service_account: String::new(),
            };
            let seen = pod.ran.as_ref().map(|ran| ran.seen);
            let last = self.of(pod).filter_map(|(_, stream)| stream.last).max();
            (agent, &**uid, last.max(seen))
        })
    }

    /// Forgets what ended long ago, or is too much; and of pods that nobody saw run those whose streams were closed a day ago.
    pub fn forget(&mut self, now: Timestamp) {
        let ago = |long| now.checked_sub(long).unwrap_or(Timestamp::MIN);
        let (long_ago, closed_before) = (ago(REMEMBERED_FOR), ago(CLOSED_FOR));
        let mut ends: BTreeMap<Timestamp, Vec<Box<str>>> = BTreeMap::new();
        let mut over = Vec::new();
        for (uid, pod) in &self.pods {
            match &pod.ended {
                Some(ended) => ends.entry(ended.at).or_default().push(uid.clone()),
                None if pod.ran.is_none() && self.is_whole(pod) => {
                    let last = self.of(pod).filter_map(|(_, stream)| stream.last).max();
                    over.extend((last < Some(closed_before)).then(|| uid.clone()));
                }
                None => {}
            }
        }
        for uid in over {
            self.remove(&uid);
        }
        for (at, uids) in ends {
            if at >= long_ago && self.pods.len() <= MAX_PODS {
                break;
            }
            for uid in uids {
                self.remove(&uid);
            }
        }
    }

    /// Of the pods with which all is well, only those that are there need be known.
    pub fn keep_settled(&mut self, is_there: impl Fn(&str) -> bool) {
        self.settled.retain(|uid| is_there(uid));
    }

    /// What is wrong now. `watching_since` is when the ledger began to see pods, if it does.
    #[must_use]
    pub fn answer(
        &self,
        scope: &Scope<'_>,
        watching_since: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer {
        let asked = |pod: &&Pod| {
            let is_of = scope.namespace.is_none_or(|name| name == pod.namespace);
            is_of && pod.ended.as_ref().is_none_or(|e| e.at >= scope.ended_since)
        };
        let pods = self.pods.iter().filter(|(_, pod)| asked(pod));
        let mut gaps = Vec::new();
        let mut there = 0_u64;
        for (uid, pod) in pods {
            there = there.saturating_add(u64::from(pod.ended.is_none()));
            let evidence = Evidence {
                uid,
                pod,
                streams: self.of(pod).collect(),
                deaf_until: self.deaf_until,
            };
            gaps.extend(judge::judge(&evidence, now));
        }
        gaps.sort_by(|a, b| {
            let key = |gap: &super::Gap| {
                (
                    gap.namespace.clone(),
                    gap.pod.clone(),
                    gap.reason,
                    gap.since,
                )
            };
            key(a).cmp(&key(b))
        });
        let left_out = gaps.len().saturating_sub(MAX_TOLD);
        gaps.truncate(MAX_TOLD);
        Answer {
            left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            at: now,
            watching_since,
            log_since: self.log_since,
            ended_since: scope.ended_since,
            pods: there,
            gaps,
        }
    }

    fn of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a StreamId, &'a Stream)> {
        let known = pod.streams.iter();
        known.filter_map(|id| Some((id, self.streams.get(id)?)))
    }

    /// A stream is this pod's, and goes on with record number `from` although some before are missing.
    pub fn bind(&mut self, id: &StreamId, who: &PodIdentity, from: Option<u64>, at: Timestamp) {
        self.settled.remove(&*who.uid);
        let pod = self.pods.entry(who.uid.clone().into()).or_default();
        pod.namespace.clone_from(&who.namespace);
        pod.name.clone_from(&who.pod);
        pod.node.clone_from(&who.node);
        if !pod.streams.contains(id) {
            pod.streams.push(id.clone());
        }
        let stream = self.streams.entry(id.clone()).or_insert_with(|| Stream {
            uid: who.uid.clone().into(),
            next: 0,
            is_closed: false,
            last: None,
            heard: at,
            holes: Vec::new(),
        });
        if let Some(before) = from.filter(|from| *from > stream.next) {
            let hole = Missing {
                from: stream.next,
                before,
            };
            let is_full = stream.holes.len() >= MAX_HOLES;
            match stream.holes.last_mut() {
                Some((last, when)) if is_full => {
                    (last.before, *when) = (before, at);
                }
                _ => stream.holes.push((hole, at)),
            }
            stream.next = before;
        }
    }

    /// The ledger saw a pod run, or that it has ended.
    pub fn see(&mut self, agent: &AgentRef, info: &PodInfo, at: Timestamp) {
        self.settled.remove(&*info.uid);
        let pod = self.pods.entry(info.uid.clone().into()).or_default();
        pod.namespace.clone_from(&agent.namespace);
        pod.name.clone_from(&agent.pod);
        if !info.node.is_empty() {
            pod.node.clone_from(&info.node);
        }
        let parsed = |time: &Option<String>| time.as_ref().and_then(|time| time.parse().ok());
        if info.state == RUNNING || info.since.is_some() {
            pod.ran = Some(Ran {
                seen: at,
                since: parsed(&info.since).unwrap_or(at),
                lacks: info.lacks.as_deref().and_then(Reason::of),
            });
        }
        pod.ended = (info.state == ENDED).then(|| Ended {
            seen: at,
            at: parsed(&info.after).unwrap_or(at),
        });
        self.settle(&info.uid);
    }

    /// A pod with which all is well, and of which nothing more is expected, needs no room.
    fn settle(&mut self, uid: &str) {
        let is_over = |pod: &Pod| pod.ended.is_some() && self.is_whole(pod);
        if self.pods.get(uid).is_some_and(is_over) {
            self.remove(uid);
            self.settled.insert(uid.into());
        }
    }

    /// Whether there are streams, all closed and without holes.
    fn is_whole(&self, pod: &Pod) -> bool {
        let is_whole = |stream: &Stream| stream.is_closed && stream.holes.is_empty();
        !pod.streams.is_empty() && self.of(pod).all(|(_, stream)| is_whole(stream))
    }

    fn remove(&mut self, uid: &str) {
        for stream in self.pods.remove(uid).into_iter().flat_map(|p| p.streams) {
            self.streams.remove(&stream);
        }
    }
}
