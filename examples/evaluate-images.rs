//! Measures the accuracy of an image classifier on labelled pictures.
//!
//! ```sh
//! cargo run --release --example evaluate-images -- pictures/
//! cargo run --release --example evaluate-images -- cifar-10-batches-bin/test_batch.bin
//! cargo run --release --example evaluate-images -- cifar10/test.csv
//! ```
//!
//! The pictures come in one of three ways:
//!
//! - a folder with a folder of files for each class, named as the class is;
//! - the binary version of CIFAR-10: a byte for the class, then 32 × 32 red, green and blue bytes, over and
//!   over (<https://www.cs.toronto.edu/~kriz/cifar.html>);
//! - a CSV with the columns `offset`, `length` and `label`, which says where the files lie in the `.bin` of the
//!   same name beside it, and the number of each one's class.
//!
//! `--predictions` writes one JSON object a picture, to be held against another implementation's; `--expect`
//! reads such a file and counts the pictures whose label differs.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Device;
use salamander::models::processing::image::Image;
use salamander::tasks::{ImageClassification, Label};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/cifar10");

/// Measures the accuracy of an image classifier.
#[derive(Parser)]
struct Arguments {
    /// The labelled pictures: a folder of folders, a .bin of CIFAR-10, or a CSV
    #[arg(value_name = "PICTURES")]
    data: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// The model's name in another library, for weights without a config.json
    #[arg(long)]
    architecture: Option<String>,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
    /// Write the answers here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Compare with the answers of another implementation, one JSON object with a `label` a line
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// How many pictures are run together.
const BLOCK: usize = 64;
/// The height and width of CIFAR-10's pictures.
const SIDE: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let classify = match &arguments.architecture {
        Some(name) => ImageClassification::open_as(&arguments.model, name, &device)?,
        None => ImageClassification::open(&arguments.model, &device)?,
    };
    let names = classify.labels();
    let pictures = Pictures::open(&arguments.data, names)?;

    let bar = ProgressBar::new(pictures.classes.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec} {eta} left",
    )?);
    let mut answers: Vec<Label> = Vec::new();
    let indices: Vec<usize> = (0..pictures.classes.len()).collect();
    for block in indices.chunks(BLOCK) {
        let images = block.iter().map(|index| pictures.decode(*index));
        let images: Vec<Image> = images.collect::<Result<_, _>>()?;
        let labels = classify.run_batch(&images)?.into_iter();
        answers.extend(labels.map(|mut labels| labels.swap_remove(0)));
        bar.inc(block.len() as u64);
    }
    bar.finish_and_clear();

    let pairs = pictures.classes.iter().zip(&answers);
    let right = pairs.filter(|(class, answer)| names[**class] == answer.name);
    let (right, all) = (right.count(), answers.len());
    let share = 100.0 * right as f64 / all.max(1) as f64;
    println!("accuracy {share:.2} % ({right} of {all}) on {device}");

    if let Some(path) = arguments.predictions {
        let mut out = BufWriter::new(fs::File::create(path)?);
        for answer in &answers {
            writeln!(out, "{}", serde_json::to_string(answer)?)?;
        }
        out.flush()?;
    }
    if let Some(path) = arguments.expect {
        compare(&path, &answers)?;
    }
    Ok(())
}

/// Counts where another implementation's answers differ.
fn compare(path: &Path, answers: &[Label]) -> Result<(), Box<dyn Error>> {
    let text = read(path)?;
    let expected: Vec<serde_json::Value> = String::from_utf8(text)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    if expected.len() != answers.len() {
        let (found, needed) = (expected.len(), answers.len());
        return Err(format!("{}: {found} answers, not {needed}", path.display()).into());
    }
    let pairs = expected.iter().zip(answers);
    let differ = pairs
        .clone()
        .filter(|(e, a)| e["label"] != a.name[..])
        .count();
    let scores = pairs.filter_map(|(e, a)| Some((e["score"].as_f64()?, f64::from(a.score))));
    let distance = scores.map(|(e, a)| (e - a).abs()).fold(0.0, f64::max);
    println!("{differ} labels differ; largest difference of a score {distance:.1e}");
    Ok(())
}

/// Where the labelled pictures are.
struct Pictures {
    /// The class of each.
    classes: Vec<usize>,
    place: Place,
}

enum Place {
    /// A file for each.
    Files(Vec<PathBuf>),
    /// Files joined to one.
    Joined(Vec<u8>, Vec<Range<usize>>),
    /// Bytes, each colour on its own, after one for the class.
    Planes(Vec<u8>),
}

impl Pictures {
    fn open(path: &Path, names: &[String]) -> Result<Self, Box<dyn Error>> {
        let pictures = if path.is_dir() {
            Self::folders(path, names)?
        } else if path.extension().is_some_and(|ending| ending == "csv") {
            Self::joined(path)?
        } else {
            Self::planes(path)?
        };
        if pictures.classes.is_empty() {
            return Err(format!("{}: no pictures", path.display()).into());
        }
        match pictures.classes.iter().max() {
            Some(class) if *class >= names.len() => {
                let (path, count) = (path.display(), names.len());
                Err(format!("{path}: class {class}, but the model has {count}").into())
            }
            _ => Ok(pictures),
        }
    }

    fn folders(path: &Path, names: &[String]) -> Result<Self, Box<dyn Error>> {
        let sorted = |path: &Path| -> std::io::Result<Vec<PathBuf>> {
            let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
            let mut paths: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
            paths.sort();
            Ok(paths)
        };
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        for folder in sorted(path)?.into_iter().filter(|path| path.is_dir()) {
            let name = folder.file_name().and_then(|name| name.to_str());
            let class = names.iter().position(|class| Some(&class[..]) == name);
            let class =
                class.ok_or_else(|| format!("{}: not a class of the model", folder.display()))?;
            let found = sorted(&folder)?;
            classes.extend(found.iter().map(|_| class));
            files.extend(found);
        }
        let place = Place::Files(files);
        Ok(Self { classes, place })
    }

    fn joined(path: &Path) -> Result<Self, Box<dyn Error>> {
        #[derive(serde::Deserialize)]
        struct Row {
            offset: usize,
            length: usize,
            label: usize,
        }
        let bytes = read(&path.with_extension("bin"))?;
        let (mut classes, mut ranges) = (Vec::new(), Vec::new());
        let rows = csv::Reader::from_path(path)?.into_deserialize();
        for (index, row) in rows.enumerate() {
            let place = || format!("{}: picture {index}", path.display());
            let Row {
                offset,
                length,
                label,
            } = row.map_err(|error| format!("{}: {error}", place()))?;
            let end = offset.checked_add(length).filter(|end| *end <= bytes.len());
            let end = end.ok_or_else(|| format!("{}: ends behind the .bin", place()))?;
            classes.push(label);
            ranges.push(offset..end);
        }
        let place = Place::Joined(bytes, ranges);
        Ok(Self { classes, place })
    }

    fn planes(path: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = read(path)?;
        let size = 1 + 3 * SIDE * SIDE;
        if !bytes.len().is_multiple_of(size) {
            let (path, length) = (path.display(), bytes.len());
            return Err(format!("{path}: {length} bytes are not {size} for each picture").into());
        }
        let classes = bytes.iter().step_by(size).map(|class| usize::from(*class));
        Ok(Self {
            classes: classes.collect(),
            place: Place::Planes(bytes),
        })
    }

    fn decode(&self, index: usize) -> Result<Image, Box<dyn Error>> {
        let decode = |bytes: &[u8], name: String| {
            Image::decode(bytes).map_err(|error| format!("{name}: {error}").into())
        };
        match &self.place {
            Place::Files(files) => {
                decode(&read(&files[index])?, files[index].display().to_string())
            }
            Place::Joined(bytes, ranges) => {
                decode(&bytes[ranges[index].clone()], format!("picture {index}"))
            }
            Place::Planes(bytes) => {
                let plane = SIDE * SIDE;
                let planes = &bytes[index * (1 + 3 * plane) + 1..][..3 * plane];
                let pixels =
                    (0..plane).flat_map(|pixel| [0, 1, 2].map(|c| planes[c * plane + pixel]));
                Ok(Image::new(SIDE, SIDE, pixels.collect())?)
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
