//! Which provider, and how its users are named.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, bail, ensure};
use chaperone_sinks::tls::{self, HTTP1};
use clap::Args;
use oauth2::{ClientId, ClientSecret};

use super::{Oidc, claims::Names, provider::Provider};

/// Flags of `serve`. Those that kube-apiserver has too mean the same.
#[derive(Args, Clone, Debug)]
pub struct OidcArgs {
    /// URL of an OpenID provider by which people may log in to the console, https
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_ISSUER_URL",
        requires = "oidc_client_id"
    )]
    oidc_issuer_url: Option<String>,
    /// What the console is called there
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_CLIENT_ID",
        requires = "oidc_issuer_url"
    )]
    oidc_client_id: Option<String>,
    /// File of the secret that the provider gave this client; without it, it is a public client (PKCE is used either way)
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_CLIENT_SECRET_FILE",
        requires = "oidc_issuer_url"
    )]
    oidc_client_secret_file: Option<PathBuf>,
    /// PEM roots that the provider's certificate may chain to, besides the Mozilla ones
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_CA_FILE",
        requires = "oidc_issuer_url"
    )]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that names the user; `email` counts only if the provider says that it is verified
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_USERNAME_CLAIM",
        default_value = "sub"
    )]
    oidc_username_claim: String,
    /// What stands before users' names, so that they cannot be other users'; - for nothing
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_USERNAME_PREFIX",
        default_value = "oidc:"
    )]
    oidc_username_prefix: String,
    /// The claim that names the user's groups
    #[arg(long, env = "CHAPERONE_LEDGER_OIDC_GROUPS_CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What stands before groups' names; - for nothing
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_GROUPS_PREFIX",
        default_value = "oidc:"
    )]
    oidc_groups_prefix: String,
    /// What is asked of the provider, separated by commas
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_SCOPES",
        value_delimiter = ',',
        default_value = "openid,profile,email"
    )]
    oidc_scopes: Vec<String>,
    /// Where the provider sends browsers back to, as it knows it; without it, /console/oidc/callback of the address that the browser came to
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_OIDC_REDIRECT_URL",
        requires = "oidc_issuer_url"
    )]
    oidc_redirect_url: Option<String>,
}

impl OidcArgs {
    /// The provider, if there is to be one. It is not asked anything yet: one that is away keeps nothing from starting.
    ///
    /// # Errors
    /// What is wrong with the flags, or the files that they name.
    pub fn open(&self, version: &str) -> anyhow::Result<Option<Oidc>> {
        let (Some(issuer), Some(client)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let is_plain = |url: &str| url.starts_with("https://") && !url.contains(['?', '#', ' ']);
        ensure!(
            is_plain(issuer),
            "--oidc-issuer-url is an https URL without a query"
        );
        if let Some(redirect) = &self.oidc_redirect_url {
            ensure!(
                is_plain(redirect) && redirect.ends_with("/console/oidc/callback"),
                "--oidc-redirect-url is an https URL that ends with /console/oidc/callback"
            );
        }
        if !self.oidc_scopes.iter().any(|scope| scope == "openid") {
            bail!("--oidc-scopes lacks openid: without it a provider says nothing of who it is");
        }
        let roots = match &self.oidc_ca_file {
            Some(file) => Some(read(file)?),
            None => None,
        };
        let tls = tls::Settings {
            ca_bundle: roots.as_deref(),
            ..tls::Settings::default()
        };
        let tls = tls::client_config(tls, Some(HTTP1)).context("--oidc-ca-file")?;
        let secret = match &self.oidc_client_secret_file {
            Some(file) => Some(ClientSecret::new(read(file)?.trim().to_owned())),
            None => None,
        };
        Ok(Some(Oidc {
            provider: Arc::new(Provider::new(issuer, Arc::new(tls), version)?),
            client: ClientId::new(client.clone()),
            secret,
            redirect: self.oidc_redirect_url.clone(),
            scopes: self.oidc_scopes.clone(),
            names: Names {
                username_claim: self.oidc_username_claim.clone(),
                username_prefix: prefix(&self.oidc_username_prefix),
                groups_claim: self.oidc_groups_claim.clone(),
                groups_prefix: prefix(&self.oidc_groups_prefix),
            },
        }))
    }
}

fn prefix(text: &str) -> String {
    match text {
        "-" => String::new(),
        text => text.to_owned(),
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
