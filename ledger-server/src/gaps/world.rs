//! What the API server shows, and what of it is not on record yet: values in, values out.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use chaperone_crds::record::{AgentRef, PodInfo};
use chaperone_ledger::gaps::{ENDED, RUNNING, Roster, Standing};

use super::sighting::Sighting;

/// How long a pod that is on record may be missing among those that are seen before it counts as gone: a watch may lag behind what the pod itself sent.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// Pods and audited namespaces.
#[derive(Debug, Default)]
pub(super) struct World {
    audited: HashSet<String>,
    pods: HashMap<String, Sighting>,
    /// Uids that a list has shown, while it comes.
    listed: HashSet<String>,
    /// Pods that are gone, until that is on record.
    gone: HashSet<String>,
    /// Pods that are on record and not seen, and since when.
    missing: HashMap<String, Instant>,
}

/// What is to be put on record.
pub(super) type Note = (AgentRef, PodInfo);

impl World {
    pub(super) fn set_audited(&mut self, namespace: &str, is_audited: bool) {
        match is_audited {
            true => self.audited.insert(namespace.to_owned()),
            false => self.audited.remove(namespace),
        };
    }

    /// Only these namespaces are there.
    pub(super) fn keep_namespaces(&mut self, there: &HashSet<String>) {
        self.audited.retain(|name| there.contains(name));
    }

    pub(super) fn see(&mut self, pod: Sighting) {
        self.listed.insert(pod.uid.clone());
        self.gone.remove(&pod.uid);
        let before = self.pods.remove(&pod.uid);
        self.pods
            .insert(pod.uid.clone(), pod.after(before.as_ref()));
    }

    /// A pod is gone; this is how it was last.
    pub(super) fn lose(&mut self, pod: Sighting) {
        let uid = pod.uid.clone();
        self.see(pod);
        self.gone.insert(uid);
    }

    pub(super) fn begin_list(&mut self) {
        self.listed.clear();
    }

    /// Pods that the list did not have are gone.
    pub(super) fn end_list(&mut self) {
        let lost = self.pods.keys().filter(|uid| !self.listed.contains(*uid));
        self.gone.extend(lost.cloned());
        self.listed.clear();
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// What is not on record yet.
    pub(super) fn notes(&mut self, roster: &Roster, now: Instant) -> Vec<Note> {
        let seen = self.pods.values().filter_map(|pod| self.note(pod, roster));
        let mut notes: Vec<_> = seen.collect();
        let mut missing = HashMap::new();
        for (agent, uid, last) in roster.not_ended().filter(|(_, uid, _)| !self.has(uid)) {
            // Until it is on record: who could not note it now shall not wait again.
            let since = self.missing.get(uid).copied().unwrap_or(now);
            missing.insert(uid.to_owned(), since);
            if now.duration_since(since) < MISSING_FOR {
                continue;
            }
            let info = PodInfo {
                state: ENDED.to_owned(),
                uid: uid.to_owned(),
                after: last.map(|last| last.to_string()),
                ..PodInfo::default()
            };
            notes.push((agent, info));
        }
        self.missing = missing;
        notes
    }

    /// What was noted is on record: pods that are gone need not be kept any more.
    pub(super) fn settle(&mut self, roster: &Roster) {
        let open: HashSet<String> = self
            .gone
            .iter()
            .filter_map(|uid| self.pods.get(uid))
            .filter(|pod| self.note(pod, roster).is_some())
            .map(|pod| pod.uid.clone())
            .collect();
        for uid in self.gone.drain().filter(|uid| !open.contains(uid)) {
            self.pods.remove(&uid);
        }
        self.gone = open;
    }

    fn note(&self, pod: &Sighting, roster: &Roster) -> Option<Note> {
        let has_ended = pod.has_ended || self.gone.contains(&pod.uid);
        let is_expected = pod.has_run && self.audited.contains(&pod.agent.namespace);
        let state = match (roster.standing(&pod.uid), has_ended) {
            (Standing::Unknown, false) if is_expected => RUNNING,
            (Standing::Unknown, true) if is_expected => ENDED,
            (Standing::Writes | Standing::Ended, false) if is_expected => RUNNING,
            (Standing::Writes | Standing::Runs, true) => ENDED,
            _ => return None,
        };
        let since = pod.since.map(|since| since.to_string());
        let info = PodInfo {
            state: state.to_owned(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            lacks: pod.lacks.map(|reason| reason.as_str().to_owned()),
            // It stands for "was seen to run where a stream is expected".
            since: is_expected.then_some(since).flatten(),
            after: None,
        };
        Some((pod.agent.clone(), info))
    }
}

#[cfg(test)]
mod tests {
    use chaperone_ledger::gaps::Reason;
    use jiff::Timestamp;

    use super::*;

    fn pod(name: &str) -> Sighting {
        Sighting {
            agent: AgentRef {
                namespace: "agents".to_owned(),
                pod: name.to_owned(),
                service_account: "coder".to_owned(),
            },
            uid: name.to_owned(),
            node: "node-1".to_owned(),
            has_run: true,
            has_ended: false,
            since: Some(Timestamp::UNIX_EPOCH),
            lacks: None,
        }
    }

    /// What is noted now, as `name state`, and put on record.
    fn noted(world: &mut World, roster: &mut Roster, now: Instant) -> Vec<String> {
        let notes = world.notes(roster, now);
        for (agent, info) in &notes {
            roster.see(agent, info, Timestamp::now());
        }
        world.settle(roster);
        let mut told: Vec<_> = notes
            .iter()
            .map(|(agent, info)| format!("{} {}", agent.pod, info.state))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn each_pod_of_an_audited_namespace_is_noted_when_it_runs_and_when_it_ends() {
        let (mut world, mut roster, now) = (World::default(), Roster::default(), Instant::now());
        world.see(pod("a"));
        world.see(Sighting {
            has_run: false,
            ..pod("pulling")
        });
        assert!(noted(&mut world, &mut roster, now).is_empty());
        world.set_audited("agents", true);
        assert_eq!(noted(&mut world, &mut roster, now), ["a running"]);
        assert!(noted(&mut world, &mut roster, now).is_empty(), "once");
        // Its namespace's label goes: what ran there is not forgotten.
        world.set_audited("agents", false);
        world.see(pod("b"));
        world.lose(pod("a"));
        assert_eq!(noted(&mut world, &mut roster, now), ["a ended"]);
        assert!(!world.has("a") && world.has("b"));
    }

    #[test]
    fn a_pod_that_came_and_went_between_two_looks_is_noted_once_with_what_it_lacked() {
        let (mut world, mut roster, now) = (World::default(), Roster::default(), Instant::now());
        world.set_audited("agents", true);
        let bare = Sighting {
            lacks: Some(Reason::NoSidecar),
            ..pod("a")
        };
        world.see(bare.clone());
        world.lose(bare);
        let notes = world.notes(&roster, now);
        assert_eq!(notes[0].1.lacks.as_deref(), Some("no-sidecar"));
        assert_eq!(noted(&mut world, &mut roster, now), ["a ended"]);
        assert!(noted(&mut world, &mut roster, now).is_empty());
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_and_what_the_watch_never_saw_only_after_a_while() {
        let (mut world, mut roster, now) = (World::default(), Roster::default(), Instant::now());
        world.set_audited("agents", true);
        world.see(pod("a"));
        world.see(pod("b"));
        assert_eq!(noted(&mut world, &mut roster, now).len(), 2);
        world.begin_list();
        world.see(pod("b"));
        world.end_list();
        assert_eq!(noted(&mut world, &mut roster, now), ["a ended"]);

        // Another process: it knows `b` from the log alone.
        let mut world = World::default();
        world.set_audited("agents", true);
        assert!(noted(&mut world, &mut roster, now).is_empty());
        let later = now + MISSING_FOR;
        let notes = world.notes(&roster, later);
        assert!(notes[0].1.after.is_some(), "it was not seen to go");
        assert_eq!(noted(&mut world, &mut roster, later), ["b ended"]);
        // It was only late: there it is.
        world.see(pod("b"));
        assert_eq!(noted(&mut world, &mut roster, later), ["b running"]);
    }
}
