//! OTLP over gRPC: tonic's client over connections of our own, so that TLS, names and bounds are those of all sinks.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chaperone_sinks::{
    Endpoint,
    dial::{Dialer, Stream},
    settings::Otlp,
    tls::HTTP2,
};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_client::LogsServiceClient,
};
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding,
    codegen::Service,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint as GrpcEndpoint},
};
use tonic_types::StatusExt as _;

use super::{Maker, settings};
use crate::sinks::target::{Failure, Then};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer, in bytes: it has two fields.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Longest message of a status that is kept, in characters.
const MESSAGE_CHARS: usize = 200;

/// A client that connects anew when its connection is gone.
pub(super) struct Grpc {
    client: LogsServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Grpc {
    pub(super) fn new(otlp: &Otlp, endpoint: &Endpoint, maker: &Maker) -> Result<Self, Failure> {
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(otlp.tls.client_config(Some(HTTP2))?)),
            false => None,
        };
        let connector = Connector(Arc::new(Dialer {
            host: endpoint.host.clone(),
            port: endpoint.port,
            tls,
            net: maker.net.clone(),
        }));
        let channel = GrpcEndpoint::from_shared(otlp.url.clone())
            .and_then(|e| e.user_agent(format!("chaperone/{}", maker.version)))
            .map_err(settings)?
            .timeout(ANSWER_TIMEOUT)
            .connect_with_connector_lazy(connector);
        let bearer = otlp.bearer.as_ref().map(|token| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.0)
                .parse()
                .map_err(|_| settings("the bearer token is no header value"))?;
            value.set_sensitive(true);
            Ok::<_, Failure>(value)
        });
        Ok(Self {
            client: LogsServiceClient::new(channel)
                .send_compressed(CompressionEncoding::Gzip)
                // Receivers answer in the coding that they were asked in.
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_ANSWER_BYTES),
            authorization: bearer.transpose()?,
        })
    }

    pub(super) async fn export(
        &mut self,
        export: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Failure> {
        let mut request = Request::new(export);
        if let Some(authorization) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        match self.client.export(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(failure(&status)),
        }
    }
}

/// What follows from a status. The specification says which may be sent again; that the rest must not is for clients that lose what they hold, so here those wait for someone who mends the receiver.
fn failure(status: &Status) -> Failure {
    let (then, reason) = match status.code() {
        // What the gRPC libraries say of a message beyond their receiver's bound.
        Code::ResourceExhausted if status.message().contains("larger than max") => {
            (Then::Fewer, "refused")
        }
        Code::InvalidArgument => (Then::Refused, "refused"),
        Code::Unauthenticated | Code::PermissionDenied => (Then::Rarely, "unauthorized"),
        Code::Unimplemented | Code::NotFound => (Then::Rarely, "refused"),
        Code::ResourceExhausted => (Then::Soon, "throttled"),
        Code::DeadlineExceeded | Code::Cancelled => (Then::Soon, "timeout"),
        _ => (Then::Soon, "server-error"),
    };
    let message: String = status.message().chars().take(MESSAGE_CHARS).collect();
    let cause = std::error::Error::source(status)
        .map_or_else(String::new, |source| format!(" ({})", innermost(source)));
    let mut failure = Failure::new(
        then,
        reason,
        format!("{:?}: {message}{cause}", status.code()),
    );
    failure.retry_after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    failure
}

/// tonic wraps what our connection said several times.
fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a dyn std::error::Error {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Connects as all sinks do.
#[derive(Clone)]
struct Connector(Arc<Dialer>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move {
            let stream = dialer.dial().await.map_err(io::Error::other)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn what_follows_from_a_status_is_the_specifications_and_nothing_is_given_up() {
        let cases = [
            (Code::Unavailable, Then::Soon, "server-error"),
            (Code::Internal, Then::Soon, "server-error"),
            (Code::ResourceExhausted, Then::Soon, "throttled"),
            (Code::DeadlineExceeded, Then::Soon, "timeout"),
            (Code::InvalidArgument, Then::Refused, "refused"),
            (Code::Unauthenticated, Then::Rarely, "unauthorized"),
            (Code::Unimplemented, Then::Rarely, "refused"),
        ];
        for (code, then, reason) in cases {
            let failure = failure(&Status::new(code, "why"));
            assert_eq!((failure.then, failure.reason), (then, reason), "{code:?}");
        }
        let large = Status::resource_exhausted("grpc: received message larger than max (5 vs. 4)");
        assert_eq!(failure(&large).then, Then::Fewer);
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let later = Status::with_error_details(Code::Unavailable, "busy", details);
        assert_eq!(failure(&later).retry_after, Some(Duration::from_secs(7)));
    }
}
