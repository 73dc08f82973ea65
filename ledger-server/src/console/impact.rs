//! A candidate policy over past operations: reads both, judges within bounds, and makes the page's figures.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{http::StatusCode, response::Response};
use chaperone_console::{ImpactPage, Judged, form::Asked, impact as impact_page};
use chaperone_crds::{
    documents::{self, Document},
    impact::{Candidate, Impact},
    pod::PodIdentity,
    record::Record,
    snapshot::Policy,
};
use chaperone_index::store::Found;
use kube::core::{Selector, SelectorExt as _};

use super::{
    Console, html,
    logins::Login,
    notice,
    pages::{extent, row},
};
use crate::{
    api::questions::Opens,
    refusal::{Code, Refusal},
};

/// How long judging may take: a policy's bounds hold for one operation, not for a thousand.
const JUDGE: Duration = Duration::from_secs(3);
/// Records where nobody says how many.
const RECORDS: &str = "500";

/// A policy, and whom it selects.
struct Proposed {
    candidate: Candidate,
    namespace: Option<String>,
    pods: Selector,
}

/// What came of one operation.
enum Outcome {
    Of(Impact),
    NotSelected,
    NotJudged,
}

impl Console {
    /// The form, empty or as it was filled in.
    pub(super) fn impact_form(&self, login: &Login, asked: &Asked) -> String {
        let page = ImpactPage {
            asked,
            problems: None,
            found: None,
        };
        impact_page(&self.frame(Some(&login.user)), &page)
    }

    pub(super) async fn impact(
        &self,
        login: &Login,
        mut asked: Asked,
    ) -> Result<Response, Refusal> {
        let frame = self.frame(Some(&login.user));
        let policy = asked.get("policy").cloned().unwrap_or_default();
        let home = asked.get("namespace").cloned();
        let read =
            tokio::task::spawn_blocking(move || Proposed::read(&policy, home.as_deref())).await;
        let proposed = match read.map_err(|_| failed())? {
            Ok(proposed) => proposed,
            Err(problems) => {
                let page = ImpactPage {
                    asked: &asked,
                    problems: Some(&problems),
                    found: None,
                };
                return Ok(html(StatusCode::BAD_REQUEST, impact_page(&frame, &page)));
            }
        };
        asked
            .entry("limit".to_owned())
            .or_insert(RECORDS.to_owned());
        let mut words = asked.clone();
        words.remove("policy");
        let told = match self.api.records_with_opens(&login.token, words).await {
            Err(refused) if refused.code == Code::Unauthenticated => return Err(refused),
            Err(refused) => {
                let page = ImpactPage {
                    asked: &asked,
                    problems: None,
                    found: Some(Err(notice(&refused))),
                };
                return Ok(html(refused.code.status(), impact_page(&frame, &page)));
            }
            Ok(told) => told,
        };
        let far = extent(&told);
        let (found, opens) = told.answer;
        let judge = move || {
            let outcomes = proposed.judge(&found, &opens);
            (found, outcomes)
        };
        let (found, outcomes) = tokio::task::spawn_blocking(judge)
            .await
            .map_err(|_| failed())?;
        let judged = figures(&found, &outcomes);
        let page = ImpactPage {
            asked: &asked,
            problems: None,
            found: Some(Ok((&judged, &far))),
        };
        Ok(html(StatusCode::OK, impact_page(&frame, &page)))
    }
}

impl Proposed {
    /// Of a file with one policy; one that names no namespace is of `home`.
    fn read(yaml: &str, home: Option<&str>) -> Result<Self, String> {
        let mut documents = documents::parse(yaml).map_err(|errors| errors.to_string())?;
        let (Some(mut document), true) = (documents.pop(), documents.is_empty()) else {
            return Err("one policy at a time".to_owned());
        };
        let (policy, selector) = match &mut document {
            Document::AgentPolicy(policy) => {
                if policy.metadata.namespace.is_none() {
                    policy.metadata.namespace = home.map(str::to_owned);
                }
                let selector = policy.spec.selector.clone();
                (document.policy(), selector)
            }
            Document::ClusterAgentPolicy(policy) => {
                let selector = policy.spec.selector.clone();
                (document.policy(), selector)
            }
            Document::AuditSink(_) => (None, Default::default()),
        };
        let policy: Policy = policy.ok_or("this is no policy")?;
        let candidate = Candidate::new(&policy).map_err(|errors| errors.to_string())?;
        let pods = Selector::try_from(selector).map_err(|error| format!("selector: {error}"))?;
        let namespace = Some(policy.reference.namespace).filter(|name| !name.is_empty());
        Ok(Self {
            candidate,
            namespace,
            pods,
        })
    }

    /// Outcomes in the order of records; None for one that is about no operation.
    fn judge(&self, found: &[Found], opens: &Opens) -> Vec<Option<Outcome>> {
        let until = Instant::now() + JUDGE;
        let pods: BTreeMap<&str, PodIdentity> = opens
            .iter()
            .filter_map(|(stream, line)| Some((stream.as_str(), identity(line)?)))
            .collect();
        let one = |found: &Found| {
            if Instant::now() >= until {
                return Some(Outcome::NotJudged);
            }
            let record = Record::read(&found.line).ok()?;
            // Of no operation: the ledger's own word about the stream, among others.
            record.event.decision.as_ref()?;
            let Some(pod) = pods.get(found.stream.as_str()) else {
                let why = "the stream's first record, which has the pod's labels, is not there";
                return Some(Outcome::Of(Impact::Unknown(why)));
            };
            let impact = self.candidate.judge(&record, pod)?;
            let home = self.namespace.as_deref();
            let is_there = home.is_none_or(|name| name == found.whose.namespace);
            Some(match is_there && self.pods.matches(&pod.labels) {
                true => Outcome::Of(impact),
                false => Outcome::NotSelected,
            })
        };
        found.iter().map(one).collect()
    }
}

fn figures<'a>(found: &'a [Found], outcomes: &'a [Option<Outcome>]) -> Judged<'a> {
    let mut judged = Judged::default();
    for (found, outcome) in found.iter().zip(outcomes) {
        let Some(outcome) = outcome else {
            continue;
        };
        match outcome {
            Outcome::NotJudged => judged.is_cut = true,
            Outcome::NotSelected => judged.not_selected += 1,
            Outcome::Of(Impact::Same) => judged.same += 1,
            Outcome::Of(Impact::BuiltIn) => judged.built_in += 1,
            Outcome::Of(Impact::Unknown(why)) => *judged.unknown.entry(*why).or_default() += 1,
            Outcome::Of(impact) => judged.changed.push((row(found), impact)),
        }
    }
    judged
}

fn identity(line: &[u8]) -> Option<PodIdentity> {
    let record = Record::read(line).ok()?;
    record.event.open.map(|open| open.identity)
}

fn failed() -> Refusal {
    Refusal::new(Code::Storage, "the policy could not be judged")
}
