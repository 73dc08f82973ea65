//! How subcommands reach a cluster.

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Which cluster is meant.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// The kubeconfig file. Default: KUBECONFIG, else ~/.kube/config, else the pod's own service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The context in it. Default: its current context.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// A client for this cluster.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = self
            .config()
            .await
            .context("no cluster: set KUBECONFIG or --kubeconfig")?;
        Client::try_from(config).context("the cluster's settings cannot be used")
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(file) = &self.kubeconfig {
            let kubeconfig = Kubeconfig::read_from(file)?;
            return Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?);
        }
        if self.context.is_some() {
            return Ok(Config::from_kubeconfig(&options).await?);
        }
        Ok(Config::infer().await?)
    }

    /// Whether the cluster is the one that this process runs in, as one of its pods.
    pub(crate) fn is_in_cluster(&self) -> bool {
        let named = self.kubeconfig.is_some() || self.context.is_some();
        !named && Config::incluster().is_ok() && Kubeconfig::read().is_err()
    }
}
