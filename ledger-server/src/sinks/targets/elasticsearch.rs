//! Elasticsearch and OpenSearch: one document for each record, by the bulk API.
//!
//! Contract: a record is acknowledged once the index says that it has its document. The document's ID is stream and number and it is only ever created, so that what comes again changes nothing. What a batch's answer
//! says of a record counts for that record alone: what the index has no room for now comes again, what it cannot take is refused for good.

mod answer;
mod mapping;

use std::sync::Arc;

use bytes::Bytes;
use chaperone_crds::resources::Format;
use chaperone_sinks::{
    Endpoint,
    client::HttpClient,
    content::gzip,
    settings::{Elasticsearch, Sink},
    tls::HTTP1,
};
use hyper::{Method, StatusCode, Uri, header::HeaderValue};

use super::{
    Maker,
    request::{authorization, below, gzipped, plain},
};
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target};

/// Most of a bulk answer, in bytes: it has a line of reasons for each record that was not taken, ten thousand at most.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// What a bulk answer has of each record.
const WANTED: &str = "filter_path=items.*.status,items.*.error.type,items.*.error.reason";

/// An index and by what it knows us.
pub(super) struct ElasticsearchTarget {
    client: HttpClient,
    authorization: Option<HeaderValue>,
    format: Format,
    /// Path of the index.
    index: Uri,
    /// Path of its bulk API.
    bulk: Uri,
    /// The index was there, or is not ours to make.
    is_there: bool,
}

impl ElasticsearchTarget {
    /// Reads the settings.
    pub(super) fn new(
        settings: &Elasticsearch,
        sink: &Sink,
        maker: &Maker,
    ) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(&settings.url)?;
        let credential = settings.authorization.as_ref();
        let authorization = credential
            .map(|value| authorization(&value.0))
            .transpose()?;
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(settings.tls.client_config(Some(HTTP1))?)),
            false => None,
        };
        let index = below(&endpoint, &settings.index)?;
        let bulk = below(&endpoint, &format!("{}/_bulk?{WANTED}", settings.index))?;
        let client = HttpClient::new(endpoint, tls, maker.net.clone(), &maker.version)?;
        Ok(Self {
            client: client.with_longest_answer(MAX_ANSWER_BYTES),
            authorization,
            format: sink.format,
            index,
            bulk,
            is_there: false,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        if !self.is_there {
            self.make_index().await?;
        }
        // Set again once the index answers: after a failure it is looked for anew.
        self.is_there = false;
        let body = gzip(&body(batch)).map_err(|e| Failure::soon("write", e))?;
        let (path, authorization) = (self.bulk.clone(), self.authorization.as_ref());
        let request = gzipped(path, "application/x-ndjson", body, authorization);
        let response = self.client.exchange(request).await?;
        if !response.status.is_success() {
            return Err(response.into_error().into());
        }
        let answer = answer::read(response.body.as_deref(), batch.len())?;
        self.is_there = true;
        Ok(answer)
    }

    /// Makes the index if there is nothing of its name: one that the cluster makes by itself guesses types of fields, and refuses records whose agents chose a header's name that fits no guess.
    async fn make_index(&mut self) -> Result<(), Failure> {
        if self.is_known().await? {
            return Ok(());
        }
        let mapping = Bytes::from(mapping::index(self.format).to_string());
        let request = plain(
            Method::PUT,
            self.index.clone(),
            mapping,
            self.authorization.as_ref(),
        );
        let response = self.client.exchange(request).await?;
        match response.status {
            // 400: it is there by now, or a template makes a data stream of this name once something is written.
            status if status.is_success() || status == StatusCode::BAD_REQUEST => Ok(()),
            _ => Err(response.into_error().into()),
        }
    }

    /// Whether the index is there, or is not ours to see: whoever may write there and not look has one.
    async fn is_known(&mut self) -> Result<bool, Failure> {
        let authorization = self.authorization.as_ref();
        let request = plain(
            Method::HEAD,
            self.index.clone(),
            Bytes::new(),
            authorization,
        );
        let response = self.client.exchange(request).await?;
        match response.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() || status == StatusCode::FORBIDDEN => Ok(true),
            _ => Err(response.into_error().into()),
        }
    }
}

impl Target for ElasticsearchTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// A bulk request: for each record what is done, and its document.
fn body(batch: &[Outgoing]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in batch {
        let action = serde_json::json!({"create": {"_id": record.key()}});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        body.extend_from_slice(record.line.as_bytes());
        body.push(b'\n');
    }
    body
}
