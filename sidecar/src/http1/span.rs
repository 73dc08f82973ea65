//! Positions inside the stored bytes of a head: they replace a `String` per element.

/// A range of a head's bytes. Heads are bounded far below `u32::MAX`
/// ([`super::limits::MAX_EDITED_HEAD_BYTES`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// The position of `part` inside `base`, which it must be a slice of; an empty span otherwise.
    pub(super) fn of(base: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(base.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        if end > base.len() || start > end {
            return Self::default();
        }
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    pub(super) fn bytes(self, base: &[u8]) -> &[u8] {
        base.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// The text at this position, empty where it is not UTF-8; callers take spans of text that
    /// was checked when it was parsed.
    pub(super) fn text(self, base: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(base)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_finds_its_part_again() {
        let base = b"GET /a HTTP/1.1";
        let span = Span::of(base, &base[4..6]);
        assert_eq!(span.text(base), "/a");
    }

    #[test]
    fn a_slice_of_something_else_is_an_empty_span() {
        let other = b"elsewhere".to_vec();
        assert_eq!(Span::of(b"base", &other), Span::default());
    }
}
