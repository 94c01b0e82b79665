//! One struct a reference class, wrapping the trunk.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::config::VitConfig;
use super::model::{Pictures, Vit, token};
use crate::blocks::{Activation, conv2d};
use crate::{ConfigError, InputError, Outputs};

/// A reference class: a trunk and what its outputs are called.
pub(super) trait Head: Module + Sync {
    fn trunk(&self) -> &Vit;

    /// Whether patches may be hidden from it.
    fn masks(&self) -> bool {
        false
    }

    /// What this class refuses of checked inputs, for `rows` and `columns` of patches.
    fn check(&self, _masked: bool, _rows: usize, _columns: usize) -> Result<(), InputError> {
        Ok(())
    }

    fn outputs(&self, pictures: Pictures) -> Outputs;
}

/// `ViTModel` and `DeiTModel`.
#[derive(Module, Debug)]
pub struct VitModel {
    pub(super) vit: Vit,
    #[module(skip)]
    pub(super) masks: bool,
}

impl Head for VitModel {
    fn trunk(&self) -> &Vit {
        &self.vit
    }

    fn masks(&self) -> bool {
        self.masks
    }

    fn outputs(&self, pictures: Pictures) -> Outputs {
        let hidden = self.vit.forward(pictures);
        let pooled = self.vit.pool(&hidden);
        let outputs = Outputs::new().with("last_hidden_state", hidden);
        match pooled {
            Some(pooled) => outputs.with("pooler_output", pooled),
            None => outputs,
        }
    }
}

/// `ViTForImageClassification` and `DeiTForImageClassification`: a class for the picture, from the class
/// token.
#[derive(Module, Debug)]
pub struct VitForImageClassification {
    vit: Vit,
    classifier: Linear,
}

impl VitForImageClassification {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &VitConfig, classes: usize, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            vit: Vit::new(config, false, false, device)?,
            classifier: LinearConfig::new(config.hidden_size, classes).init(device),
        })
    }

    /// # Shapes
    /// `[b, c, h, w]` → `[b, classes]`
    pub fn forward(&self, pictures: Pictures) -> Tensor<2> {
        let hidden = self.vit.forward(pictures);
        self.classifier.forward(token(&hidden, 0))
    }
}

impl Head for VitForImageClassification {
    fn trunk(&self) -> &Vit {
        &self.vit
    }

    fn outputs(&self, pictures: Pictures) -> Outputs {
        Outputs::new().with("logits", self.forward(pictures))
    }
}

/// `DeiTForImageClassificationWithTeacher`: a class from each of the two tokens.
#[derive(Module, Debug)]
pub struct DeitForImageClassificationWithTeacher {
    vit: Vit,
    cls_classifier: Linear,
    distillation_classifier: Linear,
}

impl DeitForImageClassificationWithTeacher {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured, or has no distillation token.
    pub fn new(config: &VitConfig, classes: usize, device: &Device) -> Result<Self, ConfigError> {
        if !config.distilled() {
            let reason = "only a \"deit\" has the distillation token that this class needs";
            return Err(ConfigError::new("model_type", reason));
        }
        let classifier = || LinearConfig::new(config.hidden_size, classes).init(device);
        Ok(Self {
            vit: Vit::new(config, false, false, device)?,
            cls_classifier: classifier(),
            distillation_classifier: classifier(),
        })
    }

    /// The logits of the class token and of the distillation token.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `[b, classes]` twice
    pub fn forward(&self, pictures: Pictures) -> (Tensor<2>, Tensor<2>) {
        let hidden = self.vit.forward(pictures);
        (
            self.cls_classifier.forward(token(&hidden, 0)),
            self.distillation_classifier.forward(token(&hidden, 1)),
        )
    }
}

impl Head for DeitForImageClassificationWithTeacher {
    fn trunk(&self) -> &Vit {
        &self.vit
    }

    fn outputs(&self, pictures: Pictures) -> Outputs {
        let (class, distillation) = self.forward(pictures);
        Outputs::new()
            .with("logits", (class.clone() + distillation.clone()) / 2.0)
            .with("cls_logits", class)
            .with("distillation_logits", distillation)
    }
}

/// `ViTForMaskedImageModeling` and `DeiTForMaskedImageModeling`: the pixels of hidden patches.
#[derive(Module, Debug)]
pub struct VitForMaskedImageModeling {
    vit: Vit,
    decoder: Conv2d,
    stride: usize,
    channels: usize,
    patch: [usize; 2],
    special: usize,
}

impl VitForMaskedImageModeling {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &VitConfig, device: &Device) -> Result<Self, ConfigError> {
        let (stride, channels) = (config.encoder_stride, config.num_channels);
        let pixels = stride.saturating_mul(stride).saturating_mul(channels);
        Ok(Self {
            vit: Vit::new(config, false, true, device)?,
            decoder: Conv2dConfig::new([config.hidden_size, pixels], [1, 1]).init(device),
            stride,
            channels,
            patch: config.patch_size.get(),
            special: if config.distilled() { 2 } else { 1 },
        })
    }

    /// The whole picture as it is imagined; as many rows of patches as columns.
    ///
    /// # Shapes
    /// `[b, c, h, w]` → `[b, c, side · stride, side · stride]`
    pub fn forward(&self, pictures: Pictures) -> Tensor<4> {
        let hidden = self.vit.forward(pictures);
        let [batch, tokens, width] = hidden.dims();
        let patches = hidden.slice([0..batch, self.special..tokens, 0..width]);
        let side = (tokens - self.special).isqrt();
        let features = patches.swap_dims(1, 2).reshape([batch, width, side, side]);
        let pixels = conv2d(
            &self.decoder,
            None,
            features,
            None,
            Activation::Linear,
            false,
        );
        // Each channel's `stride × stride` values go from the depth into the plane.
        let stride = self.stride;
        pixels
            .reshape([batch, self.channels, stride, stride, side, side])
            .permute([0, 1, 4, 2, 5, 3])
            .reshape([batch, self.channels, side * stride, side * stride])
    }

    /// How far the imagined pixels of hidden patches are from the picture's, on average.
    ///
    /// # Shapes
    /// `[b, c, h, w]` twice, `[b, p]` → `[1]`
    fn loss(&self, pixels: Tensor<4>, imagined: Tensor<4>, masked: Tensor<2>) -> Tensor<1> {
        let [batch, patches] = masked.dims();
        let side = patches.isqrt();
        let [height, width] = self.patch;
        let masked = masked
            .reshape([batch, 1, side, 1, side, 1])
            .expand([batch, 1, side, height, side, width])
            .reshape([batch, 1, side * height, side * width]);
        let distance = (pixels - imagined).abs() * masked.clone();
        distance.sum() / (masked.sum() + 1e-5) / self.channels as f64
    }
}

impl Head for VitForMaskedImageModeling {
    fn trunk(&self) -> &Vit {
        &self.vit
    }

    fn masks(&self) -> bool {
        true
    }

    fn check(&self, masked: bool, rows: usize, columns: usize) -> Result<(), InputError> {
        if rows != columns {
            let reason = format!("has {rows} × {columns} patches, this head takes squares");
            return Err(InputError::new("pixel_values", reason));
        }
        if masked && self.patch != [self.stride; 2] {
            let [height, width] = self.patch;
            let reason = format!(
                "cannot be compared: patches are {height} × {width}, but `encoder_stride` is {}",
                self.stride
            );
            return Err(InputError::new("bool_masked_pos", reason));
        }
        Ok(())
    }

    fn outputs(&self, pictures: Pictures) -> Outputs {
        let (pixels, masked) = (pictures.pixels.clone(), pictures.masked.clone());
        let imagined = self.forward(pictures);
        let outputs = Outputs::new().with("reconstruction", imagined.clone());
        match masked {
            Some(masked) => outputs.with("loss", self.loss(pixels, imagined, masked)),
            None => outputs,
        }
    }
}
