//! What the installation decides: the command line, parsed into values that can only be right.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use chaperone_ledger::key::KeyName;
use chaperone_server::{
    audited::{self, ServiceAccount, service_account},
    logging::LogFormat,
};
use clap::{Parser, ValueEnum};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{injected::Shape, ledger_key::KEY_SECRET};

/// Port of the ledger's API on its Service.
const LEDGER_PORT: u16 = 9445;

/// Command line of `chaperone-operator`. Each flag can also be given by its environment variable.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "chaperone-operator",
    version,
    about = "The control path of Chaperone: injects, validates, compiles, pushes."
)]
pub struct Settings {
    /// Namespace of the operator: its Secrets, its Lease, the Secrets of sinks
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod: identity in the Lease and in Events
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Service in front of the webhook and control ports
    #[arg(
        long,
        env = "CHAPERONE_SERVICE_NAME",
        default_value = "chaperone-operator"
    )]
    pub service_name: String,
    /// Image of the sidecar that is injected
    #[arg(long, env = "CHAPERONE_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// Pull policy of the sidecar's image
    #[arg(long, env = "CHAPERONE_SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,
    /// CPU request of the sidecar; empty: none
    #[arg(long, env = "CHAPERONE_SIDECAR_CPU_REQUEST", default_value = "10m", value_parser = quantity)]
    pub sidecar_cpu_request: Amount,
    /// Memory request of the sidecar; empty: none
    #[arg(long, env = "CHAPERONE_SIDECAR_MEMORY_REQUEST", default_value = "32Mi", value_parser = quantity)]
    pub sidecar_memory_request: Amount,
    /// CPU limit of the sidecar; empty: none
    #[arg(long, env = "CHAPERONE_SIDECAR_CPU_LIMIT", default_value = "", value_parser = quantity)]
    pub sidecar_cpu_limit: Amount,
    /// Memory limit of the sidecar; empty: none
    #[arg(long, env = "CHAPERONE_SIDECAR_MEMORY_LIMIT", default_value = "256Mi", value_parser = quantity)]
    pub sidecar_memory_limit: Amount,
    /// Size limit of the spool volume
    #[arg(long, env = "CHAPERONE_SPOOL_SIZE_LIMIT", default_value = "1Gi", value_parser = quantity)]
    pub spool_size_limit: Amount,
    /// PEM file of further roots for upstreams and agents, read again every 30 s
    #[arg(long, env = "CHAPERONE_EXTRA_ROOTS_FILE")]
    pub extra_roots_file: Option<PathBuf>,
    /// `namespace/name` of a service account whose pods are neither injected nor checked; repeatable
    #[arg(long = "exempt-service-account", env = "CHAPERONE_EXEMPT_SERVICE_ACCOUNTS", value_delimiter = ',', value_parser = service_account)]
    pub exempt_service_accounts: Vec<ServiceAccount>,
    /// The sink of every pod beside the AuditSinks
    #[arg(long, env = "CHAPERONE_DEFAULT_SINK", default_value = "stdout")]
    pub default_sink: DefaultSink,
    /// Service in front of the ledger; without it, there is no ledger
    #[arg(long, env = "CHAPERONE_LEDGER_SERVICE")]
    pub ledger_service: Option<String>,
    /// DNS name of the ledger besides those of its Service, for its serving certificate; repeatable
    #[arg(
        long = "ledger-name",
        env = "CHAPERONE_LEDGER_NAMES",
        value_delimiter = ','
    )]
    pub ledger_names: Vec<String>,
    /// Which log the ledger is, when its key is made; without it, one that names the cluster
    #[arg(long, env = "CHAPERONE_LEDGER_ORIGIN")]
    pub ledger_origin: Option<KeyName>,
    /// Secret with a signing key of the ledger; repeatable, for as long as one replaces another
    #[arg(long = "ledger-key-secret", env = "CHAPERONE_LEDGER_KEY_SECRETS", value_delimiter = ',', default_value = KEY_SECRET)]
    pub ledger_key_secrets: Vec<String>,
    /// Name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration
    #[arg(
        long,
        env = "CHAPERONE_WEBHOOK_CONFIGURATION_NAME",
        default_value = "chaperone"
    )]
    pub webhook_configuration_name: String,
    /// Port of the webhooks, HTTPS
    #[arg(long, env = "CHAPERONE_WEBHOOK_PORT", default_value_t = 9443)]
    pub webhook_port: u16,
    /// Port of the control stream, HTTPS
    #[arg(long, env = "CHAPERONE_CONTROL_PORT", default_value_t = 9444)]
    pub control_port: u16,
    /// Port of health and metrics, HTTP
    #[arg(long, env = "CHAPERONE_METRICS_PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// Seconds that it keeps serving after SIGTERM while it says that it is not ready
    #[arg(long, env = "CHAPERONE_DRAIN_SECONDS", default_value_t = 5)]
    pub drain_seconds: u64,
    /// Log filter
    #[arg(long, env = "CHAPERONE_LOG", default_value = "info")]
    pub log: String,
    /// Log format
    #[arg(long, env = "CHAPERONE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// The sink that every pod has without an `AuditSink`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultSink {
    /// Standard output of the sidecar, unless an `AuditSink` writes there.
    Stdout,
    /// None.
    None,
}

/// A resource quantity, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(Option<String>);

impl Settings {
    /// DNS names of the Service, which the serving certificate is for.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        self.names_of(&self.service_name)
    }

    /// DNS names of the ledger, which its serving certificate is for. None: there is no ledger.
    #[must_use]
    pub fn ledger_serving_names(&self) -> Option<Vec<String>> {
        let mut names = self.names_of(self.ledger_service.as_ref()?);
        names.extend(self.ledger_names.iter().cloned());
        Some(names)
    }

    /// Where sidecars reach the ledger. None: there is no ledger.
    #[must_use]
    pub fn ledger_url(&self) -> Option<String> {
        let service = self.ledger_service.as_ref()?;
        Some(format!(
            "https://{service}.{}.svc:{LEDGER_PORT}",
            self.namespace
        ))
    }

    fn names_of(&self, service: &str) -> Vec<String> {
        let short = format!("{service}.{}", self.namespace);
        ["", ".svc", ".svc.cluster.local"]
            .map(|suffix| format!("{short}{suffix}"))
            .to_vec()
    }

    /// The shape of injected pods, under this root (PEM).
    #[must_use]
    pub fn shape(&self, root_pem: &str) -> Shape {
        let amounts = |cpu: &Amount, memory: &Amount| {
            [("cpu", cpu), ("memory", memory)]
                .into_iter()
                .filter_map(|(name, amount)| Some((name.to_owned(), amount.quantity()?)))
                .collect::<BTreeMap<_, _>>()
        };
        Shape {
            image: self.sidecar_image.clone(),
            pull_policy: self.sidecar_pull_policy.clone(),
            requests: amounts(&self.sidecar_cpu_request, &self.sidecar_memory_request),
            limits: amounts(&self.sidecar_cpu_limit, &self.sidecar_memory_limit),
            spool_size_limit: self.spool_size_limit.quantity(),
            spool_bytes: self.spool_size_limit.bytes().map(|bytes| bytes / 4 * 3),
            operator_url: format!(
                "https://{}.{}.svc:{}",
                self.service_name, self.namespace, self.control_port
            ),
            root_pem: root_pem.to_owned(),
        }
    }

    /// Whether pods of this namespace are audited, by its labels. The operator's own namespace and kube-system never are.
    #[must_use]
    pub fn audits(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        audited::audits(&self.namespace, namespace, labels)
    }

    /// Whether pods of this service account are exempt. A pod that names none has `default`.
    #[must_use]
    pub fn exempts(&self, namespace: &str, service_account: Option<&str>) -> bool {
        audited::exempts(&self.exempt_service_accounts, namespace, service_account)
    }

    /// How long it serves on after SIGTERM.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

impl Amount {
    fn quantity(&self) -> Option<Quantity> {
        self.0.clone().map(Quantity)
    }

    /// The amount in whole units (bytes, for storage). `quantity` has checked its form.
    fn bytes(&self) -> Option<u64> {
        let text = self.0.as_deref()?;
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
        let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
        // Saturates; a fraction of a byte does not matter.
        Some((number * factor) as u64)
    }
}

/// Suffixes of quantities that Kubernetes knows, and what they stand for.
const SUFFIXES: [(&str, f64); 14] = [
    ("", 1.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];

/// Parses a quantity such as `10m` or `256Mi`: digits, then a suffix that Kubernetes knows.
fn quantity(text: &str) -> Result<Amount, String> {
    if text.is_empty() {
        return Ok(Amount(None));
    }
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = digits.strip_prefix('.').map_or(digits, |rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit())
    });
    let starts_well = text.starts_with(|c: char| c.is_ascii_digit());
    if starts_well && SUFFIXES.iter().any(|(known, _)| *known == digits) {
        return Ok(Amount(Some(text.to_owned())));
    }
    Err("expected a quantity such as 10m, 0.5 or 256Mi".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings as a chart would give them, with further arguments.
    pub(crate) fn settings(arguments: &[&str]) -> Settings {
        let base = [
            "chaperone-operator",
            "--namespace=chaperone-system",
            "--pod-name=operator-0",
            "--sidecar-image=registry.example/chaperone/sidecar:1",
        ];
        Settings::try_parse_from(base.iter().chain(arguments)).unwrap()
    }

    #[test]
    fn empty_amounts_are_none_and_odd_ones_refused() {
        assert_eq!(quantity("").unwrap().quantity(), None);
        for good in ["10m", "0.5", "256Mi", "1", "2G"] {
            assert_eq!(
                quantity(good).unwrap().quantity(),
                Some(Quantity(good.to_owned()))
            );
        }
        for bad in ["x", "Mi", "1 Gi", "-1", "1mi", ".5"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn service_accounts_are_exempt_by_namespace_and_name() {
        let settings = settings(&["--exempt-service-account=ci/builder,ops/default"]);
        assert!(settings.exempts("ci", Some("builder")));
        assert!(!settings.exempts("agents", Some("builder")));
        assert!(settings.exempts("ops", None));
        assert!(service_account("builder").is_err());
    }

    #[test]
    fn own_namespace_and_kube_system_are_never_audited() {
        let labels = BTreeMap::from([("chaperone.dev/audit".to_owned(), "enabled".to_owned())]);
        let settings = settings(&[]);
        assert!(settings.audits("agents", Some(&labels)));
        assert!(!settings.audits("agents", None));
        assert!(!settings.audits("kube-system", Some(&labels)));
        assert!(!settings.audits("chaperone-system", Some(&labels)));
    }

    #[test]
    fn sidecars_reach_the_operator_by_a_name_that_its_certificate_has() {
        let settings = settings(&[]);
        let shape = settings.shape("PEM");
        assert_eq!(
            shape.operator_url,
            "https://chaperone-operator.chaperone-system.svc:9444"
        );
        assert!(
            settings
                .serving_names()
                .contains(&"chaperone-operator.chaperone-system.svc".to_owned())
        );
        assert!(!shape.limits.contains_key("cpu"));
    }

    #[test]
    fn sidecars_reach_the_ledger_by_a_name_that_its_certificate_has() {
        assert_eq!(settings(&[]).ledger_url(), None);
        assert_eq!(settings(&[]).ledger_serving_names(), None);
        let settings = settings(&[
            "--ledger-service=chaperone-ledger",
            "--ledger-name=ledger.example",
        ]);
        let host = "chaperone-ledger.chaperone-system.svc".to_owned();
        assert_eq!(settings.ledger_url(), Some(format!("https://{host}:9445")));
        let names = settings.ledger_serving_names().unwrap();
        assert!(names.contains(&host) && names.contains(&"ledger.example".to_owned()));
        assert_eq!(settings.ledger_key_secrets, [KEY_SECRET]);
    }

    #[test]
    fn the_sidecar_fills_its_spool_to_three_quarters_of_the_volume() {
        let bytes = |size: &str| {
            settings(&[&format!("--spool-size-limit={size}")])
                .shape("PEM")
                .spool_bytes
        };
        assert_eq!(bytes("1Gi"), Some(805_306_368));
        assert_eq!(bytes("0.5G"), Some(375_000_000));
        assert_eq!(bytes("4000"), Some(3000));
        assert_eq!(bytes(""), None);
    }
}
