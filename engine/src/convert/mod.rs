//! Any readable model into any format that can be written.

mod files;
mod llama_cpp;
mod names;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use salamander_importers::{
    Checkpoint, Compression, Dtype, Entry, WriteFormat, WriteOptions, difference, gguf, write,
};
use salamander_models::{
    Architecture, Family, Files as Contained, Finding, Naming, PretrainedConfig, contained_files,
    contained_tokenizer, detect, in_hugging_face, seen_through,
};
use serde::Serialize;
use serde_json::Value;

use crate::source::under;
use crate::{Error, ModelDir};
use files::Files;

/// How a model is converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// The format; by default the one that the target's name ends in, and safetensors for a directory.
    pub format: Option<WriteFormat>,
    /// Whether the target is a native model directory, which [`crate::native`] describes.
    pub native: bool,
    /// The type of all floats; by default their own. In GGUF tensors of one dimension stay `f32`, and those
    /// whose rows do not divide into a type's blocks become `f16`.
    pub dtype: Option<Dtype>,
    /// The most bytes of tensors in one file, where the format has an index.
    pub shard_size: Option<u64>,
    /// How a text is compressed; by default as the target's name says.
    pub compression: Option<Compression>,
    /// Whether a text is indented.
    pub pretty: bool,
    /// The model's name in another library, such as `timm/vit_base_patch16_224`, for weights without a
    /// configuration.
    pub architecture: Option<String>,
    /// What stands before the names of the model's tensors, as [`Device::with_prefix`](crate::Device::with_prefix)
    /// says; nothing else is written then.
    pub prefix: Option<String>,
    /// Patterns of names of tensors that alone are written, `*` for any text; without any, all are. They are
    /// matched against the names of the result and those in the source.
    pub include: Vec<String>,
    /// Patterns of names of tensors that are left out.
    pub exclude: Vec<String>,
    /// Whether tensors that the format cannot hold are left out, each with a remark, in place of an error.
    pub skip: bool,
    /// Whether tensors keep their names, even where the target's users expect others.
    pub keep_names: bool,
    /// Whether files that are there already are replaced.
    pub overwrite: bool,
}

/// What [`convert`] is at, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether the result is being read back, or still being written.
    pub reading_back: bool,
    /// How many bytes of tensors are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

/// What was converted into what.
#[derive(Debug, Clone, Serialize)]
pub struct Conversion {
    /// The format that was read.
    pub from: String,
    /// The format that was written.
    pub to: String,
    /// The files of weights that were written; the index first, if there is one.
    pub files: Vec<PathBuf>,
    /// The other files of the model that were written beside them.
    pub beside: Vec<PathBuf>,
    /// The architecture whose names the tensors were given, if they were given others.
    pub renamed: Option<&'static str>,
    /// What was changed or left out beyond what was asked for.
    pub remarks: Vec<String>,
    /// The largest difference of a value read back to the one in the source.
    pub largest_difference: f64,
    /// Every tensor of the result.
    pub tensors: Vec<Converted>,
}

/// A tensor of the result.
#[derive(Debug, Clone, Serialize)]
pub struct Converted {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type that it had.
    pub from: String,
    /// The largest difference of a value read back to the one in the source.
    pub difference: f64,
}

/// The source, and what is known of it.
struct Model {
    directory: Option<ModelDir>,
    /// What a weight file holds itself of what others have beside it.
    contained: Contained,
    checkpoint: Checkpoint,
    config: Option<Value>,
    processor: Option<Value>,
    known: Option<Known>,
    /// What it is where the zoo does not run it.
    family: Option<&'static Family>,
    /// What was to be said of it when it was opened.
    remarks: Vec<String>,
}

/// An architecture of the zoo, and which of its classes.
struct Known {
    architecture: &'static Architecture,
    class: &'static str,
}

/// Where to, and in which format.
struct Target {
    /// The directory, if it is one that the model's other files go to too.
    directory: Option<PathBuf>,
    file: PathBuf,
    format: WriteFormat,
    compression: Option<Compression>,
}

/// Converts a weight file, a model directory or a hub id.
///
/// One tensor is in memory at a time. The result gets its name when it is whole; it is then read back and
/// held against the source. A target whose name ends as a format's files do is a file; any other is a
/// directory, to which the model's configuration and tokenizer are copied.
///
/// Where the architecture is known, tensors get the names that the target's users expect: Hugging Face's in
/// safetensors and PyTorch files, llama.cpp's in GGUF, those of google-research/bert in TensorFlow checkpoints. Between
/// GGUF and the others this holds for GPT-2 and T5 too.
///
/// # Errors
/// The source cannot be read, the format cannot hold it, the target is there already, or cannot be written.
pub fn convert(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &dyn Fn(Progress),
) -> Result<Conversion, Error> {
    let model = Model::open(source.as_ref(), options)?;
    let target = Target::new(target.as_ref(), options)?;
    let mut remarks = model.remarks.clone();

    let naming = match target.format {
        WriteFormat::Gguf => Naming::LlamaCpp,
        WriteFormat::TensorFlow => Naming::TensorFlow,
        _ => Naming::HuggingFace,
    };
    let renamed = if options.keep_names {
        None
    } else {
        names::renamed(&model, naming, &mut remarks)
            .or_else(|| names::of_family(&model, naming, &mut remarks))
    };
    let is_renamed = renamed.is_some();
    let has_llama_names = is_renamed && naming == Naming::LlamaCpp;
    let named = renamed.unwrap_or_else(|| model.entries(options));
    let known = model.known.as_ref().map(|known| known.architecture.name);
    let known = known.or(model.family.map(|family| family.name));
    let renamed = known.filter(|_| {
        let same = named.len() == model.checkpoint.len();
        let mut names = named.iter().map(|(name, _)| name);
        is_renamed && (!same || names.any(|name| model.checkpoint.get(name).is_none()))
    });
    let mut choice = Choice::new(options);
    let named = choice.chosen(named);
    let (named, typed) = choice.typed(named, &target, options, has_llama_names, &mut remarks)?;
    choice.say(&mut remarks);
    if typed.is_empty() {
        return Err(Error::NotFound {
            model: source.as_ref().display().to_string(),
            reason: choice.nothing(&model),
        });
    }

    if has_llama_names && model.family.is_none() {
        remarks.extend(llama_cpp::left_behind(&model));
    }
    let metadata = match target.format {
        WriteFormat::Gguf => Some(llama_cpp::metadata(&model, has_llama_names, &typed)?),
        _ => None,
    };
    let write_options = WriteOptions {
        shard_size: options.shard_size.filter(|_| !options.native),
        compression: target.compression,
        pretty: options.pretty,
        gguf: metadata,
    };
    if let Some(directory) = &target.directory {
        std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    }
    let typed = model.checkpoint.with_entries(typed);
    let total = typed.iter().map(|(_, entry)| entry.bytes as u64).sum();
    let done = std::cell::Cell::new(0);
    let wrote = |_: &str, bytes: usize| {
        done.set(done.get() + bytes as u64);
        progress(Progress {
            reading_back: false,
            done: done.get(),
            total,
        });
    };
    let files = write(&typed, &target.file, target.format, &write_options, &wrote)?;
    let beside = match &target.directory {
        Some(directory) => Files::new(&model, directory, options).copy(&typed, &mut remarks)?,
        None => Vec::new(),
    };

    let source = model.checkpoint.with_entries(named.clone());
    let tensors = read_back(&files, &source, total, progress)?;
    Ok(Conversion {
        from: model.checkpoint.format.to_string(),
        to: target.format.name().to_owned(),
        files,
        beside,
        renamed,
        remarks,
        largest_difference: tensors.iter().map(|t| t.difference).fold(0.0, f64::max),
        tensors,
    })
}

impl Model {
    fn open(source: &Path, options: &ConvertOptions) -> Result<Self, Error> {
        let file = Checkpoint::file(source);
        let mut model = Self::open_file(&file, options)?;
        if file != source {
            let remark = format!("{} is read", file.display());
            model.remarks.insert(0, remark);
        }
        Ok(model)
    }

    fn open_file(source: &Path, options: &ConvertOptions) -> Result<Self, Error> {
        let preset = options.architecture.as_deref();
        let prefix = options
            .prefix
            .as_deref()
            .filter(|prefix| !prefix.is_empty());
        if source.is_file() && preset.is_none() {
            return Self::alone(source, prefix);
        }
        if preset.is_none() {
            let directory = ModelDir::find(source)?;
            if directory.known_config()?.is_none() {
                let checkpoint = under(directory.checkpoint()?, prefix);
                return Ok(Self {
                    directory: Some(directory),
                    ..Self::without_config(checkpoint)
                });
            }
        }
        let opened = crate::source::Source::open(source, preset, false, prefix)?;
        Ok(Self {
            // What lies beside a file that was named alone is not its model.
            directory: (!source.is_file()).then_some(opened.directory),
            processor: opened.processor.map(|(_, processor)| processor),
            ..Self::of(opened.checkpoint, Some(opened.config))
        })
    }

    /// A weight file, with what it holds itself.
    fn alone(file: &Path, prefix: Option<&str>) -> Result<Self, Error> {
        let checkpoint = under(Checkpoint::open(file)?, prefix);
        let mut contained = contained_files(&checkpoint)
            .map_err(Error::config(file))?
            .unwrap_or_default();
        let config = contained.remove("config.json");
        let config = config.and_then(|json| serde_json::from_slice(&json).ok());
        if config.is_some() {
            return Ok(Self {
                contained,
                ..Self::of(checkpoint, config)
            });
        }
        let Some(family) = Family::find(&checkpoint, None) else {
            return Ok(Self::without_config(checkpoint));
        };
        let config = family.config(&checkpoint).map_err(Error::config(file))?;
        let tokenizer = contained_tokenizer(&checkpoint).map_err(Error::config(file))?;
        contained.extend(tokenizer.map(|json| ("tokenizer.json".to_owned(), json)));
        Ok(Self {
            contained,
            ..Self::of(checkpoint, Some(config))
        })
    }

    /// A model whose weights alone show what it is, as far as they do.
    fn without_config(checkpoint: Checkpoint) -> Self {
        let turned = checkpoint.clone().in_pytorch_layout();
        let Ok(found) = detect(&turned, &Value::Null) else {
            return Self::of(checkpoint, None);
        };
        let name = found.architecture.name;
        let whose = format!(
            "by its names, which are {}'s, this is a {name}",
            found.dialect
        );
        let config = match found.config(&Value::Null) {
            Ok(config) => config,
            Err(error) => {
                let mut model = Self::of(checkpoint, None);
                let remark = format!("{whose}; the names are unchanged: {error}");
                model.remarks.push(remark);
                return model;
            }
        };
        let mut remarks = vec![whose];
        for field in &found.fields {
            if let Finding::Usual { value, .. } = &field.finding {
                remarks.push(format!("`{}` is {value}: {}", field.name, field.finding));
            }
        }
        let mut model = Self::of(turned, Some(config));
        model.remarks.append(&mut remarks);
        model
    }

    fn of(checkpoint: Checkpoint, config: Option<Value>) -> Self {
        let (config, checkpoint) = match config {
            Some(config) => {
                // Where the prefix is not clear, the names stay as they are, and it is said why.
                let seen = seen_through(&config, &checkpoint).unwrap_or(checkpoint);
                let (config, checkpoint) = in_hugging_face(config, seen);
                (Some(config), checkpoint)
            }
            None => (None, checkpoint),
        };
        let mut remarks = Vec::new();
        if let (Some(taken), false) = (checkpoint.files.first(), checkpoint.passed_over.is_empty())
        {
            remarks.push(format!(
                "{} is read, and not {} beside it",
                taken.display(),
                checkpoint.passed_over.join(", ")
            ));
        }
        if !checkpoint.left_out.is_empty() {
            remarks.push(format!(
                "{} tensors are left out, which are a training's state, texts or constants: {}",
                checkpoint.left_out.len(),
                names::some(&checkpoint.left_out)
            ));
        }
        let known = config.as_ref();
        let known = known.and_then(|config| Known::of(config, &checkpoint));
        let family = Family::find(&checkpoint, config.as_ref());
        Self {
            directory: None,
            contained: Contained::new(),
            processor: None,
            family: family.filter(|_| known.is_none()),
            remarks,
            known,
            config,
            checkpoint,
        }
    }

    /// The tensors as they are named here; where names are kept, under the prefix that was seen through.
    fn entries(&self, options: &ConvertOptions) -> Vec<(String, Entry)> {
        let prefixed =
            options.keep_names && options.prefix.is_none() && self.checkpoint.prefix().is_some();
        let entries = self.checkpoint.iter();
        let inside = |(_, entry): &(&str, &Entry)| prefixed || !entry.is_outside();
        entries
            .filter(inside)
            .map(|(name, entry)| {
                let own = entry.own_name().filter(|_| prefixed);
                (own.unwrap_or(name).to_owned(), entry.clone())
            })
            .collect()
    }
}

impl Known {
    /// The class that the configuration names first, or that the weights show, or the trunk.
    fn of(config: &Value, checkpoint: &Checkpoint) -> Option<Self> {
        let common = PretrainedConfig::parse(config).ok()?;
        let architecture = salamander_models::find(&common).ok()?;
        let shown = || {
            let found = detect(&checkpoint.clone().in_pytorch_layout(), config).ok()?;
            let fields = found.fields.iter();
            let mut classes = fields.filter(|field| field.name == "architectures");
            let class = classes.find_map(|field| field.value()?.get(0)?.as_str());
            class.map(str::to_owned)
        };
        let class = match common.architectures.first().cloned().or_else(shown) {
            None => architecture.classes.first()?,
            Some(name) => architecture
                .classes
                .iter()
                .find(|class| class.name == name)?,
        };
        Some(Self {
            architecture,
            class: class.name,
        })
    }
}

impl Target {
    fn new(path: &Path, options: &ConvertOptions) -> Result<Self, Error> {
        let refuse = |name: &'static str, reason: String| Err(Error::Option { name, reason });
        let named = WriteFormat::of_path(path).filter(|_| !path.is_dir() && !options.native);
        let format = options.format.or(named.map(|(format, _)| format));
        let compression = options
            .compression
            .or(named.and_then(|(_, compression)| compression));
        let format = format.unwrap_or(WriteFormat::Safetensors);
        if options.native && format != WriteFormat::Safetensors {
            let reason = "a native model directory holds safetensors".to_owned();
            return refuse("format", reason);
        }
        if compression.is_some() && !format.is_text() {
            let reason = format!("{} is no text; only texts are compressed", format.name());
            return refuse("compress", reason);
        }
        let is_file = named.is_some() || path.is_file();
        let file = if is_file {
            format.file_named(path)
        } else {
            path.join(format.usual_name(compression))
        };
        let target = Self {
            directory: (!is_file).then(|| path.to_owned()),
            file,
            format,
            compression,
        };
        if options.overwrite {
            return Ok(target);
        }
        let taken = match &target.directory {
            // Other weights would be found in place of these, or with them.
            Some(directory) if directory.is_dir() => Checkpoint::open(directory)
                .ok()
                .and_then(|found| found.files.into_iter().next()),
            _ => target.file.exists().then(|| target.file.clone()),
        };
        match taken {
            Some(file) => refuse(
                "overwrite",
                format!(
                    "{} is there already; remove it, or say that it may be replaced",
                    file.display()
                ),
            ),
            None => Ok(target),
        }
    }
}

/// Which tensors are written, and why others are not.
struct Choice<'a> {
    options: &'a ConvertOptions,
    texts: Vec<String>,
    excluded: usize,
    /// Those that the format cannot hold, each with the reason.
    skipped: Vec<String>,
}

impl<'a> Choice<'a> {
    fn new(options: &'a ConvertOptions) -> Self {
        Self {
            options,
            texts: Vec::new(),
            excluded: 0,
            skipped: Vec::new(),
        }
    }

    /// The tensors that the patterns choose; texts are never among them.
    fn chosen(&mut self, mut named: Vec<(String, Entry)>) -> Vec<(String, Entry)> {
        named.retain(|(name, entry)| {
            let own = entry.own_name().unwrap_or(name);
            let is_any = |patterns: &[String]| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| is_like(name, pattern) || is_like(own, pattern))
            };
            let included = self.options.include.is_empty() || is_any(&self.options.include);
            if !included || is_any(&self.options.exclude) {
                self.excluded += 1;
                return false;
            }
            if entry.dtype.is_text() {
                self.texts.push(own.to_owned());
                return false;
            }
            true
        });
        named
    }

    /// Every tensor as it is named and in the type that was asked for, or the nearest that the format holds.
    #[allow(clippy::type_complexity)]
    fn typed(
        &mut self,
        named: Vec<(String, Entry)>,
        target: &Target,
        options: &ConvertOptions,
        has_llama_names: bool,
        remarks: &mut Vec<String>,
    ) -> Result<(Vec<(String, Entry)>, Vec<(String, Entry)>), Error> {
        let mut instead: BTreeMap<String, usize> = BTreeMap::new();
        let (mut written, mut typed) = (Vec::new(), Vec::with_capacity(named.len()));
        for (name, entry) in named {
            match one_typed(&name, &entry, target.format, options, has_llama_names) {
                Ok((cast, how)) => {
                    for how in how {
                        *instead.entry(how).or_default() += 1;
                    }
                    typed.push((name.clone(), cast));
                    written.push((name, entry));
                }
                Err(reason) if self.options.skip => {
                    self.skipped.push(format!("`{name}`, {reason}"));
                }
                Err(reason) => {
                    return Err(Error::Option {
                        name: "skip",
                        reason: format!(
                            "`{name}`, {reason}; `--skip` leaves out what cannot be written, `--exclude` a tensor by its name"
                        ),
                    });
                }
            }
        }
        let counted = instead.into_iter();
        remarks.extend(counted.map(|(how, count)| format!("{count} tensors are written {how}")));
        Ok((written, typed))
    }

    fn say(&self, remarks: &mut Vec<String>) {
        if !self.texts.is_empty() {
            let names = names::some(&self.texts);
            remarks.push(format!(
                "{} tensors of texts are left out: {names}",
                self.texts.len()
            ));
        }
        if self.excluded > 0 {
            remarks.push(format!(
                "{} tensors are left out, as the patterns say",
                self.excluded
            ));
        }
        let skipped = self.skipped.iter();
        remarks.extend(skipped.map(|what| format!("left out: {what}")));
    }

    /// Why there is nothing to write.
    fn nothing(&self, model: &Model) -> String {
        let found = model.checkpoint.len() + model.checkpoint.left_out.len();
        if found == 0 {
            return "holds no tensor, so that there is nothing to write".to_owned();
        }
        let mut why = Vec::new();
        let mut add = |count: usize, what: &str| {
            if count > 0 {
                why.push(format!("{count} {what}"));
            }
        };
        add(self.excluded, "are left out by the patterns");
        add(self.texts.len(), "are texts");
        add(self.skipped.len(), "cannot be held by the format");
        add(
            model.checkpoint.left_out.len(),
            "are a training's state or texts",
        );
        let outside = model
            .checkpoint
            .iter()
            .filter(|(_, entry)| entry.is_outside());
        add(outside.count(), "are outside of the prefix");
        format!(
            "none of its {found} tensors is left to write: {}",
            why.join(", ")
        )
    }
}

/// Whether a name is like a pattern, whose `*` stand for any text.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// One tensor in the type that was asked for, and what is to be said of another; or why it cannot be written.
fn one_typed(
    name: &str,
    entry: &Entry,
    format: WriteFormat,
    options: &ConvertOptions,
    has_llama_names: bool,
) -> Result<(Entry, Vec<String>), String> {
    let mut instead = Vec::new();
    let mut wanted = entry.dtype.clone();
    if let Some(dtype) = &options.dtype
        && entry.dtype.is_float()
    {
        wanted = dtype.clone();
        if format == WriteFormat::Gguf {
            wanted = gguf_type(name, entry, dtype, has_llama_names);
            if wanted != *dtype && entry.shape.len() > 1 {
                let why = match entry.cast(dtype) {
                    Some(_) => "as llama.cpp keeps tables that it adds".to_owned(),
                    None => format!("not {dtype}, whose blocks do not divide their rows"),
                };
                instead.push(format!("as {wanted}, {why}"));
            }
        }
    }
    if !format.holds(&wanted) {
        let found = format.substitute(&wanted);
        if let Some(found) = &found {
            instead.push(format!(
                "as {found}, since {} does not hold {wanted}",
                format.name()
            ));
        }
        wanted = found.unwrap_or(wanted);
    }
    let cast = entry
        .cast(&wanted)
        .filter(|entry| format.holds(&entry.dtype));
    let cast = cast.ok_or_else(|| {
        format!(
            "{} {:?}, cannot be written as {wanted} in {}",
            entry.dtype,
            entry.shape,
            format.name()
        )
    })?;
    match format.refusal(name, &cast) {
        Some(reason) => Err(reason),
        None => Ok((cast, instead)),
    }
}

/// llama.cpp's choice: vectors stay `f32`, and so do the tables that it adds without a product.
fn gguf_type(name: &str, entry: &Entry, dtype: &Dtype, has_llama_names: bool) -> Dtype {
    let added = has_llama_names && ["position_embd.weight", "token_types.weight"].contains(&name);
    if entry.shape.len() < 2
        || added && matches!(dtype, Dtype::Quantized(_) | Dtype::F16 | Dtype::BF16)
    {
        return Dtype::F32;
    }
    if entry.cast(dtype).is_none() {
        return Dtype::F16;
    }
    dtype.clone()
}

/// Opens what was written, and holds every tensor against the source's.
fn read_back(
    files: &[PathBuf],
    source: &Checkpoint,
    total: u64,
    progress: &dyn Fn(Progress),
) -> Result<Vec<Converted>, Error> {
    let file = files.first().map_or(Path::new(""), |file| file);
    let written = Checkpoint::open(file)?;
    let lost = |name: &str| Error::NotFound {
        model: file.display().to_string(),
        reason: format!("does not hold `{name}`, which was written to it"),
    };
    let mut tensors = Vec::with_capacity(source.len());
    let mut done = 0;
    for (name, entry) in source.iter() {
        // A lone NumPy array has no name.
        let found = match written.format {
            salamander_importers::Format::Npy => written.iter().next().map(|(_, entry)| entry),
            _ => written.get(name),
        };
        let found = found.filter(|found| found.shape == entry.shape);
        let found = found.ok_or_else(|| lost(name))?;
        let apart = difference((source, entry), (&written, found))?;
        done += found.bytes as u64;
        progress(Progress {
            reading_back: true,
            done,
            total,
        });
        tensors.push(Converted {
            name: name.to_owned(),
            dtype: found.dtype.to_string(),
            shape: found.shape.clone(),
            from: entry.dtype.to_string(),
            difference: apart.largest,
        });
    }
    if written.len() != source.len() {
        return Err(lost("as many tensors as"));
    }
    Ok(tensors)
}

/// The type of that name, as an option would give it: `f32`, `bf16`, `q4_0`, …
pub fn dtype_named(name: &str) -> Option<Dtype> {
    let plain = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];
    let mut all = plain.into_iter().chain(gguf::quantized_types());
    all.find(|dtype| dtype.to_string().eq_ignore_ascii_case(name))
}
