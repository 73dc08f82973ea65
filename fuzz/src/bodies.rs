//! Bodies under content codings.

use std::sync::Arc;

use chaperone_crds::record::MaskedInfo;
use chaperone_sidecar::body::{BodyFilter, Coding, CodingError, Format, MAX_RATIO, PULLED_BYTES};

use crate::masks::MASKS;

/// Most that one pull may yield beyond what it stops at: a piece of decoded text, masked and encoded.
const MOST_PULLED: usize = PULLED_BYTES + 64 * 1024;

/// A body under each coding, in both modes: the same findings and the same end however it is cut, and what comes out is bounded by what went in.
///
/// Under several codings a body that is at fault is so however it is cut, but not by the same coding: decoders yield nothing of a call that fails, so what a coding held before its
/// fault, and might be the fault of the one below, is seen by that one only if it came in a call of its own.
pub(crate) fn filter(bytes: &[u8]) {
    for codings in [
        &[][..],
        &[Coding::Gzip],
        &[Coding::Deflate],
        &[Coding::Brotli],
        &[Coding::Zstd],
        &[Coding::Gzip, Coding::Zstd],
    ] {
        for strict in [true, false] {
            let whole = run(codings, strict, bytes, bytes.len().max(1));
            let cut = run(codings, strict, bytes, 7);
            match codings {
                [] | [_] => assert_eq!(whole, cut, "{codings:?} {strict}"),
                _ => assert_eq!(sound(&whole), sound(&cut), "{codings:?} {strict}"),
            }
        }
    }
}

/// What can be said of a body once it is through.
type End = (
    Vec<MaskedInfo>,
    Option<CodingError>,
    Result<(), CodingError>,
);

/// Findings of a body that was read to its end, and as its codings say. Strictness refuses every other.
fn sound((findings, note, passed): &End) -> Option<&[MaskedInfo]> {
    (passed.is_ok() && note.is_none()).then_some(findings)
}

fn run(codings: &[Coding], strict: bool, bytes: &[u8], piece: usize) -> End {
    let mut filter = BodyFilter::new(Arc::clone(&MASKS), Format::Plain, codings, strict);
    let mut total = 0;
    let mut passed = Ok(());
    for piece in bytes.chunks(piece) {
        filter.push(piece);
        passed = passed.and_then(|()| pull(&mut filter, &mut total));
    }
    filter.end();
    passed = passed.and_then(|()| pull(&mut filter, &mut total));
    assert!(passed.is_err() || filter.is_done());
    assert!(!strict || filter.note().is_none(), "strict, and passed on");
    // Replacing can make text longer, by less than tenfold.
    let most = (bytes.len() as u64)
        .saturating_mul(MAX_RATIO)
        .saturating_mul(10);
    assert!(total <= most.saturating_add(64 * 1024 * 1024));
    // What a corrupt body held before its fault may be dropped with it.
    let findings = match passed {
        Ok(()) => filter.findings().to_vec(),
        Err(_) => Vec::new(),
    };
    (findings, filter.note(), passed)
}

fn pull(filter: &mut BodyFilter, total: &mut u64) -> Result<(), CodingError> {
    loop {
        let mut out = Vec::new();
        let more = filter.pull(&mut out)?;
        assert!(out.len() <= MOST_PULLED, "{} bytes in one pull", out.len());
        *total += out.len() as u64;
        if !more {
            return Ok(());
        }
    }
}
