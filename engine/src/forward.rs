use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use salamander_importers::{Checkpoint, safetensors};
use salamander_models::{ARCHITECTURES, Inputs, Model, open_class};

use crate::source::Source;
use crate::{Device, Error};

/// A network without pre- and post-processing: named tensors in, named tensors out.
///
/// The names are those of the reference's forward arguments and output fields.
#[derive(Debug)]
pub struct Network {
    model: Box<dyn Model>,
    class: &'static str,
    device: Device,
}

impl Network {
    /// Opens the class that `config.json` names first in `architectures`, or `class` instead of it.
    ///
    /// A `class` with a slash is the name by which another library knows the model, and weights need no
    /// configuration then: `torchvision/resnet50`, `timm/vit_base_patch16_224`, …
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or has no such class.
    pub fn open(
        model: impl AsRef<Path>,
        class: Option<&str>,
        device: &Device,
    ) -> Result<Self, Error> {
        // A name with a slash is a preset's, but for a class that is named so.
        let is_class = |name: &str| {
            let mut classes = ARCHITECTURES.iter().flat_map(|entry| entry.classes);
            classes.any(|class| class.name == name)
        };
        let (preset, class) = match class {
            Some(name) if name.contains('/') && !is_class(name) => (Some(name), None),
            class => (None, class),
        };
        let source = Source::open(model.as_ref(), preset, class.is_some(), device.prefix())?;
        let checkpoint = device.weights(source.checkpoint);
        let (class, model) = device.load(source.directory.path(), || {
            open_class(&source.config, class, &checkpoint, device.burn())
        })?;
        Ok(Self {
            model,
            class,
            device: device.clone(),
        })
    }

    /// The reference class that runs.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the network.
    ///
    /// # Errors
    /// An input is missing, unknown or does not fit, or the device fails.
    pub fn forward(&self, inputs: Inputs) -> Result<BTreeMap<String, TensorData>, Error> {
        self.device.attempt(|| {
            let outputs = self.device.forward(&*self.model, inputs)?;
            let read = outputs.try_into_data();
            Ok(read.map_err(|error| self.device.failure(&error.to_string()))?)
        })
    }

    /// Runs the network on the tensors of one file and writes its outputs to another, under a temporary
    /// name first.
    ///
    /// # Errors
    /// The input file cannot be read or does not fit, or the output file cannot be written.
    pub fn forward_file(&self, inputs: &Path, outputs: &Path) -> Result<(), Error> {
        let tensors = Checkpoint::open(inputs)?;
        let read = tensors
            .iter()
            .map(|(name, entry)| Ok((name.to_owned(), entry.read()?)));
        let inputs: Inputs = read.collect::<Result<_, Error>>()?;
        let results = self.forward(inputs)?;
        let metadata = BTreeMap::from([
            ("class".to_owned(), self.class.to_owned()),
            ("device".to_owned(), self.device.to_string()),
        ]);
        Ok(safetensors::write(outputs, &results, metadata)?)
    }
}
