//! One struct a task: open it once, run it often, from several threads if you like.
//!
//! Opening reads the model; cloning shares it. Options are set on a clone with `with_options`.

mod batch;
mod fill_mask;
mod forecast;
mod image_classification;
mod image_embedding;
mod pictures;
mod question_answering;
mod scores;
mod speech_recognition;
mod text_classification;
mod text_embedding;
mod token_classification;
mod warm_up;

pub use batch::TextInput;
pub use fill_mask::{Fill, FillMask, FillMaskOptions};
pub use forecast::{Forecast, ForecastOptions, Forecasted, Quantile, SeriesForecast};
pub use image_classification::{ImageClassification, ImageClassificationOptions};
pub use image_embedding::{ImageEmbedding, ImageEmbeddingOptions};
pub use pictures::ImageInput;
pub use question_answering::{Answer, QuestionAnswering, QuestionAnsweringOptions};
pub use scores::{ClassificationFunction, Label};
pub use speech_recognition::{
    SpeechProgress, SpeechRecognition, SpeechRecognitionOptions, SpeechSegment, SpeechTask,
    SpeechWord, Transcript, speech_language,
};
pub use text_classification::{TextClassification, TextClassificationOptions};
pub use text_embedding::{Prompt, TextEmbedding, TextEmbeddingOptions};
pub use token_classification::{
    Aggregation, Entity, TokenClassification, TokenClassificationOptions,
};

pub use salamander_models::Forecasts;
pub use salamander_models::processing::missing::Missing;
pub use salamander_models::processing::series::{SeriesError, Table, TableOptions};
