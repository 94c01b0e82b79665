//! One struct a task: open it once, run it often, from several threads if you like.
//!
//! Opening reads the model; cloning shares it. Options are set on a clone with `with_options`.

mod batch;
mod fill_mask;
mod question_answering;
mod scores;
mod speech_recognition;
mod text_classification;
mod text_embedding;
mod token_classification;

pub use batch::TextInput;
pub use fill_mask::{Fill, FillMask, FillMaskOptions};
pub use question_answering::{Answer, QuestionAnswering, QuestionAnsweringOptions};
pub use speech_recognition::{
    SpeechProgress, SpeechRecognition, SpeechRecognitionOptions, SpeechSegment, SpeechTask,
    Transcript, speech_language,
};
pub use text_classification::{
    ClassificationFunction, Label, TextClassification, TextClassificationOptions,
};
pub use text_embedding::{Prompt, TextEmbedding, TextEmbeddingOptions};
pub use token_classification::{
    Aggregation, Entity, TokenClassification, TokenClassificationOptions,
};
