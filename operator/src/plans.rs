//! The plan of each pod, where its stream hears of changes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::index::{Index, Plan};

/// What a stream hears: the plan, or none as long as there was no good one.
pub type PlanReceiver = watch::Receiver<Option<Arc<Plan>>>;

/// Plans by pod uid. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Plans(Arc<Mutex<HashMap<String, PlanSender>>>);

type PlanSender = watch::Sender<Option<Arc<Plan>>>;

impl Plans {
    /// Takes over an index. Pods that it lacks are forgotten, and their streams end. A pod without a plan keeps the one it had.
    pub fn publish(&self, index: &Index) {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|uid, _| index.pods.contains_key(uid));
        for (uid, plan) in &index.pods {
            let sender = plans
                .entry(uid.clone())
                .or_insert_with(|| watch::channel(None).0);
            let Ok(plan) = plan else {
                continue;
            };
            sender.send_if_modified(|current| {
                let is_new = current.as_ref() != Some(plan);
                if is_new {
                    *current = Some(Arc::clone(plan));
                }
                is_new
            });
        }
    }

    /// Hears the plan of a pod. None if there is no such pod.
    #[must_use]
    pub fn subscribe(&self, uid: &str) -> Option<PlanReceiver> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.get(uid).map(watch::Sender::subscribe)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::{
        index,
        tests::{namespaced, pod, world},
    };

    fn publish(plans: &Plans, rule: &str, pods: &[&str]) {
        let pods = pods.iter().map(|name| pod("a", name, &[])).collect();
        let world = world(vec![namespaced("a", "p", json!({}), rule)], pods);
        plans.publish(&index(&world, |_| Ok(())));
    }

    #[test]
    fn a_stream_hears_changes_and_nothing_else() {
        let plans = Plans::default();
        assert!(plans.subscribe("uid-one").is_none());
        publish(&plans, "r", &["one"]);
        let mut receiver = plans.subscribe("uid-one").unwrap();
        let first = receiver.borrow_and_update().clone().unwrap();
        publish(&plans, "r", &["one", "two"]);
        assert!(!receiver.has_changed().unwrap(), "its plan is the same");
        publish(&plans, "r2", &["one"]);
        assert!(receiver.has_changed().unwrap());
        let second = receiver.borrow_and_update().clone().unwrap();
        assert_ne!(first.revision, second.revision);
    }

    #[test]
    fn a_broken_policy_leaves_the_last_good_plan_and_a_gone_pod_ends_its_stream() {
        let plans = Plans::default();
        publish(&plans, "r", &["one"]);
        let mut receiver = plans.subscribe("uid-one").unwrap();
        receiver.borrow_and_update();
        publish(&plans, "broken", &["one"]);
        assert!(!receiver.has_changed().unwrap());
        assert!(receiver.borrow().is_some());
        publish(&plans, "r", &[]);
        assert!(receiver.has_changed().is_err());
    }
}
