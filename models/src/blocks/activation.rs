use burn::tensor::Tensor;
use burn::tensor::activation::{
    gelu, hard_swish, leaky_relu, mish, relu, relu6, sigmoid, silu, softplus, tanh,
};

use salamander_kernels as kernels;

use crate::ConfigError;

/// An elementwise activation, by the names of transformers' `ACT2FN`.
///
/// Reference: `src/transformers/activations.py` of transformers 5.23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Activation {
    Gelu,
    /// GELU clipped to ±10.
    Gelu10,
    /// GELU by a tanh, as in the first BERT and GPT.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    HardSwish,
    Laplace,
    LeakyRelu,
    Linear,
    Mish,
    Relu,
    ReluSquared,
    Relu6,
    Sigmoid,
    Silu,
    SqrtSoftplus,
    Tanh,
}

const NAMES: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_10", Activation::Gelu10),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("hardswish", Activation::HardSwish),
    ("laplace", Activation::Laplace),
    ("leaky_relu", Activation::LeakyRelu),
    ("linear", Activation::Linear),
    ("mish", Activation::Mish),
    ("relu", Activation::Relu),
    ("relu2", Activation::ReluSquared),
    ("relu6", Activation::Relu6),
    ("sigmoid", Activation::Sigmoid),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("sqrtsoftplus", Activation::SqrtSoftplus),
    ("tanh", Activation::Tanh),
];

const TORCH_NAMES: &[(&str, Activation)] = &[
    ("Identity", Activation::Linear),
    ("GELU", Activation::Gelu),
    ("Hardswish", Activation::HardSwish),
    ("LeakyReLU", Activation::LeakyRelu),
    ("Mish", Activation::Mish),
    ("ReLU", Activation::Relu),
    ("ReLU6", Activation::Relu6),
    ("Sigmoid", Activation::Sigmoid),
    ("SiLU", Activation::Silu),
    ("Tanh", Activation::Tanh),
];

impl Activation {
    /// The activation that the configuration's `field` names.
    ///
    /// # Errors
    /// It is not an elementwise activation of the reference.
    pub fn parse(field: &str, name: &str) -> Result<Self, ConfigError> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "\"{name}\" is not supported; known are {}",
                known.join(", ")
            );
            ConfigError::new(field, reason)
        })
    }

    /// The activation of the class of PyTorch that the configuration's `field` names: `torch.nn.Tanh`,
    /// `torch.nn.modules.activation.Tanh`, …, made without arguments.
    ///
    /// # Errors
    /// It is not an elementwise activation of `torch.nn`, or not one that is known here.
    pub fn of_torch(field: &str, class: &str) -> Result<Self, ConfigError> {
        let modules = ["", "modules.", "modules.activation.", "modules.linear."];
        let name = class.strip_prefix("torch.nn.").and_then(|path| {
            let mut names = modules
                .iter()
                .filter_map(|module| path.strip_prefix(module));
            names.find(|name| !name.contains('.'))
        });
        let mut known = TORCH_NAMES.iter();
        let found = name.and_then(|name| known.find(|(known, _)| *known == name));
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = TORCH_NAMES.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "\"{class}\" is not supported; known are {} of torch.nn",
                known.join(", ")
            );
            ConfigError::new(field, reason)
        })
    }

    /// What the kernels call it, if they know it.
    pub(super) fn kernel(self) -> Option<kernels::Activation> {
        Some(match self {
            Activation::Linear => kernels::Activation::None,
            Activation::Relu => kernels::Activation::Relu,
            Activation::Gelu => kernels::Activation::Gelu,
            Activation::GeluTanh => kernels::Activation::GeluTanh,
            Activation::QuickGelu => kernels::Activation::QuickGelu,
            Activation::Silu => kernels::Activation::Silu,
            Activation::Sigmoid => kernels::Activation::Sigmoid,
            Activation::Tanh => kernels::Activation::Tanh,
            _ => return None,
        })
    }

    /// Applies it to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self == Activation::Linear {
            return x;
        }
        let fast = self.kernel().and_then(|known| kernels::activate(&x, known));
        fast.unwrap_or_else(|| self.plain(x))
    }

    fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::Gelu => gelu(x),
            Activation::Gelu10 => gelu(x).clamp(-10.0, 10.0),
            Activation::GeluTanh => {
                let scale = (2.0 / std::f64::consts::PI).sqrt();
                let cubic = x.clone() * x.clone() * x.clone();
                let inner = (x.clone() + cubic * 0.044715) * scale;
                x * (inner.tanh() + 1.0) * 0.5
            }
            Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
            Activation::HardSwish => hard_swish(x),
            Activation::Laplace => {
                // μ and σ as the reference rounds √½ and 1/√(4π).
                #[allow(clippy::approx_constant)]
                let (mean, deviation) = (0.707107, 0.282095);
                let scale = deviation * 2.0_f64.sqrt();
                (((x - mean) / scale).erf() + 1.0) * 0.5
            }
            Activation::LeakyRelu => leaky_relu(x, 0.01),
            Activation::Linear => x,
            Activation::Mish => mish(x),
            Activation::Relu => relu(x),
            Activation::ReluSquared => {
                let x = relu(x);
                x.clone() * x
            }
            Activation::Relu6 => relu6(x),
            Activation::Sigmoid => sigmoid(x),
            Activation::Silu => silu(x),
            Activation::SqrtSoftplus => {
                // Where `log1p` is `log(1 + x)`, as in WGSL, little is left of a small exponential.
                let small = x.clone().lower_elem(-8.0);
                let series = x.clone().exp().mul_scalar(-0.25).add_scalar(1.0);
                let series = x.clone().mul_scalar(0.5).exp() * series;
                softplus(x, 1.0).sqrt().mask_where(small, series)
            }
            Activation::Tanh => tanh(x),
        }
    }
}
