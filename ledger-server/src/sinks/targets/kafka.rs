//! Kafka: one message for each record.
//!
//! Contract: a record is acknowledged once all replicas of its partition that are in sync have its message. A stream is one partition, in order. What was sent and not answered is looked for in the partition before anything is
//! sent again, and a batch that was under way keeps its number, by which the broker drops it if it comes late: so what comes again is not written twice. A ledger that begins looks at the end of each partition. Which topic
//! there is, and how long it keeps what, is the cluster's to say: none is made.

mod batch;
mod chunks;
mod cluster;
mod connection;
mod fault;
mod held;
mod messages;
mod partition;
mod scram;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chaperone_crds::resources::Format;
use chaperone_sinks::settings::{Kafka, KafkaCompression, Sink};
use jiff::Timestamp;
use tokio::time::timeout;

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target};
use batch::{Message, Producer};
use chunks::Chunk;
use cluster::{Address, Cluster, Way};
use held::Question;
use messages::Produced;

/// How long all of a batch may take. Less than the loop waits, which would forget what is known here.
const PATIENCE: Duration = Duration::from_secs(50);
/// Most bytes of a batch of Kafka before it is compressed, until a topic takes fewer: less than what a topic takes unless it says otherwise (1,048,588).
const MOST_BYTES: usize = 1_000_000;
/// Batches are made no smaller than that by a topic that takes less, but for single records.
const FEWEST_BYTES: usize = 1_024;
/// Numbers of a producer's messages go on with 0 after the last.
const SEQUENCES: i64 = 1 << 31;

/// A topic.
pub(super) struct KafkaTarget {
    way: Way,
    compression: KafkaCompression,
    content_type: &'static str,
    cluster: Option<Cluster>,
    /// Our number and epoch.
    producer: Option<(i64, i16)>,
    partitions: BTreeMap<i32, Partition>,
    /// Records of the batch under way that are there.
    there: HashSet<u64>,
    most_bytes: usize,
}

/// What is known of a partition.
#[derive(Debug, Default)]
struct Partition {
    /// The offset before which nothing is that is still to be sent; none until it was looked at.
    end: Option<i64>,
    /// Number of our next message.
    sequence: i32,
    /// A batch that was sent and may be there, and of how many messages.
    doubt: Option<(Producer, usize)>,
}

impl KafkaTarget {
    /// Reads the settings.
    pub(super) fn new(kafka: &Kafka, sink: &Sink, maker: &Maker) -> Result<Self, Failure> {
        let tls = kafka.tls.as_ref();
        let tls = tls.map(|tls| tls.client_config(None)).transpose()?;
        Ok(Self {
            way: Way {
                net: maker.net.clone(),
                tls: tls.map(Arc::new),
                login: kafka.login.clone(),
                client: format!("chaperone/{}", maker.version),
                topic: kafka.topic.clone(),
                brokers: kafka.brokers.clone(),
            },
            compression: kafka.compression,
            content_type: content_type(sink.format),
            cluster: None,
            producer: None,
            partitions: BTreeMap::new(),
            there: HashSet::new(),
            most_bytes: MOST_BYTES,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        // After a failure connections are not used again: who leads is asked anew.
        let mut cluster = match self.cluster.take().filter(Cluster::is_fresh) {
            Some(cluster) => cluster,
            None => Cluster::reach(&mut self.way).await?,
        };
        let first = batch.first().map_or(0, |record| record.leaf);
        self.there.retain(|leaf| *leaf >= first);
        let producer = self.known_producer(&mut cluster).await?;
        self.look(&mut cluster, batch).await?;
        let answer = self.produce(&mut cluster, producer, batch).await?;
        self.cluster = Some(cluster);
        Ok(answer)
    }

    async fn known_producer(&mut self, cluster: &mut Cluster) -> Result<(i64, i16), Failure> {
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let producer = cluster.producer().await?;
        self.producer = Some(producer);
        for partition in self.partitions.values_mut() {
            partition.sequence = 0;
        }
        Ok(producer)
    }

    /// What is left of a batch, by partition.
    fn left(&self, cluster: &Cluster, batch: &[Outgoing]) -> BTreeMap<i32, Vec<usize>> {
        let mut left: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (place, record) in batch.iter().enumerate() {
            if !self.there.contains(&record.leaf) {
                let partition = partition::of(key(record).as_bytes(), cluster.partitions());
                left.entry(partition).or_default().push(place);
            }
        }
        left
    }

    /// Looks at partitions of which it is not known what they hold.
    async fn look(&mut self, cluster: &mut Cluster, batch: &[Outgoing]) -> Result<(), Failure> {
        let count = cluster.partitions();
        // Of a topic that was made anew.
        self.partitions.retain(|number, _| *number < count);
        let left = self.left(cluster, batch);
        for partition in left.keys() {
            self.partitions.entry(*partition).or_default();
        }
        let is_unknown = |number: &i32, state: &Partition| {
            state.doubt.is_some() || (state.end.is_none() && left.contains_key(number))
        };
        let unknown = self.partitions.iter().filter(|(n, s)| is_unknown(n, s));
        let unknown: BTreeSet<i32> = unknown.map(|(number, _)| *number).collect();
        let records: HashMap<u64, &Outgoing> = batch.iter().map(|r| (r.leaf, r)).collect();
        for number in unknown {
            let Some(state) = self.partitions.get_mut(&number) else {
                continue;
            };
            let first = left.get(&number).and_then(|places| places.first());
            let question = Question {
                topic: &self.way.topic,
                partition: number,
                from: state.end,
                doubted: state.doubt.map(|(producer, _)| producer),
                records: &records,
                first: first.and_then(|place| batch.get(*place)).map(|r| r.leaf),
            };
            let held = question.ask(cluster).await?;
            state.settle(&held, self.producer);
            self.there.extend(held.leaves);
        }
        Ok(())
    }

    /// Sends what is left of a batch, one batch of Kafka at a time in each partition.
    async fn produce(
        &mut self,
        cluster: &mut Cluster,
        producer: (i64, i16),
        batch: &[Outgoing],
    ) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        let left = self.left(cluster, batch).into_iter();
        let mut waiting: BTreeMap<i32, VecDeque<Chunk>> = left
            .map(|(partition, places)| (partition, chunks::of(&places, batch, self.most_bytes)))
            .collect();
        while !waiting.is_empty() {
            let mut rounds: BTreeMap<Address, Vec<(i32, Chunk)>> = BTreeMap::new();
            for (partition, chunks) in &mut waiting {
                if let Some(chunk) = chunks.pop_front() {
                    let leader = cluster.leader(*partition)?;
                    rounds.entry(leader).or_default().push((*partition, chunk));
                }
            }
            for (leader, round) in rounds {
                let produced = self.send_round(cluster, &leader, producer, &round, batch);
                for (produced, chunk) in produced.await? {
                    let again = self.settle(&produced, chunk, batch, &mut answer)?;
                    let chunks = waiting.entry(produced.partition).or_default();
                    for chunk in again.into_iter().rev() {
                        chunks.push_front(chunk);
                    }
                }
            }
            waiting.retain(|_, chunks| !chunks.is_empty());
        }
        Ok(answer)
    }

    /// Sends one chunk to each of the partitions that a broker leads.
    async fn send_round(
        &mut self,
        cluster: &mut Cluster,
        leader: &Address,
        producer: (i64, i16),
        round: &[(i32, Chunk)],
        batch: &[Outgoing],
    ) -> Result<Vec<(Produced, Chunk)>, Failure> {
        let mut batches = Vec::with_capacity(round.len());
        for (partition, chunk) in round {
            let state = self.partitions.entry(*partition).or_default();
            let numbered = Producer {
                id: producer.0,
                epoch: producer.1,
                sequence: state.sequence,
            };
            let records: Vec<_> = chunk.iter().filter_map(|place| batch.get(*place)).collect();
            state.doubt = Some((numbered, records.len()));
            let written = self.written(&records, numbered, true)?;
            batches.push((*partition, written));
        }
        let mut said = cluster.produce(leader, &batches).await?;
        let mut answers = Vec::with_capacity(round.len());
        for (partition, chunk) in round {
            let place = said.iter().position(|p| p.partition == *partition);
            let produced = place.map(|place| said.swap_remove(place));
            let produced = produced.ok_or_else(|| fault::malformed(wire::Malformed))?;
            answers.push((produced, chunk.clone()));
        }
        Ok(answers)
    }

    /// Notes what became of a chunk. What of it must be sent again, in parts.
    fn settle(
        &mut self,
        produced: &Produced,
        chunk: Chunk,
        batch: &[Outgoing],
        answer: &mut Answer,
    ) -> Result<Vec<Chunk>, Failure> {
        let state = self.partitions.entry(produced.partition).or_default();
        let error = produced.error;
        if error == 0 || error == fault::DUPLICATE_SEQUENCE_NUMBER {
            let count = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
            state.end = (produced.offset >= 0).then(|| produced.offset.saturating_add(count));
            if let Some((producer, count)) = state.doubt.take() {
                state.sequence = after(producer.sequence, count);
            }
            let leaves = chunk.iter().filter_map(|place| batch.get(*place));
            self.there.extend(leaves.map(|record| record.leaf));
            return Ok(Vec::new());
        }
        if fault::is_about_the_producer(error) {
            self.producer = None;
        }
        if !fault::is_about_records(error) {
            return Err(fault::of(error, &self.way.topic, &produced.message));
        }
        // Nothing of it was written.
        state.doubt = None;
        if fault::is_too_large(error) && chunk.len() > 1 {
            let half = chunks::bytes(&chunk, batch) / 2;
            self.most_bytes = self.most_bytes.min(half).max(FEWEST_BYTES);
        }
        let parts = chunks::parts(produced, &chunk, &self.way.topic);
        answer.refused.extend(parts.refused);
        Ok(parts.again)
    }

    /// A batch of Kafka. One that is of no log has no number there.
    fn written(
        &self,
        records: &[&Outgoing],
        producer: Producer,
        is_of_log: bool,
    ) -> Result<Vec<u8>, Failure> {
        let described = records.iter().map(|record| {
            let mut headers = vec![
                ("content-type", self.content_type.to_owned()),
                (held::STREAM, record.about.stream.clone()),
                (held::SEQ, record.about.seq.to_string()),
            ];
            if is_of_log {
                headers.push((held::LEAF, record.leaf.to_string()));
            }
            (key(record), headers, record.line.as_bytes())
        });
        let described: Vec<_> = described.collect();
        let messages = described.iter().map(|(key, headers, value)| Message {
            key: key.as_bytes(),
            value,
            headers,
        });
        let messages: Vec<_> = messages.collect();
        let now = Timestamp::now().as_millisecond();
        batch::written(&messages, now, producer, self.compression)
            .map_err(|error| Failure::soon("write", error))
    }

    /// One message without a number in the log, which no delivery looks for.
    async fn try_one(&mut self, record: &Outgoing) -> Result<Answer, Failure> {
        let mut cluster = Cluster::reach(&mut self.way).await?;
        let partition = partition::of(key(record).as_bytes(), cluster.partitions());
        let leader = cluster.leader(partition)?;
        let written = self.written(&[record], Producer::NONE, false)?;
        let batches = [(partition, written)];
        match cluster.produce(&leader, &batches).await?.first() {
            Some(produced) if produced.error == 0 => Ok(Answer::default()),
            Some(produced) => {
                let topic = &self.way.topic;
                Err(fault::of(produced.error, topic, &produced.message))
            }
            None => Err(fault::malformed(wire::Malformed)),
        }
    }
}

impl Partition {
    /// Takes in what it holds. `producer`: who we are by now.
    fn settle(&mut self, held: &held::Held, producer: Option<(i64, i16)>) {
        self.end = Some(held.end);
        let Some((doubted, count)) = self.doubt.take() else {
            return;
        };
        // What is not there keeps its number, so that the broker drops one of the two if both come.
        if held.has_doubted && producer == Some((doubted.id, doubted.epoch)) {
            self.sequence = after(doubted.sequence, count);
        }
    }
}

impl Target for KafkaTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(async move {
            let delivered = timeout(PATIENCE, self.deliver(batch)).await;
            delivered.unwrap_or_else(|_| {
                let why = format!("not all of a batch within {} s", PATIENCE.as_secs());
                Err(Failure::soon("timeout", why))
            })
        })
    }

    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        Box::pin(self.try_one(record))
    }
}

/// The key of a record: its stream, so that a stream is one partition.
fn key(record: &Outgoing) -> String {
    match record.about.stream.as_str() {
        "" => record.key(),
        stream => stream.to_owned(),
    }
}

/// The number after so many messages.
fn after(sequence: i32, count: usize) -> i32 {
    let count = i64::try_from(count).unwrap_or_default();
    let next = i64::from(sequence).saturating_add(count) % SEQUENCES;
    i32::try_from(next).unwrap_or_default()
}

/// What a message's value is. Of CloudEvents as their binding for Kafka has it (structured mode).
fn content_type(format: Format) -> &'static str {
    match format {
        Format::CloudEvents => "application/cloudevents+json; charset=UTF-8",
        Format::Native | Format::Ocsf | Format::Ecs => "application/json",
    }
}

#[cfg(test)]
mod tests;
