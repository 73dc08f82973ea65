//! Which records of a batch are one batch of Kafka, and what becomes of those that are refused together.

use std::collections::{BTreeMap, VecDeque};

use super::{fault, messages::Produced};
use crate::sinks::target::Outgoing;

/// What stands around a record, at most, in bytes.
const AROUND: usize = 400;

/// Places in the batch that are one batch of Kafka.
pub(super) type Chunk = Vec<usize>;

/// What becomes of a chunk of which nothing was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Refused for good: place in the batch, and why.
    pub(super) refused: Vec<(usize, String)>,
    /// What is sent again, in order.
    pub(super) again: Vec<Chunk>,
}

/// Places as batches of at most so many bytes, or one record.
pub(super) fn of(places: &[usize], batch: &[Outgoing], most: usize) -> VecDeque<Chunk> {
    let mut all: VecDeque<Chunk> = VecDeque::new();
    let mut bytes = 0_usize;
    for place in places {
        bytes = bytes.saturating_add(size(batch, *place));
        match all.back_mut() {
            Some(chunk) if bytes <= most => chunk.push(*place),
            _ => {
                bytes = size(batch, *place);
                all.push_back(vec![*place]);
            }
        }
    }
    all
}

/// How many bytes a chunk has before it is compressed, about.
pub(super) fn bytes(chunk: &[usize], batch: &[Outgoing]) -> usize {
    chunk.iter().map(|place| size(batch, *place)).sum()
}

fn size(batch: &[Outgoing], place: usize) -> usize {
    batch
        .get(place)
        .map_or(0, |record| record.line.len().saturating_add(AROUND))
}

/// Parts of a chunk that was refused for what is in it: a record alone for good, those that the broker names for good, else both halves again.
pub(super) fn parts(produced: &Produced, chunk: &[usize], topic: &str) -> Parts {
    let why = |said| fault::of(produced.error, topic, said).message;
    if let [place] = chunk {
        return Parts {
            refused: vec![(*place, why(&produced.message))],
            ..Parts::default()
        };
    }
    let faulty: BTreeMap<usize, &str> = produced
        .faulty
        .iter()
        .filter_map(|(at, said)| Some((usize::try_from(*at).ok()?, said.as_str())))
        .filter(|(at, _)| *at < chunk.len())
        .collect();
    if faulty.is_empty() {
        let (one, other) = chunk.split_at(chunk.len() / 2);
        return Parts {
            again: vec![one.to_vec(), other.to_vec()],
            ..Parts::default()
        };
    }
    let (mut parts, mut again) = (Parts::default(), Vec::new());
    for (at, place) in chunk.iter().enumerate() {
        match faulty.get(&at) {
            Some(said) => parts.refused.push((*place, why(said))),
            None => again.push(*place),
        }
    }
    parts.again.extend((!again.is_empty()).then_some(again));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::target::About;

    fn record(leaf: u64, bytes: usize) -> Outgoing {
        Outgoing {
            leaf,
            about: About::default(),
            line: "x".repeat(bytes),
        }
    }

    #[test]
    fn records_are_batches_that_a_topic_takes_and_a_longer_one_is_alone() {
        let batch: Vec<_> = [10, 10, 5_000, 10, 10, 10]
            .into_iter()
            .zip(0..)
            .map(|(bytes, leaf)| record(leaf, bytes))
            .collect();
        let places: Vec<_> = (0..batch.len()).collect();
        let found = of(&places, &batch, 2 * (10 + AROUND));
        assert_eq!(found, [vec![0, 1], vec![2], vec![3, 4], vec![5]]);
        assert!(of(&[], &batch, 1).is_empty());
        assert_eq!(bytes(&[0, 2, 9], &batch), 5_010 + 2 * AROUND);
    }

    #[test]
    fn what_is_refused_together_comes_again_in_parts_until_one_is_alone() {
        let produced = |faulty: &[i32]| Produced {
            partition: 0,
            error: 87,
            offset: -1,
            faulty: faulty.iter().map(|at| (*at, "no".to_owned())).collect(),
            message: "all".to_owned(),
        };
        let found = |faulty, chunk: &[usize]| {
            let parts = parts(&produced(faulty), chunk, "t");
            let refused: Vec<_> = parts.refused.iter().map(|(place, _)| *place).collect();
            (refused, parts.again)
        };
        assert_eq!(found(&[], &[4]), (vec![4], vec![]));
        assert_eq!(
            found(&[], &[4, 5, 6]),
            (vec![], vec![vec![4], vec![5, 6]]),
            "halves, in order"
        );
        assert_eq!(found(&[1], &[4, 5, 6]), (vec![5], vec![vec![4, 6]]));
        assert_eq!(found(&[0, 1], &[4, 5]), (vec![4, 5], vec![]));
        // Places that are none say nothing.
        let halves = (vec![], vec![vec![4], vec![5]]);
        assert_eq!(found(&[-1, 2], &[4, 5]), halves);
        let why = parts(&produced(&[1]), &[4, 5], "t").refused.remove(0).1;
        assert!(why.contains("no") && why.starts_with("t: "), "{why}");
    }
}
