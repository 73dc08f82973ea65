//! TLS settings towards upstreams: the usual ones, and those that `tls.upstreams` of the policies asks for, made when an upstream first needs them.
//!
//! Owns roots, versions and resumed sessions. Invariant: upstreams for which something else holds share neither roots nor sessions, and all of it ends with the policies that it was
//! made from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chaperone_crds::{
    compile::{CompiledSnapshot, UpstreamEntries, UpstreamTls},
    resources::{TlsVersion, Trust},
};
use rustls::{
    ClientConfig, Error, RootCertStore,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};

use super::client_certificate::ClientCertificate;

/// Most settings that are kept. What lies beyond is made each time that it is needed: slower, never wrong. Policies have a few.
const MAX_KEPT: usize = 64;

/// What a connection to one upstream is made with.
#[derive(Clone)]
pub(crate) struct Towards {
    pub(crate) config: Arc<ClientConfig>,
    /// Lowest version that policies ask for.
    pub(super) min_version: Option<TlsVersion>,
    /// Whether just the roots that policies list are trusted.
    pub(super) trust: Trust,
}

/// All settings under one configuration.
pub(crate) struct Settings {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    usual: Towards,
    others: Mutex<HashMap<UpstreamEntries, Towards>>,
}

impl Settings {
    /// Settings whose usual roots are these.
    ///
    /// # Errors
    /// When rustls refuses, which it does for no roots.
    pub(crate) fn new(roots: RootCertStore) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let usual = towards(&provider, roots.clone(), &UpstreamTls::default())?;
        Ok(Self {
            provider,
            roots,
            usual,
            others: Mutex::default(),
        })
    }

    /// What holds for the upstream whose certificate is verified for this name or address.
    ///
    /// # Errors
    /// When rustls refuses a root. The compiler has loaded each as rustls does.
    pub(crate) fn towards(
        &self,
        snapshot: &CompiledSnapshot,
        verified: &str,
    ) -> Result<Towards, Error> {
        let entries = snapshot.upstream_entries(verified);
        if entries.is_empty() {
            return Ok(self.usual.clone());
        }
        // Whole entries only are put in, so the map is valid whatever a panicking holder did.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(towards) = others.get(&entries) {
            return Ok(towards.clone());
        }
        let made = self.make(&snapshot.upstream_tls(&entries))?;
        if others.len() < MAX_KEPT {
            others.insert(entries, made.clone());
        }
        Ok(made)
    }

    fn make(&self, asked: &UpstreamTls) -> Result<Towards, Error> {
        let mut roots = match asked.trust {
            Trust::Add => self.roots.clone(),
            Trust::Only => RootCertStore::empty(),
        };
        for root in &asked.roots {
            roots.add(root.clone())?;
        }
        towards(&self.provider, roots, asked)
    }
}

fn towards(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    asked: &UpstreamTls,
) -> Result<Towards, Error> {
    let versions = match asked.min_version {
        Some(TlsVersion::Tls13) => &[&TLS13][..],
        Some(TlsVersion::Tls12) | None => &[&TLS13, &TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(ClientCertificate::default()));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Towards {
        config: Arc::new(config),
        min_version: asked.min_version,
        trust: asked.trust,
    })
}

#[cfg(test)]
mod tests {
    use chaperone_crds::{
        resources::AgentPolicySpec,
        snapshot::{Policy, Snapshot},
    };
    use serde_json::json;

    use super::*;
    use crate::{authority::Authority, trust};

    fn settings() -> Settings {
        Settings::new(trust::upstream_roots("").unwrap()).unwrap()
    }

    fn snapshot(upstreams: &serde_json::Value) -> CompiledSnapshot {
        let spec: AgentPolicySpec =
            serde_json::from_value(json!({"tls": {"upstreams": upstreams}})).unwrap();
        let policy = Policy::namespaced("agents", "p", 1, &spec);
        CompiledSnapshot::compile(&Snapshot::new(vec![policy])).unwrap()
    }

    #[test]
    fn upstreams_share_settings_and_sessions_where_the_same_holds_and_nowhere_else() {
        let (_, root) = Authority::self_made("private").unwrap();
        let snapshot = snapshot(&json!([
            {"hosts": ["*.a.example.com"], "caBundle": root},
            {"hosts": ["x.a.example.com"], "minVersion": "TLS1.3"},
        ]));
        let settings = settings();
        let config = |name: &str| settings.towards(&snapshot, name).unwrap().config;
        let same = |one: &str, other: &str| Arc::ptr_eq(&config(one), &config(other));
        assert!(same("unnamed.example.com", "127.0.0.1"));
        assert!(same("one.a.example.com", "two.a.example.com"));
        assert!(!same("one.a.example.com", "unnamed.example.com"));
        assert!(!same("one.a.example.com", "x.a.example.com"));
    }

    #[test]
    fn settings_beyond_the_bound_are_made_anew_and_not_kept() {
        let entries: Vec<_> = (0..7)
            .map(|bit| {
                // Names that say in binary which entries are about them: 128 combinations.
                let hosts: Vec<_> = (0..128)
                    .filter(|number| number >> bit & 1 == 1)
                    .map(|number| format!("n{number}.example.com"))
                    .collect();
                json!({"hosts": hosts, "minVersion": "TLS1.3"})
            })
            .collect();
        let (snapshot, settings) = (snapshot(&json!(entries)), settings());
        for number in 0..128 {
            let towards = settings
                .towards(&snapshot, &format!("n{number}.example.com"))
                .unwrap();
            let expected = (number > 0).then_some(TlsVersion::Tls13);
            assert_eq!(towards.min_version, expected, "{number}");
        }
        assert_eq!(settings.others.lock().unwrap().len(), MAX_KEPT);
    }
}
