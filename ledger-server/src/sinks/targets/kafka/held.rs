//! What a partition holds of a batch: asked wherever that is not known, so that nothing is written twice.
//!
//! Invariant: a record counts as there only where a message has its number in the log, its stream and its number there. Messages of others are passed over.

use std::collections::{HashMap, HashSet};

use super::{
    batch::{Found, Producer, Unreadable, kept},
    cluster::Cluster,
    fault,
    messages::{self, FETCH, LIST_OFFSETS},
    wire::{Malformed, Reader},
};
use crate::sinks::target::{Failure, Outgoing, Then};

/// Names of our headers.
pub(super) const LEAF: &str = "chaperone-leaf";
pub(super) const STREAM: &str = "chaperone-stream";
pub(super) const SEQ: &str = "chaperone-seq";

/// Most bytes that are fetched at once, unless one batch has more.
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// Messages at the end of a partition that are looked at first.
const FIRST_BACK: i64 = 64;
/// How many times as many next.
const FURTHER_BACK: i64 = 8;
/// Most messages that are looked at, from the end of a partition. Behind so many of others a record that is there is not found, and comes again.
const MOST_BACK: i64 = 200_000;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    /// The offset before which nothing of the batch is, where that is known.
    pub(super) from: Option<i64>,
    /// The batch that may be there or not.
    pub(super) doubted: Option<Producer>,
    /// Records that are looked for, by their number in the log.
    pub(super) records: &'a HashMap<u64, &'a Outgoing>,
    /// The least of these numbers in this partition.
    pub(super) first: Option<u64>,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Where the partition ends.
    pub(super) end: i64,
    /// Records that are there.
    pub(super) leaves: HashSet<u64>,
    /// The batch in doubt is there.
    pub(super) has_doubted: bool,
    /// A record of ours from before the batch was seen.
    pub(super) is_far_enough: bool,
}

impl Question<'_> {
    /// Looks.
    pub(super) async fn ask(&self, cluster: &mut Cluster) -> Result<Held, Failure> {
        let oldest = self.offset(cluster, messages::OLDEST).await?;
        let end = self.offset(cluster, messages::END).await?;
        let mut held = Held {
            end,
            ..Held::default()
        };
        // A partition that ends before is another, or lost its end.
        if let Some(from) = self.from.filter(|from| *from <= end) {
            self.look(cluster, from.max(oldest), end, &mut held).await?;
            return Ok(held);
        }
        let (mut looked_from, mut back) = (end, FIRST_BACK);
        while looked_from > oldest && !held.is_far_enough {
            if end.saturating_sub(looked_from) >= MOST_BACK {
                let (topic, partition) = (self.topic, self.partition);
                tracing::warn!(
                    topic,
                    partition,
                    "no record of this ledger near the end of the partition: what was written last may come again"
                );
                break;
            }
            let from = end.saturating_sub(back).max(oldest);
            self.look(cluster, from, looked_from, &mut held).await?;
            (looked_from, back) = (from, back.saturating_mul(FURTHER_BACK));
        }
        Ok(held)
    }

    async fn offset(&self, cluster: &mut Cluster, which: i64) -> Result<i64, Failure> {
        let request = messages::list_offset(self.topic, self.partition, which);
        let leader = cluster.leader(self.partition)?;
        let answer = cluster.ask(&leader, LIST_OFFSETS, &request).await?;
        let offset = messages::offset(Reader(&answer), self.topic, self.partition);
        match offset.map_err(fault::malformed)? {
            (0, offset) => Ok(offset),
            (error, _) => Err(fault::of(error, self.topic, "")),
        }
    }

    /// Looks at messages from one offset to before another.
    async fn look(
        &self,
        cluster: &mut Cluster,
        from: i64,
        to: i64,
        held: &mut Held,
    ) -> Result<(), Failure> {
        let leader = cluster.leader(self.partition)?;
        let mut at = from;
        while at < to {
            let request = messages::fetch(self.topic, self.partition, at, FETCH_BYTES);
            let answer = cluster.ask(&leader, FETCH, &request).await?;
            let fetched = messages::fetched(Reader(&answer), self.partition);
            let batches = match fetched.map_err(fault::malformed)? {
                (0, batches) => kept(batches).map_err(fault::malformed)?,
                (error, _) => return Err(fault::of(error, self.topic, "")),
            };
            let before = at;
            for batch in &batches {
                held.has_doubted |= self.doubted == Some(batch.producer);
                let looked = batch.each(|found| self.note(&found, from..to, held));
                looked.map_err(unreadable)?;
                at = at.max(batch.end);
            }
            if at == before {
                let why = "the partition gives nothing before its end";
                return Err(Failure::soon("server-error", why));
            }
        }
        Ok(())
    }

    fn note(&self, found: &Found<'_>, range: std::ops::Range<i64>, held: &mut Held) {
        let number = |name| found.header(name).and_then(|text| text.parse::<u64>().ok());
        let Some(leaf) = number(LEAF).filter(|_| range.contains(&found.offset)) else {
            return;
        };
        held.is_far_enough |= self.first.is_none_or(|first| leaf < first);
        let Some(record) = self.records.get(&leaf) else {
            return;
        };
        let about = &record.about;
        let is_it = found.header(STREAM) == Some(about.stream.as_str())
            && number(SEQ) == Some(about.seq)
            // One that has no name must be the same.
            && (!about.stream.is_empty() || found.value == record.line.as_bytes());
        if is_it {
            held.leaves.insert(leaf);
        }
    }
}

fn unreadable(error: Unreadable) -> Failure {
    match error {
        Unreadable::Malformed(Malformed) => fault::malformed(Malformed),
        Unreadable::TooLarge | Unreadable::Snappy => Failure::new(Then::Rarely, "settings", error),
    }
}
