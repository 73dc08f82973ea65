//! S3 and stores with its API: one object for each batch, of lines or of Parquet.
//!
//! Contract: a batch is acknowledged once the store has its object. The object's name begins with the number of its first record in the log and ends with that record's stream and number, and the loop goes on after
//! the last record of a batch only once it was taken: so what comes again, with more records or fewer, has the name of what it replaces, and copies never show. A log that begins anew replaces nothing of the one before.

mod bridge;
mod object;
mod rows;

use std::{io, time::Duration};

use chaperone_sinks::settings::{S3, S3Format};
use object_store::{
    Attribute, Attributes, ObjectStore, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    path::Path,
};

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};
use bridge::Bridge;
pub(crate) use bridge::Said;

/// Most of an answer that is read of a store that only takes objects, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A bucket.
pub(super) struct S3Target {
    store: AmazonS3,
    /// What the last request ended with.
    said: Said,
    prefix: String,
    format: S3Format,
}

impl S3Target {
    /// Reads the settings.
    pub(super) fn new(s3: &S3, maker: &Maker) -> Result<Self, Failure> {
        let (store, said) = store(s3, maker, MAX_ANSWER_BYTES)?;
        Ok(Self {
            store,
            said,
            prefix: s3.prefix.clone(),
            format: s3.format,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        match batch.first() {
            Some(first) => {
                let name = object::name(&self.prefix, first, self.format);
                self.put(name, batch).await
            }
            None => Ok(Answer::default()),
        }
    }

    /// Puts an object.
    async fn put(&mut self, name: String, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let path =
            Path::parse(name).map_err(|error| Failure::new(Then::Rarely, "settings", error))?;
        let (body, kind) = match self.format {
            S3Format::Ndjson => (object::body(batch), "application/zstd"),
            S3Format::Parquet => (
                rows::body(batch).map_err(io::Error::other),
                "application/vnd.apache.parquet",
            ),
        };
        let body = body.map_err(|error| Failure::soon("write", error))?;
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, kind.into());
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        self.said.clear();
        match self.store.put_opts(&path, body.into(), options).await {
            Ok(_) => Ok(Answer::default()),
            // The library's words hide what the request met.
            Err(error) => Err(self
                .said
                .take()
                .unwrap_or_else(|| Failure::soon("server-error", error))),
        }
    }
}

/// The library's client of a bucket, without its own retries; what its last request ended with. Answers of more bytes are not read.
pub(crate) fn store(
    s3: &S3,
    maker: &Maker,
    longest_answer: usize,
) -> Result<(AmazonS3, Said), Failure> {
    let said = Said::default();
    let bridge = Bridge::new(
        s3.tls.client_config(Some(chaperone_sinks::tls::HTTP1))?,
        maker,
        said.clone(),
        longest_answer,
    );
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_access_key_id(&s3.key_id)
        .with_secret_access_key(&s3.key.0)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_virtual_hosted_style_request(s3.endpoint.is_none())
        .with_http_connector(bridge)
        .with_retry(RetryConfig {
            max_retries: 0,
            retry_timeout: Duration::ZERO,
            ..RetryConfig::default()
        });
    if let Some(endpoint) = &s3.endpoint {
        let is_plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
    }
    if let Some(token) = &s3.token {
        builder = builder.with_token(&token.0);
    }
    let store = builder
        .build()
        .map_err(|error| Failure::new(Then::Rarely, "settings", error))?;
    Ok((store, said))
}

impl Target for S3Target {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }

    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        let name = object::test_name(&self.prefix, record, self.format);
        Box::pin(self.put(name, std::slice::from_ref(record)))
    }
}
