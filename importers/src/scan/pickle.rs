//! What a pickle would import and call: its opcodes followed over a stack of guesses, beyond what is broken.
//!
//! Values are not built. A text, bytes, a name and what was called are remembered, since names may be put
//! together from texts that lie on the stack or in the memo, and pickles may lie in bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::Place;
use super::names::{self, Judgement};
use crate::data::clip;
use crate::pytorch;

/// The deepest pickle in a pickle.
const DEEPEST: usize = 8;
/// The most values on the stack: a loop over the memo would grow it without bound.
const MOST_VALUES: usize = 1 << 20;
/// The most arguments that are shown of a call.
const SHOWN: usize = 4;

#[derive(Clone)]
enum Value {
    Mark,
    Text(Arc<str>),
    Bytes,
    /// A name, and whether weights need it.
    Name(Arc<str>),
    /// What a call gave.
    Made(Arc<str>),
    Tuple(Arc<[Value]>),
    Other,
}

/// A pickle that was followed.
pub(super) struct Followed {
    /// How many bytes it takes.
    pub(super) length: usize,
    /// Whether it came to its end without a broken opcode.
    pub(super) whole: bool,
    /// How many names it has.
    pub(super) names: usize,
}

/// Follows a pickle from the beginning of `bytes`, and reports what it does to `place`. Where `strict`, it ends
/// at the first broken opcode.
pub(super) fn follow(bytes: &[u8], place: &mut Place<'_>, depth: usize, strict: bool) -> Followed {
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode: 0,
        stack: Vec::new(),
        memo: HashMap::new(),
        place: &mut *place,
        broken: 0,
        names: 0,
        inner: Vec::new(),
    };
    let mut whole = false;
    while machine.at < bytes.len() {
        machine.opcode = machine.at;
        match machine.step() {
            Some(false) => {}
            Some(true) => {
                whole = machine.broken == 0;
                break;
            }
            None => {
                if machine.broken == 0 && !strict {
                    let what = format!(
                        "the pickle is broken at the byte {:#04x}; whoever unpickles it has by then done all that comes before",
                        bytes[machine.opcode]
                    );
                    machine.place.danger(machine.opcode, what);
                }
                machine.broken += 1;
                if strict {
                    break;
                }
                machine.at = machine.opcode + 1;
            }
        }
    }
    if machine.at >= bytes.len() && !whole && machine.broken == 0 && !strict {
        machine
            .place
            .danger(bytes.len(), "the pickle does not end".to_owned());
    }
    let (length, names) = (machine.at.min(bytes.len()), machine.names);
    let inner = std::mem::take(&mut machine.inner);
    for (from, to) in inner {
        let part = &bytes[from..to];
        if depth < DEEPEST {
            place.within(from, "a pickle in a pickle", |place| {
                follow(part, place, depth + 1, true);
            });
        } else {
            place.danger(
                from,
                format!("pickles lie in pickles more than {DEEPEST} deep"),
            );
        }
    }
    Followed {
        length,
        whole,
        names,
    }
}

struct Machine<'a, 'p, 'f> {
    bytes: &'a [u8],
    at: usize,
    opcode: usize,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    place: &'p mut Place<'f>,
    broken: usize,
    names: usize,
    /// Bytes that are pickles themselves.
    inner: Vec<(usize, usize)>,
}

impl Machine<'_, '_, '_> {
    /// Follows one opcode: whether it is the last, or `None` if it is broken.
    fn step(&mut self) -> Option<bool> {
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => {
                let protocol = self.take(1)?[0];
                if protocol > 5 {
                    return None;
                }
            }
            0x95 => {
                self.take(8)?;
            }
            b'.' => return Some(true),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'K' => self.skip(1)?,
            b'M' => self.skip(2)?,
            b'J' => self.skip(4)?,
            b'G' => self.skip(8)?,
            0x8a => {
                let length = usize::from(self.take(1)?[0]);
                self.skip(length)?;
            }
            0x8b => {
                let length = self.length::<4>()?;
                self.skip(length)?;
            }
            b'I' | b'L' | b'F' => {
                let line = self.line()?;
                let number = line.trim_end_matches('L').parse::<f64>();
                number.ok()?;
                self.push(Value::Other);
            }
            0x8c => {
                let length = usize::from(self.take(1)?[0]);
                self.text(length)?;
            }
            b'X' => {
                let length = self.length::<4>()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length::<8>()?;
                self.text(length)?;
            }
            b'V' | b'S' => {
                let line = self.line()?;
                let text = if opcode == b'S' {
                    line.trim_matches(['\'', '"']).to_owned()
                } else {
                    line
                };
                self.push(Value::Text(text.into()));
            }
            b'U' => {
                let length = usize::from(self.take(1)?[0]);
                self.raw(length, true)?;
            }
            b'T' => {
                let length = self.length::<4>()?;
                self.raw(length, true)?;
            }
            b'C' => {
                let length = usize::from(self.take(1)?[0]);
                self.raw(length, false)?;
            }
            b'B' => {
                let length = self.length::<4>()?;
                self.raw(length, false)?;
            }
            0x8e | 0x96 => {
                let length = self.length::<8>()?;
                self.raw(length, false)?;
            }
            b'(' => self.push(Value::Mark),
            b')' => self.push(Value::Tuple(Vec::new().into())),
            b']' | b'}' | 0x8f => self.push(Value::Other),
            0x85..=0x87 => {
                let mut items: Vec<Value> = (0..opcode - 0x84).map(|_| self.pop()).collect();
                items.reverse();
                self.push(Value::Tuple(items.into()));
            }
            b't' => {
                let items = self.marked();
                self.push(Value::Tuple(items.into()));
            }
            b'l' | b'd' | 0x91 => {
                self.marked();
                self.push(Value::Other);
            }
            b'a' => drop(self.pop()),
            b's' => {
                self.pop();
                self.pop();
            }
            b'e' | b'u' | 0x90 | b'1' => drop(self.marked()),
            b'0' => drop(self.pop()),
            b'2' => {
                let top = self.stack.last().cloned().unwrap_or(Value::Other);
                self.push(top);
            }
            b'q' => {
                let key = u64::from(self.take(1)?[0]);
                self.put(key);
            }
            b'r' => {
                let key = self.length::<4>()? as u64;
                self.put(key);
            }
            b'p' => {
                let key = self.line()?.parse().ok()?;
                self.put(key);
            }
            0x94 => self.put(self.memo.len() as u64),
            b'h' => {
                let key = u64::from(self.take(1)?[0]);
                self.get(key);
            }
            b'j' => {
                let key = self.length::<4>()? as u64;
                self.get(key);
            }
            b'g' => {
                let key = self.line()?.parse().ok()?;
                self.get(key);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                if !is_name(&module) || !is_name(&name) {
                    return None;
                }
                self.name(&module, &name);
            }
            0x93 => {
                let (name, module) = (self.pop(), self.pop());
                match (module, name) {
                    (Value::Text(module), Value::Text(name)) => self.name(&module, &name),
                    (module, name) => {
                        let what = format!(
                            "names something that is put together while it is unpickled: {} of {}",
                            shown(&name),
                            shown(&module)
                        );
                        self.place.danger(self.opcode, what);
                        self.names += 1;
                        self.push(Value::Name("what it puts together".into()));
                    }
                }
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop(), self.pop());
                self.call(&callable, &arguments);
            }
            0x92 => {
                let (_, arguments, callable) = (self.pop(), self.pop(), self.pop());
                self.call(&callable, &arguments);
            }
            b'b' => {
                let state = self.pop();
                if let Some(Value::Made(what)) = self.stack.last() {
                    let judged = names::is_foreign(what);
                    if judged {
                        let what =
                            format!("sets the state of `{}` to {}", clip(what), shown(&state));
                        self.place.danger(self.opcode, what);
                    }
                }
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                if !is_name(&module) || !is_name(&name) {
                    return None;
                }
                let arguments = self.marked();
                self.name(&module, &name);
                let callable = self.pop();
                self.call(&callable, &Value::Tuple(arguments.into()));
            }
            b'o' => {
                let mut items = self.marked();
                let callable = if items.is_empty() {
                    Value::Other
                } else {
                    items.remove(0)
                };
                self.call(&callable, &Value::Tuple(items.into()));
            }
            b'P' => {
                self.line()?;
                self.push(Value::Other);
            }
            b'Q' => {
                self.pop();
                self.push(Value::Other);
            }
            0x82..=0x84 => {
                let width = [1, 2, 4][usize::from(opcode - 0x82)];
                let mut code = [0; 4];
                code[..width].copy_from_slice(self.take(width)?);
                let what = format!(
                    "names something by the extension code {}, which stands for whatever is registered where it is unpickled",
                    u32::from_le_bytes(code)
                );
                self.place.danger(self.opcode, what);
                self.names += 1;
                self.push(Value::Name("what an extension code stands for".into()));
            }
            0x97 => self.push(Value::Other),
            0x98 => {}
            _ => return None,
        }
        Some(false)
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn length<const N: usize>(&mut self) -> Option<usize> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    }

    fn line(&mut self) -> Option<String> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = str::from_utf8(&rest[..length]).ok()?.to_owned();
        self.at += length + 1;
        Some(line)
    }

    /// A number of so many bytes, whose value does not matter.
    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count)?;
        self.push(Value::Other);
        Some(())
    }

    fn text(&mut self, length: usize) -> Option<()> {
        let text = str::from_utf8(self.take(length)?).ok()?.into();
        self.push(Value::Text(text));
        Some(())
    }

    /// Bytes, or a text whose encoding is not known; a pickle among them is kept for later.
    fn raw(&mut self, length: usize, text: bool) -> Option<()> {
        let from = self.at;
        let bytes = self.take(length)?;
        let value = match str::from_utf8(bytes) {
            Ok(known) if text => Value::Text(known.into()),
            _ => Value::Bytes,
        };
        if pytorch::is_pickle(bytes) {
            self.inner.push((from, from + length));
        }
        self.push(value);
        Some(())
    }

    fn push(&mut self, value: Value) {
        if self.stack.len() < MOST_VALUES {
            self.stack.push(value);
        }
    }

    fn pop(&mut self) -> Value {
        self.stack.pop().unwrap_or(Value::Other)
    }

    fn marked(&mut self) -> Vec<Value> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark));
        match mark {
            Some(mark) => {
                let items = self.stack.split_off(mark + 1);
                self.stack.pop();
                items
            }
            None => std::mem::take(&mut self.stack),
        }
    }

    fn put(&mut self, key: u64) {
        if let Some(top) = self.stack.last()
            && self.memo.len() < MOST_VALUES
        {
            self.memo.insert(key, top.clone());
        }
    }

    fn get(&mut self, key: u64) {
        let value = self.memo.get(&key).cloned().unwrap_or(Value::Other);
        self.push(value);
    }

    fn name(&mut self, module: &str, name: &str) {
        self.names += 1;
        let full: Arc<str> = format!("{module}.{name}").into();
        match names::judge(module, name) {
            Judgement::Weights => {}
            Judgement::Dangerous(does) => {
                let what = format!("imports `{}`, which {does}", clip(&full));
                self.place.danger(self.opcode, what);
            }
            Judgement::Foreign => {
                let what = format!("imports `{}`, which weights are not made of", clip(&full));
                self.place.danger(self.opcode, what);
            }
        }
        self.push(Value::Name(full));
    }

    fn call(&mut self, callable: &Value, arguments: &Value) {
        match callable {
            Value::Name(name) => {
                if names::is_foreign(name) {
                    let what = format!("calls `{}` with {}", clip(name), shown(arguments));
                    self.place.danger(self.opcode, what);
                }
                self.push(Value::Made(name.clone()));
            }
            Value::Made(name) => {
                let what = format!(
                    "calls what `{}` gives with {}",
                    clip(name),
                    shown(arguments)
                );
                self.place.danger(self.opcode, what);
                self.push(Value::Made(name.clone()));
            }
            other => {
                if self.broken == 0 {
                    let what = format!("calls {}", shown(other));
                    self.place.danger(self.opcode, what);
                }
                self.push(Value::Other);
            }
        }
    }
}

/// Whether a line can be a dotted name: no other bytes follow an opcode by chance.
fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || "_.-<>".contains(c);
    !text.is_empty() && text.chars().all(letter)
}

/// A value as a reader of the report would write it.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{}'", clip(text)),
        Value::Bytes => "bytes".to_owned(),
        Value::Name(name) => format!("`{}`", clip(name)),
        Value::Made(name) => format!("what `{}` gives", clip(name)),
        Value::Tuple(items) => {
            let inner = items.iter().take(SHOWN).map(|item| match item {
                Value::Tuple(_) => "(…)".to_owned(),
                item => shown(item),
            });
            let mut inner: Vec<String> = inner.collect();
            if items.len() > SHOWN {
                inner.push("…".to_owned());
            }
            format!("({})", inner.join(", "))
        }
        Value::Mark | Value::Other => "a value".to_owned(),
    }
}
