//! Which format a file is in: by its content, and by its name where the content says nothing.

use std::path::Path;

use bytes::Bytes;

use crate::checkpoint::{Checkpoint, Format};
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
    (b"<!DOCTYPE", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
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
];

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
    if pytorch::is_pickle(&map) || pytorch::is_tar(&map) {
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
        return if is_json(&text) {
            json::read(path, &text)
        } else {
            model_text::read_yaml(path, &text)
        };
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
    if let Some(found) = tensorflow::read(path, &map) {
        return found;
    }
    if let Some(what) = other(&map) {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: format!("this is {what}"),
        });
    }
    if onnx::is_onnx(&map) {
        return onnx::read(path, map);
    }
    if flax::is_flax(&map) {
        return flax::read(path, map);
    }
    match extension {
        "pt" | "pth" | "th" | "bin" | "ckpt" => pytorch::read(path, map),
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
    found.map(|(_, what)| *what)
}

/// Whether it is a JSON object. An empty file and one of blanks are none.
fn is_json(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}
