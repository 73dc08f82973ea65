//! An HTTP endpoint: batches are POSTed gzipped, as the sidecar's HTTP sink does it.
//!
//! Contract: any 2xx answer acknowledges the batch. 400 and 422 refuse something in it; 413 finds it too large.

use std::sync::Arc;

use chaperone_sinks::{
    Endpoint,
    client::{HttpClient, bearer_header},
    content::{Content, gzip},
    settings::{Http, Sink},
    tls::HTTP1,
};
use hyper::header::HeaderValue;

use super::{Maker, request::gzipped};
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target};

/// An endpoint and by what it knows us.
pub(super) struct HttpTarget {
    client: HttpClient,
    content: Content,
    authorization: Option<HeaderValue>,
}

impl HttpTarget {
    /// Reads the settings.
    pub(super) fn new(http: &Http, sink: &Sink, maker: &Maker) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(&http.url)?;
        let bearer = http.bearer.as_ref();
        let authorization = bearer.map(|token| bearer_header(&token.0)).transpose()?;
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(http.tls.client_config(Some(HTTP1))?)),
            false => None,
        };
        let batch = u32::try_from(sink.batch.records).unwrap_or(u32::MAX);
        Ok(Self {
            client: HttpClient::new(endpoint, tls, maker.net.clone(), &maker.version)?,
            content: Content::new(sink.format, batch),
            authorization,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let mut lines = Vec::new();
        for record in batch {
            lines.extend_from_slice(record.line.as_bytes());
            lines.push(b'\n');
        }
        let body = gzip(&self.content.body(&lines)).map_err(|e| Failure::soon("write", e))?;
        let path = self.client.endpoint().target.clone();
        let request = gzipped(
            path,
            self.content.media_type(),
            body,
            self.authorization.as_ref(),
        );
        let answer = self.client.exchange(request).await?;
        match answer.status.is_success() {
            true => Ok(Answer::default()),
            false => Err(answer.into_error().into()),
        }
    }
}

impl Target for HttpTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}
