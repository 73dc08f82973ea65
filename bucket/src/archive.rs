//! What a sink has put into a bucket, read again: which objects there are, in the order of the log, and their bytes.
//!
//! Owns asking: page by page, a few pieces of objects ahead, each tried again where that can help. Refuses to believe what is listed: an object is as long as it was said to be, or is not read. Memory is bounded by the pieces that are
//! ahead and by the names, of which there may be so many.

mod fetch;

use std::{sync::Arc, time::Duration};

use chaperone_sinks::{
    ClientError,
    backoff::{Backoff, LONGEST_ASKED, random},
    settings::{S3, S3Format},
};
use object_store::{
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore as _},
};
use thiserror::Error;

pub use fetch::{Fetched, ObjectReader};

use crate::{Said, Way, name, unfold::MAX_OBJECT_BYTES};

/// Bytes that are asked for at once: at 150 KiB/s they come within the time that an answer may take.
const PIECE: u64 = 4 * 1024 * 1024;
/// Longest answer: a piece, or a page of a listing, whose thousand names have 1 KiB each at most.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Pieces that are asked for ahead, each over a connection of its own.
const AHEAD: usize = 4;
/// Most objects under a prefix, which are kept by name, about 150 bytes each: nine years of one every five minutes.
pub const MAX_OBJECTS: usize = 1_000_000;
/// Names of others' objects that are kept, to be shown.
const MAX_SHOWN: usize = 10;
/// How often something is asked for.
const TRIES: usize = 6;

/// A sink's part of a bucket.
pub struct Archive {
    lanes: Vec<Lane>,
    prefix: String,
}

/// A connection.
struct Lane {
    store: AmazonS3,
    said: Said,
}

/// An object of records.
#[derive(Clone, Debug)]
pub struct Object {
    /// Number of its first record in the log, as its name says.
    pub leaf: u64,
    /// Its name, after the prefix.
    pub name: Box<str>,
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub format: S3Format,
    /// What it is known by, of one that is asked for in pieces.
    tag: Option<Box<str>>,
}

/// What is there.
#[derive(Debug, Default)]
pub struct Listed {
    /// Objects of records, in the order of the log.
    pub objects: Vec<Object>,
    /// Objects by which somebody tried the sink.
    pub tests: u64,
    /// Objects that are no sink's, and the names of some.
    pub others: u64,
    /// Names of some of them.
    pub shown: Vec<String>,
}

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum NotRead {
    /// The store refuses, or cannot be reached.
    #[error("{what}: {why}{hint}")]
    Store {
        /// What was asked for.
        what: String,
        /// Why it was not given.
        why: String,
        /// What mends it.
        hint: &'static str,
    },
    /// It is not as it was listed.
    #[error("{0} changed while it was read; run it again")]
    Changed(String),
    /// More than is kept.
    #[error(
        "there are more than {MAX_OBJECTS} objects; name one day (PREFIX/date=YYYY-MM-DD) with --part"
    )]
    TooMany,
}

impl Archive {
    /// Of this bucket and prefix. Nothing is connected by that.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(s3: &S3, way: &Way) -> Result<Self, ClientError> {
        let lane = |_| {
            let (store, said) = crate::store(s3, way, MAX_ANSWER_BYTES)?;
            Ok(Lane { store, said })
        };
        Ok(Self {
            lanes: (0..AHEAD).map(lane).collect::<Result<_, ClientError>>()?,
            prefix: s3.prefix.clone(),
        })
    }

    /// Looks what is there. `seen` is told how many names were read.
    ///
    /// # Errors
    /// [`NotRead`].
    pub async fn list(&self, mut seen: impl FnMut(usize)) -> Result<Listed, NotRead> {
        let prefix = format!("{}/", self.prefix);
        let mut listed = Listed::default();
        let (mut names, mut token) = (0_usize, None::<String>);
        loop {
            let options = || PaginatedListOptions {
                page_token: token.clone(),
                ..PaginatedListOptions::default()
            };
            let page = self
                .patiently(0, "listing the bucket", async |lane| {
                    lane.store.list_paginated(Some(&prefix), options()).await
                })
                .await?;
            // A page without names counts too, so that pages end.
            names = names.saturating_add(page.result.objects.len().max(1));
            if names > MAX_OBJECTS {
                return Err(NotRead::TooMany);
            }
            for object in page.result.objects {
                listed.add(&self.prefix, object);
            }
            seen(names);
            token = page.page_token;
            if token.is_none() {
                break;
            }
        }
        let order = |object: &Object| (object.leaf, object.name.clone());
        listed.objects.sort_by_cached_key(order);
        Ok(listed)
    }

    /// Asks, and again where that can help.
    async fn patiently<T>(
        &self,
        lane: usize,
        what: &str,
        ask: impl AsyncFn(&Lane) -> object_store::Result<T>,
    ) -> Result<T, NotRead> {
        let lane = lane
            .checked_rem(AHEAD)
            .and_then(|lane| self.lanes.get(lane));
        let lane = lane.ok_or(NotRead::TooMany)?;
        let mut backoff = Backoff::default();
        let mut tries = TRIES;
        loop {
            lane.said.clear();
            let error = match ask(lane).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries = tries.saturating_sub(1);
            let failed = lane.said.take();
            let wait = match &failed {
                Some(failed) if tries > 0 && !failed.error.needs_a_person() => {
                    let asked = failed
                        .error
                        .retry_after()
                        .map(|wait| wait.min(LONGEST_ASKED));
                    backoff.next(false, random()).max(asked.unwrap_or_default())
                }
                _ => return Err(not_read(what, failed.map(|failed| failed.error), &error)),
            };
            tokio::time::sleep(wait.max(Duration::from_millis(50))).await;
        }
    }
}

fn not_read(what: &str, failed: Option<ClientError>, error: &object_store::Error) -> NotRead {
    let hint = match &failed {
        Some(ClientError::Status {
            status: 401 | 403, ..
        }) => " (check the credentials, and that they may s3:ListBucket and s3:GetObject there)",
        Some(ClientError::Status { status: 404, .. }) => " (check the bucket's name)",
        Some(ClientError::Status {
            status: 300..=400, ..
        }) => " (check region and endpoint)",
        Some(ClientError::Tls(_)) => {
            " (is the store's certificate of a root that you gave with --ca?)"
        }
        _ => "",
    };
    NotRead::Store {
        what: what.to_owned(),
        // The library's words hide what the request met.
        why: failed.map_or_else(|| error.to_string(), |failed| failed.to_string()),
        hint,
    }
}

impl Listed {
    fn add(&mut self, prefix: &str, object: object_store::ObjectMeta) {
        let key = object.location.as_ref();
        match name::read(prefix, key) {
            name::Name::Records(begins) => {
                let name = key.get(prefix.len().saturating_add(1)..);
                self.objects.push(Object {
                    leaf: begins.leaf,
                    name: name.unwrap_or_default().into(),
                    size: object.size,
                    format: begins.format,
                    tag: object
                        .e_tag
                        .filter(|_| object.size > PIECE)
                        .map(String::into_boxed_str),
                });
            }
            name::Name::Test => self.tests = self.tests.saturating_add(1),
            name::Name::Other => {
                self.others = self.others.saturating_add(1);
                if self.shown.len() < MAX_SHOWN {
                    self.shown.push(key.to_owned());
                }
            }
        }
    }
}

impl Object {
    /// Whether it is longer than one may be. Such a one is not fetched.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.size > MAX_OBJECT_BYTES
    }

    /// Its first record, as its name says.
    #[must_use]
    pub fn first(&self) -> &str {
        match name::read_object(&self.name) {
            Some(begins) => begins.record,
            None => "",
        }
    }
}

/// Objects of an archive, shared by who fetches them and who reads.
pub type Objects = Arc<[Object]>;
