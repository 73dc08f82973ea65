//! Lines of bounded length from a reader, worked on by all processors and handed on in order.
//!
//! Owns where a line begins and ends. A line longer than the limit is skipped to its end and reported, without holding it. Memory is bounded: some blocks for each processor.

use std::{
    io::{self, Read},
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Bytes of a block, give or take a line.
const BLOCK: usize = 512 * 1024;
/// Most threads: more would wait for the one that reads and judges.
const MAX_WORKERS: usize = 8;
/// Bytes of a usual line: no more than a guess at how many a block has.
const USUAL: usize = 512;
/// Blocks that a worker may have: one in hand, one that waits.
const BLOCKS_EACH: usize = 2;

/// One line, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// It ended in a newline.
    Whole(&'a [u8]),
    /// The input ended without one.
    Last(&'a [u8]),
    /// It was longer than the limit.
    TooLong,
}

/// Reads lines of at most `limit` bytes. `work` is done on each by any thread; `take` gets what came of it, in the order of the lines, with the place where the line begins, in bytes.
///
/// # Errors
/// What the reader returns.
pub fn each_line<T: Send>(
    reader: impl Read,
    limit: usize,
    work: impl Fn(Line<'_>) -> T + Sync,
    take: impl FnMut(u64, T),
) -> io::Result<()> {
    in_blocks(Blocks::new(reader, limit, BLOCK), &work, take)
}

fn in_blocks<T: Send>(
    mut blocks: Blocks<impl Read>,
    work: &(impl Fn(Line<'_>) -> T + Sync),
    mut take: impl FnMut(u64, T),
) -> io::Result<()> {
    let limit = blocks.limit;
    let Some(first) = blocks.next()? else {
        return Ok(());
    };
    let Some(second) = blocks.next()? else {
        give(&mut take, first.lines(limit, work));
        return Ok(());
    };
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let lanes: Vec<Lane<T>> = (0..processors.min(MAX_WORKERS))
            .map(|_| {
                let (lane, blocks, done) = Lane::new();
                scope.spawn(move || {
                    // Whoever reads may have ended early.
                    for block in blocks {
                        let _ = done.send(block.lines(limit, work));
                    }
                });
                lane
            })
            .collect();
        let mut queue = Queue::new(lanes);
        queue.send(first, &mut take)?;
        queue.send(second, &mut take)?;
        while let Some(block) = blocks.next()? {
            queue.send(block, &mut take)?;
        }
        queue.finish(&mut take)
    })
}

/// What came of the lines of a block: where each begins, and the result.
type Done<T> = Vec<(u64, T)>;

fn give<T>(take: &mut impl FnMut(u64, T), done: Done<T>) {
    for (offset, result) in done {
        take(offset, result);
    }
}

/// The way to one worker and back.
struct Lane<T> {
    blocks: SyncSender<Block>,
    done: Receiver<Done<T>>,
}

impl<T> Lane<T> {
    fn new() -> (Self, Receiver<Block>, SyncSender<Done<T>>) {
        let (blocks, to_do) = sync_channel(BLOCKS_EACH);
        let (results, done) = sync_channel(BLOCKS_EACH);
        (Self { blocks, done }, to_do, results)
    }
}

/// Gives blocks to the workers in turn, and takes the results in the same turn: so they stay in order.
struct Queue<T> {
    lanes: Vec<Lane<T>>,
    sent: usize,
    taken: usize,
}

impl<T> Queue<T> {
    fn new(lanes: Vec<Lane<T>>) -> Self {
        Self {
            lanes,
            sent: 0,
            taken: 0,
        }
    }

    fn send(&mut self, block: Block, take: &mut impl FnMut(u64, T)) -> io::Result<()> {
        if self.waiting() >= self.lanes.len().saturating_mul(BLOCKS_EACH) {
            self.take_one(take)?;
        }
        let lane = self.lane(self.sent)?;
        lane.blocks.send(block).map_err(|_| gone())?;
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    fn finish(mut self, take: &mut impl FnMut(u64, T)) -> io::Result<()> {
        while self.waiting() > 0 {
            self.take_one(take)?;
        }
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.sent.wrapping_sub(self.taken)
    }

    fn take_one(&mut self, take: &mut impl FnMut(u64, T)) -> io::Result<()> {
        let done = self.lane(self.taken)?.done.recv().map_err(|_| gone())?;
        self.taken = self.taken.wrapping_add(1);
        give(take, done);
        Ok(())
    }

    fn lane(&self, turn: usize) -> io::Result<&Lane<T>> {
        let place = turn.checked_rem(self.lanes.len());
        place
            .and_then(|place| self.lanes.get(place))
            .ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that reads lines ended")
}

/// Some lines.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Where it begins in the input.
    offset: u64,
    /// Bytes of a line that was too long, with its newline, before the others; 0 where there is none.
    skipped: u64,
    /// Whole lines, each with its newline; only the input's last may lack it.
    bytes: Vec<u8>,
}

impl Block {
    fn lines<T>(&self, limit: usize, work: &impl Fn(Line<'_>) -> T) -> Done<T> {
        let mut done = Vec::with_capacity(self.bytes.len() / USUAL);
        if self.skipped > 0 {
            done.push((self.offset, work(Line::TooLong)));
        }
        let mut offset = self.offset.saturating_add(self.skipped);
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let (with_newline, after) = rest.split_at(newline(rest).unwrap_or(rest.len()));
            let line = match with_newline.strip_suffix(b"\n") {
                Some(line) if line.len() <= limit => Line::Whole(line),
                None if with_newline.len() <= limit => Line::Last(with_newline),
                _ => Line::TooLong,
            };
            done.push((offset, work(line)));
            offset = offset.saturating_add(length(with_newline));
            rest = after;
        }
        done
    }
}

/// Cuts the input after newlines.
struct Blocks<R> {
    reader: R,
    limit: usize,
    /// Bytes of a block, give or take a line.
    size: usize,
    /// What was read and belongs to the next block.
    rest: Vec<u8>,
    offset: u64,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    fn new(reader: R, limit: usize, size: usize) -> Self {
        Self {
            reader,
            limit,
            size,
            rest: Vec::new(),
            offset: 0,
            ended: false,
        }
    }

    /// The next block, none at the end.
    fn next(&mut self) -> io::Result<Option<Block>> {
        let mut bytes = mem::take(&mut self.rest);
        let mut skipped = 0_u64;
        // Within a line that is too long.
        let mut skipping = false;
        while !self.ended {
            self.read_more(&mut bytes)?;
            if skipping {
                let end = newline(&bytes);
                self.rest = bytes.split_off(end.unwrap_or(bytes.len()));
                skipped = skipped.saturating_add(length(&bytes));
                bytes.clear();
                if end.is_some() {
                    break;
                }
            } else if bytes.len() >= self.size {
                if let Some(end) = memchr::memrchr(b'\n', &bytes) {
                    self.rest = bytes.split_off(end.saturating_add(1));
                    break;
                }
                if bytes.len() > self.limit {
                    skipping = true;
                    skipped = length(&bytes);
                    bytes.clear();
                }
            }
        }
        if bytes.is_empty() && skipped == 0 {
            return Ok(None);
        }
        let block = Block {
            offset: self.offset,
            skipped,
            bytes,
        };
        let all = block.skipped.saturating_add(length(&block.bytes));
        self.offset = self.offset.saturating_add(all);
        Ok(Some(block))
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.reserve(self.size);
        let mut some = self.reader.by_ref().take(length_of(self.size));
        self.ended = some.read_to_end(bytes)? < self.size;
        Ok(())
    }
}

/// Where the first line ends, its newline included.
fn newline(bytes: &[u8]) -> Option<usize> {
    let at = memchr::memchr(b'\n', bytes)?;
    Some(at.saturating_add(1))
}

fn length(bytes: &[u8]) -> u64 {
    length_of(bytes.len())
}

fn length_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader that gives at most so many bytes at once.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn owned(line: Line<'_>) -> (&'static str, Vec<u8>) {
        match line {
            Line::Whole(bytes) => ("whole", bytes.to_vec()),
            Line::Last(bytes) => ("last", bytes.to_vec()),
            Line::TooLong => ("too long", Vec::new()),
        }
    }

    fn read(
        input: &[u8],
        limit: usize,
        size: usize,
        at_once: usize,
    ) -> Vec<(u64, (&'static str, Vec<u8>))> {
        let mut lines = Vec::new();
        let blocks = Blocks::new(Drops(input, at_once), limit, size);
        in_blocks(blocks, &owned, |offset, line| lines.push((offset, line))).unwrap();
        lines
    }

    /// What is expected, by other means.
    fn expected(input: &[u8], limit: usize) -> Vec<(u64, (&'static str, Vec<u8>))> {
        let mut lines = Vec::new();
        let mut offset = 0;
        for piece in input.split_inclusive(|b| *b == b'\n') {
            let line = piece.strip_suffix(b"\n").unwrap_or(piece);
            let word = match (line.len() > limit, line.len() < piece.len()) {
                (true, _) => ("too long", Vec::new()),
                (false, true) => ("whole", line.to_vec()),
                (false, false) => ("last", line.to_vec()),
            };
            lines.push((offset, word));
            offset += piece.len() as u64;
        }
        lines
    }

    proptest! {
        #[test]
        fn lines_come_in_order_whatever_the_blocks_and_long_ones_are_skipped(
            input in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n')], 0..200),
            limit in 1_usize..12,
            size in 1_usize..20,
            at_once in 1_usize..20,
        ) {
            prop_assert_eq!(read(&input, limit, size, at_once), expected(&input, limit));
        }
    }

    #[test]
    fn an_error_of_the_reader_is_told() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
                buffer.fill(b'\n');
                Ok(buffer.len())
            }
        }
        for reads in 0..6 {
            let blocks = Blocks::new(Broken(reads), 9, 4);
            let error = in_blocks(blocks, &owned, |_, _| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
