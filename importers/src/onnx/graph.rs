//! The graph of a model, as far as it says what its tensors are.

use std::collections::HashMap;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::tensor::{Elsewhere, Failure, Tensor};
use crate::data::clip;
use crate::protobuf::{Slice, Wire};

/// The deepest nesting of subgraphs: branches and loops in each other.
const DEEPEST: usize = 8;
/// No model has as many; each takes memory beyond its bytes.
const MOST: usize = 1 << 20;
/// How many nodes that take one tensor are looked at.
const MOST_USES: usize = 4;

/// A model, its nodes and tensors in the order of the file.
#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) producer: Option<String>,
    pub(super) opset: Option<u64>,
    pub(super) metadata: Vec<(&'a str, &'a str)>,
    pub(super) nodes: Vec<Node<'a>>,
    /// The names of the model's inputs.
    pub(super) inputs: Vec<&'a str>,
    /// Initializers, and the constants that nodes hold.
    pub(super) tensors: IndexMap<&'a str, Tensor<'a>>,
    /// For each value that is a tensor or comes of one, the nodes that take it: which, and as which input.
    uses: HashMap<&'a str, Vec<(usize, usize)>>,
    /// The products, by the name of their value.
    products: HashMap<&'a str, usize>,
}

/// A node, whose fields are read anew when they are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) op: &'a str,
    pub(super) name: &'a str,
    message: Slice<'a>,
}

impl<'a> Node<'a> {
    fn read(message: Slice<'a>) -> Result<Self, Failure> {
        let mut node = Self {
            op: "",
            name: "",
            message,
        };
        for field in message.fields() {
            match field? {
                (1 | 2, Wire::Bytes(text)) => {
                    text.text()?;
                }
                (3, Wire::Bytes(text)) => node.name = text.text()?,
                (4, Wire::Bytes(text)) => node.op = text.text()?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// The fields of that number, which are messages or texts.
    fn parts(self, number: u32) -> impl Iterator<Item = Slice<'a>> {
        let fields = self.message.fields().flatten();
        fields.filter_map(move |(found, value)| match value {
            Wire::Bytes(bytes) if found == number => Some(bytes),
            _ => None,
        })
    }

    /// The names of its inputs; one that is left out is empty.
    pub(super) fn inputs(self) -> impl Iterator<Item = &'a str> {
        self.parts(1).map(|text| text.text().unwrap_or_default())
    }

    pub(super) fn input(self, place: usize) -> Option<&'a str> {
        self.inputs().nth(place).filter(|name| !name.is_empty())
    }

    pub(super) fn outputs(self) -> impl Iterator<Item = &'a str> {
        self.parts(2).map(|text| text.text().unwrap_or_default())
    }

    pub(super) fn output(self) -> Option<&'a str> {
        self.outputs().next()
    }

    /// The attribute of that name.
    fn attribute(self, name: &str) -> Option<Slice<'a>> {
        let named = |attribute: &Slice<'a>| {
            attribute.fields().flatten().any(
                |field| matches!(field, (1, Wire::Bytes(text)) if text.bytes == name.as_bytes()),
            )
        };
        self.parts(5).find(named)
    }

    pub(super) fn integer(self, name: &str) -> Option<i64> {
        let mut fields = self.attribute(name)?.fields().flatten();
        fields.find_map(|field| match field {
            (3, Wire::Varint(value)) => Some(value.cast_signed()),
            _ => None,
        })
    }

    /// A short list of integers.
    pub(super) fn integers(self, name: &str) -> Vec<i64> {
        const MOST: usize = 64;
        let mut found = Vec::new();
        let attribute = self.attribute(name);
        for field in attribute.iter().flat_map(|a| a.fields()).flatten() {
            match field {
                (8, Wire::Varint(value)) => found.push(value.cast_signed()),
                (8, Wire::Bytes(mut packed)) => {
                    while found.len() < MOST
                        && let Ok(value) = packed.varint()
                    {
                        found.push(value.cast_signed());
                    }
                }
                _ => {}
            }
            if found.len() >= MOST {
                break;
            }
        }
        found
    }

    /// The value of a property that the exporter noted.
    pub(super) fn property(self, key: &str) -> Option<&'a str> {
        self.parts(9).find_map(|entry| {
            let (found, value) = pair(entry).ok()?;
            (found == key).then_some(value)
        })
    }
}

/// A `StringStringEntryProto`.
fn pair(entry: Slice<'_>) -> Result<(&str, &str), Failure> {
    let (mut key, mut value) = ("", "");
    for field in entry.fields() {
        match field? {
            (1, Wire::Bytes(text)) => key = text.text()?,
            (2, Wire::Bytes(text)) => value = text.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

impl<'a> Graph<'a> {
    /// Reads a `ModelProto`.
    pub(super) fn read(model: Slice<'a>, elsewhere: &mut Elsewhere) -> Result<Self, Failure> {
        let mut graph = Self::default();
        let (mut name, mut version) = ("", "");
        for field in model.fields() {
            match field? {
                (2, Wire::Bytes(text)) => name = text.text()?,
                (3, Wire::Bytes(text)) => version = text.text()?,
                (7, Wire::Bytes(message)) => graph.read_graph(message, elsewhere, 0)?,
                (8, Wire::Bytes(opset)) => {
                    let fields = || opset.fields().flatten();
                    let own = !fields().any(|(number, value)| {
                        matches!((number, value), (1, Wire::Bytes(domain)) if !domain.bytes.is_empty() && domain.bytes != b"ai.onnx")
                    });
                    let version = fields().find_map(|field| match field {
                        (2, Wire::Varint(version)) => Some(version),
                        _ => None,
                    });
                    if own {
                        graph.opset = version;
                    }
                }
                (14, Wire::Bytes(entry)) if graph.metadata.len() < MOST_PROPERTIES => {
                    graph.metadata.push(pair(entry)?);
                }
                _ => {}
            }
        }
        graph.producer = Some(format!("{name} {version}").trim().to_owned())
            .filter(|producer| !producer.is_empty());
        graph.find_uses()?;
        Ok(graph)
    }

    fn read_graph(
        &mut self,
        message: Slice<'a>,
        elsewhere: &mut Elsewhere,
        depth: usize,
    ) -> Result<(), Failure> {
        if depth > DEEPEST {
            let reason = "its subgraphs are nested too deeply".to_owned();
            return Err(Failure::Broken((message.at, reason)));
        }
        for field in message.fields() {
            match field? {
                (1, Wire::Bytes(message)) => {
                    let node = Node::read(message)?;
                    if node.op == "Constant" {
                        self.read_constant(node, elsewhere, depth)?;
                    }
                    for attribute in node.parts(5) {
                        for field in attribute.fields() {
                            if let (6 | 11, Wire::Bytes(graph)) = field? {
                                self.read_graph(graph, elsewhere, depth + 1)?;
                            }
                        }
                    }
                    self.nodes.push(node);
                    if self.nodes.len() > MOST {
                        let reason = format!("it has more than {MOST} nodes");
                        return Err(Failure::Broken((message.at, reason)));
                    }
                }
                (5, Wire::Bytes(message)) => {
                    let tensor = Tensor::read(message, elsewhere)?;
                    self.insert(tensor, depth)?;
                }
                (11, Wire::Bytes(message)) if depth == 0 && self.inputs.len() < MOST => {
                    let mut names = message.fields().flatten();
                    let name = names.find_map(|field| match field {
                        (1, Wire::Bytes(name)) => name.text().ok(),
                        _ => None,
                    });
                    self.inputs.extend(name);
                }
                (15, Wire::Bytes(message)) => {
                    let mut values = message.fields().flatten();
                    let values = values.find_map(|field| match field {
                        (1, Wire::Bytes(values)) => Some(values),
                        _ => None,
                    });
                    let name = match values {
                        Some(values) => Tensor::read(values, elsewhere)?.name,
                        None => "",
                    };
                    let reason =
                        "it is sparse, which is not supported; export it as a dense tensor"
                            .to_owned();
                    return Err(Failure::Named(clip(name), message.at, reason));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps the tensor of a `Constant`, under its output's name. Numbers and texts are no weights.
    fn read_constant(
        &mut self,
        node: Node<'a>,
        elsewhere: &mut Elsewhere,
        depth: usize,
    ) -> Result<(), Failure> {
        let (Some(value), Some(name)) = (node.attribute("value"), node.output()) else {
            return Ok(());
        };
        for field in value.fields() {
            if let (5, Wire::Bytes(message)) = field? {
                let mut tensor = Tensor::read(message, elsewhere)?;
                tensor.name = name;
                return self.insert(tensor, depth);
            }
        }
        Ok(())
    }

    fn insert(&mut self, tensor: Tensor<'a>, depth: usize) -> Result<(), Failure> {
        let (name, at) = (tensor.name, tensor.at);
        if self.tensors.len() >= MOST {
            let reason = format!("it has more than {MOST} tensors");
            return Err(Failure::Broken((at, reason)));
        }
        match self.tensors.entry(name) {
            Entry::Vacant(place) => {
                place.insert(tensor);
            }
            // Two branches may each have a value of that name; weights are outside of them.
            Entry::Occupied(_) if depth > 0 => {}
            Entry::Occupied(_) => {
                let reason = "it is there twice".to_owned();
                return Err(Failure::Named(clip(name), at, reason));
            }
        }
        Ok(())
    }

    fn find_uses(&mut self) -> Result<(), Failure> {
        let mut uses: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if let ("Mul", Some(output)) = (node.op, node.output()) {
                self.products.insert(output, index);
            }
            for (place, input) in node.inputs().enumerate() {
                if input.is_empty() {
                    continue;
                }
                if uses.len() > MOST {
                    let reason = format!("its nodes take more than {MOST} values");
                    return Err(Failure::Broken((node.message.at, reason)));
                }
                let found = uses.entry(input).or_default();
                if found.len() < MOST_USES {
                    found.push((index, place));
                }
            }
        }
        self.uses = uses;
        Ok(())
    }

    /// The `Mul` that gives a value.
    pub(super) fn product(&self, value: &str) -> Option<Node<'a>> {
        self.products.get(value).map(|&node| self.nodes[node])
    }

    /// The first node that takes a value: which, and as which input.
    pub(super) fn first_use(&self, value: &str) -> Option<(usize, Node<'a>, usize)> {
        let &(node, place) = self.uses.get(value)?.first()?;
        Some((node, self.nodes[node], place))
    }

    /// Which nodes take a value, and as which input.
    pub(super) fn uses_of(&self, value: &str) -> &[(usize, usize)] {
        self.uses.get(value).map_or(&[][..], |found| found)
    }

    /// The nodes that take a value, and as which input.
    pub(super) fn uses(&self, value: &str) -> impl Iterator<Item = (Node<'a>, usize)> {
        let found = self.uses_of(value);
        found.iter().map(|&(node, place)| (self.nodes[node], place))
    }
}

/// How much of the model's own metadata is kept.
const MOST_PROPERTIES: usize = 1 << 12;
