//! Heads that two parsers could read in two ways, each named by a sentence. Cases follow RFC 9112
//! §11 and the published families of request smuggling.

use super::*;

/// Refusals of requests. `@` stands for a valid start of a POST with its `Host`.
const REQUESTS: &[(&str, &str, HeadError)] = &[
    (
        "length and chunks together",
        "@Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::FramingConflict,
    ),
    (
        "chunks and then a length",
        "@Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        HeadError::FramingConflict,
    ),
    (
        "two lengths that differ",
        "@Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
        HeadError::ContentLengthRepeated,
    ),
    (
        "two lengths that agree",
        "@Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
        HeadError::ContentLengthRepeated,
    ),
    (
        "a list of lengths in one field",
        "@Content-Length: 4, 4\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a length with a plus sign",
        "@Content-Length: +5\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a negative length",
        "@Content-Length: -1\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a hexadecimal length",
        "@Content-Length: 0x10\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a length with a space inside",
        "@Content-Length: 1 0\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "an empty length",
        "@Content-Length: \r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a length beyond 63 bits",
        "@Content-Length: 18446744073709551616\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "a length in full-width digits",
        "@Content-Length: \u{ff15}\r\n\r\n",
        HeadError::ContentLength,
    ),
    (
        "the identity coding",
        "@Transfer-Encoding: identity\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "a coding before chunked",
        "@Transfer-Encoding: gzip, chunked\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunked before another coding",
        "@Transfer-Encoding: chunked, identity\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunked applied twice",
        "@Transfer-Encoding: chunked, chunked\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "a name that ends in chunked",
        "@Transfer-Encoding: xchunked\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunked in quotes",
        "@Transfer-Encoding: \"chunked\"\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunked with a parameter",
        "@Transfer-Encoding: chunked;q=1\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunked with a comma",
        "@Transfer-Encoding: chunked,\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "an empty coding",
        "@Transfer-Encoding:\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "a vertical tab before chunked",
        "@Transfer-Encoding: \u{b}chunked\r\n\r\n",
        HeadError::Value,
    ),
    (
        "two fields of chunked",
        "@Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::TransferEncodingRepeated,
    ),
    (
        "chunked and then another coding in a second field",
        "@Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n",
        HeadError::TransferEncodingRepeated,
    ),
    (
        "chunks in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::TransferEncodingInHttp10,
    ),
    (
        "a length spelled with an underscore",
        "@Content_Length: 4\r\n\r\n",
        HeadError::FramingLookalike,
    ),
    (
        "a coding spelled with an underscore",
        "@transfer_ENCODING: chunked\r\n\r\n",
        HeadError::FramingLookalike,
    ),
    (
        "a length that the next hop is told to drop",
        "@Connection: close, Content-Length\r\nContent-Length: 4\r\n\r\n",
        HeadError::ConnectionDropsFraming,
    ),
    (
        "a Host that the next hop is told to drop",
        "@Connection: host\r\n\r\n",
        HeadError::ConnectionDropsFraming,
    ),
    (
        "a folded line",
        "@X-A: 1\r\n Content-Length: 4\r\n\r\n",
        HeadError::ObsFold,
    ),
    (
        "a folded coding",
        "@Transfer-Encoding:\r\n chunked\r\n\r\n",
        HeadError::ObsFold,
    ),
    (
        "a first line that is folded",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        HeadError::ObsFold,
    ),
    (
        "a line that begins with a tab",
        "@X-A: 1\r\n\tb\r\n\r\n",
        HeadError::ObsFold,
    ),
    (
        "a space before the colon of a coding",
        "@Transfer-Encoding : chunked\r\n\r\n",
        HeadError::SpaceBeforeColon,
    ),
    (
        "a tab before the colon",
        "@Content-Length\t: 4\r\n\r\n",
        HeadError::SpaceBeforeColon,
    ),
    (
        "a name without a colon",
        "@Content-Length\r\n\r\n",
        HeadError::Name,
    ),
    (
        "a name that a bare LF ends",
        "@Content-Length\n: 4\r\n\r\n",
        HeadError::Name,
    ),
    ("an empty name", "@: 4\r\n\r\n", HeadError::EmptyName),
    (
        "a name with a NUL",
        "@Content-Length\0: 4\r\n\r\n",
        HeadError::Name,
    ),
    (
        "a name with a letter outside ASCII",
        "@Content-L\u{e9}ngth: 4\r\n\r\n",
        HeadError::Name,
    ),
    ("a NUL in a value", "@X-A: a\0b\r\n\r\n", HeadError::Value),
    (
        "a DEL in a value",
        "@X-A: a\u{7f}b\r\n\r\n",
        HeadError::Value,
    ),
    (
        "a bare CR in a value",
        "@X-A: a\rContent-Length: 4\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a bare CR before a line end",
        "@X-A: a\r\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a bare LF after a field",
        "@X-A: a\nContent-Length: 4\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a bare LF after the request line",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a bare LF as the last line",
        "@X-A: a\r\n\n",
        HeadError::LineEnding,
    ),
    (
        "a bare CR as the last line",
        "@X-A: a\r\n\rX",
        HeadError::LineEnding,
    ),
    (
        "no Host in HTTP/1.1",
        "GET / HTTP/1.1\r\n\r\n",
        HeadError::HostMissing,
    ),
    ("two Hosts", "@Host: b\r\n\r\n", HeadError::HostRepeated),
    (
        "two Hosts that agree",
        "@host: a\r\n\r\n",
        HeadError::HostRepeated,
    ),
    (
        "two Hosts in HTTP/1.0",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        HeadError::HostRepeated,
    ),
    (
        "an empty Host",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a Host with user information",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a Host with a path",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a Host with a list",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a Host with a port out of range",
        "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a Host with a percent escape",
        "GET / HTTP/1.1\r\nHost: a%00b\r\n\r\n",
        HeadError::HostInvalid,
    ),
    (
        "a target for another host than Host",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::HostMismatch,
    ),
    (
        "a target for another port than Host",
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::HostMismatch,
    ),
    (
        "a tunnel to another host than Host",
        "CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        HeadError::HostMismatch,
    ),
    (
        "a tunnel with a body",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 4\r\n\r\n",
        HeadError::BodyNotAllowed,
    ),
    (
        "a TRACE with a body",
        "TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::BodyNotAllowed,
    ),
    (
        "a target with a fragment",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    (
        "a target with a control",
        "GET /a\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    (
        "a target with a tab",
        "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    (
        "a target with a space",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Version,
    ),
    (
        "no target",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    (
        "two spaces before the target",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    ("HTTP/0.9", "GET /\r\n", HeadError::Target),
    (
        "a target without a slash",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Target,
    ),
    (
        "a method with a colon",
        "G:T / HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Method,
    ),
    (
        "an empty method",
        " / HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::Method,
    ),
    ("a TLS hello", "\u{16}\u{3}\u{1}", HeadError::Method),
    (
        "a method without end",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::MethodTooLong,
    ),
    (
        "the preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HeadError::Version,
    ),
    (
        "a version of another protocol",
        "GET / ICY/1.1\r\nHost: a\r\n\r\n",
        HeadError::Version,
    ),
    (
        "a version in lower case",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        HeadError::Version,
    ),
    (
        "a version with more digits",
        "GET / HTTP/1.11\r\nHost: a\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a space after the version",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "an upgrade outside ASCII",
        "@Upgrade: \u{e9}\r\n\r\n",
        HeadError::Value,
    ),
];

/// Refusals of responses. `@` stands for a status line of 200.
const RESPONSES: &[(&str, &str, HeadError)] = &[
    (
        "length and chunks together",
        "@Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        HeadError::FramingConflict,
    ),
    (
        "two lengths",
        "@Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
        HeadError::ContentLengthRepeated,
    ),
    (
        "a coding that is not chunked",
        "@Transfer-Encoding: gzip, chunked\r\n\r\n",
        HeadError::TransferCoding,
    ),
    (
        "chunks in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadError::TransferEncodingInHttp10,
    ),
    ("a folded line", "@X-A: 1\r\n b\r\n\r\n", HeadError::ObsFold),
    (
        "a space before the colon",
        "@Content-Length : 4\r\n\r\n",
        HeadError::SpaceBeforeColon,
    ),
    (
        "a bare LF",
        "@X-A: 1\nX-B: 2\r\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a bare LF after the status line",
        "HTTP/1.1 200 OK\n\r\n",
        HeadError::LineEnding,
    ),
    (
        "a control in a value",
        "@X-A: \u{1}\r\n\r\n",
        HeadError::Value,
    ),
    (
        "a length spelled with an underscore",
        "@Content_Length: 4\r\n\r\n",
        HeadError::FramingLookalike,
    ),
];

#[test]
fn ambiguous_requests_are_refused_for_their_own_reason() {
    for (sentence, text, error) in REQUESTS {
        let wire = text.replace('@', "POST / HTTP/1.1\r\nHost: a\r\n");
        let wire = if text.starts_with('@') {
            wire
        } else {
            (*text).to_owned()
        };
        let refused = parse_request(wire.as_bytes());
        assert_eq!(refused.expect_err(sentence), *error, "{sentence}");
    }
}

#[test]
fn ambiguous_responses_are_refused_for_their_own_reason() {
    for (sentence, text, error) in RESPONSES {
        let wire = text.replace('@', "HTTP/1.1 200 OK\r\n");
        let refused = parse_response(wire.as_bytes(), "GET");
        assert_eq!(refused.expect_err(sentence), *error, "{sentence}");
    }
}

#[test]
fn too_many_headers_and_too_large_heads_are_431() {
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(limits::MAX_HEADERS)
    );
    let refused = parse_request(many.as_bytes()).unwrap_err();
    assert_eq!(
        (refused, refused.status()),
        (HeadError::TooManyHeaders, 431)
    );
    let endless = vec![b'a'; limits::MAX_HEAD_BYTES];
    let refused = parse_request(&endless).unwrap_err();
    assert_eq!((refused, refused.status()), (HeadError::TooLarge, 431));
}

#[test]
fn refusals_carry_the_status_of_their_kind() {
    let cases = [
        (HeadError::FramingConflict, 400),
        (HeadError::TransferCoding, 501),
        (HeadError::MethodTooLong, 501),
        (HeadError::Version, 505),
    ];
    for (error, status) in cases {
        assert_eq!(error.status(), status);
        assert!(!error.reason().is_empty() && !error.to_string().is_empty());
    }
}

#[test]
fn what_ordinary_clients_send_is_accepted() {
    let heads = [
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  CHUNKED \r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nExpect: 100-continue\r\n\r\n",
        "GET /b\u{e4}r?q={\"a\":[1|2]} HTTP/1.1\r\nHost: a_b.c:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Latin: caf\u{e9}\r\n\r\n",
        "GET https://a/ HTTP/1.1\r\nHost: A:443\r\n\r\n",
        "CONNECT a:8443 HTTP/1.1\r\nHost: a:8443\r\nProxy-Connection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: TE, Upgrade, HTTP2-Settings\r\nHost: a\r\n\r\n",
    ];
    for head in heads {
        let parsed = parse_request(head.as_bytes());
        assert!(matches!(parsed, Ok(Some(_))), "{head}: {parsed:?}");
    }
}
