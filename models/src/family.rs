//! GPT-2 and T5 between llama.cpp's GGUF files and Hugging Face's: names, layouts and configurations as tables.
//!
//! The zoo does not run them; their files can be converted. Reference: `TensorNameMap` of the `gguf` package 0.19,
//! and `convert_hf_to_gguf.py` of llama.cpp for the keys.

use salamander_importers::{Checkpoint, Format, Layout, Row, gguf, rename};
use serde_json::{Map, Value, json};

use crate::ConfigError;
use crate::contained::Metadata;

/// Models of one kind, as two libraries name their tensors and settings.
#[derive(Debug)]
pub struct Family {
    /// `general.architecture` of GGUF and `model_type` of Hugging Face's configurations.
    pub name: &'static str,
    /// The class that a GGUF file is of.
    class: &'static str,
    /// llama.cpp's names and Hugging Face's, whose trunk may also stand without `trunk`.
    rows: &'static [Row],
    trunk: &'static str,
    /// What llama.cpp calls the weights that Hugging Face's files have as `[in, out]`.
    in_out: &'static [&'static str],
    /// Buffers, and tables that are one with another, which llama.cpp does not store.
    superfluous: &'static [&'static str],
    settings: &'static [Setting],
}

/// A key behind the family's name, the fields that may say it, and what it is where none does.
type Setting = (&'static str, &'static [&'static str], Usual);

#[derive(Debug, Clone, Copy)]
enum Usual {
    Nothing,
    Natural(u32),
    Number(f32),
    /// So many times the embedding's length.
    Times(u64),
}

use Usual::{Natural, Nothing, Number, Times};

const GPT2: Family = Family {
    name: "gpt2",
    class: "GPT2LMHeadModel",
    rows: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("blk.{i}.attn_norm", "transformer.h.{i}.ln_1"),
        ("blk.{i}.attn_qkv", "transformer.h.{i}.attn.c_attn"),
        ("blk.{i}.attn_output", "transformer.h.{i}.attn.c_proj"),
        ("blk.{i}.ffn_norm", "transformer.h.{i}.ln_2"),
        ("blk.{i}.ffn_up", "transformer.h.{i}.mlp.c_fc"),
        ("blk.{i}.ffn_down", "transformer.h.{i}.mlp.c_proj"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    trunk: "transformer.",
    in_out: &[
        "attn_qkv.weight",
        "attn_output.weight",
        "ffn_up.weight",
        "ffn_down.weight",
    ],
    superfluous: &[
        "transformer.h.{i}.attn.bias",
        "transformer.h.{i}.attn.masked_bias",
    ],
    settings: &[
        ("context_length", &["n_positions", "n_ctx"], Natural(1024)),
        ("embedding_length", &["n_embd"], Natural(768)),
        ("block_count", &["n_layer"], Natural(12)),
        ("feed_forward_length", &["n_inner"], Times(4)),
        ("attention.head_count", &["n_head"], Natural(12)),
        (
            "attention.layer_norm_epsilon",
            &["layer_norm_epsilon"],
            Number(1e-5),
        ),
    ],
};

const T5: Family = Family {
    name: "t5",
    class: "T5ForConditionalGeneration",
    rows: &[
        ("token_embd", "shared"),
        ("output", "lm_head"),
        (
            "enc.blk.{i}.attn_norm",
            "encoder.block.{i}.layer.0.layer_norm",
        ),
        (
            "enc.blk.{i}.attn_q",
            "encoder.block.{i}.layer.0.SelfAttention.q",
        ),
        (
            "enc.blk.{i}.attn_k",
            "encoder.block.{i}.layer.0.SelfAttention.k",
        ),
        (
            "enc.blk.{i}.attn_v",
            "encoder.block.{i}.layer.0.SelfAttention.v",
        ),
        (
            "enc.blk.{i}.attn_o",
            "encoder.block.{i}.layer.0.SelfAttention.o",
        ),
        (
            "enc.blk.{i}.attn_rel_b",
            "encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias",
        ),
        (
            "enc.blk.{i}.ffn_norm",
            "encoder.block.{i}.layer.1.layer_norm",
        ),
        (
            "enc.blk.{i}.ffn_up",
            "encoder.block.{i}.layer.1.DenseReluDense.wi",
        ),
        (
            "enc.blk.{i}.ffn_gate",
            "encoder.block.{i}.layer.1.DenseReluDense.wi_0",
        ),
        (
            "enc.blk.{i}.ffn_up",
            "encoder.block.{i}.layer.1.DenseReluDense.wi_1",
        ),
        (
            "enc.blk.{i}.ffn_down",
            "encoder.block.{i}.layer.1.DenseReluDense.wo",
        ),
        ("enc.output_norm", "encoder.final_layer_norm"),
        (
            "dec.blk.{i}.attn_norm",
            "decoder.block.{i}.layer.0.layer_norm",
        ),
        (
            "dec.blk.{i}.attn_q",
            "decoder.block.{i}.layer.0.SelfAttention.q",
        ),
        (
            "dec.blk.{i}.attn_k",
            "decoder.block.{i}.layer.0.SelfAttention.k",
        ),
        (
            "dec.blk.{i}.attn_v",
            "decoder.block.{i}.layer.0.SelfAttention.v",
        ),
        (
            "dec.blk.{i}.attn_o",
            "decoder.block.{i}.layer.0.SelfAttention.o",
        ),
        (
            "dec.blk.{i}.attn_rel_b",
            "decoder.block.{i}.layer.0.SelfAttention.relative_attention_bias",
        ),
        (
            "dec.blk.{i}.cross_attn_norm",
            "decoder.block.{i}.layer.1.layer_norm",
        ),
        (
            "dec.blk.{i}.cross_attn_q",
            "decoder.block.{i}.layer.1.EncDecAttention.q",
        ),
        (
            "dec.blk.{i}.cross_attn_k",
            "decoder.block.{i}.layer.1.EncDecAttention.k",
        ),
        (
            "dec.blk.{i}.cross_attn_v",
            "decoder.block.{i}.layer.1.EncDecAttention.v",
        ),
        (
            "dec.blk.{i}.cross_attn_o",
            "decoder.block.{i}.layer.1.EncDecAttention.o",
        ),
        (
            "dec.blk.{i}.cross_attn_rel_b",
            "decoder.block.{i}.layer.1.EncDecAttention.relative_attention_bias",
        ),
        (
            "dec.blk.{i}.ffn_norm",
            "decoder.block.{i}.layer.2.layer_norm",
        ),
        (
            "dec.blk.{i}.ffn_up",
            "decoder.block.{i}.layer.2.DenseReluDense.wi",
        ),
        (
            "dec.blk.{i}.ffn_gate",
            "decoder.block.{i}.layer.2.DenseReluDense.wi_0",
        ),
        (
            "dec.blk.{i}.ffn_up",
            "decoder.block.{i}.layer.2.DenseReluDense.wi_1",
        ),
        (
            "dec.blk.{i}.ffn_down",
            "decoder.block.{i}.layer.2.DenseReluDense.wo",
        ),
        ("dec.output_norm", "decoder.final_layer_norm"),
    ],
    trunk: "",
    in_out: &[],
    superfluous: &["encoder.embed_tokens", "decoder.embed_tokens"],
    settings: &[
        ("context_length", &["n_positions"], Natural(512)),
        ("embedding_length", &["d_model"], Natural(512)),
        ("feed_forward_length", &["d_ff"], Natural(2048)),
        ("block_count", &["num_layers"], Natural(6)),
        (
            "decoder_block_count",
            &["num_decoder_layers", "num_layers"],
            Natural(6),
        ),
        ("attention.head_count", &["num_heads"], Natural(8)),
        ("attention.key_length", &["d_kv"], Natural(64)),
        ("attention.value_length", &["d_kv"], Natural(64)),
        (
            "attention.layer_norm_epsilon",
            &["layer_norm_epsilon"],
            Number(1e-6),
        ),
        (
            "attention.layer_norm_rms_epsilon",
            &["layer_norm_epsilon"],
            Number(1e-6),
        ),
        (
            "attention.relative_buckets_count",
            &["relative_attention_num_buckets"],
            Natural(32),
        ),
        (
            "decoder_start_token_id",
            &["decoder_start_token_id"],
            Nothing,
        ),
    ],
};

const FAMILIES: [&Family; 2] = [&GPT2, &T5];

impl Family {
    /// The family that a configuration names, or else a GGUF file.
    pub fn find(checkpoint: &Checkpoint, config: Option<&Value>) -> Option<&'static Self> {
        let gguf = matches!(checkpoint.format, Format::Gguf | Format::SplitGguf);
        let name = match config.and_then(|config| config.get("model_type")?.as_str()) {
            None if gguf => checkpoint.metadata.get("general.architecture")?,
            found => found?,
        };
        FAMILIES.into_iter().find(|family| family.name == name)
    }

    /// llama.cpp's name for a tensor of Hugging Face's, and how its axes lie there; `None` if it has none.
    pub fn to_llama_cpp(&self, name: &str) -> Option<(String, Layout)> {
        let rows = || self.rows.iter().map(|(llama, own)| (*own, *llama));
        let found = rename(rows(), name);
        let found = found.or_else(|| rename(rows(), &format!("{}{name}", self.trunk)))?;
        let layout = self.layout(&found);
        Some((found, layout))
    }

    /// Hugging Face's name for a tensor of llama.cpp's, and how its axes lie there; `None` if it has none.
    ///
    /// `gated` says whether layers have a gate, on which the name of the product beside it depends.
    pub fn to_hugging_face(&self, name: &str, gated: bool) -> Option<(String, Layout)> {
        let rows = self
            .rows
            .iter()
            .filter(|(_, own)| match own.rsplit('.').next() {
                Some("wi") => !gated,
                Some("wi_0" | "wi_1") => gated,
                _ => true,
            });
        let found = rename(rows.copied(), name)?;
        Some((found, self.layout(name)))
    }

    /// Whether layers of a file with llama.cpp's names have a gate.
    pub fn is_gated(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint
            .iter()
            .any(|(name, _)| name.contains(".ffn_gate."))
    }

    /// Whether llama.cpp does without a tensor of Hugging Face's.
    pub fn is_superfluous(&self, name: &str) -> bool {
        let names = [name.to_owned(), format!("{}{name}", self.trunk)];
        let rows = || self.superfluous.iter().map(|pattern| (*pattern, ""));
        names.iter().any(|name| rename(rows(), name).is_some())
    }

    fn layout(&self, llama: &str) -> Layout {
        let in_out = self.in_out.iter().any(|ending| {
            let before = llama.strip_suffix(ending);
            before.is_some_and(|before| before.ends_with('.'))
        });
        if in_out { Layout::InOut } else { Layout::OutIn }
    }

    /// What llama.cpp must know of a configuration, by its keys.
    pub fn keys(&self, config: &Value) -> Vec<(String, gguf::Value)> {
        let embedding = config.get("n_embd").and_then(Value::as_u64).unwrap_or(768);
        let keys = self.settings.iter().filter_map(|(key, fields, usual)| {
            let mut fields = fields.iter().filter_map(|field| config.get(*field));
            let found = fields.find(|value| value.is_number());
            let natural = found
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok());
            let value = match usual {
                Nothing => gguf::Value::u32(natural?),
                Natural(usual) => gguf::Value::u32(natural.unwrap_or(*usual)),
                Times(factor) => {
                    let usual = u32::try_from(factor.saturating_mul(embedding)).ok();
                    gguf::Value::u32(natural.or(usual)?)
                }
                Number(usual) => {
                    let number = found.and_then(Value::as_f64);
                    gguf::Value::f32(number.map_or(*usual, |number| number as f32))
                }
            };
            Some((format!("{}.{key}", self.name), value))
        });
        keys.collect()
    }

    /// The configuration that a GGUF file's keys stand for.
    ///
    /// # Errors
    /// A key is of another type.
    pub fn config(&self, checkpoint: &Checkpoint) -> Result<Value, ConfigError> {
        let metadata = Metadata::of(checkpoint);
        let mut config = Map::new();
        config.insert("model_type".to_owned(), json!(self.name));
        config.insert("architectures".to_owned(), json!([self.class]));
        for (key, fields, usual) in self.settings {
            let key = format!("{}.{key}", self.name);
            let value = match usual {
                Number(_) => metadata.find::<f64>(&key)?.map(Value::from),
                _ => metadata.find::<u64>(&key)?.map(Value::from),
            };
            if let (Some(value), Some(field)) = (value, fields.first()) {
                config.insert((*field).to_owned(), value);
            }
        }
        let shape = |name: &str| checkpoint.get(name).map(|entry| &entry.shape[..]);
        if let Some([words, _]) = shape("token_embd.weight") {
            config.insert("vocab_size".to_owned(), json!(words));
        }
        let tied = shape("output.weight").is_none();
        config.insert("tie_word_embeddings".to_owned(), json!(tied));
        if self.name == T5.name {
            let feed = if self.is_gated(checkpoint) {
                "gated-gelu"
            } else {
                "relu"
            };
            config.insert("feed_forward_proj".to_owned(), json!(feed));
        }
        for (key, field) in [
            ("bos", "bos_token_id"),
            ("eos", "eos_token_id"),
            ("padding", "pad_token_id"),
        ] {
            let id: Option<u64> = metadata.find(&format!("tokenizer.ggml.{key}_token_id"))?;
            if let Some(id) = id {
                config.insert(field.to_owned(), json!(id));
            }
        }
        Ok(Value::Object(config))
    }
}
