//! What a checkpoint shows of a BERT.

use salamander_importers::Checkpoint;
use serde_json::{Map, Value, json};

use super::keys;
use crate::detect::{Evidence, Field, Found, HUGGING_FACE};

/// The widths of the published models, from tiny to large, whose heads are 64 wide.
const PUBLISHED: [usize; 5] = [128, 256, 512, 768, 1024];

/// What the first layer's norm is called elsewhere than in Hugging Face's checkpoints.
const DIALECTS: [(&str, &str); 3] = [
    ("layer_0.", "google-research/bert"),
    ("blk.", "llama.cpp"),
    (".ln1", "mlx-examples"),
];

pub(super) fn detect(
    checkpoint: &Checkpoint,
    _given: &Map<String, Value>,
) -> Option<(&'static str, Vec<Field>)> {
    let mut found = Evidence::new(checkpoint, keys::with_heads());
    let norm = "bert.layers.0.attention_norm.weight";
    let norm = found
        .find(norm)
        .or(found.find("bert.layers.0.attention_norm.gamma"))?;
    let words = found.find("bert.embeddings.word_embeddings.weight")?;
    let &[_, width] = words.shape else {
        return None;
    };
    // RoBERTa has the same names, and two more positions than its longest text has tokens.
    let positions = found.find("bert.embeddings.position_embeddings.weight");
    if positions.is_some_and(|positions| positions.shape.first() == Some(&514)) {
        return None;
    }
    let dialect = DIALECTS.iter().find(|(part, _)| norm.key.contains(part));
    let dialect = dialect.map_or(HUGGING_FACE, |(_, dialect)| dialect);
    found.shown("model_type", "bert", format!("`{}` is there", norm.key));
    class(&mut found);
    found.size("vocab_size", "bert.embeddings.word_embeddings.weight", 0);
    found.shown("hidden_size", width, words);
    let layers = found.count("bert.layers.", ".attention.query.weight");
    found.shown("num_hidden_layers", layers, format!("{layers} layers"));
    found.size("intermediate_size", "bert.layers.0.mlp.up.bias", 0);
    found.size(
        "type_vocab_size",
        "bert.embeddings.token_type_embeddings.weight",
        0,
    );
    let distances = "bert.layers.0.attention.distance_embedding.weight";
    if let Some(distances) = found.find(distances) {
        if let &[rows, head] = distances.shape
            && head > 0
        {
            found.shown("max_position_embeddings", rows.div_ceil(2), &distances);
            found.shown("num_attention_heads", width / head, &distances);
        }
        let kinds = vec![json!("relative_key"), json!("relative_key_query")];
        found.open("position_embedding_type", kinds);
    } else {
        let positions = "bert.embeddings.position_embeddings.weight";
        found.size("max_position_embeddings", positions, 0);
        if PUBLISHED.contains(&width) {
            let why = "the published models have heads 64 wide";
            found.usual("num_attention_heads", width / 64, why);
        } else {
            let sizes = [32, 64].iter().filter(|head| width.is_multiple_of(**head));
            let candidates = sizes.map(|head| json!(width / head)).collect();
            found.open("num_attention_heads", candidates);
        }
    }
    Some((dialect, found.fields()))
}

/// The reference class, by the heads that are there.
fn class(found: &mut Evidence) {
    let words = found.find("predictions.dense.weight");
    let next = found.find("seq_relationship.weight");
    let answers = found.find("qa_outputs.weight");
    let classes = found.find("classifier.bias");
    let pooled = found.find("bert.pooler.weight");
    let count = classes.as_ref().and_then(|bias| bias.shape.first());
    let count = count.copied().unwrap_or_default();
    let is_there = |head: &Found| format!("`{}` is there", head.key);
    let (name, by) = match (&words, &next, &answers, &classes, &pooled) {
        (Some(words), Some(next), ..) => {
            let by = format!("`{}` and `{}` are there", words.key, next.key);
            ("BertForPreTraining", by)
        }
        (Some(head), ..) => ("BertForMaskedLM", is_there(head)),
        (_, Some(head), ..) => ("BertForNextSentencePrediction", is_there(head)),
        (_, _, Some(head), ..) => ("BertForQuestionAnswering", is_there(head)),
        (_, _, _, Some(_), Some(_)) if count == 1 => {
            let classes = ["BertForSequenceClassification", "BertForMultipleChoice"];
            let candidates = classes.iter().map(|class| json!([class])).collect();
            found.open("architectures", candidates);
            return;
        }
        (_, _, _, Some(head), Some(pooled)) => {
            let by = format!("`{}` and `{}` are there", head.key, pooled.key);
            ("BertForSequenceClassification", by)
        }
        (_, _, _, Some(head), None) => {
            let by = format!("`{}` is there, and no pooler", head.key);
            ("BertForTokenClassification", by)
        }
        _ => ("BertModel", "there is no head".to_owned()),
    };
    found.shown("architectures", json!([name]), by);
    if let Some(classes) = classes {
        found.shown("num_labels", count, classes);
    }
}
