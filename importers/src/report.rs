use std::fmt;
use std::path::PathBuf;

/// Everything in which a checkpoint and a module differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyReport {
    /// The weight file; of several the one that holds all tensors in question, or their index, or the directory.
    pub file: PathBuf,
    /// What the checkpoint should have held, for instance `bert` or the reference's class.
    pub module: String,
    /// Parameters that the checkpoint does not hold.
    pub missing: Vec<Missing>,
    /// Tensors that no parameter takes and the key map does not ignore.
    pub unexpected: Vec<Unexpected>,
    /// Tensors of the wrong shape or kind.
    pub mismatched: Vec<Mismatch>,
    /// What the checkpoint can be opened as in place of this: tasks or classes that it has all tensors of.
    pub instead: Vec<String>,
    /// Missing parameters that tensors without names could be, and it does not show which is which.
    pub ambiguous: Vec<Ambiguous>,
}

/// Parameters of an exported model that has lost names, and the tensors that may be theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambiguous {
    /// The parameters' paths in the module.
    pub parameters: Vec<String>,
    /// The keys of the candidates.
    pub candidates: Vec<String>,
}

/// A parameter that the checkpoint does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The checkpoint key that was looked for first.
    pub key: String,
    /// The parameter's path in the module.
    pub parameter: String,
    /// The unused key of the checkpoint that is most like it.
    pub nearest: Option<String>,
}

/// A tensor that no parameter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexpected {
    /// Its key in the checkpoint.
    pub key: String,
    /// The key looked for and not found that is most like it.
    pub nearest: Option<String>,
}

/// A tensor that does not fit its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Its key in the checkpoint.
    pub key: String,
    /// What the module needs, as the checkpoint would store it.
    pub expected: String,
    /// What the checkpoint holds.
    pub found: String,
}

/// How many lines of each kind the text shows; the fields hold them all.
const SHOWN: usize = 20;

impl KeyReport {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for KeyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: not the weights of {}: {} missing, {} unexpected, {} of the wrong shape or type",
            self.file.display(),
            self.module,
            self.missing.len(),
            self.unexpected.len(),
            self.mismatched.len()
        )?;
        list(f, &self.missing, |f, missing| {
            write!(f, "missing     {}", missing.key)?;
            nearest(f, missing.nearest.as_deref())
        })?;
        list(f, &self.unexpected, |f, unexpected| {
            write!(f, "unexpected  {}", unexpected.key)?;
            nearest(f, unexpected.nearest.as_deref())
        })?;
        list(f, &self.mismatched, |f, mismatch| {
            let Mismatch {
                key,
                expected,
                found,
            } = mismatch;
            write!(f, "mismatched  {key}: expected {expected}, found {found}")
        })?;
        list(f, &self.ambiguous, |f, ambiguous| {
            write!(
                f,
                "ambiguous   {} may each be {}; export the model with its names",
                some(&ambiguous.parameters),
                some(&ambiguous.candidates)
            )
        })?;
        if self.instead.is_empty() {
            return Ok(());
        }
        let mut lacking: Vec<String> = Vec::new();
        for missing in &self.missing {
            let layer = missing.key.rsplit_once('.');
            let layer = layer
                .map_or(&missing.key[..], |(layer, _)| layer)
                .to_owned();
            if !lacking.contains(&layer) {
                lacking.push(layer);
            }
        }
        write!(
            f,
            "\n  it has no {}; it can be opened for {}",
            some(&lacking),
            self.instead.join(", ")
        )
    }
}

impl std::error::Error for KeyReport {}

fn nearest(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    match nearest {
        Some(key) => write!(f, " (nearest: {key})"),
        None => Ok(()),
    }
}

/// The first of several names.
pub(crate) fn some(names: &[String]) -> String {
    const NAMED: usize = 8;
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut show: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in items.iter().take(SHOWN) {
        f.write_str("\n  ")?;
        show(f, item)?;
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, "\n  … and {more} more"),
    }
}
