//! What a checkpoint shows of a ViT or a DeiT.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use super::keys::Dialect;
use crate::detect::{Evidence, Field, HUGGING_FACE};

pub(super) fn detect(
    checkpoint: &Checkpoint,
    _given: &Map<String, Value>,
) -> Option<(&'static str, Vec<Field>)> {
    let dialect = super::dialect(checkpoint);
    let mut found = Evidence::new(checkpoint, dialect.map());
    let patches = found.find("vit.embeddings.projection.weight")?;
    found.find("vit.layers.0.attention.query.weight")?;
    let norm = found.find("vit.layers.0.attention_norm.weight")?;
    let &[width, channels, patch_height, patch_width] = patches.shape else {
        return None;
    };
    let distilled = found.find("vit.embeddings.distillation_token");
    match &distilled {
        Some(token) => {
            let by = format!("`{}` is there", token.key);
            found.shown("model_type", "deit", by);
        }
        None => {
            let by = format!("`{}` and `{}` are there", patches.key, norm.key);
            found.shown("model_type", "vit", by);
        }
    }
    class(&mut found, distilled.is_some());
    found.shown("hidden_size", width, &patches);
    let layers = found.count("vit.layers.", ".attention_norm.weight");
    found.shown("num_hidden_layers", layers, format!("{layers} layers"));
    found.size("intermediate_size", "vit.layers.0.mlp.up.bias", 0);
    found.shown("num_channels", channels, &patches);
    found.shown("patch_size", sides(patch_height, patch_width), &patches);
    let positions = found.find("vit.embeddings.position_embeddings");
    if let Some(positions) = positions
        && let &[_, count, _] = positions.shape
    {
        // The class token, and perhaps the distillation token, have positions too.
        let count = count.saturating_sub(1 + usize::from(distilled.is_some()));
        let side = count.isqrt();
        if side * side == count && patch_height == patch_width {
            found.shown("image_size", side * patch_height, &positions);
        } else {
            found.open("image_size", Vec::new());
        }
    }
    found.presence("qkv_bias", "vit.layers.0.attention.query.bias");
    if found
        .size("pooler_output_size", "vit.pooler.bias", 0)
        .is_some()
    {
        found.usual("pooler_act", "tanh", "the published models have it");
    }
    if let Some(decoder) = found.find("decoder.weight")
        && let Some(&rows) = decoder.shape.first()
        && channels > 0
    {
        let stride = (rows / channels).isqrt();
        found.shown("encoder_stride", stride, decoder);
    }
    let heads = match width {
        1280 | 1408 => Some(16),
        _ if width.is_multiple_of(64) => Some(width / 64),
        _ => None,
    };
    match heads {
        Some(heads) => {
            let why = "the published models of this width have as many";
            found.usual("num_attention_heads", heads, why);
        }
        None => found.open("num_attention_heads", Vec::new()),
    }
    let name = match dialect {
        Dialect::HuggingFace => HUGGING_FACE,
        Dialect::Timm => "timm",
        Dialect::Torchvision => "torchvision",
    };
    let (epsilon, why) = match dialect {
        Dialect::HuggingFace => (1e-12, "the published models have it"),
        Dialect::Timm | Dialect::Torchvision => (1e-6, "the library's models have it"),
    };
    found.usual("layer_norm_eps", epsilon, why);
    Some((name, found.fields()))
}

/// Two sides as the configuration has them.
fn sides(height: usize, width: usize) -> Value {
    if height == width {
        json!(height)
    } else {
        json!([height, width])
    }
}

/// The reference class, by the heads that are there.
fn class(found: &mut Evidence, distilled: bool) {
    let heads = [
        ("cls_classifier.bias", "distillation_classifier.bias"),
        ("classifier.bias", "classifier.bias"),
        ("decoder.weight", "decoder.weight"),
    ];
    let there = heads.map(|(first, second)| {
        let (first, second) = (found.find(first), found.find(second));
        first.zip(second).map(|(first, _)| first.key)
    });
    let prefix = if distilled { "DeiT" } else { "ViT" };
    let (suffix, by) = match &there {
        [Some(key), ..] => ("ForImageClassificationWithTeacher", Some(key)),
        [_, Some(key), _] => ("ForImageClassification", Some(key)),
        [.., Some(key)] => ("ForMaskedImageModeling", Some(key)),
        [None, None, None] => ("Model", None),
    };
    let by = match by {
        Some(key) => format!("`{key}` is there"),
        None => "there is no head".to_owned(),
    };
    found.shown("architectures", json!([format!("{prefix}{suffix}")]), by);
    let classes = ["cls_classifier.bias", "classifier.bias"];
    if let Some(path) = classes.into_iter().find(|path| found.has(path)) {
        found.size("num_labels", path, 0);
    }
}
