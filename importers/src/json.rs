//! A state dictionary in JSON, its tensors in base64:
//! `{"version": "1.0", "tensors": {NAME: {"shape": […], "dtype": "f32", "data": "…"}}}`.
//!
//! The data is little-endian and in row-major order, in RFC 4648's standard alphabet. `metadata`, an object of
//! texts beside `tensors`, is ours and optional. Tensors are decoded when they are read; the text stays in the
//! mapped file. A file may be compressed as a whole by gzip or Zstandard; a long text is then unpacked into a
//! temporary file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::compress;
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::float8::Float8;
use crate::map::release;
use crate::model_text::{self, Parameter};
use crate::write::{Draft, Job, Writer};

const FORMAT: &str = "JSON";
const VERSION: &str = "1.0";
/// As many as NumPy and PyTorch have.
const MOST_DIMENSIONS: usize = 64;

pub(crate) const WRITER: Writer = Writer {
    name: "json",
    endings: &[".json"],
    holds: |dtype| name(dtype).is_some(),
    write,
};

/// The names of types, ours first.
const NAMES: &[(Dtype, &[&str])] = &[
    (Dtype::F64, &["f64", "float64", "double"]),
    (Dtype::F32, &["f32", "float32", "float"]),
    (Dtype::F16, &["f16", "float16", "half"]),
    (Dtype::BF16, &["bf16", "bfloat16"]),
    (Dtype::I64, &["i64", "int64", "long"]),
    (Dtype::I32, &["i32", "int32", "int"]),
    (Dtype::I16, &["i16", "int16", "short"]),
    (Dtype::I8, &["i8", "int8"]),
    (Dtype::U64, &["u64", "uint64"]),
    (Dtype::U32, &["u32", "uint32"]),
    (Dtype::U16, &["u16", "uint16"]),
    (Dtype::U8, &["u8", "uint8", "byte"]),
    (Dtype::Bool, &["bool"]),
];

fn name(dtype: &Dtype) -> Option<String> {
    if let Dtype::F8(float) = dtype {
        return Some(float.name().to_lowercase());
    }
    let row = NAMES.iter().find(|(known, _)| known == dtype);
    row.map(|(_, names)| names[0].to_owned())
}

fn dtype(name: &str) -> Option<Dtype> {
    let lower = name.to_lowercase();
    let row = NAMES.iter().find(|(_, names)| names.contains(&&lower[..]));
    row.map(|(dtype, _)| dtype.clone())
        .or_else(|| Float8::find(&name.to_uppercase()).map(Dtype::F8))
}

/// Everything that a JSON file of weights may have; which of it tells what it is.
#[derive(Deserialize)]
struct File<'a> {
    version: Option<Value>,
    metadata: Option<Value>,
    #[serde(borrow)]
    tensors: Option<Tensors<'a>>,
    parameters: Option<Vec<Parameter>>,
    data: Option<Vec<f32>>,
}

/// In the order of the file.
struct Tensors<'a>(Vec<(String, Stored<'a>)>);

#[derive(Deserialize)]
struct Stored<'a> {
    shape: Shape,
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// No longer than a tensor's may be.
pub(crate) struct Shape(pub(crate) Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = items.next_element()? {
                    if sizes.len() == MOST_DIMENSIONS {
                        let reason = format!("a shape has more than {MOST_DIMENSIONS} dimensions");
                        return Err(A::Error::custom(reason));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tensors<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl<'de> Visitor<'de> for Named {
            type Value = Tensors<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors<'de>, A::Error> {
                let mut tensors = Vec::new();
                while let Some((name, stored)) = map.next_entry::<String, Stored<'de>>()? {
                    // What has been looked through of a mapped file counts as memory until it is let go of.
                    if let Cow::Borrowed(data) = &stored.data {
                        release(data.as_bytes());
                    }
                    tensors.push((name, stored));
                }
                Ok(Tensors(tensors))
            }
        }
        deserializer.deserialize_map(Named)
    }
}

/// Reads a text that may be a state dictionary or a model.
pub(crate) fn read(path: &Path, text: &Bytes) -> Result<Checkpoint, FormatError> {
    let malformed = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: FORMAT,
        offset: None,
        reason,
    };
    let file: File<'_> =
        serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    match (file.tensors, file.parameters, file.data) {
        (Some(tensors), None, None) => {
            let version = file.version.unwrap_or(json!(VERSION));
            if version != json!(VERSION) && version != json!(1) && version != json!(1.0) {
                let reason = format!("its version is {version}, and \"{VERSION}\" is known");
                return Err(malformed(reason));
            }
            state_dict(path, text, tensors, file.metadata)
        }
        (None, Some(parameters), Some(data)) => {
            model_text::checkpoint(path, Format::JsonModel, file.metadata, parameters, data)
        }
        _ => Err(malformed(
            "it has neither `tensors` as a state dictionary nor `parameters` and `data` as a model"
                .to_owned(),
        )),
    }
}

fn state_dict(
    path: &Path,
    text: &Bytes,
    tensors: Tensors<'_>,
    metadata: Option<Value>,
) -> Result<Checkpoint, FormatError> {
    let mut entries = IndexMap::new();
    for (name, stored) in tensors.0 {
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&name),
            offset: None,
            reason,
        };
        let known = dtype(&stored.dtype);
        let dtype = known
            .ok_or_else(|| refuse(format!("its type `{}` is not known", clip(&stored.dtype))))?;
        let size = match &dtype {
            Dtype::F8(_) => 1,
            plain => plain.to_burn().map_or(1, |dtype| dtype.size()),
        };
        let shape = &stored.shape.0;
        let bytes = data::elements(shape)
            .and_then(|count| count.checked_mul(size as u64))
            .and_then(|bytes| usize::try_from(bytes).ok());
        let padding = stored
            .data
            .bytes()
            .rev()
            .take(2)
            .filter(|byte| *byte == b'=');
        let decoded = (stored.data.len() / 4 * 3).saturating_sub(padding.count());
        let bytes = bytes
            .filter(|bytes| stored.data.len().is_multiple_of(4) && *bytes == decoded)
            .ok_or_else(|| {
                refuse(format!(
                    "{dtype} {shape:?} does not take the {decoded} bytes that its data has"
                ))
            })?;
        let sizes: Option<Vec<usize>> = shape
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect();
        let sizes =
            sizes.ok_or_else(|| refuse("its shape is larger than this machine".to_owned()))?;
        let encoded = match stored.data {
            Cow::Borrowed(data) => text.slice_ref(data.as_bytes()),
            Cow::Owned(data) => Bytes::from(data.into_bytes()),
        };
        let reader = std::sync::Arc::new(Reader {
            path: path.to_owned(),
            name: name.clone(),
            dtype,
            shape: sizes,
            encoded,
        });
        let (dtype, shape) = (reader.dtype.clone(), reader.shape.clone());
        let stored = reader.clone();
        let entry = Entry::new(dtype, shape, bytes, move || reader.read())
            .with_stored(move || Ok(data::shared(stored.decoded()?)));
        if entries.insert(name.clone(), entry).is_some() {
            return Err(refuse("it is there twice".to_owned()));
        }
    }
    let files = vec![path.to_owned()];
    Ok(Checkpoint::new(
        Format::Json,
        files,
        model_text::texts(metadata),
        entries,
    ))
}

struct Reader {
    path: PathBuf,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    encoded: Bytes,
}

impl Reader {
    fn refuse(&self, reason: String) -> FormatError {
        FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: None,
            reason,
        }
    }

    /// Piece by piece: what has been read of a mapped file counts as memory until it is let go of.
    fn decoded(&self) -> Result<Bytes, FormatError> {
        /// A multiple of four, so that the pieces join.
        const PIECE: usize = 4 << 20;
        let mut decoded = Vec::with_capacity(self.encoded.len() / 4 * 3);
        for (at, piece) in self.encoded.chunks(PIECE).enumerate() {
            // Padding before the end would be taken for a piece's own.
            if decoded.len() != at * (PIECE / 4 * 3) {
                return Err(self.refuse("its data is no base64: it ends before its end".to_owned()));
            }
            STANDARD.decode_vec(piece, &mut decoded).map_err(|error| {
                let begin = at * PIECE;
                self.refuse(format!(
                    "its data is no base64: {error}, counted from {begin}"
                ))
            })?;
            release(piece);
        }
        Ok(decoded.into())
    }

    fn read(&self) -> Result<burn::tensor::TensorData, FormatError> {
        data::typed(self.decoded()?, &self.shape, &self.dtype).map_err(|reason| self.refuse(reason))
    }
}

fn write(job: &Job<'_>) -> Result<Vec<PathBuf>, FormatError> {
    /// A multiple of three, so that the pieces join.
    const PIECE: usize = 3 << 14;
    let mut out = Draft::create(job.path)?;
    let layout = Layout(job.options.pretty);
    let (one, two, three) = (layout.line(1), layout.line(2), layout.line(3));
    let colon = layout.colon();
    out.write(format!("{{{one}\"version\"{colon}\"{VERSION}\"").as_bytes())?;
    if !job.metadata.is_empty() {
        let metadata: BTreeMap<&String, &String> = job.metadata.iter().collect();
        let text = if job.options.pretty {
            format!("{:#}", json!(metadata)).replace('\n', &one)
        } else {
            json!(metadata).to_string()
        };
        out.write(format!(",{one}\"metadata\"{colon}{text}").as_bytes())?;
    }
    out.write(format!(",{one}\"tensors\"{colon}{{").as_bytes())?;
    for (at, (tensor, entry)) in job.tensors.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let dtype = name(&entry.dtype).unwrap_or_default();
        let head = format!(
            "{comma}{two}{}{colon}{{{three}\"shape\"{colon}{},{three}\"dtype\"{colon}\"{dtype}\",{three}\"data\"{colon}\"",
            json!(tensor),
            json!(entry.shape),
        );
        out.write(head.as_bytes())?;
        for piece in job.bytes(tensor, entry)?.chunks(PIECE) {
            out.write(STANDARD.encode(piece).as_bytes())?;
        }
        out.write(format!("\"{two}}}").as_bytes())?;
        job.wrote(tensor, entry);
    }
    out.write(format!("{one}}}{}}}\n", layout.line(0)).as_bytes())?;
    compress::place(out, job.path, job.options.compression)
}

/// Indented, or all on one line.
struct Layout(bool);

impl Layout {
    fn line(&self, depth: usize) -> String {
        if self.0 {
            format!("\n{}", "  ".repeat(depth))
        } else {
            String::new()
        }
    }

    fn colon(&self) -> &'static str {
        if self.0 { ": " } else { ":" }
    }
}
