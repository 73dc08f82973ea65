//! An HTTP/1.1 client of one endpoint, for sinks.
//!
//! Owns one connection at a time, and the bounds of an exchange. Refuses redirects: records go where the settings say.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{self, HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822};
use rustls::ClientConfig;
use tokio::{task::AbortHandle, time::timeout};

use crate::{
    ClientError, Endpoint,
    dial::{CONNECT_TIMEOUT, Dialer},
    net::SinkNet,
};

/// How long an answer may take after the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most of an answer's body that is read where nobody asks for more, in bytes, so that the connection can serve again. After a longer one the connection is closed.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Most of an answer's body that is logged, in characters.
const LOGGED_CHARS: usize = 200;

type Requests = SendRequest<Full<Bytes>>;

/// An endpoint and the connection to it.
pub struct HttpClient {
    endpoint: Endpoint,
    user_agent: HeaderValue,
    /// Most of an answer's body that is read, in bytes.
    longest_answer: usize,
    dialer: Dialer,
    connection: Option<Connection>,
}

struct Connection {
    requests: Requests,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What an endpoint answered.
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    retry_after: Option<Duration>,
    /// None of one that was too long.
    pub body: Option<Bytes>,
}

impl Answer {
    /// One that asks for no wait.
    #[must_use]
    pub fn new(status: StatusCode, body: Option<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            retry_after: None,
            body,
        }
    }

    /// The answer as a failure.
    #[must_use]
    pub fn into_error(self) -> ClientError {
        ClientError::Status {
            status: self.status.as_u16(),
            retry_after: self.retry_after,
            text: excerpt(self.status, &self.body.unwrap_or_default()),
        }
    }
}

impl HttpClient {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// If the version cannot be a header's value.
    pub fn new(
        endpoint: Endpoint,
        tls: Option<Arc<ClientConfig>>,
        net: Arc<dyn SinkNet>,
        version: &str,
    ) -> Result<Self, ClientError> {
        let user_agent = HeaderValue::from_str(&format!("chaperone/{version}"))
            .map_err(|_| ClientError::Settings("the version is no header value".to_owned()))?;
        Ok(Self {
            dialer: Dialer {
                host: endpoint.host.clone(),
                port: endpoint.port,
                tls,
                net,
            },
            endpoint,
            user_agent,
            longest_answer: MAX_ANSWER_BYTES,
            connection: None,
        })
    }

    /// The same, reading answers of at most so many bytes.
    #[must_use]
    pub fn with_longest_answer(mut self, bytes: usize) -> Self {
        self.longest_answer = bytes;
        self
    }

    /// Where it goes.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request, to which it adds Host and User-Agent, and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`]; whether the endpoint had the request is not known then.
    pub async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.endpoint.authority.clone());
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        let mut connection = self.connection().await?;
        let exchange = exchange(&mut connection.requests, request, self.longest_answer);
        let answer = timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| ClientError::Timeout(ANSWER_TIMEOUT))??;
        // After a body that was not read to its end the connection is not at the beginning of the next answer.
        if answer.body.is_some() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// The connection that is there, if it can take a request, or a new one.
    async fn connection(&mut self) -> Result<Connection, ClientError> {
        let kept = self.connection.take();
        let connected = async {
            if let Some(mut connection) = kept
                && connection.requests.ready().await.is_ok()
            {
                return Ok(connection);
            }
            self.connect().await
        };
        timeout(CONNECT_TIMEOUT, connected)
            .await
            .map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = self.dialer.dial().await?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // The request's own future tells its failure.
            let _ = connection.await;
        });
        Ok(Connection {
            requests,
            driver: driver.abort_handle(),
        })
    }
}

async fn exchange(
    requests: &mut Requests,
    request: Request<Full<Bytes>>,
    longest: usize,
) -> Result<Answer, ClientError> {
    let response = requests.send_request(request).await?;
    let status = response.status();
    let retry_after = retry_after(&response, Timestamp::now());
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), longest).collect().await;
    Ok(Answer {
        status,
        headers,
        retry_after,
        body: body.ok().map(|body| body.to_bytes()),
    })
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
fn retry_after(response: &Response<Incoming>, now: Timestamp) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, now)
}

fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(at.duration_since(now).unsigned_abs()).filter(|_| at > now)
}

fn excerpt(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text
        .chars()
        .take(LOGGED_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.trim() {
        "" => status.canonical_reason().unwrap_or("no reason").to_owned(),
        text => text.to_owned(),
    }
}

/// Value of `Authorization` with this bearer token.
///
/// # Errors
/// If it cannot be a header's value.
pub fn bearer_header(token: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| ClientError::Settings("the bearer token is no header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Tue, 24 Nov 2026 10:01:00 GMT", Some(60)),
            ("Tue, 24 Nov 2026 09:59:00 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse_retry_after(value, now), expected, "{value}");
        }
    }
}
