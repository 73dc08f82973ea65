//! What the sidecar is told from outside: by the webhook, in its environment. Policies come from the operator, never from the pod.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use chaperone_crds::pod::{
    ENV_HOST_IPS, ENV_OPERATOR_CA, ENV_OPERATOR_URL, ENV_SPOOL_BYTES, SPOOL_DIR, TOKEN_DIR,
    TRUST_DIR,
};

use crate::{audit::DEFAULT_SPOOL_BYTES, cluster::Cluster};

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Control port of the operator.
    pub operator_url: String,
    /// PEM of Chaperone's root.
    pub operator_ca: String,
    /// The projected token.
    pub token: PathBuf,
    /// The trust volume.
    pub trust_dir: PathBuf,
    /// The spool volume.
    pub spool_dir: PathBuf,
    /// Most bytes that the spool may hold.
    pub spool_bytes: u64,
    /// Where places of the cluster are.
    pub cluster: Cluster,
}

/// Why the environment is unusable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A variable is missing.
    #[error("{0} is not set; the sidecar is started by Chaperone's webhook, which sets it")]
    Missing(&'static str),
    /// A variable is not a number.
    #[error("{name}={value:?} is not a number of bytes")]
    NotBytes {
        /// Which variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl Settings {
    /// Reads the process environment.
    ///
    /// # Errors
    /// As [`SettingsError`].
    pub fn from_environment() -> Result<Self, SettingsError> {
        Self::from(|name| env::var(name).ok())
    }

    fn from(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let required = |name| {
            get(name)
                .filter(|value| !value.is_empty())
                .ok_or(SettingsError::Missing(name))
        };
        let spool_bytes = match get(ENV_SPOOL_BYTES) {
            None => DEFAULT_SPOOL_BYTES,
            Some(value) => value.parse().map_err(|_| SettingsError::NotBytes {
                name: ENV_SPOOL_BYTES,
                value,
            })?,
        };
        Ok(Self {
            operator_url: required(ENV_OPERATOR_URL)?,
            operator_ca: required(ENV_OPERATOR_CA)?,
            token: PathBuf::from(TOKEN_DIR).join("token"),
            trust_dir: PathBuf::from(TRUST_DIR),
            spool_dir: PathBuf::from(SPOOL_DIR),
            spool_bytes,
            cluster: Cluster {
                api_server: api_server(&get),
                node: node(&get),
            },
        })
    }
}

/// The kubelet sets these in every container.
fn api_server(get: impl Fn(&str) -> Option<String>) -> Option<SocketAddr> {
    let ip: IpAddr = get("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    Some(SocketAddr::new(
        ip,
        get("KUBERNETES_SERVICE_PORT")?.parse().ok()?,
    ))
}

/// The kubelet fills these in when it starts the container. Without them the node's kubelet has no certain name, and a rule against kubelets holds all the same.
fn node(get: impl Fn(&str) -> Option<String>) -> Vec<IpAddr> {
    let addresses = get(ENV_HOST_IPS).unwrap_or_default();
    let addresses = addresses
        .split(',')
        .filter_map(|address| address.trim().parse().ok());
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    const REQUIRED: [(&str, &str); 2] = [
        (ENV_OPERATOR_URL, "https://operator:9444"),
        (ENV_OPERATOR_CA, "PEM"),
    ];

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(settings(&[]), Err(SettingsError::Missing(ENV_OPERATOR_URL)));
        assert_eq!(
            settings(&REQUIRED[..1]),
            Err(SettingsError::Missing(ENV_OPERATOR_CA))
        );
        assert_eq!(
            settings(&REQUIRED).unwrap().spool_bytes,
            DEFAULT_SPOOL_BYTES
        );
    }

    #[test]
    fn the_api_server_is_known_by_the_kubelets_variables() {
        let all = [
            &REQUIRED[..],
            &[
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
                ("KUBERNETES_SERVICE_PORT", "443"),
            ],
        ]
        .concat();
        assert_eq!(
            settings(&all).unwrap().cluster.api_server,
            Some("10.96.0.1:443".parse().unwrap())
        );
    }

    #[test]
    fn the_node_is_known_by_its_addresses_and_without_them_the_sidecar_runs_too() {
        for (written, expected) in [
            ("", &[][..]),
            ("192.0.2.7", &["192.0.2.7"]),
            ("192.0.2.7,2001:db8::7", &["192.0.2.7", "2001:db8::7"]),
            ("no address,192.0.2.7", &["192.0.2.7"]),
        ] {
            let all = [&REQUIRED[..], &[(ENV_HOST_IPS, written)]].concat();
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(settings(&all).unwrap().cluster.node, expected, "{written}");
        }
        assert_eq!(
            settings(&REQUIRED).unwrap().cluster.node,
            Vec::<IpAddr>::new()
        );
    }

    #[test]
    fn a_spool_size_that_is_no_number_is_refused() {
        let all = [&REQUIRED[..], &[(ENV_SPOOL_BYTES, "64Mi")]].concat();
        assert!(settings(&all).is_err());
    }
}
