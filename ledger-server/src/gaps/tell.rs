//! Shows what is wrong to whoever looks elsewhere: metrics by reason, and an Event at each pod.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use chaperone_ledger::gaps::{Answer, Gap, Reason, Scope};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Gaps, Watched};
use crate::metrics::Metrics;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(15);
/// Pods that ended longer ago count in no metric: an alert about what cannot be mended any more ends after a day.
const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// A pod that ended so long before the ledger began has its Event, if there was a ledger then.
const TOLD_BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// Pause between two Events: at most 20 a second.
const PACE: Duration = Duration::from_millis(50);
/// Events of one round; others have their turn in the next.
const MAX_EVENTS: usize = 100;
/// Longest text of an Event, in characters; the API server takes 1 kB.
const MAX_NOTE_CHARS: usize = 800;

/// Writes Events in the name of the ledger's pod.
pub(super) fn recorder(client: Client, watched: &Watched) -> Recorder {
    let reporter = Reporter {
        controller: "chaperone-ledger".to_owned(),
        instance: Some(watched.pod_name.clone()),
    };
    Recorder::new(client, reporter)
}

/// Runs for ever.
pub(super) async fn run(recorder: Option<Recorder>, gaps: Gaps, metrics: Metrics) {
    let began = Timestamp::now();
    let mut told = HashSet::new();
    let mut rounds = interval(INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let now = Timestamp::now();
        gaps.known().forget(now);
        let scope = Scope {
            namespace: None,
            ended_since: now.checked_sub(COUNTED_FOR).unwrap_or(Timestamp::MIN),
        };
        let answer = gaps.answer(&scope);
        show(&answer, &metrics);
        let Some(recorder) = &recorder else {
            continue;
        };
        for gap in news(&answer, &mut told, began) {
            if let Err(error) = recorder.publish(&event(gap), &about(gap)).await {
                tracing::debug!(%error, "an Event could not be written");
            }
            sleep(PACE).await;
        }
    }
}

fn show(answer: &Answer, metrics: &Metrics) {
    for (reason, pods) in counts(answer) {
        metrics.gaps.with_label_values(&[reason.as_str()]).set(pods);
    }
    metrics
        .watching
        .set(i64::from(answer.watching_since.is_some()));
}

/// Pods by reason; one that has several counts to each.
fn counts(answer: &Answer) -> BTreeMap<Reason, i64> {
    let mut pods: BTreeMap<Reason, BTreeSet<&str>> =
        Reason::ALL.map(|reason| (reason, BTreeSet::new())).into();
    for gap in &answer.gaps {
        pods.entry(gap.reason).or_default().insert(&gap.uid);
    }
    let count = |pods: BTreeSet<&str>| i64::try_from(pods.len()).unwrap_or(i64::MAX);
    pods.into_iter()
        .map(|(reason, pods)| (reason, count(pods)))
        .collect()
}

/// What has not been told yet, and deserves it.
fn news<'a>(
    answer: &'a Answer,
    told: &mut HashSet<(String, Reason)>,
    began: Timestamp,
) -> Vec<&'a Gap> {
    let key = |gap: &Gap| (gap.uid.clone(), gap.reason);
    let old = began.checked_sub(TOLD_BEFORE).unwrap_or(Timestamp::MIN);
    let is_news = |gap: &&Gap| gap.reason.is_wrong() && gap.ended.is_none_or(|at| at >= old);
    let now: HashSet<_> = answer.gaps.iter().map(key).collect();
    told.retain(|known| now.contains(known));
    let mut news = Vec::new();
    for gap in answer.gaps.iter().filter(is_news) {
        if news.len() < MAX_EVENTS && told.insert(key(gap)) {
            news.push(gap);
        }
    }
    news
}

fn event(gap: &Gap) -> Event {
    let text = format!("{} ({}); {}", gap.detail, gap.reason, gap.advice);
    Event {
        type_: EventType::Warning,
        reason: "EvidenceMissing".to_owned(),
        note: Some(text.chars().take(MAX_NOTE_CHARS).collect()),
        action: "Audit".to_owned(),
        secondary: None,
    }
}

fn about(gap: &Gap) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(gap.namespace.clone()),
        name: Some(gap.pod.clone()),
        uid: Some(gap.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(uid: &str, reason: Reason, ended: Option<&str>) -> Gap {
        Gap {
            namespace: "agents".to_owned(),
            pod: uid.to_owned(),
            uid: uid.to_owned(),
            node: String::new(),
            reason,
            detail: "it is".to_owned(),
            advice: reason.advice().to_owned(),
            since: Timestamp::MIN,
            ended: ended.map(|time| time.parse().unwrap()),
            stream: None,
            last_record: None,
            next_seq: None,
            missing: None,
        }
    }

    fn answer(gaps: Vec<Gap>) -> Answer {
        Answer {
            at: Timestamp::UNIX_EPOCH,
            watching_since: None,
            log_since: None,
            ended_since: Timestamp::MIN,
            pods: 3,
            gaps,
            left_out: 0,
        }
    }

    #[test]
    fn each_pod_counts_once_to_each_reason_and_every_reason_is_there() {
        let gaps = vec![
            gap("a", Reason::Hole, None),
            gap("a", Reason::Hole, None),
            gap("a", Reason::Silent, None),
            gap("b", Reason::Hole, None),
        ];
        let counts = counts(&answer(gaps));
        assert_eq!(counts.len(), Reason::ALL.len());
        let of = |reason| counts[&reason];
        assert_eq!(
            (of(Reason::Hole), of(Reason::Silent), of(Reason::Unclosed)),
            (2, 1, 0)
        );
    }

    #[test]
    fn an_event_is_written_once_until_the_gap_has_gone_and_come_again() {
        let began = "2026-11-29T10:00:00Z".parse().unwrap();
        let mut told = HashSet::new();
        let mut pods = |gaps: Vec<Gap>| -> Vec<String> {
            let answer = answer(gaps);
            let news = news(&answer, &mut told, began);
            news.iter().map(|gap| gap.pod.clone()).collect()
        };
        let a = gap("a", Reason::Silent, None);
        let long_gone = gap("b", Reason::Unclosed, Some("2026-11-29T09:00:00Z"));
        let exempt = gap("c", Reason::Exempt, None);
        let gone = gap("d", Reason::Unclosed, Some("2026-11-29T09:59:00Z"));
        let all = vec![a.clone(), long_gone, exempt, gone];
        assert_eq!(pods(all.clone()), ["a", "d"]);
        assert!(pods(all).is_empty());
        assert!(pods(Vec::new()).is_empty());
        assert_eq!(pods(vec![a]), ["a"]);
    }

    #[test]
    fn an_event_says_what_is_wrong_and_what_to_do() {
        for reason in Reason::ALL {
            let event = event(&gap("a", reason, None));
            let note = event.note.unwrap();
            assert!(
                note.contains(reason.as_str()) && note.len() < 1000,
                "{note}"
            );
        }
    }
}
