//! From a pickle's values to dotted names: wrappers, prefixes and what is kept as text.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::pickle::{Node, Pickle, Refusal, Tensor, Value};
use crate::data::clip;

/// The deepest nesting of dictionaries and lists. It also ends those that hold themselves.
const DEEPEST: usize = 64;
/// The most places that are looked at; a dictionary that is in many places counts once for each.
const MOST_PLACES: usize = 1 << 22;
/// The most bytes that all names and texts take, since a short key may prefix any number of names.
const MOST_TEXT: usize = 64 << 20;
/// The longest text that is kept as metadata.
const LONGEST: usize = 1024;
/// The largest dictionary without a tensor, and the most entries of metadata, that are kept.
const MOST_METADATA: usize = 1024;

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
    pub(super) tensors: IndexMap<String, Tensor>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Flattens a pickle; `prefix` begins all names, for a second pickle of the same file.
pub(super) fn flatten(pickle: &Pickle, prefix: &str) -> Result<Flat, Refusal> {
    let mut walk = Walk {
        pickle,
        holds: vec![None; pickle.nodes.len()],
        flat: Flat::default(),
        left_out: IndexMap::new(),
        dropped: 0,
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
        dropped,
        ..
    } = walk;
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
    if dropped > 0 {
        flat.metadata
            .insert("pytorch.metadata_left_out".to_owned(), dropped.to_string());
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
    /// How many values were too large to be kept as text.
    dropped: usize,
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
            let found = items
                .iter()
                .rfind(|(key, _)| matches!(key, Value::Text(key) if &key[..] == name));
            if let Some((_, inner)) = found
                && self.pickle.dict(inner).is_some()
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
        for (key, value) in self.entries(root) {
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

    /// A dictionary's entries by the text of their keys; of equal keys the last counts, as in Python.
    fn entries(&self, value: &Value) -> IndexMap<String, &'a Value> {
        let items = self.pickle.dict(value).unwrap_or_default();
        items
            .iter()
            .map(|(key, value)| (self.key(key), value))
            .collect()
    }

    fn key(&self, key: &Value) -> String {
        match key {
            Value::Text(text) => text.to_string(),
            other => {
                let mut text = String::new();
                self.write(other, &mut text, 0);
                clip(&text)
            }
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
        if let Some(Node::Tensor(tensor)) = self.pickle.node(value) {
            if self.tensors_wanted {
                let name = if name.is_empty() { "tensor" } else { name };
                self.text += size_of::<Tensor>() + size_of::<u64>() * 2 * tensor.shape.len();
                if self
                    .flat
                    .tensors
                    .insert(name.to_owned(), Tensor::clone(tensor))
                    .is_some()
                {
                    return Err((
                        tensor.at,
                        format!("two tensors have the name `{}`", clip(name)),
                    ));
                }
            } else if let Some((_, count)) = self.left_out.last_mut() {
                *count += 1;
            }
            return Ok(());
        }
        let holds = self.holds_tensor(value, depth)?;
        match self.pickle.node(value) {
            Some(Node::Object(attributes)) => self.value(name, attributes, depth + 1)?,
            Some(Node::Dict(items)) if holds || items.len() <= MOST_METADATA => {
                for (key, value) in self.entries(value) {
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

    /// Keeps a value as text if it is short.
    fn keep(&mut self, name: &str, value: &Value) {
        let mut text = String::new();
        if self.write(value, &mut text, 0) && self.flat.metadata.len() < MOST_METADATA {
            self.text += text.len();
            self.flat.metadata.insert(name.to_owned(), text);
        } else {
            self.dropped += 1;
        }
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
                Some(Node::Storage(storage)) => {
                    text.push_str(&format!("storage {}", clip(&storage.key)))
                }
                Some(Node::NumpyType(name, _)) => text.push_str(&clip(name)),
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
            Some(Node::Tensor(_)) => found = true,
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
