//! From a pickle's values to dotted names: wrappers, prefixes and what is kept as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::pickle::{Leaf, Node, Pickle, Refusal, Tensor, Unread, Value, attribute};
use crate::data::clip;

/// The deepest nesting of dictionaries and lists. It also ends those that hold themselves.
const DEEPEST: usize = 192;
/// The most places that are looked at; a dictionary that is in many places counts once for each.
const MOST_PLACES: usize = 1 << 22;
/// The most bytes that all names and texts take, since a short key may prefix any number of names.
const MOST_TEXT: usize = 64 << 20;
/// The longest text that is kept as metadata.
const LONGEST: usize = 1024;
/// The largest dictionary without a tensor, and the most entries of metadata, that are kept.
const MOST_METADATA: usize = 1024;
/// How many of the values that are not read are named.
const MOST_UNREAD: usize = 64;

/// The longest list that is taken apart when it is too long for one text or holds dictionaries.
const MOST_ITEMS: usize = 64;

/// The keys whose dictionary is the checkpoint, best first.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];
/// More keys of dictionaries that may be the checkpoint, where nothing else but a training's state is beside them.
const LIKELY: [&str; 10] = [
    "net",
    "network",
    "module",
    "params",
    "weights",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
    "ema",
];
/// What the keys of a training's state begin with.
const TRAINING: [&str; 9] = [
    "optim", "opt_", "lr_", "sched", "scaler", "ema", "callback", "loops", "rng",
];

/// The tensors of a pickle by name, and the text beside them.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) tensors: IndexMap<String, Named>,
    pub(super) metadata: BTreeMap<String, String>,
    /// What may have been weights and is left unread.
    pub(super) warnings: Vec<String>,
}

/// A tensor under its name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) leaf: Arc<Leaf>,
    /// Whether it is a number that NumPy wraps, which may be a weight or a remark.
    pub(super) is_number: bool,
}

/// Flattens a pickle; `prefix` begins all names, for a second pickle of the same file.
pub(super) fn flatten(pickle: &Pickle, prefix: &str) -> Result<Flat, Refusal> {
    let mut walk = Walk {
        pickle,
        holds: vec![None; pickle.nodes.len()],
        flat: Flat::default(),
        left_out: IndexMap::new(),
        unread: Vec::new(),
        places: 0,
        text: 0,
        tensors_wanted: true,
    };
    let mut root = &pickle.root;
    let mut wrappers: Vec<&str> = Vec::new();
    while wrappers.len() < DEEPEST
        && let Some((wrapper, inner)) = walk.wrapper(root)?
    {
        walk.beside(root, wrapper)?;
        wrappers.push(wrapper);
        root = inner;
    }
    walk.tensors_wanted = true;
    walk.value(prefix, root, 0)?;

    let Walk {
        mut flat,
        left_out,
        unread,
        ..
    } = walk;
    if let Some((class, _)) = pickle.module(root) {
        flat.metadata
            .insert("pytorch.class".to_owned(), clip(class));
    }
    if flat.tensors.is_empty()
        && let Some(lost) = flat.warnings.first()
    {
        let reason = format!(
            "no tensor in it has a name: {lost}; load it where its classes are known and save its `state_dict()`"
        );
        return Err((0, reason));
    }
    if !wrappers.is_empty() {
        flat.metadata
            .insert("pytorch.wrapper".to_owned(), wrappers.join("."));
    }
    if !left_out.is_empty() {
        let counted = left_out.iter().take(MOST_METADATA);
        let counted: Vec<String> = counted
            .map(|(name, count)| format!("{} ({count} tensors)", clip(name)))
            .collect();
        flat.metadata
            .insert("pytorch.left_out".to_owned(), counted.join(", "));
    }
    if !unread.is_empty() {
        let mut text = unread[..unread.len().min(MOST_UNREAD)].join(", ");
        if unread.len() > MOST_UNREAD {
            text.push_str(&format!(" and {} more", unread.len() - MOST_UNREAD));
        }
        flat.metadata.insert("pytorch.unread".to_owned(), text);
    }
    Ok(flat)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    /// For each node, whether there is a tensor in it.
    holds: Vec<Option<bool>>,
    flat: Flat,
    /// What is beside the wrapper: for each of its keys, how many tensors.
    left_out: IndexMap<String, usize>,
    /// What was not read, by its name and kind.
    unread: Vec<String>,
    places: usize,
    text: usize,
    tensors_wanted: bool,
}

impl<'a> Walk<'a> {
    /// The wrapper in a dictionary: its name and what is in it.
    fn wrapper(&mut self, root: &Value) -> Result<Option<(&'static str, &'a Value)>, Refusal> {
        let Some(items) = self.pickle.dict(root) else {
            return Ok(None);
        };
        for name in WRAPPERS {
            if let Some(inner) = attribute(items, name)
                && (self.pickle.dict(inner).is_some() || self.pickle.module(inner).is_some())
                && self.holds_tensor(inner, 0)?
            {
                return Ok(Some((name, inner)));
            }
        }
        self.likely(items)
    }

    /// One of the likely wrappers, if all else that holds tensors is a training's state or another of them.
    fn likely(
        &mut self,
        items: &'a [(Value, Value)],
    ) -> Result<Option<(&'static str, &'a Value)>, Refusal> {
        let mut found: Option<(usize, &'a Value)> = None;
        for (key, value) in items {
            if !self.holds_tensor(value, 0)? {
                continue;
            }
            let Value::Text(key) = key else {
                return Ok(None);
            };
            match LIKELY.iter().position(|likely| *likely == &key[..]) {
                Some(rank) if self.pickle.dict(value).is_some() => {
                    if found.is_none_or(|(best, _)| rank < best) {
                        found = Some((rank, value));
                    }
                }
                _ if TRAINING.iter().any(|begin| key.starts_with(begin)) => {}
                _ => return Ok(None),
            }
        }
        Ok(found.map(|(rank, inner)| (LIKELY[rank], inner)))
    }

    /// Keeps what is beside the wrapper as text, and counts the tensors there.
    fn beside(&mut self, root: &'a Value, wrapper: &str) -> Result<(), Refusal> {
        self.tensors_wanted = false;
        let items = self.pickle.dict(root).unwrap_or_default();
        for (key, value) in self.entries("", items)? {
            if key == wrapper {
                continue;
            }
            let before = self.left_out.get(&key).copied().unwrap_or(0);
            self.left_out.insert(key.clone(), before);
            self.value(&key, value, 1)?;
            if self.left_out.get(&key) == Some(&0) {
                self.left_out.shift_remove(&key);
            }
        }
        Ok(())
    }

    /// A dictionary's entries by the text of their keys; of equal keys the last counts, as in Python. Keys that only
    /// their text makes equal are not, where there are tensors under them.
    fn entries(
        &mut self,
        name: &str,
        items: &'a [(Value, Value)],
    ) -> Result<IndexMap<String, &'a Value>, Refusal> {
        let mut found: IndexMap<String, (&Value, &'a Value)> = IndexMap::new();
        for (key, value) in items {
            let text = self.key(key);
            if let Some((other, replaced)) = found.insert(text.clone(), (key, value))
                && !self.is_same_key(other, key)
                && (self.holds_tensor(value, 0)? || self.holds_tensor(replaced, 0)?)
            {
                let reason = format!(
                    "the keys {} and {} would both be called `{}`; rename one of them",
                    self.shown(other),
                    self.shown(key),
                    clip(&joined(name, &text))
                );
                return Err((0, reason));
            }
        }
        Ok(found
            .into_iter()
            .map(|(text, (_, value))| (text, value))
            .collect())
    }

    /// A key as a part of a name: those that are tuples of words, as Flax flattens its trees, are joined by dots.
    fn key(&self, key: &Value) -> String {
        match key {
            Value::Text(text) => text.to_string(),
            other => match self.pickle.node(other) {
                Some(Node::Tuple(parts))
                    if !parts.is_empty()
                        && parts
                            .iter()
                            .all(|part| matches!(part, Value::Text(_) | Value::Int(_))) =>
                {
                    let parts: Vec<String> = parts.iter().map(|part| self.key(part)).collect();
                    parts.join(".")
                }
                Some(Node::Bytes(bytes)) if bytes.len() <= LONGEST => {
                    String::from_utf8_lossy(bytes).into_owned()
                }
                _ => {
                    let mut text = String::new();
                    self.write(other, &mut text, 0);
                    clip(&text)
                }
            },
        }
    }

    /// Whether Python takes two keys for one.
    fn is_same_key(&self, one: &Value, other: &Value) -> bool {
        match (one, other) {
            (Value::Text(one), Value::Text(other)) => one == other,
            (Value::Int(one), Value::Int(other)) => one == other,
            (Value::Node(one), Value::Node(other)) if one == other => true,
            (Value::Float(one), Value::Float(other)) => one == other,
            (Value::None, Value::None) => true,
            (Value::Bool(one), Value::Bool(other)) => one == other,
            _ => match (self.pickle.node(one), self.pickle.node(other)) {
                (Some(Node::Tuple(one)), Some(Node::Tuple(other))) => {
                    let flat = |value: &Value| !matches!(value, Value::Node(_));
                    let mut pairs = one.iter().zip(other);
                    one.len() == other.len()
                        && pairs.all(|(one, other)| flat(one) && self.is_same_key(one, other))
                }
                (Some(Node::Bytes(one)), Some(Node::Bytes(other))) => one == other,
                _ => false,
            },
        }
    }

    /// A key as Python shows it.
    fn shown(&self, key: &Value) -> String {
        match key {
            Value::Text(text) => format!("'{}'", clip(text)),
            Value::Int(number) => number.to_string(),
            other => match self.pickle.node(other) {
                Some(Node::Tuple(parts)) => {
                    let parts: Vec<String> = parts
                        .iter()
                        .take(MOST_ITEMS)
                        .map(|part| match part {
                            Value::Node(_) => "…".to_owned(),
                            flat => self.shown(flat),
                        })
                        .collect();
                    format!("({})", parts.join(", "))
                }
                Some(Node::Bytes(bytes)) => format!("b'{}'", bytes.escape_ascii()),
                _ => {
                    let mut text = String::new();
                    self.write(other, &mut text, 0);
                    clip(&text)
                }
            },
        }
    }

    fn value(&mut self, name: &str, value: &'a Value, depth: usize) -> Result<(), Refusal> {
        self.places += 1;
        self.text += name.len();
        if depth > DEEPEST {
            let reason = format!(
                "`{}` is nested more than {DEEPEST} deep, or in itself",
                clip(name)
            );
            return Err((0, reason));
        }
        if self.places > MOST_PLACES || self.text > MOST_TEXT {
            return Err((
                0,
                "its dictionaries repeat each other beyond all measure".to_owned(),
            ));
        }
        match self.pickle.node(value) {
            Some(Node::Tensor(leaf)) => {
                let attributes = match value {
                    Value::Node(node) => self.pickle.attributes.get(node),
                    _ => None,
                };
                if let Some(attributes) = attributes
                    && self.tensors_wanted
                    && !matches!(**leaf, Leaf::Refused(_))
                    && self.holds_tensor(attributes, depth)?
                {
                    self.leave(format!("{} (attributes with tensors)", clip(name)), true);
                }
                return self.tensor(name, leaf, false);
            }
            Some(Node::Storage(storage)) => {
                let leaf = Leaf::Strided(Tensor::of_storage(storage, 0));
                return self.tensor(name, &Arc::new(leaf), false);
            }
            Some(Node::Scalar(leaf, number)) => {
                self.keep(name, number);
                return match self.tensors_wanted {
                    true => self.tensor(name, leaf, true),
                    false => Ok(()),
                };
            }
            _ => {}
        }
        let holds = self.holds_tensor(value, depth)?;
        match self.pickle.node(value) {
            Some(Node::Object(attributes)) => self.value(name, attributes, depth + 1)?,
            Some(Node::Unread(object)) if self.pickle.module(value).is_none() => {
                self.object(name, object, depth)?;
            }
            Some(Node::Unread(_)) => self.module(name, value, depth)?,
            Some(Node::Dict(items)) if holds || items.len() <= MOST_METADATA => {
                for (key, value) in self.entries(name, items)? {
                    self.value(&joined(name, &key), value, depth + 1)?;
                }
            }
            Some(Node::List(items) | Node::Tuple(items) | Node::Set(items)) if holds => {
                for (at, item) in items.iter().enumerate() {
                    self.value(&joined(name, &at.to_string()), item, depth + 1)?;
                }
            }
            Some(Node::List(items) | Node::Tuple(items))
                if items.len() <= MOST_ITEMS && !self.write(value, &mut String::new(), 0) =>
            {
                for (at, item) in items.iter().enumerate() {
                    self.value(&joined(name, &at.to_string()), item, depth + 1)?;
                }
            }
            _ => self.keep(name, value),
        }
        Ok(())
    }

    /// Takes a tensor, or counts it where none is wanted.
    fn tensor(&mut self, name: &str, leaf: &Arc<Leaf>, is_number: bool) -> Result<(), Refusal> {
        if !self.tensors_wanted {
            if let Some((_, count)) = self.left_out.last_mut() {
                *count += 1;
            }
            return Ok(());
        }
        let name = if name.is_empty() { "tensor" } else { name };
        let named = Named {
            leaf: leaf.clone(),
            is_number,
        };
        self.text += size_of::<(String, Named)>();
        if self.flat.tensors.insert(name.to_owned(), named).is_some() {
            let reason = format!(
                "two tensors have the name `{}`, as with a key that has dots beside nested keys; rename one of them",
                clip(name)
            );
            return Err((leaf.at(), reason));
        }
        Ok(())
    }

    /// A module that was saved as a whole: what its `state_dict()` gives.
    fn module(&mut self, name: &str, value: &'a Value, depth: usize) -> Result<(), Refusal> {
        let pickle = self.pickle;
        let Some((_, state)) = pickle.module(value) else {
            return Ok(());
        };
        let part = |name: &str| {
            let part = attribute(state, name).and_then(|part| pickle.dict(part));
            part.unwrap_or_default()
        };
        let passing = attribute(state, "_non_persistent_buffers_set");
        let passing = match passing.and_then(|names| pickle.node(names)) {
            Some(Node::List(names) | Node::Set(names) | Node::Tuple(names)) => &names[..],
            _ => &[],
        };
        for of in ["_parameters", "_buffers", "_modules"] {
            for (key, value) in self.entries(name, part(of))? {
                let passes = |name: &Value| matches!(name, Value::Text(name) if name[..] == key);
                let is_none = matches!(value, Value::None);
                if !(is_none || of == "_buffers" && passing.iter().any(passes)) {
                    self.value(&joined(name, &key), value, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// An object of another class: what was set by key or appended, and attributes, where there are tensors.
    fn object(&mut self, name: &str, object: &'a Unread, depth: usize) -> Result<(), Refusal> {
        let state = object.state.as_ref();
        let attributes = state.and_then(|state| self.pickle.dict(state));
        let keyed = [Some(&object.entries[..]), attributes];
        let mut holds = false;
        for value in object.items.iter().chain(
            keyed
                .iter()
                .flatten()
                .flat_map(|items| items.iter().map(|(_, value)| value)),
        ) {
            holds |= self.holds_tensor(value, depth)?;
        }
        if holds {
            for (at, item) in object.items.iter().enumerate() {
                self.value(&joined(name, &at.to_string()), item, depth + 1)?;
            }
            for items in keyed.into_iter().flatten() {
                for (key, value) in self.entries(name, items)? {
                    self.value(&joined(name, &key), value, depth + 1)?;
                }
            }
        }
        let mut lost = false;
        if attributes.is_none()
            && let Some(state) = state
        {
            lost |= self.holds_tensor(state, depth)?;
        }
        for argument in &object.arguments {
            lost |= self.holds_tensor(argument, depth)?;
        }
        if !holds || lost {
            let what = if lost {
                format!("`{}` with tensors", clip(&object.class))
            } else {
                format!("`{}`", clip(&object.class))
            };
            self.leave(format!("{} ({what})", clip(name)), lost);
        }
        Ok(())
    }

    /// Says that something is not read, and warns where it may have been weights.
    fn leave(&mut self, what: String, may_be_weights: bool) {
        self.text += what.len();
        if may_be_weights && self.tensors_wanted && self.flat.warnings.len() < MOST_UNREAD {
            self.flat.warnings.push(what.clone());
        }
        self.unread.push(what);
    }

    /// Keeps a value as text if it is short.
    fn keep(&mut self, name: &str, value: &Value) {
        let mut text = String::new();
        if self.write(value, &mut text, 0) && self.flat.metadata.len() < MOST_METADATA {
            self.text += text.len();
            self.flat.metadata.insert(name.to_owned(), text);
            return;
        }
        let is_number = |item: &Value| matches!(item, Value::Float(_) | Value::Int(_));
        let (what, are_numbers) = match self.pickle.node(value) {
            Some(Node::List(items) | Node::Tuple(items)) => (
                format!("a list of {} items", items.len()),
                items.len() > MOST_ITEMS && items.iter().all(is_number),
            ),
            Some(Node::Set(items)) => (format!("a set of {} items", items.len()), false),
            Some(Node::Dict(items)) => (format!("a dictionary of {} entries", items.len()), false),
            Some(Node::Bytes(bytes)) => (format!("{} bytes", bytes.len()), false),
            Some(Node::Long(_)) => ("an integer beyond 64 bits".to_owned(), false),
            Some(_) => ("an object".to_owned(), false),
            None => match value {
                Value::Text(text) => (format!("a text of {} bytes", text.len()), false),
                _ => ("a value beyond those that are kept".to_owned(), false),
            },
        };
        self.leave(format!("{} ({what})", clip(name)), are_numbers);
    }

    /// Writes a value as text; `false` if it is too long.
    fn write(&self, value: &Value, text: &mut String, depth: usize) -> bool {
        match value {
            Value::None => text.push_str("None"),
            Value::Bool(true) => text.push_str("True"),
            Value::Bool(false) => text.push_str("False"),
            Value::Int(value) => text.push_str(&value.to_string()),
            Value::Float(value) => text.push_str(&format!("{value:?}")),
            Value::Text(value) if value.len() > LONGEST => return false,
            Value::Text(value) => text.push_str(value),
            Value::Global(global) => text.push_str(&global.to_string()),
            Value::Foreign(name) => text.push_str(&clip(name)),
            Value::Mark => {}
            Value::Node(_) => match self.pickle.node(value) {
                Some(Node::List(items) | Node::Tuple(items) | Node::Set(items))
                    if depth < DEEPEST =>
                {
                    text.push('[');
                    for (at, item) in items.iter().enumerate() {
                        if at > 0 {
                            text.push_str(", ");
                        }
                        if text.len() > LONGEST || !self.write(item, text, depth + 1) {
                            return false;
                        }
                    }
                    text.push(']');
                }
                Some(Node::NumpyType(kind)) => text.push_str(&clip(&kind.name)),
                Some(Node::Scalar(_, number)) => return self.write(number, text, depth + 1),
                _ => return false,
            },
        }
        text.len() <= LONGEST
    }

    /// Whether there is a tensor anywhere in a value. Each node is answered once.
    fn holds_tensor(&mut self, value: &Value, depth: usize) -> Result<bool, Refusal> {
        let Value::Node(place) = value else {
            return Ok(false);
        };
        if let Some(known) = self.holds.get(*place).copied().flatten() {
            return Ok(known);
        }
        if depth > DEEPEST {
            return Err((0, format!("its values are nested more than {DEEPEST} deep")));
        }
        // A value in itself adds nothing of its own.
        if let Some(known) = self.holds.get_mut(*place) {
            *known = Some(false);
        }
        let pickle = self.pickle;
        let mut found = false;
        match pickle.node(value) {
            Some(Node::Tensor(_) | Node::Storage(_)) => found = true,
            Some(Node::Unread(object)) => {
                let keyed = object.entries.iter().map(|(_, value)| value);
                let given = object.arguments.iter().chain(&object.items);
                for item in keyed.chain(given).chain(&object.state) {
                    found |= self.holds_tensor(item, depth + 1)?;
                }
            }
            Some(Node::Object(attributes)) => found = self.holds_tensor(attributes, depth + 1)?,
            Some(Node::List(items) | Node::Tuple(items) | Node::Set(items)) => {
                for item in items {
                    found |= self.holds_tensor(item, depth + 1)?;
                }
            }
            Some(Node::Dict(items)) => {
                for (_, item) in items {
                    found |= self.holds_tensor(item, depth + 1)?;
                }
            }
            _ => {}
        }
        if let Some(known) = self.holds.get_mut(*place) {
            *known = Some(found);
        }
        Ok(found)
    }
}

fn joined(name: &str, key: &str) -> String {
    if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    }
}
