//! The constants of frozen graphs and of SavedModels' graphs.
//!
//! The messages are those of `core/framework/{graph,node_def,function,attr_value}.proto` and
//! `core/protobuf/{meta_graph,saved_model}.proto` of TensorFlow 2.17.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use bytes::Bytes;
use indexmap::IndexMap;

use super::tensor::Tensor;
use super::{TAGS, malformed};
use crate::checkpoint::{Checkpoint, Entry, Format};
use crate::data::{self, VIEW_MARGIN, clip};
use crate::error::FormatError;
use crate::protobuf::{self, Field, Message, Refusal, Value};

/// What a SavedModel is served with.
const SERVE: &str = "serve";

/// Whether the bytes begin as a graph does: with a node that has a name and an operation.
pub(super) fn is_graph(map: &Bytes) -> bool {
    let message = Message::new(map.clone(), 0);
    let Some(Ok(node)) = message.fields().next() else {
        return false;
    };
    let Ok(node) = node.message().map(|inner| (node.number, inner)) else {
        return false;
    };
    let mut named = node
        .1
        .fields()
        .take(2)
        .map(|field| field.and_then(|field| Ok((field.number, field.text()?))));
    let is = |text: &str| !text.is_empty() && !text.contains(char::is_control);
    node.0 == 1
        && matches!(named.next(), Some(Ok((1, name))) if is(&name))
        && matches!(named.next(), Some(Ok((2, operation))) if is(&operation))
}

/// Whether the bytes begin as a SavedModel does: with its version, which is 1, and a graph with its heading.
pub(super) fn is_saved_model(map: &Bytes) -> bool {
    let message = Message::new(map.clone(), 0);
    let mut fields = message.fields();
    let version = matches!(
        fields.next(),
        Some(Ok(Field {
            number: 1,
            value: Value::Varint(1),
            ..
        }))
    );
    let Some(Ok(graph)) = fields.next() else {
        return false;
    };
    let Ok(inner) = graph.message() else {
        return false;
    };
    let first = inner.fields().next();
    version
        && graph.number == 2
        && matches!(first, Some(Ok(field)) if (1..=7).contains(&field.number) && field.bytes().is_ok())
}

/// Reads a `GraphDef`.
pub(super) fn read_graph(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let graph = Message::new(map.clone(), 0);
    constants(
        path,
        Format::TensorFlowGraph,
        &graph,
        map.len(),
        BTreeMap::new(),
    )
}

/// Reads the graph of a `SavedModel` that is served, or its first.
pub(super) fn read_saved_model(path: &Path, map: &Bytes) -> Result<Checkpoint, FormatError> {
    let refuse = |(at, reason): Refusal| malformed(path, at, reason);
    let (graph, tags) = served(&Message::new(map.clone(), 0)).map_err(refuse)?;
    let metadata = BTreeMap::from([(TAGS.to_owned(), tags.join(", "))]);
    constants(path, Format::SavedModel, &graph, map.len(), metadata)
}

fn served(message: &Message) -> Result<(Message, Vec<String>), Refusal> {
    let mut chosen: Option<(Message, Vec<String>)> = None;
    for field in message.fields() {
        let field = field?;
        if field.number != 2 {
            continue;
        }
        let (mut graph, mut tags) = (Message::default(), Vec::new());
        for field in field.message()?.fields() {
            let field = field?;
            match field.number {
                1 => {
                    for info in field.message()?.fields() {
                        let info = info?;
                        if info.number == 4 {
                            tags.push(info.text()?);
                        }
                    }
                }
                2 => graph = field.message()?,
                _ => {}
            }
        }
        let serves = tags.iter().any(|tag| tag == SERVE);
        if serves || chosen.is_none() {
            chosen = Some((graph, tags));
        }
        if serves {
            break;
        }
    }
    chosen.ok_or_else(|| (0, "it has no graph".to_owned()))
}

fn constants(
    path: &Path,
    format: Format,
    graph: &Message,
    length: usize,
    mut metadata: BTreeMap<String, String>,
) -> Result<Checkpoint, FormatError> {
    let mut found = Constants {
        path,
        length,
        text: 0,
        variables: 0,
        entries: IndexMap::new(),
    };
    let refuse = |(at, reason): Refusal| malformed(path, at, reason);
    for field in graph.fields() {
        let field = field.map_err(refuse)?;
        match field.number {
            1 => found.node("", &field.message().map_err(refuse)?)?,
            2 => {
                for function in field.message().map_err(refuse)?.fields() {
                    let function = function.map_err(refuse)?;
                    if function.number == 1 {
                        found.function(&function.message().map_err(refuse)?)?;
                    }
                }
            }
            _ => {}
        }
    }
    if found.variables > 0 {
        // Their values are in the checkpoint that the graph was saved with.
        metadata.insert(
            "tensorflow.variables".to_owned(),
            found.variables.to_string(),
        );
    }
    Ok(Checkpoint::new(
        format,
        vec![path.to_owned()],
        metadata,
        found.entries,
    ))
}

/// The constants found so far.
struct Constants<'a> {
    path: &'a Path,
    length: usize,
    /// How long all their names are together.
    text: usize,
    variables: usize,
    entries: IndexMap<String, Entry>,
}

impl Constants<'_> {
    /// The constants in the body of a function, under its name.
    fn function(&mut self, function: &Message) -> Result<(), FormatError> {
        let refuse = |(at, reason): Refusal| malformed(self.path, at, reason);
        let mut scope = String::new();
        for field in function.fields() {
            let field = field.map_err(refuse)?;
            if field.number != 1 {
                continue;
            }
            for inner in field.message().map_err(refuse)?.fields() {
                let inner = inner.map_err(refuse)?;
                if inner.number == 1 {
                    scope = format!("{}/", protobuf::name(&inner).map_err(refuse)?);
                }
            }
        }
        for field in function.fields() {
            let field = field.map_err(|(at, reason)| malformed(self.path, at, reason))?;
            if field.number == 3 {
                let node = field
                    .message()
                    .map_err(|(at, reason)| malformed(self.path, at, reason))?;
                self.node(&scope, &node)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, scope: &str, node: &Message) -> Result<(), FormatError> {
        let path = self.path;
        let read = read_node(node).map_err(|(at, reason)| malformed(path, at, reason))?;
        if ["VarHandleOp", "VariableV2", "Variable"].contains(&&read.operation[..]) {
            self.variables += 1;
        }
        if read.operation != "Const" {
            return Ok(());
        }
        let name = format!("{scope}{}", read.name);
        let refuse = |(at, reason): Refusal| FormatError::Tensor {
            path: path.to_owned(),
            tensor: clip(&name),
            offset: Some(at as u64),
            reason,
        };
        self.text += name.len();
        if self.text as u64 > self.length as u64 + VIEW_MARGIN {
            return Err(refuse((
                node.at(),
                "the names are larger than the file allows".to_owned(),
            )));
        }
        let value = read
            .value
            .ok_or_else(|| refuse((node.at(), "it has no value".to_owned())))?;
        let reader = Reader {
            path: path.to_owned(),
            name: name.clone(),
            at: value.at(),
            tensor: Tensor::read(value, self.length).map_err(refuse)?,
        };
        let layout = &reader.tensor.layout;
        let (dtype, shape, bytes) = (layout.dtype.clone(), layout.sizes(), layout.bytes as usize);
        let entry = Entry::new(dtype, shape, bytes, move || reader.read());
        if self.entries.contains_key(&name) {
            return Err(refuse((node.at(), "it is there twice".to_owned())));
        }
        self.entries.insert(name, entry);
        Ok(())
    }
}

struct Node {
    name: String,
    operation: String,
    /// What its attribute `value` is.
    value: Option<Message>,
}

fn read_node(node: &Message) -> Result<Node, Refusal> {
    let mut found = Node {
        name: String::new(),
        operation: String::new(),
        value: None,
    };
    for field in node.fields() {
        let field = field?;
        match field.number {
            1 => found.name = protobuf::name(&field)?,
            2 => found.operation = protobuf::name(&field)?,
            5 => {
                let (mut key, mut value) = (Bytes::new(), None);
                for field in field.message()?.fields() {
                    let field = field?;
                    match field.number {
                        1 => key = field.bytes()?,
                        2 => value = Some(field.message()?),
                        _ => {}
                    }
                }
                let Some(value) = value.filter(|_| &key[..] == b"value") else {
                    continue;
                };
                for field in value.fields() {
                    let field = field?;
                    if field.number == 8 {
                        found.value = Some(field.message()?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// One constant.
struct Reader {
    path: PathBuf,
    name: String,
    at: usize,
    tensor: Tensor,
}

impl Reader {
    fn read(&self) -> Result<TensorData, FormatError> {
        let refuse = |(at, reason): Refusal| FormatError::Tensor {
            path: self.path.clone(),
            tensor: clip(&self.name),
            offset: Some(at as u64),
            reason,
        };
        let layout = &self.tensor.layout;
        let bytes = self.tensor.bytes().map_err(refuse)?;
        data::typed(bytes, &layout.sizes(), &layout.dtype)
            .map_err(|reason| refuse((self.at, reason)))
    }
}
