//! Tokens out of a decoder: the checkpoint's generation settings, rules on logits, and searches.

mod align;
mod config;
mod languages;
mod rules;
mod search;
mod transcribe;
mod words;

pub(crate) use config::GenerationConfig;
pub(crate) use languages::name as language_name;
pub(crate) use search::SearchOptions;
pub(crate) use transcribe::{Prompt, Recording, Request, Segment, Transcriber};
pub(crate) use words::words;
