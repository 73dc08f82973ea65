//! Tables for selection, merging and holding back.

use chaperone_crds::{
    resources::{AgentPolicy, ClusterAgentPolicy},
    snapshot::{Policy, PolicyKind},
};
use serde_json::{Value, json};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A pod whose uid is `uid-NAME`.
pub(crate) fn pod(namespace: &str, name: &str, pairs: &[(&str, &str)]) -> PodIdentity {
    PodIdentity {
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        uid: format!("uid-{name}"),
        service_account: "default".to_owned(),
        labels: labels(pairs),
        ..PodIdentity::default()
    }
}

/// Compiles all but policies that have a rule named `broken`.
fn compile(policy: &Policy) -> Result<(), String> {
    match policy.rules.iter().any(|rule| rule.name == "broken") {
        true => Err("rule broken, line 1: no such thing".to_owned()),
        false => Ok(()),
    }
}

fn rule(name: &str) -> Value {
    json!({"name": name, "action": "Deny"})
}

/// An `AgentPolicy` with one rule.
pub(crate) fn namespaced(
    namespace: &str,
    name: &str,
    selector: Value,
    rule_name: &str,
) -> PolicyEntry {
    let resource: AgentPolicy = serde_json::from_value(json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy",
        "metadata": {"name": name, "namespace": namespace, "generation": 3},
        "spec": {"selector": selector, "rules": [rule(rule_name)]}
    }))
    .unwrap();
    PolicyEntry::namespaced(&resource, compile)
}

fn cluster(name: &str, namespaces: Value, selector: Value, rule_name: &str) -> PolicyEntry {
    let resource: ClusterAgentPolicy = serde_json::from_value(json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "ClusterAgentPolicy", "metadata": {"name": name},
        "spec": {"namespaceSelector": namespaces, "selector": selector, "rules": [rule(rule_name)]}
    }))
    .unwrap();
    PolicyEntry::cluster(&resource, compile)
}

/// A world with namespaces `a` (team=red) and `b` (team=blue).
pub(crate) fn world(policies: Vec<PolicyEntry>, pods: Vec<PodIdentity>) -> World {
    World {
        policies,
        pods,
        namespaces: BTreeMap::from([
            ("a".to_owned(), labels(&[("team", "red")])),
            ("b".to_owned(), labels(&[("team", "blue")])),
        ]),
        ..World::default()
    }
}

fn run(world: &World) -> Index {
    index(world, |_| Ok(()))
}

fn policies_of<'a>(index: &'a Index, uid: &str) -> Vec<&'a str> {
    let plan = index.pods[uid].as_ref().unwrap();
    let policies = plan.snapshot.policies();
    policies.iter().map(|p| p.reference.name.as_str()).collect()
}

#[test]
fn label_selectors_have_the_semantics_of_kubernetes() {
    let app = &[("app", "x"), ("tier", "1")][..];
    let expression = |operator: &str, key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let cases = [
        (json!({}), true),
        (json!({"matchLabels": {"app": "x"}}), true),
        (json!({"matchLabels": {"app": "y"}}), false),
        (json!({"matchLabels": {"app": "x", "gone": "1"}}), false),
        (expression("In", "app", json!(["x", "y"])), true),
        (expression("In", "gone", json!(["x"])), false),
        (expression("NotIn", "app", json!(["x"])), false),
        (expression("NotIn", "app", json!(["y"])), true),
        (expression("NotIn", "gone", json!(["y"])), true),
        (expression("Exists", "app", json!(null)), true),
        (expression("Exists", "gone", json!(null)), false),
        (expression("DoesNotExist", "app", json!(null)), false),
        (expression("DoesNotExist", "gone", json!(null)), true),
        (
            json!({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["2"]}]}),
            false,
        ),
    ];
    for (selector, selected) in cases {
        let entry = namespaced("a", "p", selector.clone(), "r");
        let found = entry.selects(&pod("a", "x", app), &Labels::new());
        assert_eq!(found, selected, "{selector}");
    }
}

#[test]
fn a_policy_reaches_its_namespace_and_a_cluster_policy_those_it_selects() {
    let world = world(
        vec![
            namespaced("a", "in-a", json!({}), "r"),
            cluster("everywhere", json!({}), json!({}), "r"),
            cluster(
                "red",
                json!({"matchLabels": {"team": "red"}}),
                json!({"matchLabels": {"app": "x"}}),
                "r",
            ),
        ],
        vec![
            pod("a", "one", &[("app", "x")]),
            pod("a", "two", &[]),
            pod("b", "three", &[("app", "x")]),
            pod("unaudited", "four", &[]),
        ],
    );
    let index = run(&world);
    assert_eq!(
        policies_of(&index, "uid-one"),
        ["everywhere", "red", "in-a"]
    );
    assert_eq!(policies_of(&index, "uid-two"), ["everywhere", "in-a"]);
    assert_eq!(policies_of(&index, "uid-three"), ["everywhere"]);
    assert!(!index.pods.contains_key("uid-four"));
    let red = PolicyRef {
        kind: PolicyKind::ClusterAgentPolicy,
        namespace: String::new(),
        name: "red".to_owned(),
    };
    assert_eq!(index.policies[&red].pods, ["uid-one"]);
}

#[test]
fn a_pod_without_policies_has_an_empty_snapshot() {
    let index = run(&world(vec![], vec![pod("a", "one", &[])]));
    let plan = index.pods["uid-one"].as_ref().unwrap();
    assert_eq!(plan.revision, Snapshot::default().revision());
}

#[test]
fn the_order_of_the_world_makes_no_difference() {
    let policies = vec![
        namespaced("a", "x", json!({}), "r"),
        namespaced("a", "y", json!({}), "r"),
        cluster("z", json!({}), json!({}), "r"),
    ];
    let mut reversed = policies.clone();
    reversed.reverse();
    let pods = vec![pod("a", "one", &[])];
    assert_eq!(
        run(&world(policies, pods.clone())),
        run(&world(reversed, pods))
    );
}

#[test]
fn a_broken_policy_holds_back_the_pods_that_it_selects_and_no_others() {
    let world = world(
        vec![
            namespaced("a", "bad", json!({"matchLabels": {"app": "x"}}), "broken"),
            namespaced("a", "good", json!({}), "r"),
        ],
        vec![pod("a", "one", &[("app", "x")]), pod("a", "two", &[])],
    );
    let index = run(&world);
    assert_eq!(
        index.pods["uid-one"],
        Err("a/bad: rule broken, line 1: no such thing".to_owned())
    );
    assert_eq!(policies_of(&index, "uid-two"), ["good"]);
    let outcomes: Vec<_> = index.policies.values().map(|o| o.error.is_some()).collect();
    assert_eq!(outcomes, [true, false]);
}

#[test]
fn a_policy_that_cannot_be_read_or_selects_by_nonsense_holds_back_all_it_could_select() {
    let nonsense = json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]});
    let unreadable = PolicyRef {
        kind: PolicyKind::AgentPolicy,
        namespace: "a".to_owned(),
        name: "odd".to_owned(),
    };
    for entry in [
        namespaced("a", "odd", nonsense, "r"),
        PolicyEntry::unreadable(unreadable, 1, "unknown field `shape`"),
    ] {
        let world = world(
            vec![entry],
            vec![pod("a", "one", &[]), pod("b", "two", &[])],
        );
        let index = run(&world);
        assert!(index.pods["uid-one"].is_err());
        assert!(index.pods["uid-two"].is_ok());
    }
}

#[test]
fn a_merged_snapshot_that_does_not_compile_is_held_back() {
    let world = world(
        vec![namespaced("a", "p", json!({}), "r")],
        vec![pod("a", "one", &[])],
    );
    let index = index(&world, |_| Err("together too large".to_owned()));
    assert_eq!(index.pods["uid-one"], Err("together too large".to_owned()));
}

#[test]
fn only_pods_with_a_token_for_the_ledger_are_sent_there() {
    let sink = |name: &str| -> SinkConfig {
        serde_json::from_value(json!({"name": name, "target": {"type": "stdout"}})).unwrap()
    };
    let usual = vec![sink("siem")];
    let mut world = world(vec![], vec![pod("a", "new", &[]), pod("b", "old", &[])]);
    world.sinks = Arc::new(usual.clone());
    let with = sinks::with_ledger(&usual, "https://l.c.svc:9445".to_owned(), "the root");
    world.ledger = Some(LedgerWriters {
        sinks: Arc::new(with),
        pods: BTreeSet::from(["uid-new".to_owned()]),
    });
    let index = run(&world);
    let names = |uid: &str| -> Vec<String> {
        let sinks = &index.pods[uid].as_ref().unwrap().config().sinks;
        sinks.iter().map(|sink| sink.name.clone()).collect()
    };
    assert_eq!(names("uid-new"), [sinks::LEDGER_SINK, "siem"]);
    assert_eq!(names("uid-old"), ["siem"]);
}
