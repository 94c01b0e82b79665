//! What every image task shares: a processor, a network, and batches of one size.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::TensorData;
use salamander_models::processing::image::{Image, ImageProcessor, Pixels};
use salamander_models::{Inputs, Model, Outputs, PretrainedConfig, Task, open};

use super::batch::Ordered;
use super::warm_up::warm_up;
use crate::source::Source;
use crate::{Device, Error};

/// A picture: a file, a file's bytes, or one that is decoded already.
#[derive(Debug, Clone, Copy)]
pub enum ImageInput<'a> {
    /// The path of a PNG, JPEG, WebP, GIF, BMP or TIFF file.
    Path(&'a Path),
    /// The bytes of such a file.
    Bytes(&'a [u8]),
    /// A decoded picture.
    Image(&'a Image),
}

impl<'a> From<&'a Path> for ImageInput<'a> {
    fn from(path: &'a Path) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a PathBuf> for ImageInput<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a str> for ImageInput<'a> {
    fn from(path: &'a str) -> Self {
        Self::Path(Path::new(path))
    }
}

impl<'a> From<&'a String> for ImageInput<'a> {
    fn from(path: &'a String) -> Self {
        Self::Path(Path::new(path))
    }
}

impl<'a> From<&'a [u8]> for ImageInput<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for ImageInput<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Image> for ImageInput<'a> {
    fn from(image: &'a Image) -> Self {
        Self::Image(image)
    }
}

/// How many pictures are decoded and run together: enough to keep two cores busy, few enough that their
/// pixels and features stay small beside the weights.
const BATCH: usize = 8;

/// A processor and a network.
#[derive(Debug, Clone)]
pub(super) struct ImageModel {
    model: Arc<dyn Model>,
    processor: Arc<ImageProcessor>,
    pub(super) device: Device,
}

impl ImageModel {
    /// Opens the class of a model that serves `task`; by the preset of that name, if there is one.
    pub(super) fn open(
        model: &Path,
        preset: Option<&str>,
        task: Task,
        device: &Device,
    ) -> Result<(Self, PretrainedConfig), Error> {
        let source = Source::open(model, preset, false, device.prefix())?;
        let directory = source.directory;
        let common = directory.common_config(&source.config)?;
        let (file, processor) = source.processor.ok_or_else(|| Error::NotFound {
            model: directory.path().display().to_string(),
            reason: "has no preprocessor_config.json, which says how pictures are prepared"
                .to_owned(),
        })?;
        let processor = ImageProcessor::of_model(&processor, file, &source.config)
            .map_err(Error::config(directory.path()))?;
        let checkpoint = device.weights(source.checkpoint);
        let model = device.load(directory.path(), || {
            open(&source.config, task, &checkpoint, device.burn())
        })?;
        let image_model = Self {
            model: model.into(),
            processor: Arc::new(processor),
            device: device.clone(),
        };
        Ok((image_model, common))
    }

    /// Runs the network over all pictures, and gives their answers in order; `read` makes those of a batch, whose length
    /// it is told, of its outputs. A picture that cannot be answered ends it all if `all_or_none`, and has an error in
    /// its place otherwise.
    pub(super) fn answers<T>(
        &self,
        inputs: &[ImageInput<'_>],
        all_or_none: bool,
        mut read: impl FnMut(usize, Outputs) -> Result<Vec<T>, Error>,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let mut answers = Ordered::new(inputs.len());
        let mut refused = Vec::new();
        let refuse = |index, error| match all_or_none {
            true => Err(error),
            false => {
                refused.push((index, error));
                Ok(())
            }
        };
        let take = |batch: &[usize], outputs: Outputs| {
            for (answer, &index) in read(batch.len(), outputs)?.into_iter().zip(batch) {
                answers.put(index, Ok(answer));
            }
            Ok(())
        };
        self.device.attempt(|| self.batches(inputs, refuse, take))?;
        for (index, error) in refused {
            answers.put(index, Err(error));
        }
        Ok(answers.finish())
    }

    fn batches(
        &self,
        inputs: &[ImageInput<'_>],
        mut refuse: impl FnMut(usize, Error) -> Result<(), Error>,
        mut take: impl FnMut(&[usize], Outputs) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (chunk, inputs) in inputs.chunks(BATCH).enumerate() {
            let mut rest: Vec<(usize, Pixels)> = Vec::with_capacity(inputs.len());
            for (index, input) in (chunk * BATCH..).zip(inputs) {
                match self.prepare(index, *input) {
                    Ok(pixels) => rest.push((index, pixels)),
                    Err(error) => refuse(index, error)?,
                }
            }
            // Pictures that are not cropped may keep their proportions.
            while let Some((_, first)) = rest.first() {
                let size = (first.height, first.width);
                let (batch, later): (Vec<_>, Vec<_>) = rest
                    .into_iter()
                    .partition(|(_, pixels)| (pixels.height, pixels.width) == size);
                let indices: Vec<usize> = batch.iter().map(|(index, _)| *index).collect();
                let values: Vec<f32> = batch.into_iter().flat_map(|(_, p)| p.values).collect();
                let shape = [indices.len(), self.processor.channels(), size.0, size.1];
                let data = TensorData::new(values, shape);
                let inputs = Inputs::new().with("pixel_values", data);
                match self.device.forward(&*self.model, inputs) {
                    Ok(outputs) => take(&indices, outputs)?,
                    // The network does not take pictures of that size.
                    Err(error) => {
                        for index in indices {
                            refuse(index, error.clone().into())?;
                        }
                    }
                }
                rest = later;
            }
        }
        Ok(())
    }

    /// Runs the network on a black picture, and says how long that took.
    pub(super) fn warm_up(&self) -> Result<Duration, Error> {
        const SIDE: usize = 256;
        let refuse = |source| Error::Image {
            name: "a black picture".to_owned(),
            source,
        };
        let image = Image::new(SIDE, SIDE, vec![0; 3 * SIDE * SIDE]).map_err(refuse)?;
        warm_up(|| {
            let answers = self.answers(&[ImageInput::Image(&image)], true, |count, outputs| {
                let read = outputs.try_into_data();
                read.map_err(|error| self.device.failure(&error.to_string()))?;
                Ok(vec![(); count])
            });
            answers.map(drop)
        })
    }

    fn prepare(&self, index: usize, input: ImageInput<'_>) -> Result<Pixels, Error> {
        let refuse = |source| Error::Image {
            name: match input {
                ImageInput::Path(path) => path.display().to_string(),
                _ => format!("picture {index}"),
            },
            source,
        };
        let image = match input {
            ImageInput::Image(image) => Cow::Borrowed(image),
            ImageInput::Bytes(bytes) => Cow::Owned(Image::decode(bytes).map_err(refuse)?),
            ImageInput::Path(path) => {
                let bytes = std::fs::read(path).map_err(|source| Error::Io {
                    path: path.to_owned(),
                    source,
                })?;
                Cow::Owned(Image::decode(&bytes).map_err(refuse)?)
            }
        };
        self.processor.process(&image).map_err(refuse)
    }
}
