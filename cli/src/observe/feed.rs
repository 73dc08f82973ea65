//! From lines to output: parses, filters, renders and counts what is no record.

use std::io::{self, BufRead, Read, Write};

use chaperone_crds::record::Record;

use super::{filter::Filter, line};
use crate::output::Format;

/// Longest line that is taken for a record, in bytes: four bodies of 256 KiB, escaped, fit. What is longer is counted as no record.
pub(crate) const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Where records are shown.
pub(crate) struct Feed<W> {
    out: W,
    filter: Filter,
    format: Format,
    color: bool,
    skipped: u64,
}

impl<W: Write> Feed<W> {
    /// A feed that writes to `out`.
    pub(crate) fn new(out: W, filter: Filter, format: Format, color: bool) -> Self {
        Self {
            out,
            filter,
            format,
            color,
            skipped: 0,
        }
    }

    /// What is wanted.
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How many lines were no records.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Counts one line that is no record.
    pub(crate) fn skip(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }

    /// Takes one line, with or without its newline, and shows it if it is a record that is wanted.
    ///
    /// # Errors
    /// What the writer returns.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        match Record::read(line) {
            Ok(record) => self.record(&record, line),
            Err(_) => {
                self.skip();
                Ok(())
            }
        }
    }

    /// Shows a record if it is wanted; `line` is its bytes as written.
    ///
    /// # Errors
    /// What the writer returns.
    pub(crate) fn record(&mut self, record: &Record, line: &[u8]) -> io::Result<()> {
        if !self.filter.wants(record) {
            return Ok(());
        }
        match self.format {
            Format::Json => self.out.write_all(line)?,
            Format::Text => {
                let text = line::render(record, self.color);
                self.out.write_all(text.as_bytes())?;
            }
        }
        self.out.write_all(b"\n")
    }

    /// Takes every line of `reader`, each of at most [`MAX_LINE_BYTES`].
    ///
    /// # Errors
    /// What reader and writer return.
    pub(crate) fn read(&mut self, mut reader: impl BufRead) -> io::Result<()> {
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if read == 0 {
                return self.out.flush();
            }
            if read >= MAX_LINE_BYTES && !line.ends_with(b"\n") {
                self.skip();
                reader.skip_until(b'\n')?;
            } else {
                self.line(&line)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chaperone_crds::summary::Verdict;

    use super::*;
    use crate::observe::line::tests::{denied, http};

    fn log() -> Vec<u8> {
        let mut log = serde_json::to_vec(&http()).unwrap();
        log.extend(b"\nsidecar started\n\n{\"v\":1}\n");
        log.extend(serde_json::to_vec(&denied()).unwrap());
        log
    }

    fn show(filter: Filter, format: Format, log: &[u8]) -> (String, u64) {
        let mut out = Vec::new();
        let mut feed = Feed::new(&mut out, filter, format, false);
        feed.read(log).unwrap();
        let skipped = feed.skipped();
        (String::from_utf8(out).unwrap(), skipped)
    }

    #[test]
    fn lines_that_are_no_records_are_skipped_and_counted() {
        let (text, skipped) = show(Filter::default(), Format::Text, &log());
        assert_eq!(text.lines().count(), 2);
        assert_eq!(skipped, 2);
    }

    #[test]
    fn json_is_the_bytes_as_written() {
        let spaced = serde_json::to_string(&http())
            .unwrap()
            .replace(":7,", ": 7 ,");
        let (text, _) = show(Filter::default(), Format::Json, spaced.as_bytes());
        assert_eq!(text, spaced + "\n");
    }

    #[test]
    fn the_filter_applies_to_files_too() {
        let filter = Filter {
            decisions: vec![Verdict::Deny],
            ..Filter::default()
        };
        let (text, _) = show(filter, Format::Text, &log());
        assert!(text.contains("DENY") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn an_endless_line_is_skipped_as_one() {
        let mut log = vec![b'x'; MAX_LINE_BYTES * 2 + 5];
        log.push(b'\n');
        log.extend(serde_json::to_vec(&http()).unwrap());
        let (text, skipped) = show(Filter::default(), Format::Text, &log);
        assert_eq!((text.lines().count(), skipped), (1, 1));
    }
}
