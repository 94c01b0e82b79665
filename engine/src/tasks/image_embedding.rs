use std::path::Path;
use std::time::Duration;

use salamander_models::Task;

use super::batch::Rows;
use super::pictures::{ImageInput, ImageModel};
use crate::{Device, Error};
use burn::tensor::Tensor;

/// Options of [`ImageEmbedding`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageEmbeddingOptions {
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
}

/// Makes a vector of a picture, so that pictures that look alike have similar vectors.
///
/// Reference: `ImageFeatureExtractionPipeline` of transformers 5.23 with `pool=True`. A ViT without a
/// pooler, on which that fails, gives the hidden state of its class token.
#[derive(Debug, Clone)]
pub struct ImageEmbedding {
    model: ImageModel,
    options: ImageEmbeddingOptions,
}

impl ImageEmbedding {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or takes no pictures.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        Self::new(model.as_ref(), None, device)
    }

    /// Opens weights without a configuration, a file or a directory, as the model that another library
    /// knows by the name `architecture`: `torchvision/resnet50`, `timm/vit_base_patch16_224`,
    /// `cifar/resnet20`, …
    ///
    /// # Errors
    /// There is no such name, or the weights are not that model's.
    pub fn open_as(
        model: impl AsRef<Path>,
        architecture: &str,
        device: &Device,
    ) -> Result<Self, Error> {
        Self::new(model.as_ref(), Some(architecture), device)
    }

    fn new(model: &Path, preset: Option<&str>, device: &Device) -> Result<Self, Error> {
        let (model, _) = ImageModel::open(model, preset, Task::ImageEmbedding, device)?;
        Ok(Self {
            model,
            options: ImageEmbeddingOptions::default(),
        })
    }

    /// The same model with other options.
    #[must_use]
    pub fn with_options(mut self, options: ImageEmbeddingOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs the network once on a black picture, so that a GPU has compiled and tuned its kernels before the first
    /// answer, and says how long that took.
    ///
    /// # Errors
    /// The device fails.
    pub fn warm_up(&self) -> Result<Duration, Error> {
        self.model.warm_up()
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.model.device
    }

    /// The vector of a picture.
    ///
    /// # Errors
    /// The picture cannot be read.
    pub fn run<'a>(&self, input: impl Into<ImageInput<'a>>) -> Result<Vec<f32>, Error> {
        Ok(self.run_batch([input])?.swap_remove(0))
    }

    /// The vectors of many pictures, in their order.
    ///
    /// # Errors
    /// A picture cannot be read.
    pub fn run_batch<'a, I>(&self, inputs: I) -> Result<Vec<Vec<f32>>, Error>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput<'a>>,
    {
        let inputs: Vec<ImageInput<'a>> = inputs.into_iter().map(Into::into).collect();
        self.answers(&inputs, true)?.into_iter().collect()
    }

    /// The same, where a bad picture does not keep the others from their answers: an error stands in place of its own.
    ///
    /// # Errors
    /// The device fails, or the network's outputs are not the task's.
    pub fn run_each<'a, I>(&self, inputs: I) -> Result<Vec<Result<Vec<f32>, Error>>, Error>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput<'a>>,
    {
        let inputs: Vec<ImageInput<'a>> = inputs.into_iter().map(Into::into).collect();
        self.answers(&inputs, false)
    }

    /// The answers in order; the first bad picture may end it all.
    fn answers(
        &self,
        inputs: &[ImageInput<'_>],
        all_or_none: bool,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        self.model
            .answers(inputs, all_or_none, |count, mut outputs| {
                if let Some(pooled) = outputs.remove("pooler_output") {
                    outputs = outputs.with("vector", pooled);
                } else if let Some(hidden) = outputs.remove("last_hidden_state")
                    && let Ok(hidden) = Tensor::<3>::try_from(hidden)
                {
                    let [rows, _, width] = hidden.dims();
                    outputs = outputs.with("vector", hidden.slice([0..rows, 0..1, 0..width]));
                }
                let mut vectors = Rows::take(&mut outputs, "vector", count, self.device())?;
                let answer = |row| {
                    let mut vector = vectors.row(row).to_vec();
                    if self.options.normalize {
                        normalize(&mut vector);
                    }
                    vector
                };
                Ok((0..count).map(answer).collect())
            })
    }
}

/// Scales to length 1; a vector of zeros stays.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    for value in vector {
        *value /= length.max(f32::MIN_POSITIVE);
    }
}
