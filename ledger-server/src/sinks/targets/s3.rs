//! S3 and stores with its API: one object for each batch, of lines or of Parquet.
//!
//! Contract: a batch is acknowledged once the store has its object. The object's name begins with the number of its first record in the log and ends with that record's stream and number, and the loop goes on after
//! the last record of a batch only once it was taken: so what comes again, with more records or fewer, has the name of what it replaces, and copies never show. A log that begins anew replaces nothing of the one before.

mod object;
mod rows;

use std::io;

use chaperone_bucket::{Failed, Said, Way, name};
use chaperone_sinks::{
    ClientError,
    settings::{S3, S3Format},
};
use object_store::{Attribute, Attributes, ObjectStore, PutOptions, aws::AmazonS3, path::Path};

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};

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
        let way = Way {
            net: maker.net.clone(),
            version: maker.version.clone(),
        };
        let (store, said) = chaperone_bucket::store(s3, &way, MAX_ANSWER_BYTES)?;
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
                .map(failure)
                .unwrap_or_else(|| Failure::soon("server-error", error))),
        }
    }
}

/// What follows from a failure. A store has no opinion of what is in an object, so that no record is ever refused for good.
fn failure(failed: Failed) -> Failure {
    let status = match &failed.error {
        ClientError::Status { status, .. } => *status,
        _ => return failed.error.into(),
    };
    let mut failure = Failure::from(failed.error);
    let (then, reason) = match (status, failed.code.as_str()) {
        (_, "EntityTooLarge") => (Then::Fewer, "refused"),
        (503 | 429, _) | (_, "SlowDown") => (Then::Soon, "throttled"),
        (_, "RequestTimeout") => (Then::Soon, "timeout"),
        (401 | 403, _) => (Then::Rarely, "unauthorized"),
        // Another region's, no such bucket, a request that the store does not know.
        (300..400 | 400 | 404 | 405 | 412 | 422, _) => (Then::Rarely, "settings"),
        (409, _) => (Then::Soon, "server-error"),
        _ => (failure.then, failure.reason),
    };
    (failure.then, failure.reason) = (then, reason);
    failure
}

impl Target for S3Target {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }

    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        let name = name::of_test(&self.prefix, &record.key(), self.format);
        Box::pin(self.put(name, std::slice::from_ref(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_of_a_store_gives_a_record_up() {
        let cases = [
            (400, "EntityTooLarge", Then::Fewer, "refused"),
            (400, "InvalidArgument", Then::Rarely, "settings"),
            (403, "SignatureDoesNotMatch", Then::Rarely, "unauthorized"),
            (301, "PermanentRedirect", Then::Rarely, "settings"),
            (404, "NoSuchBucket", Then::Rarely, "settings"),
            (409, "OperationAborted", Then::Soon, "server-error"),
            (503, "SlowDown", Then::Soon, "throttled"),
            (500, "InternalError", Then::Soon, "server-error"),
            (422, "", Then::Rarely, "settings"),
        ];
        for (status, code, then, reason) in cases {
            let failed = Failed {
                error: ClientError::Status {
                    status,
                    retry_after: None,
                    text: code.to_owned(),
                },
                code: code.to_owned(),
            };
            let failure = failure(failed);
            assert_eq!((failure.then, failure.reason), (then, reason), "{code}");
        }
    }
}
