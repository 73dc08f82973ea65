//! Lines of bounded length from a reader. A longer line is skipped to its end and reported, without holding it.

use std::io::{self, BufRead};

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// It ended in a newline.
    Whole(&'a [u8]),
    /// The input ended without one.
    Last(&'a [u8]),
    /// It was longer than the limit.
    TooLong,
}

/// Reads lines of at most `limit` bytes.
pub(super) struct Lines<R> {
    reader: R,
    limit: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            limit,
            line: Vec::new(),
        }
    }

    /// The next line, `None` at the end.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                return Ok(match (any, too_long) {
                    (false, _) => None,
                    (true, true) => Some(Line::TooLong),
                    (true, false) => Some(Line::Last(&self.line)),
                });
            }
            any = true;
            let newline = chunk.iter().position(|b| *b == b'\n');
            let part = chunk
                .get(..newline.unwrap_or(chunk.len()))
                .unwrap_or_default();
            if self.line.len().saturating_add(part.len()) > self.limit {
                too_long = true;
                self.line.clear();
            }
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len().saturating_add(usize::from(newline.is_some()));
            self.reader.consume(used);
            if newline.is_some() {
                return Ok(Some(match too_long {
                    true => Line::TooLong,
                    false => Line::Whole(&self.line),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_are_found_whatever_the_chunks_and_long_ones_are_skipped() {
        let input = b"one\n\nfar too long\nfour\nlast";
        for capacity in 1..input.len() {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, &input[..]), 5);
            for expected in [
                Line::Whole(b"one"),
                Line::Whole(b""),
                Line::TooLong,
                Line::Whole(b"four"),
                Line::Last(b"last"),
            ] {
                assert_eq!(lines.next_line().unwrap(), Some(expected));
            }
            assert_eq!(lines.next_line().unwrap(), None);
        }
    }
}
