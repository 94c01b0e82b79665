//! ONNX: the weights of an exported model. Its graph is not run here; it says what the weights are called.
//!
//! The messages are those of <https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto>. Initializers, and the
//! constants of nodes that are floats, are the tensors; they stay in the mapped file or in the files of their
//! external data. What is quantized becomes `f32` by the node that takes it. Sparse tensors, segments and
//! external data outside of the model's directory are refused.
//!
//! # Names
//!
//! A parameter that the exporter left as it was has its name. One that it transposed or folded a norm into gets
//! the name of its place in the graph: that of the module whose node takes it, as PyTorch's exporters note it,
//! or of the bias behind it. `onnx.named_by_place` in the metadata says how many. What has no such place keeps
//! the exporter's name, and is marked as [`Entry::generated`]; [`load`](fn@crate::load) then goes by the order.
//!
//! [`Entry::layout`] says which linear weights lie as `[in, out]`.

mod flow;
mod graph;
mod names;
mod quantized;
mod tensor;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

pub(crate) use self::flow::{Flow, Joint};
use self::graph::Graph;
use self::names::{Position, Role, is_path};
use self::quantized::Quantized;
use self::tensor::{Elsewhere, Failure, Owned, Tensor, Values};
use crate::checkpoint::{Checkpoint, Dtype, Entry, Format};
use crate::data::{self, clip};
use crate::error::FormatError;
use crate::map::map_file;
use crate::protobuf::{Slice, Wire};
use crate::sharded::in_file;

const FORMAT: &str = "ONNX";

/// Opens one model.
///
/// # Errors
/// The file cannot be read, is truncated or corrupt, or a file of its external data is missing.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    read(path, map_file(path)?)
}

/// Whether the bytes are a `ModelProto`: a version of its format, and a graph.
pub(crate) fn is_onnx(bytes: &[u8]) -> bool {
    const MOST_VERSION: u64 = 1 << 10;
    let (mut version, mut graph) = (false, false);
    for field in Slice::whole(bytes).fields() {
        match field {
            Ok((1, Wire::Varint(number))) => version = number <= MOST_VERSION,
            Ok((7, Wire::Bytes(_))) => graph = true,
            Ok((2..=8 | 14 | 20 | 25 | 26, _)) => {}
            _ => return false,
        }
    }
    version && graph
}

pub(crate) fn read(path: &Path, map: Bytes) -> Result<Checkpoint, FormatError> {
    let refuse = |failure| match failure {
        Failure::Broken((offset, reason)) => FormatError::Malformed {
            path: path.to_owned(),
            format: FORMAT,
            offset: Some(offset as u64),
            reason,
        },
        Failure::Tensor(reason) => FormatError::Malformed {
            path: path.to_owned(),
            format: FORMAT,
            offset: None,
            reason: format!("a tensor cannot be read: {reason}"),
        },
        Failure::Named(tensor, offset, reason) => FormatError::Tensor {
            path: path.to_owned(),
            tensor,
            offset: Some(offset as u64),
            reason,
        },
        Failure::Format(error) => error,
    };
    let mut elsewhere = Elsewhere::new(path);
    let graph = Graph::read(Slice::whole(&map), &mut elsewhere).map_err(refuse)?;
    if graph.nodes.is_empty() && graph.tensors.is_empty() {
        let reason = "it has neither nodes nor tensors".to_owned();
        return Err(refuse(Failure::Broken((0, reason))));
    }
    let mut collector = Collector {
        path,
        map: &map,
        graph: &graph,
        own: HashSet::new(),
        entries: IndexMap::new(),
        named_by_place: 0,
    };
    collector.collect().map_err(refuse)?;
    let (entries, named_by_place) = (collector.entries, collector.named_by_place);
    let mut metadata: BTreeMap<String, String> = graph
        .metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut note = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            metadata.insert(format!("onnx.{key}"), value);
        }
    };
    note("producer", graph.producer.clone());
    note("opset", graph.opset.map(|version| version.to_string()));
    note("named_by_place", Some(named_by_place.to_string()));
    let mut files = vec![path.to_owned()];
    files.extend(elsewhere.files());
    Ok(Checkpoint::new(Format::Onnx, files, metadata, entries))
}

/// The file of an encoder whose decoder is exported to another, and that of the decoder.
const ENCODER: &str = "encoder_model.onnx";
const DECODERS: [&str; 2] = ["decoder_model.onnx", "decoder_model_merged.onnx"];

/// An encoder with the decoder beside it, as Optimum exports them; any other checkpoint as it is.
///
/// The encoder was exported alone, so that its names want the `encoder.` that the whole model has.
pub(crate) fn with_decoder(path: &Path, encoder: Checkpoint) -> Result<Checkpoint, FormatError> {
    let mut siblings = DECODERS.iter().map(|name| path.with_file_name(name));
    let (decoder, sibling) = match siblings.find(|sibling| sibling.is_file()) {
        Some(sibling) if path.file_name() == Some(ENCODER.as_ref()) => (open(&sibling)?, sibling),
        _ => return Ok(encoder),
    };
    let (mut files, metadata) = (encoder.files.clone(), encoder.metadata.clone());
    files.extend(decoder.files.iter().cloned());
    let mut entries = IndexMap::new();
    for (name, entry) in in_file(encoder.into_entries(), path) {
        let whole = format!(".{name}").contains(".encoder.");
        let name = match (entry.generated, whole) {
            (true, _) => format!("{ENCODER}/{name}"),
            (false, true) => name,
            (false, false) => format!("encoder.{name}"),
        };
        entries.insert(name, entry);
    }
    for (name, mut entry) in in_file(decoder.into_entries(), &sibling) {
        // All nodes of the decoder come behind those of the encoder.
        if let Some(place) = &mut entry.place {
            place.graph += 1;
        }
        entries.entry(name).or_insert(entry);
    }
    Ok(Checkpoint::new(Format::Onnx, files, metadata, entries))
}

/// Makes entries of the graph's tensors.
struct Collector<'a, 'b> {
    path: &'b Path,
    map: &'a Bytes,
    graph: &'b Graph<'a>,
    /// The names that are the exported model's own.
    own: HashSet<&'a str>,
    entries: IndexMap<String, Entry>,
    named_by_place: usize,
}

impl<'a> Collector<'a, '_> {
    fn collect(&mut self) -> Result<(), Failure> {
        let graph = self.graph;
        let mut quantized = Vec::new();
        let mut parts: HashSet<&str> = HashSet::new();
        for tensor in graph.tensors.values() {
            let found = Quantized::find(graph, tensor, self.map)
                .map_err(|reason| Failure::Named(clip(tensor.name), tensor.at, reason))?;
            quantized.push(found.map(|(found, used)| {
                parts.extend(used);
                found
            }));
        }
        let flow = Arc::new(Flow::new(graph));
        let names = graph.tensors.keys().map(|name| unquantized(name));
        self.own = names.filter(|name| is_path(name)).collect();
        for (tensor, quantized) in graph.tensors.values().zip(quantized) {
            if parts.contains(tensor.name) {
                continue;
            }
            let position = Position::find(graph, tensor.name);
            // Shapes and the like are no weights, but a constant that a layer takes is, and one that was quantized.
            let is_float = tensor.kind.is_float() || quantized.is_some();
            if position.is_none() && !is_float && !is_path(tensor.name) {
                continue;
            }
            let (name, generated) = self.name(tensor.name, position.as_ref());
            let mut entry = self.entry(tensor, quantized, &name);
            if let Some(position) = &position {
                entry = entry.with_layout(position.layout());
            }
            let rank = tensor.shape.len();
            let place = names::place(graph, &flow, tensor.name, rank, position.as_ref());
            self.entries
                .insert(name, entry.with_generated(generated).at(place));
        }
        self.aliases();
        Ok(())
    }

    /// The name of a tensor, and whether it is one that the exporter made up.
    fn name(&mut self, stored: &'a str, position: Option<&Position<'a>>) -> (String, bool) {
        let own = unquantized(stored);
        let is_bias = position.is_some_and(|position| position.role == Role::Other("bias"));
        // A bias that came out of folding a norm is named after the weight that it was folded into.
        let folded = is_bias && !own.ends_with(".bias");
        if is_path(own) && !folded && !self.entries.contains_key(own) {
            return (own.to_owned(), false);
        }
        if let Some(name) = position.and_then(|position| self.placed(position))
            && !self.own.contains(&name[..])
            && !self.entries.contains_key(&name)
        {
            self.named_by_place += 1;
            return (name, false);
        }
        (stored.to_owned(), !is_path(own))
    }

    /// The name that a place in the graph gives.
    fn placed(&self, position: &Position<'a>) -> Option<String> {
        let Some(weight) = position.weight_beside() else {
            return position.name(self.graph);
        };
        let own = unquantized(weight);
        let weight = if is_path(own) {
            own.to_owned()
        } else {
            Position::find(self.graph, weight)?.name(self.graph)?
        };
        Some(format!("{}.bias", weight.strip_suffix(".weight")?))
    }

    fn entry(&self, tensor: &Tensor<'a>, quantized: Option<Quantized>, name: &str) -> Entry {
        let data = match quantized {
            Some(quantized) => Data::Quantized(Box::new(quantized)),
            None => Data::Stored(tensor.owned(self.map)),
        };
        let (dtype, shape) = match &data {
            Data::Quantized(quantized) => {
                let dtype = Dtype::Quantized(tensor.kind.quantized_name());
                (dtype, quantized.shape.clone())
            }
            Data::Stored(_) => (tensor.kind.dtype(), tensor.shape.clone()),
        };
        let reader = Reader {
            path: self.path.to_owned(),
            name: name.to_owned(),
            offset: tensor.at as u64,
            data,
        };
        Entry::new(dtype, shape, tensor.size(), move || reader.read())
    }

    /// Of tensors that are equal, exporters keep one, and give it the names of the others by `Identity`.
    fn aliases(&mut self) {
        for node in self.graph.nodes.iter().filter(|node| node.op == "Identity") {
            let (Some(input), Some(output)) = (node.input(0), node.output()) else {
                continue;
            };
            if is_path(output)
                && !self.entries.contains_key(output)
                && let Some(entry) = self.entries.get(input).cloned()
            {
                self.entries.insert(output.to_owned(), entry);
            }
        }
    }
}

/// The name without what a quantizer put behind it, one ending after the other: what it transposes to make a `MatMul`
/// of a `Gemm` is `weight_Transposed`, and then `weight_Transposed_quantized`.
fn unquantized(name: &str) -> &str {
    const ENDINGS: [&str; 6] = ["_quantized", "_Transposed", "_DQ_Q4", "_Q2", "_Q4", "_Q8"];
    let mut name = name;
    while let Some(inner) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
        name = inner;
    }
    name
}

/// What a tensor is read from.
enum Data {
    Stored(Owned),
    Quantized(Box<Quantized>),
}

/// One tensor, to be read when it is wanted.
struct Reader {
    path: PathBuf,
    name: String,
    offset: u64,
    data: Data,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let read = match &self.data {
            Data::Quantized(quantized) => quantized
                .read()
                .map(|values| TensorData::new(values, quantized.shape.clone())),
            Data::Stored(tensor) => match &tensor.kind.values {
                Values::Plain(dtype) => tensor
                    .bytes()
                    .and_then(|bytes| data::typed(bytes, &tensor.shape, dtype)),
                Values::Small(..) => tensor
                    .floats()
                    .map(|values| TensorData::new(values, tensor.shape.clone())),
                Values::Listed(name) => Err(format!("the type {name} cannot be read")),
            },
        };
        read.map_err(|reason| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(self.offset),
            reason,
        })
    }
}
