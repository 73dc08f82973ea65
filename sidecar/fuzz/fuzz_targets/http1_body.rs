//! Any bytes as a body: no panic, every split of the input leads to the same payload, and payload
//! framed anew reads back.
#![no_main]

use bytes::BytesMut;
use chaperone_sidecar::http1::{
    BodyDecoder, BodyError, BodyFraming, Headers, write_chunk, write_last_chunk,
};
use libfuzzer_sys::fuzz_target;

fn run(framing: BodyFraming, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut body = BodyDecoder::new(framing);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let progress = body.pump(piece, |run| payload.extend_from_slice(run))?;
        assert!(progress.done || progress.consumed == piece.len());
        consumed += progress.consumed;
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64);
    Ok((payload, consumed, body.is_done()))
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, cut, bytes) = input;
    let framing = match kind % 4 {
        0 => BodyFraming::Length(u64::from(cut)),
        1 => BodyFraming::UntilClose,
        _ => BodyFraming::Chunked,
    };
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let whole = run(framing, &[bytes]);
    assert_eq!(whole, run(framing, &[head, tail]));
    let Ok((payload, ..)) = whole else { return };

    let mut wire = BytesMut::new();
    for part in payload.chunks(7) {
        write_chunk(&mut wire, part);
    }
    write_last_chunk(&mut wire, &Headers::default());
    let again = run(BodyFraming::Chunked, &[&wire]).expect("sound");
    assert_eq!(again, (payload, wire.len(), true));
});
