//! What a checkpoint shows of a PatchTST.

use salamander_importers::{Checkpoint, KeyMap};
use serde_json::{Map, Value, json};

use crate::detect::{Evidence, Field, HUGGING_FACE};

/// Patches may leave out up to a stride of steps at the beginning.
const SHORTEST: &str = "the shortest past of as many patches";

pub(super) fn detect(
    checkpoint: &Checkpoint,
    given: &Map<String, Value>,
) -> Option<(&'static str, Vec<Field>)> {
    if let Some(fields) = fields(checkpoint, given) {
        return Some((HUGGING_FACE, fields));
    }
    Some(("original", original(checkpoint, given)?))
}

/// Of transformers' classes, where `patch_stride` may be given.
pub(super) fn fields(checkpoint: &Checkpoint, given: &Map<String, Value>) -> Option<Vec<Field>> {
    let mut found = Evidence::new(checkpoint, KeyMap::new(&[], &["model.", ""]));
    let embedding = "encoder.embedder.input_embedding";
    let separate = found.count(&format!("{embedding}."), ".weight");
    let weight = found.find(&format!("{embedding}.weight"));
    let weight = weight.or(found.find(&format!("{embedding}.0.weight")))?;
    let &[width, patch] = weight.shape else {
        return None;
    };
    found.shown(
        "model_type",
        "patchtst",
        format!("`{}` is there", weight.key),
    );
    found.shown("share_embedding", separate == 0, &weight);
    found.shown("d_model", width, &weight);
    found.shown("patch_length", patch, &weight);
    let class_token = found.presence("use_cls_token", "encoder.positional_encoder.cls_token");
    let layers = found.count("encoder.layers.", ".ff.0.weight");
    found.shown("num_hidden_layers", layers, format!("{layers} layers"));
    let norm = "encoder.layers.0.norm_sublayer";
    let channels = match found.find(&format!("{norm}2.weight")) {
        Some(norm) => Some(norm),
        None => found.find(&format!("{norm}2.batchnorm.weight")),
    };
    match channels {
        Some(norm) => {
            let by = format!("`{}` is there", norm.key);
            found.shown("channel_attention", true, by);
        }
        None => found.shown("channel_attention", false, "there is no `norm_sublayer2`"),
    }
    let batch = found.has(&format!("{norm}1.batchnorm.weight"));
    let kind = if batch { "batchnorm" } else { "layernorm" };
    found.shown("norm_type", kind, "the names of `norm_sublayer1`");
    if found
        .size("ffn_dim", "encoder.layers.0.ff.0.weight", 0)
        .is_some()
    {
        found.presence("bias", "encoder.layers.0.ff.0.bias");
    }
    let projections = found.count("head.projections.", ".weight");
    let projections = projections.max(found.count("head.projections.", ".proj.0.weight"));
    let by = format!("{projections} `head.projections`");
    found.shown("share_projection", projections == 0, by);
    match separate.max(projections) {
        0 => found.open("num_input_channels", Vec::new()),
        count => found.shown("num_input_channels", count, "modules a series"),
    }
    let positions = found.find("encoder.positional_encoder.position_enc");
    let states = positions
        .as_ref()
        .and_then(|positions| positions.shape.first());
    let patches = states.map(|states| states.saturating_sub(usize::from(class_token)));
    let stride = given.get("patch_stride").and_then(Value::as_u64);
    if let (Some(patches), Some(stride)) = (patches, stride) {
        let between = patches.saturating_sub(1).saturating_mul(stride as usize);
        found.usual("context_length", between.saturating_add(patch), SHORTEST);
    }
    head(
        &mut found,
        width,
        patch,
        patches,
        projections > 0,
        class_token,
    );
    found.open("num_attention_heads", Vec::new());
    found.open("patch_stride", Vec::new());
    Some(found.fields())
}

fn head(
    found: &mut Evidence,
    width: usize,
    patch: usize,
    patches: Option<usize>,
    separate: bool,
    class_token: bool,
) {
    let head = |found: &Evidence, leaf: &str| {
        let shared = found.find(&format!("head.projection{leaf}"));
        let own = found.find(&format!("head.projections.0{leaf}"));
        shared
            .or(own)
            .map(|head| (head.to_string(), head.shape.to_vec()))
    };
    let parameters = head(found, ".proj.0.weight");
    if let Some((by, _)) = &parameters {
        found.shown("loss", "nll", by);
        let three = head(found, ".proj.2.weight").is_some();
        if three {
            found.shown("distribution_output", "student_t", "three parameters");
        } else {
            let families = vec![json!("normal"), json!("negative_binomial")];
            found.open("distribution_output", families);
        }
    }
    if let Some((by, shape)) = parameters.or(head(found, ".weight"))
        && let [length, inputs] = shape[..]
    {
        let flat = patches.is_some_and(|patches| inputs == patches.saturating_mul(width));
        let predicts = separate || flat || inputs == width;
        let class = if predicts {
            "PatchTSTForPrediction"
        } else {
            "PatchTSTForRegression"
        };
        found.shown("architectures", json!([class]), &by);
        found.shown("prediction_length", length, &by);
        found.shown("num_targets", length, &by);
        if flat && patches != Some(1) && !class_token {
            found.shown("pooling_type", Value::Null, &by);
        }
    } else if let Some(linear) = found.find("head.linear.weight") {
        let by = linear.to_string();
        let class = if linear.shape == [patch, width] {
            "PatchTSTForPretraining"
        } else {
            "PatchTSTForClassification"
        };
        found.shown("architectures", json!([class]), &by);
        found.size("num_targets", "head.linear.weight", 0);
    } else {
        found.shown(
            "architectures",
            json!(["PatchTSTModel"]),
            "there is no head",
        );
    }
}

/// Of the original repository's model, whose arguments may be `given`.
pub(super) fn original(checkpoint: &Checkpoint, given: &Map<String, Value>) -> Option<Vec<Field>> {
    let prefixes = &["model.", "module.model.", "", "model_trend."];
    let mut found = Evidence::new(checkpoint, KeyMap::new(&[], prefixes));
    let embedding = found.find("backbone.W_P.weight")?;
    let encodings = found.find("backbone.W_pos")?;
    let (&[width, patch], &[patches, positions]) = (embedding.shape, encodings.shape) else {
        return None;
    };
    let by = format!("`{}` is there", embedding.key);
    found.shown("model_type", "patchtst", by);
    let by = "the original repository's names";
    found.shown("architectures", json!(["patchtst/original"]), by);
    found.shown("d_model", width, &embedding);
    found.shown("patch_len", patch, &embedding);
    let layers = found.count("backbone.encoder.layers.", ".ff.0.weight");
    found.shown("e_layers", layers, format!("{layers} layers"));
    let layer = "backbone.encoder.layers.0";
    found.size("d_ff", &format!("{layer}.ff.0.weight"), 0);
    heads(&mut found, checkpoint, layer, width);
    let separate = found.count("head.linears.", ".weight");
    let own = found.find("head.linears.0.weight");
    if let Some(head) = found.find("head.linear.weight").or(own)
        && let Some(&future) = head.shape.first()
    {
        found.shown("pred_len", future, head);
    }
    let by = format!("{separate} `head.linears`");
    found.shown("individual", separate > 0, by);
    let affine = found.presence("affine", "revin_layer.affine_weight");
    let trend = checkpoint.get("model_trend.backbone.W_P.weight").is_some();
    found.shown("decomposition", trend, "the prefix of the names");
    if affine {
        found.size("enc_in", "revin_layer.affine_weight", 0);
    } else if separate > 0 {
        found.shown("enc_in", separate, "heads a series");
    }
    let kind = if positions == width { "zeros" } else { "zero" };
    found.shown("pe", kind, encodings);
    let script = "the script's default";
    let stride = given.get("stride").and_then(Value::as_u64).unwrap_or(8) as usize;
    let padded = match given.get("padding_patch") {
        Some(padding) => padding == "end",
        None => true,
    };
    let steps = patches.saturating_sub(1 + usize::from(padded));
    let steps = steps.saturating_mul(stride).saturating_add(patch);
    found.usual("seq_len", steps, SHORTEST);
    for (field, value) in [
        ("stride", json!(8)),
        ("padding_patch", json!("end")),
        ("revin", json!(1)),
        ("subtract_last", json!(0)),
        ("kernel_size", json!(25)),
        ("res_attention", json!(true)),
        ("pre_norm", json!(false)),
        ("act", json!("gelu")),
    ] {
        found.usual(field, value, script);
    }
    let norm = found.has(&format!("{layer}.norm_attn.weight"));
    let norm = if norm { "LayerNorm" } else { "BatchNorm" };
    found.shown("norm", norm, "the names of `norm_attn`");
    Some(found.fields())
}

/// The number of heads, which a stored scale of 1/√(width of a head) tells.
fn heads(found: &mut Evidence, checkpoint: &Checkpoint, layer: &str, width: usize) {
    let scale = found.find(&format!("{layer}.self_attn.sdp_attn.scale"));
    let value = scale.as_ref().and_then(|scale| {
        let data = checkpoint.get(&scale.key)?.read().ok()?;
        data.iter::<f64>().next()
    });
    match (scale, value) {
        (Some(scale), Some(value)) => {
            let heads = (width as f64 * value * value).round() as u64;
            found.shown("n_heads", heads, format!("`{}` is {value}", scale.key));
        }
        _ => found.open("n_heads", Vec::new()),
    }
}
