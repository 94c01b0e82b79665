//! Writing NumPy's `.npy` and `.npz`, as `numpy.save` and `numpy.savez` do.

use super::{FORMAT, MAGIC};
use crate::checkpoint::{Dtype, Entry};
use crate::error::FormatError;
use crate::write::{Draft, Job, Writer};
use crate::zip::ZipDraft;

pub(crate) const NPY: Writer = Writer {
    name: "npy",
    endings: &[".npy"],
    holds,
    write: |job| {
        let [(name, entry)] = job.tensors[..] else {
            return Err(FormatError::Malformed {
                path: job.path.to_owned(),
                format: FORMAT,
                offset: None,
                reason: format!(
                    "an `.npy` holds one array, and here are {}; write an `.npz`",
                    job.tensors.len()
                ),
            });
        };
        let mut out = Draft::create(job.path)?;
        out.write(&header(entry))?;
        job.copy(name, entry, &mut out)?;
        Ok(vec![out.place()?])
    },
};

pub(crate) const NPZ: Writer = Writer {
    name: "npz",
    endings: &[".npz"],
    holds,
    write: |job| {
        let mut archive = ZipDraft::new(Draft::create(job.path)?, ALIGNMENT);
        for (name, entry) in &job.tensors {
            member(job, &mut archive, name, entry)?;
        }
        archive.place()
    },
};

/// What the data behind a header is aligned to.
const ALIGNMENT: u64 = 64;

fn member(
    job: &Job<'_>,
    archive: &mut ZipDraft,
    name: &str,
    entry: &Entry,
) -> Result<(), FormatError> {
    let header = header(entry);
    let size = (header.len() + entry.bytes) as u64;
    archive.member(&format!("{name}.npy"), size, |member| {
        member.write(&header)?;
        member.write(&job.bytes(name, entry)?)
    })?;
    job.wrote(name, entry);
    Ok(())
}

fn holds(dtype: &Dtype) -> bool {
    descr(dtype).is_some()
}

fn descr(dtype: &Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::F64 => "<f8",
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::I64 => "<i8",
        Dtype::I32 => "<i4",
        Dtype::I16 => "<i2",
        Dtype::I8 => "|i1",
        Dtype::U64 => "<u8",
        Dtype::U32 => "<u4",
        Dtype::U16 => "<u2",
        Dtype::U8 => "|u1",
        Dtype::Bool => "|b1",
        _ => return None,
    })
}

fn header(entry: &Entry) -> Vec<u8> {
    let mut shape: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
    if shape.len() == 1 {
        // A tuple of one.
        shape.push(String::new());
    }
    let text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
        descr(&entry.dtype).unwrap_or_default(),
        shape.join(", ").trim_end()
    );
    // Magic, version and length come before the text, a line's end after it.
    let before = MAGIC.len() + 4;
    let length = (before + text.len() + 1).next_multiple_of(ALIGNMENT as usize) - before;
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((length as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header.resize(before + length - 1, b' ');
    header.push(b'\n');
    header
}
