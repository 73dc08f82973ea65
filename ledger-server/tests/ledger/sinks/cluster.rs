//! Sinks as the API server has them: watched, with their Secrets, and their condition written.

use serde_json::{Value, json};

use super::{http::endpoint, *};

fn spec(address: SocketAddr, secret: &str) -> Value {
    json!({
        "from": "Ledger",
        "http": {"url": format!("http://{address}/in"), "allowInsecure": true, "bearerTokenSecret": {"name": secret, "key": "token"}}
    })
}

#[test]
fn sinks_of_the_cluster_are_fed_and_their_condition_says_how_they_fare() {
    let mut feed = Feed::new("sinks-cluster");
    let (taken, address) = endpoint();
    let cluster = feed.world.cluster.clone();
    let api = &cluster.sinks;
    api.is_watched
        .store(true, std::sync::atomic::Ordering::Relaxed);
    api.set_secret("collector", Some("t0ken"));
    api.set_secret("kept", None);
    api.set("siem", Some(spec(address, "collector")));
    api.set("kept", Some(spec(address, "kept")));
    api.set("gone", Some(spec(address, "gone")));
    api.set("of-sidecars", Some(json!({"stdout": {}})));
    feed.start();
    feed.grow(100);
    feed.drained("siem");
    assert_all_arrived(&feed.records(), &taken.lines());
    let is = |name: &str, status: &str, part: &str| {
        let found = api.delivering(name);
        found.is_some_and(|[is, _, message]| is == status && message.contains(part))
    };
    until("siem acknowledges", || is("siem", "True", "acknowledges"));
    until("RBAC is named", || {
        is("kept", "False", "add it to ledger.sinkSecrets")
    });
    until("the Secret is named", || is("gone", "False", "Secret gone"));
    assert_eq!(api.delivering("of-sidecars"), None);
    assert!(!feed.world.data.join("sinks/of-sidecars.cursor").exists());

    // A change that is wrong leaves the sink with its last good settings.
    api.set("siem", Some(spec(address, "gone")));
    until("what is wrong is said", || {
        is("siem", "False", "it goes on with the settings before")
    });
    feed.grow(10);
    feed.drained("siem");
    assert_all_arrived(&feed.records(), &taken.lines());

    // One that is removed is sent nothing, and goes on when it is there again.
    api.set("siem", None);
    until("it was removed", || {
        let kept = std::fs::read_to_string(feed.world.data.join("sinks/siem.cursor")).unwrap();
        kept.contains("\"left\"")
    });
    let before = taken.lines().len();
    feed.grow(10);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(taken.lines().len(), before);
    api.set("siem", Some(spec(address, "collector")));
    feed.drained("siem");
    assert_all_arrived(&feed.records(), &taken.lines());
    assert_eq!(
        taken.lines().len(),
        feed.records().len(),
        "nothing came twice"
    );
}
