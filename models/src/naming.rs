//! The names that libraries give the tensors of a class.

use salamander_importers::{Checkpoint, KeyMap};
use serde_json::Value;

use crate::{Architecture, PretrainedConfig, bert, find, resnet, vit, whisper};

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
/// architecture, or where every checkpoint of it bears those names already.
pub fn naming(architecture: &Architecture, class: &str, naming: Naming) -> Option<KeyMap> {
    Some(match (architecture.name, naming) {
        ("bert", Naming::HuggingFace) => bert::keys::hugging_face(class),
        ("bert", Naming::LlamaCpp) => bert::keys::llama_cpp(class),
        ("bert", Naming::TensorFlow) => bert::keys::google(class),
        ("resnet", Naming::HuggingFace) => resnet::keys::hugging_face(class),
        ("vit", Naming::HuggingFace) => vit::keys::hugging_face(class),
        ("whisper", Naming::HuggingFace) => whisper::keys::hugging_face(class),
        _ => return None,
    })
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
