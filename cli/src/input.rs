//! Texts from the arguments, a file or standard input, a block at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::output::{BadInputs, chain};

/// How many lines are run together: enough for batches of one length, few enough that answers flow.
const BLOCK: usize = 256;
/// How many bytes of text are run together, or one line: tokens take many times the memory of their text.
const BLOCK_BYTES: usize = 1 << 20;

/// Where texts come from.
#[derive(clap::Args)]
pub(crate) struct Input {
    /// The texts; without any, one text a line is read from --file or standard input
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// A file with one text a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
}

/// An answer, or what is wrong with its input.
pub(crate) type Answered<A> = Result<A, Failure>;

impl Input {
    /// Runs all texts in blocks, in order, and prints each block's answers, with a progress bar on a
    /// terminal.
    ///
    /// `run` answers each text, or says what is wrong with it; an error of its own ends everything. Bad texts, and
    /// lines that are no text, are named as they come, and the others answered.
    pub(crate) fn for_each_block<A>(
        self,
        json: bool,
        mut run: impl FnMut(&[String]) -> Result<Vec<Answered<A>>, Failure>,
        mut print: impl FnMut(&mut dyn Write, &[String], Vec<A>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut bad = BadInputs::new(json);
        let mut inputs = 0;
        let mut block = |lines: &[Line], bar: &ProgressBar| {
            inputs += lines.len();
            let texts: Vec<String> = lines.iter().filter_map(Line::text).collect();
            let answers = if texts.is_empty() {
                Vec::new()
            } else {
                run(&texts)?
            };
            let mut answers = texts.into_iter().zip(answers);
            // The bar would stand between the answers when both go to the terminal.
            bar.suspend(|| -> Result<(), Failure> {
                let mut out = io::stdout().lock();
                let (mut good, mut answered) = (Vec::new(), Vec::new());
                for line in lines {
                    let (name, error) = match &line.text {
                        Err(reason) => (line.place.clone(), reason.clone().into()),
                        Ok(_) => match answers.next() {
                            Some((text, Ok(answer))) => {
                                good.push(text);
                                answered.push(answer);
                                continue;
                            }
                            Some((text, Err(error))) => (text, error),
                            None => continue,
                        },
                    };
                    // In JSON each answer stands where its input stood.
                    if json {
                        print(&mut out, &good, std::mem::take(&mut answered))?;
                        good.clear();
                    }
                    bad.add(&mut out, &name, &*line.locate(error))?;
                }
                print(&mut out, &good, answered)?;
                out.flush()?;
                Ok(())
            })
        };
        if !self.texts.is_empty() {
            let lines: Vec<Line> = self.texts.into_iter().map(Line::argument).collect();
            block(&lines, &ProgressBar::hidden())?;
            return bad.finish(inputs);
        }
        let file = self.file.filter(|path| path.as_os_str() != "-");
        match file {
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|error| format!("{name}: {error}"))?;
                let size = file.metadata().map(|metadata| metadata.len()).ok();
                read(
                    &mut BufReader::new(file),
                    &name,
                    &progress(size),
                    &mut block,
                )?;
            }
            None => {
                let bar = if io::stdin().is_terminal() {
                    ProgressBar::hidden()
                } else {
                    progress(None)
                };
                read(&mut io::stdin().lock(), "standard input", &bar, &mut block)?;
            }
        }
        bad.finish(inputs)
    }
}

/// Runs the texts that `prepare` takes and `run` answers; what is wrong with the others stands in their answers' places.
pub(crate) fn run_good<'a, I: Clone, A>(
    texts: &'a [String],
    prepare: impl Fn(&'a str) -> Result<I, Failure>,
    mut run: impl FnMut(Vec<I>) -> Result<Vec<A>, Failure>,
) -> Result<Vec<Answered<A>>, Failure> {
    let (mut good, mut places) = (Vec::new(), Vec::new());
    for text in texts {
        places.push(prepare(text).map(|input| good.push(input)));
    }
    let mut answers = match good.is_empty() {
        true => Vec::new(),
        false => match run(good.clone()) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) if !is_of_input(&error) => return Err(error),
            Err(error) if good.len() == 1 => vec![Err(error)],
            // Which it is of, each alone shows.
            Err(_) => {
                let mut answers = Vec::new();
                for input in good {
                    match run(vec![input]) {
                        Ok(mut answer) => answers.extend(answer.pop().map(Ok)),
                        Err(error) if is_of_input(&error) => answers.push(Err(error)),
                        Err(error) => return Err(error),
                    }
                }
                answers
            }
        },
    }
    .into_iter();
    let place = |place: Result<(), Failure>| match place {
        Ok(()) => answers
            .next()
            .unwrap_or_else(|| Err("has no answer".into())),
        Err(error) => Err(error),
    };
    Ok(places.into_iter().map(place).collect())
}

/// Whether an error is of what was asked, and not of the model or the device.
fn is_of_input(error: &Failure) -> bool {
    match error.downcast_ref() {
        Some(salamander::Error::Text(_) | salamander::Error::Input(_)) => true,
        Some(salamander::Error::Option { name, .. }) => {
            ["text", "question", "context"].contains(name)
        }
        _ => false,
    }
}

/// A text, or why there is none.
struct Line {
    text: Result<String, String>,
    /// The file and the line; nothing of an argument.
    place: String,
}

impl Line {
    fn argument(text: String) -> Self {
        Self {
            text: Ok(text),
            place: String::new(),
        }
    }

    fn text(&self) -> Option<String> {
        self.text.as_ref().ok().cloned()
    }

    /// Says where the line stands.
    fn locate(&self, error: Failure) -> Failure {
        match &self.place[..] {
            "" => error,
            place => format!("{place}: {}", chain(&*error)).into(),
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
type Block<'a> = dyn FnMut(&[Line], &ProgressBar) -> Result<(), Failure> + 'a;

fn read(
    reader: &mut dyn BufRead,
    name: &str,
    bar: &ProgressBar,
    run: &mut Block<'_>,
) -> Result<(), Failure> {
    let (mut block, mut size) = (Vec::new(), 0);
    let (mut lines, mut read) = (0_u64, 0_u64);
    loop {
        let mut bytes = Vec::new();
        let count = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|error| format!("{name}: {error}"))?;
        if count > 0 {
            lines += 1;
            size += count;
            if bytes.ends_with(b"\n") {
                bytes.pop();
            }
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
            let text = String::from_utf8(bytes).map_err(|error| {
                let column = error.utf8_error().valid_up_to() + 1;
                format!("byte {column} is not UTF-8; convert the text to UTF-8")
            });
            block.push(Line {
                text,
                place: format!("{name}: line {lines}"),
            });
            read += count as u64;
        }
        let full = block.len() == BLOCK || size >= BLOCK_BYTES;
        if full || (count == 0 && !block.is_empty()) {
            run(&block, bar)?;
            block.clear();
            size = 0;
            bar.set_position(read);
            bar.set_message(format!("{lines} lines"));
        }
        if count == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
    }
}
