//! What a checkpoint shows of a Whisper.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use super::keys;
use crate::detect::{Evidence, Field, HUGGING_FACE};

/// The width of a head in every published checkpoint, whose tensors do not tell it.
const HEAD: usize = 64;
/// The encoder's positions in every published checkpoint.
const POSITIONS: usize = 1500;
/// The width of the filters of the first convolution.
const FILTER: usize = 3;

pub(super) fn detect(
    checkpoint: &Checkpoint,
    given: &Map<String, Value>,
) -> Option<(&'static str, Vec<Field>)> {
    let openai = keys::is_openai(checkpoint);
    let mut found = Evidence::new(checkpoint, keys::generation(openai));
    let frames = found.find("model.encoder.conv1.weight")?;
    // mlx-examples' Whispers do not store the positions, and lay the channels last.
    let mlx = openai
        && found
            .find("model.encoder.layers.0.mlp.up.weight")?
            .key
            .contains("mlp1");
    let positions = if mlx {
        found.find("model.decoder.position_embeddings")?
    } else {
        found.find("model.encoder.position_embeddings")?
    };
    let (width, bins) = match *frames.shape {
        [width, FILTER, bins] if mlx => (width, bins),
        [width, bins, _] => (width, bins),
        _ => return None,
    };
    let by = format!("`{}` and `{}` are there", frames.key, positions.key);
    found.shown("model_type", "whisper", by);
    let decoder = found.find("model.decoder.token_embeddings.weight");
    if let Some(projector) = found.find("projector.weight") {
        let by = format!("`{}` is there", projector.key);
        let class = json!(["WhisperForAudioClassification"]);
        found.shown("architectures", class, by);
        found.size("classifier_proj_size", "projector.weight", 0);
        found.size("num_labels", "classifier.bias", 0);
        found.presence("use_weighted_layer_sum", "layer_weights");
    } else if openai || frames.key.starts_with("model.") || found.has("proj_out") {
        let by = "the names of the trunk, and of the head where it has its own weights";
        let class = json!(["WhisperForConditionalGeneration"]);
        found.shown("architectures", class, by);
    } else {
        let by = "the names of the trunk, without `model.`";
        found.shown("architectures", json!(["WhisperModel"]), by);
    }
    let dialect = if openai { super::OPENAI } else { HUGGING_FACE };
    if given.contains_key("dims") || given.contains_key("n_mels") {
        // OpenAI's own fields hold all sizes.
        return Some((dialect, found.fields()));
    }
    found.shown("num_mel_bins", bins, &frames);
    found.shown("d_model", width, &frames);
    let stored = found.size(
        "max_source_positions",
        "model.encoder.position_embeddings",
        0,
    );
    if stored.is_none() {
        let why = "the published models hear thirty seconds at once";
        found.usual("max_source_positions", POSITIONS, why);
    }
    side(&mut found, "encoder", width);
    if decoder.is_some() {
        found.size("vocab_size", "model.decoder.token_embeddings.weight", 0);
        found.size(
            "max_target_positions",
            "model.decoder.position_embeddings",
            0,
        );
        side(&mut found, "decoder", width);
    }
    Some((dialect, found.fields()))
}

/// The layers of the encoder or the decoder.
fn side(found: &mut Evidence, side: &'static str, width: usize) {
    let [layers, inner, heads, stored] = match side {
        "encoder" => [
            "encoder_layers",
            "encoder_ffn_dim",
            "encoder_attention_heads",
            "dims.n_audio_head",
        ],
        _ => [
            "decoder_layers",
            "decoder_ffn_dim",
            "decoder_attention_heads",
            "dims.n_text_head",
        ],
    };
    let before = format!("model.{side}.layers.");
    let count = found.count(&before, ".attention.query.weight");
    found.shown(layers, count, format!("{count} layers"));
    found.size(inner, &format!("{before}0.mlp.up.bias"), 0);
    if let Some(count) = found.stored(stored) {
        found.shown(
            heads,
            count,
            format!("`{stored}` beside the tensors is {count}"),
        );
    } else if width.is_multiple_of(HEAD) {
        let why = "the published models have heads 64 wide";
        found.usual(heads, width / HEAD, why);
    } else {
        found.open(heads, Vec::new());
    }
}
