//! BERT: bidirectional transformer encoders of text.
//!
//! - Paper: Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers for Language
//!   Understanding*, <https://arxiv.org/abs/1810.04805>
//! - Reference: `src/transformers/models/bert/modeling_bert.py` of transformers 5.23; for
//!   `position_embedding_type` other than `absolute`, which that version ignores, of 4.46
//! - Checkpoints: Hugging Face's, with or without `bert.`, with `gamma`/`beta` or `weight`/`bias`, with
//!   heads and buffers that the class does not need; TensorFlow's of transformers and of google-research/bert
//! - Refused: cross attention, pruned heads
//!
//! [`BertConfig`] → [`Bert`] (the trunk) → one struct a head.

mod config;
mod contained;
mod detect;
mod heads;
pub(crate) mod keys;
mod model;

use burn::tensor::Device;
use salamander_importers::{Checkpoint, FormatError, KeyMap};

use crate::load::load;
use crate::tensors::{Ints, named};
use crate::{
    Architecture, Class, InputError, Inputs, LoadError, Model, Outputs, PretrainedConfig, Task,
    Value,
};
use heads::Head;

pub(crate) use contained::contained;

pub use config::BertConfig;
pub use heads::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification,
};
pub use model::{Bert, Tokens};

/// BERT's entry in the registry.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "bert",
    paper: "https://arxiv.org/abs/1810.04805",
    model_types: &["bert"],
    classes: &[
        Class::new("BertModel", Some(Task::TextEmbedding)),
        Class::new(
            "BertForSequenceClassification",
            Some(Task::TextClassification),
        ),
        Class::new(
            "BertForTokenClassification",
            Some(Task::TokenClassification),
        ),
        Class::new("BertForMaskedLM", Some(Task::FillMask)),
        Class::new("BertForQuestionAnswering", Some(Task::QuestionAnswering)),
        // Its checkpoints fill masks as BertForMaskedLM, which leaves the other head out.
        Class::new("BertForPreTraining", None),
        Class::new("BertForNextSentencePrediction", None),
        Class::new("BertForMultipleChoice", None),
        Class::new("BertLMHeadModel", None),
    ],
    load: load_class,
    detect: detect::detect,
    presets: Vec::new,
};

fn load_class(
    json: &serde_json::Value,
    class: &str,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<Box<dyn Model>, LoadError> {
    let config = BertConfig::parse(json)?;
    config.check_depth(checkpoint.len())?;
    let loader = Loader {
        class,
        checkpoint,
        device,
        config: &config,
    };
    let classes = || PretrainedConfig::parse(json).map(|common| common.labels().len());
    match class {
        "BertModel" => loader.fill(loader.trunk()?, &keys::trunk()),
        "BertForSequenceClassification" => loader.head(BertForSequenceClassification::new(
            &config,
            classes()?,
            device,
        )?),
        "BertForTokenClassification" => loader.head(BertForTokenClassification::new(
            &config,
            classes()?,
            device,
        )?),
        "BertForQuestionAnswering" => loader.head(BertForQuestionAnswering::new(&config, device)?),
        "BertForNextSentencePrediction" => {
            loader.head(BertForNextSentencePrediction::new(&config, device)?)
        }
        "BertForMultipleChoice" => loader.head(BertForMultipleChoice::new(&config, device)?),
        "BertForPreTraining" => {
            loader.head(BertForPreTraining::new(&config, loader.tied()?, device)?)
        }
        // BertForMaskedLM, and BertLMHeadModel, which is the same with a causal trunk.
        _ => loader.head(BertForMaskedLM::new(&config, loader.tied()?, device)?),
    }
}

/// What building any of the classes needs.
struct Loader<'a> {
    class: &'a str,
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    config: &'a BertConfig,
}

impl Loader<'_> {
    /// Whether the output layer is the word embeddings: the configuration says so, and the checkpoint
    /// does not hold a different one. The reference decides the same way.
    fn tied(&self) -> Result<bool, FormatError> {
        let decoder = self.checkpoint.get("cls.predictions.decoder.weight");
        let names = [
            "bert.embeddings.word_embeddings.weight",
            "embeddings.word_embeddings.weight",
        ];
        let words = names.iter().find_map(|name| self.checkpoint.get(name));
        match (self.config.tie_word_embeddings, decoder, words) {
            (true, Some(decoder), Some(words)) => Ok(decoder.out_in_shape() == words.shape
                && decoder.read_out_in()?.as_bytes() == words.read()?.as_bytes()),
            (tied, _, _) => Ok(tied),
        }
    }

    /// The trunk alone, with a pooler if the checkpoint has one.
    fn trunk(&self) -> Result<Bert, LoadError> {
        // Its weight has other names elsewhere.
        let mut keys = keys::trunk().candidates("pooler.bias").into_iter();
        let pooler = keys.any(|key| self.checkpoint.get(&key).is_some());
        Ok(Bert::new(self.config, pooler, self.device)?)
    }

    fn head<M: Head + 'static>(&self, module: M) -> Result<Box<dyn Model>, LoadError> {
        self.fill(module, &keys::with_heads())
    }

    fn fill<M: Head + 'static>(
        &self,
        module: M,
        map: &KeyMap,
    ) -> Result<Box<dyn Model>, LoadError> {
        Ok(Box::new(Served {
            module: load(module, self.class, map, self.checkpoint)?,
            limits: Limits::new(self.config),
            device: self.device.clone(),
        }))
    }
}

/// The sizes of the tables that inputs index.
#[derive(Debug)]
struct Limits {
    words: i64,
    types: i64,
    positions: usize,
}

impl Limits {
    fn new(config: &BertConfig) -> Self {
        Self {
            words: config.vocab_size as i64,
            types: config.type_vocab_size as i64,
            positions: config.max_position_embeddings,
        }
    }

    /// Checks the inputs of rank `D`, whose last dimension is the sequence, and puts them on `device` as
    /// rows. Gives the shape of `input_ids` too.
    fn tokens<const D: usize>(
        &self,
        mut inputs: Inputs,
        device: &Device,
    ) -> Result<(Tokens, [usize; D]), InputError> {
        let ids: Ints<D> = inputs
            .ints("input_ids", 0..self.words)?
            .ok_or_else(|| InputError::new("input_ids", "is missing"))?;
        let sequence = ids.shape[D - 1];
        if sequence == 0 || ids.values.is_empty() {
            let reason = format!("has the shape {:?}, there is nothing in it", ids.shape);
            return Err(InputError::new("input_ids", reason));
        }
        if sequence > self.positions {
            let reason = format!(
                "has sequences of {sequence} tokens, this model takes {}",
                self.positions
            );
            return Err(InputError::new("input_ids", reason));
        }
        let like_ids = |name: &str, other: &Ints<D>| {
            if other.shape == ids.shape {
                return Ok(());
            }
            let reason = format!("has the shape {:?}, not {:?}", other.shape, ids.shape);
            Err(InputError::new(name, reason))
        };
        let types: Option<Ints<D>> = inputs.ints("token_type_ids", 0..self.types)?;
        if let Some(types) = &types {
            like_ids("token_type_ids", types)?;
        }
        let mask: Option<Ints<D>> = inputs.ints("attention_mask", i64::MIN..i64::MAX)?;
        if let Some(mask) = &mask {
            like_ids("attention_mask", mask)?;
        }
        let positions: Option<Ints<2>> = inputs.ints("position_ids", 0..self.positions as i64)?;
        let rows = ids.values.len() / sequence;
        if let Some(positions) = &positions
            && positions.shape != [rows, sequence]
            && positions.shape != [1, sequence]
        {
            let reason = format!(
                "has the shape {:?}, not [{rows}, {sequence}]",
                positions.shape
            );
            return Err(InputError::new("position_ids", reason));
        }
        inputs.finish(&[
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "position_ids",
        ])?;

        let flat = |ints: Ints<D>| Ints {
            shape: [rows, sequence],
            values: ints.values,
        };
        let shape = ids.shape;
        let tokens = Tokens {
            input_ids: flat(ids).to_tensor(device),
            token_type_ids: types.map(|types| flat(types).to_tensor(device)),
            position_ids: positions.map(|positions| positions.to_tensor(device)),
            padding: mask.and_then(|mask| flat(mask).padding(device)),
        };
        Ok((tokens, shape))
    }
}

/// A loaded class on its device.
#[derive(Debug)]
struct Served<M> {
    module: M,
    limits: Limits,
    device: Device,
}

impl<M: Head> Served<M> {
    /// The checked inputs as rows, and how many rows belong together.
    fn tokens(&self, inputs: Inputs) -> Result<(Tokens, usize), InputError> {
        if M::CHOICES {
            let (tokens, [_, choices, _]) = self.limits.tokens::<3>(inputs, &self.device)?;
            Ok((tokens, choices))
        } else {
            let (tokens, _) = self.limits.tokens::<2>(inputs, &self.device)?;
            Ok((tokens, 1))
        }
    }
}

impl<M: Head> Model for Served<M> {
    fn forward(&self, inputs: Inputs) -> Result<Outputs, InputError> {
        let (tokens, choices) = self.tokens(inputs)?;
        Ok(self.module.outputs(tokens, choices))
    }

    fn intermediates(&self, inputs: Inputs) -> Result<Vec<(String, Value)>, InputError> {
        let (tokens, _) = self.tokens(inputs)?;
        let states = self.module.trunk().hidden_states(tokens);
        Ok(named("", states).collect())
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.limits.positions)
    }
}
