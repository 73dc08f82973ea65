//! Answers that Chaperone gives itself: the same JSON as over HTTP/1.

use bytes::Bytes;
use chaperone_crds::record::DecisionInfo;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{grpc, http::answer};

/// Answers an operation that policy denies.
///
/// # Errors
/// When the stream is gone.
pub(crate) fn denied(
    respond: &mut SendResponse<Bytes>,
    status: u16,
    decision: &DecisionInfo,
    no_body: bool,
) -> Result<(), h2::Error> {
    send(respond, status, answer::denial(decision), no_body)
}

/// Answers a gRPC call that policy denies: a head alone, with what would be trailers in it ("Trailers-Only").
///
/// # Errors
/// When the stream is gone.
pub(crate) fn denied_call(
    respond: &mut SendResponse<Bytes>,
    decision: &DecisionInfo,
    content_type: &str,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.headers_mut() = trailers(decision);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    respond.send_response(response, true).map(|_| ())
}

/// Trailers of a gRPC call that policy denies once its response has begun.
pub(crate) fn trailers(decision: &DecisionInfo) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in grpc::denial(decision, "").into_iter().skip(1) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            trailers.insert(HeaderName::from_static(name), value);
        }
    }
    trailers
}

/// Answers bytes that Chaperone refuses, or an upstream that failed.
///
/// # Errors
/// When the stream is gone.
pub(crate) fn failed(
    respond: &mut SendResponse<Bytes>,
    status: u16,
    reason: &str,
    message: &str,
    no_body: bool,
) -> Result<(), h2::Error> {
    send(
        respond,
        status,
        answer::failure(status, reason, message),
        no_body,
    )
}

/// Sends an interim response without fields.
///
/// # Errors
/// When the stream is gone.
pub(crate) fn informational(
    respond: &mut SendResponse<Bytes>,
    status: u16,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::CONTINUE);
    respond.send_informational(response)
}

/// The body is a few hundred bytes: it waits in the stream for the agent's window, if it has to.
fn send(
    respond: &mut SendResponse<Bytes>,
    status: u16,
    json: Vec<u8>,
    no_body: bool,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(json.len()));
    let mut stream = respond.send_response(response, no_body)?;
    if no_body {
        return Ok(());
    }
    stream.send_data(Bytes::from(json), true)
}
