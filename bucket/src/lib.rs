//! Buckets of S3 and of stores with its API: the way to one, what the objects of a sink are called, and how they are read again. The ledger writes objects, the command line proves them.
//!
//! Owns a store's library over the sinks' own HTTP client, and the form of names. Refuses to judge records, and what is put when: that is the caller's.
//! Invariant: a request goes where the settings say, over TLS that was verified, and an answer is bounded. A store is not trusted: what it gives is bounded before it is unfolded, and nothing of it panics.

pub mod archive;
mod bridge;
pub mod name;
pub mod unfold;

use std::{sync::Arc, time::Duration};

use chaperone_sinks::{ClientError, net::SinkNet, settings::S3, tls::HTTP1};
use object_store::{
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
};

use bridge::Bridge;
pub use bridge::{Failed, Said};

/// How a store is reached, and by whom.
#[derive(Clone)]
pub struct Way {
    /// The way to endpoints.
    pub net: Arc<dyn SinkNet>,
    /// Our version, as stores are told it.
    pub version: String,
}

/// The library's client of a bucket, without its own retries; what its last request ended with. Answers of more bytes are not read. One connection at a time.
///
/// # Errors
/// Settings that cannot work.
pub fn store(s3: &S3, way: &Way, longest_answer: usize) -> Result<(AmazonS3, Said), ClientError> {
    let said = Said::default();
    let tls = s3.tls.client_config(Some(HTTP1))?;
    let bridge = Bridge::new(tls, way, said.clone(), longest_answer);
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
        .map_err(|error| ClientError::Settings(error.to_string()))?;
    Ok((store, said))
}
