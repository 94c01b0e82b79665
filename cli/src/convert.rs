//! `salamander convert`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::importers::{Compression, Dtype, WriteFormat};
use salamander::{Conversion, ConvertOptions, Progress, convert, dtype_named};

use crate::Failure;
use crate::output::table;

/// The format that is a directory of its own.
const NATIVE: &str = "native";

#[derive(Args)]
pub(crate) struct Convert {
    /// A model directory, a weight file, or a hub id
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// A file, whose ending says the format, or a directory, to which configuration and tokenizer go too
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// safetensors, pytorch, gguf, npz, npy, json, json-model, yaml, burnpack, tensorflow, or native for a native
    /// model directory
    #[arg(long, value_name = "NAME", value_parser = format)]
    format: Option<Format>,
    /// The type of all floats: f64, f32, f16, bf16; in GGUF also q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q6_k
    #[arg(long, value_name = "TYPE", value_parser = dtype)]
    dtype: Option<Dtype>,
    /// The most bytes of tensors in one safetensors or PyTorch file, such as 500MB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// gzip or zstd, for JSON and YAML; by default what the target's ending says
    #[arg(long, value_name = "NAME", value_parser = compression)]
    compress: Option<Compression>,
    /// Indent JSON
    #[arg(long)]
    pretty: bool,
    /// The model's name in another library, for weights without a config.json, such as torchvision/resnet50 or
    /// timm/vit_base_patch16_224
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// What stands before the names of the model's tensors, such as `student.`; nothing else is written then
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Write only tensors whose names are like this, `*` for any text; may be given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out tensors whose names are like this; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what the format cannot hold, and say so, instead of writing nothing
    #[arg(long)]
    skip: bool,
    /// Leave the tensors' names as they are
    #[arg(long)]
    keep_names: bool,
    /// Replace what is there already
    #[arg(long)]
    overwrite: bool,
    /// Print everything as one JSON object, with the largest difference of every tensor
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy)]
enum Format {
    Native,
    One(WriteFormat),
}

fn format(name: &str) -> Result<Format, String> {
    if name == NATIVE {
        return Ok(Format::Native);
    }
    WriteFormat::find(name).map(Format::One).ok_or_else(|| {
        let all: Vec<&str> = WriteFormat::ALL
            .iter()
            .map(|format| format.name())
            .collect();
        format!("known are {}, {NATIVE}", all.join(", "))
    })
}

fn dtype(name: &str) -> Result<Dtype, String> {
    dtype_named(name).ok_or_else(|| {
        "known are f64, f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q6_k".to_owned()
    })
}

fn compression(name: &str) -> Result<Compression, String> {
    let mut all = Compression::ALL.into_iter();
    let found = all.find(|compression| compression.name() == name);
    found.ok_or_else(|| "known are gzip, zstd".to_owned())
}

/// `500MB`, `2GiB`, `1000`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        _ => return Err("units are B, KB, MB, GB, KiB, MiB and GiB".to_owned()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "no number".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|size| *size > 0)
        .ok_or_else(|| "out of range".to_owned())
}

impl Convert {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let options = ConvertOptions {
            format: match self.format {
                Some(Format::One(format)) => Some(format),
                _ => None,
            },
            native: matches!(self.format, Some(Format::Native)),
            dtype: self.dtype,
            shard_size: Some(self.shard_size),
            compression: self.compress,
            pretty: self.pretty,
            architecture: self.architecture,
            prefix: self.prefix,
            include: self.include,
            exclude: self.exclude,
            skip: self.skip,
            keep_names: self.keep_names,
            overwrite: self.overwrite,
        };
        let bar = RefCell::new((ProgressBar::hidden(), None));
        let draw = |progress: Progress| {
            let (bar, reading_back) = &mut *bar.borrow_mut();
            if *reading_back != Some(progress.reading_back) {
                bar.finish_and_clear();
                *bar = begin(&progress);
                *reading_back = Some(progress.reading_back);
            }
            bar.set_position(progress.done);
        };
        let converted = convert(&self.source, &self.target, &options, &draw);
        bar.into_inner().0.finish_and_clear();
        let converted = converted?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &converted)?;
            writeln!(out)?;
        } else {
            print(&mut out, &converted)?;
        }
        Ok(())
    }
}

fn begin(progress: &Progress) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
    let bar = ProgressBar::new(progress.total);
    bar.set_message(if progress.reading_back {
        "reading back"
    } else {
        "writing"
    });
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn print(out: &mut dyn Write, converted: &Conversion) -> Result<(), Failure> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("from", converted.from.clone()),
        row("to", converted.to.clone()),
    ];
    for file in &converted.files {
        rows.push(row("file", file.display().to_string()));
    }
    for file in &converted.beside {
        rows.push(row("beside", file.display().to_string()));
    }
    if let Some(architecture) = converted.renamed {
        rows.push(row(
            "names",
            format!("as the target's users expect of {architecture}"),
        ));
    }
    for remark in &converted.remarks {
        rows.push(row("remark", remark.clone()));
    }
    rows.push(row("tensors", converted.tensors.len().to_string()));
    let largest = converted.largest_difference;
    let worst = converted
        .tensors
        .iter()
        .find(|tensor| largest > 0.0 && tensor.difference == largest);
    let place = worst.map_or(String::new(), |tensor| {
        format!(
            " in {} ({} from {})",
            tensor.name, tensor.dtype, tensor.from
        )
    });
    rows.push(row("largest difference", format!("{largest}{place}")));
    table(out, &rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        for wrong in ["", "0", "GB", "5 bananas", "99999999999GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
