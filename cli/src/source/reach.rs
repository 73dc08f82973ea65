//! Which ledger is asked, and as whom.
//!
//! Owns the flags and what they come to: where, by which roots, with which token. Refuses to ask without verifying who answers.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use chaperone_crds::pod::LEDGER_AUDIENCE;
use hyper::Uri;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpStream;

use crate::{
    check::{self, Found, Wire},
    cluster::ClusterArgs,
};

/// The word for the ledger that the cluster itself names.
pub(crate) const CLUSTER: &str = "cluster";
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;
/// How long a token that is asked for is good, in seconds: the least that the API server gives.
const TOKEN_SECONDS: i64 = 600;

/// Which ledger, and as whom.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Ledger")]
pub(crate) struct LedgerArgs {
    /// Where the ledger is: an https URL, or `cluster` for the one that the chart runs, reached through the API server.
    #[arg(long, value_name = "URL|cluster")]
    pub(crate) ledger: Option<String>,
    /// PEM file of the certificates that the ledger's chains to. Default: of a URL the Mozilla roots, of the cluster's the webhooks' caBundle.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File of a token for the audience chaperone.dev/ledger (`kubectl create token NAME --audience chaperone.dev/ledger`); - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "service_account_token")]
    token_file: Option<PathBuf>,
    /// Ask as this service account, with a token of ten minutes that the API server is asked for (you may need `create` on serviceaccounts/token).
    #[arg(long = "as", value_name = "NAMESPACE/NAME")]
    service_account_token: Option<String>,
    /// Chaperone's own namespace, of --ledger cluster. Default: the one that its webhooks name, else chaperone-system.
    #[arg(long, value_name = "NAMESPACE")]
    system_namespace: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// A ledger that can be asked.
pub(super) struct Reached {
    at: At,
    /// The name that its certificate must be for.
    pub(super) name: String,
    /// What requests name as their host.
    pub(super) authority: String,
    /// What stands before each path; empty, or begins with a slash and does not end with one.
    pub(super) prefix: String,
    pub(super) config: Arc<ClientConfig>,
    /// A published log may be anyone's to read.
    pub(super) token: Option<String>,
}

enum At {
    Address(String, u16),
    Pod(Box<Found>),
}

impl LedgerArgs {
    /// Whether the command line says anything of a ledger.
    pub(crate) fn is_named(&self) -> bool {
        let asks_as_somebody = self.token_file.is_some() || self.service_account_token.is_some();
        self.ledger.is_some() || asks_as_somebody
    }

    pub(super) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    pub(super) async fn reach(&self) -> anyhow::Result<Reached> {
        // What is wrong with the question is said before anybody is asked.
        match self.ledger.as_deref() {
            None | Some(CLUSTER) => {
                let token = self.token().await?;
                self.in_cluster(token).await
            }
            Some(url) => {
                let reached = self.at_url(url)?;
                let token = self.token().await?;
                Ok(Reached { token, ..reached })
            }
        }
    }

    pub(super) async fn token(&self) -> anyhow::Result<Option<String>> {
        match (&self.token_file, &self.service_account_token) {
            (Some(file), _) => Ok(Some(read_token(file)?)),
            (None, Some(account)) => Ok(Some(self.request_token(account).await?)),
            (None, None) => Ok(None),
        }
    }

    fn at_url(&self, url: &str) -> anyhow::Result<Reached> {
        let url: Uri = url.parse().context("--ledger is no URL")?;
        ensure!(
            url.scheme_str() == Some("https"),
            "--ledger begins with https://, or is the word cluster"
        );
        ensure!(url.query().is_none(), "--ledger has no ? part");
        let host = url.host().context("--ledger names no host")?;
        let authority = url.authority().map_or(host, |authority| authority.as_str());
        let name = host.trim_matches(['[', ']']).to_owned();
        let roots = match &self.ca {
            Some(file) => Some(read_pem(file)?),
            None => None,
        };
        Ok(Reached {
            at: At::Address(name.clone(), url.port_u16().unwrap_or(443)),
            name,
            authority: authority.to_owned(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            config: config(roots.as_deref())?,
            token: None,
        })
    }

    async fn in_cluster(&self, token: Option<String>) -> anyhow::Result<Reached> {
        ensure!(
            token.is_some(),
            "say who asks: --as NAMESPACE/NAME of a service account, or --token-file"
        );
        let client = self.cluster.client().await?;
        let system = self.system_namespace.as_deref();
        let found = check::find(&client, system, self.cluster.is_in_cluster()).await?;
        let roots = match (&self.ca, &found.roots) {
            (Some(file), _) => read_pem(file)?,
            (None, Some(roots)) => roots.clone(),
            (None, None) => bail!(
                "the webhooks' caBundle cannot be read, so that nothing says whose the ledger is: give its roots with --ca"
            ),
        };
        Ok(Reached {
            name: found.name.clone(),
            authority: found.name.clone(),
            at: At::Pod(Box::new(found)),
            prefix: String::new(),
            config: config(Some(&roots))?,
            token,
        })
    }

    async fn request_token(&self, account: &str) -> anyhow::Result<String> {
        let (namespace, name) = account
            .split_once('/')
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
            .context("--as is NAMESPACE/NAME of a service account")?;
        let client = self.cluster.client().await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![LEDGER_AUDIENCE.to_owned()],
                expiration_seconds: Some(TOKEN_SECONDS),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token of {account}"))?;
        let status = made.status.context("the API server gave no token")?;
        Ok(status.token)
    }
}

impl Reached {
    pub(super) async fn dial(&self) -> anyhow::Result<Box<dyn Wire>> {
        match &self.at {
            At::Address(host, port) => {
                Ok(Box::new(TcpStream::connect((host.as_str(), *port)).await?))
            }
            At::Pod(found) => found.dial().await,
        }
    }
}

fn read_pem(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn config(pem: Option<&[u8]>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.context("the roots are no PEM of certificates")?)?;
            }
            ensure!(!roots.is_empty(), "the roots have no certificates");
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin()
            .lock()
            .take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text),
        false => fs::File::open(file)
            .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    let token = text.trim();
    ensure!(!token.is_empty(), "{} has no token", file.display());
    Ok(token.to_owned())
}
