//! Printing: tables for people, one JSON object a line for programs.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::Failure;

/// Prints an error and what it came from, unless it has been printed already.
pub(crate) fn error(error: &(dyn Error + 'static)) {
    if !error.is::<Reported>() {
        eprintln!("error: {}", chain(error));
    }
}

/// An error and its causes, as far as they are not in its text already.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The only input was bad, which standard error has heard.
#[derive(Debug)]
struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the input has no answer")
    }
}

impl Error for Reported {}

/// Inputs of a command that cannot be answered. The others are, and the command fails in the end.
pub(crate) struct BadInputs {
    json: bool,
    count: usize,
}

impl BadInputs {
    /// None so far, in a command that prints JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, count: 0 }
    }

    /// Names a bad input: one line on standard error and, among answers in JSON, an object in its answer's place.
    pub(crate) fn add(
        &mut self,
        out: &mut dyn Write,
        input: &str,
        error: &dyn Error,
    ) -> Result<(), Failure> {
        self.count += 1;
        let text = chain(error);
        if self.json {
            json_line(out, &serde_json::json!({"input": input, "error": text}))?;
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        eprintln!("error: {}", lines.join("; "));
        Ok(())
    }

    /// Fails if there was any among all `inputs`.
    pub(crate) fn finish(self, inputs: usize) -> Result<(), Failure> {
        match self.count {
            0 => Ok(()),
            1 if inputs == 1 => Err(Reported.into()),
            count => Err(format!("{count} of {inputs} inputs could not be answered").into()),
        }
    }
}

/// Lets the libraries' warnings through to people and logs alike.
pub(crate) fn show_warnings() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .init();
}

/// A remark for people, which a pipe does not get.
pub(crate) fn remark(text: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

/// Whether the reader of our output has gone, which is its right.
pub(crate) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| {
        (*error).source()
    });
    causes.any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        // What serde_json met is no source of its error.
        let json = cause.downcast_ref::<serde_json::Error>();
        let kind = io.or(json.and_then(serde_json::Error::io_error_kind));
        kind == Some(io::ErrorKind::BrokenPipe)
    })
}

/// Writes one object as a line of JSON.
pub(crate) fn json_line(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)?;
    writeln!(out, "{text}")?;
    Ok(())
}

/// Writes rows with aligned columns; the last one is left as it is.
pub(crate) fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                writeln!(out, "{cell}")?;
            } else {
                write!(out, "{cell:<width$}  ", width = widths[column])?;
            }
        }
    }
    Ok(())
}

/// The beginning of a text, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().count() <= LONGEST {
        return line;
    }
    let head: String = line.chars().take(LONGEST - 1).collect();
    format!("{head}…")
}
