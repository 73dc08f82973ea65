//! Requests and answers (<https://kafka.apache.org/protocol#protocol_messages>): one version of each, the newest without tagged fields, which brokers have since 2.4.

use super::wire::{Malformed, Reader, Writer};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Api {
    /// Its key.
    pub(super) key: i16,
    /// The version that we speak.
    pub(super) version: i16,
    /// Its name.
    pub(super) name: &'static str,
    /// Longest answer, in bytes.
    pub(super) longest: u32,
}

/// Longest answer but to Fetch, in bytes. What names partitions, versions or faults has a thousandth of it; read into values it takes some ten times as much memory.
const LONGEST_ANSWER: u32 = 4 * 1024 * 1024;
/// Longest answer to Fetch, in bytes: it has as many as were asked for (4 MiB), or one batch that has more. One that is longer than it may be when it is unfolded could not be looked into.
const LONGEST_FETCHED: u32 = 64 * 1024 * 1024;

const fn api(key: i16, version: i16, name: &'static str) -> Api {
    Api {
        key,
        version,
        name,
        longest: LONGEST_ANSWER,
    }
}

pub(super) const PRODUCE: Api = api(0, 8, "Produce");
pub(super) const FETCH: Api = Api {
    longest: LONGEST_FETCHED,
    ..api(1, 11, "Fetch")
};
pub(super) const LIST_OFFSETS: Api = api(2, 1, "ListOffsets");
pub(super) const METADATA: Api = api(3, 4, "Metadata");
pub(super) const SASL_HANDSHAKE: Api = api(17, 1, "SaslHandshake");
pub(super) const API_VERSIONS: Api = api(18, 0, "ApiVersions");
pub(super) const INIT_PRODUCER_ID: Api = api(22, 1, "InitProducerId");
pub(super) const SASL_AUTHENTICATE: Api = api(36, 1, "SaslAuthenticate");

/// What every broker must speak.
pub(super) const NEEDED: [Api; 5] = [PRODUCE, FETCH, LIST_OFFSETS, METADATA, INIT_PRODUCER_ID];

/// The oldest offset that a partition has, as ListOffsets asks for it.
pub(super) const OLDEST: i64 = -2;
/// The offset after the newest.
pub(super) const END: i64 = -1;
/// A client and no replica.
const CLIENT: i32 = -1;
/// Every replica that is in sync must have it.
const ACKS_ALL: i16 = -1;

/// A request with its header (version 1) and the length before it.
pub(super) fn framed(api: Api, correlation: i32, client: &str, body: &Writer) -> Vec<u8> {
    let mut all = Writer::default();
    all.i16(api.key)
        .i16(api.version)
        .i32(correlation)
        .string(client)
        .raw(&body.0);
    let mut frame = Writer::default();
    frame.bytes(&all.0);
    frame.0
}

/// Versions of an API that a broker speaks: its key, the oldest, the newest.
pub(super) type Spoken = (i16, i16, i16);

/// An error, and which versions a broker speaks.
pub(super) fn versions(mut answer: Reader<'_>) -> Result<(i16, Vec<Spoken>), Malformed> {
    let error = answer.i16()?;
    let all = answer.each(|one| Ok((one.i16()?, one.i16()?, one.i16()?)))?;
    Ok((error, all))
}

pub(super) fn handshake(mechanism: &str) -> Writer {
    let mut request = Writer::default();
    request.string(mechanism);
    request
}

/// An error, and which mechanisms there are.
pub(super) fn handshaken(mut answer: Reader<'_>) -> Result<(i16, Vec<String>), Malformed> {
    Ok((answer.i16()?, answer.each(Reader::string)?))
}

pub(super) fn authenticate(bytes: &[u8]) -> Writer {
    let mut request = Writer::default();
    request.bytes(bytes);
    request
}

/// What a broker says to a step of a login.
pub(super) struct Authenticated {
    pub(super) error: i16,
    pub(super) message: String,
    pub(super) bytes: Vec<u8>,
    /// How long the login lasts, in milliseconds: 0 for ever.
    pub(super) lifetime: i64,
}

pub(super) fn authenticated(mut answer: Reader<'_>) -> Result<Authenticated, Malformed> {
    Ok(Authenticated {
        error: answer.i16()?,
        message: answer.string()?,
        bytes: answer.bytes()?.to_vec(),
        lifetime: answer.i64()?,
    })
}

pub(super) fn metadata(topic: &str) -> Writer {
    let mut request = Writer::default();
    // No topic is made by asking.
    request.count(1).string(topic).i8(0);
    request
}

/// Who has a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Brokers: number, host, port.
    pub(super) brokers: Vec<(i32, String, i32)>,
    /// What is said of the topic as a whole.
    pub(super) error: i16,
    /// Partitions: number, leader or -1.
    pub(super) partitions: Vec<(i32, i32)>,
}

pub(super) fn read_metadata(mut answer: Reader<'_>, topic: &str) -> Result<Metadata, Malformed> {
    answer.i32()?;
    let brokers = answer.each(|one| {
        let broker = (one.i32()?, one.string()?, one.i32()?);
        one.string()?;
        Ok(broker)
    })?;
    answer.string()?;
    answer.i32()?;
    let topics = answer.each(|one| {
        let (error, name) = (one.i16()?, one.string()?);
        one.i8()?;
        let partitions = one.each(|one| {
            one.i16()?;
            let partition = (one.i32()?, one.i32()?);
            one.each(Reader::i32)?;
            one.each(Reader::i32)?;
            Ok(partition)
        })?;
        Ok((error, name, partitions))
    })?;
    let asked = topics.into_iter().find(|(_, name, _)| name == topic);
    let (error, _, partitions) = asked.ok_or(Malformed)?;
    Ok(Metadata {
        brokers,
        error,
        partitions,
    })
}

/// No transactions; what a broker must give up after is of transactions alone.
pub(super) fn init_producer_id() -> Writer {
    let mut request = Writer::default();
    request.null_string().i32(60_000);
    request
}

/// An error, the producer's number and its epoch.
pub(super) fn producer_id(mut answer: Reader<'_>) -> Result<(i16, i64, i16), Malformed> {
    answer.i32()?;
    Ok((answer.i16()?, answer.i64()?, answer.i16()?))
}

pub(super) fn list_offset(topic: &str, partition: i32, which: i64) -> Writer {
    let mut request = Writer::default();
    request.i32(CLIENT).count(1).string(topic).count(1);
    request.i32(partition).i64(which);
    request
}

/// An error and the offset.
pub(super) fn offset(
    mut answer: Reader<'_>,
    topic: &str,
    partition: i32,
) -> Result<(i16, i64), Malformed> {
    let found = answer.each(|one| {
        let name = one.string()?;
        let partitions = one.each(|one| {
            let (index, error) = (one.i32()?, one.i16()?);
            one.i64()?;
            Ok((index, error, one.i64()?))
        })?;
        Ok((name, partitions))
    })?;
    let mut all = found.into_iter().filter(|(name, _)| name == topic);
    let mut partitions = all.next().ok_or(Malformed)?.1.into_iter();
    let asked = partitions.find(|(index, ..)| *index == partition);
    asked
        .map(|(_, error, offset)| (error, offset))
        .ok_or(Malformed)
}

/// Batches from an offset, whatever there is: at most so many bytes, or one batch.
pub(super) fn fetch(topic: &str, partition: i32, offset: i64, bytes: i32) -> Writer {
    let mut request = Writer::default();
    // No wait, one byte, all messages, no session.
    request.i32(CLIENT).i32(0).i32(1).i32(bytes).i8(0);
    request.i32(0).i32(-1).count(1).string(topic).count(1);
    request
        .i32(partition)
        .i32(-1)
        .i64(offset)
        .i64(-1)
        .i32(bytes);
    request.count(0).string("");
    request
}

/// An error, and batches as they are kept.
pub(super) fn fetched<'a>(
    mut answer: Reader<'a>,
    partition: i32,
) -> Result<(i16, &'a [u8]), Malformed> {
    answer.i32()?;
    let error = answer.i16()?;
    answer.i32()?;
    if error != 0 {
        return Ok((error, &[]));
    }
    // Nothing else is kept: the longest answers would take many times their length.
    let mut asked = None;
    answer.each(|one| {
        one.string()?;
        one.each(|one| {
            let (index, error) = (one.i32()?, one.i16()?);
            one.i64()?;
            one.i64()?;
            one.i64()?;
            one.each(|one| one.i64().and(one.i64()).map(drop))?;
            one.i32()?;
            let batches = one.bytes()?;
            if index == partition {
                asked.get_or_insert((error, batches));
            }
            Ok(())
        })
        .map(drop)
    })?;
    asked.ok_or(Malformed)
}

/// A batch for each of some partitions.
pub(super) fn produce(topic: &str, batches: &[(i32, Vec<u8>)], milliseconds: i32) -> Writer {
    let mut request = Writer::default();
    request.null_string().i16(ACKS_ALL).i32(milliseconds);
    request.count(1).string(topic).count(batches.len());
    for (partition, batch) in batches {
        request.i32(*partition).bytes(batch);
    }
    request
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Produced {
    pub(super) partition: i32,
    pub(super) error: i16,
    /// Offset of its first message, or -1.
    pub(super) offset: i64,
    /// Places of messages that are at fault, where the broker says so, and why.
    pub(super) faulty: Vec<(i32, String)>,
    pub(super) message: String,
}

pub(super) fn produced(mut answer: Reader<'_>, topic: &str) -> Result<Vec<Produced>, Malformed> {
    let found = answer.each(|one| {
        let name = one.string()?;
        let partitions = one.each(|one| {
            let (partition, error, offset) = (one.i32()?, one.i16()?, one.i64()?);
            one.i64()?;
            one.i64()?;
            Ok(Produced {
                partition,
                error,
                offset,
                faulty: one.each(|one| Ok((one.i32()?, one.string()?)))?,
                message: one.string()?,
            })
        })?;
        Ok((name, partitions))
    })?;
    let mut asked = found.into_iter().filter(|(name, _)| name == topic);
    asked
        .next()
        .map(|(_, partitions)| partitions)
        .ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_of_a_broker_stop_the_ledger(bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..200)) {
            let answer = Reader(&bytes);
            let _ = (versions(answer), handshaken(answer), producer_id(answer));
            let _ = authenticated(answer).map(|said| said.bytes);
            let _ = (read_metadata(answer, ""), offset(answer, "", 0), fetched(answer, 0), produced(answer, ""));
        }
    }

    #[test]
    fn an_answer_about_another_topic_or_partition_is_none() {
        let mut answer = Writer::default();
        answer.count(1).string("other").count(1).i32(0).i16(0);
        answer.i64(0).i64(7);
        assert_eq!(offset(Reader(&answer.0), "mine", 0), Err(Malformed));
        assert_eq!(offset(Reader(&answer.0), "other", 1), Err(Malformed));
        assert_eq!(offset(Reader(&answer.0), "other", 0), Ok((0, 7)));
    }
}
