//! Compressions of a batch. What a partition holds may be in another than ours, for a topic can have its own.

use std::{
    borrow::Cow,
    io::{self, Read, Write as _},
};

use chaperone_sinks::settings::KafkaCompression;
use thiserror::Error;

use crate::sinks::targets::kafka::wire::Malformed;

/// zstd's own default.
const LEVEL: i32 = 3;
/// Most that a batch may unfold to, in bytes: more than any batch of ours holds, and what a hostile one may cost.
const MOST_UNFOLDED: u64 = 64 * 1024 * 1024;

/// A batch that cannot be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::sinks::targets::kafka) enum Unreadable {
    /// It is broken.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It unfolds to too much.
    #[error("a batch of the topic unfolds to more than {} MiB", MOST_UNFOLDED / 1024 / 1024)]
    TooLarge,
    /// It is in a compression that is not read.
    #[error(
        "the topic has batches in snappy, which is not read: give the ledger a topic of its own, with compression.type=producer"
    )]
    Snappy,
}

/// Bits of attributes, and the records.
pub(super) fn folded(records: Vec<u8>, how: KafkaCompression) -> io::Result<(i16, Vec<u8>)> {
    Ok(match how {
        KafkaCompression::None => (0, records),
        KafkaCompression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&records)?;
            (3, encoder.finish().map_err(io::Error::other)?)
        }
        KafkaCompression::Zstd => (4, zstd::encode_all(&records[..], LEVEL)?),
    })
}

/// Records by the bits of attributes that name their compression.
pub(super) fn unfolded(records: &[u8], how: i16) -> Result<Cow<'_, [u8]>, Unreadable> {
    match how {
        0 => Ok(Cow::Borrowed(records)),
        1 => bounded(flate2::read::GzDecoder::new(records)),
        2 => Err(Unreadable::Snappy),
        3 => bounded(lz4_flex::frame::FrameDecoder::new(records)),
        4 => bounded(zstd::Decoder::with_buffer(records).map_err(|_| Malformed)?),
        _ => Err(Malformed.into()),
    }
}

fn bounded<'a>(records: impl Read) -> Result<Cow<'a, [u8]>, Unreadable> {
    let mut unfolded = Vec::new();
    let mut most = records.take(MOST_UNFOLDED.saturating_add(1));
    most.read_to_end(&mut unfolded).map_err(|_| Malformed)?;
    match u64::try_from(unfolded.len()).is_ok_and(|length| length <= MOST_UNFOLDED) {
        true => Ok(Cow::Owned(unfolded)),
        false => Err(Unreadable::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_unfolds_without_end_is_refused() {
        let bomb = vec![0; usize::try_from(MOST_UNFOLDED).unwrap() + 1];
        let (how, folded) = folded(bomb, KafkaCompression::Zstd).unwrap();
        assert!(folded.len() < 10_000);
        assert_eq!(unfolded(&folded, how), Err(Unreadable::TooLarge));
        assert_eq!(unfolded(b"", 2), Err(Unreadable::Snappy));
        assert_eq!(unfolded(b"", 7), Err(Unreadable::Malformed(Malformed)));
    }
}
