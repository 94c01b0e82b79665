//! Texts from the arguments, a file or standard input, a block at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// How many lines are run together: enough for batches of one length, few enough that answers flow.
const BLOCK: usize = 256;

/// Where texts come from.
#[derive(clap::Args)]
pub(crate) struct Input {
    /// The texts; without any, one text a line is read from --file or standard input
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// A file with one text a line
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
}

impl Input {
    /// Runs all texts in blocks, in order, and prints each block's answers, with a progress bar on a
    /// terminal.
    pub(crate) fn for_each_block<A>(
        self,
        mut run: impl FnMut(&[String]) -> Result<Vec<A>, Failure>,
        mut print: impl FnMut(&[String], Vec<A>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut block = |texts: &[String], bar: &ProgressBar| {
            let answers = run(texts)?;
            // The bar would stand between the answers when both go to the terminal.
            bar.suspend(|| print(texts, answers))
        };
        if !self.texts.is_empty() {
            return block(&self.texts, &ProgressBar::hidden());
        }
        match self.file {
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|error| format!("{name}: {error}"))?;
                let size = file.metadata().map(|metadata| metadata.len()).ok();
                read(
                    &mut BufReader::new(file),
                    &name,
                    &progress(size),
                    &mut block,
                )
            }
            None => {
                let bar = if io::stdin().is_terminal() {
                    ProgressBar::hidden()
                } else {
                    progress(None)
                };
                read(&mut io::stdin().lock(), "standard input", &bar, &mut block)
            }
        }
    }
}

/// A bar over the bytes of a file, or a count where the size is unknown; nothing outside a terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:40} {bytes}/{total_bytes} {msg} {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {msg}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Runs a block of texts and prints its answers.
type Block<'a> = dyn FnMut(&[String], &ProgressBar) -> Result<(), Failure> + 'a;

fn read(
    reader: &mut dyn BufRead,
    name: &str,
    bar: &ProgressBar,
    run: &mut Block<'_>,
) -> Result<(), Failure> {
    let mut block = Vec::new();
    let (mut lines, mut read) = (0_u64, 0_u64);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let count = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|error| format!("{name}: {error}"))?;
        if count > 0 {
            lines += 1;
            if bytes.ends_with(b"\n") {
                bytes.pop();
            }
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| {
                let column = error.valid_up_to() + 1;
                format!(
                    "{name}: line {lines}, byte {column} is not UTF-8; convert the text to UTF-8"
                )
            })?;
            block.push(text.to_owned());
            read += count as u64;
        }
        if block.len() == BLOCK || (count == 0 && !block.is_empty()) {
            run(&block, bar)?;
            block.clear();
            bar.set_position(read);
            bar.set_message(format!("{lines} lines"));
        }
        if count == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
    }
}
