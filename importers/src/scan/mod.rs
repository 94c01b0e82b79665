//! What a weight file would do to whoever opens it without care: names that its pickles import and call, tricks
//! of its archive, and what does not fit its format.
//!
//! Nothing is run, and nothing is believed: a pickle is followed beyond its first broken opcode, an archive's
//! members are looked for where its directory does not say. What is reported is named with its place.

mod names;
mod pickle;
mod zip;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::data::clip;
use crate::error::FormatError;
use crate::map::map_file;
use crate::{Checkpoint, compress, detect, numpy, pytorch};

/// The deepest archive in an archive.
const DEEPEST: usize = 4;
/// The most findings that are kept of one file; the count goes on.
const MOST_FINDINGS: usize = 1000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Odd, and harmless by itself.
    Notice,
    /// It could run, or hides what could.
    Danger,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: the members of archives and the pickles that it is in, the outermost first.
    pub within: Vec<String>,
    /// The byte in that.
    pub offset: u64,
    /// What it is.
    pub what: String,
}

/// Everything that was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The file.
    pub path: PathBuf,
    /// What it is, as far as its first bytes say.
    pub kind: String,
    /// How many pickles were followed.
    pub pickles: usize,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// How many there were beyond the thousand that are kept.
    pub more: usize,
}

impl Scan {
    /// Whether anything is worse than odd.
    pub fn is_dangerous(&self) -> bool {
        self.more > 0 || self.findings.iter().any(|f| f.severity == Severity::Danger)
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
        archives: 0,
    };
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let kind = place.file(&name, &map);
    // What the reader refuses is refused for a reason: offsets, sizes, a header that does not end.
    if kind != "no weight file"
        && let Err(error) = Checkpoint::open(path)
    {
        let reason = error.to_string();
        let reason = reason
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap_or(&reason);
        let severity = if found.is_dangerous() {
            Severity::Notice
        } else {
            Severity::Danger
        };
        found.findings.push(Finding {
            severity,
            within: Vec::new(),
            offset: 0,
            what: format!("is refused when it is opened: {reason}"),
        });
    }
    found.kind = kind;
    Ok(found)
}

/// Where in a file the scan is.
pub(super) struct Place<'a> {
    scan: &'a mut Scan,
    within: Vec<String>,
    /// What was said already, so that a loop says it once.
    seen: BTreeSet<(Vec<String>, String)>,
    archives: usize,
}

impl Place<'_> {
    fn danger(&mut self, offset: usize, what: String) {
        self.found(Severity::Danger, offset, what);
    }

    fn notice(&mut self, offset: usize, what: String) {
        self.found(Severity::Notice, offset, what);
    }

    fn found(&mut self, severity: Severity, offset: usize, what: String) {
        if !self.seen.insert((self.within.clone(), what.clone())) {
            return;
        }
        if self.scan.findings.len() == MOST_FINDINGS {
            self.scan.more += 1;
            return;
        }
        self.scan.findings.push(Finding {
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

    /// Scans a file, or a member of an archive, by its content; says what it is.
    fn file(&mut self, name: &str, bytes: &Bytes) -> String {
        if crate::zip::is_zip(bytes) {
            if self.archives == DEEPEST {
                self.danger(
                    0,
                    format!("archives lie in archives more than {DEEPEST} deep"),
                );
                return "a zip archive".to_owned();
            }
            self.archives += 1;
            zip::scan(self, bytes);
            self.archives -= 1;
            return "a zip archive".to_owned();
        }
        if pytorch::is_tar(bytes) {
            self.anywhere(bytes);
            return "a tar archive".to_owned();
        }
        if bytes.starts_with(numpy::MAGIC) {
            // An array of objects is a pickle behind the header.
            if let Some(begin) = numpy::objects(bytes) {
                self.danger(
                    0,
                    "is an array of Python objects, which NumPy unpickles".to_owned(),
                );
                self.run_of_pickles(&bytes[begin..], begin);
            }
            return "a NumPy array".to_owned();
        }
        if pytorch::is_pickle(bytes) {
            self.run_of_pickles(bytes, 0);
            return "a pickle".to_owned();
        }
        let compressed = compress::find(bytes);
        let compressed = compressed.map(|how| format!("compressed by {}", how.name()));
        if let Some(what) = compressed.or_else(|| detect::other(bytes).map(str::to_owned)) {
            let what = what.split([',', ';']).next().unwrap_or_default().to_owned();
            if named_as_weights(name) {
                self.danger(
                    0,
                    format!("is {what}; under a model's name it hides what is in it"),
                );
            }
            return what;
        }
        if name.ends_with(".pb") {
            self.graph(bytes);
            return "a TensorFlow graph".to_owned();
        }
        // Protocols before the second have no mark at their beginning.
        if named_as_pickle(name) && self.is_old_pickle(bytes) {
            self.run_of_pickles(bytes, 0);
            return "a pickle".to_owned();
        }
        match () {
            () if bytes.starts_with(b"GGUF") => "GGUF".to_owned(),
            () if bytes.get(8) == Some(&b'{') => "safetensors".to_owned(),
            () if named_as_weights(name) => "weights".to_owned(),
            () => "no weight file".to_owned(),
        }
    }

    /// Pickles one behind the other, as PyTorch's older files begin, and what hides among the bytes behind them.
    fn run_of_pickles(&mut self, bytes: &[u8], from: usize) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if at > 0 && !pytorch::is_pickle(rest) {
                break;
            }
            self.scan.pickles += 1;
            let mut length = rest.len();
            if from + at == 0 {
                length = pickle::follow(rest, self, 0, false).length;
            } else {
                self.within(from + at, "the next pickle", |place| {
                    length = pickle::follow(rest, place, 0, false).length;
                });
            }
            at += length.max(1);
        }
        self.anywhere(&bytes[at.min(bytes.len())..]);
    }

    /// Whole pickles with names anywhere among other bytes.
    fn anywhere(&mut self, bytes: &[u8]) {
        /// No pickle of a model's storages is longer.
        const LONGEST: usize = 1 << 20;
        let mut at = 0;
        while let Some(next) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|byte| *byte == 0x80))
        {
            at += next;
            let part = &bytes[at..bytes.len().min(at + LONGEST)];
            if pytorch::is_pickle(part) && self.would_be_whole(part) {
                self.scan.pickles += 1;
                let mut length = 1;
                self.within(at, "a pickle among other bytes", |place| {
                    length = pickle::follow(part, place, 0, true).length;
                });
                at += length.max(1);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the bytes are a whole pickle with a name in it, which no numbers are by chance.
    fn would_be_whole(&self, bytes: &[u8]) -> bool {
        let followed = Self::try_out(bytes);
        followed.whole && followed.names > 0
    }

    fn is_old_pickle(&self, bytes: &[u8]) -> bool {
        let followed = Self::try_out(bytes);
        followed.whole || followed.names > 0
    }

    fn try_out(bytes: &[u8]) -> pickle::Followed {
        let mut aside = Scan {
            path: PathBuf::new(),
            kind: String::new(),
            pickles: 0,
            findings: Vec::new(),
            more: 0,
        };
        let mut place = Place {
            scan: &mut aside,
            within: Vec::new(),
            seen: BTreeSet::new(),
            archives: 0,
        };
        pickle::follow(bytes, &mut place, 0, true)
    }

    /// TensorFlow's operations that reach beyond the graph.
    fn graph(&mut self, bytes: &[u8]) {
        for (operation, does) in [
            ("ReadFile", "reads files"),
            ("WriteFile", "writes files"),
            ("MatchingFiles", "lists files"),
            ("PyFunc", "runs Python"),
            ("PyFuncStateless", "runs Python"),
            ("EagerPyFunc", "runs Python"),
            ("DebugIdentityV2", "writes files"),
            ("DebugIdentityV3", "writes files"),
        ] {
            // The operation of a node: field 2 of type text, with its length.
            let mut needle = vec![0x12, operation.len() as u8];
            needle.extend(operation.as_bytes());
            let mut windows = bytes.windows(needle.len());
            if let Some(at) = windows.position(|window| window == needle) {
                self.danger(at, format!("has the operation `{operation}`, which {does}"));
            }
        }
    }
}

fn named_as_weights(name: &str) -> bool {
    const ENDINGS: [&str; 16] = [
        ".pt",
        ".pth",
        ".bin",
        ".th",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".safetensors",
        ".gguf",
        ".npz",
        ".npy",
        ".h5",
        ".keras",
        ".pb",
        ".joblib",
        ".onnx",
    ];
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn named_as_pickle(name: &str) -> bool {
    const ENDINGS: [&str; 10] = [
        ".pt", ".pth", ".bin", ".th", ".ckpt", ".pkl", ".pickle", ".joblib", ".dat", ".data",
    ];
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}
