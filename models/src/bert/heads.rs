//! One struct a reference class, wrapping the trunk.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::config::BertConfig;
use super::model::{Bert, Tokens, norm};
use crate::blocks::{Activation, LayerNorm, linear, linear_rows, matmul_rows};
use crate::{ConfigError, Outputs};

/// A reference class: a trunk and what its outputs are called.
pub(super) trait Head: Module + Sync {
    /// Whether rows belong together, as the answers to choose from do.
    const CHOICES: bool = false;

    fn trunk(&self) -> &Bert;

    fn outputs(&self, tokens: Tokens, choices: usize) -> Outputs;
}

impl Head for Bert {
    fn trunk(&self) -> &Bert {
        self
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        let hidden = self.forward(tokens);
        let pooled = self.pool(&hidden);
        let outputs = Outputs::new().with("last_hidden_state", hidden);
        match pooled {
            Some(pooled) => outputs.with("pooler_output", pooled),
            None => outputs,
        }
    }
}

/// `BertForSequenceClassification`: a class for the sequence, from the pooled state.
#[derive(Module, Debug)]
pub struct BertForSequenceClassification {
    bert: Bert,
    classifier: Linear,
}

impl BertForSequenceClassification {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, classes: usize, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, true, device)?,
            classifier: LinearConfig::new(config.hidden_size, classes).init(device),
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, classes]`
    pub fn forward(&self, tokens: Tokens) -> Tensor<2> {
        self.classifier.forward(pooled(&self.bert, tokens).1)
    }
}

impl Head for BertForSequenceClassification {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        Outputs::new().with("logits", self.forward(tokens))
    }
}

/// `BertForMultipleChoice`: a score for each of several sequences.
#[derive(Module, Debug)]
pub struct BertForMultipleChoice {
    bert: Bert,
    classifier: Linear,
}

impl BertForMultipleChoice {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, true, device)?,
            classifier: LinearConfig::new(config.hidden_size, 1).init(device),
        })
    }

    /// # Shapes
    /// `[b · choices, s]` → `[b, choices]`
    pub fn forward(&self, tokens: Tokens, choices: usize) -> Tensor<2> {
        let [sequences, _] = tokens.input_ids.dims();
        let scores = self.classifier.forward(pooled(&self.bert, tokens).1);
        scores.reshape([sequences / choices, choices])
    }
}

impl Head for BertForMultipleChoice {
    const CHOICES: bool = true;

    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, choices: usize) -> Outputs {
        Outputs::new().with("logits", self.forward(tokens, choices))
    }
}

/// `BertForTokenClassification`: a class for each token.
#[derive(Module, Debug)]
pub struct BertForTokenClassification {
    bert: Bert,
    classifier: Linear,
}

impl BertForTokenClassification {
    /// An unfilled model of `classes` classes.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, classes: usize, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, false, device)?,
            classifier: LinearConfig::new(config.hidden_size, classes).init(device),
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, s, classes]`
    pub fn forward(&self, tokens: Tokens) -> Tensor<3> {
        linear_rows(&self.classifier, self.bert.forward(tokens))
    }
}

impl Head for BertForTokenClassification {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        Outputs::new().with("logits", self.forward(tokens))
    }
}

/// `BertForQuestionAnswering`: for each token, how likely the answer begins and ends there.
#[derive(Module, Debug)]
pub struct BertForQuestionAnswering {
    bert: Bert,
    qa_outputs: Linear,
}

impl BertForQuestionAnswering {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, false, device)?,
            qa_outputs: LinearConfig::new(config.hidden_size, 2).init(device),
        })
    }

    /// # Shapes
    /// `[b, s]` → start `[b, s]`, end `[b, s]`
    pub fn forward(&self, tokens: Tokens) -> (Tensor<2>, Tensor<2>) {
        let [batch, sequence] = tokens.input_ids.dims();
        let scores = linear_rows(&self.qa_outputs, self.bert.forward(tokens));
        let side = |index| {
            let side = scores
                .clone()
                .slice([0..batch, 0..sequence, index..index + 1]);
            side.reshape([batch, sequence])
        };
        (side(0), side(1))
    }
}

impl Head for BertForQuestionAnswering {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        let (start, end) = self.forward(tokens);
        Outputs::new()
            .with("start_logits", start)
            .with("end_logits", end)
    }
}

/// `BertForMaskedLM`, and `BertLMHeadModel` when the trunk is a decoder: a word for each token.
#[derive(Module, Debug)]
pub struct BertForMaskedLM {
    bert: Bert,
    predictions: Predictions,
}

impl BertForMaskedLM {
    /// An unfilled model; `tied` when the output layer is the word embeddings.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, tied: bool, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, false, device)?,
            predictions: Predictions::new(config, tied, device)?,
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, s, vocabulary]`
    pub fn forward(&self, tokens: Tokens) -> Tensor<3> {
        let hidden = self.bert.forward(tokens);
        self.predictions.forward(hidden, &self.bert)
    }
}

impl Head for BertForMaskedLM {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        Outputs::new().with("logits", self.forward(tokens))
    }
}

/// `BertForNextSentencePrediction`: whether the second segment follows the first.
#[derive(Module, Debug)]
pub struct BertForNextSentencePrediction {
    bert: Bert,
    seq_relationship: Linear,
}

impl BertForNextSentencePrediction {
    /// An unfilled model.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, true, device)?,
            seq_relationship: LinearConfig::new(config.hidden_size, 2).init(device),
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, 2]`, class 0 for "follows"
    pub fn forward(&self, tokens: Tokens) -> Tensor<2> {
        self.seq_relationship.forward(pooled(&self.bert, tokens).1)
    }
}

impl Head for BertForNextSentencePrediction {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        Outputs::new().with("logits", self.forward(tokens))
    }
}

/// `BertForPreTraining`: both heads that BERT was trained with.
#[derive(Module, Debug)]
pub struct BertForPreTraining {
    bert: Bert,
    predictions: Predictions,
    seq_relationship: Linear,
}

impl BertForPreTraining {
    /// An unfilled model; `tied` when the output layer is the word embeddings.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn new(config: &BertConfig, tied: bool, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            bert: Bert::new(config, true, device)?,
            predictions: Predictions::new(config, tied, device)?,
            seq_relationship: LinearConfig::new(config.hidden_size, 2).init(device),
        })
    }

    /// # Shapes
    /// `[b, s]` → `[b, s, vocabulary]`, `[b, 2]`
    pub fn forward(&self, tokens: Tokens) -> (Tensor<3>, Tensor<2>) {
        let (hidden, pooled) = pooled(&self.bert, tokens);
        let relationship = self.seq_relationship.forward(pooled);
        (self.predictions.forward(hidden, &self.bert), relationship)
    }
}

impl Head for BertForPreTraining {
    fn trunk(&self) -> &Bert {
        &self.bert
    }

    fn outputs(&self, tokens: Tokens, _choices: usize) -> Outputs {
        let (words, relationship) = self.forward(tokens);
        Outputs::new()
            .with("prediction_logits", words)
            .with("seq_relationship_logits", relationship)
    }
}

/// The hidden states and the pooled first one; a trunk without pooler pools plainly.
fn pooled(bert: &Bert, tokens: Tokens) -> (Tensor<3>, Tensor<2>) {
    let hidden = bert.forward(tokens);
    let pooled = bert.pool(&hidden).unwrap_or_else(|| {
        let [batch, _, width] = hidden.dims();
        hidden
            .clone()
            .slice([0..batch, 0..1, 0..width])
            .reshape([batch, width])
    });
    (hidden, pooled)
}

/// The masked-language head.
#[derive(Module, Debug)]
struct Predictions {
    dense: Linear,
    norm: LayerNorm,
    /// `[vocabulary, hidden]`, when it is not the word embeddings.
    decoder: Option<Param<Tensor<2>>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl Predictions {
    fn new(config: &BertConfig, tied: bool, device: &Device) -> Result<Self, ConfigError> {
        let (width, words) = (config.hidden_size, config.vocab_size);
        Ok(Self {
            dense: LinearConfig::new(width, width).init(device),
            norm: norm(config, device),
            decoder: (!tied).then(|| Initializer::Zeros.init([words, width], device)),
            bias: Initializer::Zeros.init([words], device),
            activation: config.activation()?,
        })
    }

    /// # Shapes
    /// `[b, s, hidden]` → `[b, s, vocabulary]`
    fn forward(&self, hidden: Tensor<3>, bert: &Bert) -> Tensor<3> {
        let hidden = linear(&self.dense, hidden, None, self.activation);
        let decoder = match &self.decoder {
            Some(weight) => weight.val(),
            None => bert.word_embeddings(),
        };
        let scores = matmul_rows(self.norm.forward(hidden), decoder.transpose());
        scores + self.bias.val().unsqueeze()
    }
}
