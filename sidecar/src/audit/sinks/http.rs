//! An HTTP endpoint as a sink: batches are POSTed gzipped, as newline-delimited JSON or as CloudEvents; any 2xx answer acknowledges.
//!
//! Invariant: `deliver` returns Ok only after a 2xx answer to exactly these bytes.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_crds::{control::SinkTarget, resources::Format};
use chaperone_sinks::{
    Endpoint,
    client::{HttpClient, bearer_header},
    content::{Content, gzip},
    net::SinkNet,
    tls,
};
use http_body_util::Full;
use hyper::{
    Request,
    header::{self, HeaderValue},
};

use super::error::SinkError;

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
            client_cert,
            client_key,
            ca_bundle,
            batch_size,
        } = target
        else {
            return Err(SinkError::Settings("not an HTTP sink".to_owned()));
        };
        let endpoint = Endpoint::parse(url)?;
        let authorization = bearer.as_deref().map(bearer_header).transpose()?;
        let tls = match endpoint.is_tls {
            true => {
                let settings = tls::Settings {
                    ca_bundle: ca_bundle.as_deref(),
                    client_cert: client_cert.as_deref(),
                    client_key: client_key.as_deref(),
                };
                Some(Arc::new(tls::client_config(settings, Some(tls::HTTP1))?))
            }
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
            false => Err(answer.into_error().into()),
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

#[cfg(test)]
mod tests;
