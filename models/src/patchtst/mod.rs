//! PatchTST: transformer encoders of the patches of time series.
//!
//! - Paper: Nie et al., *A Time Series is Worth 64 Words: Long-term Forecasting with Transformers*,
//!   <https://arxiv.org/abs/2211.14730>
//! - Reference: `src/transformers/models/patchtst/modeling_patchtst.py` of transformers 5.23; for
//!   `patchtst/original` <https://github.com/yuqinie98/PatchTST/tree/204c21efe0b39603ad6e2ca640ef5896646ab1a9>
//! - Checkpoints: Hugging Face's; the original repository's supervised ones, whose sizes are read from
//!   names and shapes where no arguments are given
//! - Refused: masks drawn at random, which are an input here, `mask`; scaling along another dimension
//!   than time; individual heads of the original layout without the number of series
//!
//! [`PatchTstConfig`] → [`PatchTst`] (the trunk) → one struct a head; [`OriginalConfig`] → [`Original`].

mod config;
mod detect;
mod heads;
mod keys;
mod model;
mod original;

use burn::tensor::{Device, Tensor};
use salamander_importers::{Checkpoint, KeyMap};

use crate::load::load;
use crate::tensors::named;
use crate::{
    Architecture, Class, ConfigError, Forecasts, InputError, Inputs, LoadError, Model, Outputs,
    Task, Value,
};
use config::Masking;
use heads::Head;

pub use config::PatchTstConfig;
pub use heads::{
    PatchTstForClassification, PatchTstForPrediction, PatchTstForPretraining,
    PatchTstForRegression, Window,
};
pub use model::{Past, PatchTst, Patched};
pub use original::{Original, OriginalConfig};

/// PatchTST's entry in the registry.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "patchtst",
    paper: "https://arxiv.org/abs/2211.14730",
    model_types: &["patchtst"],
    classes: &[
        Class::new("PatchTSTModel", None),
        Class::new("PatchTSTForPrediction", Some(Task::Forecast)),
        Class::new("PatchTSTForPretraining", None),
        Class::new("PatchTSTForClassification", None),
        Class::new("PatchTSTForRegression", None),
        Class::new("patchtst/original", Some(Task::Forecast)),
    ],
    load: load_class,
    detect: detect::detect,
    presets: Vec::new,
};

fn load_class(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    if class == "patchtst/original" {
        return load_original(json, checkpoint, device);
    }
    let config = PatchTstConfig::parse(json, checkpoint)?;
    config.check_depth(checkpoint.len())?;
    let loader = Loader {
        class,
        checkpoint,
        device,
        config: &config,
    };
    let map = &names(&config, class)?;
    match class {
        "PatchTSTModel" => loader.fill(PatchTst::new(&config, device)?, map, false),
        "PatchTSTForPretraining" => {
            loader.fill(PatchTstForPretraining::new(&config, device)?, map, true)
        }
        "PatchTSTForClassification" => {
            loader.fill(PatchTstForClassification::new(&config, device)?, map, false)
        }
        "PatchTSTForRegression" => {
            loader.fill(PatchTstForRegression::new(&config, device)?, map, false)
        }
        _ => loader.fill(PatchTstForPrediction::new(&config, device)?, map, false),
    }
}

/// The names of a class of transformers'.
fn names(config: &PatchTstConfig, class: &str) -> Result<KeyMap, ConfigError> {
    let distribution = config.family()?.is_some();
    Ok(match class {
        "PatchTSTModel" => keys::trunk(config),
        "PatchTSTForPretraining" | "PatchTSTForClassification" => {
            keys::with_head(config, true, false)
        }
        "PatchTSTForRegression" => keys::with_head(config, true, distribution),
        _ => keys::with_head(config, config.share_projection, distribution),
    })
}

/// The names as Hugging Face stores the class; `None` for the original repository's, which transformers does not have.
pub(crate) fn hugging_face(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
) -> Option<KeyMap> {
    if class == "patchtst/original" {
        return None;
    }
    let config = PatchTstConfig::parse(json, checkpoint).ok()?;
    names(&config, class).ok()
}

/// What building any of the reference's classes needs.
struct Loader<'a> {
    class: &'a str,
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    config: &'a PatchTstConfig,
}

impl Loader<'_> {
    fn fill<M: Head + 'static>(
        &self,
        module: M,
        map: &KeyMap,
        fills_masks: bool,
    ) -> Result<Box<dyn Model>, LoadError> {
        let config = self.config;
        // The heads turn masking off, but for the one that it is for.
        let masking = match self.class {
            "PatchTSTModel" | "PatchTSTForPretraining" => config.masking(fills_masks)?,
            _ => Masking::None,
        };
        let forecasts = Forecasts {
            context: config.context_length,
            horizon: config.prediction_length,
            channels: Some(config.num_input_channels),
            family: config.family()?,
            missing: true,
            centres: config.scaling() == config::Scaling::Std,
        };
        Ok(Box::new(Served {
            module: load(module, self.class, map, self.checkpoint)?,
            masking,
            mask_value: config.mask_value,
            shape: [config.context_length, config.num_input_channels],
            forecasts: (self.class == "PatchTSTForPrediction").then_some(forecasts),
            device: self.device.clone(),
        }))
    }
}

/// A loaded class on its device.
#[derive(Debug)]
struct Served<M> {
    module: M,
    masking: Masking,
    mask_value: f64,
    /// Steps and series of a window.
    shape: [usize; 2],
    forecasts: Option<Forecasts>,
    device: Device,
}

impl<M: Head> Served<M> {
    /// The checked inputs, cut into patches and masked.
    fn window(&self, mut inputs: Inputs) -> Result<Window, InputError> {
        let [steps, channels] = self.shape;
        let values = past_values(&mut inputs, steps, Some(channels), &self.device)?;
        let observed: Option<Tensor<3>> = inputs.numbers("past_observed_mask", &self.device)?;
        if let Some(observed) = &observed
            && observed.dims() != values.dims()
        {
            let reason = format!(
                "has the shape {:?}, not {:?}",
                observed.dims(),
                values.dims()
            );
            return Err(InputError::new("past_observed_mask", reason));
        }
        let given: Option<Tensor<3>> = match self.masking {
            Masking::Given => inputs.numbers("mask", &self.device)?,
            _ => None,
        };
        let known: &[&str] = match self.masking {
            Masking::Given => &["past_values", "past_observed_mask", "mask"],
            _ => &["past_values", "past_observed_mask"],
        };
        inputs.finish(known)?;

        let patched = self.module.trunk().patch(Past { values, observed });
        let [batch, channels, patches, length] = patched.patches.dims();
        let shape = [batch, channels, patches];
        let mask = match &self.masking {
            Masking::None => None,
            Masking::Nothing => Some(Tensor::zeros(shape, &self.device)),
            Masking::Last {
                patches: hidden,
                except,
            } => {
                let seen = Tensor::zeros([batch, channels, patches - hidden], &self.device);
                let unseen = Tensor::ones([batch, channels, *hidden], &self.device);
                let mask = Tensor::cat(vec![seen, unseen], 2);
                Some(except.iter().fold(mask, |mask, &channel| {
                    let nothing = Tensor::zeros([batch, 1, patches], &self.device);
                    mask.slice_assign([0..batch, channel..channel + 1, 0..patches], nothing)
                }))
            }
            Masking::Given => {
                let mask = given.ok_or_else(|| {
                    let reason = format!(
                        "is missing; this model hides patches at random, so say which: 1 where a \
                         patch is hidden, {shape:?}"
                    );
                    InputError::new("mask", reason)
                })?;
                if mask.dims() != shape {
                    let reason = format!("has the shape {:?}, not {shape:?}", mask.dims());
                    return Err(InputError::new("mask", reason));
                }
                Some(mask)
            }
        };
        let visible = match &mask {
            None => patched.patches.clone(),
            Some(mask) => {
                let hidden = mask.clone().not_equal_elem(0.0);
                let hidden = hidden.reshape([batch, channels, patches, 1]);
                let hidden = hidden.expand([batch, channels, patches, length]);
                patched.patches.clone().mask_fill(hidden, self.mask_value)
            }
        };
        Ok(Window {
            patched,
            visible,
            mask,
        })
    }
}

/// The input `past_values`, checked: windows of `steps` steps of `channels` series.
fn past_values(
    inputs: &mut Inputs,
    steps: usize,
    channels: Option<usize>,
    device: &Device,
) -> Result<Tensor<3>, InputError> {
    let name = "past_values";
    let values: Tensor<3> = inputs
        .floats(name, device)?
        .ok_or_else(|| InputError::new(name, "is missing"))?;
    let [batch, found, series] = values.dims();
    if batch == 0 || found != steps || series == 0 || channels.is_some_and(|c| c != series) {
        let channels = channels.map_or("series".to_owned(), |c| c.to_string());
        let reason = format!(
            "has the shape {:?}, this model takes [windows, {steps}, {channels}]",
            values.dims()
        );
        return Err(InputError::new(name, reason));
    }
    Ok(values)
}

impl<M: Head> Model for Served<M> {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        Ok(self.module.outputs(self.window(inputs)?))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let window = self.window(inputs)?;
        let states = self.module.trunk().hidden_states(window.visible);
        let patches = ("patches".to_owned(), Value::from(window.patched.patches));
        Ok(std::iter::once(patches).chain(named("", states)).collect())
    }

    fn forecasts(&self) -> Option<Forecasts> {
        self.forecasts
    }
}

fn load_original(
    json: &serde_json::Value,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let config = OriginalConfig::parse(json, checkpoint)?;
    let map = keys::original(config.individual);
    let module = Original::new(&config, device)?;
    Ok(Box::new(ServedOriginal {
        module: load(module, "patchtst/original", &map, checkpoint)?,
        forecasts: Forecasts {
            context: config.seq_len,
            horizon: config.pred_len,
            channels: config.enc_in,
            family: None,
            missing: false,
            centres: config.revin,
        },
        device: device.clone(),
    }))
}

/// A loaded model of the original layout on its device.
#[derive(Debug)]
struct ServedOriginal {
    module: Original,
    forecasts: Forecasts,
    device: Device,
}

impl ServedOriginal {
    fn past(&self, mut inputs: Inputs) -> Result<Tensor<3>, InputError> {
        let Forecasts {
            context, channels, ..
        } = self.forecasts;
        let values = past_values(&mut inputs, context, channels, &self.device)?;
        inputs.finish(&["past_values"])?;
        Ok(values)
    }
}

impl Model for ServedOriginal {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        let forecast = self.module.forward(self.past(inputs)?);
        Ok(Outputs::new().with("prediction_outputs", forecast))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let states = self.module.hidden_states(self.past(inputs)?);
        Ok(named("", states).collect())
    }

    fn forecasts(&self) -> Option<Forecasts> {
        Some(self.forecasts)
    }
}
