//! When to parse a head that comes in parts.

/// When a head that came in parts is parsed again: when an empty line may have come, or twice the bytes. A peer that sends byte by byte must not make the sidecar read
/// all of them at each byte.
#[derive(Default)]
pub(super) struct Pace {
    seen: usize,
    next: usize,
}

impl Pace {
    /// Whether a parse may tell more than the one before.
    pub(super) fn is_worth_it(&mut self, unread: &[u8]) -> bool {
        let fresh = unread
            .get(self.seen.saturating_sub(2)..)
            .unwrap_or_default();
        let ended = fresh
            .windows(2)
            .any(|pair| pair == b"\n\r" || pair == b"\n\n");
        self.seen = unread.len();
        let worth = !unread.is_empty() && (ended || unread.len() >= self.next);
        if worth {
            self.next = unread.len().saturating_mul(2);
        }
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_when_it_may_be_whole_and_seldom_before() {
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1000));
        let mut pace = Pace::default();
        let parsed: Vec<usize> = (0..=head.len())
            .filter(|end| pace.is_worth_it(&head.as_bytes()[..*end]))
            .collect();
        assert!(parsed.len() < 15, "{parsed:?}");
        assert_eq!(parsed.last(), Some(&head.len()));
    }
}
