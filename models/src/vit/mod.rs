//! ViT and DeiT: transformer encoders of pictures.
//!
//! - Paper: Dosovitskiy et al., *An Image is Worth 16x16 Words*, <https://arxiv.org/abs/2010.11929>;
//!   Touvron et al., *Training data-efficient image transformers & distillation through attention*,
//!   <https://arxiv.org/abs/2012.12877>; the masked-image head is Xie et al., *SimMIM*,
//!   <https://arxiv.org/abs/2111.09886>
//! - Reference: `src/transformers/models/{vit,deit}/` of transformers 5.23,
//!   `torchvision/models/vision_transformer.py` of 0.29, `timm/models/{vision_transformer,deit}.py` of
//!   1.0.31
//! - Checkpoints: Hugging Face's, as stored and as held in memory, with or without `vit.` or
//!   `deit.`; torchvision's and timm's, whose projections are fused, found by the names of their tensors
//! - Refused: what timm adds to the architecture (layer scale, normed queries, registers, mean pooling, …)
//!
//! [`VitConfig`] → [`Vit`] (the trunk) → one struct a head.

mod config;
mod detect;
mod heads;
pub(crate) mod keys;
mod model;
mod presets;

use burn::tensor::{Device, Tensor, TensorData};
use salamander_importers::Checkpoint;

use crate::load::load;
use crate::tensors::{Ints, named};
use crate::{
    Architecture, Class, InputError, Inputs, LoadError, Model, Outputs, PretrainedConfig, Task,
    Value,
};
use heads::Head;
use keys::Dialect;

pub use config::{Sides, VitConfig};
pub use heads::{
    DeitForImageClassificationWithTeacher, VitForImageClassification, VitForMaskedImageModeling,
    VitModel,
};
pub use model::{Pictures, Vit};

/// ViT's entry in the registry.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "vit",
    paper: "https://arxiv.org/abs/2010.11929",
    model_types: &["vit", "deit"],
    classes: &[
        Class::new("ViTModel", Some(Task::ImageEmbedding)),
        Class::new("ViTForImageClassification", Some(Task::ImageClassification)),
        Class::new("ViTForMaskedImageModeling", None),
        Class::new("DeiTModel", Some(Task::ImageEmbedding)),
        Class::new(
            "DeiTForImageClassification",
            Some(Task::ImageClassification),
        ),
        Class::new(
            "DeiTForImageClassificationWithTeacher",
            Some(Task::ImageClassification),
        ),
        Class::new("DeiTForMaskedImageModeling", None),
    ],
    load: load_class,
    detect: detect::detect,
    presets: presets::presets,
};

fn load_class(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let config = VitConfig::parse(json)?;
    config.check_depth(checkpoint.len())?;
    let loader = Loader {
        class,
        checkpoint,
        device,
        config: &config,
    };
    let classes = || PretrainedConfig::parse(json).map(|common| common.labels().len());
    match class {
        "ViTModel" | "DeiTModel" => {
            let (pooler, masks) = (
                loader.holds("vit.pooler.bias"),
                loader.holds("vit.embeddings.mask_token"),
            );
            let vit = Vit::new(&config, pooler, masks, device)?;
            loader.fill(VitModel { vit, masks })
        }
        "ViTForMaskedImageModeling" | "DeiTForMaskedImageModeling" => {
            loader.fill(VitForMaskedImageModeling::new(&config, device)?)
        }
        "DeiTForImageClassificationWithTeacher" => {
            let module = DeitForImageClassificationWithTeacher::new(&config, classes()?, device)?;
            loader.fill(module)
        }
        // ViTForImageClassification and DeiTForImageClassification.
        _ => loader.fill(VitForImageClassification::new(&config, classes()?, device)?),
    }
}

fn dialect(checkpoint: &Checkpoint) -> Dialect {
    let mut names = checkpoint.iter().map(|(name, _)| name);
    let found = names.find_map(|name| {
        let ends = |ending: &str| {
            let before = name.strip_suffix(ending);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        if ends("patch_embed.proj.weight") {
            Some(Dialect::Timm)
        } else if ends("conv_proj.weight") {
            Some(Dialect::Torchvision)
        } else {
            None
        }
    });
    found.unwrap_or(Dialect::HuggingFace)
}

/// What building any of the classes needs.
struct Loader<'a> {
    class: &'a str,
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    config: &'a VitConfig,
}

impl Loader<'_> {
    /// Whether the checkpoint has the parameter of that path.
    fn holds(&self, path: &str) -> bool {
        let mut keys = dialect(self.checkpoint).map().candidates(path).into_iter();
        keys.any(|key| self.checkpoint.get(&key).is_some())
    }

    fn fill<M: Head + 'static>(&self, module: M) -> Result<Box<dyn Model>, LoadError> {
        let map = dialect(self.checkpoint).map();
        Ok(Box::new(Served {
            module: load(module, self.class, &map, self.checkpoint)?,
            config: self.config.clone(),
            device: self.device.clone(),
        }))
    }
}

/// A loaded class on its device.
#[derive(Debug)]
struct Served<M> {
    module: M,
    config: VitConfig,
    device: Device,
}

impl<M: Head> Served<M> {
    fn pictures(&self, mut inputs: Inputs) -> Result<Pictures, InputError> {
        let pixels = inputs.pixels(self.config.num_channels, &self.device)?;
        let flag: Option<Ints<1>> = inputs.ints("interpolate_pos_encoding", 0..2)?;
        let interpolate = flag.is_some_and(|flag| flag.values.contains(&1));
        let masked: Option<Ints<2>> = inputs.ints("bool_masked_pos", 0..2)?;
        inputs.finish(&[
            "pixel_values",
            "bool_masked_pos",
            "interpolate_pos_encoding",
        ])?;

        let [batch, _, height, width] = pixels.dims();
        let [patch_height, patch_width] = self.config.patch_size.get();
        let expected = self.config.image_size.get();
        if !interpolate && [height, width] != expected {
            let [rows, columns] = expected;
            let reason = format!(
                "is {height} × {width}, this model takes {rows} × {columns}, or others with \
                 `interpolate_pos_encoding`"
            );
            return Err(InputError::new("pixel_values", reason));
        }
        let (rows, columns) = (height / patch_height, width / patch_width);
        if rows == 0 || columns == 0 {
            let reason = format!(
                "is {height} × {width}, smaller than a patch of {patch_height} × {patch_width}"
            );
            return Err(InputError::new("pixel_values", reason));
        }
        if let Some(masked) = &masked {
            if !self.module.masks() {
                let reason = "is given, but this model has no token for hidden patches";
                return Err(InputError::new("bool_masked_pos", reason));
            }
            if masked.shape != [batch, rows * columns] {
                let reason = format!(
                    "has the shape {:?}, not [{batch}, {}]",
                    masked.shape,
                    rows * columns
                );
                return Err(InputError::new("bool_masked_pos", reason));
            }
        }
        self.module.check(masked.is_some(), rows, columns)?;
        let masked = masked.map(|masked| {
            let values: Vec<f32> = masked.values.iter().map(|&value| value as f32).collect();
            Tensor::from_data(TensorData::new(values, masked.shape), &self.device)
        });
        Ok(Pictures {
            pixels,
            masked,
            interpolate,
        })
    }
}

impl<M: Head> Model for Served<M> {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        Ok(self.module.outputs(self.pictures(inputs)?))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let pictures = self.pictures(inputs)?;
        let states = self.module.trunk().hidden_states(pictures);
        Ok(named("", states).collect())
    }
}
