//! JSON as Python's `json` reads it: with `NaN` and `Infinity`, in any of the Unicode encodings, and with every
//! occurrence of a repeated key.

/// The deepest nesting that Python's own reader follows.
const DEEPEST: usize = 990;

/// A JSON value. Numbers are not kept: nothing here depends on them but offsets and lengths.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    /// `null`, or a constant that is no boolean.
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// All members in their order, repeated keys included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The last member of that name, which is the one that Python keeps.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        let members = self.members().iter().rev();
        members
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value)
            .next()
    }

    pub(super) fn members(&self) -> &[(String, Json)] {
        match self {
            Json::Object(members) => members,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text under a key.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }
}

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// It is something else, or truncated.
    Malformed,
    /// It nests deeper than its readers follow.
    TooDeep,
}

/// A text in the encoding that `json.loads` would detect.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], big: bool| {
        let units = bytes.chunks_exact(2).map(|pair| {
            let pair = [pair[0], pair[1]];
            if big {
                u16::from_be_bytes(pair)
            } else {
                u16::from_le_bytes(pair)
            }
        });
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .ok()
    };
    let widest = |bytes: &[u8], big: bool| {
        let units = bytes.chunks_exact(4).map(|four| {
            let four = [four[0], four[1], four[2], four[3]];
            char::from_u32(if big {
                u32::from_be_bytes(four)
            } else {
                u32::from_le_bytes(four)
            })
        });
        units.collect::<Option<String>>()
    };
    match bytes {
        [0xff, 0xfe, 0, 0, rest @ ..] => widest(rest, false),
        [0, 0, 0xfe, 0xff, rest @ ..] => widest(rest, true),
        [0xff, 0xfe, rest @ ..] => wide(rest, false),
        [0xfe, 0xff, rest @ ..] => wide(rest, true),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        [0, 0, 0, b, ..] if *b != 0 => widest(bytes, true),
        [0, b, ..] if *b != 0 => wide(bytes, true),
        [a, 0, 0, 0, ..] if *a != 0 => widest(bytes, false),
        [a, 0, ..] if *a != 0 => wide(bytes, false),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    Some(str::from_utf8(bytes).ok()?.to_owned())
}

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Json, Failed> {
    let (value, end) = parse_prefix(text.as_bytes())?;
    let rest = &text.as_bytes()[end..];
    if rest.iter().all(|byte| byte.is_ascii_whitespace()) {
        Ok(value)
    } else {
        Err(Failed::Malformed)
    }
}

/// Parses the value at the beginning of `bytes`, and says where it ends.
pub(super) fn parse_prefix(bytes: &[u8]) -> Result<(Json, usize), Failed> {
    let mut parser = Parser { bytes, at: 0 };
    let value = parser.value(0)?;
    Ok((value, parser.at))
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, wanted: u8) -> Result<(), Failed> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(Failed::Malformed)
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, Failed> {
        if depth > DEEPEST {
            return Err(Failed::TooDeep);
        }
        match self.peek().ok_or(Failed::Malformed)? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Json::Text),
            b't' if self.word(b"true") => Ok(Json::Bool(true)),
            b'f' if self.word(b"false") => Ok(Json::Bool(false)),
            b'n' if self.word(b"null") => Ok(Json::Null),
            b'N' if self.word(b"NaN") => Ok(Json::Null),
            b'I' if self.word(b"Infinity") => Ok(Json::Null),
            b'-' if self.word(b"-Infinity") => Ok(Json::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Failed::Malformed),
        }
    }

    fn number(&mut self) -> Result<Json, Failed> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        let text = str::from_utf8(&rest[..length]).map_err(|_| Failed::Malformed)?;
        self.at += length;
        text.parse()
            .map(Json::Number)
            .map_err(|_| Failed::Malformed)
    }

    fn list(&mut self, depth: usize) -> Result<Json, Failed> {
        self.take(b'[')?;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::List(items));
                }
                _ => return Err(Failed::Malformed),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Failed> {
        self.take(b'{')?;
        let mut members = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            self.peek();
            let key = self.string()?;
            self.take(b':')?;
            members.push((key, self.value(depth + 1)?));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(members));
                }
                _ => return Err(Failed::Malformed),
            }
        }
    }

    fn string(&mut self) -> Result<String, Failed> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            let rest = self.bytes.get(self.at..).ok_or(Failed::Malformed)?;
            let plain = memchr::memchr2(b'"', b'\\', rest).ok_or(Failed::Malformed)?;
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            let escape = *self.bytes.get(self.at).ok_or(Failed::Malformed)?;
            self.at += 1;
            let character = match escape {
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'"' | b'\\' | b'/' => char::from(escape),
                b'u' => self.escaped()?,
                _ => return Err(Failed::Malformed),
            };
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// What follows `\u`: a character, or half of one and its other half.
    fn escaped(&mut self) -> Result<char, Failed> {
        let first = self.hex()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                let joined = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32, Failed> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        value.ok_or(Failed::Malformed)
    }
}
