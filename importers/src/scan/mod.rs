//! What a file would do to whoever opens it without care: code that its pickles, layers, templates and graphs would
//! run, files that it links to, and places where it means one thing to one reader and another to the next.
//!
//! Nothing is run, and nothing is believed: what a file is, and what lies in it, is found by its content. There are
//! three [levels](Severity). That a file cannot be read here is no danger.

mod graph;
mod hdf5;
mod json;
mod keras;
mod names;
mod packed;
mod pickle;
mod settings;
mod template;
mod tensors;
mod zip;

pub(crate) use names::is_dangerous;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::data::clip;
use crate::error::FormatError;
use crate::map::map_file;
use crate::{Checkpoint, detect, gguf, numpy, onnx, tflite};

/// The deepest archive in an archive.
const DEEPEST: usize = 6;
/// The most findings that are kept of one file; the count goes on.
const MOST_FINDINGS: usize = 1000;
/// How much all that is unpacked of one file may take, beside four times its size.
const MOST_UNPACKED: u64 = 1 << 30;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing, and harmless by itself.
    Notice,
    /// It depends on code or files that are not in the file, or part of it could not be looked into.
    Warning,
    /// It would run code, reaches for files or the network, or means different things to different readers.
    Danger,
}

impl Severity {
    /// Its name in reports: `notice`, `warning` or `danger`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Danger => "danger",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: the members of archives and the pickles that it is in, the outermost first.
    pub within: Vec<String>,
    /// The byte in the innermost member, or in the file.
    pub offset: u64,
    /// What it is.
    pub what: String,
}

/// Everything that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The file.
    pub path: PathBuf,
    /// What it is, as far as its content says.
    pub kind: String,
    /// How many pickles were followed.
    pub pickles: usize,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// How many there were beyond the thousand that are kept.
    pub more: usize,
}

impl Scan {
    /// The worst level of all findings.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether anything is a [danger](Severity::Danger).
    pub fn is_dangerous(&self) -> bool {
        self.severity() == Some(Severity::Danger)
    }
}

/// Scans one file.
///
/// # Errors
/// It cannot be opened.
pub fn scan(path: impl AsRef<Path>) -> Result<Scan, FormatError> {
    let path = path.as_ref();
    let map = map_file(path)?;
    let mut found = Scan {
        path: path.to_owned(),
        kind: String::new(),
        pickles: 0,
        findings: Vec::new(),
        more: 0,
    };
    let mut place = Place {
        scan: &mut found,
        within: Vec::new(),
        seen: BTreeSet::new(),
        full: false,
        depth: 0,
        left: MOST_UNPACKED + 4 * map.len() as u64,
    };
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let kind = place.file(&name, &map);
    let other = detect::other(&map);
    if let Some(what) = other.filter(|_| named_as_weights(&name)) {
        place.notice(0, format!("is {what}"));
    } else if kind.is_weights
        && !place.scan.is_dangerous()
        && let Err(error) = Checkpoint::open(path)
    {
        let reason = error.to_string();
        let reason = reason
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap_or(&reason);
        place.notice(0, format!("cannot be read here: {reason}"));
    }
    found.kind = kind.name;
    Ok(found)
}

/// What a file is.
struct Kind {
    name: String,
    /// Whether it may be weights that are read here.
    is_weights: bool,
}

fn weights(name: &str) -> Kind {
    Kind {
        name: name.to_owned(),
        is_weights: true,
    }
}

fn other(name: impl Into<String>) -> Kind {
    Kind {
        name: name.into(),
        is_weights: false,
    }
}

/// Where in a file the scan is.
pub(super) struct Place<'a> {
    scan: &'a mut Scan,
    within: Vec<String>,
    /// What was said already, so that a loop says it once.
    seen: BTreeSet<(Vec<String>, String)>,
    /// Whether all findings that are kept are dangers.
    full: bool,
    /// How many archives lie around.
    depth: usize,
    /// How many bytes may still be unpacked.
    left: u64,
}

impl Place<'_> {
    fn danger(&mut self, offset: usize, what: impl Into<String>) {
        self.found(Severity::Danger, offset, what.into());
    }

    fn warning(&mut self, offset: usize, what: impl Into<String>) {
        self.found(Severity::Warning, offset, what.into());
    }

    fn notice(&mut self, offset: usize, what: impl Into<String>) {
        self.found(Severity::Notice, offset, what.into());
    }

    fn found(&mut self, severity: Severity, offset: usize, what: String) {
        let findings = &mut self.scan.findings;
        if findings.len() >= MOST_FINDINGS {
            self.scan.more += 1;
            if self.full {
                return;
            }
            // A danger is never lost to what is less.
            let lesser = findings.iter().rposition(|f| f.severity < severity);
            match lesser {
                Some(lesser) => drop(findings.remove(lesser)),
                None => {
                    self.full |= severity == Severity::Danger;
                    return;
                }
            }
        }
        if !self.seen.insert((self.within.clone(), what.clone())) {
            return;
        }
        findings.push(Finding {
            severity,
            within: self.within.clone(),
            offset: offset as u64,
            what,
        });
    }

    /// Goes into a part of the file.
    fn within(&mut self, at: usize, name: &str, scan: impl FnOnce(&mut Self)) {
        self.within.push(format!("{} (byte {at})", clip(name)));
        scan(self);
        self.within.pop();
    }

    /// Goes into something that is packed; not deeper than anybody packs.
    fn unpacked(&mut self, at: usize, name: &str, bytes: &Bytes) {
        if self.depth == DEEPEST {
            self.danger(
                at,
                format!("archives lie in archives more than {DEEPEST} deep"),
            );
            return;
        }
        self.depth += 1;
        self.within(at, name, |place| {
            let base = name.rsplit('/').next().unwrap_or(name);
            place.file(base, bytes);
        });
        self.depth -= 1;
    }

    /// Scans a file, or a member of an archive, by its content; says what it is.
    fn file(&mut self, name: &str, bytes: &Bytes) -> Kind {
        if bytes.is_empty() {
            return other("empty");
        }
        if crate::zip::is_zip(bytes) {
            zip::scan(self, bytes, 0);
            // What lies between and behind the members belongs to none.
            return weights("a zip archive");
        }
        if let Some(how) = packed::find(bytes) {
            let kind = packed::scan(self, name, bytes, how);
            return other(kind);
        }
        let kind = self.plain(name, bytes);
        if let Some(behind) = zip::behind(bytes)
            && !(packed::is_tar(bytes) && behind < packed::tar_end(bytes))
        {
            let what = format!("has a zip archive behind its own content, {behind} bytes in");
            // Models of TensorFlow Lite keep their labels so, programs their data, and pickles anything.
            let inside = kind.name == "a pickle" && behind < pickle::length(bytes);
            if inside || tflite::is_tflite(bytes) || program(bytes).is_some() {
                self.notice(behind, what);
            } else {
                self.danger(behind, format!("{what}: it is two files at once"));
            }
            zip::scan(self, bytes, behind);
        }
        kind
    }

    /// Scans what is not packed.
    fn plain(&mut self, name: &str, bytes: &Bytes) -> Kind {
        if packed::is_tar(bytes) {
            packed::tar(self, bytes);
            pickle::scan(bytes, bytes.len(), self);
            return weights("a tar archive");
        }
        if bytes.starts_with(numpy::MAGIC) {
            // An array of objects is a pickle behind the header.
            if let Some(begin) = numpy::objects(bytes) {
                let begin = begin.min(bytes.len());
                self.notice(0, "is an array of Python objects, which NumPy unpickles");
                pickle::scan(bytes, begin, self);
            } else {
                pickle::scan(bytes, bytes.len(), self);
            }
            return weights("a NumPy array");
        }
        if let Some(base) = hdf5::base(bytes) {
            hdf5::scan(self, bytes, base);
            pickle::scan(bytes, bytes.len(), self);
            return weights("HDF5");
        }
        let what = program(bytes);
        if let Some(what) = what {
            self.program(name, bytes, what);
        }
        let begins = pickle::scan(bytes, 0, self);
        if begins.count > 0 {
            let kind = match () {
                () if pickle::is_marked(bytes) => None,
                () if tensors::is_safetensors(bytes) => Some("safetensors"),
                () if begins.whole && begins.length + 1 >= bytes.len() => None,
                () => Some("something else"),
            };
            if let Some(kind) = kind {
                self.danger(0, format!("is {kind} and a pickle at once"));
            } else {
                return weights("a pickle");
            }
        }
        if let Some(what) = what {
            return other(what);
        }
        if bytes.starts_with(gguf::MAGIC) {
            settings::gguf(self, bytes);
            return weights("GGUF");
        }
        if tensors::is_safetensors(bytes) {
            tensors::safetensors(self, bytes);
            return weights("safetensors");
        }
        if let Some(what) = detect::other(bytes) {
            let what = what.split([',', ';']).next().unwrap_or_default();
            return other(what);
        }
        if tflite::is_tflite(bytes) {
            graph::tflite(self, bytes);
            return weights("TensorFlow Lite");
        }
        if onnx::is_onnx(bytes) {
            graph::onnx(self, bytes);
            return weights("ONNX");
        }
        // A small graph may be text by chance.
        if graph::is_named(name) && graph::tensorflow(self, name, bytes) {
            return weights("a TensorFlow graph");
        }
        if let Some(kind) = settings::text(self, name, bytes) {
            return other(kind);
        }
        if !graph::is_named(name) && graph::tensorflow(self, name, bytes) {
            return weights("a TensorFlow graph");
        }
        if named_as_weights(name) {
            weights("weights")
        } else {
            other("no weight file")
        }
    }

    /// A program, or a script.
    fn program(&mut self, name: &str, bytes: &[u8], what: &str) {
        let script = bytes.starts_with(b"#!");
        let library = [".so", ".dll", ".dylib", ".pyd"]
            .iter()
            .any(|ends| name.to_ascii_lowercase().ends_with(ends));
        if named_as_weights(name) {
            self.danger(0, format!("is {what} under the name of a model's file"));
        } else if library && self.depth > 0 {
            self.danger(
                0,
                format!("is {what} in a model's archive, which is loaded with it"),
            );
        } else if !script {
            self.warning(
                0,
                format!("is {what}, which runs when it is started or loaded"),
            );
        }
    }
}

/// What kind of program bytes are.
fn program(bytes: &[u8]) -> Option<&'static str> {
    let pe = || {
        let at = u32::from_le_bytes(*bytes.get(60..)?.first_chunk()?) as usize;
        bytes.get(at..)?.starts_with(b"PE\0\0").then_some(())
    };
    let class = || u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) < 32;
    Some(match bytes {
        [0x7f, b'E', b'L', b'F', ..] => "a program (ELF)",
        [b'M', b'Z', b'q', b'F', b'p', b'D', ..] => "a program for several systems (APE)",
        [b'M', b'Z', ..] if pe().is_some() => "a program (PE)",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf | 0xce, ..] => {
            "a program (Mach-O)"
        }
        [0xca, 0xfe, 0xba, 0xbe, _, _, _, _, ..] if class() => "a program (Mach-O)",
        [0xca, 0xfe, 0xba, 0xbe, ..] => "a class of Java",
        [b'd', b'e', b'x', b'\n', b'0', ..] => "a program of Android",
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => "a module of WebAssembly",
        [_, 0x0c..=0x0f, 0x0d, 0x0a, ..] => "compiled Python",
        [b'#', b'!', b'/' | b' ', ..] => "a script",
        _ => return None,
    })
}

fn named_as_weights(name: &str) -> bool {
    const ENDINGS: [&str; 28] = [
        ".pt",
        ".pth",
        ".pt2",
        ".ptl",
        ".bin",
        ".th",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".dat",
        ".data",
        ".joblib",
        ".safetensors",
        ".gguf",
        ".ggml",
        ".npz",
        ".npy",
        ".h5",
        ".hdf5",
        ".keras",
        ".pb",
        ".onnx",
        ".tflite",
        ".msgpack",
        ".mlmodel",
        ".nemo",
        ".model",
        ".weights",
    ];
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// What a path in a file leads to beyond the folder that the file is in.
fn leads_out(path: &str) -> Option<&'static str> {
    let path = path.trim();
    let bytes = path.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    if path.contains("://") {
        Some("an address")
    } else if path.starts_with(['/', '\\']) || drive || path.starts_with('~') {
        Some("an absolute path")
    } else if path.split(['/', '\\']).any(|part| part == "..") {
        Some("a path out of its folder")
    } else {
        None
    }
}
