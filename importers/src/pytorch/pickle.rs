//! A machine for the opcodes of pickle protocols 0 to 5 that builds values and runs nothing.
//!
//! The opcodes are those of CPython's `Lib/pickletools.py`. A name that is not in [`Global`]'s table stays a name, and
//! what it would have made is an [`Unread`] object: its class and what it was given. One that could run programs, reach
//! for files or the like is refused where it stands. Values live in one flat list of nodes: a pickle may nest and loop
//! as deeply as it likes without a recursion here.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::containers;
use super::globals::{Element, Global};
use crate::Dtype;
use crate::data::{self, clip};
use crate::{numpy, scan};

/// The most opcodes of one pickle. Each makes at most one value, which bounds the memory; the largest
/// checkpoints of the field, with their optimizer's state, stay below a tenth of it.
const MOST_OPCODES: usize = 1 << 22;
/// The most memory for what one opcode makes out of a value of any size. A hundred thousand tensors take a
/// quarter of it.
const MOST_MADE: usize = 128 << 20;
/// PyTorch's own limit on a tensor's dimensions.
const MOST_DIMENSIONS: usize = 64;

/// Where in the pickle, and what is wrong there.
pub(super) type Refusal = (usize, String);

/// A value on the stack. Copies are cheap; what is large or shared is a [`Node`].
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Global(Global),
    /// The name of something that weights are not made of.
    Foreign(Arc<str>),
    /// The place of a [`Node`].
    Node(usize),
    Mark,
}

/// A value that others may refer to.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// An integer beyond 64 bits, as little-endian two's complement.
    Long(Bytes),
    Bytes(Bytes),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Set(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// An instance with attributes only.
    Object(Value),
    Storage(Box<Storage>),
    Tensor(Arc<Leaf>),
    NumpyType(Box<NumpyType>),
    /// A NumPy array that has not been given its state.
    NumpyArray,
    /// A NumPy number: a tensor without dimensions, and its value.
    Scalar(Arc<Leaf>, Value),
    Unread(Box<Unread>),
}

/// A type of NumPy's.
#[derive(Debug, Clone)]
pub(super) struct NumpyType {
    /// Its letter and size, `f4`.
    pub(super) name: Arc<str>,
    order: u8,
    /// Whether it has fields, or arrays for elements.
    is_record: bool,
    /// A type of the package `ml_dtypes`.
    element: Option<Element>,
}

/// An object of a class that is not known here. Nothing is run to make it.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    /// The full name of its class, or of the function that makes it.
    pub(super) class: Arc<str>,
    /// What it was made from.
    pub(super) arguments: Vec<Value>,
    /// Its attributes, or what its `__setstate__` takes.
    pub(super) state: Option<Value>,
    /// What was set by key.
    pub(super) entries: Vec<(Value, Value)>,
    /// What was appended.
    pub(super) items: Vec<Value>,
}

/// What a name of a checkpoint may stand for.
#[derive(Debug, Clone)]
pub(super) enum Leaf {
    Strided(Tensor),
    Array(Array),
    Sparse(Sparse),
    Quantized(Quantized),
    Refused(Refused),
}

/// A NumPy array.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub(super) dtype: Dtype,
    /// The size of an element.
    pub(super) size: usize,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: Bytes,
    pub(super) at: usize,
}

/// A sparse tensor of any of PyTorch's layouts.
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    /// `torch.sparse_csr` and its like.
    pub(super) layout: Arc<str>,
    /// The indices, of which the coordinate layout has one and the others two: those that are compressed come first.
    pub(super) indices: Vec<Tensor>,
    pub(super) values: Tensor,
    pub(super) shape: Vec<u64>,
}

/// A quantized tensor.
#[derive(Debug, Clone)]
pub(super) struct Quantized {
    pub(super) tensor: Tensor,
    pub(super) scale: Scale,
}

/// What makes floats of quantized integers.
#[derive(Debug, Clone)]
pub(super) enum Scale {
    Tensor {
        scale: f64,
        zero_point: i64,
    },
    /// One scale and zero point for each index of an axis.
    Channels {
        scales: Box<Tensor>,
        zero_points: Box<Tensor>,
        axis: usize,
    },
}

/// A tensor that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// What is said in place of its type.
    pub(super) kind: String,
    pub(super) shape: Vec<u64>,
    pub(super) reason: String,
    pub(super) at: usize,
}

impl Leaf {
    pub(super) fn at(&self) -> usize {
        match self {
            Self::Strided(tensor) => tensor.at,
            Self::Array(array) => array.at,
            Self::Sparse(sparse) => sparse.values.at,
            Self::Quantized(quantized) => quantized.tensor.at,
            Self::Refused(refused) => refused.at,
        }
    }
}

/// A run of elements that tensors are views of.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) key: Arc<str>,
    /// The type of its elements; bytes if it has none.
    pub(super) element: Option<Element>,
    /// The number of its elements.
    pub(super) length: u64,
    /// Where it begins in the storage of that key, in elements.
    pub(super) offset: u64,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) element: Element,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
    /// Whether its values are the negatives of those that are stored.
    pub(super) negated: bool,
    /// Whether its values are the conjugates of those that are stored.
    pub(super) conjugated: bool,
    /// Where in the pickle it is made.
    pub(super) at: usize,
}

impl Tensor {
    /// All elements of a storage.
    pub(super) fn of_storage(storage: &Storage, at: usize) -> Self {
        Self {
            element: storage.element.unwrap_or_else(Element::byte),
            storage: storage.clone(),
            offset: 0,
            shape: vec![storage.length],
            strides: vec![1],
            negated: false,
            conjugated: false,
            at,
        }
    }
}

/// What persistent ids stand for.
pub(super) enum Persistent<'a> {
    /// Nothing: there should be none.
    Refused,
    /// `("storage", type, key, location, elements)`, with a view of it in the legacy container.
    Storages,
    /// Tensors and storages listed before, as in the tar container; a storage may be described in place, too.
    Listed(&'a HashMap<i64, Node>),
}

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Value,
    /// How many bytes it takes.
    pub(super) length: usize,
    /// The bytes of storages that lie in the pickle itself, by their keys.
    pub(super) embedded: Vec<(Arc<str>, Bytes)>,
    /// What was hung on tensors, by their nodes.
    pub(super) attributes: HashMap<usize, Value>,
}

impl Pickle {
    /// Reads one pickle from the beginning of `bytes`.
    ///
    /// # Errors
    /// It is truncated or malformed, or names something that no weights are made of.
    pub(super) fn read(bytes: &Bytes, persistent: &Persistent<'_>) -> Result<Self, Refusal> {
        Self::read_within(bytes, persistent, false)
    }

    /// Reads one pickle, which lies in another one if `nested`; no other may then lie in it.
    pub(super) fn read_within(
        bytes: &Bytes,
        persistent: &Persistent<'_>,
        nested: bool,
    ) -> Result<Self, Refusal> {
        let mut machine = Machine {
            bytes,
            at: 0,
            opcode: 0,
            persistent,
            stack: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            made: 0,
            nested,
            embedded: Vec::new(),
            attributes: HashMap::new(),
        };
        for _ in 0..MOST_OPCODES {
            machine.opcode = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    return Ok(Self {
                        nodes: machine.nodes,
                        root,
                        length: machine.at,
                        embedded: machine.embedded,
                        attributes: machine.attributes,
                    });
                }
                Err(reason) => return Err((machine.opcode, reason)),
            }
        }
        let reason = format!("the pickle has more than {MOST_OPCODES} opcodes");
        Err((machine.opcode, reason))
    }

    /// The node that a value stands for.
    pub(super) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(place) => self.nodes.get(*place),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: &Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn list(&self, value: &Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(items) => Some(items),
            Node::Unread(object) if !object.entries.is_empty() => Some(&object.entries),
            _ => None,
        }
    }

    /// The attributes of a PyTorch module that was saved as a whole.
    pub(super) fn module(&self, value: &Value) -> Option<(&str, &[(Value, Value)])> {
        let Some(Node::Unread(object)) = self.node(value) else {
            return None;
        };
        let state = self.dict(object.state.as_ref()?)?;
        let has = |name: &str| attribute(state, name).is_some_and(|part| self.dict(part).is_some());
        (has("_parameters") && has("_modules")).then_some((&object.class, state))
    }
}

/// The value under a name; of equal ones the last.
pub(super) fn attribute<'a>(items: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    let is_it = |key: &Value| matches!(key, Value::Text(key) if &key[..] == name);
    let found = items.iter().rfind(|(key, _)| is_it(key));
    found.map(|(_, value)| value)
}

struct Machine<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// Where the current opcode is.
    opcode: usize,
    persistent: &'a Persistent<'a>,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    nodes: Vec<Node>,
    /// How much of [`MOST_MADE`] is used.
    made: usize,
    nested: bool,
    embedded: Vec<(Arc<str>, Bytes)>,
    attributes: HashMap<usize, Value>,
}

type Step<T> = Result<T, String>;

impl Machine<'_> {
    /// Follows one opcode; gives the value of the whole at the last.
    fn step(&mut self) -> Step<Option<Value>> {
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => {
                let protocol = self.take(1)?[0];
                if protocol > 5 {
                    return Err(format!(
                        "pickle protocol {protocol} is not known; save it with protocol 2"
                    ));
                }
            }
            0x95 => {
                self.take(8)?;
            }
            b'.' => {
                let root = self.pop()?;
                return Ok(Some(root));
            }
            // Scalars.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let value = i64::from(self.take(1)?[0]);
                self.push(Value::Int(value));
            }
            b'M' => {
                let value = i64::from(u16::from_le_bytes(self.array()?));
                self.push(Value::Int(value));
            }
            b'J' => {
                let value = i64::from(i32::from_le_bytes(self.array()?));
                self.push(Value::Int(value));
            }
            0x8a => {
                let length = usize::from(self.take(1)?[0]);
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'I' | b'L' => self.int_line(opcode)?,
            b'F' => {
                let line = self.line()?;
                let value = line
                    .parse()
                    .map_err(|_| format!("`{}` is no number", clip(&line)))?;
                self.push(Value::Float(value));
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            // Text and bytes.
            0x8c => {
                let length = usize::from(self.take(1)?[0]);
                self.text(length)?;
            }
            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            b'V' => {
                let text = unescaped(self.bytes_of_line()?, &['u', 'U'])?;
                self.push(Value::Text(text.into()));
            }
            b'U' => {
                let length = usize::from(self.take(1)?[0]);
                self.string(length)?;
            }
            b'T' => {
                let length = self.length4()?;
                self.string(length)?;
            }
            b'S' => {
                let line = self.bytes_of_line()?;
                let inner = match line {
                    [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
                    _ => return Err("a quoted string is not quoted".to_owned()),
                };
                let text = unescaped(inner, &['x', 'n', 'r', 't', 'a', 'b', 'f', 'v'])?;
                // Characters stand for bytes here, which may be UTF-8.
                let bytes: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c).ok()).collect();
                self.push(Value::Text(python2(&bytes)));
            }
            b'C' => {
                let length = usize::from(self.take(1)?[0]);
                self.raw(length)?;
            }
            b'B' => {
                let length = self.length4()?;
                self.raw(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.raw(length)?;
            }
            // Containers.
            b'(' => self.push(Value::Mark),
            b')' => self.make(Node::Tuple(Vec::new())),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.marked()?;
                self.make(Node::Tuple(items));
            }
            b']' => self.make(Node::List(Vec::new())),
            b'l' => {
                let items = self.marked()?;
                self.make(Node::List(items));
            }
            b'}' => self.make(Node::Dict(Vec::new())),
            b'd' => {
                let items = pairs(self.marked()?)?;
                self.make(Node::Dict(items));
            }
            0x8f => self.make(Node::Set(Vec::new())),
            0x91 => {
                let items = self.marked()?;
                self.make(Node::Set(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![(key, value)])?;
            }
            b'u' => {
                let items = pairs(self.marked()?)?;
                self.set_items(items)?;
            }
            // The stack and the memo.
            b'0' => {
                self.stack.pop().ok_or_else(underflow)?;
            }
            b'1' => {
                self.marked()?;
            }
            b'2' => {
                let top = self.top()?.clone();
                self.push(top);
            }
            b'q' => {
                let key = u64::from(self.take(1)?[0]);
                self.put(key)?;
            }
            b'r' => {
                let key = self.length4()? as u64;
                self.put(key)?;
            }
            b'p' => {
                let key = self.number_line()?;
                self.put(key)?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'h' => {
                let key = u64::from(self.take(1)?[0]);
                self.get(key)?;
            }
            b'j' => {
                let key = self.length4()? as u64;
                self.get(key)?;
            }
            b'g' => {
                let key = self.number_line()?;
                self.get(key)?;
            }
            // Names, and what is made by them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("it names something by what is no text".to_owned());
                };
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(&callable, &arguments)?;
            }
            0x92 => {
                let (keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                let none =
                    matches!(self.node(&keywords), Some(Node::Dict(items)) if items.is_empty());
                match (none, self.name_of(&class)) {
                    (true, _) => self.call(&class, &arguments)?,
                    (false, Some(name)) => self.make_unread(name, vec![arguments, keywords]),
                    _ => {
                        let reason = "it makes an object by keywords, which no tensor needs";
                        return Err(reason.to_owned());
                    }
                }
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let arguments = self.marked()?;
                self.global(&module, &name)?;
                let class = self.pop()?;
                self.instance(&class, arguments)?;
            }
            b'o' => {
                let mut arguments = self.marked()?;
                if arguments.is_empty() {
                    return Err(underflow());
                }
                let class = arguments.remove(0);
                self.instance(&class, arguments)?;
            }
            b'P' => {
                let line = self.line()?;
                self.persistent(&Value::Text(line.into()))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(&id)?;
            }
            0x82..=0x84 => {
                let width = [1, 2, 4][usize::from(opcode - 0x82)];
                let mut code = [0; 4];
                code[..width].copy_from_slice(self.take(width)?);
                return Err(format!(
                    "it names something by the extension code {}, which stands for whatever the reader has \
                     registered; nothing here is run",
                    u32::from_le_bytes(code)
                ));
            }
            0x97 | 0x98 => return Err("it refers to a buffer outside of itself".to_owned()),
            other => return Err(format!("{other:#04x} is no pickle opcode")),
        }
        Ok(None)
    }

    // Reading.

    fn take(&mut self, count: usize) -> Step<&[u8]> {
        let end = self
            .at
            .checked_add(count)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "the pickle is truncated: {count} bytes are wanted, {} are left",
                self.bytes.len() - self.at
            )
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let taken = self.take(N)?;
        taken
            .try_into()
            .map_err(|_| "the pickle is truncated".to_owned())
    }

    fn length4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Step<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| format!("{length} bytes are wanted"))
    }

    fn bytes_of_line(&mut self) -> Step<&[u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("a line does not end")?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn line(&mut self) -> Step<String> {
        let line = str::from_utf8(self.bytes_of_line()?).map_err(|_| "a line is not UTF-8")?;
        Ok(line.trim_end_matches('\r').to_owned())
    }

    fn number_line(&mut self) -> Step<u64> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| format!("`{}` is no place in the memo", clip(&line)))
    }

    fn int_line(&mut self, opcode: u8) -> Step<()> {
        let line = self.line()?;
        let digits = line.strip_suffix('L').unwrap_or(&line);
        let value = match (opcode, digits) {
            (b'I', "00") => Value::Bool(false),
            (b'I', "01") => Value::Bool(true),
            _ => Value::Int(
                digits
                    .parse()
                    .map_err(|_| format!("`{}` is no 64-bit integer", clip(digits)))?,
            ),
        };
        self.push(value);
        Ok(())
    }

    fn long(&mut self, length: usize) -> Step<()> {
        let begin = self.at;
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            let bytes = self.bytes.slice(begin..self.at);
            self.make(Node::Long(bytes));
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self, length: usize) -> Step<()> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8")?;
        let text = text.into();
        self.push(Value::Text(text));
        Ok(())
    }

    /// A string of Python 2, whose encoding is not known.
    fn string(&mut self, length: usize) -> Step<()> {
        let text = python2(self.take(length)?);
        self.push(Value::Text(text));
        Ok(())
    }

    fn raw(&mut self, length: usize) -> Step<()> {
        let begin = self.at;
        self.take(length)?;
        let bytes = self.bytes.slice(begin..self.at);
        self.make(Node::Bytes(bytes));
        Ok(())
    }

    // The stack.

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn make(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Value::Node(self.nodes.len() - 1));
    }

    fn pop(&mut self) -> Step<Value> {
        match self.stack.pop() {
            None | Some(Value::Mark) => Err(underflow()),
            Some(value) => Ok(value),
        }
    }

    fn top(&self) -> Step<&Value> {
        match self.stack.last() {
            None | Some(Value::Mark) => Err(underflow()),
            Some(value) => Ok(value),
        }
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Step<Vec<Value>> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark));
        let mark = mark.ok_or_else(underflow)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, count: usize) -> Step<()> {
        let begin = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
        let items = self.stack.split_off(begin);
        if items.iter().any(|item| matches!(item, Value::Mark)) {
            return Err(underflow());
        }
        self.make(Node::Tuple(items));
        Ok(())
    }

    fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(place) => self.nodes.get(*place),
            _ => None,
        }
    }

    fn top_node(&mut self) -> Step<&mut Node> {
        let place = match self.top()? {
            Value::Node(place) => *place,
            other => return Err(format!("it fills {other:?}, which is no container")),
        };
        self.nodes.get_mut(place).ok_or_else(underflow)
    }

    fn append(&mut self, more: Vec<Value>) -> Step<()> {
        match self.top_node()? {
            Node::List(items) | Node::Set(items) => items.extend(more),
            Node::Unread(object) => object.items.extend(more),
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, more: Vec<(Value, Value)>) -> Step<()> {
        match self.top_node()? {
            Node::Dict(items) => items.extend(more),
            Node::Unread(object) => object.entries.extend(more),
            _ => return Err("it sets items of what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn put(&mut self, key: u64) -> Step<()> {
        let top = self.top()?.clone();
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Step<()> {
        let value = self.memo.get(&key).cloned();
        let value = value.ok_or_else(|| format!("the memo has no entry {key}"))?;
        self.push(value);
        Ok(())
    }

    // What stands for code.

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let value = match Global::find(module, name) {
            Some(global) if global != Global::Inert => Value::Global(global),
            None if scan::is_dangerous(module, name) => return Err(foreign(module, name)),
            _ => Value::Foreign(format!("{module}.{name}").into()),
        };
        self.push(value);
        Ok(())
    }

    /// The name of a class or function that is called.
    fn name_of(&self, callable: &Value) -> Option<Arc<str>> {
        match callable {
            Value::Foreign(name) => Some(name.clone()),
            Value::Global(global) => Some(global.to_string().into()),
            _ => match self.node(callable) {
                Some(Node::Unread(object)) => Some(object.class.clone()),
                _ => None,
            },
        }
    }

    fn make_unread(&mut self, class: Arc<str>, arguments: Vec<Value>) {
        self.make(Node::Unread(Box::new(Unread {
            class,
            arguments,
            state: None,
            entries: Vec::new(),
            items: Vec::new(),
        })));
    }

    /// What the opcodes of protocols 0 and 1 make of a class.
    fn instance(&mut self, class: &Value, arguments: Vec<Value>) -> Step<()> {
        self.make(Node::Tuple(arguments));
        let arguments = self.pop()?;
        self.call(class, &arguments)
    }

    /// What `callable(*arguments)` would have given, for the few that weights are made by.
    fn call(&mut self, callable: &Value, arguments: &Value) -> Step<()> {
        let Value::Global(global) = callable else {
            let name = self.name_of(callable).ok_or_else(|| {
                format!("it calls {}, which nothing here does", self.kind(callable))
            })?;
            self.make_unread(name, vec![arguments.clone()]);
            return Ok(());
        };
        let Some(Node::Tuple(items)) = self.node(arguments) else {
            return Err(format!("it calls `{global}` without a tuple of arguments"));
        };
        let known = match (*global, &items[..]) {
            (Global::Reconstruct, [class, ..]) => {
                let class = class.clone();
                let is_known = matches!(class, Value::Global(_));
                let arguments = if is_known {
                    Vec::new()
                } else {
                    items[1..].to_vec()
                };
                return self.instance(&class, arguments);
            }
            (global, items) => global.rebuilds() || items.len() <= MOST_DIMENSIONS,
        };
        // Arguments are few; the copy ends the borrow.
        if items.len() > MOST_DIMENSIONS && known {
            return Err(format!(
                "it calls `{global}` with {} arguments",
                items.len()
            ));
        }
        let items = if known { items.clone() } else { Vec::new() };
        match self.made(*global, &items)? {
            Some(value) => self.push(value),
            // Weights are not made so; whatever it is, it may stand beside them.
            None => self.make_unread(global.to_string().into(), vec![arguments.clone()]),
        }
        Ok(())
    }

    /// `None` for arguments that weights are not made of.
    fn made(&mut self, global: Global, arguments: &[Value]) -> Step<Option<Value>> {
        let wrong = || format!("it calls `{global}` with arguments that it does not take");
        let node = match (global, arguments) {
            (Global::Dictionary | Global::DefaultDictionary, [])
            | (Global::DefaultDictionary, [_]) => Node::Dict(Vec::new()),
            (Global::Dictionary, [items]) => match self.node(items) {
                Some(Node::Dict(_)) => return Ok(Some(items.clone())),
                Some(Node::List(items)) => {
                    let cost = items.len().saturating_mul(size_of::<(Value, Value)>());
                    let items = items.clone();
                    self.spend(cost)?;
                    let pair = |item| match self.node(item) {
                        Some(Node::Tuple(pair) | Node::List(pair)) if pair.len() == 2 => {
                            Ok((pair[0].clone(), pair[1].clone()))
                        }
                        _ => Err(wrong()),
                    };
                    Node::Dict(items.iter().map(pair).collect::<Step<_>>()?)
                }
                _ => return Ok(None),
            },
            (Global::List | Global::Set | Global::Deque, []) => Node::List(Vec::new()),
            // The items are given away, not copied: a loop over one list would multiply it.
            (Global::List | Global::Set, [items]) => match self.node(items) {
                Some(Node::List(_) | Node::Tuple(_) | Node::Set(_)) => {
                    return Ok(Some(items.clone()));
                }
                _ => return Ok(None),
            },
            // What is in it is appended later.
            (Global::Deque, [items, ..]) => match self.node(items) {
                Some(Node::List(items) | Node::Tuple(items)) if items.is_empty() => {
                    Node::List(Vec::new())
                }
                _ => return Ok(None),
            },
            (Global::Size, [items]) => match self.node(items) {
                Some(Node::Tuple(_) | Node::List(_)) => return Ok(Some(items.clone())),
                _ => return Ok(None),
            },
            (Global::Device | Global::Layout, [Value::Text(text)]) => {
                return Ok(Some(Value::Text(text.clone())));
            }
            (Global::Device, [Value::Text(kind), Value::Int(index)]) => {
                self.spend(kind.len())?;
                return Ok(Some(Value::Text(format!("{kind}:{index}").into())));
            }
            (Global::PlainBytes, []) => Node::Bytes(Bytes::new()),
            (Global::Namespace | Global::ScriptClass, []) => Node::Object(Value::None),
            (Global::Encode, [Value::Text(text), rest @ ..]) => {
                if !matches!(rest, [Value::Text(encoding)] if matches!(&encoding[..], "latin1" | "latin-1"))
                {
                    return Err(wrong());
                }
                self.spend(text.len())?;
                let bytes = text
                    .chars()
                    .map(u8::try_from)
                    .collect::<Result<Vec<u8>, _>>();
                Node::Bytes(bytes.map_err(|_| wrong())?.into())
            }
            (Global::NumpyType, [Value::Text(name), ..]) => {
                self.spend(size_of::<NumpyType>())?;
                Node::NumpyType(Box::new(NumpyType {
                    name: name.clone(),
                    order: b'<',
                    is_record: false,
                    element: None,
                }))
            }
            (Global::NumpyType, [Value::Global(Global::Type(element)), ..]) => {
                self.spend(size_of::<NumpyType>())?;
                Node::NumpyType(Box::new(NumpyType {
                    name: element.names().0.into(),
                    order: b'<',
                    is_record: false,
                    element: Some(*element),
                }))
            }
            (Global::NumpyScalar, [kind, value]) => match self.numpy_scalar(kind, value) {
                Some(node) => node,
                None => return Ok(None),
            },
            // `_frombuffer(bytes, type, shape, order)`, as protocol 5 has it.
            (Global::NumpyArray, [bytes, kind, shape, Value::Text(order)])
                if matches!(self.node(kind), Some(Node::NumpyType(_))) =>
            {
                let fortran = &order[..] == "F";
                self.numpy_array(kind, shape, fortran, bytes)?
            }
            (Global::NumpyArray, _) => Node::NumpyArray,
            (Global::LoadFromBytes, [bytes]) => {
                let Some(Node::Bytes(bytes)) = self.node(bytes) else {
                    return Err(wrong());
                };
                if self.nested {
                    return Err("a storage lies in a storage".to_owned());
                }
                let bytes = bytes.clone();
                let (mut storage, data, read) = containers::embedded(&bytes)?;
                self.spend(read.saturating_add(size_of::<Storage>()))?;
                storage.key = format!("embedded {}", self.embedded.len()).into();
                self.embedded.push((storage.key.clone(), data));
                Node::Storage(Box::new(storage))
            }
            (Global::Tensor, [data, ..]) if matches!(self.node(data), Some(Node::Tensor(_))) => {
                return Ok(Some(data.clone()));
            }
            (Global::ScriptValue, [value, ..]) => return Ok(Some(value.clone())),
            (global, arguments) if global.rebuilds() => {
                return self.rebuilt(global, arguments, 0).map(Some);
            }
            (Global::Encode | Global::LoadFromBytes, _) => return Err(wrong()),
            _ => return Ok(None),
        };
        self.nodes.push(node);
        Ok(Some(Value::Node(self.nodes.len() - 1)))
    }

    /// A tensor by one of the functions that make them.
    fn rebuilt(&mut self, global: Global, arguments: &[Value], depth: usize) -> Step<Value> {
        let wrong = || format!("it calls `{global}` with arguments that it does not take");
        let leaf = match (global, arguments) {
            (
                Global::RebuildTensor | Global::RebuildTensorV2,
                [storage, offset, shape, strides, rest @ ..],
            ) => {
                let tensor = self.tensor(global, storage, offset, shape, strides, None)?;
                Leaf::Strided(self.signed(tensor, rest.get(2))?)
            }
            (
                Global::RebuildTensorV3,
                [storage, offset, shape, strides, _, _, dtype, rest @ ..],
            ) => {
                let Value::Global(Global::Type(element)) = dtype else {
                    return Err(wrong());
                };
                let element = Some(*element);
                let tensor = self.tensor(global, storage, offset, shape, strides, element)?;
                Leaf::Strided(self.signed(tensor, rest.first())?)
            }
            (Global::RebuildParameter, [data, _, _, rest @ ..]) => match self.node(data) {
                Some(Node::Tensor(_)) => {
                    if let (Value::Node(node), Some(state)) = (data, rest.first()) {
                        self.attributes.insert(*node, state.clone());
                    }
                    return Ok(data.clone());
                }
                _ => return Err(wrong()),
            },
            (Global::RebuildParameter, [data, ..]) => match self.node(data) {
                Some(Node::Tensor(_)) => return Ok(data.clone()),
                _ => return Err(wrong()),
            },
            (
                Global::RebuildFromType,
                [Value::Global(inner), class, inner_arguments, rest @ ..],
            ) if inner.rebuilds() => {
                let Some(Node::Tuple(inner_arguments)) = self.node(inner_arguments) else {
                    return Err(wrong());
                };
                if inner_arguments.len() > MOST_DIMENSIONS || depth > MOST_DIMENSIONS {
                    return Err(wrong());
                }
                let mut inner_arguments = inner_arguments.clone();
                if let (Global::RebuildWrapper, Some(first)) = (inner, inner_arguments.first_mut())
                {
                    *first = class.clone();
                }
                let made = self.rebuilt(*inner, &inner_arguments, depth + 1)?;
                if let (Value::Node(node), Some(state)) = (&made, rest.first()) {
                    self.attributes.insert(*node, state.clone());
                }
                return Ok(made);
            }
            // A class's own function, which is not run.
            (Global::RebuildFromType, [function @ Value::Foreign(_), class, ..]) => {
                let name = |value| self.name_of(value).ok_or_else(wrong);
                let (function, class) = (name(function)?, name(class)?);
                self.refused(
                    &last_part(&class),
                    Vec::new(),
                    format!(
                        "it is a `{}` that `{}` makes, which is not run",
                        clip(&class),
                        clip(&function)
                    ),
                )?
            }
            (Global::RebuildSparse, arguments) => self.sparse(arguments).ok_or_else(wrong)?,
            (Global::RebuildQuantized, [storage, offset, shape, strides, scheme, ..]) => {
                let tensor = self.tensor(global, storage, offset, shape, strides, None)?;
                self.quantized(tensor, scheme).ok_or_else(wrong)?
            }
            (Global::RebuildNested, _) => self.refused(
                "nested",
                Vec::new(),
                "it is a nested tensor, of parts of different shapes; save what its `unbind()` gives"
                    .to_owned(),
            )?,
            (Global::RebuildMeta, [Value::Global(Global::Type(element)), shape, ..]) => {
                let kind = format!("meta {}", element.dtype());
                self.refused(
                    &kind,
                    self.naturals(global, shape)?,
                    "it is on PyTorch's meta device and has no data; save it from a model whose weights were loaded"
                        .to_owned(),
                )?
            }
            (Global::RebuildWrapper, [class, _, shape, ..]) => {
                let class = self.name_of(class).ok_or_else(wrong)?;
                self.refused(
                    &last_part(&class),
                    self.naturals(global, shape)?,
                    format!(
                        "it is a `{}`, whose data is in other tensors or nowhere; save it as a plain tensor, for \
                         instance by its `full_tensor()`, `dequantize()` or `to_local()`",
                        clip(&class)
                    ),
                )?
            }
            (Global::RebuildOnDevice, [data, Value::Global(Global::Type(element)), ..]) => {
                let (Value::Node(node), element) = (data, *element) else {
                    return Err(wrong());
                };
                let node = *node;
                match self.nodes.get(node) {
                    Some(Node::Tensor(leaf)) => {
                        let stored = match &**leaf {
                            Leaf::Strided(tensor) => tensor.element.dtype(),
                            Leaf::Array(array) => array.dtype.clone(),
                            _ => return Err(wrong()),
                        };
                        if stored == element.dtype() {
                            return Ok(data.clone());
                        }
                        self.refused(
                            &element.dtype().to_string(),
                            Vec::new(),
                            format!("it is stored as {stored}; save it from the CPU, by `.cpu()`"),
                        )?
                    }
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(wrong()),
        };
        self.nodes.push(Node::Tensor(Arc::new(leaf)));
        Ok(Value::Node(self.nodes.len() - 1))
    }

    fn refused(&mut self, kind: &str, shape: Vec<u64>, reason: String) -> Step<Leaf> {
        self.spend(size_of::<Leaf>() + kind.len() + reason.len())?;
        Ok(Leaf::Refused(Refused {
            kind: clip(kind),
            shape,
            reason,
            at: self.opcode,
        }))
    }

    /// A tensor whose values are the negatives or conjugates of what is stored, if its metadata says so.
    fn signed(&self, mut tensor: Tensor, metadata: Option<&Value>) -> Step<Tensor> {
        let Some(metadata) = metadata else {
            return Ok(tensor);
        };
        let items = match self.node(metadata) {
            Some(Node::Dict(items)) => &items[..],
            _ if matches!(metadata, Value::None) => &[],
            _ => return Err("a tensor's metadata is no dictionary".to_owned()),
        };
        for (key, value) in items {
            match (key, value) {
                (_, Value::Bool(false) | Value::None) => {}
                (Value::Text(key), Value::Bool(true)) if &key[..] == "neg" => tensor.negated = true,
                (Value::Text(key), Value::Bool(true)) if &key[..] == "conj" => {
                    tensor.conjugated = true;
                }
                _ => {
                    return Err(format!(
                        "a tensor's metadata sets {}, which is not known",
                        self.kind(key)
                    ));
                }
            }
        }
        Ok(tensor)
    }

    /// The strided tensor that a value is.
    fn strided(&self, value: &Value) -> Option<Tensor> {
        match self.node(value)? {
            Node::Tensor(leaf) => match &**leaf {
                Leaf::Strided(tensor) => Some(tensor.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    fn sparse(&mut self, arguments: &[Value]) -> Option<Leaf> {
        let (layout, parts) = match arguments {
            [Value::Text(layout), parts] => (layout.clone(), parts),
            _ => return None,
        };
        let Some(Node::Tuple(parts)) = self.node(parts) else {
            return None;
        };
        let (indices, values, shape) = match (&layout[..], &parts[..]) {
            ("torch.sparse_coo", [indices, values, shape] | [indices, values, shape, _]) => {
                (vec![self.strided(indices)?], values, shape)
            }
            (
                "torch.sparse_csr" | "torch.sparse_csc" | "torch.sparse_bsr" | "torch.sparse_bsc",
                [compressed, plain, values, shape],
            ) => (
                vec![self.strided(compressed)?, self.strided(plain)?],
                values,
                shape,
            ),
            _ => return None,
        };
        let sparse = Sparse {
            layout,
            indices,
            values: self.strided(values)?,
            shape: self.naturals(Global::RebuildSparse, shape).ok()?,
        };
        self.spend(size_of::<Sparse>() + 3 * size_of::<Tensor>())
            .ok()?;
        Some(Leaf::Sparse(sparse))
    }

    fn quantized(&self, tensor: Tensor, scheme: &Value) -> Option<Leaf> {
        let Some(Node::Tuple(scheme)) = self.node(scheme) else {
            return None;
        };
        let scale = match &scheme[..] {
            [Value::Global(Global::Scheme(false)), scale, zero_point] => Scale::Tensor {
                scale: match scale {
                    Value::Float(scale) => *scale,
                    Value::Int(scale) => *scale as f64,
                    _ => return None,
                },
                zero_point: match zero_point {
                    Value::Int(zero_point) => *zero_point,
                    _ => return None,
                },
            },
            [
                Value::Global(Global::Scheme(true)),
                scales,
                zero_points,
                Value::Int(axis),
            ] => Scale::Channels {
                scales: self.strided(scales)?.into(),
                zero_points: self.strided(zero_points)?.into(),
                axis: usize::try_from(*axis)
                    .ok()
                    .filter(|axis| *axis < tensor.shape.len())?,
            },
            _ => return None,
        };
        Some(Leaf::Quantized(Quantized { tensor, scale }))
    }

    /// Counts memory that no byte of the file stands for.
    fn spend(&mut self, bytes: usize) -> Step<()> {
        self.made = self.made.saturating_add(bytes);
        if self.made > MOST_MADE {
            return Err(format!(
                "the pickle makes more than {MOST_MADE} bytes out of what it repeats"
            ));
        }
        Ok(())
    }

    fn tensor(
        &mut self,
        global: Global,
        storage: &Value,
        offset: &Value,
        shape: &Value,
        strides: &Value,
        element: Option<Element>,
    ) -> Step<Tensor> {
        let described = match self.persistent {
            Persistent::Listed(_) => self.storage(storage),
            _ => None,
        };
        let Some(Node::Storage(storage)) = described.as_ref().or(self.node(storage)) else {
            return Err(format!(
                "`{global}` is given {} for a storage",
                self.kind(storage)
            ));
        };
        let element = element.or(storage.element);
        let element =
            element.ok_or_else(|| format!("`{global}` is given a storage without a type"))?;
        let storage = Storage::clone(storage);
        let (shape, strides) = (
            self.naturals(global, shape)?,
            self.naturals(global, strides)?,
        );
        let offset = self.natural(global, offset)?;
        self.spend(size_of::<Tensor>() + size_of::<u64>() * 2 * shape.len())?;
        if shape.len() != strides.len() {
            return Err(format!(
                "a tensor has {} sizes and {} strides",
                shape.len(),
                strides.len()
            ));
        }
        Ok(Tensor {
            storage,
            element,
            offset,
            shape,
            strides,
            negated: false,
            conjugated: false,
            at: self.opcode,
        })
    }

    fn natural(&self, global: Global, value: &Value) -> Step<u64> {
        match value {
            Value::Int(value) => {
                u64::try_from(*value).map_err(|_| format!("`{global}` is given {value}"))
            }
            other => Err(format!(
                "`{global}` is given {} for a number",
                self.kind(other)
            )),
        }
    }

    fn naturals(&self, global: Global, value: &Value) -> Step<Vec<u64>> {
        match self.node(value) {
            Some(Node::Tuple(items) | Node::List(items)) if items.len() <= MOST_DIMENSIONS => items
                .iter()
                .map(|item| self.natural(global, item))
                .collect(),
            _ => Err(format!(
                "`{global}` is given {} for a shape",
                self.kind(value)
            )),
        }
    }

    /// A NumPy array of numbers; one of objects, texts or dates is left unread.
    fn numpy_array(
        &mut self,
        kind: &Value,
        shape: &Value,
        fortran: bool,
        data: &Value,
    ) -> Step<Node> {
        let Some(Node::NumpyType(kind)) = self.node(kind) else {
            return Err("a NumPy array has no type".to_owned());
        };
        let kind = NumpyType::clone(kind);
        let shape = self.naturals(Global::NumpyArray, shape)?;
        self.spend(size_of::<Leaf>() + size_of::<u64>() * shape.len())?;
        let unread = |what: &str| {
            Ok(Node::Unread(Box::new(Unread {
                class: format!("NumPy array of {what}").into(),
                arguments: vec![data.clone()],
                state: None,
                entries: Vec::new(),
                items: Vec::new(),
            })))
        };
        match kind.name.as_bytes().first() {
            Some(b'O') => return unread("Python objects"),
            Some(b'U' | b'S' | b'a') => return unread("texts"),
            Some(b'M' | b'm') => return unread("dates"),
            _ => {}
        }
        if kind.is_record || kind.name.starts_with('V') {
            let reason =
                "it is a NumPy array of records; save each of its fields as an array of its own";
            let leaf = self.refused("record", shape, reason.to_owned())?;
            return Ok(Node::Tensor(Arc::new(leaf)));
        }
        let (dtype, size, big_endian) = match kind.element {
            Some(element) => (element.dtype(), element.size(), kind.order == b'>'),
            None => numpy::named(&format!("{}{}", char::from(kind.order), kind.name))?,
        };
        let elements =
            data::elements(&shape).and_then(|elements| elements.checked_mul(size as u64));
        let bytes = match (self.node(data), elements) {
            (Some(Node::Bytes(bytes)), Some(expected)) if bytes.len() as u64 == expected => {
                Some(bytes.clone())
            }
            // Python 2 has no bytes but its texts.
            (None, Some(expected)) => match data {
                Value::Text(text) => bytes_of(text, expected),
                _ => None,
            },
            _ => None,
        };
        let bytes = bytes.ok_or_else(|| {
            format!("a NumPy array of {dtype} {shape:?} does not have the bytes that this takes")
        })?;
        if !matches!(self.node(data), Some(Node::Bytes(_))) {
            self.spend(bytes.len())?;
        }
        Ok(Node::Tensor(Arc::new(Leaf::Array(Array {
            dtype,
            size,
            big_endian,
            fortran,
            shape,
            bytes,
            at: self.opcode,
        }))))
    }

    /// A NumPy number: as a tensor without dimensions and as a value.
    fn numpy_scalar(&mut self, kind: &Value, value: &Value) -> Option<Node> {
        let shape = {
            self.make(Node::Tuple(Vec::new()));
            self.pop().ok()?
        };
        let Node::Tensor(leaf) = self.numpy_array(kind, &shape, false, value).ok()? else {
            return None;
        };
        let Leaf::Array(array) = &*leaf else {
            return None;
        };
        let mut bytes = array.bytes.to_vec();
        if array.big_endian {
            bytes.reverse();
        }
        let signed = || {
            let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
            let mut full = if negative { [0xff; 8] } else { [0; 8] };
            full.get_mut(..bytes.len())?.copy_from_slice(&bytes);
            Some(i64::from_le_bytes(full))
        };
        let value = match array.dtype {
            Dtype::F64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Dtype::F32 => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            Dtype::F16 => Value::Float(half::f16::from_le_bytes(bytes.try_into().ok()?).into()),
            Dtype::BF16 => Value::Float(half::bf16::from_le_bytes(bytes.try_into().ok()?).into()),
            Dtype::Bool => Value::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Value::Int(signed()?),
            Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
                let mut full = [0; 8];
                full.get_mut(..bytes.len())?.copy_from_slice(&bytes);
                match i64::try_from(u64::from_le_bytes(full)) {
                    Ok(value) => Value::Int(value),
                    Err(_) => Value::Text(u64::from_le_bytes(full).to_string().into()),
                }
            }
            _ => Value::Text(array.dtype.to_string().into()),
        };
        Some(Node::Scalar(leaf, value))
    }

    /// What `obj.__setstate__(state)` or `obj.__dict__.update(state)` would have done.
    fn build(&mut self, state: Value) -> Step<()> {
        // `(version, order, …, names of fields, …)` of a type, `(version, shape, type, order, data)` of an array.
        let items = match self.node(&state) {
            Some(Node::Tuple(items)) if items.len() <= MOST_DIMENSIONS => items.clone(),
            _ => Vec::new(),
        };
        if matches!(self.top_node()?, Node::NumpyArray) {
            let [_, shape, kind, Value::Bool(fortran), data] = &items[..] else {
                return Err("the state of a NumPy array is not its five parts".to_owned());
            };
            let array = self.numpy_array(kind, shape, *fortran, data)?;
            *self.top_node()? = array;
            return Ok(());
        }
        if let Value::Node(node) = *self.top()?
            && matches!(self.nodes.get(node), Some(Node::Tensor(_)))
        {
            self.attributes.insert(node, state);
            return Ok(());
        }
        match self.top_node()? {
            Node::Object(attributes) => *attributes = state,
            Node::NumpyType(kind) => {
                if let Some(Value::Text(order)) = items.get(1) {
                    kind.order = order.bytes().next().unwrap_or(kind.order);
                }
                let is_there = |at: usize| !matches!(items.get(at), None | Some(Value::None));
                kind.is_record = is_there(2) || is_there(3);
            }
            Node::Unread(object) => match object.state {
                None => object.state = Some(state),
                Some(_) => object.arguments.push(state),
            },
            // A dictionary's attributes are PyTorch's `_metadata`: module versions, which no tensor needs.
            Node::Dict(_) | Node::List(_) | Node::Set(_) | Node::Scalar(..) => {}
            _ => return Err("it sets the state of what has none".to_owned()),
        }
        Ok(())
    }

    fn persistent(&mut self, id: &Value) -> Step<()> {
        let node = match self.persistent {
            Persistent::Refused => {
                Err("it has a persistent id, where there should be none".to_owned())
            }
            Persistent::Storages => self.storage(id).ok_or_else(|| {
                "its persistent id is not `(\"storage\", type, key, location, elements)`".to_owned()
            }),
            Persistent::Listed(listed) => {
                let key = match id {
                    Value::Int(key) => Some(*key),
                    Value::Text(text) => text.parse().ok(),
                    // `(module, source, …)`, whose code is of no interest.
                    _ => None,
                };
                let node = key.and_then(|key| listed.get(&key).cloned());
                node.ok_or_else(|| "its persistent id is not in the list of tensors".to_owned())
            }
        };
        self.make(node?);
        Ok(())
    }

    fn storage(&self, id: &Value) -> Option<Node> {
        let Some(Node::Tuple(id)) = self.node(id) else {
            return None;
        };
        // Before 1.6, the class of a module with its source code.
        if let [Value::Text(word), class, ..] = &id[..]
            && &word[..] == "module"
        {
            let class = self.name_of(class)?;
            return Some(Node::Unread(Box::new(Unread {
                class,
                arguments: Vec::new(),
                state: None,
                entries: Vec::new(),
                items: Vec::new(),
            })));
        }
        let [
            Value::Text(word),
            Value::Global(class),
            key,
            _,
            Value::Int(length),
            rest @ ..,
        ] = &id[..]
        else {
            return None;
        };
        let element = match class {
            Global::Storage(element) => Some(*element),
            Global::UntypedStorage => None,
            _ => return None,
        };
        let key = match key {
            Value::Text(key) => key.clone(),
            Value::Int(key) => key.to_string().into(),
            _ => return None,
        };
        let (offset, length) = match rest {
            [] | [Value::None] => (0, *length),
            // `(key of the view, offset, elements)`
            [view] => match self.node(view) {
                Some(Node::Tuple(view)) => match &view[..] {
                    [_, Value::Int(offset), Value::Int(length)] => (*offset, *length),
                    _ => return None,
                },
                _ => return None,
            },
            _ => return None,
        };
        (&word[..] == "storage").then_some(Node::Storage(Box::new(Storage {
            key,
            element,
            length: u64::try_from(length).ok()?,
            offset: u64::try_from(offset).ok()?,
        })))
    }

    /// What a value is, for an error.
    fn kind(&self, value: &Value) -> String {
        match value {
            Value::Node(_) => match self.node(value) {
                Some(Node::Tuple(_)) => "a tuple".to_owned(),
                Some(Node::List(_)) => "a list".to_owned(),
                Some(Node::Dict(_)) => "a dictionary".to_owned(),
                Some(Node::Tensor(_)) => "a tensor".to_owned(),
                Some(Node::Storage(_)) => "a storage".to_owned(),
                _ => "an object".to_owned(),
            },
            Value::Global(global) => format!("`{global}`"),
            Value::Foreign(name) => format!("`{}`", clip(name)),
            Value::Text(text) => format!("`{}`", clip(text)),
            Value::None => "None".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Mark => "a mark".to_owned(),
        }
    }
}

fn pairs(items: Vec<Value>) -> Step<Vec<(Value, Value)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a dictionary has a key without a value".to_owned());
    }
    let mut items = items.into_iter();
    let mut found = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        found.push((key, value));
    }
    Ok(found)
}

/// A text of Python 2, whose encoding is not known.
fn python2(bytes: &[u8]) -> Arc<str> {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .copied()
            .map(char::from)
            .collect::<String>()
            .into(),
    }
}

/// The bytes that [`python2`] has made a text of, if there are so many.
fn bytes_of(text: &str, expected: u64) -> Option<Bytes> {
    if text.len() as u64 == expected {
        return Some(text.as_bytes().to_vec().into());
    }
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    bytes
        .filter(|bytes| bytes.len() as u64 == expected)
        .map(Bytes::from)
}

/// A line in which bytes are characters and some are written by a backslash and a letter.
fn unescaped(line: &[u8], letters: &[char]) -> Step<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter().copied().map(char::from).peekable();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        let in_quotes = letters.contains(&'x');
        let Some(letter) = rest.next_if(|c| {
            letters.contains(c) || in_quotes && (matches!(c, '\\' | '\'' | '"') || c.is_digit(8))
        }) else {
            text.push('\\');
            continue;
        };
        let digits = match letter {
            'u' => 4,
            'U' => 8,
            'x' => 2,
            _ => 0,
        };
        if matches!(letter, 'u' | 'U' | 'x') {
            let code: String = rest.by_ref().take(digits).collect();
            let code = Some(code).filter(|code| code.len() == digits);
            let code = code.and_then(|code| u32::from_str_radix(&code, 16).ok());
            // Half of a surrogate pair stands for itself in Python; no name of a tensor is one.
            text.push(code.map_or(Err("a text has a wrong escape"), |code| {
                Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
            })?);
            continue;
        }
        if let Some(first) = letter.to_digit(8) {
            let mut code = first;
            for _ in 0..2 {
                if let Some(digit) = rest.next_if(|c| c.is_digit(8)) {
                    code = code * 8 + digit.to_digit(8).unwrap_or(0);
                }
            }
            text.push(char::from(code as u8));
            continue;
        }
        text.push(match letter {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            other => other,
        });
    }
    Ok(text)
}

/// The name of a class without its module.
fn last_part(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

fn underflow() -> String {
    "the pickle takes more from its stack than it has put there".to_owned()
}

fn foreign(module: &str, name: &str) -> String {
    format!(
        "it names `{}.{}`, which weights are not made of, which may do harm and which is not run; save the state_dict \
         alone, and trust no file that should have been one",
        clip(module),
        clip(name)
    )
}
