//! Writing the zip archive that `torch.load(weights_only=True)` reads.
//!
//! The pickle is protocol 2, and names what `torch.save` of a state dictionary names: `OrderedDict`, a class
//! of storage for each type, and the function that makes a tensor of one.

use super::containers::METADATA;
use super::globals::Element;
use crate::checkpoint::{Dtype, Entry};
use crate::error::FormatError;
use crate::sharded;
use crate::write::{Draft, Job, Whole, Writer};
use crate::zip::ZipDraft;

pub(crate) const WRITER: Writer = Writer {
    name: "pytorch",
    endings: &[".bin", ".pt", ".pth", ".th", ".ckpt"],
    holds: |dtype| !matches!(dtype, Dtype::Quantized(_)) && Element::of_dtype(dtype).is_some(),
    write: |job| sharded::write(job, write_file),
};

/// The folder of all members.
const ROOT: &str = "archive";
/// What PyTorch aligns storages to.
const ALIGNMENT: u64 = 64;

fn write_file(job: &Job<'_>) -> Result<Whole, FormatError> {
    let mut archive = ZipDraft::new(Draft::create(job.path)?, ALIGNMENT);
    archive.bytes(&format!("{ROOT}/data.pkl"), &pickle(job)?)?;
    archive.bytes(&format!("{ROOT}/.format_version"), b"1")?;
    archive.bytes(&format!("{ROOT}/.storage_alignment"), b"64")?;
    archive.bytes(&format!("{ROOT}/byteorder"), b"little")?;
    for (key, (name, entry)) in job.tensors.iter().enumerate() {
        let size = entry.bytes as u64;
        archive.member(&format!("{ROOT}/data/{key}"), size, |member| {
            member.write(&job.bytes(name, entry)?)
        })?;
        job.wrote(name, entry);
    }
    archive.bytes(&format!("{ROOT}/version"), b"3\n")?;
    if !job.metadata.is_empty() {
        let text = serde_json::json!(job.metadata).to_string();
        archive.bytes(&format!("{ROOT}/{METADATA}"), text.as_bytes())?;
    }
    archive.finish()
}

fn pickle(job: &Job<'_>) -> Result<Vec<u8>, FormatError> {
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.global("collections", "OrderedDict");
    pickle.0.extend(b")R(");
    for (key, (name, entry)) in job.tensors.iter().enumerate() {
        let element = Element::of_dtype(&entry.dtype);
        let element = element
            .ok_or_else(|| job.refuse(name, format!("PyTorch has no type {}", entry.dtype)))?;
        pickle.text(name);
        pickle.tensor(entry, element, key);
    }
    pickle.0.extend(b"u.");
    Ok(pickle.0)
}

/// The opcodes so far.
struct Pickle(Vec<u8>);

impl Pickle {
    fn tensor(&mut self, entry: &Entry, element: Element, key: usize) {
        let (name, class) = element.names();
        let rebuild = match class {
            Some(_) => "_rebuild_tensor_v2",
            None => "_rebuild_tensor_v3",
        };
        self.global("torch._utils", rebuild);
        self.0.extend(b"((");
        self.text("storage");
        let length = match class {
            Some(class) => {
                self.global("torch", &format!("{class}Storage"));
                entry.elements()
            }
            None => {
                self.global("torch.storage", "UntypedStorage");
                entry.bytes
            }
        };
        self.text(&key.to_string());
        self.text("cpu");
        self.int(length);
        self.0.extend(b"tQ");
        self.int(0);
        self.ints(&entry.shape);
        let mut stride = 1;
        let mut strides: Vec<usize> = Vec::with_capacity(entry.shape.len());
        for size in entry.shape.iter().rev() {
            strides.push(stride);
            stride *= (*size).max(1);
        }
        strides.reverse();
        self.ints(&strides);
        // No gradient, and no hooks.
        self.0.push(0x89);
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
        if class.is_none() {
            self.global("torch", name);
        }
        self.0.extend(b"tR");
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn ints(&mut self, values: &[usize]) {
        self.0.push(b'(');
        values.iter().for_each(|value| self.int(*value));
        self.0.push(b't');
    }

    fn int(&mut self, value: usize) {
        if let Ok(small) = u8::try_from(value) {
            self.0.extend([b'K', small]);
        } else if let Ok(middle) = i32::try_from(value) {
            self.0.push(b'J');
            self.0.extend(middle.to_le_bytes());
        } else {
            // A ninth byte keeps the sign.
            self.0.extend([0x8a, 9]);
            self.0.extend((value as u64).to_le_bytes());
            self.0.push(0);
        }
    }
}
