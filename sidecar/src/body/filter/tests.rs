use chaperone_crds::resources::Mask;
use proptest::prelude::*;

use super::*;
use crate::mask::mask_all;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn masks() -> Arc<CompiledMasks> {
    let mask: Mask = serde_saphyr::from_str("{name: pii, detectors: [email, usSsn]}").unwrap();
    Arc::new(CompiledMasks::compile([&mask]).unwrap())
}

fn encode(codings: &[Coding], text: &[u8]) -> Vec<u8> {
    let mut stack = EncodeStack::new(codings);
    let mut out = Vec::new();
    stack.push(text, &mut out).unwrap();
    stack.finish(&mut out).unwrap();
    out
}

fn decode(codings: &[Coding], wire: &[u8]) -> (Vec<u8>, Result<(), CodingError>) {
    if codings.is_empty() {
        return (wire.to_vec(), Ok(()));
    }
    let mut stack = DecodeStack::new(codings);
    stack.give(wire);
    let mut text = Vec::new();
    while let Some(piece) = stack.next().unwrap() {
        text.extend_from_slice(piece);
    }
    (text, stack.finish())
}

fn filtered<'p>(
    filter: &mut BodyFilter,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> Result<Vec<u8>, CodingError> {
    let mut wire = Vec::new();
    for piece in pieces {
        filter.push(piece);
        while pull(filter, &mut wire)? {}
    }
    filter.end();
    while pull(filter, &mut wire)? {}
    assert!(filter.is_done());
    Ok(wire)
}

fn pull(filter: &mut BodyFilter, wire: &mut Vec<u8>) -> Result<bool, CodingError> {
    let mut out = Vec::new();
    let more = filter.pull(&mut out)?;
    assert!(out.len() < 2 * PULLED_BYTES, "{} bytes at once", out.len());
    wire.append(&mut out);
    Ok(more)
}

#[test]
fn an_event_under_a_coding_leaves_at_once() {
    for coding in ALL {
        let codings = [coding];
        let mut filter = BodyFilter::new(masks(), Format::Plain, &codings, true);
        let mut upstream = EncodeStack::new(&codings);
        let mut agent = DecodeStack::new(&codings);
        for number in 0..3 {
            let mut wire = Vec::new();
            upstream
                .push(
                    format!("data: {number} ada@example.com\n\n").as_bytes(),
                    &mut wire,
                )
                .unwrap();
            upstream.flush(&mut wire).unwrap();
            filter.push(&wire);
            let mut out = Vec::new();
            assert!(!filter.pull(&mut out).unwrap());
            agent.give(&out);
            let mut event = Vec::new();
            while let Some(piece) = agent.next().unwrap() {
                event.extend_from_slice(piece);
            }
            let expected = format!("data: {number} [masked:email]\n\n");
            assert_eq!(String::from_utf8(event).unwrap(), expected, "{coding:?}");
        }
        assert_eq!(filter.findings()[0].count, 3);
    }
}

#[test]
fn a_body_cut_short_is_refused_in_enforce_and_cut_short_in_audit() {
    for coding in ALL {
        let wire = encode(&[coding], b"mail ada@example.com now, now, now");
        let cut = &wire[..wire.len() - 1];
        let mut strict = BodyFilter::new(masks(), Format::Plain, &[coding], true);
        assert_eq!(
            filtered(&mut strict, [cut].into_iter()),
            Err(CodingError::Truncated(coding.name()))
        );
        let mut lax = BodyFilter::new(masks(), Format::Plain, &[coding], false);
        let out = filtered(&mut lax, [cut].into_iter()).unwrap();
        assert_eq!(lax.note(), Some(CodingError::Truncated(coding.name())));
        assert!(
            decode(&[coding], &out).1.is_err(),
            "{coding:?}: the agent must see it"
        );
    }
}

#[test]
fn bytes_after_the_end_are_refused_in_enforce_and_dropped_in_audit() {
    for coding in ALL {
        let wire = [
            encode(&[coding], b"mail ada@example.com"),
            b"\0\0rest".to_vec(),
        ]
        .concat();
        let mut strict = BodyFilter::new(masks(), Format::Plain, &[coding], true);
        assert_eq!(
            filtered(&mut strict, wire.chunks(3)),
            Err(CodingError::Trailing(coding.name()))
        );
        let mut lax = BodyFilter::new(masks(), Format::Plain, &[coding], false);
        let out = filtered(&mut lax, wire.chunks(3)).unwrap();
        assert_eq!(
            decode(&[coding], &out),
            (b"mail [masked:email]".to_vec(), Ok(()))
        );
        assert_eq!(lax.note(), Some(CodingError::Trailing(coding.name())));
    }
}

#[test]
fn an_empty_body_stays_empty() {
    for codings in [&[][..], &[Coding::Gzip], &[Coding::Zstd, Coding::Brotli]] {
        let mut filter = BodyFilter::new(masks(), Format::Plain, codings, true);
        assert_eq!(filtered(&mut filter, std::iter::empty()), Ok(Vec::new()));
    }
}

#[test]
fn what_unfolds_far_leaves_a_bounded_piece_at_a_time() {
    // Text that our encoders' small windows cannot fold again.
    let mut seed = 1_u32;
    let mut noise = String::new();
    while noise.len() < 600_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push_str(&format!("{seed:08x} "));
    }
    let text = noise.repeat(4);
    let wire = encode(&[Coding::Gzip], text.as_bytes());
    let mut filter = BodyFilter::new(masks(), Format::Plain, &[Coding::Gzip], true);
    let out = filtered(&mut filter, [&wire[..]].into_iter()).unwrap();
    assert_eq!(decode(&[Coding::Gzip], &out).0, text.as_bytes());
}

/// The text that left before a body was over or refused, and whether it was all there.
fn let_out<'p>(
    codings: &[Coding],
    strict: bool,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> (Vec<u8>, bool) {
    let mut filter = BodyFilter::new(masks(), Format::Plain, codings, strict);
    let mut wire = Vec::new();
    let mut passed = Ok(());
    for piece in pieces.map(Some).chain([None]) {
        match piece {
            Some(piece) => filter.push(piece),
            None => filter.end(),
        }
        while passed == Ok(()) {
            let more = filter.pull(&mut wire);
            passed = more.map(|_| ());
            if !more.unwrap_or_default() {
                break;
            }
        }
    }
    let whole = passed.is_ok() && filter.note().is_none();
    (decode(codings, &wire).0, whole)
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["ada", "@example.com", " ", "\n", "123-45-", "6789", "x", "data: "])
            .prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..200),
        1 => (any::<u8>(), 1_usize..3000).prop_map(|(b, n)| vec![b; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_body_cut_anywhere_is_masked_as_the_whole_text(
        codings in prop::collection::vec(prop::sample::select(ALL.to_vec()), 0..=2),
        fragments in prop::collection::vec(fragment(), 0..40),
        size in 1_usize..64,
    ) {
        let text = fragments.concat();
        let (expected, findings) = mask_all(&masks(), &text);
        let wire = encode(&codings, &text);
        for pieces in [wire.chunks(size), wire.chunks(wire.len().max(1))] {
            let mut filter = BodyFilter::new(masks(), Format::Plain, &codings, true);
            let out = filtered(&mut filter, pieces).unwrap();
            let (text, ended) = decode(&codings, &out);
            prop_assert_eq!(ended, Ok(()));
            prop_assert_eq!(&text, &expected);
            prop_assert_eq!(filter.findings(), &findings[..]);
        }
    }

    #[test]
    fn a_body_at_fault_is_so_however_it_is_cut_and_what_left_of_it_is_the_same(
        codings in prop::collection::vec(prop::sample::select(ALL.to_vec()), 1..=3),
        fragments in prop::collection::vec(fragment(), 0..40),
        sizes in (1_usize..64, 1_usize..5000),
        (fault, byte, strict) in (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()),
    ) {
        let mut wire = encode(&codings, &fragments.concat());
        if !wire.is_empty() {
            let at = fault.index(wire.len());
            wire[at] = byte;
        }
        let (one, one_whole) = let_out(&codings, strict, wire.chunks(sizes.0));
        let (other, other_whole) = let_out(&codings, strict, wire.chunks(sizes.1));
        prop_assert_eq!(one_whole, other_whole);
        let common = one.len().min(other.len());
        prop_assert_eq!(&one[..common], &other[..common]);
        prop_assert!(!one_whole || one == other);
    }
}
