//! Filling a module, and saying what its products are computed in.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use salamander_importers::{Checkpoint, Dtype, KeyMap, LoadError};
use salamander_kernels::{Precision, set_precision};

/// [`salamander_importers::load`], and then the type that the checkpoint is to be computed in for the
/// weights of linear layers, and of embeddings, which an output layer may share.
pub(crate) fn load<M: Module>(
    module: M,
    name: &str,
    map: &KeyMap,
    checkpoint: &Checkpoint,
) -> Result<M, LoadError> {
    let module = salamander_importers::load(module, name, map, checkpoint)?;
    let precision = match checkpoint.compute_dtype() {
        Dtype::BF16 => Precision::Bf16,
        Dtype::I8 => Precision::Int8,
        _ => Precision::F32,
    };
    if precision != Precision::F32 {
        module.visit(&mut Weights {
            precision,
            place: Vec::new(),
        });
    }
    Ok(module)
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
        if name == "weight" && matches!(&container[..], "Struct:Linear" | "Struct:Embedding") {
            set_precision(&param.val(), self.precision);
        }
    }
}
