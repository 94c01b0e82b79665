//! Filling a module, and saying what its products are computed in.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use salamander_importers::{Checkpoint, Dtype, KeyMap, LoadError};
use salamander_kernels::{Precision, set_precision};

/// [`salamander_importers::load`], and then [`compute_in`] what the checkpoint is to be computed in.
pub(crate) fn load<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<M, LoadError> {
    let module = salamander_importers::load(module, name, map, checkpoint)?;
    compute_in(&module, checkpoint.compute_dtype());
    Ok(module)
}

/// Sets the type to compute in for the weights of linear layers, of convolutions, and of embeddings, which an
/// output layer may share.
pub(crate) fn compute_in<M: Module>(module: &M, dtype: &Dtype) {
    let precision = match dtype {
        Dtype::BF16 => Precision::Bf16,
        Dtype::I8 => Precision::Int8,
        known if *known == Dtype::INT4 => Precision::Int4,
        _ => Precision::F32,
    };
    if precision != Precision::F32 {
        module.visit(&mut Weights {
            precision,
            place: Vec::new(),
        });
    }
}

struct Weights {
    precision: Precision,
    /// The fields that lead to a parameter, and of what each is one.
    place: Vec<(String, String)>,
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((name, container)) = self.place.last() else {
            return;
        };
        let containers = ["Linear", "Conv1d", "Conv2d", "Embedding"];
        let kind = container.strip_prefix("Struct:").unwrap_or_default();
        if name == "weight" && containers.contains(&kind) {
            set_precision(&param.val(), self.precision);
        }
    }
}
