//! What a ledger gave that was asked for it: some records, and entries and tiles as they are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    io,
};

use chaperone_crds::{
    chain::StreamId,
    head::Head,
    verify::{Line, Seen},
};

use super::{ExportError, Looked, Shelf};
use crate::{
    bundle::{Named, Spans, Subject},
    leaf::Leaf,
    tile::{Row, Source, Tile, WIDTH, read_entries},
};

/// Most bytes of records that are held.
const MAX_HELD_BYTES: usize = 512 * 1024 * 1024;

/// Records by their leaves, of a log whose tiles are read from a source.
pub struct Held<'a, S> {
    source: &'a S,
    /// Leaves that are signed.
    size: u64,
    records: BTreeMap<u64, Vec<u8>>,
    /// Those that say what the others are about, which may be far from them.
    about: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl<'a, S> Held<'a, S> {
    /// None yet, of a log of which so many leaves are signed.
    #[must_use]
    pub fn new(source: &'a S, size: u64) -> Self {
        Self {
            source,
            size,
            records: BTreeMap::new(),
            about: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// [`ExportError::Served`]: it is none, or there are too many.
    pub fn take(&mut self, index: u64, line: &[u8]) -> Result<(), ExportError> {
        self.count(index, line)?;
        self.records.insert(index, line.to_vec());
        Ok(())
    }

    /// Takes a record that may say what the others are about.
    ///
    /// # Errors
    /// As [`Held::take`].
    pub fn explain(&mut self, index: u64, line: &[u8]) -> Result<(), ExportError> {
        self.count(index, line)?;
        self.about.insert(index, line.to_vec());
        Ok(())
    }

    fn count(&mut self, index: u64, line: &[u8]) -> Result<(), ExportError> {
        look(index, line)?;
        self.bytes = self.bytes.saturating_add(line.len());
        if self.bytes > MAX_HELD_BYTES {
            let mib = MAX_HELD_BYTES / 1024 / 1024;
            let why = format!(
                "the bundle would have more than {mib} MiB of records, too many to ask for; export it from the ledger's directory"
            );
            return Err(ExportError::Served(why));
        }
        Ok(())
    }

    /// First and last record of the subject in each stream.
    #[must_use]
    pub fn spans(&self, subject: &Subject) -> Vec<(StreamId, u64, u64)> {
        let mut spans = Spans::new();
        for (index, line) in self.records.range(..self.size) {
            if let Ok(looked) = look(*index, line)
                && subject.has(&looked.leaf.stream, looked.named.session.as_deref())
            {
                let seq = looked.leaf.seq;
                let span = spans.entry(looked.leaf.stream).or_insert((seq, seq));
                *span = (span.0.min(seq), span.1.max(seq));
            }
        }
        let spans = spans.into_iter();
        spans
            .map(|(stream, (first, last))| (stream, first, last))
            .collect()
    }
}

fn look(index: u64, line: &[u8]) -> Result<Looked, ExportError> {
    let Seen::Record(head, record) = Seen::of(Line::Whole(line)) else {
        let why = format!("what the ledger gave as leaf {index} is no record");
        return Err(ExportError::Served(why));
    };
    Ok(Looked {
        named: Named::of(&head, line),
        leaf: Leaf {
            stream: head.stream,
            seq: head.seq,
            record,
        },
        line: Some(line.to_vec()),
    })
}

impl<S: Source> Held<'_, S>
where
    S::Error: Display,
{
    fn entries(&self, bundle: u64) -> Result<Vec<Leaf>, ExportError> {
        let tile = Tile::within(Row::Entries, bundle, self.size);
        let tile =
            tile.ok_or_else(|| ExportError::Served("the log has no such entries".to_owned()))?;
        let bad = |why: &dyn Display| ExportError::Served(format!("{tile}: {why}"));
        let bytes = self.source.read(tile).map_err(|error| bad(&error))?;
        let entries = read_entries(&bytes, tile.width).map_err(|error| bad(&error))?;
        let leaves = entries.into_iter().map(|entry| {
            let text = std::str::from_utf8(entry).unwrap_or_default();
            text.parse().map_err(|error| bad(&error))
        });
        leaves.collect()
    }

    /// What is known of an entry; a record that is held must be the entry's.
    fn looked(&self, index: u64, leaf: Leaf) -> Result<Looked, ExportError> {
        let line = self.records.get(&index).or(self.about.get(&index));
        let Some(line) = line else {
            return Ok(Looked {
                leaf,
                named: Named::default(),
                line: None,
            });
        };
        let looked = look(index, line)?;
        match looked.leaf == leaf {
            true => Ok(looked),
            false => Err(ExportError::Served(format!(
                "leaf {index} is {leaf}, and the record that the ledger gave for it is {}",
                looked.leaf
            ))),
        }
    }
}

impl<S: Source> Shelf for Held<'_, S>
where
    S::Error: Display,
{
    fn each(
        &self,
        _: &(dyn Fn(&Head) -> bool + Sync),
        take: &mut dyn FnMut(u64, Looked) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let width = u64::from(WIDTH);
        let mut signed = self.records.range(..self.size).map(|(index, _)| *index);
        let first = signed.next();
        let last = signed.next_back().or(first);
        // Between the first and the last that are held whatever is there; beyond, what says what they are about.
        let between = first.zip(last);
        let is_between =
            |index| between.is_some_and(|(first, last)| (first..=last).contains(&index));
        let about = self
            .about
            .range(..self.size)
            .map(|(index, _)| index / width);
        let mut bundles: BTreeSet<u64> = about.collect();
        if let Some((first, last)) = between {
            bundles.extend(first / width..=last / width);
        }
        for bundle in bundles {
            let before = bundle.saturating_mul(width);
            for (index, leaf) in (before..).zip(self.entries(bundle)?) {
                if is_between(index) || self.about.contains_key(&index) {
                    take(index, self.looked(index, leaf)?)?;
                }
            }
        }
        for (index, line) in self.records.range(self.size..) {
            take(*index, look(*index, line)?)?;
        }
        Ok(())
    }

    fn tile(&self, tile: Tile) -> io::Result<Vec<u8>> {
        let read = self.source.read(tile);
        read.map_err(|error| io::Error::other(error.to_string()))
    }
}
