//! The protobuf wire format: tags, varints and length-delimited values.
//!
//! Source: protobuf.dev/programming-guides/encoding.

use super::error::Problem;

/// The value of one record, undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads the records of one message.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next record's field number and value; `None` at the end.
    pub(super) fn record(&mut self) -> Result<Option<(u32, Raw<'a>)>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(Problem::Malformed("a field number is out of range"))?;
        let value = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?)
                    .map_err(|_| Problem::Malformed("a length is out of range"))?;
                Raw::Bytes(self.take(length)?)
            }
            5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Problem::Malformed("a group or an unknown wire type")),
        };
        Ok(Some((number, value)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0_u64;
        for at in 0..10 {
            let byte = *self
                .rest
                .get(at)
                .ok_or(Problem::Malformed("it ends within a number"))?;
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Problem::Malformed("a number has more than 64 bits"))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.take(N)?;
        bytes
            .try_into()
            .map_err(|_| Problem::Malformed("it ends within a number"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Problem::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The type URL and the value of an `Any`.
pub(super) fn any(bytes: &[u8]) -> Result<(&[u8], &[u8]), Problem> {
    let mut url: &[u8] = &[];
    let mut value: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some(record) = reader.record()? {
        match record {
            (1, Raw::Bytes(bytes)) => url = bytes,
            (2, Raw::Bytes(bytes)) => value = bytes,
            _ => return Err(Problem::WrongWireType),
        }
    }
    Ok((url, value))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
