//! The file that says where the database and the bucket are.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use chaperone_crds::resources::{PostgresSink, S3Sink};
use chaperone_sinks::settings::{Postgres, S3};
use clap::Args;
use serde::Deserialize;

use crate::settings_files as files;

/// Largest file, in bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Where objects are where nothing is said.
const PREFIX: &str = "ledger";

/// What the command line says of it.
#[derive(Args, Clone, Debug, Default)]
pub struct SharedArgs {
    /// Keep records in the PostgreSQL database, and closed segments in the bucket, that this YAML file names, shared by several replicas. The directory holds a copy then
    #[arg(long, env = "CHAPERONE_LEDGER_SHARED", requires = "advertise")]
    pub shared: Option<PathBuf>,
    /// Folder of the Secrets that the file names: FOLDER/SECRET/KEY
    #[arg(long, env = "CHAPERONE_LEDGER_SHARED_SECRETS", requires = "shared")]
    pub shared_secrets: Option<PathBuf>,
    /// Address at which other replicas reach this one's API
    #[arg(long, env = "POD_IP")]
    pub advertise: Option<std::net::IpAddr>,
}

/// Where the database and the bucket are.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// The database.
    pub(super) postgres: Postgres,
    /// The bucket; without one closed segments stay in the database.
    pub(super) s3: Option<S3>,
}

/// The fields are those of an `AuditSink`, without what only a sink has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    postgres: PostgresSink,
    s3: Option<S3Sink>,
}

impl SharedArgs {
    /// Reads the file, where one is named.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(&self) -> anyhow::Result<Option<SharedSettings>> {
        let secrets = self.shared_secrets.as_deref();
        let file = self.shared.as_deref();
        file.map(|file| SharedSettings::read(file, secrets))
            .transpose()
    }
}

impl SharedSettings {
    /// Reads a file and the Secrets that it names, as files `FOLDER/SECRET/KEY`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(path: &Path, secrets: Option<&Path>) -> anyhow::Result<Self> {
        let text = files::text(path, MAX_FILE_BYTES)?;
        Self::parse(&text, secrets).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, secrets: Option<&Path>) -> anyhow::Result<Self> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| anyhow!("{error}"))?;
        if file.postgres.table.is_some() {
            bail!("postgres.table: the tables' names are fixed; leave it out");
        }
        if file.s3.as_ref().is_some_and(|s3| s3.format.is_some()) {
            bail!("s3.format: objects are segments; leave it out");
        }
        let secret = |secret: &str, key: &str| files::secret(secrets?, secret, key);
        let postgres = Postgres::read(&file.postgres, &secret).map_err(all)?;
        let s3 = file.s3.as_ref().map(|s3| S3::read(PREFIX, s3, &secret));
        let s3 = s3.transpose().map_err(all)?;
        Ok(Self { postgres, s3 })
    }
}

/// The sentences of the sinks' settings, without the place that a sink's have.
fn all(problems: Vec<String>) -> anyhow::Error {
    anyhow!(problems.join("; ").replace("spec.", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<SharedSettings> {
        SharedSettings::parse(text, None)
    }

    #[test]
    fn a_file_is_read_and_what_is_wrong_with_it_said() {
        let postgres = "postgres: {host: db.example, database: ledger, user: ledger}\n";
        let read = parse(postgres).unwrap();
        assert_eq!(read.postgres.port, 5432);
        assert!(read.postgres.tls.is_some());
        assert!(read.s3.is_none());
        let cases = [
            ("{}", "postgres"),
            ("s3: {}\n", "bucket"),
            (
                "postgres: {host: 'a b', database: d, user: u}",
                "postgres.host",
            ),
            (
                "postgres: {host: h, database: d, user: u, table: t}",
                "leave it out",
            ),
            (
                "postgres: {host: h, database: d, user: u}\ns3: {bucket: bbb, credentialsSecret: {name: keys}}",
                "Secret keys",
            ),
            (
                "postgres: {host: h, database: d, user: u}\ns3: {bucket: bbb, format: Parquet, credentialsSecret: {name: keys}}",
                "leave it out",
            ),
        ];
        for (text, why) in cases {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
