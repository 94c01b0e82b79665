use std::path::{Path, PathBuf};

use salamander_importers::Checkpoint;
use salamander_models::{
    Architecture, Class, Detected, PretrainedConfig, contained_files, detect, find, timm_preset,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::native::{Native, memory};
use crate::source::under;
use crate::{Device, Error, ModelDir};

/// What a model directory or a weight file holds.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Where it is.
    pub path: PathBuf,
    /// The weight format.
    pub format: String,
    /// The files of the weights.
    pub files: Vec<PathBuf>,
    /// Other weights in the directory, which are not taken.
    pub passed_over: Vec<String>,
    /// The architecture of the zoo that runs it, if there is one.
    pub architecture: Option<&'static str>,
    /// Why none does, if there is a configuration.
    pub refused: Option<String>,
    /// What the weights show where the configuration names no architecture.
    pub detected: Option<Detection>,
    /// The reference classes that the configuration names.
    pub classes: Vec<String>,
    /// The tasks that those classes serve.
    pub tasks: Vec<String>,
    /// The parsed `config.json`, or `config.toml` in its place.
    pub config: Option<Value>,
    /// In what this machine falls short of what a native directory says that its model needs.
    pub shortcomings: Vec<String>,
    /// The weight format's own metadata.
    pub metadata: BTreeMap<String, String>,
    /// The number of elements of all tensors.
    pub parameters: u64,
    /// The size of all tensors in bytes.
    pub bytes: u64,
    /// The tensors in the order of the file.
    pub tensors: Vec<TensorInfo>,
}

/// What names and shapes of the weights show.
#[derive(Debug, Clone, Serialize)]
pub struct Detection {
    /// Whose names the tensors bear.
    pub dialect: &'static str,
    /// The models of other libraries that look like this one, by the names that `--architecture` takes.
    pub presets: Vec<String>,
    /// The fields of a configuration.
    pub fields: Vec<DetectedField>,
}

/// A field of a configuration that is not written anywhere.
#[derive(Debug, Clone, Serialize)]
pub struct DetectedField {
    /// Its name.
    pub name: &'static str,
    /// Its value, unless it is open.
    pub value: Option<Value>,
    /// How it was found.
    pub by: String,
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in bytes.
    pub bytes: usize,
}

/// Lists a model directory, a hub id or a single weight file without reading the tensors' data.
///
/// # Errors
/// There is no such thing, or its files cannot be read.
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, Error> {
    inspect_under(path, None)
}

/// The same, with names looked for under a prefix, as [`Device::with_prefix`] says.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_under(path: impl AsRef<Path>, prefix: Option<&str>) -> Result<Inspection, Error> {
    let path = Checkpoint::file(path.as_ref());
    let path = path.as_path();
    let directory = if path.is_file() {
        None
    } else {
        Some(ModelDir::find(path)?)
    };
    let path = directory.as_ref().map_or(path, ModelDir::path);
    let checkpoint = under(Checkpoint::open(path)?, prefix);
    let config = match &directory {
        Some(directory) => directory.known_config()?,
        // What a file holds itself.
        None => contained_files(&checkpoint)
            .ok()
            .flatten()
            .and_then(|files| serde_json::from_slice(files.get("config.json")?).ok()),
    };
    let hardware = match &directory {
        Some(directory) => Native::open(directory)?.map(|native| native.hardware()),
        None => None,
    };
    let shortcomings = hardware.map(|hardware| {
        let device = Device::from_env().ok();
        hardware.shortcomings(memory(), device.as_ref())
    });
    // A configuration of timm's stands for one of ours.
    let preset = config.as_ref();
    let preset = preset.and_then(|config| timm_preset(config, &checkpoint));
    let common = match (&directory, &config, preset) {
        (Some(directory), _, Some(preset)) => {
            let config = preset.map(|preset| preset.config);
            let config = config.map_err(Error::config(directory.path()));
            Some(config.and_then(|config| directory.common_config(&config)))
        }
        (Some(directory), Some(config), None) => Some(directory.common_config(config)),
        (None, Some(config), None) => {
            let parsed = PretrainedConfig::parse(config);
            Some(parsed.map_err(Error::config(path)))
        }
        _ => None,
    };
    let silent = match &config {
        Some(config) => ["model_type", "architectures", "architecture"]
            .iter()
            .all(|name| config[*name].is_null()),
        None => true,
    };
    let given = config.clone().unwrap_or(Value::Null);
    let shows = checkpoint.clone().in_pytorch_layout();
    let detected = silent.then(|| detect(&shows, &given).ok()).flatten();
    let (classes, found) = match common {
        _ if detected.is_some() => detected.as_ref().map_or((Vec::new(), None), |found| {
            let named = found
                .fields
                .iter()
                .find(|field| field.name == "architectures");
            let named = named.and_then(|field| field.value()?.as_array().cloned());
            let names = named.unwrap_or_default().into_iter();
            let names = names.filter_map(|name| name.as_str().map(str::to_owned));
            (names.collect(), Some(Ok(found.architecture)))
        }),
        None => (Vec::new(), None),
        Some(Err(error)) => (Vec::new(), Some(Err(error.to_string()))),
        Some(Ok(common)) => {
            let found = find(&common).map_err(|error| error.to_string());
            (common.architectures, Some(found))
        }
    };
    let (architecture, refused) = match found {
        None => (None, None),
        Some(Ok(architecture)) => (Some(architecture), None),
        Some(Err(reason)) => (None, Some(reason)),
    };
    let tasks = architecture.map_or(Vec::new(), |architecture| tasks(architecture, &classes));
    let tensors: Vec<TensorInfo> = checkpoint
        .iter()
        .map(|(name, entry)| TensorInfo {
            name: name.to_owned(),
            dtype: entry.dtype.to_string(),
            shape: entry.shape.clone(),
            bytes: entry.bytes,
        })
        .collect();
    Ok(Inspection {
        path: path.to_owned(),
        format: checkpoint.format.to_string(),
        architecture: architecture.map(|architecture| architecture.name),
        refused,
        detected: detected.map(detection),
        classes,
        tasks,
        config,
        shortcomings: shortcomings.unwrap_or_default(),
        parameters: checkpoint
            .iter()
            .map(|(_, entry)| entry.elements() as u64)
            .sum(),
        bytes: checkpoint.iter().map(|(_, entry)| entry.bytes as u64).sum(),
        files: checkpoint.files,
        passed_over: checkpoint.passed_over,
        metadata: checkpoint.metadata,
        tensors,
    })
}

fn detection(found: Detected) -> Detection {
    let presets = found.presets().into_iter().map(|preset| preset.name);
    let fields = found.fields.iter().map(|field| DetectedField {
        name: field.name,
        value: field.value().cloned(),
        by: field.finding.to_string(),
    });
    Detection {
        dialect: found.dialect,
        presets: presets.collect(),
        fields: fields.collect(),
    }
}

/// What the named classes serve; what the architecture does, if none of its classes is named.
fn tasks(architecture: &Architecture, classes: &[String]) -> Vec<String> {
    let named = |class: &&Class| classes.iter().any(|name| name == class.name);
    let any = architecture.classes.iter().any(|class| named(&class));
    let classes = architecture
        .classes
        .iter()
        .filter(|class| !any || named(class));
    let mut tasks: Vec<String> = Vec::new();
    for task in classes.filter_map(|class| class.task) {
        let task = task.to_string();
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks
}
