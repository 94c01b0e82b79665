use std::path::Path;
use std::time::Duration;

use salamander_models::Task;

use super::batch::Rows;
use super::pictures::{ImageInput, ImageModel};
use super::scores::{Classes, ClassificationFunction, Label};
use crate::{Device, Error};

/// Options of [`ImageClassification`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageClassificationOptions {
    /// How many classes an answer has at most; all of them by default.
    pub top_k: Option<usize>,
    /// How logits become scores; by default what the model's `problem_type` and number of classes say.
    pub function: Option<ClassificationFunction>,
}

/// Says what a picture shows.
///
/// Reference: `ImageClassificationPipeline` of transformers 5.23.
#[derive(Debug, Clone)]
pub struct ImageClassification {
    model: ImageModel,
    classes: Classes,
    options: ImageClassificationOptions,
}

impl ImageClassification {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or is no image classifier.
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
        let task = Task::ImageClassification;
        let (model, config) = ImageModel::open(model, preset, task, device)?;
        Ok(Self {
            model,
            classes: Classes::new(&config),
            options: ImageClassificationOptions::default(),
        })
    }

    /// The same model with other options.
    #[must_use]
    pub fn with_options(mut self, options: ImageClassificationOptions) -> Self {
        self.options = options;
        self
    }

    /// The names of all classes.
    pub fn labels(&self) -> &[String] {
        &self.classes.labels
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

    /// Classifies a picture; the likeliest class comes first.
    ///
    /// # Errors
    /// The picture cannot be read.
    pub fn run<'a>(&self, input: impl Into<ImageInput<'a>>) -> Result<Vec<Label>, Error> {
        Ok(self.run_batch([input])?.swap_remove(0))
    }

    /// Classifies many pictures; the answers come in their order.
    ///
    /// # Errors
    /// A picture cannot be read.
    pub fn run_batch<'a, I>(&self, inputs: I) -> Result<Vec<Vec<Label>>, Error>
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
    pub fn run_each<'a, I>(&self, inputs: I) -> Result<Vec<Result<Vec<Label>, Error>>, Error>
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
    ) -> Result<Vec<Result<Vec<Label>, Error>>, Error> {
        let (function, top_k) = (self.options.function, self.options.top_k);
        self.model
            .answers(inputs, all_or_none, |count, mut outputs| {
                let mut logits = Rows::take(&mut outputs, "logits", count, self.device())?;
                let mut answer = |row| self.classes.answer(logits.row(row), function, top_k);
                Ok((0..count).map(&mut answer).collect())
            })
    }
}
