//! GGML's files before GGUF: whisper.cpp's models, its Silero voice detectors, and GPT-2's.
//!
//! Nothing in them says what they are but the first four bytes; the header is the model's own. The layouts are
//! those of `models/convert-pt-to-ggml.py` and `models/convert-silero-vad-to-ggml.py` of whisper.cpp 1.8.2 and
//! `examples/gpt-2/convert-ckpt-to-ggml.py` of ggml 0.9.4: sizes, for a Whisper its mel filters, the
//! vocabulary, then one tensor after the other. Shapes are reversed, as GGML stores the fastest dimension
//! first.
//!
//! [`Checkpoint::metadata`] has the sizes under their names there, `ggml.model`, and the vocabulary as JSON
//! under GGUF's key `tokenizer.ggml.tokens`, each byte as the character that GPT-2's tokenizer shows it by. The
//! mel filters are the tensor `mel_filters`.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::gguf;
use crate::gguf::quants::{F32, Kind};
use crate::map::map_file;

/// `ggml` as a little-endian number.
pub(crate) const MAGIC: &[u8; 4] = b"lmgg";
const FORMAT: &str = "GGML";
const MOST_DIMENSIONS: i32 = 4;
const LONGEST_NAME: i32 = 1 << 10;
/// What the text of the vocabulary may take beyond the size of the file.
const VOCABULARY_MARGIN: usize = 16 << 20;

/// Opens one file.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or of a model whose header is not known.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

type Refusal = (usize, String);

/// A header: the model's name, and what it has before its tensors.
struct Model {
    name: &'static str,
    header: fn(&mut Reader, &mut Header) -> Result<(), Refusal>,
}

/// The one is taken whose header and tensors make up the whole file.
const MODELS: [Model; 3] = [
    Model {
        name: "whisper",
        header: whisper,
    },
    Model {
        name: "silero-vad",
        header: silero,
    },
    Model {
        name: "gpt-2",
        header: gpt2,
    },
];

/// What a header says.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    filters: Option<Span>,
}

/// A table of numbers.
struct Span {
    at: usize,
    shape: [usize; 2],
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    // What went furthest says best what is wrong.
    let mut furthest: Option<Refusal> = None;
    for model in &MODELS {
        let mut reader = Reader {
            map: &map,
            at: MAGIC.len(),
        };
        let mut header = Header::default();
        let read = (model.header)(&mut reader, &mut header).and_then(|()| reader.tensors(path));
        match read {
            Ok(mut entries) => {
                let mut metadata = header.metadata;
                metadata.insert("ggml.model".to_owned(), model.name.to_owned());
                if let Some(Span { at, shape }) = header.filters {
                    let reader = gguf::Reader {
                        path: path.to_owned(),
                        name: "mel_filters".to_owned(),
                        offset: at as u64,
                        kind: F32,
                        shape: shape.to_vec(),
                        bytes: map.slice(at..at + 4 * shape[0] * shape[1]),
                        big_endian: false,
                    };
                    let entry = reader.entry().with_generated(true);
                    entries.insert("mel_filters".to_owned(), entry);
                }
                let files = vec![path.to_owned()];
                return Ok(Checkpoint::new(Format::Ggml, files, metadata, entries));
            }
            Err(refusal) => {
                if furthest.as_ref().is_none_or(|(at, _)| refusal.0 > *at) {
                    furthest = Some(refusal);
                }
            }
        }
    }
    let (offset, reason) = furthest.unwrap_or_default();
    Err(FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: Some(offset as u64),
        reason,
    })
}

/// The file, and how far it is read.
struct Reader<'a> {
    map: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Refusal> {
        let end = self.at.checked_add(count);
        let Some(end) = end.filter(|end| *end <= self.map.len()) else {
            let left = self.map.len() - self.at;
            let reason = format!("it is truncated: {count} bytes are wanted, {left} are left");
            return Err((self.at, reason));
        };
        let taken = &self.map[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn i32(&mut self) -> Result<i32, Refusal> {
        let at = self.at;
        let taken: Result<[u8; 4], _> = self.take(4)?.try_into();
        let bytes = taken.map_err(|_| (at, "it is truncated".to_owned()))?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// A number that is no less than 1 and no more than `most`.
    fn count(&mut self, name: &str, most: i32) -> Result<usize, Refusal> {
        let at = self.at;
        let value = self.i32()?;
        usize::try_from(value)
            .ok()
            .filter(|_| (1..=most).contains(&value))
            .ok_or_else(|| (at, format!("`{name}` is {value}, not between 1 and {most}")))
    }

    /// Sizes that follow each other, into the metadata.
    fn sizes(&mut self, names: &[&str], header: &mut Header) -> Result<(), Refusal> {
        /// Beyond the largest size of any model.
        const MOST: i32 = 1 << 24;
        for name in names {
            let value = self.count(name, MOST)?;
            header
                .metadata
                .insert((*name).to_owned(), value.to_string());
        }
        Ok(())
    }

    /// The type of most tensors, and the version of the block types in the thousands.
    fn file_type(&mut self, header: &mut Header) -> Result<(), Refusal> {
        let at = self.at;
        let value = self.i32()?;
        let (version, kind) = (value / 1000, value % 1000);
        // Block types changed twice; 2 is the present version.
        if !(0..64).contains(&kind) || (kind > 1 && version != 2) {
            let reason = format!(
                "`ftype` is {value}: blocks of version {version}, where 2 is read; convert the model anew"
            );
            return Err((at, reason));
        }
        header.metadata.insert("ftype".to_owned(), kind.to_string());
        Ok(())
    }

    fn vocabulary(&mut self, header: &mut Header) -> Result<(), Refusal> {
        const MOST: i32 = 1 << 24;
        let count = self.count("the number of tokens", MOST)?;
        let mut text = String::from("[");
        for place in 0..count {
            let at = self.at;
            let length = usize::try_from(self.i32()?).unwrap_or(usize::MAX);
            let token = self.take(length)?;
            if place > 0 {
                text.push(',');
            }
            let shown: String = token.iter().map(|byte| shown(*byte)).collect();
            text.push_str(&serde_json::Value::String(shown).to_string());
            if text.len() > self.map.len().saturating_add(VOCABULARY_MARGIN) {
                return Err((
                    at,
                    "the vocabulary is larger than the file allows".to_owned(),
                ));
            }
        }
        text.push(']');
        let key = "tokenizer.ggml.tokens".to_owned();
        header.metadata.insert(key, text);
        Ok(())
    }

    /// All that is left: one tensor after the other.
    fn tensors(&mut self, path: &Path) -> Result<IndexMap<String, Entry>, Refusal> {
        let mut entries = IndexMap::new();
        while self.at < self.map.len() {
            let at = self.at;
            let dimensions = self.i32()?;
            if !(0..=MOST_DIMENSIONS).contains(&dimensions) {
                let reason = format!(
                    "`the number of dimensions` is {dimensions}, not between 0 and {MOST_DIMENSIONS}"
                );
                return Err((at, reason));
            }
            let length = self.count("the length of a name", LONGEST_NAME)?;
            let id = self.i32()?;
            let kind = u32::try_from(id).ok().and_then(Kind::find);
            let kind = kind.ok_or_else(|| (at, format!("a tensor's type {id} is not known")))?;
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                shape.push(self.count("a size", i32::MAX)?);
            }
            shape.reverse();
            let name = self.take(length)?.to_vec();
            let name = String::from_utf8(name)
                .map_err(|_| (at, "a tensor's name is no UTF-8".to_owned()))?;
            let wide: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            let row = shape.last().copied().unwrap_or(1);
            let bytes = data::elements(&wide)
                .filter(|_| row.is_multiple_of(kind.block))
                .and_then(|elements| (elements / kind.block as u64).checked_mul(kind.size as u64))
                .and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = bytes.ok_or_else(|| {
                let reason = format!("`{}` cannot be {} of {shape:?}", clip(&name), kind.name);
                (at, reason)
            })?;
            let begin = self.at;
            self.take(bytes)?;
            // whisper.cpp's converter gives a convolution's bias a second dimension.
            if let [channels, 1] = shape[..]
                && name.ends_with(".bias")
            {
                shape = vec![channels];
            }
            let reader = gguf::Reader {
                path: path.to_owned(),
                name: name.clone(),
                offset: begin as u64,
                kind,
                shape,
                bytes: self.map.slice(begin..begin + bytes),
                big_endian: false,
            };
            if entries.insert(name.clone(), reader.entry()).is_some() {
                return Err((at, format!("tensor `{}` is there twice", clip(&name))));
            }
        }
        Ok(entries)
    }
}

fn whisper(reader: &mut Reader, header: &mut Header) -> Result<(), Refusal> {
    const SIZES: [&str; 10] = [
        "n_vocab",
        "n_audio_ctx",
        "n_audio_state",
        "n_audio_head",
        "n_audio_layer",
        "n_text_ctx",
        "n_text_state",
        "n_text_head",
        "n_text_layer",
        "n_mels",
    ];
    reader.sizes(&SIZES, header)?;
    reader.file_type(header)?;
    const MOST: i32 = 1 << 14;
    let shape = [
        reader.count("the number of mel filters", MOST)?,
        reader.count("the size of a mel filter", MOST)?,
    ];
    let at = reader.at;
    reader.take(4 * shape[0] * shape[1])?;
    header.filters = Some(Span { at, shape });
    reader.vocabulary(header)
}

fn silero(reader: &mut Reader, header: &mut Header) -> Result<(), Refusal> {
    let length = reader.count("the length of the model's name", 64)?;
    let at = reader.at;
    let name = String::from_utf8_lossy(reader.take(length)?).into_owned();
    if !name.starts_with("silero") {
        return Err((
            at,
            format!("it is of a model `{}`, which is not known", clip(&name)),
        ));
    }
    header.metadata.insert("ggml.name".to_owned(), name);
    let version = [reader.i32()?, reader.i32()?, reader.i32()?];
    let version = version.map(|number| number.to_string()).join(".");
    header.metadata.insert("ggml.version".to_owned(), version);
    reader.sizes(&["n_window", "n_context"], header)?;
    let layers = reader.count("n_encoder_layers", 64)?;
    header
        .metadata
        .insert("n_encoder_layers".to_owned(), layers.to_string());
    for layer in 0..layers {
        for field in ["in_channels", "out_channels", "kernel_size"] {
            reader.sizes(&[&format!("encoder.{layer}.{field}")], header)?;
        }
    }
    let last = [
        "lstm_input_size",
        "lstm_hidden_size",
        "final_conv_in",
        "final_conv_out",
    ];
    reader.sizes(&last, header)
}

fn gpt2(reader: &mut Reader, header: &mut Header) -> Result<(), Refusal> {
    let sizes = ["n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"];
    reader.sizes(&sizes, header)?;
    reader.file_type(header)?;
    reader.vocabulary(header)
}

/// The character by which GPT-2's tokenizer shows a byte: itself if it can be seen, else one beyond the bytes.
fn shown(byte: u8) -> char {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if seen(byte) {
        return char::from(byte);
    }
    let unseen = (0..byte).filter(|other| !seen(*other)).count();
    char::from_u32(256 + unseen as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}
