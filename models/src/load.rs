//! Filling a module, and saying what its products are computed in.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use salamander_importers::{Checkpoint, Dtype, KeyMap, LoadError, load_keeping};
use salamander_kernels::{self as kernels, Precision, set_precision};

/// [`load_then`] nothing more.
pub(crate) fn load<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<M, LoadError> {
    load_then(module, name, map, checkpoint, |module| module)
}

/// Fills a module, has `then` make new weights of those that want it, and says what is computed in which type.
///
/// On the CPU the weights of blocks and the tables of words stay in the mapped file, be they f32, f16 or bf16.
pub(crate) fn load_then<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
    then: impl FnOnce(M) -> M,
) -> Result<M, LoadError> {
    let keeps = |device: &Device, around: [&str; 2]| {
        let stays = match around {
            ["Embedding", _] => true,
            ["Linear", layer] => is_block(layer),
            _ => false,
        };
        stays && kernels::takes_halves(device)
    };
    let module = load_keeping(module, name, map, checkpoint, keeps)?;
    Ok(compute_in(then(module), checkpoint.compute_dtype()))
}

/// Has layers computed in another type than f32.
///
/// On the CPU those are linear layers, convolutions, and embeddings, which an output layer may share: their
/// weights are marked for the kernels. On GPUs those are convolutions and the linear layers of attention and
/// MLPs, which the blocks compute in the type of their weights.
fn compute_in<M: Module>(module: M, dtype: &Dtype) -> M {
    let (precision, half) = match dtype {
        Dtype::BF16 => (Precision::Bf16, Some(FloatDType::BF16)),
        Dtype::F16 => (Precision::F16, Some(FloatDType::F16)),
        Dtype::I8 => (Precision::Int8, None),
        known if *known == Dtype::INT4 => (Precision::Int4, None),
        _ => return module,
    };
    module.map(&mut Weights {
        precision,
        half,
        place: Vec::new(),
    })
}

/// Whether what is made of linear layers takes their weights in other types than f32.
fn is_block(layer: &str) -> bool {
    matches!(layer, "Attention" | "Mlp")
}

struct Weights {
    precision: Precision,
    half: Option<FloatDType>,
    /// The fields that lead to a parameter, and of what each is one.
    place: Vec<(String, String)>,
}

impl Weights {
    /// What a parameter is a field of, and what that is a field of.
    fn around(&self) -> [&str; 2] {
        let mut kinds = self.place.iter().rev();
        std::array::from_fn(|_| {
            let kind = kinds
                .next()
                .and_then(|(_, kind)| kind.strip_prefix("Struct:"));
            kind.unwrap_or_default()
        })
    }
}

impl ModuleMapper for Weights {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let around = self.around();
        let is_weight = self.place.last().is_some_and(|(name, _)| name == "weight");
        let tensor = param.val();
        if kernels::takes(&tensor) {
            if is_weight && matches!(around[0], "Linear" | "Conv1d" | "Conv2d" | "Embedding") {
                set_precision(&tensor, self.precision);
            }
            return param;
        }
        let is_block = match around {
            ["Conv1d" | "Conv2d", _] => true,
            ["Linear", layer] => is_block(layer),
            _ => false,
        };
        match self.half {
            Some(half) if is_block => Param::initialized(param.id, tensor.cast(half)),
            _ => param,
        }
    }
}
