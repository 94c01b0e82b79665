//! The names that libraries give the tensors of a class.

use std::collections::HashSet;

use burn::tensor::TensorData;
use salamander_importers::{Checkpoint, Entry, KeyMap};
use serde_json::Value;

use crate::{Architecture, PretrainedConfig, bert, find, patchtst, resnet, vit, whisper};

/// A library's way to name tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// As `save_pretrained` of Hugging Face's transformers stores them.
    HuggingFace,
    /// As llama.cpp's converter does.
    LlamaCpp,
    /// As the TensorFlow code that an architecture was published with does: google-research/bert's. Of the names
    /// in its checkpoints these are what [`Checkpoint::in_pytorch_layout`] leaves.
    ///
    /// [`Checkpoint::in_pytorch_layout`]: salamander_importers::Checkpoint::in_pytorch_layout
    TensorFlow,
}

/// The names of a class in a library, read from the module's side; `None` where the library does not have the
/// architecture, or not this variant of it.
pub fn naming(
    architecture: &Architecture,
    class: &str,
    naming: Naming,
    config: &Value,
    checkpoint: &Checkpoint,
) -> Option<KeyMap> {
    Some(match (architecture.name, naming) {
        ("bert", Naming::HuggingFace) => bert::keys::hugging_face(class),
        ("bert", Naming::LlamaCpp) => bert::keys::llama_cpp(class),
        ("bert", Naming::TensorFlow) => bert::keys::google(class),
        ("patchtst", Naming::HuggingFace) => patchtst::hugging_face(config, class, checkpoint)?,
        ("resnet", Naming::HuggingFace) => resnet::keys::hugging_face(config, class)?,
        ("vit", Naming::HuggingFace) => vit::keys::hugging_face(class),
        ("whisper", Naming::HuggingFace) => whisper::keys::hugging_face(class),
        _ => return None,
    })
}

/// What `save_pretrained` stores and other libraries do not, under names that are Hugging Face's already: norms that an
/// exporter folded into their convolutions, as norms that change nothing, the counters of batch norms,
/// and the second name of a bias.
pub fn completed_for_hugging_face(
    architecture: &Architecture,
    config: &Value,
    entries: Vec<(String, Entry)>,
) -> Vec<(String, Entry)> {
    let mut completed = Vec::with_capacity(entries.len());
    let unfolds = architecture.name == resnet::ARCHITECTURE.name;
    for (name, entry) in entries {
        match name.strip_suffix(".convolution.bias") {
            Some(layer) if unfolds => {
                completed.extend(resnet::identity_norm(layer, entry));
            }
            _ => completed.push((name, entry)),
        }
    }
    if architecture.name == bert::ARCHITECTURE.name {
        completed.extend(bert::keys::untied_bias(config, &completed));
    }
    let known: HashSet<String> = completed.iter().map(|(name, _)| name.clone()).collect();
    let mut whole = Vec::with_capacity(completed.len());
    for (name, entry) in completed {
        let norm = name.strip_suffix(".running_var").map(str::to_owned);
        whole.push((name, entry));
        let counter = norm.map(|norm| format!("{norm}.num_batches_tracked"));
        if let Some(counter) = counter.filter(|counter| !known.contains(counter)) {
            whole.push((
                counter,
                Entry::computed(TensorData::new(vec![0_i64], [0; 0])),
            ));
        }
    }
    whole
}

/// A model as transformers has it where another library says the same in its own way: OpenAI's sizes of a Whisper,
/// what mlx-examples computes and does not store, and MLX's note on weights that are no longer quantized once they
/// are read.
pub fn in_hugging_face(mut config: Value, checkpoint: Checkpoint) -> (Value, Checkpoint) {
    if let Some(fields) = config.as_object_mut()
        && let Some(settings) = fields.remove("quantization")
        && fields.get("quantization_config") == Some(&settings)
    {
        fields.remove("quantization_config");
    }
    let parsed = PretrainedConfig::parse(&config);
    match parsed.and_then(|common| find(&common)) {
        Ok(found) if found.name == whisper::ARCHITECTURE.name => {
            whisper::hugging_face(config, checkpoint)
        }
        _ => (config, checkpoint),
    }
}
