//! The store's library over the sinks' own HTTP client: the same bounds and the same TLS as all kinds, and no second client in the program.
//!
//! Owns what a request ended with: the library makes one error of many, so each end is noted here.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use chaperone_sinks::{ClientError, Endpoint, client, net::SinkNet};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Uri};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::ClientConfig;
use thiserror::Error;

use crate::Way;

/// Why a request failed.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct Failed {
    /// What the client says of it.
    pub error: ClientError,
    /// The text of `<Code>`, which S3's errors begin with; empty where there is none.
    pub code: String,
}

/// What the last request failed with.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<Option<Failed>>>);

impl Said {
    /// Forgets it, before the next request.
    pub fn clear(&self) {
        drop(self.take());
    }

    /// What it was.
    #[must_use]
    pub fn take(&self) -> Option<Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, failure: Failed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

/// What makes connections to the store.
#[derive(Clone)]
pub(crate) struct Bridge {
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
    pub(crate) fn new(tls: ClientConfig, way: &Way, said: Said, longest_answer: usize) -> Self {
        Self {
            tls: Arc::new(tls),
            net: way.net.clone(),
            version: way.version.clone(),
            said,
            longest_answer,
            client: Arc::default(),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = whole(request).await?;
        let is_read = *request.method() == Method::GET;
        let answer = self.answer(request).await.and_then(|answer| {
            // What was put is put, whatever else is said; what is read must be there.
            match is_read && answer.status.is_success() && answer.body.is_none() {
                true => Err(ClientError::Partial),
                false => Ok(answer),
            }
        });
        let answer = answer.map_err(|error| {
            let why = HttpError::new_boxed(HttpErrorKind::Unknown, error.to_string().into());
            self.said.note(Failed {
                error,
                code: String::new(),
            });
            why
        })?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let body = answer.body.clone().unwrap_or_default();
        if !status.is_success() {
            self.said.note(Failed {
                error: answer.into_error(),
                code: code(&body),
            });
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
    fn a_code_is_read_where_there_is_one() {
        for (body, expected) in [
            (
                "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>",
                "SlowDown",
            ),
            ("<Error><Code>SlowDown", ""),
            ("", ""),
            ("\u{fffd}", ""),
        ] {
            assert_eq!(code(body.as_bytes()), expected, "{body}");
        }
    }
}
