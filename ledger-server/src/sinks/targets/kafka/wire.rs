//! Primitives of Kafka's protocol (<https://kafka.apache.org/protocol#protocol_types>), as far as versions without tagged fields have them.
//!
//! Invariant: what is read is bounded by what is there. A length or a count that is announced and not there is malformed before anything is allocated for it.

use thiserror::Error;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the broker's answer cannot be read")]
pub(super) struct Malformed;

/// Longest varint of 64 bits, in bytes.
const LONGEST_VARINT: u32 = 10;

/// Bytes that become a message. What is longer than its length can say is cut nowhere: texts here are settings, and records are bounded by the ledger.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn i8(&mut self, value: i8) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i16(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// STRING; settings bound it to far less than 32 KiB.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX))
            .raw(text.as_bytes())
    }

    /// NULLABLE_STRING without a value.
    pub(super) fn null_string(&mut self) -> &mut Self {
        self.i16(-1)
    }

    /// BYTES.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).raw(bytes)
    }

    /// How many of an ARRAY follow.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.i32(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// VARLONG and VARINT: zigzag, seven bits a byte.
    pub(super) fn varint(&mut self, value: i64) -> &mut Self {
        let mut rest = (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned();
        while rest > 0x7f {
            self.0.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
        self
    }

    /// Bytes with a VARINT before them.
    pub(super) fn varbytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            .raw(bytes)
    }
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// STRING or NULLABLE_STRING, which is empty where there is none.
    pub(super) fn string(&mut self) -> Result<String, Malformed> {
        let length = match self.i16()? {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| Malformed)?,
        };
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// BYTES or NULLABLE_BYTES, which are empty where there are none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        self.take(length)
    }

    /// How many of an ARRAY follow: none where it is null. Each has a byte at least.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = match self.i32()? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| Malformed)?,
        };
        match count <= self.0.len() {
            true => Ok(count),
            false => Err(Malformed),
        }
    }

    /// An ARRAY, by how one of it is read.
    pub(super) fn each<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.count()?;
        // Not collected: what is announced is no reason to allocate.
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// VARLONG and VARINT.
    pub(super) fn varint(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for place in 0..LONGEST_VARINT {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f).wrapping_shl(place.wrapping_mul(7));
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg());
            }
        }
        Err(Malformed)
    }

    /// Bytes with a VARINT before them: none where that is negative.
    pub(super) fn varbytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.varint()? {
            ..0 => Ok(None),
            length => self
                .take(usize::try_from(length).map_err(|_| Malformed)?)
                .map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_endless_ones_are_malformed() {
        for value in [0, -1, 1, 63, 64, -64, -65, 1 << 40, i64::MAX, i64::MIN] {
            let mut writer = Writer::default();
            writer.varint(value);
            let mut reader = Reader(&writer.0);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.0.is_empty());
        }
        assert_eq!(Reader(&[0x80; 11]).varint(), Err(Malformed));
        assert_eq!(Reader(&[0x80]).varint(), Err(Malformed));
    }

    #[test]
    fn what_is_announced_and_not_there_is_malformed() {
        assert_eq!(Reader(&[0x7f, 0xff, 0xff, 0xff]).count(), Err(Malformed));
        assert_eq!(Reader(&[0xff; 4]).count(), Ok(0));
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xfe]).count(), Err(Malformed));
        assert_eq!(Reader(&[0, 2, b'a']).string(), Err(Malformed));
    }
}
