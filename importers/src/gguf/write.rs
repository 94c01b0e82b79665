//! Writing GGUF, version 3.

use std::path::PathBuf;

use super::metadata::put_text;
use super::quants::Kind;
use super::{DEFAULT_ALIGNMENT, MAGIC, Metadata, Value};
use crate::checkpoint::{Dtype, Entry};
use crate::error::FormatError;
use crate::write::{Draft, Job, Writer};

pub(crate) const WRITER: Writer = Writer {
    name: "gguf",
    endings: &[".gguf"],
    holds: |dtype| !matches!(dtype, Dtype::Other(_)) && Kind::of(dtype).is_some(),
    write,
};

const VERSION: u32 = 3;
const ALIGNMENT: &str = "general.alignment";
/// GGML's own limits, beyond which llama.cpp does not open a file.
const MOST_DIMENSIONS: usize = 4;
const LONGEST_NAME: usize = 63;

/// Why a tensor of a type that GGUF has cannot be written.
pub(crate) fn refusal(name: &str, entry: &Entry) -> Option<String> {
    if name.len() > LONGEST_NAME {
        return Some(format!(
            "its name has {} bytes, and GGUF's have {LONGEST_NAME} at most",
            name.len()
        ));
    }
    (entry.shape.len() > MOST_DIMENSIONS).then(|| {
        format!(
            "it has {} dimensions, and GGUF's tensors have {MOST_DIMENSIONS} at most",
            entry.shape.len()
        )
    })
}

fn write(job: &Job<'_>) -> Result<Vec<PathBuf>, FormatError> {
    let metadata = match &job.options.gguf {
        Some(metadata) => metadata.clone(),
        None => texts(job),
    };
    let alignment = metadata.iter().find(|(key, _)| key == ALIGNMENT);
    let alignment = alignment
        .and_then(|(_, value)| value.as_u32())
        .filter(|alignment| alignment.is_power_of_two())
        .map_or(DEFAULT_ALIGNMENT, u64::from);
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((job.tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in &metadata {
        put_text(&mut header, key.as_bytes());
        value.put(&mut header);
    }
    let mut at: u64 = 0;
    for (name, entry) in &job.tensors {
        let kind = Kind::of(&entry.dtype)
            .ok_or_else(|| job.refuse(name, format!("GGUF has no type {}", entry.dtype)))?;
        if let Some(reason) = refusal(name, entry) {
            return Err(job.refuse(name, reason));
        }
        put_text(&mut header, name.as_bytes());
        header.extend((entry.shape.len() as u32).to_le_bytes());
        for size in entry.shape.iter().rev() {
            header.extend((*size as u64).to_le_bytes());
        }
        header.extend(kind.id.to_le_bytes());
        header.extend(at.to_le_bytes());
        at = (at + entry.bytes as u64).next_multiple_of(alignment);
    }
    let mut out = Draft::create(job.path)?;
    out.write(&header)?;
    out.pad(header.len() as u64, alignment)?;
    for (name, entry) in &job.tensors {
        job.copy(name, entry, &mut out)?;
        out.pad(entry.bytes as u64, alignment)?;
    }
    Ok(vec![out.place()?])
}

/// Metadata that has no types, as texts.
fn texts(job: &Job<'_>) -> Metadata {
    const ARCHITECTURE: &str = "general.architecture";
    let mut texts = job.metadata.clone();
    let architecture = texts.remove(ARCHITECTURE).unwrap_or("unknown".to_owned());
    // It is a number where it is one at all.
    texts.remove(ALIGNMENT);
    let first = (ARCHITECTURE.to_owned(), architecture);
    let all = std::iter::once(first).chain(texts);
    all.map(|(key, text)| (key, Value::text(&text))).collect()
}
