//! Checkpoints of the first version: one table, whose values are slices of tensors.
//!
//! The layout is that of `core/util/saved_tensor_slice.proto` and `tensor_slice_{reader,writer}.cc` of
//! TensorFlow 2.17.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use super::malformed;
use super::slice::{Place, Slice, places};
use super::table::{Handle, Table};
use super::tensor::{self, Layout, Tensor};
use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::protobuf::{self, Message, Refusal};

/// Reads the checkpoint that `table` is; its file is `length` bytes long.
pub(super) fn read(path: &Path, table: &Table, length: usize) -> Result<Checkpoint, FormatError> {
    let refuse = |(at, reason): Refusal| malformed(path, at, reason);
    let mut listed = None;
    let mut slices: HashMap<String, Vec<Found>> = HashMap::new();
    for handle in table.blocks().map_err(refuse)? {
        let block = table.block(handle).map_err(refuse)?;
        for (place, item) in block.items().map_err(refuse)?.enumerate() {
            let item = item.map_err(refuse)?;
            let message = Message::new(item.value, item.at);
            if listed.is_none() {
                table.verify(handle).map_err(refuse)?;
                listed = Some(meta(&message).map_err(refuse)?);
                continue;
            }
            let (name, slice) = saved(&message).map_err(refuse)?;
            let found = slices.entry(name).or_default();
            found.push(Found {
                slice,
                handle,
                place,
            });
        }
    }
    let listed = listed.ok_or_else(|| malformed(path, 0, "the table is empty".to_owned()))?;
    let mut entries = IndexMap::new();
    for (name, layout, at) in listed {
        let refuse = |reason: String| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&name),
            offset: Some(at as u64),
            reason,
        };
        layout.bounded(length).map_err(refuse)?;
        let found = slices.remove(&name).unwrap_or_default();
        let places = places(found.iter().map(|found| &found.slice), &layout).map_err(refuse)?;
        let reader = Reader {
            path: path.to_owned(),
            name: name.clone(),
            table: table.clone(),
            length,
            layout,
            parts: found.into_iter().zip(places).collect(),
        };
        let layout = &reader.layout;
        let (dtype, shape, bytes) = (layout.dtype.clone(), layout.sizes(), layout.bytes as usize);
        let entry = Entry::new(dtype, shape, bytes, move || reader.read());
        if entries.insert(name.clone(), entry).is_some() {
            return Err(refuse("it is there twice".to_owned()));
        }
    }
    if let Some(name) = slices.keys().next() {
        let reason = format!("a slice is of `{}`, which is not listed", clip(name));
        return Err(malformed(path, 0, reason));
    }
    Ok(Checkpoint::new(
        Format::TensorFlowV1,
        vec![path.to_owned()],
        BTreeMap::new(),
        entries,
    ))
}

/// Where a slice is in the table.
struct Found {
    slice: Slice,
    handle: Handle,
    /// Which entry of its block it is.
    place: usize,
}

/// Name, layout and place of each tensor, out of a `SavedTensorSlices` that is the table of contents.
fn meta(message: &Message) -> Result<Vec<(String, Layout, usize)>, Refusal> {
    let mut listed = Vec::new();
    for field in message.fields() {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in field.message()?.fields() {
            let field = field?;
            if field.number != 1 {
                continue;
            }
            let (mut name, mut code, mut sizes) = (String::new(), 0, Vec::new());
            for inner in field.message()?.fields() {
                let inner = inner?;
                match inner.number {
                    1 => name = protobuf::name(&inner)?,
                    2 => sizes = tensor::shape(&inner.message()?)?,
                    3 => code = inner.unsigned()?,
                    _ => {}
                }
            }
            let layout = Layout::new(code, sizes)
                .map_err(|reason| (field.at, format!("`{}`: {reason}", clip(&name))))?;
            listed.push((name, layout, field.at));
        }
    }
    Ok(listed)
}

/// The name and the slice that a `SavedTensorSlices` has data of.
fn saved(message: &Message) -> Result<(String, Slice), Refusal> {
    let data = data_of(message)?;
    let (mut name, mut slice) = (String::new(), None);
    for field in data.fields() {
        let field = field?;
        match field.number {
            1 => name = protobuf::name(&field)?,
            2 => slice = Some(Slice::read(&field.message()?)?),
            _ => {}
        }
    }
    let slice = slice.ok_or_else(|| (data.at(), "a value is of no slice".to_owned()))?;
    Ok((name, slice))
}

fn data_of(message: &Message) -> Result<Message, Refusal> {
    for field in message.fields() {
        let field = field?;
        if field.number == 2 {
            return field.message();
        }
    }
    Err((message.at(), "a value has no data".to_owned()))
}

/// One tensor.
struct Reader {
    path: PathBuf,
    name: String,
    table: Table,
    length: usize,
    layout: Layout,
    parts: Vec<(Found, Place)>,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let layout = &self.layout;
        let refuse = |(at, reason): Refusal| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(at as u64),
            reason,
        };
        let size = layout.size.filter(|_| layout.dtype.to_burn().is_some());
        let size =
            size.ok_or_else(|| refuse((0, format!("the type {} cannot be read", layout.dtype))))?;
        if let [(found, place)] = &self.parts[..] {
            let bytes = self.part(found, place).map_err(refuse)?;
            return data::typed(bytes, &layout.sizes(), &layout.dtype)
                .map_err(|reason| refuse((0, reason)));
        }
        let mut whole = vec![0; layout.bytes as usize];
        for (found, place) in &self.parts {
            let bytes = self.part(found, place).map_err(refuse)?;
            place.paste(&mut whole, &layout.shape, &bytes, size);
        }
        data::typed(whole.into(), &layout.sizes(), &layout.dtype)
            .map_err(|reason| refuse((0, reason)))
    }

    /// The bytes of one slice.
    fn part(&self, found: &Found, place: &Place) -> Result<Bytes, Refusal> {
        self.table.verify(found.handle)?;
        let block = self.table.block(found.handle)?;
        let missing = || {
            (
                found.handle.offset,
                "its slice is not in its block".to_owned(),
            )
        };
        let item = block.items()?.nth(found.place).ok_or_else(missing)??;
        for field in data_of(&Message::new(item.value, item.at))?.fields() {
            let field = field?;
            if field.number == 3 {
                let (code, sizes) = (self.layout.code, place.sizes.clone());
                return Tensor::of(field.message()?, code, sizes, self.length)?.bytes();
            }
        }
        Err(missing())
    }
}
