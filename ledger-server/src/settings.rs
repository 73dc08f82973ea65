//! What the installation decides: the command line, parsed into values that can only be right.

use std::{net::SocketAddr, path::PathBuf};

use chaperone_ledger::checkpoint::Origin;
use chaperone_server::{
    audited::{ServiceAccount, service_account},
    logging::LogFormat,
};
use clap::{Args, Parser, Subcommand};

use crate::{oidc::OidcArgs, shared::SharedArgs};

/// Command line of `chaperone-ledger`. Each flag of `serve` can also be given by its environment variable.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "chaperone-ledger",
    version,
    about = "Keeps the records of all sidecars, and proves them."
)]
pub struct CommandLine {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Take records and publish the log, until told to stop
    Serve(Box<Settings>),
    /// Copy a ledger's directory into a shared store that has nothing, so that replicas go on with its log. No ledger may run on either
    Share {
        /// The directory
        #[arg(long, env = "CHAPERONE_LEDGER_DIR")]
        dir: PathBuf,
        /// File of the log's signing key; repeatable
        #[arg(
            long = "key-file",
            env = "CHAPERONE_LEDGER_KEY_FILES",
            value_delimiter = ',',
            required = true
        )]
        key_files: Vec<PathBuf>,
        /// Which log. Without it, the log that the first key is named after
        #[arg(long, env = "CHAPERONE_LEDGER_ORIGIN", value_parser = origin)]
        origin: Option<Origin>,
        /// YAML file that names the database and the bucket
        #[arg(long, env = "CHAPERONE_LEDGER_SHARED")]
        shared: PathBuf,
        /// Folder of the Secrets that the file names: FOLDER/SECRET/KEY
        #[arg(long, env = "CHAPERONE_LEDGER_SHARED_SECRETS")]
        shared_secrets: Option<PathBuf>,
    },
    /// Make a signing key and print its public half
    GenerateKey {
        /// Which log: a line, by custom a URL without its scheme
        #[arg(long, env = "CHAPERONE_LEDGER_ORIGIN", value_parser = origin)]
        origin: Origin,
        /// The file to write; one that is there is never overwritten
        #[arg(long)]
        out: PathBuf,
    },
}

/// Settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Directory of records and tree; it is made if it is not there
    #[arg(long, env = "CHAPERONE_LEDGER_DIR")]
    pub dir: PathBuf,
    /// Where several replicas keep the log together
    #[command(flatten)]
    pub shared: SharedArgs,
    /// Which log: a line, by custom a URL without its scheme. It never changes. Without it, the log that the first key is named after
    #[arg(long, env = "CHAPERONE_LEDGER_ORIGIN", value_parser = origin)]
    pub origin: Option<Origin>,
    /// File of a signing key (`chaperone-ledger generate-key`); repeatable, for as long as one replaces another
    #[arg(
        long = "key-file",
        env = "CHAPERONE_LEDGER_KEY_FILES",
        value_delimiter = ',',
        required = true
    )]
    pub key_files: Vec<PathBuf>,
    /// PEM file of the serving certificate and what it chains through; read again when it changes
    #[arg(long, env = "CHAPERONE_LEDGER_CERTIFICATE")]
    pub certificate: PathBuf,
    /// PEM file of the certificate's private key
    #[arg(long, env = "CHAPERONE_LEDGER_CERTIFICATE_KEY")]
    pub certificate_key: PathBuf,
    /// Where the API listens, HTTPS
    #[arg(long, env = "CHAPERONE_LEDGER_LISTEN", default_value = "[::]:9445")]
    pub listen: SocketAddr,
    /// Where health and metrics listen, HTTP
    #[arg(
        long,
        env = "CHAPERONE_LEDGER_STATUS_LISTEN",
        default_value = "[::]:8080"
    )]
    pub status_listen: SocketAddr,
    /// Serve the web console under /console/
    #[arg(long, env = "CHAPERONE_LEDGER_CONSOLE", default_value_t = true, action = clap::ArgAction::Set)]
    pub console: bool,
    /// Who may vouch for people at the console, besides the cluster
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Seconds between two checkpoints while records come
    #[arg(long, env = "CHAPERONE_LEDGER_CHECKPOINT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_seconds: u64,
    /// Seconds between two checkpoints that are published elsewhere: on record, and in the ConfigMap
    #[arg(long, env = "CHAPERONE_LEDGER_PUBLISH_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub publish_seconds: u64,
    /// ConfigMap in this pod's namespace, which is there, that shows the newest published checkpoint
    #[arg(long, env = "CHAPERONE_LEDGER_PUBLISH_CONFIG_MAP")]
    pub publish_config_map: Option<String>,
    /// File that says which witnesses cosign checkpoints, and which of them suffice: the witness policy of Tessera and torchwood
    #[arg(long, env = "CHAPERONE_LEDGER_WITNESS_POLICY")]
    pub witness_policy: Option<PathBuf>,
    /// PEM roots that witnesses' certificates may chain to, besides the Mozilla ones
    #[arg(long, env = "CHAPERONE_LEDGER_WITNESS_CA", requires = "witness_policy")]
    pub witness_ca: Option<PathBuf>,
    /// Namespace of this pod, for the ledger's own records
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub namespace: String,
    /// Name of this pod, for the ledger's own records
    #[arg(long, env = "POD_NAME", default_value = "chaperone-ledger")]
    pub pod_name: String,
    /// Watch pods and namespaces, and say which pods of audited namespaces leave no evidence, or not all of it
    #[arg(long, env = "CHAPERONE_LEDGER_WATCH_PODS")]
    pub watch_pods: bool,
    /// Service account whose pods have no sidecar on purpose, as namespace/name; repeatable. As of the operator
    #[arg(long = "exempt-service-account", env = "CHAPERONE_EXEMPT_SERVICE_ACCOUNTS", value_delimiter = ',', value_parser = service_account)]
    pub exempt_service_accounts: Vec<ServiceAccount>,
    /// Feed the AuditSinks of the cluster that say `from: Ledger` or have a kind that only the ledger delivers; their Secrets are read in this pod's namespace
    #[arg(long, env = "CHAPERONE_LEDGER_WATCH_SINKS", conflicts_with = "sinks")]
    pub watch_sinks: bool,
    /// Feed the AuditSinks of this YAML file instead; read again when it changes
    #[arg(long, env = "CHAPERONE_LEDGER_SINKS")]
    pub sinks: Option<PathBuf>,
    /// Folder of the Secrets that the file's AuditSinks name: FOLDER/SECRET/KEY
    #[arg(long, env = "CHAPERONE_LEDGER_SINKS_SECRETS", requires = "sinks")]
    pub sinks_secrets: Option<PathBuf>,
    /// File that says for how long content and records are kept, by namespace (YAML); read again when it changes. Without it all is kept for ever
    #[arg(long, env = "CHAPERONE_LEDGER_RETENTION")]
    pub retention: Option<PathBuf>,
    /// Seconds between two looks for what is due to be deleted
    #[arg(long, env = "CHAPERONE_LEDGER_SWEEP_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_seconds: u64,
    /// Log filter
    #[arg(long, env = "CHAPERONE_LOG", default_value = "info")]
    pub log: String,
    /// Log format
    #[arg(long, env = "CHAPERONE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

fn origin(text: &str) -> Result<Origin, String> {
    text.parse().map_err(|error| format!("{error}"))
}
