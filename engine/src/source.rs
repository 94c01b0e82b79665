use std::path::Path;

use salamander_importers::Checkpoint;
use salamander_models::{Preset, find_preset, timm_preset};
use serde_json::Value;

use crate::native::{Native, memory};
use crate::{Error, ModelDir};

/// What a model is opened from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) directory: ModelDir,
    pub(crate) config: Value,
    /// How pictures are prepared, and which file says it, where one or a preset does.
    pub(crate) processor: Option<(&'static str, Value)>,
    pub(crate) checkpoint: Checkpoint,
}

/// The checkpoint from under a prefix, if one is given and was not taken off yet.
pub(crate) fn under(checkpoint: Checkpoint, prefix: Option<&str>) -> Checkpoint {
    match prefix {
        Some(prefix) if checkpoint.prefix().is_none() => {
            let dot = if prefix.ends_with('.') { "" } else { "." };
            checkpoint.under(&format!("{prefix}{dot}"))
        }
        _ => checkpoint,
    }
}

impl Source {
    /// Opens a model directory, hub id or weight file with its configuration, timm's too, or with a preset's.
    /// Where a class is named, it says what a configuration would.
    pub(crate) fn open(
        model: &Path,
        preset: Option<&str>,
        class_named: bool,
        prefix: Option<&str>,
    ) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let checkpoint = under(directory.checkpoint()?, prefix);
        if let Some(native) = Native::open(&directory)? {
            for shortcoming in native.hardware().shortcomings(memory(), None) {
                tracing::warn!(model = %directory.path().display(), "{shortcoming}");
            }
        }
        let refuse = Error::config(directory.path());
        let (config, preset) = match preset {
            Some(name) => {
                let preset = find_preset(name, &checkpoint).map_err(refuse)?;
                (None, Some(preset))
            }
            None => {
                let config = match directory.config_for(&checkpoint) {
                    Err(_) if class_named => directory.config_or_empty()?,
                    config => config?,
                };
                let preset = timm_preset(&config, &checkpoint).transpose();
                (Some(config), preset.map_err(refuse)?)
            }
        };
        let (config, processor) = match (config, preset) {
            (
                _,
                Some(Preset {
                    config, processor, ..
                }),
            ) => (config, Some(processor)),
            (config, None) => (config.unwrap_or(Value::Null), None),
        };
        let processor = processor.map(|processor| ("config.json", processor));
        let own = directory.image_processor()?;
        Ok(Self {
            processor: own.or(processor),
            directory,
            config,
            checkpoint,
        })
    }
}
