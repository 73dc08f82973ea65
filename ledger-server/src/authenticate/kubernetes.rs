//! The cluster's word: TokenReview for who has a token, the pod for what it is, SubjectAccessReview for what a reader may.

use std::{sync::Arc, time::Duration};

use chaperone_crds::{
    pod::{LEDGER_AUDIENCE, SIDECAR_NAME},
    resources::{AgentPolicy, ClusterAgentPolicy, PolicyRule},
};
use chaperone_server::{
    remembered::Remembered,
    reviews::{self, Caller, MAX_REVIEWS, REVIEW_LIFE, Reviews, TokenDigest, TokenRefused, User},
    workload::{identity, image_ids},
};
use k8s_openapi::{
    api::{
        authorization::v1::{
            NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use super::{Authenticator, Place, PolicyNow, Reader, Sight, Verdict, Workload};
use crate::{
    random,
    refusal::{Code, Refusal},
};

/// Questions about pods and rights under way at a time.
const MAX_CONCURRENT: usize = 16;
/// The group of records and sessions: resources that RBAC names and the API server does not serve.
const GROUP: &str = "chaperone.dev";
/// Tokens of users whom the ledger itself knows begin so: they are no cluster's.
const VOUCHED: &str = "chaperone-login.";
/// How many of them hold at a time: more than there may be logins.
const MAX_VOUCHED: usize = 4096;
/// How long one may take, waiting included.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks an API server.
pub struct Kubernetes {
    client: Client,
    reviews: Reviews,
    workloads: Remembered<TokenDigest, Arc<Workload>>,
    readers: Remembered<(TokenDigest, Place), bool>,
    sights: Remembered<(TokenDigest, Sight, Option<String>), Arc<Reader>>,
    vouched: Remembered<TokenDigest, Arc<User>>,
    slots: Semaphore,
}

impl Kubernetes {
    /// Asks this one.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Reviews::new(client.clone(), LEDGER_AUDIENCE),
            client,
            workloads: Remembered::new(MAX_REVIEWS),
            readers: Remembered::new(2 * MAX_REVIEWS),
            sights: Remembered::new(2 * MAX_REVIEWS),
            vouched: Remembered::new(MAX_VOUCHED),
            slots: Semaphore::new(MAX_CONCURRENT),
        }
    }

    /// Who reads with this token: of the cluster, or whom the ledger itself knows.
    async fn user(&self, token: &str) -> Result<reviews::Verdict, TokenRefused> {
        if !token.starts_with(VOUCHED) {
            return self.reviews.user(token).await;
        }
        let token = Sha256::digest(token.as_bytes()).into();
        let user = self.vouched.get(&token);
        let user = user.ok_or(TokenRefused::BadToken("the login is over"))?;
        Ok(reviews::Verdict {
            user,
            token,
            life: REVIEW_LIFE,
        })
    }

    async fn find_workload(&self, token: &str) -> Result<Arc<Workload>, Refusal> {
        let verdict = self.reviews.user(token).await?;
        let caller = verdict.user.pod()?;
        if let Some(workload) = self.workloads.get(&verdict.token) {
            return Ok(workload);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &caller.namespace);
        let pod = self.ask("pods", pods.get_opt(&caller.pod)).await?;
        let workload = Arc::new(judge(&caller, pod.as_ref())?);
        // A verdict's life may be all but over; a pod that is looked at twice does no harm.
        self.workloads
            .put(verdict.token, workload.clone(), verdict.life);
        Ok(workload)
    }

    async fn judge_sight(
        &self,
        token: &str,
        sight: Sight,
        namespace: Option<&str>,
    ) -> Result<Arc<Reader>, Refusal> {
        let verdict = self.user(token).await?;
        let key = (verdict.token, sight, namespace.map(str::to_owned));
        if let Some(reader) = self.sights.get(&key) {
            return Ok(reader);
        }
        let reader = Arc::new(Reader {
            is_allowed: self.allows(seeing(&verdict.user, sight, namespace)).await?,
            user: verdict.user,
        });
        self.sights.put(key, reader.clone(), verdict.life);
        Ok(reader)
    }

    /// The policy, with the ledger's own right to read it: only for a user who has it too.
    async fn find_policy(
        &self,
        token: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<PolicyNow>, Refusal> {
        let verdict = self.user(token).await?;
        let resource = match namespace {
            Some(_) => "agentpolicies",
            None => "clusteragentpolicies",
        };
        if !self
            .allows(getting(&verdict.user, resource, namespace, name))
            .await?
        {
            let user = &verdict.user.name;
            let place = namespace.map_or(String::new(), |n| format!(" in namespace {n}"));
            let why = format!("{user} may not get {resource} {name:?} of chaperone.dev{place}");
            return Err(Refusal::new(Code::Forbidden, why));
        }
        let client = self.client.clone();
        Ok(match namespace {
            Some(namespace) => {
                let api: Api<AgentPolicy> = Api::namespaced(client, namespace);
                let found = self.ask(resource, api.get_opt(name)).await?;
                found.map(|found| now(&found.metadata, found.spec.rules))
            }
            None => {
                let api: Api<ClusterAgentPolicy> = Api::all(client);
                let found = self.ask(resource, api.get_opt(name)).await?;
                found.map(|found| now(&found.metadata, found.spec.rules))
            }
        })
    }

    async fn allows(&self, review: SubjectAccessReview) -> Result<bool, Refusal> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = self
            .ask("subjectaccessreviews", reviews.create(&params, &review))
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn judge_reader(&self, token: &str, place: Place) -> Result<(), Refusal> {
        let verdict = self.reviews.user(token).await?;
        let key = (verdict.token, place);
        let allowed = match self.readers.get(&key) {
            Some(allowed) => allowed,
            None => {
                let allowed = self.allows(access(&verdict.user, place)).await?;
                self.readers.put(key, allowed, verdict.life);
                allowed
            }
        };
        allowed.then_some(()).ok_or_else(|| {
            let (name, path) = (&verdict.user.name, place.path());
            let why = format!("{name} may not get the nonResourceURL {path}");
            Refusal::new(Code::Forbidden, why)
        })
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        question: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        let ask = async {
            let _slot = self.slots.acquire().await.ok()?;
            let answer = question.await;
            answer
                .inspect_err(
                    |error| tracing::warn!(%error, what, "the API server refused a question"),
                )
                .ok()
        };
        let answer = timeout(ASK_TIMEOUT, ask).await.ok().flatten();
        answer.ok_or_else(|| {
            let why = format!("the API server gave no answer about {what}");
            Refusal::new(Code::Unavailable, why)
        })
    }
}

impl Authenticator for Kubernetes {
    fn workload<'a>(&'a self, token: &'a str) -> Verdict<'a, Arc<Workload>> {
        Box::pin(self.find_workload(token))
    }

    fn may_read<'a>(&'a self, token: &'a str, place: Place) -> Verdict<'a, ()> {
        Box::pin(self.judge_reader(token, place))
    }

    fn reader<'a>(
        &'a self,
        token: &'a str,
        sight: Sight,
        namespace: Option<&'a str>,
    ) -> Verdict<'a, Arc<Reader>> {
        Box::pin(self.judge_sight(token, sight, namespace))
    }

    fn vouch(&self, user: User, life: Duration) -> Result<String, Refusal> {
        let token = format!("{VOUCHED}{}", random::name()?);
        let digest = Sha256::digest(token.as_bytes()).into();
        self.vouched.put(digest, Arc::new(user), life);
        Ok(token)
    }

    fn policy<'a>(
        &'a self,
        token: &'a str,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> Verdict<'a, Option<PolicyNow>> {
        Box::pin(self.find_policy(token, namespace, name))
    }
}

/// What the API server knows of the pod that a token is bound to. Fails closed: the token outlives its pod by moments, and a pod of the same name may come after.
fn judge(caller: &Caller, pod: Option<&Pod>) -> Result<Workload, Refusal> {
    let no = |why: &str| Refusal::new(Code::Forbidden, format!("the token's pod {why}"));
    let pod = pod.ok_or_else(|| no("is not there"))?;
    let identity = identity(pod);
    if identity.uid != caller.uid {
        return Err(no("is another one of the same name"));
    }
    if identity.service_account != caller.service_account {
        return Err(no("has another service account"));
    }
    let spec = pod.spec.as_ref();
    let started_first = spec.and_then(|spec| spec.init_containers.as_deref());
    if !started_first
        .unwrap_or_default()
        .iter()
        .any(|c| c.name == SIDECAR_NAME)
    {
        return Err(no("has no sidecar of Chaperone"));
    }
    Ok(Workload {
        identity,
        image_ids: image_ids(pod),
    })
}

fn access(user: &User, place: Place) -> SubjectAccessReview {
    review(
        user,
        SubjectAccessReviewSpec {
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(place.path().to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
    )
}

/// Without a namespace: in all of them.
fn seeing(user: &User, sight: Sight, namespace: Option<&str>) -> SubjectAccessReview {
    let parts = sight.resource.split_once('/');
    let (resource, subresource) = match parts {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (sight.resource, None),
    };
    review(
        user,
        SubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(sight.verb.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
    )
}

fn getting(
    user: &User,
    resource: &str,
    namespace: Option<&str>,
    name: &str,
) -> SubjectAccessReview {
    review(
        user,
        SubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some("get".to_owned()),
                namespace: namespace.map(str::to_owned),
                name: Some(name.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
    )
}

fn now(metadata: &ObjectMeta, rules: Vec<PolicyRule>) -> PolicyNow {
    PolicyNow {
        generation: metadata.generation.unwrap_or_default(),
        rules,
    }
}

fn review(user: &User, about: SubjectAccessReviewSpec) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            ..about
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn caller() -> Caller {
        Caller {
            namespace: "agents".to_owned(),
            service_account: "coder".to_owned(),
            pod: "claude-0".to_owned(),
            uid: "u1".to_owned(),
        }
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "claude-0", "namespace": "agents", "uid": "u1"},
            "spec": {
                "serviceAccountName": "coder", "nodeName": "node-1",
                "initContainers": [{"name": SIDECAR_NAME}], "containers": [{"name": "agent", "image": "claude:1"}]
            }
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_workload_is_what_the_api_server_says_of_the_pod() {
        let workload = judge(&caller(), Some(&pod(|_| {}))).unwrap();
        assert_eq!(workload.identity.node, "node-1");
        assert_eq!(workload.identity.images, ["claude:1"]);
        let later = pod(|p| {
            p["status"] = json!({"containerStatuses": [
                {"name": "agent", "image": "claude:1", "imageID": "claude@sha256:aa", "ready": true, "restartCount": 0}
            ]});
        });
        let later = judge(&caller(), Some(&later)).unwrap();
        assert_ne!(workload.digest(), later.digest());
    }

    #[test]
    fn a_pod_that_is_gone_or_another_or_has_no_sidecar_may_not_write() {
        let refused = |pod: Option<Pod>| judge(&caller(), pod.as_ref()).unwrap_err();
        for (pod, why) in [
            (None, "not there"),
            (
                Some(pod(|p| p["metadata"]["uid"] = json!("u2"))),
                "another one",
            ),
            (
                Some(pod(|p| p["spec"]["serviceAccountName"] = json!("x"))),
                "another service account",
            ),
            (
                Some(pod(|p| p["spec"]["initContainers"] = json!([]))),
                "no sidecar",
            ),
        ] {
            let refusal = refused(pod);
            assert_eq!(refusal.code, Code::Forbidden);
            assert!(refusal.message.contains(why), "{}", refusal.message);
        }
    }
}
