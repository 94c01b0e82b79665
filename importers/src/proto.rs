//! Protocol Buffers' wire format, read field by field and written likewise.
//!
//! The encoding is that of <https://protobuf.dev/programming-guides/encoding/>. Messages are walked, not
//! decoded: nothing is built for a field that nobody asks for, payloads stay in the map, and depth is what the
//! callers descend to by name, so that neither counts nor nesting in a file take memory.

use bytes::Bytes;

use crate::data::clip;

/// A place in the file, and what is wrong there.
pub(crate) type Refusal = (usize, String);

/// The bytes of one message.
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

    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            message: self,
            next: 0,
        }
    }
}

/// The fields of a message in their order; ends at the first that is broken.
pub(crate) struct Fields<'a> {
    message: &'a Message,
    next: usize,
}

impl Fields<'_> {
    fn field(&mut self) -> Result<Field, Refusal> {
        let bytes = &self.message.bytes;
        let begin = self.message.at + self.next;
        let truncated = || (begin, "a field of a message is truncated".to_owned());
        let rest = |at: usize| bytes.get(at..).unwrap_or_default();
        let (tag, length) = varint(rest(self.next)).ok_or_else(truncated)?;
        let at = self.next + length;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or_else(|| (begin, format!("{} is no number of a field", tag >> 3)))?;
        let (value, length) = match tag & 7 {
            0 => {
                let (value, length) = varint(rest(at)).ok_or_else(truncated)?;
                (Value::Varint(value), length)
            }
            1 => {
                let value = rest(at).first_chunk().ok_or_else(truncated)?;
                (Value::Fixed64(*value), 8)
            }
            2 => {
                let (length, size) = varint(rest(at)).ok_or_else(truncated)?;
                let from = at + size;
                let to = usize::try_from(length)
                    .ok()
                    .and_then(|length| from.checked_add(length))
                    .filter(|to| *to <= bytes.len());
                let Some(to) = to else {
                    let left = bytes.len() - from;
                    let reason = format!(
                        "field {number} claims {length} bytes, {left} are left of its message"
                    );
                    return Err((begin, reason));
                };
                self.next = to;
                return Ok(Field {
                    number,
                    value: Value::Bytes(bytes.slice(from..to)),
                    at: self.message.at + from,
                });
            }
            5 => {
                let value = rest(at).first_chunk().ok_or_else(truncated)?;
                (Value::Fixed32(*value), 4)
            }
            kind => {
                return Err((
                    begin,
                    format!(
                        "field {number} has the wire type {kind}, which no field of this format has"
                    ),
                ));
            }
        };
        self.next = at + length;
        Ok(Field {
            number,
            value,
            at: self.message.at + at,
        })
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.message.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.next = self.message.bytes.len();
        }
        Some(field)
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
    let mut value: u64 = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if place == 9 && *byte > 1 {
            return None;
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
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
