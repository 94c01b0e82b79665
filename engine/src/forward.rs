use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use salamander_importers::{Checkpoint, safetensors};
use salamander_models::{Inputs, Model, open_class};

use crate::{Device, Error, ModelDir};

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
    /// # Errors
    /// The model cannot be found, read or honoured, or has no such class.
    pub fn open(
        model: impl AsRef<Path>,
        class: Option<&str>,
        device: &Device,
    ) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let config = match class {
            // A class says what a configuration would.
            Some(_) => directory.config_or_empty()?,
            None => directory.config()?,
        };
        let checkpoint = directory.checkpoint()?;
        let (class, model) = open_class(&config, class, &checkpoint, device.burn())
            .map_err(Error::load(directory.path()))?;
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
    /// An input is missing, unknown or does not fit.
    pub fn forward(&self, inputs: Inputs) -> Result<BTreeMap<String, TensorData>, Error> {
        Ok(self.model.forward(inputs)?.into_data())
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
