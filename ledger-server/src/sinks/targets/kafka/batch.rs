//! Batches of records (message format 2, <https://kafka.apache.org/documentation/#recordbatch>): how ours are written, and how those of a partition are read.
//!
//! Invariant: what a batch unfolds to is bounded, and so is what is looked at of it. Checksums of what is read are not compared: a broken batch is malformed, or says nothing of ours.

mod codec;

use chaperone_sinks::settings::KafkaCompression;
use crc_fast::{CrcAlgorithm, checksum};

use super::wire::{Malformed, Reader, Writer};
pub(super) use codec::Unreadable;

/// Before the length of a batch ends.
const BEFORE: usize = 12;
/// From the length's end to the checksum's: epoch, magic, checksum.
const UNCHECKED: usize = 9;
/// The message format that has headers.
const MAGIC: i8 = 2;
/// Bit of attributes: written by the server, of a transaction.
const CONTROL: i16 = 0x20;
/// Beginning of our headers' names: others are of no account.
const OURS: &[u8] = b"chaperone-";
/// Most of our headers that a message has. A hostile one may have millions.
const MOST_HEADERS: usize = 8;
/// Bits of attributes that name the compression.
const COMPRESSION: i16 = 0x07;

/// A message to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) headers: &'a [(&'a str, String)],
}

/// Who writes: number, epoch, and the number of the batch's first message among all of theirs in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

impl Producer {
    /// One whose copies nobody tells apart.
    pub(super) const NONE: Self = Self {
        id: -1,
        epoch: -1,
        sequence: -1,
    };
}

/// A batch, all of one time: milliseconds since 1970.
pub(super) fn written(
    messages: &[Message<'_>],
    time: i64,
    producer: Producer,
    compression: KafkaCompression,
) -> std::io::Result<Vec<u8>> {
    let mut records = Writer::default();
    for (place, message) in messages.iter().enumerate() {
        record(&mut records, place, message);
    }
    let (attributes, records) = codec::folded(records.0, compression)?;
    let count = i32::try_from(messages.len()).unwrap_or(i32::MAX);
    let mut checked = Writer::default();
    checked
        .i16(attributes)
        .i32(count.saturating_sub(1))
        .i64(time)
        .i64(time)
        .i64(producer.id)
        .i16(producer.epoch)
        .i32(producer.sequence)
        .i32(count)
        .raw(&records);
    // CRC-32C.
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &checked.0);
    let crc = u32::try_from(crc).unwrap_or_default();
    let mut batch = Writer::default();
    batch
        .i64(0)
        .count(checked.0.len().saturating_add(UNCHECKED))
        .i32(-1)
        .i8(MAGIC)
        .raw(&crc.to_be_bytes())
        .raw(&checked.0);
    Ok(batch.0)
}

fn record(records: &mut Writer, place: usize, message: &Message<'_>) {
    let mut one = Writer::default();
    one.i8(0)
        .varint(0)
        .varint(i64::try_from(place).unwrap_or(i64::MAX))
        .varbytes(message.key)
        .varbytes(message.value)
        .varint(i64::try_from(message.headers.len()).unwrap_or_default());
    for (name, value) in message.headers {
        one.varbytes(name.as_bytes()).varbytes(value.as_bytes());
    }
    records.varbytes(&one.0);
}

/// A batch that a partition has.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    /// Offset of its first message.
    pub(super) first: i64,
    /// The offset after its last.
    pub(super) end: i64,
    pub(super) producer: Producer,
    attributes: i16,
    count: i32,
    records: &'a [u8],
}

/// A message that a partition has.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) offset: i64,
    pub(super) value: &'a [u8],
    headers: Vec<(&'a [u8], &'a [u8])>,
}

impl Found<'_> {
    /// The text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| *n == name.as_bytes());
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// Batches of what was fetched, without one at its end that is cut off, or that is of an older format: no header is in that.
pub(super) fn kept(mut fetched: &[u8]) -> Result<Vec<Kept<'_>>, Malformed> {
    let mut all = Vec::new();
    while fetched.len() >= BEFORE {
        let mut reader = Reader(fetched);
        let (first, length) = (reader.i64()?, reader.i32()?);
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let Ok(body) = reader.take(length) else {
            break;
        };
        fetched = reader.0;
        let mut body = Reader(body);
        body.i32()?;
        if body.i8()? != MAGIC {
            continue;
        }
        body.i32()?;
        let (attributes, last) = (body.i16()?, body.i32()?);
        body.i64()?;
        body.i64()?;
        let producer = Producer {
            id: body.i64()?,
            epoch: body.i16()?,
            sequence: body.i32()?,
        };
        all.push(Kept {
            first,
            end: first.saturating_add(i64::from(last)).saturating_add(1),
            producer,
            attributes,
            count: body.i32()?,
            records: body.0,
        });
    }
    Ok(all)
}

impl Kept<'_> {
    /// Looks at each of its messages.
    pub(super) fn each(&self, mut look: impl FnMut(Found<'_>)) -> Result<(), Unreadable> {
        if self.attributes & CONTROL != 0 {
            return Ok(());
        }
        let unfolded = codec::unfolded(self.records, self.attributes & COMPRESSION)?;
        let mut records = Reader(&unfolded);
        for _ in 0..self.count {
            let one = records.varbytes()?.ok_or(Malformed)?;
            look(found(Reader(one), self.first)?);
        }
        Ok(())
    }
}

fn found(mut one: Reader<'_>, first: i64) -> Result<Found<'_>, Malformed> {
    one.i8()?;
    one.varint()?;
    let offset = first.saturating_add(one.varint()?);
    one.varbytes()?;
    let value = one.varbytes()?.unwrap_or_default();
    let mut headers = Vec::new();
    for _ in 0..one.varint()? {
        let name = one.varbytes()?.unwrap_or_default();
        let value = one.varbytes()?.unwrap_or_default();
        if name.starts_with(OURS) && headers.len() < MOST_HEADERS {
            headers.push((name, value));
        }
    }
    Ok(Found {
        offset,
        value,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [KafkaCompression; 3] = [
        KafkaCompression::Zstd,
        KafkaCompression::Lz4,
        KafkaCompression::None,
    ];

    fn sample(compression: KafkaCompression) -> Vec<u8> {
        let headers = [("chaperone-leaf", "41".to_owned())];
        let message = |value| Message {
            key: b"s",
            value,
            headers: &headers,
        };
        let producer = Producer {
            id: 9,
            epoch: 1,
            sequence: 5,
        };
        let messages = [message(b"{}"), message(b"[]")];
        written(&messages, 1_700_000_000_000, producer, compression).unwrap()
    }

    #[test]
    fn what_is_written_is_read_in_each_compression() {
        for compression in ALL {
            let bytes = [sample(compression), sample(compression)].concat();
            // The second is cut off.
            let batches = kept(&bytes[..bytes.len() - 1]).unwrap();
            let [batch] = &batches[..] else {
                panic!("{batches:?}");
            };
            assert_eq!((batch.first, batch.end), (0, 2));
            assert_eq!((batch.producer.id, batch.producer.sequence), (9, 5));
            let mut seen = Vec::new();
            let looked = batch.each(|found| {
                let leaf = found.header("chaperone-leaf").map(str::to_owned);
                seen.push((found.offset, found.value.to_vec(), leaf));
            });
            assert!(looked.is_ok());
            let leaf = Some("41".to_owned());
            assert_eq!(
                seen,
                [(0, b"{}".to_vec(), leaf.clone()), (1, b"[]".to_vec(), leaf)]
            );
        }
    }

    proptest! {
        #[test]
        fn no_batch_stops_the_ledger(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..3_usize, at in 0..200_usize, byte in any::<u8>()) {
            let look = |bytes: &[u8]| {
                for batch in kept(bytes).unwrap_or_default() {
                    let _ = batch.each(|found| drop(found.header("chaperone-leaf").map(str::to_owned)));
                }
            };
            look(&bytes);
            let mut nearly = sample(ALL[which]);
            let at = at % nearly.len();
            nearly[at] = byte;
            look(&nearly);
        }
    }
}
