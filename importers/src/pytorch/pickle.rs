//! A machine for the opcodes of pickle protocols 0 to 5 that builds values and runs nothing.
//!
//! The opcodes are those of CPython's `Lib/pickletools.py`. A name that is not in [`Global`]'s table is
//! refused where it stands, so that no later opcode can make use of it. Values live in one flat list of
//! nodes: a pickle may nest and loop as deeply as it likes without a recursion here.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::globals::{Element, Global};
use crate::data::clip;

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
    Tensor(Box<Tensor>),
    /// A NumPy type: its letter and size, and its byte order.
    NumpyType(Arc<str>, u8),
    /// A NumPy array, whose values are not looked at.
    NumpyArray,
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
    /// Where in the pickle it is made.
    pub(super) at: usize,
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
}

impl Pickle {
    /// Reads one pickle from the beginning of `bytes`.
    ///
    /// # Errors
    /// It is truncated or malformed, or names something that no weights are made of.
    pub(super) fn read(bytes: &Bytes, persistent: &Persistent<'_>) -> Result<Self, Refusal> {
        let mut machine = Machine {
            bytes,
            at: 0,
            opcode: 0,
            persistent,
            stack: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            made: 0,
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
            _ => None,
        }
    }
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
                let line = self.line()?;
                self.push(Value::Text(line.into()));
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
                let line = self.line()?;
                let inner = line
                    .strip_prefix(['\'', '"'])
                    .and_then(|line| line.strip_suffix(['\'', '"']));
                let inner = inner.filter(|inner| !inner.contains('\\'));
                let inner = inner.ok_or("a quoted string is not plain")?;
                self.push(Value::Text(inner.into()));
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
                if !matches!(self.node(&keywords), Some(Node::Dict(items)) if items.is_empty()) {
                    return Err("it makes an object by keywords, which no tensor needs".to_owned());
                }
                self.call(&class, &arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                return Err(foreign(&module, &name));
            }
            b'o' => {
                return Err(
                    "it makes an instance of a class (OBJ), which no tensor needs".to_owned(),
                );
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

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("a line does not end")?;
        let line = str::from_utf8(&rest[..length])
            .map_err(|_| "a line is not UTF-8")?
            .to_owned();
        self.at += length + 1;
        Ok(line)
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
        let bytes = self.take(length)?;
        let text = match str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => bytes
                .iter()
                .copied()
                .map(char::from)
                .collect::<String>()
                .into(),
        };
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
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, more: Vec<(Value, Value)>) -> Step<()> {
        match self.top_node()? {
            Node::Dict(items) => items.extend(more),
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
        let global = Global::find(module, name).ok_or_else(|| foreign(module, name))?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// What `callable(*arguments)` would have given, for the few that weights are made by.
    fn call(&mut self, callable: &Value, arguments: &Value) -> Step<()> {
        let Value::Global(global) = callable else {
            return Err(format!(
                "it calls {}, which nothing here does",
                self.kind(callable)
            ));
        };
        let Some(Node::Tuple(arguments)) = self.node(arguments) else {
            return Err(format!("it calls `{global}` without a tuple of arguments"));
        };
        // Arguments are few; the copy ends the borrow.
        if arguments.len() > MOST_DIMENSIONS {
            return Err(format!(
                "it calls `{global}` with {} arguments",
                arguments.len()
            ));
        }
        let arguments = arguments.clone();
        let value = self.made(*global, &arguments)?;
        self.push(value);
        Ok(())
    }

    fn made(&mut self, global: Global, arguments: &[Value]) -> Step<Value> {
        let wrong = || format!("it calls `{global}` with arguments that it does not take");
        let node = match (global, arguments) {
            (Global::Dictionary | Global::DefaultDictionary, [])
            | (Global::DefaultDictionary, [_]) => Node::Dict(Vec::new()),
            (Global::Dictionary, [items]) => match self.node(items) {
                Some(Node::Dict(_)) => return Ok(items.clone()),
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
                _ => return Err(wrong()),
            },
            (Global::List | Global::Set, []) => Node::List(Vec::new()),
            // The items are given away, not copied: a loop over one list would multiply it.
            (Global::List | Global::Set, [items]) => match self.node(items) {
                Some(Node::List(_) | Node::Tuple(_) | Node::Set(_)) => return Ok(items.clone()),
                _ => return Err(wrong()),
            },
            (Global::Size, [items]) => match self.node(items) {
                Some(Node::Tuple(_) | Node::List(_)) => return Ok(items.clone()),
                _ => return Err(wrong()),
            },
            (Global::Device | Global::Layout, [Value::Text(text)]) => {
                return Ok(Value::Text(text.clone()));
            }
            (Global::Device, [Value::Text(kind), Value::Int(index)]) => {
                self.spend(kind.len())?;
                return Ok(Value::Text(format!("{kind}:{index}").into()));
            }
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
            (Global::NumpyType, [Value::Text(name), ..]) => Node::NumpyType(name.clone(), b'<'),
            (Global::NumpyScalar, [kind, value]) => {
                return self.numpy_scalar(kind, value).ok_or_else(wrong);
            }
            (Global::NumpyArray, _) => Node::NumpyArray,
            (
                Global::RebuildTensor | Global::RebuildTensorV2,
                [storage, offset, shape, strides, ..],
            ) => Node::Tensor(
                self.tensor(global, storage, offset, shape, strides, None)?
                    .into(),
            ),
            (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype, ..]) => {
                let Value::Global(Global::Type(element)) = dtype else {
                    return Err(wrong());
                };
                let element = Some(*element);
                Node::Tensor(
                    self.tensor(global, storage, offset, shape, strides, element)?
                        .into(),
                )
            }
            (Global::RebuildParameter, [data, ..]) => match self.node(data) {
                Some(Node::Tensor(_)) => return Ok(data.clone()),
                _ => return Err(wrong()),
            },
            (
                Global::RebuildFromType,
                [
                    Value::Global(inner),
                    Value::Global(Global::Tensor),
                    inner_arguments,
                    ..,
                ],
            ) if inner.rebuilds() => {
                let Some(Node::Tuple(inner_arguments)) = self.node(inner_arguments) else {
                    return Err(wrong());
                };
                if inner_arguments.len() > MOST_DIMENSIONS {
                    return Err(wrong());
                }
                let inner_arguments = inner_arguments.clone();
                return self.made(*inner, &inner_arguments);
            }
            (Global::ScriptValue, [value, ..]) => return Ok(value.clone()),
            _ => return Err(wrong()),
        };
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
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
        let natural = |value: &Value| match value {
            Value::Int(value) => {
                u64::try_from(*value).map_err(|_| format!("`{global}` is given {value}"))
            }
            other => Err(format!(
                "`{global}` is given {} for a number",
                self.kind(other)
            )),
        };
        let naturals = |value: &Value| match self.node(value) {
            Some(Node::Tuple(items) | Node::List(items)) if items.len() <= MOST_DIMENSIONS => {
                items.iter().map(natural).collect::<Step<Vec<u64>>>()
            }
            _ => Err(format!(
                "`{global}` is given {} for a shape",
                self.kind(value)
            )),
        };
        let (shape, strides, offset) = (naturals(shape)?, naturals(strides)?, natural(offset)?);
        let storage = Storage::clone(storage);
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
            at: self.opcode,
        })
    }

    fn numpy_scalar(&self, kind: &Value, value: &Value) -> Option<Value> {
        let (Some(Node::NumpyType(name, order)), Some(Node::Bytes(bytes))) =
            (self.node(kind), self.node(value))
        else {
            return None;
        };
        if bytes.len() > 8 {
            return None;
        }
        let mut wide = bytes.to_vec();
        if *order == b'>' {
            wide.reverse();
        }
        let signed = || {
            let negative = wide.last().is_some_and(|last| last & 0x80 != 0);
            let mut full = if negative { [0xff; 8] } else { [0; 8] };
            full.get_mut(..wide.len())?.copy_from_slice(&wide);
            Some(i64::from_le_bytes(full))
        };
        Some(match (&name[..], wide.len()) {
            ("f8", 8) => Value::Float(f64::from_le_bytes(wide.try_into().ok()?)),
            ("f4", 4) => Value::Float(f32::from_le_bytes(wide.try_into().ok()?).into()),
            ("f2", 2) => Value::Float(half::f16::from_le_bytes(wide.try_into().ok()?).into()),
            ("b1", 1) => Value::Bool(wide[0] != 0),
            ("i1" | "i2" | "i4" | "i8", 1 | 2 | 4 | 8) => Value::Int(signed()?),
            ("u1" | "u2" | "u4" | "u8", 1 | 2 | 4 | 8) => {
                let mut full = [0; 8];
                full[..wide.len()].copy_from_slice(&wide);
                Value::Int(i64::try_from(u64::from_le_bytes(full)).ok()?)
            }
            _ => return None,
        })
    }

    /// What `obj.__setstate__(state)` or `obj.__dict__.update(state)` would have done.
    fn build(&mut self, state: Value) -> Step<()> {
        let order = match self.node(&state) {
            Some(Node::Tuple(state)) => match state.get(1) {
                Some(Value::Text(order)) => order.bytes().next(),
                _ => None,
            },
            _ => None,
        };
        match self.top_node()? {
            Node::Object(attributes) => *attributes = state,
            Node::NumpyType(_, known) => *known = order.unwrap_or(*known),
            // A dictionary's attributes are PyTorch's `_metadata`: module versions, which no tensor needs.
            // So are attributes hung on a tensor.
            Node::NumpyArray | Node::Dict(_) | Node::Tensor(_) => {}
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

fn underflow() -> String {
    "the pickle takes more from its stack than it has put there".to_owned()
}

fn foreign(module: &str, name: &str) -> String {
    format!(
        "it names `{}.{}`, which weights are not made of and which is not run; save the state_dict alone, and trust \
         no file that should have been one",
        clip(module),
        clip(name)
    )
}
