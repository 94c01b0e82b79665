//! PyTorch's `.pt`, `.pth`, `.bin`, `.th` and `.ckpt` files.
//!
//! Three containers, told apart by content: the zip archive that `torch.save` writes since 1.6 (TorchScript
//! archives too, whose code is ignored), the run of pickles and storages before it, and the tar archive
//! before that. In each, a pickle says what the tensors are. It is never run: a small machine builds the
//! values that weights are made of, and refuses every other name.
//!
//! Of the crates on offer, `pytorch-reader` 0.23.0-pre.1, which `burn-store` uses too, comes nearest. It
//! refuses big-endian files and reads storages into memory that could stay mapped. So this is our own.
//!
//! # Names
//!
//! Nested dictionaries, lists and attributes become dotted names, `encoder.0.weight`; a file that is one
//! tensor has the name `tensor`.
//!
//! Two things are taken off, and [`Checkpoint::metadata`] says so:
//!
//! - A wrapper: when the outermost dictionary has a dictionary with tensors under `state_dict`,
//!   `model_state_dict` or `model` — the first of them in that order — that one is the checkpoint, and so on
//!   within it. `pytorch.wrapper` names it. Tensors beside it, such as the state of an optimizer, are left
//!   out; `pytorch.left_out` says how many under which names.
//! - The prefixes `module.` and `_orig_mod.` of PyTorch's parallel and compiled modules, when every tensor
//!   has them. `names.wrapper` names what was taken off.
//!
//! Numbers, short texts and short lists of them that stand beside the tensors are kept as metadata, under
//! their dotted names. What is longer is left out, and `pytorch.metadata_left_out` says how many there were.
//!
//! # Data
//!
//! A contiguous tensor stays in the mapped file. Views with other strides are gathered when they are read;
//! tensors that share a storage share its bytes.

pub(crate) mod containers;
mod derived;
mod flatten;
mod globals;
mod pickle;
mod write;

use std::path::Path;

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::error::FormatError;
use crate::map::map_file;
use crate::zip::{self, Archive};

pub(crate) use write::WRITER;

pub(crate) const FORMAT: &str = "PyTorch";

/// Where a tar archive says that it is one.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Opens one file of any of PyTorch's containers.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or its pickle names what weights are not made of.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    if zip::is_zip(&map) {
        containers::zip(path, &map, Archive::open(path, FORMAT, &map)?)
    } else if is_tar(&map) {
        containers::tar(path, &map)
    } else if is_pickle(&map) || is_text_pickle(&map) {
        containers::legacy(path, &map)
    } else {
        Err(FormatError::Malformed {
            path: path.to_owned(),
            format: FORMAT,
            offset: Some(0),
            reason: format!(
                "its {} bytes begin neither as a zip archive, nor as a pickle, nor as a tar archive",
                map.len()
            ),
        })
    }
}

/// Whether the bytes begin with a pickle of protocol 2 or later.
pub(crate) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// Whether the bytes begin with a pickle of protocol 0 or 1: an opcode that opens a container or names something, and a
/// way to the end. A text may begin with the same letter.
pub(crate) fn is_text_pickle(bytes: &[u8]) -> bool {
    let begins = match bytes {
        [b'(', b'd' | b'l' | b't' | b'i', ..] => true,
        [b'}' | b']' | b')', b'q' | b'r' | b'p' | b'.' | b'(', ..] => true,
        [b'c', ..] => {
            // `cmodule\nname\n`, then a place in the memo or a tuple.
            let mut lines = bytes[1..].splitn(3, |byte| *byte == b'\n');
            let is_name = |line: Option<&[u8]>| {
                line.is_some_and(|line| {
                    !line.is_empty()
                        && line.len() < 256
                        && line
                            .iter()
                            .all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(byte))
                })
            };
            is_name(lines.next())
                && is_name(lines.next())
                && lines.next().is_some_and(|rest| {
                    rest.starts_with(b"p")
                        || rest.starts_with(b"q")
                        || rest.starts_with(b"(")
                        || rest.starts_with(b")")
                })
        }
        _ => false,
    };
    begins && bytes.trim_ascii_end().ends_with(b".")
}

/// Whether weights are made of what a pickle names so.
pub(crate) fn is_known(module: &str, name: &str) -> bool {
    use globals::Global;
    // The last three lead to other pickles or classes, which whoever scans judges by themselves.
    !matches!(
        Global::find(module, name),
        None | Some(Global::Inert | Global::LoadFromBytes | Global::Reconstruct)
    )
}

pub(crate) fn is_tar(bytes: &[u8]) -> bool {
    let (at, magic) = TAR_MAGIC;
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}
