//! What a pickle would import and call, and where in a file there are pickles.
//!
//! Values are not built. A text, bytes, a name and what was called are remembered, since names may be put together
//! from texts that lie on the stack or in the memo. Operands that are missing are taken for unknown values, so that
//! where an opcode ends depends on its bytes alone: whoever starts at the same byte takes the same way. A search from
//! many starting points follows each way once, which keeps it linear in the size of the file.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::names::{self, Judgement};
use super::template::unescape;
use super::{Place, Severity};
use crate::data::clip;

/// The most values on the stack and in the memo; the oldest are forgotten.
const MOST_VALUES: usize = 1 << 18;
/// The most arguments that are kept of a call.
const SHOWN: usize = 4;
/// The most findings of one pickle.
const MOST_HITS: usize = 1 << 10;
/// The longest module or attribute name; nothing longer can be imported.
const LONGEST_NAME: usize = 512;
/// The longest name of a package that is known to be dangerous.
const LONGEST_TOP: usize = 40;
/// How far a call is looked for on a way that has been followed already.
const GRACE: usize = 32;
const PROTO: u8 = 0x80;

/// Whether bytes begin with the mark of a pickle of any protocol.
pub(super) fn is_marked(bytes: &[u8]) -> bool {
    matches!(bytes, [PROTO, 0..=5, ..])
}

/// What the pickles at the beginning of some bytes came to.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// How many bytes they take.
    pub(super) length: usize,
    /// Whether the first came to its end.
    pub(super) whole: bool,
    /// How many there are.
    pub(super) count: usize,
}

/// Follows the pickles at the beginning of `bytes`, and whatever other pickles there are in them.
pub(super) fn scan(bytes: &[u8], from: usize, place: &mut Place<'_>) -> Beginning {
    let lines = Lines::new(bytes);
    let mut search = Search {
        bytes,
        lines: &lines,
        visited: Visited::default(),
    };
    let found = search.beginning(from, place);
    search.anywhere(found.length, place);
    found
}

/// How many bytes the pickles at the beginning take.
pub(super) fn length(bytes: &[u8]) -> usize {
    let lines = Lines::new(bytes);
    let mut search = Search {
        bytes,
        lines: &lines,
        visited: Visited::default(),
    };
    let mut at = 0;
    while is_marked(&bytes[at..]) {
        let trial = search.follow(at, Start::Loaded);
        at = trial.at.min(bytes.len());
        if !trial.whole {
            break;
        }
    }
    at
}

struct Search<'a> {
    bytes: &'a [u8],
    lines: &'a Lines<'a>,
    visited: Visited,
}

/// Why a trial was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A loader begins here.
    Loaded,
    /// The mark of a protocol.
    Marked,
    /// An import of something that is known to be dangerous.
    Import,
}

impl<'a> Search<'a> {
    /// Pickles one behind the other, as loaders read them from the beginning.
    fn beginning(&mut self, from: usize, place: &mut Place<'_>) -> Beginning {
        let mut found = Beginning {
            length: from,
            ..Beginning::default()
        };
        loop {
            let at = found.length;
            let rest = &self.bytes[at.min(self.bytes.len())..];
            let marked = is_marked(rest);
            if rest.is_empty() || (found.count > 0 && !marked) {
                return found;
            }
            let trial = self.follow(at, Start::Loaded);
            let spans = trial.whole && trial.at - at > 1;
            // Anything may begin with bytes that are opcodes; a pickle without a mark has to come to something.
            let rest = &self.bytes[trial.at.min(self.bytes.len())..];
            let alone = spans && rest.iter().all(u8::is_ascii_whitespace);
            // The length of a safetensors header may look as a mark.
            let marked = marked
                && (found.count > 0
                    || trial.whole
                    || trial.harms
                    || !super::tensors::is_safetensors(self.bytes));
            if !(marked || alone || trial.calls_harm || (spans && trial.calls_unknown)) {
                return found;
            }
            found.whole |= trial.whole && found.count == 0;
            found.count += 1;
            place.scan.pickles += 1;
            found.length = trial.at.min(self.bytes.len());
            if at == from || (trial.hits.is_empty() && !trial.broken && !trial.ended) {
                report(trial, place);
            } else {
                place.within(at, "the next pickle", |place| report(trial, place));
            }
            if !found.whole && found.count == 1 {
                return found;
            }
        }
    }

    /// Pickles among other bytes, and those in texts of other pickles.
    fn anywhere(&mut self, known: usize, place: &mut Place<'_>) {
        let bytes = self.bytes;
        // The last line that ended, and where the current one begins.
        let (mut before, mut begin) = (0..0, 0);
        for at in memchr::memchr3_iter(PROTO, 0x93, b'\n', bytes) {
            self.visited.forget(at.saturating_sub(4 * LONGEST_NAME));
            match bytes[at] {
                PROTO if is_marked(&bytes[at..]) => {
                    let trial = self.follow(at, Start::Marked);
                    self.found(at, known, trial, place);
                }
                0x93 => {
                    if let Some(start) = pushed_name(bytes, at) {
                        let trial = self.follow(start, Start::Import);
                        self.found(start, known, trial, place);
                    }
                }
                b'\n' => {
                    let line = begin..at;
                    if before.end + 1 == line.start && is_name(&bytes[line.clone()]) {
                        for start in imports(bytes, &before, &line) {
                            if bytes[start] == b'i' && !self.is_marked_before(start) {
                                continue;
                            }
                            let trial = self.follow(start, Start::Import);
                            self.found(start, known, trial, place);
                        }
                    }
                    before = line;
                    begin = at + 1;
                }
                _ => {}
            }
        }
    }

    fn found(&self, start: usize, known: usize, trial: Trial<'_>, place: &mut Place<'_>) {
        let reported = match trial.start {
            Start::Loaded => true,
            Start::Marked => trial.harms || (trial.whole && trial.calls_unknown),
            Start::Import => trial.calls_harm && self.is_likely(start, &trial),
        };
        if !reported {
            return;
        }
        place.scan.pickles += 1;
        let what = if start < known {
            "a pickle in a pickle"
        } else {
            "a pickle among other bytes"
        };
        place.within(start, what, |place| report(trial, place));
    }

    /// An instance by name is called where it stands; in a list of words that takes more evidence.
    fn is_likely(&self, start: usize, trial: &Trial<'_>) -> bool {
        if self.bytes[start] != b'i' {
            return true;
        }
        trial.whole && self.is_marked_before(start)
    }

    fn is_marked_before(&self, start: usize) -> bool {
        self.bytes[start.saturating_sub(256)..start].contains(&b'(')
    }

    fn follow(&mut self, start: usize, why: Start) -> Trial<'a> {
        let mut trial = Trial {
            bytes: self.bytes,
            lines: self.lines,
            start: why,
            begin: start,
            at: start,
            opcode: start,
            stack: VecDeque::new(),
            memo: Memo::default(),
            spelled: Cell::new(0),
            hits: Vec::new(),
            said: HashSet::new(),
            more: 0,
            whole: false,
            broken: false,
            ended: false,
            arrays: false,
            forgot: false,
            mark_lacks: false,
            harms: false,
            calls_harm: false,
            calls_unknown: false,
        };
        let mut grace = GRACE;
        while trial.at < self.bytes.len() {
            let fresh = self.visited.mark(trial.at);
            if !fresh && why != Start::Loaded {
                // Only the call of what has been imported on the way here is new.
                if !trial.harms || trial.calls_harm || grace == 0 {
                    return trial;
                }
                grace -= 1;
            }
            trial.opcode = trial.at;
            match trial.step() {
                Some(false) if trial.arrays => return trial,
                Some(false) => {}
                Some(true) => {
                    trial.whole = true;
                    return trial;
                }
                None => {
                    trial.broken = true;
                    return trial;
                }
            }
        }
        trial.ended = true;
        trial
    }
}

/// The places before a line that is a name at which an opcode may import it from a dangerous module.
fn imports(
    bytes: &[u8],
    module: &std::ops::Range<usize>,
    name: &std::ops::Range<usize>,
) -> Vec<usize> {
    let name = String::from_utf8_lossy(trim(&bytes[name.clone()])).into_owned();
    let line = trim(&bytes[module.clone()]);
    let run = line
        .iter()
        .rev()
        .take(LONGEST_NAME)
        .take_while(|byte| is_name_byte(**byte))
        .count();
    let from = line.len() - run;
    let starts = (from..line.len()).filter(|at| {
        let top = line[at + 1..].split(|byte| *byte == b'.').next();
        matches!(line[*at], b'c' | b'i')
            && top.is_some_and(|top| top.len() <= LONGEST_TOP)
            && str::from_utf8(&line[at + 1..])
                .is_ok_and(|module| !module.is_empty() && names::is_known_danger(module, &name))
    });
    starts.map(|at| module.start + at).collect()
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where a module and a name are pushed as texts right before the `STACK_GLOBAL` at `end`, if that is dangerous.
fn pushed_name(bytes: &[u8], end: usize) -> Option<usize> {
    let (name_at, name) = pushed(bytes, end)?;
    let (module_at, module) = pushed(bytes, name_at)?;
    names::is_known_danger(&module, &name).then_some(module_at)
}

/// The text that is pushed right before `end`, memoized or not, and where its opcode is.
fn pushed(bytes: &[u8], end: usize) -> Option<(usize, String)> {
    let ends = [
        Some(end),
        end.checked_sub(1).filter(|at| bytes[*at] == 0x94),
        end.checked_sub(2).filter(|at| bytes[*at] == b'q'),
        end.checked_sub(5).filter(|at| bytes[*at] == b'r'),
    ];
    ends.into_iter()
        .flatten()
        .find_map(|end| text_before(bytes, end))
}

fn text_before(bytes: &[u8], end: usize) -> Option<(usize, String)> {
    let closed = bytes[..end].ends_with(b"\n");
    let end = end - usize::from(closed);
    let letter = |byte: &u8| is_name_byte(*byte) || closed && matches!(byte, b'\'' | b'"' | b'\\');
    let most = bytes[..end]
        .iter()
        .rev()
        .take(LONGEST_NAME)
        .take_while(|byte| letter(byte))
        .count();
    for length in 1..=most {
        let begin = end - length;
        let text = &bytes[begin..end];
        let before = &bytes[..begin];
        let opcode = if closed {
            // Opcodes of lines are letters, too.
            let opcode = begin.checked_sub(1)?;
            matches!(bytes[opcode], b'V' | b'S').then_some(opcode)
        } else {
            let short = u8::try_from(length).ok();
            let long = u32::try_from(length).ok()?.to_le_bytes();
            match before {
                [.., 0x8c | b'U', size] if Some(*size) == short => Some(begin - 2),
                [.., b'X' | b'T', a, b, c, d] if [*a, *b, *c, *d] == long => Some(begin - 5),
                _ => None,
            }
        };
        if let Some(opcode) = opcode {
            let raw = String::from_utf8_lossy(text);
            let text = if closed {
                unescape(raw.trim_matches(['\'', '"']))
            } else {
                raw.into_owned()
            };
            return Some((opcode, text));
        }
    }
    None
}

/// Puts what a pickle does into the report.
fn report(trial: Trial<'_>, place: &mut Place<'_>) {
    let (at, size) = (trial.opcode, trial.bytes.len());
    let byte = trial.bytes.get(at).copied().unwrap_or_default();
    let worst = trial.hits.iter().any(|hit| hit.0 == Severity::Danger);
    let (broken, ended, more) = (trial.broken, trial.ended, trial.more);
    for (severity, offset, what) in trial.hits {
        place.found(severity, offset, what);
    }
    place.scan.more += more;
    let done = if worst {
        "; whoever unpickles it has by then done all that comes before"
    } else {
        ""
    };
    if broken {
        place.notice(
            at,
            format!("the pickle is broken at the byte {byte:#04x}{done}"),
        );
    } else if ended {
        place.notice(size, format!("the pickle does not end{done}"));
    }
}

/// A qualified name and its judgement.
struct Named {
    full: String,
    module: usize,
    judged: Judgement,
}

impl Named {
    fn is(&self, module: &str, name: &str) -> bool {
        let (own, rest) = self.full.split_at(self.module);
        own == module && rest.strip_prefix('.') == Some(name)
    }
}

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Plain,
    /// With Python's escapes, in quotes.
    Quoted,
    /// With escapes of Unicode alone.
    Escaped,
}

#[derive(Clone)]
enum Value {
    Mark,
    Text(usize, usize, Written),
    Bytes,
    Name(Rc<Named>),
    /// What a call gave.
    Made(Rc<Named>),
    Tuple(Rc<[Value]>),
    Other,
}

/// Values by number. Most are numbered one by one.
#[derive(Default)]
struct Memo {
    counted: Vec<Value>,
    others: HashMap<u64, Value>,
}

impl Memo {
    fn len(&self) -> u64 {
        (self.counted.len() + self.others.len()) as u64
    }

    fn put(&mut self, key: u64, value: Value) {
        let next = self.counted.len() as u64;
        if key < next {
            self.counted[key as usize] = value;
        } else if self.len() >= MOST_VALUES as u64 && !self.others.contains_key(&key) {
            // What is forgotten here counts as put together where it is used.
        } else if key == next {
            self.others.remove(&key);
            self.counted.push(value);
        } else {
            self.others.insert(key, value);
        }
    }

    fn get(&self, key: u64) -> Option<Value> {
        let counted = usize::try_from(key)
            .ok()
            .and_then(|key| self.counted.get(key));
        counted.or_else(|| self.others.get(&key)).cloned()
    }
}

struct Trial<'a> {
    bytes: &'a [u8],
    lines: &'a Lines<'a>,
    start: Start,
    begin: usize,
    at: usize,
    opcode: usize,
    stack: VecDeque<Value>,
    memo: Memo,
    /// How many bytes of texts have been read, some of them again and again.
    spelled: Cell<usize>,
    hits: Vec<(Severity, usize, String)>,
    said: HashSet<String>,
    /// How many more dangers there are than are kept.
    more: usize,
    /// Whether it came to its end.
    whole: bool,
    broken: bool,
    /// Whether the bytes came to their end first.
    ended: bool,
    /// Whether the numbers of an array follow, as joblib writes them.
    arrays: bool,
    /// Whether values at the bottom of the stack are forgotten.
    forgot: bool,
    /// Whether the last opcode found no mark.
    mark_lacks: bool,
    /// Whether it names what is known to be dangerous.
    harms: bool,
    calls_harm: bool,
    calls_unknown: bool,
}

impl Trial<'_> {
    /// Follows one opcode: whether it is the last, or `None` if it is broken.
    fn step(&mut self) -> Option<bool> {
        let opcode = self.take(1)?[0];
        match opcode {
            PROTO => {
                if self.take(1)?[0] > 5 {
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
                let (begin, end) = self.line()?;
                let line = self.bytes[begin..end].trim_ascii_start();
                let number = |byte: &u8| byte.is_ascii_digit() || b"+-.nNiI".contains(byte);
                if !line.first().is_some_and(number) {
                    return None;
                }
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
                let (begin, end) = self.line()?;
                let written = if opcode == b'S' {
                    Written::Quoted
                } else {
                    Written::Escaped
                };
                self.push(Value::Text(begin, end, written));
            }
            b'U' => {
                let length = usize::from(self.take(1)?[0]);
                self.text(length)?;
            }
            b'T' => {
                let length = self.length::<4>()?;
                self.text(length)?;
            }
            b'C' => {
                let length = usize::from(self.take(1)?[0]);
                self.raw(length)?;
            }
            b'B' => {
                let length = self.length::<4>()?;
                self.raw(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length::<8>()?;
                self.raw(length)?;
            }
            b'(' => self.push(Value::Mark),
            b')' => self.push(Value::Tuple(Vec::new().into())),
            b']' | b'}' | 0x8f | 0x97 => self.push(Value::Other),
            0x98 => {}
            0x85..=0x87 => {
                let mut items: Vec<Value> = (0..opcode - 0x84).map(|_| self.pop()).collect();
                items.reverse();
                self.tuple(items);
            }
            b't' => {
                let items = self.marked()?;
                self.tuple(items);
            }
            b'l' | b'd' | 0x91 => {
                self.marked()?;
                self.push(Value::Other);
            }
            b'a' => drop(self.pop()),
            b's' => {
                self.pop();
                self.pop();
                self.items_set();
            }
            b'u' => {
                self.marked()?;
                self.items_set();
            }
            b'e' | 0x90 | b'1' => drop(self.marked()?),
            b'0' => drop(self.pop()),
            b'2' => {
                let top = self.stack.back().cloned().unwrap_or(Value::Other);
                self.push(top);
            }
            b'q' => {
                let key = u64::from(self.take(1)?[0]);
                self.put(Some(key));
            }
            b'r' => {
                let key = self.length::<4>()? as u64;
                self.put(Some(key));
            }
            b'p' => {
                let key = self.number()?;
                self.put(key);
            }
            0x94 => self.put(Some(self.memo.len())),
            b'h' => {
                let key = u64::from(self.take(1)?[0]);
                self.get(Some(key));
            }
            b'j' => {
                let key = self.length::<4>()? as u64;
                self.get(Some(key));
            }
            b'g' => {
                let key = self.number()?;
                self.get(key);
            }
            b'c' => {
                let (module, name) = self.name_lines()?;
                let named = self.name(&module, &name);
                self.push(named);
            }
            0x93 => self.stack_global()?,
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop(), self.pop());
                self.call(&callable, &arguments);
            }
            0x92 => {
                let (_, arguments, callable) = (self.pop(), self.pop(), self.pop());
                self.call(&callable, &arguments);
            }
            b'b' => self.build(),
            b'i' => {
                let (module, name) = self.name_lines()?;
                let mut arguments = self.marked()?;
                arguments.truncate(SHOWN + 1);
                let callable = self.name(&module, &name);
                let before = self.calls_harm;
                self.call(&callable, &Value::Tuple(arguments.into()));
                // In a list of words this may be one of them.
                if self.mark_lacks && self.opcode != self.begin {
                    self.calls_harm = before;
                }
            }
            b'o' => {
                let mut items = self.marked()?;
                items.truncate(SHOWN + 2);
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
                // PyTorch's older files keep the source of a class beside it.
                let class = match self.pop() {
                    Value::Tuple(items) => match &items[..] {
                        [kind, class @ Value::Name(_), ..]
                            if self.read(kind).as_deref() == Some("module") =>
                        {
                            Some(class.clone())
                        }
                        _ => None,
                    },
                    _ => None,
                };
                self.push(class.unwrap_or(Value::Other));
            }
            0x82..=0x84 => {
                let width = [1, 2, 4][usize::from(opcode - 0x82)];
                let mut code = [0; 4];
                code[..width].copy_from_slice(self.take(width)?);
                let what = format!(
                    "names something by the extension code {}, which stands for whatever is registered where it is unpickled",
                    u32::from_le_bytes(code)
                );
                self.danger(what);
                let unknown = Named {
                    full: "what an extension code stands for".to_owned(),
                    module: 0,
                    judged: Judgement::UnknownFunction,
                };
                self.push(Value::Name(unknown.into()));
            }
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

    /// Where the line that begins here does so and ends; the next opcode is behind it.
    fn line(&mut self) -> Option<(usize, usize)> {
        let begin = self.at;
        let end = self.lines.end(begin)?;
        self.at = end + 1;
        Some((begin, end))
    }

    /// The number in a line as Python's `int` reads it; the inner `None` is one that it would not read.
    fn number(&mut self) -> Option<Option<u64>> {
        let (begin, end) = self.line()?;
        if end - begin > LONGEST_NAME {
            return None;
        }
        let line = String::from_utf8_lossy(&self.bytes[begin..end]).replace('_', "");
        let line = line.trim().trim_start_matches('+');
        Some(line.parse().ok())
    }

    fn name_lines(&mut self) -> Option<(String, String)> {
        let (first, second) = (self.line()?, self.line()?);
        let text = |(begin, end): (usize, usize)| {
            let line = trim(&self.bytes[begin..end]);
            is_name(line).then(|| String::from_utf8_lossy(line).into_owned())
        };
        Some((text(first)?, text(second)?))
    }

    /// A number of so many bytes, whose value does not matter.
    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count)?;
        self.push(Value::Other);
        Some(())
    }

    fn text(&mut self, length: usize) -> Option<()> {
        let begin = self.at;
        self.take(length)?;
        self.push(Value::Text(begin, self.at, Written::Plain));
        Some(())
    }

    fn raw(&mut self, length: usize) -> Option<()> {
        self.take(length)?;
        self.push(Value::Bytes);
        Some(())
    }

    fn push(&mut self, value: Value) {
        if self.stack.len() == MOST_VALUES {
            self.stack.pop_front();
            self.forgot = true;
        }
        self.stack.push_back(value);
    }

    fn pop(&mut self) -> Value {
        self.stack.pop_back().unwrap_or(Value::Other)
    }

    /// A tuple, of which the first items are kept; tuples in it are not, so that nothing nests.
    fn tuple(&mut self, items: Vec<Value>) {
        let flat = items.into_iter().take(SHOWN + 1).map(|item| match item {
            Value::Tuple(_) => Value::Other,
            item => item,
        });
        let flat: Vec<Value> = flat.collect();
        self.push(Value::Tuple(flat.into()));
    }

    /// What lies above the topmost mark. Who begins in the middle may have left the mark behind; to a loader its lack
    /// is an error.
    fn marked(&mut self) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        let mut found = false;
        while let Some(value) = self.stack.pop_back() {
            if matches!(value, Value::Mark) {
                found = true;
                break;
            }
            items.push(value);
        }
        if !found && self.start == Start::Loaded && !self.forgot {
            return None;
        }
        self.mark_lacks = !found;
        items.reverse();
        Some(items)
    }

    fn put(&mut self, key: Option<u64>) {
        if let (Some(key), Some(top)) = (key, self.stack.back()) {
            self.memo.put(key, top.clone());
        }
    }

    fn get(&mut self, key: Option<u64>) {
        let value = key.and_then(|key| self.memo.get(key));
        self.push(value.unwrap_or(Value::Other));
    }

    fn danger(&mut self, what: String) {
        self.hit(Severity::Danger, what);
    }

    fn hit(&mut self, severity: Severity, what: String) {
        if self.said.contains(&what) {
            return;
        }
        if self.hits.len() >= MOST_HITS {
            self.more += usize::from(severity == Severity::Danger);
            if severity != Severity::Danger || self.more > 1 {
                return;
            }
        }
        self.said.insert(what.clone());
        self.hits.push((severity, self.opcode, what));
    }

    /// The text of a value, if it is one and can be a name.
    fn read(&self, value: &Value) -> Option<String> {
        let Value::Text(begin, end, written) = value else {
            return None;
        };
        let raw = self.bytes.get(*begin..*end)?;
        let spelled = self.spelled.get() + raw.len();
        if raw.len() > LONGEST_NAME * 6 || spelled / 4 > self.bytes.len() + LONGEST_NAME {
            return None;
        }
        self.spelled.set(spelled);
        let text = String::from_utf8_lossy(raw);
        Some(match written {
            Written::Plain => text.into_owned(),
            Written::Quoted => unescape(text.trim().trim_matches(['\'', '"'])),
            Written::Escaped => unescape(&text),
        })
    }

    fn name(&mut self, module: &str, name: &str) -> Value {
        let judged = names::judge(module, name);
        let full = format!("{module}.{name}");
        let shown = || clip(&full);
        match judged {
            Judgement::Allowed => {}
            Judgement::Library | Judgement::LibraryFunction => {
                let library = module.split('.').next().unwrap_or_default();
                if self.start == Start::Loaded {
                    self.hit(
                        Severity::Notice,
                        format!("is made of the library `{}`", clip(library)),
                    );
                }
            }
            Judgement::Dangerous(does) => {
                // A call may still show that an attribute is merely looked up.
                let lookup = judge_lookup(module, name);
                if !lookup {
                    self.danger(format!("imports `{}`, which {does}", shown()));
                }
                self.harms |= !lookup;
            }
            Judgement::UnknownClass | Judgement::UnknownFunction => {
                self.hit(
                    Severity::Warning,
                    format!(
                        "imports `{}`, which is code from outside of the file that no list has",
                        shown()
                    ),
                );
            }
        }
        Value::Name(
            Named {
                module: module.len(),
                full,
                judged,
            }
            .into(),
        )
    }

    /// A name whose parts are on the stack.
    fn stack_global(&mut self) -> Option<()> {
        let (name, module) = (self.pop(), self.pop());
        let value = match (self.read(&module), self.read(&name)) {
            (Some(module), Some(name)) => {
                if module.is_empty() || name.is_empty() {
                    return None;
                }
                self.name(&module, &name)
            }
            _ => {
                let what = format!(
                    "names something that is put together while it is unpickled: {} of {}",
                    self.shown(&name),
                    self.shown(&module)
                );
                self.danger(what);
                let unknown = Named {
                    full: "what it puts together".to_owned(),
                    module: 0,
                    judged: Judgement::UnknownFunction,
                };
                Value::Name(unknown.into())
            }
        };
        self.push(value);
        Some(())
    }

    fn call(&mut self, callable: &Value, arguments: &Value) {
        let made = match callable {
            Value::Name(name) => {
                self.call_named(name, arguments);
                Value::Made(self.made_by(name, arguments))
            }
            Value::Made(name) => {
                if self.start == Start::Loaded || !is_plain(name) {
                    let what = format!(
                        "calls what `{}` gives with {}",
                        clip(&name.full),
                        self.shown(arguments)
                    );
                    self.danger(what);
                }
                self.calls_harm |= matches!(name.judged, Judgement::Dangerous(_)) && self.harms;
                Value::Made(name.clone())
            }
            other => {
                let what = format!("calls {}", self.shown(other));
                self.danger(what);
                Value::Other
            }
        };
        self.push(made);
    }

    fn call_named(&mut self, name: &Rc<Named>, arguments: &Value) {
        let items = match arguments {
            Value::Tuple(items) => &items[..],
            _ => &[],
        };
        let harmless = match name.judged {
            Judgement::Allowed | Judgement::UnknownClass => true,
            Judgement::Library if name.is("torch.storage", "_load_from_bytes") => {
                // What is in the bytes is looked at where they lie.
                matches!(items, [Value::Bytes])
            }
            Judgement::Library => true,
            // Methods and members of enumerations are pickled so.
            Judgement::Dangerous(_) if is_getattr(name) => match items {
                [Value::Name(of), attribute] => {
                    !matches!(of.judged, Judgement::Dangerous(_))
                        && self.read(attribute).is_some_and(|attribute| {
                            !attribute.starts_with('_')
                                && !attribute.contains('.')
                                && is_name(attribute.as_bytes())
                                && of.full.rsplit('.').next().is_some_and(|last| {
                                    last.starts_with(|c: char| c.is_uppercase())
                                })
                        })
                }
                _ => false,
            },
            _ => false,
        };
        if harmless {
            if is_getattr(name) {
                let what = format!("looks up {} by its name", self.shown(arguments));
                self.hit(Severity::Notice, what);
            }
            return;
        }
        if is_getattr(name) {
            self.danger(format!(
                "imports `{}`, which finds anything by its name",
                clip(&name.full)
            ));
            self.harms = true;
        }
        match name.judged {
            Judgement::Dangerous(_) => self.calls_harm = true,
            _ => self.calls_unknown = true,
        }
        let what = format!(
            "calls `{}` with {}",
            clip(&name.full),
            self.shown(arguments)
        );
        self.danger(what);
    }

    /// What the result of a call counts as.
    fn made_by(&self, name: &Rc<Named>, arguments: &Value) -> Rc<Named> {
        let rebuilds = ["_reconstructor", "__newobj__", "__newobj_ex__"]
            .iter()
            .any(|function| name.is("copyreg", function) || name.is("copy_reg", function));
        match arguments {
            Value::Tuple(items) if rebuilds => match items.first() {
                Some(Value::Name(class)) => class.clone(),
                _ => name.clone(),
            },
            _ => name.clone(),
        }
    }

    fn build(&mut self) {
        let state = self.pop();
        match self.stack.back().cloned() {
            Some(Value::Made(name)) => {
                if matches!(name.judged, Judgement::Dangerous(_)) && !is_getattr(&name) {
                    let what = format!(
                        "sets the state of `{}` to {}",
                        clip(&name.full),
                        self.shown(&state)
                    );
                    self.danger(what);
                }
                self.arrays = name.is("joblib.numpy_pickle", "NumpyArrayWrapper");
            }
            Some(Value::Name(name)) => {
                let what = format!("changes `{}` for the whole program", clip(&name.full));
                self.danger(what);
            }
            _ => {}
        }
    }

    /// Items that are set of the topmost value.
    fn items_set(&mut self) {
        if let Some(Value::Name(name)) = self.stack.back().cloned() {
            let what = format!("changes `{}` for the whole program", clip(&name.full));
            self.danger(what);
        }
    }

    /// A value as a reader of the report would write it.
    fn shown(&self, value: &Value) -> String {
        match value {
            Value::Text(begin, end, _) => match self.read(value) {
                Some(text) => format!("'{}'", clip(&text)),
                None => format!("a text of {} bytes", end - begin),
            },
            Value::Bytes => "bytes".to_owned(),
            Value::Name(name) => format!("`{}`", clip(&name.full)),
            Value::Made(name) => format!("what `{}` gives", clip(&name.full)),
            Value::Tuple(items) => {
                let inner = items.iter().take(SHOWN).map(|item| match item {
                    Value::Tuple(_) => "(…)".to_owned(),
                    item => self.shown(item),
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
}

fn judge_lookup(module: &str, name: &str) -> bool {
    name == "getattr" && matches!(module, "builtins" | "__builtin__")
}

fn is_getattr(name: &Named) -> bool {
    name.is("builtins", "getattr") || name.is("__builtin__", "getattr")
}

fn is_plain(name: &Named) -> bool {
    matches!(name.judged, Judgement::Allowed | Judgement::Library)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-<>".contains(&byte) || byte >= 0x80
}

/// Whether a line can be a dotted name: no other bytes follow an opcode by chance.
fn is_name(line: &[u8]) -> bool {
    let line = trim(line);
    (1..=LONGEST_NAME).contains(&line.len()) && line.iter().all(|byte| is_name_byte(*byte))
}

/// Where lines end, found quickly from anywhere.
struct Lines<'a> {
    bytes: &'a [u8],
    /// For each page the first end of a line at or behind its beginning.
    pages: Vec<usize>,
}

impl<'a> Lines<'a> {
    const PAGE: usize = 4096;
    const NONE: usize = usize::MAX;

    fn new(bytes: &'a [u8]) -> Self {
        let mut pages = vec![Self::NONE; bytes.len().div_ceil(Self::PAGE)];
        let mut next = Self::NONE;
        for (page, chunk) in bytes.chunks(Self::PAGE).enumerate().rev() {
            if let Some(at) = memchr::memchr(b'\n', chunk) {
                next = page * Self::PAGE + at;
            }
            pages[page] = next;
        }
        Self { bytes, pages }
    }

    /// The first end of a line at or behind `at`.
    fn end(&self, at: usize) -> Option<usize> {
        let page = at / Self::PAGE;
        let stop = ((page + 1) * Self::PAGE).min(self.bytes.len());
        if let Some(found) = memchr::memchr(b'\n', self.bytes.get(at..stop)?) {
            return Some(at + found);
        }
        self.pages
            .get(page + 1)
            .copied()
            .filter(|end| *end != Self::NONE)
    }
}

/// The places at which an opcode has been followed.
#[derive(Default)]
struct Visited {
    pages: HashMap<usize, [u64; 64]>,
    /// How many pages there may be before those behind are forgotten.
    most: usize,
}

impl Visited {
    /// Marks a place; whether it is new.
    fn mark(&mut self, at: usize) -> bool {
        let page = self.pages.entry(at >> 12).or_insert([0; 64]);
        let (word, bit) = ((at >> 6) & 63, 1_u64 << (at & 63));
        let fresh = page[word] & bit == 0;
        page[word] |= bit;
        fresh
    }

    /// Forgets what no way leads back to, now and then.
    fn forget(&mut self, before: usize) {
        const FEW: usize = 4096;
        if self.pages.len() > self.most.max(FEW) {
            self.pages.retain(|page, _| *page >= before >> 12);
            self.most = self.pages.len() * 2;
        }
    }
}
