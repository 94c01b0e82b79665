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
}

/// Something that was found.
#[derive(Debug)]
struct Dangerous(usize);

impl std::fmt::Display for Dangerous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            1 => write!(f, "one file is dangerous"),
            count => write!(f, "{count} files are dangerous"),
        }
    }
}

impl std::error::Error for Dangerous {}

impl Scan {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            collect(path, 0, &mut files)?;
        }
        let mut out = io::stdout().lock();
        let mut dangerous = 0;
        for file in files {
            let found = scan(&file)?;
            dangerous += usize::from(found.is_dangerous());
            if self.json {
                json_line(&mut out, &object(&found))?;
            } else {
                print(&mut out, &found)?;
            }
        }
        match dangerous {
            0 => Ok(()),
            count => Err(Dangerous(count).into()),
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

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Danger => "danger",
        Severity::Notice => "notice",
    }
}

fn object(found: &Scanned) -> serde_json::Value {
    let findings = found.findings.iter().map(|finding| {
        json!({
            "severity": word(finding.severity),
            "within": finding.within,
            "offset": finding.offset,
            "what": finding.what,
        })
    });
    json!({
        "path": found.path,
        "kind": found.kind,
        "dangerous": found.is_dangerous(),
        "pickles": found.pickles,
        "findings": findings.collect::<Vec<_>>(),
        "more": found.more,
    })
}

fn print(out: &mut dyn Write, found: &Scanned) -> io::Result<()> {
    let verdict = match (found.is_dangerous(), found.findings.is_empty()) {
        (true, _) => "dangerous",
        (false, false) => "odd",
        (false, true) => "nothing found",
    };
    let path = found.path.display();
    writeln!(
        out,
        "{path}: {}, {} pickles: {verdict}",
        found.kind, found.pickles
    )?;
    for finding in &found.findings {
        let mut place = finding.within.clone();
        place.push(format!("byte {}", finding.offset));
        writeln!(
            out,
            "  {}  {}: {}",
            word(finding.severity),
            place.join(" / "),
            finding.what
        )?;
    }
    if found.more > 0 {
        writeln!(out, "  … and {} more", found.more)?;
    }
    Ok(())
}
