//! What policies say of TLS with single upstreams, and how what several say of one comes together.
//!
//! Owns the check of the entries and their merge. Refuses bundles that a sidecar could not load, and hosts for which an entry would hold everywhere or nowhere.
//! Invariant: an entry is found by the name that the upstream's certificate is verified for, never by the address behind a name: a root that is listed for an address vouches for no
//! name at it.

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{Report, error::Part, error::Trouble, rules::match_host};
use crate::{
    hosts::HostPattern,
    resources::{TlsVersion, Trust, Upstream},
    snapshot::{CertificateRef, Policy, PolicyKind},
};

/// How a PEM block begins (RFC 7468 section 2).
const PEM_BEGIN: &str = "-----BEGIN ";

/// One entry of `tls.upstreams`.
#[derive(Debug)]
pub(super) struct CompiledUpstream {
    kind: PolicyKind,
    hosts: Vec<HostPattern>,
    roots: Vec<CertificateDer<'static>>,
    trust: Trust,
    min_version: Option<TlsVersion>,
    certificate: Option<CertificateRef>,
}

/// The entries that are about one upstream, by number. Equal ones have equal [`UpstreamTls`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamEntries(Vec<usize>);

impl UpstreamEntries {
    /// Whether no policy says anything of the upstream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What holds for TLS with one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Roots that its certificate may chain to, DER, each once.
    pub roots: Vec<CertificateDer<'static>>,
    /// Besides the usual roots, or instead of them.
    pub trust: Trust,
    /// Lowest version; `None`: whatever is spoken.
    pub min_version: Option<TlsVersion>,
    /// The client certificate that is presented to it.
    pub certificate: Option<CertificateRef>,
}

/// All entries of a snapshot, cluster policies first.
#[derive(Debug, Default)]
pub(super) struct Upstreams(Vec<CompiledUpstream>);

impl Upstreams {
    pub(super) fn new(entries: Vec<CompiledUpstream>) -> Self {
        Self(entries)
    }

    /// The entries about `verified`: a name or an address, as its certificate is verified for it.
    pub(super) fn about(&self, verified: &str) -> UpstreamEntries {
        let is_about = |entry: &CompiledUpstream| {
            let mut hosts = entry.hosts.iter();
            hosts.any(|host| host.matches_verified(verified))
        };
        let numbered = self.0.iter().enumerate();
        UpstreamEntries(
            numbered
                .filter(|(_, entry)| is_about(entry))
                .map(|(number, _)| number)
                .collect(),
        )
    }

    /// What these entries say together: the highest version; the first certificate; all roots, and `Only` if one says so. What a cluster policy lists as `Only` stays: roots of namespaced policies do not count then.
    pub(super) fn together(&self, entries: &UpstreamEntries) -> UpstreamTls {
        let entries = || entries.0.iter().filter_map(|number| self.0.get(*number));
        let is_cluster = |entry: &&CompiledUpstream| entry.kind == PolicyKind::ClusterAgentPolicy;
        let is_only = |entry: &CompiledUpstream| entry.trust == Trust::Only;
        let closed = entries().filter(is_cluster).any(is_only);
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        for root in entries()
            .filter(|entry| !closed || is_cluster(entry))
            .flat_map(|entry| &entry.roots)
        {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        UpstreamTls {
            roots,
            trust: match entries().any(is_only) {
                true => Trust::Only,
                false => Trust::Add,
            },
            min_version: entries().filter_map(|entry| entry.min_version).max(),
            // No other takes its place where it cannot be used: whom an agent speaks as must not depend on what is broken.
            certificate: entries().find_map(|entry| entry.certificate.clone()),
        }
    }
}

/// Compiles the entries of one policy. `passthrough` is what it lets pass unread.
pub(super) fn compile(
    policy: &Policy,
    passthrough: &[HostPattern],
    report: &mut Report<'_>,
) -> Vec<CompiledUpstream> {
    let entries = policy.tls.iter().flat_map(|tls| &tls.upstreams);
    entries
        .enumerate()
        .map(|(number, entry)| {
            let field = format!("tls.upstreams[{number}]");
            check_shape(entry, &field, report);
            check_hosts(entry, passthrough, &field, report);
            CompiledUpstream {
                kind: policy.reference.kind,
                hosts: match_host(
                    Part::Policy,
                    &format!("{field}.hosts"),
                    &entry.hosts,
                    report,
                ),
                roots: entry.ca_bundle.as_ref().map_or_else(Vec::new, |bundle| {
                    roots(bundle, &format!("{field}.caBundle"), report)
                }),
                trust: entry.trust,
                min_version: entry.min_version,
                certificate: entry.client_certificate_secret.as_ref().map(|secret| {
                    CertificateRef {
                        kind: policy.reference.kind,
                        secret: secret.name.clone(),
                    }
                }),
            }
        })
        .collect()
}

/// What the schema refuses too, for policies that come from elsewhere than the API server.
fn check_shape(entry: &Upstream, field: &str, report: &mut Report<'_>) {
    let mut refuse =
        |message: &str| report.add(Part::Policy, field, Trouble::at("", 0, message.to_owned()));
    if entry.hosts.is_empty() {
        refuse("it needs hosts");
    }
    if entry.ca_bundle.is_none()
        && entry.min_version.is_none()
        && entry.client_certificate_secret.is_none()
    {
        refuse("say what holds for these hosts: caBundle, minVersion or clientCertificateSecret");
    }
    if entry.trust == Trust::Only && entry.ca_bundle.is_none() {
        refuse("trust: Only needs a caBundle; without one no server could be verified");
    }
}

/// Hosts for which the entry would hold everywhere, or nowhere.
fn check_hosts(
    entry: &Upstream,
    passthrough: &[HostPattern],
    field: &str,
    report: &mut Report<'_>,
) {
    for (number, host) in entry.hosts.iter().enumerate() {
        let Ok(pattern) = HostPattern::parse(host) else {
            continue;
        };
        let message = if pattern.is_everything() && entry.client_certificate_secret.is_some() {
            format!(
                "{host} would present the client certificate to every server that asks; name the servers"
            )
        } else if pattern.is_everything() && entry.ca_bundle.is_some() {
            format!(
                "{host} with a caBundle would let these roots vouch for every server; name the servers, or use extraRoots of the chart"
            )
        } else if passthrough.iter().any(|other| covers(other, &pattern)) {
            format!(
                "{host} passes unread under tls.passthrough, so nothing would hold for it here; take it out of one of the two"
            )
        } else {
            continue;
        };
        let trouble = Trouble::at(host, 0, message);
        report.add(Part::Policy, format!("{field}.hosts[{number}]"), trouble);
    }
}

/// Whether all names that `inner` matches are names that `outer` matches.
fn covers(outer: &HostPattern, inner: &HostPattern) -> bool {
    match inner {
        HostPattern::Exact(name) => outer.matches_name(name),
        HostPattern::Below(domain) => match outer {
            HostPattern::Below(above) => above == domain || outer.matches_name(domain),
            _ => false,
        },
        HostPattern::Any | HostPattern::Network(_) => false,
    }
}

/// The certificates of a bundle, each as a sidecar can load it.
fn roots(bundle: &str, field: &str, report: &mut Report<'_>) -> Vec<CertificateDer<'static>> {
    let mut roots = Vec::new();
    let starts: Vec<usize> = bundle.match_indices(PEM_BEGIN).map(|(at, _)| at).collect();
    if starts.is_empty() {
        let trouble = Trouble::at(
            bundle,
            0,
            "there is no PEM certificate in it; one begins with -----BEGIN CERTIFICATE-----",
        );
        report.add(Part::Policy, field, trouble);
    }
    let ends = starts.iter().skip(1).copied().chain([bundle.len()]);
    for (start, end) in starts.iter().zip(ends) {
        match root(bundle.get(*start..end).unwrap_or_default()) {
            Ok(root) => roots.push(root),
            Err(message) => report.add(Part::Policy, field, Trouble::at(bundle, *start, message)),
        }
    }
    roots
}

/// The certificate of one PEM block, which begins with its first line.
fn root(block: &str) -> Result<CertificateDer<'static>, String> {
    let label = block.strip_prefix(PEM_BEGIN).unwrap_or_default();
    if !label.starts_with("CERTIFICATE-----") {
        return Err("only certificates belong into a caBundle; take this out".to_owned());
    }
    let root = CertificateDer::from_pem_slice(block.as_bytes())
        .map_err(|error| format!("this is not a PEM certificate: {error}"))?;
    match webpki::anchor_from_trusted_cert(&root) {
        Ok(_) => Ok(root),
        Err(error) => Err(format!("this certificate cannot be a root: {error}")),
    }
}

#[cfg(test)]
#[path = "upstreams/tests.rs"]
mod tests;
