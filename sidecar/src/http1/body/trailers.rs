//! Trailer sections (RFC 9110 §6.5, RFC 9112 §7.1.2).

use super::super::headers::Headers;
use super::super::limits::MAX_TRAILERS;
use super::BodyError;

/// Fields that have no business behind the body (RFC 9110 §6.5.1): they frame the message, route
/// it, authenticate, or say how to read content that has already been read.
const FORBIDDEN: [&str; 24] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

/// Reads a complete trailer section, its empty line included.
pub(super) fn parse_trailers(section: &[u8]) -> Result<Headers, BodyError> {
    if section == b"\r\n" {
        return Ok(Headers::default());
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let parsed = match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((used, parsed))) if used == section.len() => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err(BodyError::TrailerTooLarge),
        _ => return Err(BodyError::Trailer),
    };
    if parsed.iter().any(|field| is_forbidden(field.name)) {
        return Err(BodyError::TrailerForbidden);
    }
    Ok(Headers::from_parsed(section, parsed))
}

/// Underscores count as hyphens, for gateways in the CGI tradition fold them.
fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|known| {
        known.len() == name.len()
            && known
                .bytes()
                .zip(name.bytes())
                .all(|(k, n)| k.eq_ignore_ascii_case(&n) || (k == b'-' && n == b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_frame_or_authenticate_are_refused_in_trailers() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Authorization",
            "Content_Length",
        ] {
            let section = format!("X: 1\r\n{name}: 1\r\n\r\n");
            let refused = parse_trailers(section.as_bytes()).unwrap_err();
            assert_eq!(refused, BodyError::TrailerForbidden, "{name}");
        }
    }

    #[test]
    fn trailer_lines_that_are_no_fields_are_refused() {
        for section in [
            "x\r\n\r\n",
            " folded\r\n\r\n",
            "A : 1\r\n\r\n",
            ": 1\r\n\r\n",
            "A: \0\r\n\r\n",
        ] {
            assert_eq!(
                parse_trailers(section.as_bytes()).unwrap_err(),
                BodyError::Trailer
            );
        }
        let many = format!("{}\r\n", "A: 1\r\n".repeat(MAX_TRAILERS + 1));
        assert_eq!(
            parse_trailers(many.as_bytes()).unwrap_err(),
            BodyError::TrailerTooLarge
        );
    }
}
