//! Requests of the kinds that speak HTTP.

use bytes::Bytes;
use chaperone_sinks::{ClientError, Endpoint};
use http_body_util::Full;
use hyper::{
    Method, Request, Uri,
    header::{self, HeaderValue},
};

/// A POST of a body in coding gzip.
pub(super) fn gzipped(
    path: Uri,
    media_type: &'static str,
    body: Bytes,
    authorization: Option<&HeaderValue>,
) -> Request<Full<Bytes>> {
    let mut request = plain(Method::POST, path, body, authorization);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    request
}

/// A request whose body, if it has one, is JSON.
pub(super) fn plain(
    method: Method,
    path: Uri,
    body: Bytes,
    authorization: Option<&HeaderValue>,
) -> Request<Full<Bytes>> {
    let is_empty = body.is_empty();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    if !is_empty {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
    }
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    request
}

/// A credential as the value of `Authorization`.
pub(super) fn authorization(value: &str) -> Result<HeaderValue, ClientError> {
    let why = |_| ClientError::Settings("the credential is no header value".to_owned());
    let mut value = HeaderValue::from_str(value).map_err(why)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A path of the service, after what path its URL has.
pub(super) fn below(endpoint: &Endpoint, path: &str) -> Result<Uri, ClientError> {
    let before = endpoint.target.path().trim_end_matches('/');
    let path = format!("{before}/{path}");
    path.parse()
        .map_err(|error| ClientError::Settings(format!("path {path:?}: {error}")))
}
