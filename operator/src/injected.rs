//! What an injected pod has: the sidecar container and its volumes, in the form that the API server gives them after defaulting.
//!
//! Owns the canonical form that `inject` puts into pods and `check` compares with. Invariant: every field that the API server would
//! default is spelled out, so that what we put in and what we find are equal.

use std::collections::BTreeMap;

use chaperone_crds::pod;
pub use chaperone_server::audited::has_ledger_token;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        HTTPGetAction, ObjectFieldSelector, Probe, ProjectedVolumeSource, ResourceRequirements,
        SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

/// Capabilities that no container but the sidecar keeps: with them an agent could mark its packets or flush the rules.
pub const DROPPED_CAPABILITIES: [&str; 2] = ["NET_ADMIN", "NET_RAW"];
/// Where the ServiceAccount admission plugin mounts the API token, also into the sidecar.
pub const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Seconds that the sidecar's tokens live; kubelet renews it at 80 % of that.
const TOKEN_SECONDS: i64 = 3600;
/// Size of the trust volume, in memory: the bundle is 0.3 MB as PEM and again as PKCS#12.
const TRUST_SIZE: &str = "16Mi";
/// Once-a-second probes that the sidecar may fail before kubelet restarts it: two minutes to get certificate and policy.
const STARTUP_PROBES: i32 = 120;

/// What of the injected pod the installation decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Image of the sidecar.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// Requests of the sidecar, by resource.
    pub requests: BTreeMap<String, Quantity>,
    /// Limits of the sidecar, by resource.
    pub limits: BTreeMap<String, Quantity>,
    /// `sizeLimit` of the spool.
    pub spool_size_limit: Option<Quantity>,
    /// Most bytes that the sidecar may put there. Less than the size limit: kubelet evicts a pod whose volume is beyond its limit.
    pub spool_bytes: Option<u64>,
    /// Where sidecars reach the control port.
    pub operator_url: String,
    /// PEM of Chaperone's root.
    pub root_pem: String,
}

/// The sidecar container.
#[must_use]
pub fn container(shape: &Shape) -> Container {
    Container {
        name: pod::SIDECAR_NAME.to_owned(),
        image: Some(shape.image.clone()),
        image_pull_policy: Some(shape.pull_policy.clone()),
        restart_policy: Some("Always".to_owned()),
        env: Some(environment(shape)),
        ports: Some(vec![ContainerPort {
            name: Some(pod::HEALTH_PORT_NAME.to_owned()),
            container_port: i32::from(pod::HEALTH_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/startupz", 1, STARTUP_PROBES)),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        resources: Some(ResourceRequirements {
            requests: non_empty(&shape.requests),
            limits: non_empty(&shape.limits),
            claims: None,
        }),
        security_context: Some(security_context()),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // Standard output carries audit records: what falls back to it would show them to whoever may read pods.
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(vec![
            mount(pod::TRUST_VOLUME, pod::TRUST_DIR, false),
            mount(pod::SPOOL_VOLUME, pod::SPOOL_DIR, false),
            mount(pod::TOKEN_VOLUME, pod::TOKEN_DIR, true),
        ]),
        ..Container::default()
    }
}

fn environment(shape: &Shape) -> Vec<EnvVar> {
    let mut variables = vec![
        variable(pod::ENV_OPERATOR_URL, &shape.operator_url),
        variable(pod::ENV_OPERATOR_CA, &shape.root_pem),
        host_ips(),
    ];
    let bytes = shape.spool_bytes.map(|bytes| bytes.to_string());
    variables.extend(bytes.map(|bytes| variable(pod::ENV_SPOOL_BYTES, &bytes)));
    variables
}

/// The three volumes: trust bundle, spool, tokens.
#[must_use]
pub fn volumes(shape: &Shape) -> [Volume; 3] {
    let trust = Volume {
        name: pod::TRUST_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(TRUST_SIZE.to_owned())),
        }),
        ..Volume::default()
    };
    let spool = Volume {
        name: pod::SPOOL_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: shape.spool_size_limit.clone(),
        }),
        ..Volume::default()
    };
    [trust, spool, token_volume()]
}

/// How every container but the sidecar mounts the trust bundle.
#[must_use]
pub fn trust_mount() -> VolumeMount {
    mount(pod::TRUST_VOLUME, pod::TRUST_DIR, true)
}

/// What of a container found in a pod differs from `ours`, by field name; empty if it is our sidecar. Left to the cluster: resources (limit
/// ranges), pull policy (the AlwaysPullImages plugin), and a read-only mount of the API token (the ServiceAccount plugin).
#[must_use]
pub fn differences(found: &Container, ours: &Container) -> Vec<&'static str> {
    let (found, ours) = (comparable(found), comparable(ours));
    let mut fields = Vec::new();
    let mut check = |name, same: bool| {
        if !same {
            fields.push(name);
        }
    };
    check("image", found.image == ours.image);
    check("command", found.command == ours.command);
    check("args", found.args == ours.args);
    check("env", found.env == ours.env);
    check(
        "securityContext",
        found.security_context == ours.security_context,
    );
    check("volumeMounts", found.volume_mounts == ours.volume_mounts);
    check("restartPolicy", found.restart_policy == ours.restart_policy);
    check("startupProbe", found.startup_probe == ours.startup_probe);
    check(
        "readinessProbe",
        found.readiness_probe == ours.readiness_probe,
    );
    check("ports", found.ports == ours.ports);
    if fields.is_empty() && found != ours {
        fields.push("other fields (envFrom, lifecycle, livenessProbe, workingDir, stdin, tty)");
    }
    fields
}

/// Whether a volume found in a pod is ours. Sizes are left out: the API server may write a quantity in another form.
#[must_use]
pub fn same_volume(found: &Volume, ours: &Volume) -> bool {
    let unsized_volume = |volume: &Volume| {
        let mut volume = volume.clone();
        if let Some(source) = &mut volume.empty_dir {
            source.size_limit = None;
            source.medium = source.medium.take().filter(|medium| !medium.is_empty());
        }
        volume
    };
    unsized_volume(found) == unsized_volume(ours)
}

/// Whether this is the mount that the ServiceAccount plugin adds to every container.
#[must_use]
pub fn is_api_token_mount(mount: &VolumeMount) -> bool {
    mount.mount_path == API_TOKEN_DIR
        && mount.read_only == Some(true)
        && mount.name.starts_with("kube-api-access-")
}

/// The name of a capability without prefix, in upper case: runtimes take `CAP_NET_RAW` and `net_raw` too.
#[must_use]
pub fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_")
        .map_or(name.clone(), str::to_owned)
}

/// A container without the fields that the cluster may change, empty lists as absent ones.
fn comparable(container: &Container) -> Container {
    let mut container = container.clone();
    container.resources = None;
    container.resize_policy = None;
    container.image_pull_policy = None;
    container.args = container.args.filter(|args| !args.is_empty());
    container.command = container.command.filter(|command| !command.is_empty());
    // Defaulted with hostNetwork, which has a refusal of its own.
    container
        .ports
        .iter_mut()
        .flatten()
        .for_each(|port| port.host_port = None);
    if let Some(mounts) = &mut container.volume_mounts {
        mounts.retain(|mount| !is_api_token_mount(mount));
        for mount in mounts {
            mount.read_only = mount.read_only.filter(|read_only| *read_only);
            mount.recursive_read_only = mount
                .recursive_read_only
                .take()
                .filter(|mode| mode != "Disabled");
        }
    }
    container
}

fn security_context() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(i64::from(pod::SIDECAR_UID)),
        run_as_group: Some(i64::from(pod::SIDECAR_UID)),
        run_as_non_root: Some(true),
        read_only_root_filesystem: Some(true),
        // The binary carries NET_ADMIN as a file capability, by which a process that is not root gets it at exec. With no_new_privs it still does:
        // the runtime has put NET_ADMIN in the permitted set already, so nothing is gained.
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: Some(vec!["NET_ADMIN".to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn token_volume() -> Volume {
    Volume {
        name: pod::TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![
                token(pod::TOKEN_AUDIENCE, "token"),
                // Also where no ledger is: one that is switched on later is one for the pods that run.
                token(pod::LEDGER_AUDIENCE, pod::LEDGER_TOKEN_FILE),
            ]),
        }),
        ..Volume::default()
    }
}

fn token(audience: &str, path: &str) -> VolumeProjection {
    VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: path.to_owned(),
        }),
        ..VolumeProjection::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(pod::HEALTH_PORT)),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        success_threshold: Some(1),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

/// The addresses of the node, which nobody knows before the pod is on one: the kubelet fills them in.
fn host_ips() -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: pod::HOST_IPS_FIELD.to_owned(),
    };
    EnvVar {
        name: pod::ENV_HOST_IPS.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn non_empty(resources: &BTreeMap<String, Quantity>) -> Option<BTreeMap<String, Quantity>> {
    (!resources.is_empty()).then(|| resources.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;

    /// A shape as a small installation has it.
    pub(crate) fn shape() -> Shape {
        Shape {
            image: "registry.example/chaperone/sidecar:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            requests: BTreeMap::from([("cpu".to_owned(), Quantity("10m".to_owned()))]),
            limits: BTreeMap::new(),
            spool_size_limit: Some(Quantity("1Gi".to_owned())),
            spool_bytes: Some(805_306_368),
            operator_url: "https://chaperone-operator.chaperone-system.svc:9444".to_owned(),
            root_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        }
    }

    #[test]
    fn port_name_is_one_that_the_api_server_takes() {
        assert!(pod::HEALTH_PORT_NAME.len() <= 15);
    }

    #[test]
    fn what_the_cluster_may_change_is_no_difference() {
        let ours = container(&shape());
        let mut found = ours.clone();
        found.resources = None;
        found.image_pull_policy = Some("Always".to_owned());
        found.args = Some(vec![]);
        found.volume_mounts.as_mut().unwrap().push(mount(
            "kube-api-access-x2x",
            API_TOKEN_DIR,
            true,
        ));
        assert_eq!(differences(&found, &ours), Vec::<&str>::new());
    }

    #[test]
    fn what_changes_the_sidecar_is_a_difference() {
        let ours = container(&shape());
        type Change = fn(&mut Container);
        let cases: [(&str, Change); 10] = [
            ("image", |c| c.image = Some("evil".to_owned())),
            ("command", |c| c.command = Some(vec!["sh".to_owned()])),
            ("args", |c| c.args = Some(vec!["--help".to_owned()])),
            ("env", |c| {
                c.env.as_mut().unwrap().push(variable("LD_PRELOAD", "x"))
            }),
            ("securityContext", |c| {
                c.security_context.as_mut().unwrap().run_as_user = Some(0)
            }),
            ("securityContext", |c| {
                let context = c.security_context.as_mut().unwrap();
                context.allow_privilege_escalation = Some(true);
            }),
            ("volumeMounts", |c| {
                c.volume_mounts
                    .as_mut()
                    .unwrap()
                    .push(mount("data", "/x", false))
            }),
            ("volumeMounts", |c| {
                c.volume_mounts
                    .as_mut()
                    .unwrap()
                    .push(mount("data", API_TOKEN_DIR, true));
            }),
            ("restartPolicy", |c| c.restart_policy = None),
            (
                "other fields (envFrom, lifecycle, livenessProbe, workingDir, stdin, tty)",
                |c| {
                    c.working_dir = Some("/tmp".to_owned());
                },
            ),
        ];
        for (field, change) in cases {
            let mut found = ours.clone();
            change(&mut found);
            assert_eq!(differences(&found, &ours), vec![field]);
        }
    }

    #[test]
    fn a_volume_of_our_name_but_another_kind_is_not_ours() {
        let [trust, spool, _] = volumes(&shape());
        let mut disk = trust.clone();
        disk.empty_dir.as_mut().unwrap().medium = None;
        assert!(!same_volume(&disk, &trust));
        let mut larger = spool.clone();
        larger.empty_dir.as_mut().unwrap().size_limit = Some(Quantity("1024Mi".to_owned()));
        assert!(same_volume(&larger, &spool));
    }

    #[test]
    fn a_pod_from_before_there_was_a_ledger_has_no_token_for_it() {
        let with = |volume: Volume| Pod {
            spec: Some(PodSpec {
                volumes: Some(vec![volume]),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        assert!(has_ledger_token(&with(token_volume())));
        let mut before = token_volume();
        let sources = before.projected.as_mut().unwrap().sources.as_mut().unwrap();
        sources.retain(|source| *source != token(pod::LEDGER_AUDIENCE, pod::LEDGER_TOKEN_FILE));
        assert_eq!(sources.len(), 1);
        assert!(!has_ledger_token(&with(before)));
        let mut elsewhere = token_volume();
        elsewhere.name = "other".to_owned();
        assert!(!has_ledger_token(&with(elsewhere)));
        assert!(!has_ledger_token(&Pod::default()));
    }
}
