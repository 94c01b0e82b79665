//! What a `hubconf.py` offers, read without running it: the functions and classes that it defines or imports, with
//! their parameters and docstrings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A source longer than this is not read.
const LONGEST: u64 = 4 << 20;
/// How many imports lead from one file to the next.
const DEEPEST: usize = 12;
/// How many files are read at most.
const MOST_FILES: usize = 2000;

/// A function or class that can be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Callable {
    /// The parameters with their defaults as they are written.
    pub(crate) parameters: Vec<(String, Option<String>)>,
    /// The docstring without its indentation.
    pub(crate) documentation: Option<String>,
}

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Hubconf {
    pub(crate) callables: BTreeMap<String, Callable>,
}

/// Reads `hubconf.py` and the files of the repository that it imports names from.
///
/// # Errors
/// The file cannot be read, or is not Python as far as it is looked at.
pub(crate) fn read(directory: &Path) -> Result<Hubconf, String> {
    let mut reader = Reader {
        root: directory.to_owned(),
        files: BTreeMap::new(),
    };
    let path = directory.join("hubconf.py");
    let module = Module::parse(&source(&path)?)?;
    let mut callables = BTreeMap::new();
    for (name, meaning) in &module.names {
        if name.starts_with('_') {
            continue;
        }
        if let Some(callable) = reader.resolve(&path, meaning, &module, 0) {
            callables.insert(name.clone(), callable);
        }
    }
    for star in &module.stars {
        let Some(path) = reader.find(&path, star) else {
            continue;
        };
        for name in reader.exported(&path) {
            if let Some(callable) = reader.named(&path, &name, 1) {
                callables.entry(name).or_insert(callable);
            }
        }
    }
    Ok(Hubconf { callables })
}

fn source(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > LONGEST {
        return Err(format!("{length} bytes are more than a hubconf.py has"));
    }
    fs::read_to_string(path).map_err(|e| e.to_string())
}

/// Follows names through the files of a repository.
struct Reader {
    root: PathBuf,
    files: BTreeMap<PathBuf, Option<Module>>,
}

impl Reader {
    fn load(&mut self, path: &Path) {
        if self.files.len() < MOST_FILES && !self.files.contains_key(path) {
            let module = source(path).and_then(|text| Module::parse(&text)).ok();
            self.files.insert(path.to_owned(), module);
        }
    }

    /// The file of a module that another file names.
    fn find(&self, from: &Path, module: &str) -> Option<PathBuf> {
        let dots = module.len() - module.trim_start_matches('.').len();
        let mut path = if dots == 0 {
            self.root.clone()
        } else {
            let mut path = from.to_owned();
            for _ in 0..dots {
                path.pop();
            }
            path
        };
        for part in module.trim_start_matches('.').split('.') {
            if !part.is_empty() {
                path.push(part);
            }
        }
        // An import may climb, but not out of the repository.
        if !path.starts_with(&self.root) {
            return None;
        }
        let file = path.with_extension("py");
        let package = path.join("__init__.py");
        let is_own = |path: &PathBuf| path.starts_with(&self.root) && path.is_file();
        [file, package].into_iter().find(is_own)
    }

    /// What a name of a file is, if it can be called.
    fn named(&mut self, path: &Path, name: &str, depth: usize) -> Option<Callable> {
        if depth > DEEPEST {
            return None;
        }
        self.load(path);
        let module = self.files.get(path)?.clone()?;
        match module.names.get(name) {
            Some(meaning) => self.resolve(path, meaning, &module, depth),
            None => {
                let stars = module.stars.iter();
                let paths: Vec<_> = stars.filter_map(|star| self.find(path, star)).collect();
                paths
                    .iter()
                    .find_map(|path| self.named(path, name, depth + 1))
            }
        }
    }

    fn resolve(
        &mut self,
        path: &Path,
        meaning: &Meaning,
        module: &Module,
        depth: usize,
    ) -> Option<Callable> {
        match meaning {
            Meaning::Callable(callable) => Some(callable.clone()),
            Meaning::Value => None,
            Meaning::Alias(name) if depth < DEEPEST => {
                self.resolve(path, module.names.get(name)?, module, depth + 1)
            }
            Meaning::Alias(_) => None,
            Meaning::Imported(from, name) => match self.find(path, from) {
                Some(file) => {
                    let is_module = |this: &Self| {
                        let dotted = format!("{from}.{name}");
                        let dotted = if from.ends_with('.') {
                            format!("{from}{name}")
                        } else {
                            dotted
                        };
                        this.find(path, &dotted).is_some()
                    };
                    match self.named(&file, name, depth + 1) {
                        None if is_module(self) => None,
                        found => found,
                    }
                }
                // Of another package: a function or a class, or it would not be imported by its name here.
                None if !from.starts_with('.') => Some(Callable::default()),
                None => None,
            },
        }
    }

    /// The names that `from module import *` brings.
    fn exported(&mut self, path: &Path) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut pending = vec![path.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(path) = pending.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            self.load(&path);
            let Some(Some(module)) = self.files.get(&path) else {
                continue;
            };
            match &module.all {
                Some(all) => names.extend(all.iter().cloned()),
                None => {
                    let public = module.names.keys().filter(|name| !name.starts_with('_'));
                    names.extend(public.cloned());
                    let stars = module.stars.iter();
                    pending.extend(stars.filter_map(|star| self.find(&path, star)));
                }
            }
        }
        names
    }
}

/// What a name stands for in a file.
#[derive(Debug, Clone)]
enum Meaning {
    Callable(Callable),
    /// Something that cannot be called: a module, a number.
    Value,
    /// Another name of the same file.
    Alias(String),
    /// A name of a module.
    Imported(String, String),
}

/// The names at the top of a file.
#[derive(Debug, Clone, Default)]
struct Module {
    names: BTreeMap<String, Meaning>,
    /// Modules whose names are all imported.
    stars: Vec<String>,
    all: Option<Vec<String>>,
}

/// Suites that are run as if they stood at the top.
const TRANSPARENT: [&str; 8] = [
    "if", "elif", "else", "try", "except", "finally", "with", "for",
];

/// What makes something that can be called, or the modules of that.
const MAKERS: [&str; 4] = ["functools", "partial", "collections", "namedtuple"];

impl Module {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = lex(text)?;
        let mut module = Self::default();
        // The indentation of a definition whose body is being passed over.
        let mut body: Option<usize> = None;
        for (index, line) in lines.iter().enumerate() {
            if body.is_some_and(|indent| line.indent > indent) {
                continue;
            }
            body = None;
            let Some(Token::Name(first)) = line.tokens.first() else {
                continue;
            };
            let is_async = first == "async";
            let tokens = &line.tokens[usize::from(is_async)..];
            match (&first[..], tokens.get(usize::from(!is_async))) {
                ("def" | "class" | "async", _) => {
                    if let (Some(Token::Name(keyword)), Some(Token::Name(name))) =
                        (tokens.first(), tokens.get(1))
                    {
                        let next = lines.get(index + 1);
                        let inner = next.filter(|next| next.indent > line.indent);
                        let parameters = if keyword == "def" {
                            parameters(tokens)
                        } else {
                            Vec::new()
                        };
                        let callable = Callable {
                            parameters,
                            documentation: inner.and_then(docstring),
                        };
                        let meaning = Meaning::Callable(callable);
                        module.names.insert(name.clone(), meaning);
                        body = Some(line.indent);
                    }
                }
                ("from", _) => module.import_from(tokens),
                ("import", _) => module.import(tokens),
                ("del", Some(Token::Name(name))) => {
                    module.names.remove(name);
                }
                (keyword, _) if TRANSPARENT.contains(&keyword) => {}
                (name, Some(Token::Op('='))) => module.assign(name, &tokens[2..]),
                _ => {}
            }
        }
        Ok(module)
    }

    fn import_from(&mut self, tokens: &[Token]) {
        let at = tokens
            .iter()
            .position(|token| matches!(token, Token::Name(name) if name == "import"));
        let Some(at) = at else { return };
        let mut from = String::new();
        for token in &tokens[1..at] {
            match token {
                Token::Name(name) => from += name,
                Token::Op('.') => from.push('.'),
                _ => return,
            }
        }
        if from == "__future__" {
            return;
        }
        for part in tokens[at + 1..].split(|token| *token == Token::Op(',')) {
            let names: Vec<&String> = part
                .iter()
                .filter_map(|token| match token {
                    Token::Name(name) => Some(name),
                    _ => None,
                })
                .collect();
            match names[..] {
                [] if part.contains(&Token::Op('*')) => self.stars.push(from.clone()),
                [name] => self.imported(name, &from, name),
                [name, word, alias] if word == "as" => self.imported(alias, &from, name),
                _ => {}
            }
        }
    }

    fn imported(&mut self, as_name: &str, from: &str, name: &str) {
        let meaning = Meaning::Imported(from.to_owned(), name.to_owned());
        self.names.insert(as_name.to_owned(), meaning);
    }

    fn import(&mut self, tokens: &[Token]) {
        for part in tokens[1..].split(|token| *token == Token::Op(',')) {
            let as_word = |token: &Token| matches!(token, Token::Name(name) if name == "as");
            let name = match part.iter().position(as_word) {
                Some(at) => part.get(at + 1),
                None => part.first(),
            };
            if let Some(Token::Name(name)) = name {
                self.names.insert(name.clone(), Meaning::Value);
            }
        }
    }

    fn assign(&mut self, name: &str, value: &[Token]) {
        let meaning = match (name, value) {
            ("__all__", _) => {
                let texts = value.iter().filter_map(|token| match token {
                    Token::Text(text) => Some(text.clone()),
                    _ => None,
                });
                self.all = Some(texts.collect());
                Meaning::Value
            }
            (_, [Token::Name(other)]) if !["None", "True", "False"].contains(&&other[..]) => {
                Meaning::Alias(other.clone())
            }
            (_, [Token::Name(word), ..]) if word == "lambda" => {
                Meaning::Callable(Callable::default())
            }
            // `functools.partial(f, …)`, `namedtuple(…)`; another call may give anything.
            (_, [Token::Name(word), ..]) if MAKERS.contains(&&word[..]) => {
                Meaning::Callable(Callable::default())
            }
            // `module.function`
            (_, tokens)
                if tokens.len() > 1
                    && tokens
                        .iter()
                        .all(|token| matches!(token, Token::Name(_) | Token::Op('.'))) =>
            {
                Meaning::Callable(Callable::default())
            }
            _ => Meaning::Value,
        };
        self.names.insert(name.to_owned(), meaning);
    }
}

/// The parameters of `def name(…)`, without `*`, `/` and annotations.
fn parameters(tokens: &[Token]) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut current: Vec<&Token> = Vec::new();
    for token in &tokens[2..] {
        match token {
            Token::Op('(' | '[' | '{') => depth += 1,
            Token::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        match token {
            Token::Op('(') if depth == 1 && found.is_empty() && current.is_empty() => {}
            Token::Op(',') if depth == 1 => found.extend(parameter(&std::mem::take(&mut current))),
            Token::Op(')') if depth == 0 => {
                found.extend(parameter(&current));
                return found;
            }
            _ => current.push(token),
        }
    }
    found
}

fn parameter(tokens: &[&Token]) -> Option<(String, Option<String>)> {
    let stars = tokens
        .iter()
        .take_while(|token| **token == &Token::Op('*'))
        .count();
    let Token::Name(name) = tokens.get(stars)? else {
        return None;
    };
    let mut depth = 0_usize;
    let equals = tokens.iter().position(|token| {
        match token {
            Token::Op('(' | '[' | '{') => depth += 1,
            Token::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && **token == Token::Op('=')
    });
    let default = equals.map(|at| {
        let texts = tokens[at + 1..].iter().map(|token| match token {
            Token::Name(text) | Token::Number(text) => text.clone(),
            Token::Text(text) => format!("{text:?}"),
            Token::Op(op) => op.to_string(),
        });
        texts.collect::<String>()
    });
    Some((format!("{}{name}", "*".repeat(stars)), default))
}

/// The first statement of a body, if it is a text.
fn docstring(line: &Line) -> Option<String> {
    let mut text = String::new();
    for token in &line.tokens {
        match token {
            Token::Text(part) => text += part,
            _ => return None,
        }
    }
    (!line.tokens.is_empty()).then(|| clean(&text))
}

/// A docstring without the indentation of its lines and the empty lines around it, as `inspect.cleandoc` has it.
fn clean(text: &str) -> String {
    let expanded = text.replace('\t', "        ");
    let mut lines: Vec<&str> = expanded.split('\n').collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let is_text = |line: &&&str| !line.trim().is_empty();
    let margin = lines.iter().skip(1).filter(is_text).map(indent).min();
    for (index, line) in lines.iter_mut().enumerate() {
        *line = match (index, margin) {
            (0, _) => line.trim_start(),
            (_, Some(margin)) => line.get(margin..).unwrap_or(""),
            (_, None) => line,
        };
    }
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let first = lines.iter().take_while(|line| line.is_empty()).count();
    lines[first..].join("\n")
}

/// A statement on one line, however many it is written on.
#[derive(Debug)]
struct Line {
    indent: usize,
    tokens: Vec<Token>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Number(String),
    Text(String),
    Op(char),
}

fn lex(text: &str) -> Result<Vec<Line>, String> {
    let chars: Vec<char> = text.trim_start_matches('\u{feff}').chars().collect();
    let mut lines = Vec::new();
    let (mut at, mut number, mut depth) = (0, 1, 0_usize);
    let mut line = Line {
        indent: 0,
        tokens: Vec::new(),
    };
    let mut is_start = true;
    while let Some(&c) = chars.get(at) {
        if is_start {
            is_start = false;
            let mut indent = 0;
            while let Some(space @ (' ' | '\t')) = chars.get(at) {
                indent += if *space == '\t' { 8 - indent % 8 } else { 1 };
                at += 1;
            }
            line.indent = indent;
            continue;
        }
        match c {
            '\n' => {
                number += 1;
                at += 1;
                if depth == 0 {
                    if !line.tokens.is_empty() {
                        let tokens = std::mem::take(&mut line.tokens);
                        let indent = line.indent;
                        lines.push(Line { indent, tokens });
                    }
                    is_start = true;
                }
            }
            '\\' if matches!(chars.get(at + 1), Some('\n' | '\r')) => {
                at += 1;
                while matches!(chars.get(at), Some('\r')) {
                    at += 1;
                }
                at += 1;
                number += 1;
            }
            '#' => {
                while chars.get(at).is_some_and(|c| *c != '\n') {
                    at += 1;
                }
            }
            // Several statements on a line.
            ';' if depth == 0 => {
                let tokens = std::mem::take(&mut line.tokens);
                let indent = line.indent;
                lines.push(Line { indent, tokens });
                at += 1;
            }
            c if c.is_whitespace() => at += 1,
            '"' | '\'' => {
                let string = string(&chars, at, false)
                    .ok_or_else(|| format!("line {number}: a text has no end"))?;
                number += chars[at..string.1].iter().filter(|c| **c == '\n').count();
                line.tokens.push(Token::Text(string.0));
                at = string.1;
            }
            c if c == '_' || c.is_alphabetic() => {
                let start = at;
                while chars
                    .get(at)
                    .is_some_and(|c| *c == '_' || c.is_alphanumeric())
                {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let is_prefix = word.len() <= 2
                    && word.chars().all(|c| "rRbBuUfFtT".contains(c))
                    && matches!(chars.get(at), Some('"' | '\''));
                if is_prefix {
                    let is_raw = word.contains(['r', 'R']);
                    let string = string(&chars, at, is_raw)
                        .ok_or_else(|| format!("line {number}: a text has no end"))?;
                    number += chars[at..string.1].iter().filter(|c| **c == '\n').count();
                    // Bytes and formatted texts are no docstrings, nor names.
                    let is_plain = !word.contains(['b', 'B', 'f', 'F', 't', 'T']);
                    line.tokens.push(if is_plain {
                        Token::Text(string.0)
                    } else {
                        Token::Number(string.0)
                    });
                    at = string.1;
                } else {
                    line.tokens.push(Token::Name(word));
                }
            }
            c if c.is_ascii_digit() => {
                let start = at;
                while chars
                    .get(at)
                    .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_'))
                {
                    at += 1;
                }
                let number = chars[start..at].iter().collect();
                line.tokens.push(Token::Number(number));
            }
            c => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                line.tokens.push(Token::Op(c));
                at += 1;
            }
        }
    }
    if !line.tokens.is_empty() {
        lines.push(line);
    }
    Ok(lines)
}

/// The text that begins with the quotation mark at `start`, and where it ends.
fn string(chars: &[char], start: usize, is_raw: bool) -> Option<(String, usize)> {
    let quote = *chars.get(start)?;
    let is_triple = chars.get(start + 1) == Some(&quote) && chars.get(start + 2) == Some(&quote);
    let mut at = start + if is_triple { 3 } else { 1 };
    let mut text = String::new();
    loop {
        let c = *chars.get(at)?;
        if c == quote {
            if !is_triple {
                return Some((text, at + 1));
            }
            if chars.get(at + 1) == Some(&quote) && chars.get(at + 2) == Some(&quote) {
                return Some((text, at + 3));
            }
        }
        if c == '\n' && !is_triple {
            return None;
        }
        if c == '\\' {
            let next = *chars.get(at + 1)?;
            at += 2;
            match next {
                _ if is_raw => text.extend(['\\', next]),
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '\\' | '\'' | '"' => text.push(next),
                '\n' => {}
                _ => text.extend(['\\', next]),
            }
            continue;
        }
        if c != '\r' {
            text.push(c);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, read};
    use std::fs;

    const HUBCONF: &str = r#"# -*- coding: utf-8 -*-
"""The module's own text."""
from __future__ import annotations
dependencies = ['torch', "numpy"]  # a remark
import torch, os.path as osp
from functools import partial
from package.models import (
    alpha,
    beta as gamma,  # renamed
    CONSTANT, sub,
)
from package.star import *
if True:
    def inside(x): return x
try:
    from elsewhere import outside
except ImportError:
    outside = None

_hidden = 1
number = 3
alias = alpha
text = "def fake(): pass"

@torch.no_grad()
def tiny(pretrained: bool = False, *, size=(1, "two"), **kwargs) -> dict[str, int]:
    r"""
    Tiny model.

        indented \n raw
    pretrained (bool): whether
    """
    def nested():
        pass
    nope = 1
    return nested


class Big(Base):
    'Big.'
    def method(self): ...

def last(): pass
"#;

    #[test]
    fn names_are_found_without_running_anything() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("hubconf.py", HUBCONF);
        write("package/__init__.py", "");
        write(
            "package/models/__init__.py",
            "from .impl import *\nfrom .impl import beta\nCONSTANT = 3\n",
        );
        write(
            "package/models/impl.py",
            "__all__ = ['alpha']\ndef alpha(weights=None):\n    'Alpha.'\ndef beta(): 'Beta.'\n",
        );
        write("package/models/sub.py", "x = 1\n");
        write("package/star.py", "def starred(): pass\ndef _no(): pass\n");
        let found = read(directory.path()).unwrap();
        let names: Vec<_> = found.callables.keys().map(String::as_str).collect();
        let expected = [
            "Big", "alias", "alpha", "gamma", "inside", "last", "outside", "partial", "starred",
            "tiny",
        ];
        // `outside` is `None` only where the import fails.
        let without: Vec<_> = expected.iter().filter(|name| **name != "outside").collect();
        let found_without: Vec<_> = names.iter().filter(|name| **name != "outside").collect();
        assert_eq!(found_without, without);
        let tiny = &found.callables["tiny"];
        assert_eq!(
            tiny.documentation.as_deref(),
            Some("Tiny model.\n\n    indented \\n raw\npretrained (bool): whether")
        );
        let parameters = [
            ("pretrained".to_owned(), Some("False".to_owned())),
            ("size".to_owned(), Some("(1,\"two\")".to_owned())),
            ("**kwargs".to_owned(), None),
        ];
        assert_eq!(tiny.parameters, parameters);
        assert_eq!(
            found.callables["alpha"].documentation.as_deref(),
            Some("Alpha.")
        );
        assert_eq!(
            found.callables["Big"].documentation.as_deref(),
            Some("Big.")
        );
    }

    #[test]
    fn docstrings_lose_their_indentation() {
        assert_eq!(
            clean("One.\n\n    Two.\n      Three.\n    "),
            "One.\n\nTwo.\n  Three."
        );
        assert_eq!(clean("\n    One.\n"), "One.");
        assert_eq!(clean(""), "");
    }

    #[test]
    fn what_is_no_python_is_an_error_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hubconf.py");
        for (text, is_error) in [("x = \"\"\"open", true), ("))))", false), ("def", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(directory.path()).is_err(), is_error, "{text}");
        }
        fs::write(&path, "(".repeat(100_000)).unwrap();
        assert!(read(directory.path()).unwrap().callables.is_empty());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(directory.path()).is_err());
        // Files that import one another.
        fs::write(&path, "from a import x").unwrap();
        fs::write(directory.path().join("a.py"), "from b import x").unwrap();
        fs::write(directory.path().join("b.py"), "from a import x").unwrap();
        assert!(read(directory.path()).unwrap().callables.is_empty());
    }
}
