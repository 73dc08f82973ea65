//! Properties that hold for any bytes: nothing panics, a split changes no answer, and what is
//! written reads back.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

/// Pieces that heads are made of, sound and rotten, so that random sequences reach deep.
const PIECES: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"CONNECT ",
    b"/a?b ",
    b"a:1 ",
    b"http://a/ ",
    b"HTTP/1.1\r\n",
    b"HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"X: y\r\n",
    b"X:\r\n",
    b"X : y\r\n",
    b"X",
    b": y\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"abc",
];

/// Pieces of chunked bodies.
const CHUNK_PIECES: &[&[u8]] = &[
    b"3\r\nabc\r\n",
    b"3;x=y\r\nabc\r\n",
    b"0\r\n",
    b"\r\n",
    b"0\r\n\r\n",
    b"X: y\r\n",
    b"Host: a\r\n",
    b"a",
    b"\n",
    b"\r",
    b";",
    b" ",
    b"ffffffffffffffff",
];

fn assembled(pieces: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => proptest::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|parts| parts.concat())
}

fn request_like() -> impl Strategy<Value = Vec<u8>> {
    let plausible = assembled(PIECES).prop_map(|rest| {
        let mut head = b"POST /a HTTP/1.1\r\nHost: a\r\n".to_vec();
        head.extend_from_slice(&rest);
        head
    });
    prop_oneof![
        assembled(PIECES),
        plausible,
        proptest::collection::vec(any::<u8>(), 0..200)
    ]
}

fn response_like() -> impl Strategy<Value = Vec<u8>> {
    let plausible = assembled(PIECES).prop_map(|rest| {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        head.extend_from_slice(&rest);
        head
    });
    prop_oneof![
        assembled(PIECES),
        plausible,
        proptest::collection::vec(any::<u8>(), 0..200)
    ]
}

/// What a head says, as text, to compare two parses.
fn summary<H: std::fmt::Debug>(parsed: Result<Option<(H, usize)>, HeadError>) -> String {
    format!("{parsed:?}")
}

/// Runs a body in pieces and sums up all that can be observed.
fn run_body(framing: BodyFraming, wire: &[u8], cuts: &[usize]) -> String {
    let mut body = BodyDecoder::new(framing);
    let (mut payload, mut consumed, mut start) = (Vec::new(), 0, 0);
    for end in cuts.iter().copied().chain([wire.len()]) {
        let end = end.clamp(start, wire.len());
        match body.pump(&wire[start..end], |run| payload.extend_from_slice(run)) {
            Ok(progress) => consumed += progress.consumed,
            Err(error) => return format!("{error:?}"),
        }
        start = end;
    }
    format!(
        "{payload:?} {consumed} {} {:?}",
        body.is_done(),
        body.trailers()
    )
}

proptest! {
    #[test]
    fn a_request_reads_the_same_whatever_the_reads_were(buf in request_like()) {
        let whole = summary(parse_request(&buf));
        for end in 0..buf.len() {
            let part = parse_request(&buf[..end]);
            if !matches!(part, Ok(None)) {
                prop_assert_eq!(summary(part), whole.clone(), "after {} bytes", end);
            }
        }
    }

    #[test]
    fn a_response_reads_the_same_whatever_the_reads_were(
        buf in response_like(),
        method in prop_oneof![Just("GET"), Just("HEAD"), Just("CONNECT")],
    ) {
        let whole = summary(parse_response(&buf, method));
        for end in 0..buf.len() {
            let part = parse_response(&buf[..end], method);
            if !matches!(part, Ok(None)) {
                prop_assert_eq!(summary(part), whole.clone(), "after {} bytes", end);
            }
        }
    }

    #[test]
    fn a_head_nobody_edits_is_written_as_read(buf in request_like()) {
        if let Ok(Some((head, used))) = parse_request(&buf) {
            let mut out = BytesMut::new();
            head.write_to(&mut out);
            prop_assert!(buf[..used].ends_with(&out));
        }
    }

    #[test]
    fn an_edited_head_reads_back_with_the_same_meaning(buf in request_like()) {
        if let Ok(Some((mut head, _))) = parse_request(&buf) {
            head.headers_mut().append("X-Added", b"1").unwrap();
            let mut out = BytesMut::new();
            head.write_to(&mut out);
            if head.headers().len() <= limits::MAX_HEADERS {
                let (again, used) = parse_request(&out).unwrap().unwrap();
                prop_assert_eq!(used, out.len());
                prop_assert_eq!(again.target(), head.target());
                prop_assert_eq!(again.framing(), head.framing());
                let fields = |h: &RequestHead| -> Vec<(String, Vec<u8>)> {
                    h.headers().iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect()
                };
                prop_assert_eq!(fields(&again), fields(&head));
            }
        }
    }

    #[test]
    fn a_body_decodes_the_same_whatever_the_reads_were(
        wire in prop_oneof![assembled(CHUNK_PIECES), proptest::collection::vec(any::<u8>(), 0..64)],
        mut cuts in proptest::collection::vec(0usize..120, 0..6),
        length in 0u64..80,
    ) {
        cuts.sort_unstable();
        let bytewise: Vec<usize> = (0..wire.len()).collect();
        for framing in [BodyFraming::Chunked, BodyFraming::Length(length), BodyFraming::UntilClose] {
            let whole = run_body(framing, &wire, &[]);
            prop_assert_eq!(run_body(framing, &wire, &cuts), whole.clone());
            prop_assert_eq!(run_body(framing, &wire, &bytewise), whole);
        }
    }

    #[test]
    fn chunks_that_are_written_read_back(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let mut wire = BytesMut::new();
        for part in &parts {
            write_chunk(&mut wire, part);
        }
        write_last_chunk(&mut wire, &Headers::default());
        let mut payload = Vec::new();
        let mut body = BodyDecoder::new(BodyFraming::Chunked);
        let progress = body.pump(&wire, |run| payload.extend_from_slice(run)).unwrap();
        prop_assert_eq!(progress, Progress { consumed: wire.len(), done: true });
        prop_assert_eq!(payload, parts.concat());
    }
}
