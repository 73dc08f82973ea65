//! What makes an HTTP request a gRPC call, which procedure it calls ("gRPC over HTTP2", "gRPC Web"), and what its messages say.
//!
//! Pure. Invariant: a path names one procedure or none.

mod descriptors;
mod message;
pub mod wire;

pub use descriptors::{
    DescriptorError, DescriptorSet, Descriptors, MAX_PACKED_BYTES, MAX_SET_BYTES, Method,
};
pub use message::{ANY, Known, MAX_VALUES, Survey, Undecodable, survey, to_json, unpack};

/// The procedure that a request calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcCall<'a> {
    /// Full name of the service: `package.Service`.
    pub service: &'a str,
    /// Name of the method.
    pub method: &'a str,
}

impl<'a> GrpcCall<'a> {
    /// Whether a media type (lower case, without parameters) is gRPC's or gRPC-Web's: `application/grpc`, `application/grpc+proto`, `application/grpc-web-text`.
    #[must_use]
    pub fn is_grpc(media_type: &str) -> bool {
        let rest = media_type.strip_prefix("application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-']))
    }

    /// Reads `/package.Service/Method`. Servers take what stands behind the last slash for the method. `None`: the path names no procedure.
    #[must_use]
    pub fn of_path(path: &'a str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
        (!service.is_empty() && !method.is_empty()).then_some(Self { service, method })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_service_and_method() {
        let call = GrpcCall::of_path("/acme.v1.Orders/Delete").unwrap();
        assert_eq!((call.service, call.method), ("acme.v1.Orders", "Delete"));
        for path in [
            "",
            "/",
            "/acme.v1.Orders",
            "/acme.v1.Orders/",
            "//Delete",
            "*",
        ] {
            assert_eq!(GrpcCall::of_path(path), None, "{path}");
        }
    }

    #[test]
    fn media_types_tell_grpc() {
        for (media, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web+proto", true),
            ("application/grpc-web-text", true),
            ("application/grpcish", false),
            ("application/json", false),
        ] {
            assert_eq!(GrpcCall::is_grpc(media), is, "{media}");
        }
    }
}
