//! The store's library over the sinks' own HTTP client: the same bounds and the same TLS as all kinds, and no second client in the program.
//!
//! Owns what a request's end means: the library makes one error of many, so each end is noted here.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use chaperone_sinks::{ClientError, Endpoint, client, net::SinkNet};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, Uri};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::ClientConfig;

use super::super::Maker;
use crate::sinks::target::{Failure, Then};

/// What the last request failed with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(Arc<Mutex<Option<Failure>>>);

impl Said {
    pub(crate) fn clear(&self) {
        self.take();
    }

    pub(crate) fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

/// What makes connections to the store.
#[derive(Clone)]
pub(super) struct Bridge {
    tls: Arc<ClientConfig>,
    net: Arc<dyn SinkNet>,
    version: String,
    said: Said,
    /// Most of an answer that is read, in bytes.
    longest_answer: usize,
    /// The host, and the client of it.
    client: Arc<tokio::sync::Mutex<Option<(String, client::HttpClient)>>>,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bridge")
    }
}

impl Bridge {
    pub(super) fn new(tls: ClientConfig, maker: &Maker, said: Said, longest_answer: usize) -> Self {
        Self {
            tls: Arc::new(tls),
            net: maker.net.clone(),
            version: maker.version.clone(),
            said,
            longest_answer,
            client: Arc::default(),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = whole(request).await?;
        let answer = self.answer(request).await.map_err(|error| {
            let why = HttpError::new_boxed(HttpErrorKind::Unknown, error.to_string().into());
            self.said.note(error.into());
            why
        })?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let body = answer.body.clone().unwrap_or_default();
        if !status.is_success() {
            self.said.note(failure(status, &body, answer));
        }
        let mut response = HttpResponse::new(HttpResponseBody::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<client::Answer, ClientError> {
        let (mut head, body) = request.into_parts();
        let endpoint = Endpoint::parse(&head.uri.to_string())?;
        let host = format!("{}:{}", endpoint.host, endpoint.port);
        head.uri = Uri::try_from(endpoint.target.to_string())
            .map_err(|error| ClientError::Settings(error.to_string()))?;
        let mut slot = self.client.lock().await;
        let client = match slot.take() {
            Some((known, client)) if known == host => client,
            _ => {
                let tls = endpoint.is_tls.then(|| self.tls.clone());
                client::HttpClient::new(endpoint, tls, self.net.clone(), &self.version)?
                    .with_longest_answer(self.longest_answer)
            }
        };
        let (_, client) = slot.insert((host, client));
        client.exchange(Request::from_parts(head, body)).await
    }
}

/// A request whose body is there.
async fn whole(request: HttpRequest) -> Result<Request<Full<Bytes>>, HttpError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Request::from_parts(head, Full::new(body)))
}

/// What follows from a status and the `Code` of its body. A store has no opinion of what is in an object, so that no record is ever refused for good.
fn failure(status: StatusCode, body: &[u8], answer: client::Answer) -> Failure {
    let mut failure = Failure::from(answer.into_error());
    let (then, reason) = match (status.as_u16(), code(body).as_str()) {
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

/// The text of `<Code>`, which S3's errors begin with.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map(|(code, _)| code.to_owned()).unwrap_or_default()
}

impl HttpService for Bridge {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.exchange(request))
    }
}

impl HttpConnector for Bridge {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
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
            let status = StatusCode::from_u16(status).unwrap();
            let body = Bytes::from(format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"
            ));
            let answer = client::Answer::new(status, Some(body.clone()));
            let failure = failure(status, &body, answer);
            assert_eq!((failure.then, failure.reason), (then, reason), "{code}");
        }
    }
}
