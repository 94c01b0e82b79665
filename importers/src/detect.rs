//! Which format a file is in: by its content, and by its name where the content says nothing.

use std::path::Path;

use bytes::Bytes;

use crate::checkpoint::{Checkpoint, Format};
use crate::data::clip;
use crate::error::FormatError;
use crate::map::map_file;
use crate::zip::{self, Archive};
use crate::{
    burnpack, compress, flax, ggml, gguf, hdf5, json, mlx, model_text, numpy, onnx, pytorch,
    safetensors, sharded, tensorflow, tflite,
};

/// What is not weights, or in no format that is read here: how it begins, what it is, what to do.
const OTHERS: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; run `git lfs pull`",
    ),
    (
        b"fmgg",
        "a model of llama.cpp before GGUF (GGMF); convert it to GGUF",
    ),
    (
        b"tjgg",
        "a model of llama.cpp before GGUF (GGJT); convert it to GGUF",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed by xz; unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed by LZ4; unpack it first"),
    (
        b"# xet version",
        "a Xet pointer, not the file itself; fetch it by `git xet` or from the hub",
    ),
    (b"%PDF-", "a PDF; download the file itself"),
    (b"\x89PNG", "a picture; name the file of the weights"),
    (b"\xff\xd8\xff", "a picture; name the file of the weights"),
    (
        b"\x7fELF",
        "a program or library; name the file of the weights",
    ),
    (
        b"SQLite format 3",
        "an SQLite database; name the file of the weights",
    ),
    (b"PAR1", "a Parquet table; name the file of the weights"),
    (b"ARROW1", "an Arrow table; name the file of the weights"),
];

/// How much of a text is looked at.
const HEAD: usize = 4096;

/// Opens a weight file, or an index of several.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    if path.to_string_lossy().ends_with(".index.json") {
        return mlx::folded(path, sharded::open(path)?);
    }
    if path.to_string_lossy().ends_with(sharded::KERAS) {
        return sharded::open_keras(path);
    }
    let checkpoint = one(path)?;
    match checkpoint.format {
        Format::Safetensors | Format::Npz => mlx::folded(path, checkpoint),
        Format::Onnx => onnx::with_decoder(path, checkpoint),
        _ => Ok(checkpoint),
    }
}

/// Opens one file, which may be a shard of several.
pub(crate) fn one(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let extension = path.extension().map(|ending| ending.to_ascii_lowercase());
    let extension = extension
        .as_deref()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    if let Some(reason) = not_weights(extension, &map) {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason,
        });
    }
    // A safetensors header is JSON behind its length; nothing else begins with a brace there.
    if map.get(8) == Some(&b'{') && map.get(6..8) == Some(&[0, 0]) {
        return safetensors::read(path, &map);
    }
    if zip::is_zip(&map) {
        let archive = Archive::open(path, "zip", &map)?;
        return if numpy::is_npz(path, &archive) {
            numpy::npz(path, archive)
        } else if hdf5::is_keras(&archive) {
            hdf5::archive(path, &archive)
        } else {
            pytorch::containers::zip(path, &map, archive)
        };
    }
    if pytorch::is_pickle(&map) || pytorch::is_tar(&map) || pytorch::is_text_pickle(&map) {
        return pytorch::read(path, map);
    }
    if map.starts_with(numpy::MAGIC) {
        return numpy::npy(path, &map);
    }
    if map.starts_with(gguf::MAGIC) {
        return gguf::read(path, map);
    }
    if map.starts_with(hdf5::MAGIC) {
        return hdf5::read(path, map);
    }
    if tflite::is_tflite(&map) {
        return tflite::read(path, &map);
    }
    if map.starts_with(ggml::MAGIC) {
        return ggml::read(path, map);
    }
    if map.starts_with(&burnpack::MAGIC) {
        return burnpack::read(path, map);
    }
    if let Some(compression) = compress::find(&map) {
        let text = compress::inflate(path, &map, compression)?;
        if is_json(&text) {
            return json::read(path, &text);
        }
        if is_text(&text) {
            return model_text::read_yaml(path, &text);
        }
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: format!(
                "this is compressed by {}, and what is in it is no text; unpack it first",
                compression.name()
            ),
        });
    }
    if is_json(&map) {
        return json::read(path, &map);
    }
    if extension == "meta" {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: "this is the graph of a TensorFlow checkpoint; name its `.index`".to_owned(),
        });
    }
    if let Some(reason) = plain_text(path, extension, &map) {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason,
        });
    }
    if let Some(found) = tensorflow::read(path, &map) {
        return found;
    }
    if onnx::is_onnx(&map) {
        return onnx::read(path, map);
    }
    if flax::is_flax(&map) {
        return flax::read(path, map);
    }
    match extension {
        "pt" | "pth" | "th" | "bin" | "ckpt" | "pkl" | "pickle" => pytorch::read(path, map),
        "npy" | "npz" => numpy::npy(path, &map),
        "gguf" => gguf::read(path, map),
        "json" => json::read(path, &map),
        "yaml" | "yml" => model_text::read_yaml(path, &map),
        "bpk" => burnpack::read(path, map),
        "onnx" => onnx::read(path, map),
        "msgpack" => flax::read(path, map),
        "h5" | "hdf5" | "keras" => hdf5::read(path, map),
        "tflite" => tflite::read(path, &map),
        "index" | "pb" => tensorflow::open(path),
        "safetensors" | "" => safetensors::read(path, &map),
        _ => Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: "neither its first bytes nor its name are those of a format that is read"
                .to_owned(),
        }),
    }
}

/// What a file is that is not weights.
pub(crate) fn other(bytes: &[u8]) -> Option<&'static str> {
    let found = OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic));
    let found = found.map(|(_, what)| *what);
    found.or_else(|| is_web_page(bytes).then_some("a web page; download the file itself"))
}

/// Why a file holds no weights, whatever its name: it is empty, a pointer to the file, or an answer of a server that was
/// saved in its place.
fn not_weights(extension: &str, bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("this is an empty file; fetch it again".to_owned());
    }
    if bytes.starts_with(b"version https://git-lfs") {
        let text = head(bytes);
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        let size = field("size").filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
        let of = size.map_or(String::new(), |size| {
            format!(" to one of {} bytes", clip(size))
        });
        return Some(format!(
            "this is a Git LFS pointer{of}, not the file itself; run `git lfs pull` in its repository"
        ));
    }
    if let Some(what) = other(bytes) {
        return Some(format!("this is {what}"));
    }
    let head = head(bytes);
    let text = head.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("<?xml") || text.starts_with("<Error") || text.starts_with("<soap") {
        let part = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once('<').map(|(part, _)| part)
        };
        let says = [part("Code"), part("Message")];
        let says: Vec<String> = says.into_iter().flatten().map(clip).collect();
        return Some(if says.is_empty() {
            "this is XML; download the file itself".to_owned()
        } else {
            format!(
                "this is a server's error in XML (`{}`); download the file itself",
                says.join(": ")
            )
        });
    }
    let first = text.bytes().next();
    if matches!(first, Some(b'{' | b'[')) {
        return json_text(extension, bytes);
    }
    None
}

/// What a text is that is in no format.
fn plain_text(path: &Path, extension: &str, bytes: &[u8]) -> Option<String> {
    /// As long as the magic numbers of formats, which a reader may know better.
    const SHORTEST: usize = 9;
    // Formats that are texts.
    let named = matches!(extension, "yaml" | "yml" | "gz" | "zst" | "index" | "pbtxt")
        || path.file_name().is_some_and(|name| name == "checkpoint");
    if named || bytes.len() < SHORTEST || !is_text(bytes) {
        return None;
    }
    let head = head(bytes);
    let text = head.trim_start_matches('\u{feff}').trim_start();
    let line = text.lines().next().unwrap_or_default();
    Some(format!(
        "this is plain text that begins `{}`; download the file itself",
        clip(line)
    ))
}

/// What JSON is that is no state dictionary and no model.
fn json_text(extension: &str, bytes: &[u8]) -> Option<String> {
    /// An error is short; weights as numbers are not.
    const LONGEST: usize = 1 << 20;
    if bytes.len() > LONGEST {
        return None;
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: serde_json::Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        // A broken one of a JSON format has a better error of that, and TOML begins with a bracket, too.
        Err(_) if extension == "json" || bytes.starts_with(b"[") || !is_text(bytes) => {
            return None;
        }
        Err(error) => {
            return Some(format!(
                "this is text that begins as JSON ({error}); download the file itself"
            ));
        }
    };
    if value.get("tensors").is_some() || value.get("parameters").is_some() {
        return None;
    }
    for key in ["error", "errors", "message", "detail"] {
        if let Some(found) = value.get(key) {
            let text = found
                .as_str()
                .map_or_else(|| found.to_string(), str::to_owned);
            return Some(format!(
                "this is a server's error in JSON (`{}`); download the file itself",
                clip(&text)
            ));
        }
    }
    if value.get("weight_map").is_some() {
        let reason =
            "this is an index of shards; name it with the ending `.index.json`, beside its shards";
        return Some(reason.to_owned());
    }
    if extension == "json" {
        return None;
    }
    let keys = [
        "model_type",
        "architectures",
        "tokenizer_class",
        "added_tokens",
    ];
    let is_beside = keys.iter().any(|key| value.get(key).is_some());
    let what = if is_beside {
        "a model's configuration"
    } else {
        "JSON"
    };
    Some(format!(
        "this is {what}, not weights; download the file itself"
    ))
}

fn head(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD)])
}

fn is_web_page(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&str; 6] = [
        "<!doctype html",
        "<html",
        "<head",
        "<body",
        "<script",
        "<title",
    ];
    let head = head(bytes);
    let mut text = head.trim_start_matches('\u{feff}').trim_start();
    // A page may begin with its XML declaration or with remarks.
    while let Some((_, rest)) = text
        .starts_with("<?xml")
        .then(|| text.split_once("?>"))
        .or_else(|| text.starts_with("<!--").then(|| text.split_once("-->")))
        .flatten()
    {
        text = rest.trim_start();
    }
    let begins = |beginning: &str| {
        let start = text.get(..beginning.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    };
    BEGINNINGS.into_iter().any(begins)
}

/// Whether it is nothing but text, as far as it is looked at.
fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEAD)];
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() && bytes.len() > HEAD => {
            str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x0c' | '\x1b');
    !text.is_empty() && !text.contains(odd)
}

/// Whether it is a JSON object. An empty file and one of blanks are none.
fn is_json(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}
