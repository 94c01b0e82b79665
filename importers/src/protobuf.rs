//! Protocol Buffers' wire format, walked field by field and written likewise.
//!
//! The encoding is that of <https://protobuf.dev/programming-guides/encoding/>. Messages are walked, not decoded: a
//! message is the iterator over its fields, and what is nested is a slice with its place in the file. Nothing is built
//! for a field that nobody asks for, and depth is what the callers descend to by name, so that neither counts nor
//! nesting in a file take memory. A [`Slice`] borrows the file, a [`Message`] shares it.

use bytes::Bytes;

use crate::data::clip;

/// Where in the file something is wrong, and what.
pub(crate) type Refusal = (usize, String);

/// Bytes of a file, and where in it they begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    /// A text, bytes, a message, or packed numbers.
    Bytes(Slice<'a>),
    Fixed32([u8; 4]),
}

/// The fields of a message: number, value, and where the field begins.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    left: Slice<'a>,
    failed: bool,
}

impl<'a> Slice<'a> {
    pub(crate) fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn fields(self) -> Fields<'a> {
        Fields {
            left: self,
            failed: false,
        }
    }

    /// The bytes as text.
    pub(crate) fn text(self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.bytes).map_err(|error| {
            (
                self.at + error.valid_up_to(),
                "a name is no UTF-8".to_owned(),
            )
        })
    }

    /// The next number of a packed field.
    pub(crate) fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for (place, byte) in self.bytes.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if place == 9 && *byte > 1 {
                    break;
                }
                self.skip(place + 1);
                return Ok(value);
            }
        }
        Err((self.at, "a number is truncated or too long".to_owned()))
    }

    fn take(&mut self, count: usize) -> Result<Slice<'a>, Refusal> {
        let Some(bytes) = self.bytes.get(..count) else {
            let reason = format!(
                "a field claims {count} bytes and is truncated: {} are left",
                self.bytes.len()
            );
            return Err((self.at, reason));
        };
        let taken = Slice { bytes, at: self.at };
        self.skip(count);
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let at = self.at;
        let taken = self.take(N)?;
        let bytes = taken.bytes.try_into();
        bytes.map_err(|_| (at, "a field is truncated".to_owned()))
    }

    fn skip(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
        self.at += count;
    }
}

impl<'a> Fields<'a> {
    /// A field, and where its value begins.
    fn read(&mut self) -> Result<(u32, usize, Wire<'a>), Refusal> {
        let at = self.left.at;
        let tag = self.left.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err((at, format!("there is no field {}", tag >> 3)));
        }
        let begin = self.left.at;
        let value = match tag & 7 {
            0 => Wire::Varint(self.left.varint()?),
            1 => Wire::Fixed64(self.left.array()?),
            2 => {
                let length = self.left.varint()?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Wire::Bytes(self.left.take(length)?)
            }
            5 => Wire::Fixed32(self.left.array()?),
            other => return Err((at, format!("field {number} is of the wire type {other}"))),
        };
        Ok((number, begin, value))
    }

    fn next_at(&mut self) -> Option<Result<(u32, usize, Wire<'a>), Refusal>> {
        if self.failed || self.left.bytes.is_empty() {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        Some(read)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_at()?.map(|(number, _, value)| (number, value)))
    }
}

/// The bytes of one message, shared with the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    bytes: Bytes,
    /// Where they begin in the file.
    at: usize,
}

/// One field of a message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) value: Value,
    /// Where its value begins in the file.
    pub(crate) at: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// A text, bytes, a message or packed numbers.
    Bytes(Bytes),
}

impl Message {
    pub(crate) fn new(bytes: Bytes, at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The fields in their order; ends at the first that is broken.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Result<Field, Refusal>> {
        let whole = Slice {
            bytes: &self.bytes,
            at: self.at,
        };
        let mut fields = whole.fields();
        std::iter::from_fn(move || fields.next_at()).map(move |read| {
            let (number, at, value) = read?;
            let (at, value) = match value {
                Wire::Varint(value) => (at, Value::Varint(value)),
                Wire::Fixed64(bytes) => (at, Value::Fixed64(bytes)),
                Wire::Fixed32(bytes) => (at, Value::Fixed32(bytes)),
                // The length stands before the value.
                Wire::Bytes(part) => (part.at, Value::Bytes(self.bytes.slice_ref(part.bytes))),
            };
            Ok(Field { number, value, at })
        })
    }
}

impl Field {
    pub(crate) fn bytes(&self) -> Result<Bytes, Refusal> {
        match &self.value {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(self.refuse("bytes")),
        }
    }

    pub(crate) fn message(&self) -> Result<Message, Refusal> {
        Ok(Message::new(self.bytes()?, self.at))
    }

    pub(crate) fn text(&self) -> Result<String, Refusal> {
        let bytes = self.bytes()?;
        let text =
            str::from_utf8(&bytes).map_err(|_| (self.at, "a text is not UTF-8".to_owned()))?;
        Ok(text.to_owned())
    }

    pub(crate) fn unsigned(&self) -> Result<u64, Refusal> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.refuse("a number")),
        }
    }

    pub(crate) fn signed(&self) -> Result<i64, Refusal> {
        self.unsigned().map(u64::cast_signed)
    }

    /// A count, offset or size, which the format has as a signed number.
    pub(crate) fn size(&self) -> Result<u64, Refusal> {
        let value = self.signed()?;
        u64::try_from(value).map_err(|_| (self.at, format!("{value} is no size")))
    }

    pub(crate) fn fixed32(&self) -> Result<u32, Refusal> {
        match self.value {
            Value::Fixed32(bytes) => Ok(u32::from_le_bytes(bytes)),
            _ => Err(self.refuse("four bytes")),
        }
    }

    /// Gives each of the repeated numbers that this field holds, one or a packed run, as varints.
    pub(crate) fn varints(&self, mut each: impl FnMut(u64)) -> Result<(), Refusal> {
        match &self.value {
            Value::Varint(value) => each(*value),
            Value::Bytes(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (value, length) = varint(rest)
                        .ok_or_else(|| (self.at, "packed numbers are truncated".to_owned()))?;
                    each(value);
                    rest = &rest[length..];
                }
            }
            _ => return Err(self.refuse("numbers")),
        }
        Ok(())
    }

    /// The bytes of the repeated numbers of `size` bytes that this field holds, one or a packed run.
    pub(crate) fn packed(&self, size: usize) -> Result<Bytes, Refusal> {
        match &self.value {
            Value::Fixed32(bytes) if size == 4 => Ok(Bytes::copy_from_slice(bytes)),
            Value::Fixed64(bytes) if size == 8 => Ok(Bytes::copy_from_slice(bytes)),
            Value::Bytes(bytes) if bytes.len().is_multiple_of(size) => Ok(bytes.clone()),
            _ => Err(self.refuse("whole numbers of one width")),
        }
    }

    fn refuse(&self, wanted: &str) -> Refusal {
        (self.at, format!("field {} should be {wanted}", self.number))
    }
}

/// A name for a tensor: text, and not beyond all measure.
pub(crate) fn name(field: &Field) -> Result<String, Refusal> {
    const MOST: usize = 64 << 10;
    let text = field.text()?;
    if text.len() > MOST {
        return Err((
            field.at,
            format!("the name `{}` has {} bytes", clip(&text), text.len()),
        ));
    }
    Ok(text)
}

/// A number in groups of seven bits, the lowest first, and how many bytes it takes.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut rest = Slice::whole(bytes);
    let value = rest.varint().ok()?;
    Some((value, rest.at))
}

/// Appends a number as a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a number, unless it is zero, which is what an absent field means.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    }
}

/// Appends a field that is bytes or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of four bytes.
pub(crate) fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend(value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Message, put_bytes, put_fixed32, put_number, put_varint, varint};

    #[test]
    fn varints_are_what_they_were() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(varint(&bytes), Some((value, bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(varint(&[0xff; 11]), None);
        assert_eq!(
            varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            None
        );
    }

    #[test]
    fn fields_come_in_order_until_one_is_broken() {
        let mut bytes = Vec::new();
        put_number(&mut bytes, 1, 7);
        put_bytes(&mut bytes, 2, b"abc");
        put_fixed32(&mut bytes, 6, 9);
        let whole = Message::new(bytes.clone().into(), 100);
        let fields: Result<Vec<_>, _> = whole.fields().collect();
        let fields = fields.unwrap_or_default();
        let numbers: Vec<u32> = fields.iter().map(|field| field.number).collect();
        assert_eq!(numbers, [1, 2, 6]);
        assert_eq!(fields[1].text(), Ok("abc".to_owned()));
        assert_eq!(fields[1].at, 104);
        assert_eq!(fields[2].fixed32(), Ok(9));
        assert!(fields[0].text().is_err());
        let broken = Message::new(bytes[..bytes.len() - 1].to_vec().into(), 0);
        let mut fields = broken.fields().skip(2);
        assert!(fields.next().is_some_and(|field| field.is_err()));
        assert!(fields.next().is_none());
    }
}
