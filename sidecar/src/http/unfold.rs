//! A request's body as rules see it: its content codings undone.
//!
//! Refuses what a server may read and we cannot: codings that are not read, bytes that are not of theirs, and anything after their end. Invariant: no more than
//! [`MAX_JUDGED_BODY_BYTES`] of text come of it, and no more than that, and a little, of each coding on the way.

use std::borrow::Cow;

use chaperone_crds::decide::{BodyView, HeaderFields, MAX_JUDGED_BODY_BYTES};

use crate::body::{CodingError, DecodeStack, codings};

/// A body that was held whole, as rules see it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfolded<'b> {
    /// All of its text.
    Text(Cow<'b, [u8]>),
    /// It unfolds to more than is judged.
    TooLarge,
    /// It cannot be read.
    Unreadable,
}

impl<'b> Unfolded<'b> {
    /// Undoes the codings that the head names. A body of no bytes is empty under any coding.
    pub(super) fn of(fields: &dyn HeaderFields, body: &'b [u8]) -> Self {
        let all = fields.fields();
        let named = all.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
        let Ok(codings) = codings(named.map(|(_, value)| value)) else {
            return Self::Unreadable;
        };
        if codings.is_empty() || body.is_empty() {
            return Self::Text(Cow::Borrowed(body));
        }
        match unfold(DecodeStack::bounded(&codings, MAX_JUDGED_BODY_BYTES), body) {
            Ok(text) if text.len() > MAX_JUDGED_BODY_BYTES => Self::TooLarge,
            Ok(text) => Self::Text(Cow::Owned(text)),
            Err(CodingError::Bomb) => Self::TooLarge,
            Err(_) => Self::Unreadable,
        }
    }

    /// For the decision.
    pub(super) fn view(&self) -> BodyView<'_> {
        match self {
            Self::Text(text) => BodyView::Complete(text),
            Self::TooLarge => BodyView::TooLarge,
            Self::Unreadable => BodyView::Unreadable,
        }
    }
}

fn unfold(mut decode: DecodeStack, body: &[u8]) -> Result<Vec<u8>, CodingError> {
    let mut text = Vec::new();
    decode.give(body);
    while let Some(piece) = decode.next()? {
        text.extend_from_slice(piece);
        if text.len() > MAX_JUDGED_BODY_BYTES {
            return Ok(text);
        }
    }
    decode.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Coding, EncodeStack};

    const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

    fn folded(codings: &[Coding], text: &[u8]) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        let mut out = Vec::new();
        let mut encode = EncodeStack::new(codings);
        encode.push(text, &mut out).unwrap();
        encode.finish(&mut out).unwrap();
        let field = |coding: &Coding| {
            (
                "Content-Encoding".to_owned(),
                coding.name().as_bytes().to_vec(),
            )
        };
        (codings.iter().map(field).collect(), out)
    }

    #[test]
    fn codings_are_undone_alone_and_on_top_of_one_another() {
        let stacks = ALL.map(|coding| vec![coding]);
        for codings in stacks.into_iter().chain([ALL[..3].to_vec()]) {
            let (fields, body) = folded(&codings, b"{\"a\": 1}");
            let text = Unfolded::of(&fields, &body);
            assert_eq!(
                text,
                Unfolded::Text(Cow::Borrowed(b"{\"a\": 1}")),
                "{codings:?}"
            );
        }
        let plain: [(&str, &str); 0] = [];
        assert_eq!(
            Unfolded::of(&plain, b"text"),
            Unfolded::Text(Cow::Borrowed(b"text"))
        );
    }

    #[test]
    fn a_body_that_ends_early_or_goes_on_or_is_not_of_its_coding_is_unreadable() {
        for coding in ALL {
            let (fields, body) = folded(&[coding], b"{\"a\": 1, \"b\": \"some text\"}");
            let early = &body[..body.len() - 3];
            assert_eq!(
                Unfolded::of(&fields, early),
                Unfolded::Unreadable,
                "{coding:?}"
            );
            let more = [&body[..], b"more"].concat();
            assert_eq!(
                Unfolded::of(&fields, &more),
                Unfolded::Unreadable,
                "{coding:?}"
            );
            assert_eq!(
                Unfolded::of(&fields, b"{\"a\": 1}"),
                Unfolded::Unreadable,
                "{coding:?}"
            );
        }
        let unknown = [("content-encoding", "compress")];
        assert_eq!(Unfolded::of(&unknown, b"x"), Unfolded::Unreadable);
    }

    #[test]
    fn what_unfolds_to_more_than_is_judged_is_too_large() {
        for codings in [
            &[Coding::Gzip][..],
            &[Coding::Zstd],
            &[Coding::Brotli, Coding::Gzip],
        ] {
            let (fields, body) = folded(codings, &vec![b' '; MAX_JUDGED_BODY_BYTES + 1]);
            assert_eq!(
                Unfolded::of(&fields, &body),
                Unfolded::TooLarge,
                "{codings:?}"
            );
            let (fields, body) = folded(codings, &vec![b' '; MAX_JUDGED_BODY_BYTES]);
            let Unfolded::Text(text) = Unfolded::of(&fields, &body) else {
                panic!("{codings:?}");
            };
            assert_eq!(text.len(), MAX_JUDGED_BODY_BYTES);
        }
    }

    #[test]
    fn a_coding_that_unfolds_to_nothing_but_more_coding_is_bounded_too() {
        // Empty members of gzip, which say nothing, in a gzip that says them often.
        let member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let empty = member.finish().unwrap();
        let (_, body) = folded(&[Coding::Gzip], &empty.repeat(200_000));
        let fields = [("content-encoding", "gzip, gzip")];
        assert_eq!(Unfolded::of(&fields, &body), Unfolded::TooLarge);
    }
}
