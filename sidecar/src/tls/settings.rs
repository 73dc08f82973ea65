//! TLS settings towards upstreams: the usual ones, and those that `tls.upstreams` of the policies asks for, made when an upstream first needs them.
//!
//! Owns roots, versions, client certificates and resumed sessions. Invariant: upstreams for which something else holds share neither roots nor sessions, and all of it ends with the
//! configuration that it was made from. Where a client certificate is held no session is resumed at all: who resumes is not asked for a certificate again, so that nobody could say
//! which one spoke, nor that it was still valid.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chaperone_crds::{
    compile::{CompiledSnapshot, UpstreamEntries, UpstreamTls},
    control::{CertificateUse, ClientCertificate as Sent, Credential},
    hosts::{HostPattern, HostPatternError},
    resources::{TlsVersion, Trust},
    snapshot::CertificateRef,
};
use rustls::{
    ClientConfig, Error, RootCertStore,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    crypto::CryptoProvider,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use super::{client_certificate::ClientCertificate, held::Held};

/// Most settings that are kept. What lies beyond is made each time that it is needed: slower, never wrong. Policies have a few.
const MAX_KEPT: usize = 64;
/// Most upstreams whose sessions are kept for one of them: what rustls keeps by default.
const MAX_SESSIONS: usize = 256;

/// What a connection to one upstream is made with.
#[derive(Clone)]
pub(crate) struct Towards {
    pub(crate) config: Arc<ClientConfig>,
    /// Lowest version that policies ask for.
    pub(super) min_version: Option<TlsVersion>,
    /// Whether just the roots that policies list are trusted.
    pub(super) trust: Trust,
    /// The client certificate that is presented, or why it cannot be.
    pub(super) held: Option<Usable>,
    sessions: Arc<ClientSessionMemoryCache>,
}

impl Towards {
    /// Gives up the session of TLS 1.2 with an upstream whose handshake failed: if it was resumed and does not hold, the next one would fail too. rustls does so itself behind its buffered API
    /// only.
    pub(super) fn forget(&self, upstream: &ServerName<'_>) {
        self.sessions.remove_tls12_session(&upstream.to_owned());
    }
}

/// A client certificate that is held, or why it cannot be used.
type Usable = Result<Held, Arc<str>>;

/// The client certificates of a configuration.
#[derive(Default)]
struct Certificates {
    of_policies: HashMap<CertificateRef, Usable>,
    /// For hosts that `chaperone run` was told of.
    of_hosts: Vec<(HostPattern, Usable)>,
}

/// What settings are made for: a host of `chaperone run`, by number, and entries of policies.
type Kept = (Option<usize>, UpstreamEntries);

/// All settings under one configuration.
pub(crate) struct Settings {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    usual: Towards,
    certificates: Certificates,
    others: Mutex<HashMap<Kept, Towards>>,
}

impl Settings {
    /// Settings whose usual roots are these, and the client certificates that are held. One that cannot be used is no reason to refuse a configuration: it is one for those
    /// connections that need it.
    ///
    /// # Errors
    /// When rustls refuses, or a host that a certificate is for is none.
    pub(crate) fn new(roots: RootCertStore, sent: &[Sent]) -> Result<Self, SettingsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let usual = towards(&provider, roots.clone(), &UpstreamTls::default(), None)?;
        Ok(Self {
            certificates: Certificates::take(sent, &provider)?,
            provider,
            roots,
            usual,
            others: Mutex::default(),
        })
    }

    /// Whether there is to be a client certificate for the upstream whose certificate is verified for this name or address.
    pub(super) fn holds(&self, snapshot: &CompiledSnapshot, verified: &str) -> bool {
        self.towards(snapshot, verified)
            .is_ok_and(|towards| towards.held.is_some())
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
        let host = self.certificates.host(verified);
        if entries.is_empty() && host.is_none() {
            return Ok(self.usual.clone());
        }
        let kept = (host, entries);
        // Whole entries only are put in, so the map is valid whatever a panicking holder did.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(towards) = others.get(&kept) {
            return Ok(towards.clone());
        }
        let made = self.make(host, &snapshot.upstream_tls(&kept.1))?;
        if others.len() < MAX_KEPT {
            others.insert(kept, made.clone());
        }
        Ok(made)
    }

    fn make(&self, host: Option<usize>, asked: &UpstreamTls) -> Result<Towards, Error> {
        let mut roots = match asked.trust {
            Trust::Add => self.roots.clone(),
            Trust::Only => RootCertStore::empty(),
        };
        for root in &asked.roots {
            roots.add(root.clone())?;
        }
        let held = self.certificates.held(host, asked.certificate.as_ref());
        towards(&self.provider, roots, asked, held)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// rustls refused.
    #[error(transparent)]
    Tls(#[from] Error),
    /// A client certificate is for a host that is none.
    #[error("a client certificate is for \"{host}\": {error}")]
    Host {
        /// As it was given.
        host: String,
        /// Why it is none.
        error: HostPatternError,
    },
}

impl Certificates {
    fn take(sent: &[Sent], provider: &CryptoProvider) -> Result<Self, SettingsError> {
        let mut certificates = Self::default();
        for sent in sent {
            let held = Held::take(&sent.credential, provider).map_err(Arc::from);
            match &sent.use_for {
                CertificateUse::Policies(reference) => {
                    let held = held.map_err(|why: Arc<str>| match &sent.credential {
                        Credential::Usable { .. } => {
                            format!("Secret {}: {why}", reference.secret).into()
                        }
                        Credential::Unusable { .. } => why,
                    });
                    certificates.of_policies.insert(reference.clone(), held);
                }
                CertificateUse::Host(host) => {
                    let pattern =
                        HostPattern::parse(host).map_err(|error| SettingsError::Host {
                            host: host.clone(),
                            error,
                        })?;
                    certificates.of_hosts.push((pattern, held));
                }
            }
        }
        Ok(certificates)
    }

    /// The first host that this is.
    fn host(&self, verified: &str) -> Option<usize> {
        let mut hosts = self.of_hosts.iter();
        hosts.position(|(host, _)| host.matches_verified(verified))
    }

    fn held(&self, host: Option<usize>, asked: Option<&CertificateRef>) -> Option<Usable> {
        if let Some((_, held)) = host.and_then(|number| self.of_hosts.get(number)) {
            return Some(held.clone());
        }
        let asked = asked?;
        let found = self.of_policies.get(asked);
        Some(found.cloned().unwrap_or_else(|| {
            Err(format!(
                "Secret {} did not come with the configuration",
                asked.secret
            )
            .into())
        }))
    }
}

fn towards(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    asked: &UpstreamTls,
    held: Option<Usable>,
) -> Result<Towards, Error> {
    let versions = match asked.min_version {
        Some(TlsVersion::Tls13) => &[&TLS13][..],
        Some(TlsVersion::Tls12) | None => &[&TLS13, &TLS12],
    };
    let certified = held
        .as_ref()
        .and_then(|held| held.as_ref().ok())
        .map(|held| held.certified.clone());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(ClientCertificate::new(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let sessions = Arc::new(ClientSessionMemoryCache::new(MAX_SESSIONS));
    config.resumption = match held {
        Some(_) => Resumption::disabled(),
        None => Resumption::store(sessions.clone()),
    };
    Ok(Towards {
        sessions,
        config: Arc::new(config),
        min_version: asked.min_version,
        trust: asked.trust,
        held,
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
        Settings::new(trust::upstream_roots("").unwrap(), &[]).unwrap()
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
