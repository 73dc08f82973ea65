use proptest::prelude::*;

use super::*;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn encode(codings: &[Coding], pieces: &[&[u8]]) -> Vec<u8> {
    let mut stack = EncodeStack::new(codings);
    let mut out = Vec::new();
    for piece in pieces {
        stack.push(piece, &mut out).unwrap();
        stack.flush(&mut out).unwrap();
    }
    stack.finish(&mut out).unwrap();
    out
}

fn decode<'p>(
    codings: &[Coding],
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Vec<u8>, CodingError> {
    let mut stack = DecodeStack::new(codings);
    let mut text = Vec::new();
    for piece in pieces {
        stack.give(piece);
        while let Some(piece) = stack.next()? {
            assert!(piece.len() <= PIECE_BYTES);
            text.extend_from_slice(piece);
        }
    }
    stack.finish()?;
    Ok(text)
}

#[test]
fn codings_are_read_in_order_and_others_are_named() {
    let read = |values: &[&str]| codings(values.iter().map(|value| value.as_bytes()));
    assert_eq!(read(&["gzip"]), Ok(vec![Coding::Gzip]));
    assert_eq!(
        read(&["X-GZIP, identity", "br"]),
        Ok(vec![Coding::Gzip, Coding::Brotli])
    );
    assert_eq!(read(&["", "identity"]), Ok(vec![]));
    assert_eq!(read(&["gzip, Compress"]), Err("gzip, compress".into()));
    assert_eq!(
        read(&["gzip, gzip, gzip, gzip"]),
        Err("gzip, gzip, gzip, gzip".into())
    );
}

#[test]
fn only_codings_that_are_not_read_leave_the_list_of_what_is_accepted() {
    for (value, left) in [
        ("gzip, deflate, br, zstd", None),
        ("", None),
        ("identity;q=0.5, *;q=0", None),
        ("compress;q=0, gzip", None),
        ("gzip, compress;q=0.5", Some("gzip")),
        ("gzip;q=1.0, *;q=0.1", Some("gzip;q=1.0")),
        ("dcb, dcz", Some("identity")),
        ("*", Some("identity")),
        ("br;q=0.001, x", Some("br;q=0.001")),
    ] {
        let left = left.map(|left: &str| left.as_bytes().to_vec());
        assert_eq!(readable_only(value.as_bytes()), left, "{value}");
    }
}

#[test]
fn what_is_flushed_can_be_read_at_once() {
    for coding in ALL {
        let mut encoder = EncodeStack::new(&[coding]);
        let mut decoder = DecodeStack::new(&[coding]);
        for event in ["data: one\n\n", "data: two\n\n", &"x".repeat(70_000)] {
            let mut wire = Vec::new();
            encoder.push(event.as_bytes(), &mut wire).unwrap();
            encoder.flush(&mut wire).unwrap();
            decoder.give(&wire);
            let mut text = Vec::new();
            while let Some(piece) = decoder.next().unwrap() {
                text.extend_from_slice(piece);
            }
            assert_eq!(text.len(), event.len(), "{coding:?}");
            assert_eq!(text, event.as_bytes(), "{coding:?}");
        }
    }
}

#[test]
fn bodies_that_end_early_or_late_or_are_something_else_are_told_apart() {
    for coding in ALL {
        let name = coding.name();
        let whole = encode(&[coding], &[&b"hello, hello, hello"[..]]);
        for end in 1..whole.len() {
            let error = decode(&[coding], [&whole[..end]]).unwrap_err();
            assert_eq!(
                error,
                CodingError::Truncated(name),
                "{end} of {}",
                whole.len()
            );
        }
        let mut long = whole.clone();
        long.extend_from_slice(b"garbage");
        assert_eq!(
            decode(&[coding], [&long[..]]),
            Err(CodingError::Trailing(name))
        );
        assert_eq!(
            decode(&[coding], [&b"\xff\xff\xff\xff plain text"[..]]),
            Err(CodingError::Corrupt(name))
        );
        assert_eq!(
            decode(&[coding], [&b""[..]]),
            Ok(Vec::new()),
            "an empty body"
        );
    }
}

#[test]
fn members_follow_one_another_where_the_format_says_so() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let twice = [encode(&[coding], &[b"one,"]), encode(&[coding], &[b"two"])].concat();
        assert_eq!(decode(&[coding], twice.chunks(1)).unwrap(), b"one,two");
    }
}

#[test]
fn bare_deflate_is_read_under_its_wrong_name() {
    let zlib = encode(&[Coding::Deflate], &[b"some text, some text"]);
    let bare = &zlib[2..zlib.len() - 4];
    assert_eq!(
        decode(&[Coding::Deflate], bare.chunks(1)).unwrap(),
        b"some text, some text"
    );
}

#[test]
fn a_bomb_is_refused_and_takes_little_memory_until_then() {
    // Brotli of brotli of zeros: some bytes that unfold to gigabytes.
    let zeros = vec![0_u8; 1 << 20];
    let pieces: Vec<&[u8]> = std::iter::repeat_n(&zeros[..], 512).collect();
    let bomb = encode(&[Coding::Zstd], &pieces);
    let mut stack = DecodeStack::new(&[Coding::Zstd]);
    stack.give(&bomb);
    let mut seen = 0_u64;
    let error = loop {
        match stack.next() {
            Ok(Some(piece)) => seen += piece.len() as u64,
            Ok(None) => panic!(
                "{} bytes unfolded to {seen} and nothing was said",
                bomb.len()
            ),
            Err(error) => break error,
        }
    };
    assert_eq!(error, CodingError::Bomb);
    assert!(seen <= FREE_BYTES.max(bomb.len() as u64 * MAX_RATIO) + PIECE_BYTES as u64);
}

#[test]
fn a_zstd_window_beyond_what_http_allows_is_refused() {
    // Magic number, no single segment, window descriptor: exponent 14 is 16 MiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3, 0x01, 0x00, 0x00];
    assert_eq!(
        decode(&[Coding::Zstd], [&frame[..]]),
        Err(CodingError::Corrupt("zstd"))
    );
}

fn stack() -> impl Strategy<Value = Vec<Coding>> {
    prop::collection::vec(prop::sample::select(ALL.to_vec()), 1..=MAX_CODINGS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_coded_text_cut_anywhere_is_the_same_text(
        codings in stack(),
        text in prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => any::<u8>()], 0..3000),
        repeat in 1_usize..30,
        size in 1_usize..200,
        flushes in 1_usize..5,
    ) {
        let text = text.repeat(repeat);
        let pieces: Vec<&[u8]> = text.chunks(text.len() / flushes + 1).collect();
        let wire = encode(&codings, &pieces);
        prop_assert_eq!(&decode(&codings, [&wire[..]]).unwrap(), &text);
        prop_assert_eq!(&decode(&codings, wire.chunks(size)).unwrap(), &text);
        let (a, b) = wire.split_at(wire.len() / 2);
        prop_assert_eq!(&decode(&codings, [a, b]).unwrap(), &text);
    }

    #[test]
    fn bytes_that_are_no_coding_never_panic(
        codings in stack(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = decode(&codings, bytes.chunks(7));
    }
}
