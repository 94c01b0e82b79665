//! The wire format of protocol buffers, read in place.
//!
//! The layout is that of <https://protobuf.dev/programming-guides/encoding>. Nothing is allocated: a message is
//! the iterator over its fields, and what is nested is a slice with its place in the file. Readers bound their
//! own depth.

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
                "a field of {count} bytes is truncated: {} are left",
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
    fn read(&mut self) -> Result<(u32, Wire<'a>), Refusal> {
        let at = self.left.at;
        let tag = self.left.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err((at, format!("there is no field {}", tag >> 3)));
        }
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
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.left.bytes.is_empty() {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        Some(read)
    }
}
