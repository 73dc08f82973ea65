//! What the sidecar is told from outside: by the webhook, in its environment. Policies come from the operator, never from the pod.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use chaperone_crds::pod::{
    ENV_OPERATOR_CA, ENV_OPERATOR_URL, ENV_SPOOL_BYTES, SPOOL_DIR, TOKEN_DIR, TRUST_DIR,
};

use crate::audit::DEFAULT_SPOOL_BYTES;

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
    /// The cluster's API server, as pods see it.
    pub api_server: Option<SocketAddr>,
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
            api_server: api_server(&get),
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
            settings(&all).unwrap().api_server,
            Some("10.96.0.1:443".parse().unwrap())
        );
    }

    #[test]
    fn a_spool_size_that_is_no_number_is_refused() {
        let all = [&REQUIRED[..], &[(ENV_SPOOL_BYTES, "64Mi")]].concat();
        assert!(settings(&all).is_err());
    }
}
