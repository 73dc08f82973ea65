//! The wire format of protocol buffers, field by field ("Encoding" of the protocol buffers documentation).
//!
//! Pure. Refuses what no parser reads: field number 0, a length beyond the end, a group that does not end. Invariant: the raw bytes of all fields, one after another, are the
//! message as it was written.

/// Deepest nesting of groups that is followed. They are long deprecated, and each level is looked through once more.
const MAX_GROUPS: usize = 8;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed")]
pub struct Malformed;

/// One field as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireField<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: WireValue<'a>,
    /// Tag and value.
    pub raw: &'a [u8],
}

/// A value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireValue<'a> {
    /// Type 0: integers, enums, bool.
    Varint(u64),
    /// Type 1: eight bytes.
    Eight(&'a [u8]),
    /// Type 2: strings, bytes, messages, packed numbers.
    Length(&'a [u8]),
    /// Types 3 and 4: what stands between the tags of a group.
    Group(&'a [u8]),
    /// Type 5: four bytes.
    Four(&'a [u8]),
}

/// The next field; `None` at the end.
///
/// # Errors
/// Where the bytes are no field.
pub fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<WireField<'a>>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let all = *rest;
    let (number, kind) = tag(rest)?;
    let value = value(rest, number, kind, 0)?;
    let used = all.len().saturating_sub(rest.len());
    let raw = all.get(..used).ok_or(Malformed)?;
    Ok(Some(WireField { number, value, raw }))
}

fn value<'a>(
    rest: &mut &'a [u8],
    number: u32,
    kind: u8,
    groups: usize,
) -> Result<WireValue<'a>, Malformed> {
    Ok(match kind {
        0 => WireValue::Varint(varint(rest)?),
        1 => WireValue::Eight(take(rest, 8)?),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            WireValue::Length(take(rest, length)?)
        }
        3 if groups < MAX_GROUPS => WireValue::Group(group(rest, number, groups)?),
        5 => WireValue::Four(take(rest, 4)?),
        _ => return Err(Malformed),
    })
}

/// What stands before the end of the group that has begun.
fn group<'a>(rest: &mut &'a [u8], number: u32, groups: usize) -> Result<&'a [u8], Malformed> {
    let all = *rest;
    loop {
        let inside = all.len().saturating_sub(rest.len());
        let (inner, kind) = tag(rest)?;
        if kind == 4 {
            return match inner == number {
                true => all.get(..inside).ok_or(Malformed),
                false => Err(Malformed),
            };
        }
        value(rest, inner, kind, groups.saturating_add(1))?;
    }
}

fn tag(rest: &mut &[u8]) -> Result<(u32, u8), Malformed> {
    let tag = u32::try_from(varint(rest)?).map_err(|_| Malformed)?;
    let (number, kind) = (tag >> 3, (tag & 7) as u8);
    match number {
        0 => Err(Malformed),
        _ => Ok((number, kind)),
    }
}

/// A base 128 number of at most ten bytes.
///
/// # Errors
/// Where it is longer, or does not end.
pub fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Malformed);
        }
        number |= bits.checked_shl(shift).unwrap_or_default();
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

/// Writes a number in base 128.
pub fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_of_each_wire_type_are_read() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1d, 1, 0, 0, 0, // 3: fixed32
            0x21, 1, 0, 0, 0, 0, 0, 0, 0, // 4: fixed64
            0x2b, 0x08, 0x01, 0x2c, // 5: group { 1: 1 }
        ];
        let mut rest = &bytes[..];
        let mut values = Vec::new();
        while let Some(field) = next(&mut rest).unwrap() {
            values.push((field.number, field.value));
        }
        assert_eq!(
            values,
            [
                (1, WireValue::Varint(150)),
                (2, WireValue::Length(b"hi")),
                (3, WireValue::Four(&[1, 0, 0, 0])),
                (4, WireValue::Eight(&[1, 0, 0, 0, 0, 0, 0, 0])),
                (5, WireValue::Group(&[0x08, 0x01])),
            ]
        );
    }

    #[test]
    fn what_no_parser_reads_is_malformed() {
        let deep = [0x0b].repeat(MAX_GROUPS + 1);
        for bytes in [
            &[0x00, 0x00][..],                                  // field 0
            &[0x12, 0x05, b'x'],                                // a length beyond the end
            &[0x0c],                                            // the end of no group
            &[0x0b, 0x08, 0x01],                                // a group without end
            &[0x0b, 0x14],                                      // another group's end
            &[0x0e],                                            // wire type 6
            &[0x08],                                            // no value
            &[0x08, 0xff],                                      // a number without end
            &[[0x08].as_slice(), &[0xff; 9], &[0x02]].concat(), // 65 bits
            &deep,
        ] {
            let mut rest = bytes;
            assert_eq!(next(&mut rest), Err(Malformed), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(number: u64) {
            let mut out = Vec::new();
            write_varint(number, &mut out);
            let mut rest = &out[..];
            prop_assert_eq!(varint(&mut rest), Ok(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn the_raw_bytes_of_all_fields_are_the_message(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (mut rest, mut raw) = (&bytes[..], Vec::new());
            while let Ok(Some(field)) = next(&mut rest) {
                raw.extend_from_slice(field.raw);
            }
            prop_assert!(bytes.starts_with(&raw));
        }
    }
}
