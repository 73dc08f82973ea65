//! An HTTP endpoint as a sink: batches are POSTed gzipped, as newline-delimited JSON or as CloudEvents; any 2xx answer acknowledges.
//!
//! Invariant: `deliver` returns Ok only after a 2xx answer to exactly these bytes.

mod content;

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use bytes::Bytes;
use chaperone_crds::{control::SinkTarget, resources::Format};
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    Request,
    header::{self, HeaderValue},
};

use super::{
    client::{Endpoint, HttpClient, bearer_header, tls},
    error::SinkError,
};
use crate::audit::net::SinkNet;
use content::Content;

/// An endpoint and by what it knows us.
pub(super) struct HttpSink {
    client: HttpClient,
    content: Content,
    authorization: Option<HeaderValue>,
}

impl HttpSink {
    /// Reads the settings. Nothing is connected yet.
    pub(super) fn new(
        target: &SinkTarget,
        format: Format,
        net: Arc<dyn SinkNet>,
        version: &str,
    ) -> Result<Self, SinkError> {
        let SinkTarget::Http {
            url,
            bearer,
            batch_size,
            ..
        } = target
        else {
            return Err(SinkError::Settings("not an HTTP sink".to_owned()));
        };
        let endpoint = Endpoint::parse(url)?;
        let authorization = bearer.as_deref().map(bearer_header).transpose()?;
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(tls::client_config(target)?)),
            false => None,
        };
        Ok(Self {
            client: HttpClient::new(endpoint, tls, net, version)?,
            content: Content::new(format, *batch_size),
            authorization,
        })
    }

    /// Sends the lines; Ok is the endpoint's acknowledgement.
    pub(super) async fn deliver(&mut self, lines: &[u8]) -> Result<(), SinkError> {
        let body = gzip(&self.content.body(lines)).map_err(SinkError::Write)?;
        let request = self.request(body);
        let answer = self.client.exchange(request).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.into_error()),
        }
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.client.endpoint().target.clone();
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content.media_type()),
        );
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }
}

fn gzip(lines: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(lines)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests;
