//! Chaperone itself: definitions, the operator's Deployment, webhooks and what replicas present.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        apps::v1::Deployment,
        core::v1::Pod,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{OPERATOR_LABELS, Scope, list};
use crate::check::{
    certificate,
    view::{Certificate, Crd, Operator, Seen, Serving, Webhook},
};

/// Port of the operator's webhooks.
const WEBHOOK_PORT: u16 = 9443;
/// Longest wait for a replica to present its certificate.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Every webhook of Chaperone's is named below this domain.
const DOMAIN: &str = ".chaperone.dev";

pub(super) fn crd(crd: &CustomResourceDefinition) -> Crd {
    let conditions = crd
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let served = crd.spec.versions.iter().filter(|v| v.served);
    Crd {
        name: crd.name_any(),
        served: served.map(|v| v.name.clone()).collect(),
        established: conditions
            .into_iter()
            .any(|c| c.type_ == "Established" && c.status == "True"),
    }
}

pub(super) fn operator(deployment: &Deployment) -> Operator {
    const EXEMPT: &str = "--exempt-service-account=";
    const LEDGER: &str = "--ledger-service=";
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    let container = spec
        .and_then(|s| s.template.spec.as_ref())
        .and_then(|s| s.containers.iter().find(|c| c.name == "operator"));
    let arguments = container.iter().flat_map(|c| c.args.iter().flatten());
    let mut environment = container.iter().flat_map(|c| c.env.iter().flatten());
    Operator {
        name: deployment.name_any(),
        version: deployment
            .labels()
            .get("app.kubernetes.io/version")
            .cloned(),
        desired: spec.and_then(|s| s.replicas).unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        exempt: arguments
            .clone()
            .filter_map(|a| a.strip_prefix(EXEMPT))
            .map(str::to_owned)
            .collect(),
        default_sink: !environment
            .any(|e| e.name == "CHAPERONE_DEFAULT_SINK" && e.value.as_deref() == Some("none")),
        ledger: arguments.clone().any(|a| a.starts_with(LEDGER)),
    }
}

/// Chaperone's webhooks as they are registered.
pub(super) struct Registered(Seen<Vec<Entry>>);

struct Entry {
    webhook: Webhook,
    ca_bundle: Option<ByteString>,
    /// Namespace and name of the Service.
    service: Option<(String, String)>,
}

pub(super) async fn registered(client: &Client) -> anyhow::Result<Registered> {
    let mutating = list::<MutatingWebhookConfiguration>(Api::all(client.clone()), "").await?;
    let validating = list::<ValidatingWebhookConfiguration>(Api::all(client.clone()), "").await?;
    Ok(Registered(mutating.and(validating).map(|(m, v)| {
        let mutating = m.into_iter().flat_map(|c| c.webhooks.unwrap_or_default());
        let validating = v.into_iter().flat_map(|c| c.webhooks.unwrap_or_default());
        mutating
            .map(|w| entry(w.name, w.failure_policy, w.client_config))
            .chain(validating.map(|w| entry(w.name, w.failure_policy, w.client_config)))
            .filter(|entry| entry.webhook.name.ends_with(DOMAIN))
            .collect()
    })))
}

fn entry(name: String, failure_policy: Option<String>, config: WebhookClientConfig) -> Entry {
    Entry {
        webhook: Webhook {
            name,
            failure_policy,
            ca_bundle: certificate::ca_bundle(config.ca_bundle.as_ref().map(|b| b.0.as_slice())),
        },
        ca_bundle: config.ca_bundle,
        service: config.service.map(|s| (s.namespace, s.name)),
    }
}

impl Registered {
    pub(super) fn webhooks(&self) -> Seen<Vec<Webhook>> {
        match &self.0 {
            Seen::Yes(entries) => Seen::Yes(entries.iter().map(|e| e.webhook.clone()).collect()),
            Seen::No(why) => Seen::No(why.clone()),
        }
    }

    fn entries(&self) -> &[Entry] {
        match &self.0 {
            Seen::Yes(entries) => entries,
            Seen::No(_) => &[],
        }
    }

    /// PEM of the roots by which the API server knows the webhooks, which are Chaperone's.
    pub(super) fn roots(&self) -> Option<&[u8]> {
        let mut bundles = self.entries().iter().filter_map(|e| e.ca_bundle.as_ref());
        bundles.next().map(|bundle| bundle.0.as_slice())
    }

    /// The namespace of the Service that the webhooks call.
    pub(super) fn namespace(&self) -> Option<String> {
        let mut services = self.entries().iter().filter_map(|e| e.service.as_ref());
        services.next().map(|(namespace, _)| namespace.clone())
    }
}

/// What each replica presents to a client that trusts the webhooks' `caBundle`.
pub(super) async fn serving(
    client: &Client,
    scope: &Scope,
    system: &str,
    registered: &Registered,
) -> anyhow::Result<Seen<Vec<Serving>>> {
    let known = registered.entries().iter().find_map(|e| {
        let (namespace, name) = e.service.as_ref()?;
        Some((e.ca_bundle.as_ref()?, format!("{name}.{namespace}.svc")))
    });
    let Some((roots, name)) = known else {
        return Ok(Seen::Yes(Vec::new()));
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), system);
    let pods = match list(api.clone(), OPERATOR_LABELS).await? {
        Seen::Yes(pods) => pods,
        Seen::No(why) => return Ok(Seen::No(why)),
    };
    let server = Server {
        roots: &roots.0,
        name: &name,
        port: WEBHOOK_PORT,
    };
    let mut all = Vec::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        match look(&api, pod, scope.in_cluster, server).await {
            Seen::Yes(serving) => all.push(serving),
            Seen::No(why) => return Ok(Seen::No(why)),
        }
    }
    Ok(Seen::Yes(all))
}

/// What a server should be.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    /// PEM of the roots that its certificate chains to.
    pub(super) roots: &'a [u8],
    /// The name that it is for.
    pub(super) name: &'a str,
    pub(super) port: u16,
}

/// What a pod presents.
pub(super) async fn look(
    api: &Api<Pod>,
    pod: &Pod,
    in_cluster: bool,
    server: Server<'_>,
) -> Seen<Serving> {
    let result = match timeout(HANDSHAKE, presented(api, pod, in_cluster, server)).await {
        Ok(Ok(certificate)) => Ok(certificate),
        Ok(Err(Refusal::Forbidden(why))) => return Seen::No(why),
        Ok(Err(Refusal::Bad(why))) => Err(format!("{why:#}")),
        Err(_) => Err(format!(
            "no answer on port {} in {HANDSHAKE:?}",
            server.port
        )),
    };
    Seen::Yes(Serving {
        pod: pod.name_any(),
        result,
    })
}

pub(super) enum Refusal {
    /// We may not look.
    Forbidden(String),
    /// We looked, and it is bad.
    Bad(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Bad(error)
    }
}

async fn presented(
    api: &Api<Pod>,
    pod: &Pod,
    in_cluster: bool,
    Server { roots, name, port }: Server<'_>,
) -> Result<Certificate, Refusal> {
    let wire = connect(api, pod, in_cluster, port).await?;
    Ok(certificate::presented(wire, roots, name).await?)
}

/// A connection, whatever carries it.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// To a port of a pod: by its address in the cluster, else through the API server.
pub(super) async fn connect(
    api: &Api<Pod>,
    pod: &Pod,
    in_cluster: bool,
    port: u16,
) -> Result<Box<dyn Wire>, Refusal> {
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
    if let (true, Some(address)) = (in_cluster, address) {
        let stream = TcpStream::connect((address, port))
            .await
            .with_context(|| format!("port {port} does not answer"))?;
        return Ok(Box::new(stream));
    }
    let mut forward = match api.portforward(&pod.name_any(), &[port]).await {
        Ok(forward) => forward,
        Err(error) if is_forbidden(&error) => {
            return Err(Refusal::Forbidden(
                "pods/portforward is forbidden".to_owned(),
            ));
        }
        Err(error) => return Err(Refusal::Bad(error.into())),
    };
    let stream = forward
        .take_stream(port)
        .context("the API server forwards no port")?;
    Ok(Box::new(stream))
}

fn is_forbidden(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 403,
        // A refused upgrade carries no Status.
        kube::Error::UpgradeConnection(error) => error.to_string().contains("403"),
        _ => false,
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
