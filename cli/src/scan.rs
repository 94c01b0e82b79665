//! `salamander scan`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use salamander::importers::scan::{Scan as Scanned, Severity, scan};
use serde_json::json;

use crate::Failure;
use crate::output::json_line;

/// The deepest folder that is looked into.
const DEEPEST: usize = 16;

#[derive(Args)]
pub(crate) struct Scan {
    /// Files, or directories, all of whose files are scanned
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object a file
    #[arg(long)]
    json: bool,
    /// Fail on warnings, too
    #[arg(long)]
    strict: bool,
}

/// Why the command fails: how many files were dangerous, suspicious where that counts, or not to be read.
#[derive(Debug, Default)]
struct Failed {
    dangerous: usize,
    suspicious: usize,
    unread: usize,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.dangerous, "is dangerous", "are dangerous"),
            (self.suspicious, "is suspicious", "are suspicious"),
            (self.unread, "cannot be read", "cannot be read"),
        ];
        let said = counts.iter().filter(|(count, ..)| *count > 0);
        let said: Vec<String> = said
            .map(|(count, one, many)| match count {
                1 => format!("one file {one}"),
                count => format!("{count} files {many}"),
            })
            .collect();
        f.write_str(&said.join(", "))
    }
}

impl std::error::Error for Failed {}

impl Scan {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            collect(path, 0, &mut files)?;
        }
        let mut out = io::stdout().lock();
        let mut failed = Failed::default();
        for file in files {
            let found = match scan(&file) {
                Ok(found) => found,
                Err(error) => {
                    failed.unread += 1;
                    let error = error.to_string();
                    if self.json {
                        json_line(&mut out, &json!({ "path": file, "error": error }))?;
                    } else {
                        writeln!(out, "{error}")?;
                    }
                    continue;
                }
            };
            match found.severity() {
                Some(Severity::Danger) => failed.dangerous += 1,
                Some(Severity::Warning) => failed.suspicious += usize::from(self.strict),
                _ => {}
            }
            if self.json {
                json_line(&mut out, &object(&found))?;
            } else {
                print(&mut out, &found)?;
            }
        }
        if failed.dangerous + failed.suspicious + failed.unread == 0 {
            Ok(())
        } else {
            Err(failed.into())
        }
    }
}

/// The regular files below a path; links to folders are not followed.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut inner = Vec::new();
    for item in fs::read_dir(path)? {
        let item = item?;
        let folder = item.file_type()?.is_dir() && depth < DEEPEST;
        if folder || item.path().is_file() {
            inner.push(item.path());
        }
    }
    inner.sort();
    for path in inner {
        collect(&path, depth + 1, files)?;
    }
    Ok(())
}

fn object(found: &Scanned) -> serde_json::Value {
    let findings = found.findings.iter().map(|finding| {
        json!({
            "severity": finding.severity.name(),
            "within": finding.within,
            "offset": finding.offset,
            "what": finding.what,
        })
    });
    json!({
        "path": found.path,
        "kind": found.kind,
        "severity": found.severity().map(Severity::name),
        "dangerous": found.is_dangerous(),
        "pickles": found.pickles,
        "findings": findings.collect::<Vec<_>>(),
        "more": found.more,
    })
}

fn print(out: &mut dyn Write, found: &Scanned) -> io::Result<()> {
    let verdict = match found.severity() {
        Some(Severity::Danger) => "dangerous",
        Some(Severity::Warning) => "suspicious",
        Some(Severity::Notice) => "harmless, with notices",
        None => "nothing found",
    };
    let pickles = match found.pickles {
        0 => String::new(),
        1 => ", one pickle".to_owned(),
        count => format!(", {count} pickles"),
    };
    let path = found.path.display();
    writeln!(out, "{path}: {}{pickles}: {verdict}", found.kind)?;
    for finding in &found.findings {
        let mut place = finding.within.clone();
        place.push(format!("byte {}", finding.offset));
        writeln!(
            out,
            "  {:7}  {}: {}",
            finding.severity.name(),
            place.join(" / "),
            finding.what
        )?;
    }
    if found.more > 0 {
        writeln!(out, "  … and {} more", found.more)?;
    }
    Ok(())
}
