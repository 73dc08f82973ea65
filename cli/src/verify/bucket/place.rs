//! Which bucket, and as whom: what is said with `s3://BUCKET/PREFIX`, and what tools of S3 read from the environment.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use chaperone_sinks::{
    Endpoint,
    settings::{Credential, S3, S3Format, Tls},
};

/// How a bucket's name begins on the command line.
pub(in crate::verify) const SCHEME: &str = "s3://";
/// Region where nothing says one, as of a sink.
const REGION: &str = "us-east-1";
/// Most of a credential, in bytes.
const MAX_CREDENTIAL_BYTES: u64 = 16 * 1024;
/// The files of `--credentials`, as the keys of a sink's Secret are called.
const KEY_ID: &str = "access-key-id";
const KEY: &str = "secret-access-key";
const TOKEN: &str = "session-token";

/// How a bucket is reached.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Bucket")]
pub(in crate::verify) struct BucketArgs {
    /// Where the store is, if it is not AWS: https://HOST. Default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region of the bucket. Default: AWS_REGION, AWS_DEFAULT_REGION, us-east-1.
    #[arg(long)]
    region: Option<String>,
    /// Directory with the files access-key-id, secret-access-key and, where there is one, session-token. Default: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
    #[arg(long, value_name = "DIRECTORY")]
    credentials: Option<PathBuf>,
    /// Allow a plain http:// endpoint. Records then cross the network in clear.
    #[arg(long)]
    allow_insecure: bool,
}

/// A sink's part of a bucket.
pub(super) struct Place {
    pub(super) s3: S3,
}

/// Reads a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl BucketArgs {
    /// Whether the command line says anything of a bucket.
    pub(in crate::verify) fn is_named(&self) -> bool {
        self.endpoint.is_some()
            || self.region.is_some()
            || self.credentials.is_some()
            || self.allow_insecure
    }

    /// All that is needed to reach it.
    pub(super) fn read(
        &self,
        url: &str,
        ca: Option<&Path>,
        environment: Environment<'_>,
    ) -> anyhow::Result<Place> {
        let (bucket, prefix) = parts(url)?;
        let (key_id, key, token) = self.login(environment)?;
        let region = self.region.clone();
        let region = region.or_else(|| environment("AWS_REGION"));
        let region = region.or_else(|| environment("AWS_DEFAULT_REGION"));
        Ok(Place {
            s3: S3 {
                bucket,
                region: region.unwrap_or_else(|| REGION.to_owned()),
                endpoint: self.endpoint(environment)?,
                prefix,
                format: S3Format::default(),
                key_id,
                key,
                token,
                tls: Tls {
                    ca_bundle: roots(ca, environment)?,
                    client: None,
                },
            },
        })
    }

    fn endpoint(&self, environment: Environment<'_>) -> anyhow::Result<Option<String>> {
        let endpoint = self.endpoint.clone();
        let endpoint = endpoint.or_else(|| environment("AWS_ENDPOINT_URL_S3"));
        let Some(endpoint) = endpoint.or_else(|| environment("AWS_ENDPOINT_URL")) else {
            return Ok(None);
        };
        let parsed = Endpoint::parse(&endpoint).context("the endpoint")?;
        ensure!(
            parsed.is_tls || self.allow_insecure,
            "the endpoint {endpoint} sends records in clear; use https://, or give --allow-insecure"
        );
        ensure!(
            parsed.target == "/",
            "the endpoint {endpoint} has a path; leave it out: the bucket stands in the path"
        );
        Ok(Some(endpoint.trim_end_matches('/').to_owned()))
    }

    /// Key's id, key, and token.
    fn login(
        &self,
        environment: Environment<'_>,
    ) -> anyhow::Result<(String, Credential, Option<Credential>)> {
        if let Some(folder) = &self.credentials {
            let token = folder.join(TOKEN);
            let token = token.exists().then(|| credential(&token)).transpose()?;
            let key_id = credential(&folder.join(KEY_ID))?;
            let key = credential(&folder.join(KEY))?;
            return Ok((key_id, Credential(key), token.map(Credential)));
        }
        let (key_id, key) = (
            environment("AWS_ACCESS_KEY_ID"),
            environment("AWS_SECRET_ACCESS_KEY"),
        );
        let (Some(key_id), Some(key)) = (key_id, key) else {
            bail!(
                "no credentials for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, of a session), or give --credentials"
            );
        };
        let token = environment("AWS_SESSION_TOKEN").map(Credential);
        Ok((key_id, Credential(key), token))
    }
}

/// Bucket and prefix.
fn parts(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url.strip_prefix(SCHEME).unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    ensure!(
        (3..=63).contains(&bucket.len()) && bucket.bytes().all(is_name),
        "{bucket:?} is no name of a bucket: write {SCHEME}BUCKET/PREFIX"
    );
    let prefix = prefix.trim_end_matches('/');
    ensure!(
        !prefix.is_empty(),
        "say which sink's objects: {SCHEME}{bucket}/PREFIX, where PREFIX is the sink's s3.prefix, by default chaperone/ and the sink's name"
    );
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// PEM of the roots that the store's certificate may chain to, besides the usual ones.
fn roots(ca: Option<&Path>, environment: Environment<'_>) -> anyhow::Result<Option<String>> {
    let file = ca.map(Path::to_owned);
    let Some(file) = file.or_else(|| environment("AWS_CA_BUNDLE").map(PathBuf::from)) else {
        return Ok(None);
    };
    let pem = fs::read_to_string(&file);
    pem.map(Some)
        .with_context(|| format!("cannot read {}", file.display()))
}

fn credential(file: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|file| file.take(MAX_CREDENTIAL_BYTES).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", file.display()))?;
    let text = text.trim();
    ensure!(!text.is_empty(), "{} is empty", file.display());
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &BucketArgs, url: &str, variables: &[(&str, &str)]) -> Result<S3, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let place = arguments.read(url, None, &variable);
        place
            .map(|place| place.s3)
            .map_err(|error| format!("{error:#}"))
    }

    const NONE: BucketArgs = BucketArgs {
        endpoint: None,
        region: None,
        credentials: None,
        allow_insecure: false,
    };
    const KEYS: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];

    #[test]
    fn flags_come_before_the_environment() {
        let url = "s3://audit/chaperone/archive/";
        let s3 = read(&NONE, url, &KEYS).unwrap();
        assert_eq!((&*s3.bucket, &*s3.prefix), ("audit", "chaperone/archive"));
        assert_eq!((&*s3.region, s3.endpoint), ("us-east-1", None));
        let variables = [
            ("AWS_ENDPOINT_URL", "https://other.example"),
            ("AWS_ENDPOINT_URL_S3", "https://s3.example/"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_SESSION_TOKEN", "token"),
        ];
        let variables = [&KEYS[..], &variables].concat();
        let s3 = read(&NONE, url, &variables).unwrap();
        assert_eq!(s3.endpoint.as_deref(), Some("https://s3.example"));
        assert_eq!(s3.region, "eu-central-1");
        assert_eq!(s3.token, Some(Credential("token".to_owned())));
        let said = BucketArgs {
            endpoint: Some("https://minio.example".to_owned()),
            region: Some("local".to_owned()),
            ..NONE
        };
        let s3 = read(&said, url, &variables).unwrap();
        assert_eq!(s3.endpoint.as_deref(), Some("https://minio.example"));
        assert_eq!(s3.region, "local");
    }

    #[test]
    fn what_is_lacking_is_said() {
        let plain = BucketArgs {
            endpoint: Some("http://minio.example".to_owned()),
            ..NONE
        };
        for (arguments, url, variables, why) in [
            (&NONE, "s3://audit/a", &KEYS[..1], "set AWS_ACCESS_KEY_ID"),
            (&NONE, "s3://audit", &KEYS, "say which sink's objects"),
            (&NONE, "s3://audit/", &KEYS, "say which sink's objects"),
            (&NONE, "s3://a.example@b/c", &KEYS, "no name of a bucket"),
            (&plain, "s3://audit/a", &KEYS, "--allow-insecure"),
        ] {
            let said = read(arguments, url, variables).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
