//! OTLP logs, over HTTP with protobuf or over gRPC.
//!
//! Contract: an answer of success acknowledges the batch. Records that the receiver says it rejected (`partial_success`) are refused for good; it does not say which. OTLP knows no key of a record, so
//! a batch that comes again is there twice: the attributes `chaperone.stream` and `chaperone.seq` tell copies.

mod grpc;
mod message;

use std::sync::Arc;

use bytes::Bytes;
use chaperone_sinks::{
    ClientError, Endpoint,
    client::{HttpClient, bearer_header},
    content::gzip,
    settings::{Otlp, OtlpProtocol},
    tls::HTTP1,
};
use hyper::{StatusCode, Uri, header::HeaderValue};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;

use super::{Maker, request::gzipped};
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};
use grpc::Grpc;

/// Where OTLP/HTTP takes logs, unless the URL has a path.
const LOGS_PATH: &str = "/v1/logs";
/// The type of its messages.
const MEDIA_TYPE: &str = "application/x-protobuf";

/// A receiver of OTLP.
pub(super) struct OtlpTarget {
    transport: Transport,
    version: String,
}

enum Transport {
    Http(Box<Http>),
    Grpc(Box<Grpc>),
}

struct Http {
    client: HttpClient,
    path: Uri,
    authorization: Option<HeaderValue>,
}

impl OtlpTarget {
    /// Reads the settings.
    pub(super) fn new(otlp: &Otlp, maker: &Maker) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(&otlp.url)?;
        let transport = match otlp.protocol {
            OtlpProtocol::Http => Transport::Http(Box::new(Http::new(otlp, endpoint, maker)?)),
            OtlpProtocol::Grpc => Transport::Grpc(Box::new(Grpc::new(otlp, &endpoint, maker)?)),
        };
        Ok(Self {
            transport,
            version: maker.version.clone(),
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let request = message::request(batch, &self.version, jiff::Timestamp::now());
        let response = match &mut self.transport {
            Transport::Http(http) => http.export(&request).await?,
            Transport::Grpc(grpc) => grpc.export(request).await?,
        };
        Ok(answer(response, batch.len()))
    }
}

impl Target for OtlpTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

impl Http {
    fn new(otlp: &Otlp, endpoint: Endpoint, maker: &Maker) -> Result<Self, Failure> {
        let bearer = otlp.bearer.as_ref();
        let authorization = bearer.map(|token| bearer_header(&token.0)).transpose()?;
        let path = match endpoint.target.path() {
            "/" => Uri::from_static(LOGS_PATH),
            _ => endpoint.target.clone(),
        };
        let tls = match endpoint.is_tls {
            true => Some(Arc::new(otlp.tls.client_config(Some(HTTP1))?)),
            false => None,
        };
        Ok(Self {
            client: HttpClient::new(endpoint, tls, maker.net.clone(), &maker.version)?,
            path,
            authorization,
        })
    }

    async fn export(
        &mut self,
        export: &ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Failure> {
        let body = gzip(&export.encode_to_vec()).map_err(|e| Failure::soon("write", e))?;
        let request = gzipped(
            self.path.clone(),
            MEDIA_TYPE,
            body,
            self.authorization.as_ref(),
        );
        let answer = self.client.exchange(request).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error().into());
        }
        response(answer.status, answer.body)
    }
}

/// Reads an answer of success: 200 and the message, which may be empty. An endpoint that says so to anything is none of OTLP's, and would swallow all records; so an answer that is too long to be one is none either.
fn response(status: StatusCode, body: Option<Bytes>) -> Result<ExportLogsServiceResponse, Failure> {
    let read = body
        .filter(|_| status == StatusCode::OK)
        .and_then(|body| ExportLogsServiceResponse::decode(body).ok());
    read.ok_or_else(|| {
        let why = "the endpoint answers with success, and with something that is not OTLP's: the url is another service's";
        Failure::new(Then::Rarely, "protocol", why)
    })
}

/// What a response of success says. One that rejects more than it was sent rejects all.
fn answer(response: ExportLogsServiceResponse, sent: usize) -> Answer {
    let rejected = response.partial_success.and_then(|partial| {
        let most = u64::try_from(sent).unwrap_or(u64::MAX);
        let count = u64::try_from(partial.rejected_log_records).unwrap_or(0);
        (count > 0).then_some((count.min(most), partial.error_message))
    });
    match rejected {
        // A single one is known by name.
        Some((_, why)) if sent == 1 => Answer {
            refused: vec![(0, why)],
            ..Answer::default()
        },
        rejected => Answer {
            refused_unnamed: rejected,
            ..Answer::default()
        },
    }
}

/// Settings that gRPC cannot use.
fn settings(why: impl ToString) -> ClientError {
    ClientError::Settings(why.to_string())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    #[test]
    fn an_answer_that_is_not_otlps_is_not_believed() {
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert!(response(StatusCode::OK, bytes("")).is_ok());
        for (status, body) in [
            (StatusCode::OK, bytes("<html>hello</html>")),
            (StatusCode::OK, bytes("{\"ok\":true}")),
            (StatusCode::NO_CONTENT, bytes("")),
            // Longer than is read.
            (StatusCode::OK, None),
        ] {
            let failure = response(status, body.clone()).unwrap_err();
            assert_eq!(
                (failure.then, failure.reason),
                (Then::Rarely, "protocol"),
                "{body:?}"
            );
        }
    }

    fn rejecting(rejected: i64) -> ExportLogsServiceResponse {
        ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: "why".to_owned(),
            }),
        }
    }

    #[test]
    fn records_that_were_rejected_are_refused_and_nonsense_is_bounded() {
        let why = || "why".to_owned();
        let unnamed = |count| Answer {
            refused_unnamed: Some((count, why())),
            ..Answer::default()
        };
        assert_eq!(
            answer(ExportLogsServiceResponse::default(), 5),
            Answer::default()
        );
        assert_eq!(answer(rejecting(0), 5), Answer::default());
        assert_eq!(answer(rejecting(-3), 5), Answer::default());
        assert_eq!(answer(rejecting(2), 5), unnamed(2));
        assert_eq!(answer(rejecting(i64::MAX), 5), unnamed(5));
        assert_eq!(answer(rejecting(1), 1).refused, [(0, why())]);
    }
}
