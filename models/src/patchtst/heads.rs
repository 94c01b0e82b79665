//! One struct a reference class, wrapping the trunk.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::config::{PatchTstConfig, Pooling};
use super::model::{PatchTst, Patched};
use crate::processing::distribution::Family;
use crate::{ConfigError, Outputs};

/// A window that is cut into patches, of which some may be hidden.
#[derive(Debug, Clone)]
pub struct Window {
    /// The patches as they are, and how they were scaled.
    pub patched: Patched,
    /// The patches that the network sees, `[b, c, n, p]`.
    pub visible: Tensor<4>,
    /// 1 where a patch is hidden, `[b, c, n]`; nothing where no mask is spoken of.
    pub mask: Option<Tensor<3>>,
}

/// A reference class: a trunk and what its outputs are called.
pub(super) trait Head: Module + Sync {
    fn trunk(&self) -> &PatchTst;

    fn outputs(&self, window: Window) -> Outputs;
}

impl Head for PatchTst {
    fn trunk(&self) -> &PatchTst {
        self
    }

    fn outputs(&self, window: Window) -> Outputs {
        let outputs = Outputs::new()
            .with("last_hidden_state", self.forward(window.visible))
            .with("patch_input", window.patched.patches)
            .with("loc", window.patched.loc)
            .with("scale", window.patched.scale);
        match window.mask {
            Some(mask) => outputs.with("mask", mask),
            None => outputs,
        }
    }
}

/// `PatchTSTForPrediction`: how every series goes on, as values or as the parameters of a distribution.
#[derive(Module, Debug)]
pub struct PatchTstForPrediction {
    model: PatchTst,
    /// A row of projections for all series, or one a series; in a row one for each parameter.
    head: Vec<Vec<Linear>>,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    family: Option<Family>,
}

impl PatchTstForPrediction {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        let (pooling, family) = (config.pooling()?, config.family()?);
        let inputs = match pooling {
            Pooling::Flatten => config.d_model * config.patches(),
            Pooling::ClassToken | Pooling::Mean | Pooling::Max => config.d_model,
        };
        let heads = if config.share_projection {
            1
        } else {
            config.num_input_channels
        };
        let linear = || LinearConfig::new(inputs, config.prediction_length).init(device);
        let head = || (0..parameters(family)).map(|_| linear()).collect();
        Ok(Self {
            model: PatchTst::new(config, device)?,
            head: (0..heads).map(|_| head()).collect(),
            pooling,
            family,
        })
    }

    /// The values in the units of the input, or each parameter of their distribution in units of its
    /// scale, from `loc` on.
    ///
    /// # Shapes
    /// `[b, c, n, p]` → one or each `[b, horizon, c]`
    pub fn forward(&self, window: Window) -> Vec<Tensor<3>> {
        let pooled = pool(self.model.forward(window.visible), self.pooling);
        let project = |k: usize| {
            let [batch, channels, inputs] = pooled.dims();
            let projected = match &self.head[..] {
                [shared] => {
                    let rows = pooled.clone().reshape([batch * channels, inputs]);
                    let rows = shared[k].forward(rows);
                    let [_, horizon] = rows.dims();
                    rows.reshape([batch, channels, horizon])
                }
                // The reference feeds each series' head with the output of the one before it, which
                // fails on its shapes; this is what its comments and the original repository say.
                own => {
                    let series = own.iter().enumerate().map(|(channel, head)| {
                        let rows = pooled.clone().narrow(1, channel, 1);
                        let rows = head[k].forward(rows.reshape([batch, inputs]));
                        let [_, horizon] = rows.dims();
                        rows.reshape([batch, 1, horizon])
                    });
                    Tensor::cat(series.collect(), 1)
                }
            };
            projected.swap_dims(1, 2)
        };
        let raw: Vec<Tensor<3>> = (0..parameters(self.family)).map(project).collect();
        match self.family {
            Some(family) => family.domain(raw),
            None => {
                let Patched { loc, scale, .. } = window.patched;
                let values = raw.into_iter();
                values
                    .map(|values| values * scale.clone() + loc.clone())
                    .collect()
            }
        }
    }
}

impl Head for PatchTstForPrediction {
    fn trunk(&self) -> &PatchTst {
        &self.model
    }

    fn outputs(&self, window: Window) -> Outputs {
        let Patched { loc, scale, .. } = window.patched.clone();
        let names: &[&str] = match self.family {
            None => &["prediction_outputs"],
            Some(_) => &[
                "prediction_outputs.0",
                "prediction_outputs.1",
                "prediction_outputs.2",
            ],
        };
        let outputs = Outputs::new().with("loc", loc).with("scale", scale);
        let named = names.iter().zip(self.forward(window));
        named.fold(outputs, |outputs, (name, tensor)| {
            outputs.with(name, tensor)
        })
    }
}

/// `PatchTSTForPretraining`: the steps of every patch, also of the hidden ones.
#[derive(Module, Debug)]
pub struct PatchTstForPretraining {
    model: PatchTst,
    linear: Linear,
}

impl PatchTstForPretraining {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            model: PatchTst::new(config, device)?,
            linear: LinearConfig::new(config.d_model, config.patch_length).init(device),
        })
    }

    /// # Shapes
    /// `[b, c, n, p]` → the same
    pub fn forward(&self, visible: Tensor<4>) -> Tensor<4> {
        let [batch, channels, patches, length] = visible.dims();
        let hidden = self.model.forward(visible);
        let [_, _, states, width] = hidden.dims();
        // Without the class token, which stands first.
        let hidden = hidden.narrow(2, states - patches, patches);
        let rows = hidden.reshape([batch * channels * patches, width]);
        let rows = self.linear.forward(rows);
        rows.reshape([batch, channels, patches, length])
    }
}

impl Head for PatchTstForPretraining {
    fn trunk(&self) -> &PatchTst {
        &self.model
    }

    fn outputs(&self, window: Window) -> Outputs {
        let filled = self.forward(window.visible);
        let outputs = Outputs::new().with("prediction_output", filled.clone());
        let Some(mask) = window.mask else {
            return outputs;
        };
        let squares = (filled - window.patched.patches).square().mean_dim(3);
        let [batch, channels, patches, _] = squares.dims();
        let squares = squares.reshape([batch, channels, patches]);
        let loss = (squares * mask.clone()).sum() / (mask.sum() + 1e-10);
        outputs.with("loss", loss)
    }
}

/// `PatchTSTForClassification`: a class for all series together.
#[derive(Module, Debug)]
pub struct PatchTstForClassification {
    model: PatchTst,
    linear: Linear,
    #[module(skip)]
    pooling: Pooling,
}

impl PatchTstForClassification {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        let inputs = config.num_input_channels * config.d_model;
        Ok(Self {
            model: PatchTst::new(config, device)?,
            linear: LinearConfig::new(inputs, config.num_targets).init(device),
            pooling: pooled(config)?,
        })
    }

    /// # Shapes
    /// `[b, c, n, p]` → `[b, classes]`
    pub fn forward(&self, visible: Tensor<4>) -> Tensor<2> {
        let pooled = pool(self.model.forward(visible), self.pooling);
        self.linear.forward(pooled.flatten(1, 2))
    }
}

impl Head for PatchTstForClassification {
    fn trunk(&self) -> &PatchTst {
        &self.model
    }

    fn outputs(&self, window: Window) -> Outputs {
        Outputs::new().with("prediction_logits", self.forward(window.visible))
    }
}

/// `PatchTSTForRegression`: values of all series together, or the parameters of their distribution.
#[derive(Module, Debug)]
pub struct PatchTstForRegression {
    model: PatchTst,
    /// One row of a projection for each parameter.
    head: Vec<Vec<Linear>>,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    family: Option<Family>,
    #[module(skip)]
    range: Option<[f64; 2]>,
}

impl PatchTstForRegression {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &PatchTstConfig, device: &Device) -> Result<Self, ConfigError> {
        let family = config.family()?;
        let inputs = config.num_input_channels * config.d_model;
        let linear = || LinearConfig::new(inputs, config.num_targets).init(device);
        let head = (0..parameters(family)).map(|_| linear()).collect();
        Ok(Self {
            model: PatchTst::new(config, device)?,
            head: vec![head],
            pooling: pooled(config)?,
            family,
            range: config.output_range,
        })
    }

    /// # Shapes
    /// `[b, c, n, p]` → one or each `[b, targets]`
    pub fn forward(&self, visible: Tensor<4>) -> Vec<Tensor<2>> {
        let pooled = pool(self.model.forward(visible), self.pooling).flatten(1, 2);
        let head = self.head.iter().flatten();
        let raw: Vec<Tensor<2>> = head.map(|linear| linear.forward(pooled.clone())).collect();
        match (self.family, self.range) {
            (Some(family), _) => family.domain(raw),
            (None, Some([low, high])) => {
                let bounded = raw.into_iter();
                bounded.map(|x| sigmoid(x) * (high - low) + low).collect()
            }
            (None, None) => raw,
        }
    }
}

impl Head for PatchTstForRegression {
    fn trunk(&self) -> &PatchTst {
        &self.model
    }

    fn outputs(&self, window: Window) -> Outputs {
        let names: &[&str] = match self.family {
            None => &["regression_outputs"],
            Some(_) => &[
                "regression_outputs.0",
                "regression_outputs.1",
                "regression_outputs.2",
            ],
        };
        let tensors = self.forward(window.visible);
        let named = names.iter().zip(tensors);
        named.fold(Outputs::new(), |outputs, (name, tensor)| {
            let [batch, targets] = tensor.dims();
            // The reference drops the dimension of a distribution's only target.
            if self.family.is_some() && targets == 1 {
                outputs.with(name, tensor.reshape([batch]))
            } else {
                outputs.with(name, tensor)
            }
        })
    }
}

/// How many projections a head has.
fn parameters(family: Option<Family>) -> usize {
    family.map_or(1, |family| family.parameters().len())
}

/// The pooling of a class that needs one.
fn pooled(config: &PatchTstConfig) -> Result<Pooling, ConfigError> {
    match config.pooling()? {
        Pooling::Flatten => Err(ConfigError::new(
            "pooling_type",
            "null is for prediction only; classification and regression need \"mean\" or \"max\"",
        )),
        pooling => Ok(pooling),
    }
}

/// # Shapes
/// `[b, c, s, d]` → `[b, c, d]`, or `[b, c, s · d]` where nothing is pooled
fn pool(hidden: Tensor<4>, pooling: Pooling) -> Tensor<3> {
    let [batch, channels, states, width] = hidden.dims();
    let pooled = match pooling {
        Pooling::ClassToken => hidden.narrow(2, 0, 1),
        Pooling::Mean => hidden.mean_dim(2),
        Pooling::Max => hidden.max_dim(2),
        Pooling::Flatten => return hidden.reshape([batch, channels, states * width]),
    };
    pooled.reshape([batch, channels, width])
}
