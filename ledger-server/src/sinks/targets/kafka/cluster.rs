//! Who has the topic, and connections to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chaperone_sinks::{dial::Dialer, net::SinkNet, settings::KafkaLogin};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    connection::Connection,
    fault,
    messages::{self, Api, Metadata, Produced},
    wire::{Malformed, Reader, Writer},
};
use crate::sinks::target::Failure;

/// How long leaders and partitions are taken for what they were. Shorter than brokers keep a connection that nothing comes on (ten minutes).
const LONGEST_KNOWN: Duration = Duration::from_secs(300);
/// How long before its end a login is given up.
const BEFORE_END: Duration = Duration::from_secs(60);
/// How long a broker may wait for its replicas, in milliseconds.
const REPLICAS_MILLISECONDS: i32 = 20_000;

/// Host and port.
pub(super) type Address = (String, u16);

/// The way to the brokers.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) net: Arc<dyn SinkNet>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) login: Option<KafkaLogin>,
    pub(super) client: String,
    pub(super) topic: String,
    /// Brokers that know the others.
    pub(super) brokers: Vec<Address>,
}

impl Way {
    async fn connect(&self, broker: &Address) -> Result<Connection, Failure> {
        let (host, port) = broker.clone();
        let dialer = Dialer {
            host,
            port,
            tls: self.tls.clone(),
            net: self.net.clone(),
        };
        Connection::open(&dialer, self.login.as_ref(), &self.client).await
    }
}

/// What is known of the cluster, for a while.
pub(super) struct Cluster {
    way: Way,
    until: Instant,
    connections: BTreeMap<Address, Connection>,
    /// The broker that told.
    home: Address,
    /// Leaders by partition.
    leaders: Vec<Option<Address>>,
}

impl Cluster {
    /// Asks the first broker that answers, beginning with the one that answered last. Those that keep us waiting until nobody waits for us are not the first that are asked again.
    pub(super) async fn reach(way: &mut Way) -> Result<Self, Failure> {
        let mut failure = Failure::soon("settings", "there is no broker to ask");
        for _ in 0..way.brokers.len() {
            let asked = way.brokers.first().cloned();
            let Some(broker) = asked else { break };
            way.brokers.rotate_left(1);
            match Self::ask_about(way, &broker).await {
                Ok(cluster) => {
                    way.brokers.rotate_right(1);
                    return Ok(cluster);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask_about(way: &Way, broker: &Address) -> Result<Self, Failure> {
        let mut cluster = Self {
            way: way.clone(),
            until: Instant::now() + LONGEST_KNOWN,
            connections: BTreeMap::new(),
            home: broker.clone(),
            leaders: Vec::new(),
        };
        let request = messages::metadata(&way.topic);
        let answer = cluster.ask(broker, messages::METADATA, &request).await?;
        let known = messages::read_metadata(Reader(&answer), &way.topic);
        let known = known.map_err(fault::malformed)?;
        if known.error != 0 {
            return Err(fault::of(known.error, &way.topic, ""));
        }
        cluster.leaders = leaders(&known).map_err(fault::malformed)?;
        Ok(cluster)
    }

    /// Whether it can still be taken for what it was.
    pub(super) fn is_fresh(&self) -> bool {
        let until = self.connections.values().filter_map(|c| c.until).min();
        let until = until.and_then(|until| until.checked_sub(BEFORE_END));
        Instant::now() < until.map_or(self.until, |until| until.min(self.until))
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> i32 {
        i32::try_from(self.leaders.len()).unwrap_or(i32::MAX)
    }

    /// Who leads a partition.
    pub(super) fn leader(&self, partition: i32) -> Result<Address, Failure> {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        let leader = self.leaders.get(place).cloned().flatten();
        leader.ok_or_else(|| {
            let why = format!("partition {partition} of the topic has no leader at the moment");
            Failure::soon("server-error", why)
        })
    }

    /// A number that no other producer has, and its epoch.
    pub(super) async fn producer(&mut self) -> Result<(i64, i16), Failure> {
        let (home, request) = (self.home.clone(), messages::init_producer_id());
        let asked = self.ask(&home, messages::INIT_PRODUCER_ID, &request);
        let answer = asked.await?;
        let (error, id, epoch) =
            messages::producer_id(Reader(&answer)).map_err(fault::malformed)?;
        match error {
            0 => Ok((id, epoch)),
            error => Err(fault::of(error, "a producer's number", "")),
        }
    }

    /// Sends batches of partitions that one broker leads.
    pub(super) async fn produce(
        &mut self,
        leader: &Address,
        batches: &[(i32, Vec<u8>)],
    ) -> Result<Vec<Produced>, Failure> {
        let request = messages::produce(&self.way.topic, batches, REPLICAS_MILLISECONDS);
        let answer = self.ask(leader, messages::PRODUCE, &request).await?;
        messages::produced(Reader(&answer), &self.way.topic).map_err(fault::malformed)
    }

    /// Asks one broker. After a failure nothing is known of the connection any more, and the cluster is to be reached anew.
    pub(super) async fn ask(
        &mut self,
        broker: &Address,
        api: Api,
        request: &Writer,
    ) -> Result<Vec<u8>, Failure> {
        let mut connection = match self.connections.remove(broker) {
            Some(connection) => connection,
            None => self.way.connect(broker).await.map_err(|mut failure| {
                let (host, port) = broker;
                failure.message = format!("{host}:{port}: {}", failure.message);
                failure
            })?,
        };
        let answer = connection.ask(api, request).await?;
        self.connections.insert(broker.clone(), connection);
        Ok(answer)
    }
}

/// Leaders of partitions, which are numbered from 0 without a gap.
fn leaders(known: &Metadata) -> Result<Vec<Option<Address>>, Malformed> {
    let mut addresses = BTreeMap::new();
    for (number, host, port) in &known.brokers {
        let port = u16::try_from(*port).map_err(|_| Malformed)?;
        addresses.insert(*number, (host.clone(), port));
    }
    let mut leaders = known.partitions.clone();
    leaders.sort_unstable();
    let mut found = Vec::new();
    for (place, (partition, leader)) in leaders.iter().enumerate() {
        if usize::try_from(*partition) != Ok(place) {
            return Err(Malformed);
        }
        found.push(addresses.get(leader).cloned());
    }
    match found.is_empty() {
        true => Err(Malformed),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_numbered_without_a_gap_and_may_have_no_leader() {
        let with = |partitions: &[(i32, i32)]| Metadata {
            brokers: vec![(1, "a".to_owned(), 9092)],
            error: 0,
            partitions: partitions.to_vec(),
        };
        let led = Some(("a".to_owned(), 9092));
        let found = leaders(&with(&[(1, -1), (0, 1)]));
        assert_eq!(found, Ok(vec![led, None]));
        for wrong in [&[][..], &[(1, 1)], &[(0, 1), (0, 1)], &[(-1, 1)]] {
            assert_eq!(leaders(&with(wrong)), Err(Malformed), "{wrong:?}");
        }
    }
}
