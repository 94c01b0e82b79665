//! TensorFlow's and Keras' names and layouts as PyTorch's, so that one table of names serves both.
//!
//! Names are turned as `transformers/modeling_tf_pytorch_utils.py` of 4.46 does: `tf_bert_model/bert/encoder/layer_._0/
//! output/dense/kernel` is `bert.encoder.layer.0.output.dense.weight`. What differs by library and not by
//! architecture is no more than this:
//!
//! | TensorFlow | PyTorch |
//! |---|---|
//! | `kernel` `[in, out]` | `weight` `[out, in]` |
//! | `kernel` `[width, in, out]`, `[height, width, in, out]` | `weight` `[out, in, …]` |
//! | `depthwise_kernel` `[height, width, in, multiplier]` | `weight` `[in · multiplier, 1, height, width]` |
//! | `gamma`, `beta` | `weight`, `bias` |
//! | `moving_mean`, `moving_variance` | `running_mean`, `running_var` |
//! | `embeddings` | `weight` |
//!
//! The state of a training that lies beside the variables is left out, and of a graph's constants what is no weight:
//! whole numbers and scalars.

use burn::tensor::TensorData;
use indexmap::IndexMap;

use crate::checkpoint::{Checkpoint, Entry, Format, Layout};
use crate::{data, tensorflow};

/// What an optimizer or a training keeps of a variable, behind the variable's name.
const SLOTS: &[&str] = &[
    "adam_m",
    "adam_v",
    "Adam",
    "Adam_1",
    "LAMB",
    "LAMB_1",
    "Momentum",
    "RMSProp",
    "RMSProp_1",
    "Adagrad",
    "ExponentialMovingAverage",
];

/// What it keeps of itself.
const TRAINING: &[&str] = &[
    "global_step",
    "save_counter",
    "beta1_power",
    "beta2_power",
    "current_loss_scale",
    "good_steps",
    "current_learning_rate",
    "_CHECKPOINTABLE_OBJECT_GRAPH",
];

/// Which variable of a layer an operation reads; what stands last is what no other is.
///
/// Graphs that were frozen by `convert_variables_to_constants_v2` name constants so, in place of variables.
const READS: &[(&str, &str)] = &[
    ("MatMul/ReadVariableOp", "kernel"),
    ("Tensordot/ReadVariableOp", "kernel"),
    ("Conv2D/ReadVariableOp", "kernel"),
    ("Conv1D/ExpandDims_1/ReadVariableOp", "kernel"),
    ("depthwise/ReadVariableOp", "depthwise_kernel"),
    ("BiasAdd/ReadVariableOp", "bias"),
    ("batchnorm/mul/ReadVariableOp", "gamma"),
    ("batchnorm/ReadVariableOp", "beta"),
    ("FusedBatchNormV3/ReadVariableOp", "moving_mean"),
    ("FusedBatchNormV3/ReadVariableOp_1", "moving_variance"),
    ("ReadVariableOp", "gamma"),
    ("ReadVariableOp_1", "beta"),
];

impl Checkpoint {
    /// The checkpoint under PyTorch's names and in its layouts, where it is of TensorFlow or Keras; else unchanged.
    ///
    /// Nothing is read yet; a tensor whose layout differs is copied when it is. When two names become one, both stay as
    /// they are.
    #[must_use]
    pub fn in_pytorch_layout(self) -> Self {
        use Format::{
            Hdf5, Keras, SavedModel, ShardedHdf5, TensorFlow, TensorFlowGraph, TensorFlowV1,
        };
        let known = [
            TensorFlow,
            TensorFlowV1,
            TensorFlowGraph,
            SavedModel,
            Hdf5,
            ShardedHdf5,
            Keras,
        ];
        if !known.contains(&self.format) {
            return self;
        }
        // A graph has constants for its own use, shapes above all, beside the weights.
        let graph = self.format == TensorFlowGraph || self.metadata.contains_key(tensorflow::TAGS);
        let is_weight = |entry: &Entry| {
            let float = entry.dtype.to_burn().is_some_and(|dtype| dtype.is_float());
            !graph || (float && !entry.shape.is_empty())
        };
        let mut entries = IndexMap::new();
        let mut left_out = self.left_out.clone();
        for (name, entry) in self.iter() {
            if entry.dtype.is_text() || is_training(name) || !is_weight(entry) {
                left_out.push(name.to_owned());
                continue;
            }
            let (turned, kind) = turn(&read_variable(name), entry);
            let turned = if entries.contains_key(&turned) {
                name.to_owned()
            } else {
                turned
            };
            let is_turned = turned != name;
            let entry = kind.of(entry);
            let entry = if is_turned { entry.named(name) } else { entry };
            entries.insert(turned, entry);
        }
        // A trace goes along, or what is traced would be loaded.
        let mut turned = self.with_entries(entries);
        turned.left_out = left_out;
        turned
    }
}

/// The variable that a frozen graph has for the constant of this name, if it is one; else the name.
fn read_variable(name: &str) -> String {
    let Some(read) = name.strip_suffix("/resource") else {
        return name.to_owned();
    };
    let found = READS.iter().find_map(|(operation, variable)| {
        let layer = read.strip_suffix(*operation)?.strip_suffix('/')?;
        Some(format!("{layer}/{variable}"))
    });
    found.unwrap_or_else(|| read.to_owned())
}

fn is_training(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    TRAINING.contains(&last)
        || (SLOTS.contains(&last) && name.contains('/'))
        || name.contains("/.OPTIMIZER_SLOT/")
        || name.starts_with("optimizer/")
}

/// PyTorch's name for a tensor, and what its data must go through.
fn turn(name: &str, entry: &Entry) -> (String, Kind) {
    let mut segments: Vec<&str> = name
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    // Hugging Face's models stand under the name of their class.
    if segments.len() > 1 && segments[0].starts_with("tf_") {
        segments.remove(0);
    }
    let Some(leaf) = segments.pop() else {
        return (name.to_owned(), Kind::AsStored);
    };
    let rank = entry.shape.len();
    let (leaf, kind) = match leaf {
        "kernel" if (2..=4).contains(&rank) => ("weight", Kind::Kernel),
        "depthwise_kernel" if rank == 4 => ("weight", Kind::Depthwise),
        "gamma" | "embeddings" if !segments.is_empty() => ("weight", Kind::AsStored),
        "beta" => ("bias", Kind::AsStored),
        "moving_mean" => ("running_mean", Kind::AsStored),
        "moving_variance" => ("running_var", Kind::AsStored),
        other => (other, Kind::AsStored),
    };
    let mut turned = String::new();
    for segment in segments {
        // Scopes that only one of several names needs are set off by three underscores, levels within by a dot.
        let segment = segment
            .rsplit_once("___")
            .map_or(segment, |(_, inner)| inner);
        turned.push_str(&segment.replace("_._", "."));
        turned.push('.');
    }
    turned.push_str(leaf);
    (turned, kind)
}

/// What a tensor's data must go through.
#[derive(Clone, Copy)]
enum Kind {
    AsStored,
    /// `[…, in, out]`
    Kernel,
    /// `[height, width, in, multiplier]`
    Depthwise,
}

impl Kind {
    /// The entry as PyTorch has it.
    fn of(self, entry: &Entry) -> Entry {
        match (self, &entry.shape[..]) {
            (Kind::Kernel, _) => {
                let kernel = entry.clone().with_layout(Layout::InOut);
                kernel.in_layout(Layout::OutIn)
            }
            (Kind::Depthwise, &[height, width, inputs, multiplier]) => {
                let channels = inputs.saturating_mul(multiplier);
                let shape = vec![channels, 1, height, width];
                let (stored, turned) = (entry.clone(), shape.clone());
                Entry::new(entry.dtype.clone(), shape, entry.bytes, move || {
                    let matrix = reshaped(stored.read()?, vec![height * width, channels]);
                    Ok(reshaped(data::permuted(matrix, &[1, 0]), turned.clone()))
                })
            }
            _ => entry.clone(),
        }
    }
}

fn reshaped(data: TensorData, shape: Vec<usize>) -> TensorData {
    let dtype = data.dtype();
    TensorData::from_bytes(data.into_bytes(), shape, dtype)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, TensorData};

    use super::{Kind, read_variable, turn};
    use crate::{Dtype, Entry, FormatError};

    fn counted(shape: &[usize]) -> Entry {
        let count: usize = shape.iter().product();
        let data = TensorData::new((0..count as i32).collect::<Vec<_>>(), shape.to_vec());
        Entry::new(Dtype::I32, shape.to_vec(), 4 * count, move || {
            Ok(data.clone())
        })
    }

    #[test]
    fn names_are_turned_as_transformers_turns_them() {
        for (name, shape, turned) in [
            (
                "tf_bert_model/bert/encoder/layer_._0/attention/self/query/kernel",
                &[2, 2][..],
                "bert.encoder.layer.0.attention.self.query.weight",
            ),
            (
                "tf_bert_for_pre_training/mlm___cls/predictions/bias",
                &[3],
                "cls.predictions.bias",
            ),
            (
                "bert/embeddings/LayerNorm/gamma",
                &[3],
                "bert.embeddings.LayerNorm.weight",
            ),
            (
                "bert/embeddings/word_embeddings",
                &[3, 2],
                "bert.embeddings.word_embeddings",
            ),
            (
                "a/position_embeddings/embeddings",
                &[3, 2],
                "a.position_embeddings.weight",
            ),
            ("bn/moving_variance", &[3], "bn.running_var"),
            (
                "tf_whisper_model/model/layers.0/fc1/bias",
                &[3],
                "model.layers.0.fc1.bias",
            ),
            ("output_bias", &[3], "output_bias"),
        ] {
            assert_eq!(turn(name, &counted(shape)).0, turned);
        }
    }

    #[test]
    fn a_frozen_graph_names_what_reads_a_variable() {
        for (name, variable) in [
            (
                "a/query/Tensordot/ReadVariableOp/resource",
                "a/query/kernel",
            ),
            (
                "a/LayerNorm/batchnorm/mul/ReadVariableOp/resource",
                "a/LayerNorm/gamma",
            ),
            (
                "a/bn/FusedBatchNormV3/ReadVariableOp_1/resource",
                "a/bn/moving_variance",
            ),
            ("a/bn/ReadVariableOp_1/resource", "a/bn/beta"),
            ("a/Gather_1/resource", "a/Gather_1"),
            ("a/kernel", "a/kernel"),
        ] {
            assert_eq!(read_variable(name), variable);
        }
    }

    #[test]
    fn layouts_are_turned() -> Result<(), FormatError> {
        let read = |kind: Kind, shape: &[usize]| {
            let entry = kind.of(&counted(shape));
            let data = entry.read()?;
            assert_eq!(data.dtype(), DType::I32);
            assert_eq!(data.shape().to_vec(), entry.shape);
            Ok::<_, FormatError>((entry.shape, data.try_into_vec::<i32>().unwrap_or_default()))
        };
        let (shape, values) = read(Kind::Kernel, &[2, 3])?;
        assert_eq!((shape, values), (vec![3, 2], vec![0, 3, 1, 4, 2, 5]));
        // [width 2, in 2, out 3]: o, i, w.
        let (shape, values) = read(Kind::Kernel, &[2, 2, 3])?;
        assert_eq!(shape, [3, 2, 2]);
        assert_eq!(values, [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11]);
        let (shape, values) = read(Kind::Depthwise, &[1, 2, 2, 2])?;
        assert_eq!(shape, [4, 1, 1, 2]);
        assert_eq!(values, [0, 4, 1, 5, 2, 6, 3, 7]);
        // Beyond one tile.
        let (_, values) = read(Kind::Kernel, &[40, 70])?;
        assert!((0..70).all(|o| (0..40).all(|i| values[o * 40 + i] == (i * 70 + o) as i32)));
        Ok(())
    }
}
