//! Tokenizers out of their files: the vocabulary, its class's pipeline, and the added tokens.

use std::collections::{BTreeMap, BTreeSet};

use ahash::AHashMap;
use salamander_importers::sentencepiece::{Algorithm, PieceKind, SentencePieceModel};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::utils::truncation::TruncationParams;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::charsmap;
use super::text::{TextError, TokenizerFiles};
use super::tokenizer_class::{Build, Kind, Settings, invalid};
use super::vocabulary::{base64, from_base64, sentencepiece_tokenizer};

pub(super) const JSON: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
const VOCABULARY: &str = "vocab.txt";

/// The parts of a `tokenizer.json` that a built tokenizer does not give back.
#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    model: ModelHeader,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelHeader {
    unk_id: Option<usize>,
}

impl Header {
    /// The first compiled map of characters.
    fn charsmap(&self) -> Option<&Value> {
        let normalizers = self.normalizer.get("normalizers").and_then(Value::as_array);
        let mut all = std::iter::once(&self.normalizer).chain(normalizers.into_iter().flatten());
        all.find_map(|step| step.get("precompiled_charsmap"))
    }
}

/// The tokenizer that `build` makes of the files.
pub(super) fn assemble(
    files: &TokenizerFiles,
    build: Build,
) -> Result<(Tokenizer, Settings), TextError> {
    match &files.tokenizer {
        Some(json) => from_json(json, files, build),
        None if build.kind() == Some(Kind::WordPiece) => {
            let Some(bytes) = &files.vocabulary else {
                return Err(missing(files, VOCABULARY));
            };
            let settings = Settings::new(files, build, None)?;
            let vocabulary =
                WordPiece::read_bytes(bytes).map_err(|error| invalid(VOCABULARY, error))?;
            let unknown = settings.content("unk_token").unwrap_or("[UNK]");
            let model = WordPiece::builder()
                .vocab(vocabulary)
                .unk_token(unknown.to_owned())
                .build()
                .map_err(|error| invalid(VOCABULARY, error))?;
            // The reference would give them ids that the network has no embeddings for.
            for name in ["cls_token", "sep_token", "unk_token"] {
                let token = settings.content(name).unwrap_or_default();
                let is_added = settings
                    .added
                    .iter()
                    .any(|(_, added)| added.content == token);
                let known = tokenizers::Model::token_to_id(&model, token).is_some();
                if !known && (name == "unk_token" || !is_added) {
                    let reason = format!("has no `{token}`, which {name} names");
                    return Err(invalid(VOCABULARY, reason));
                }
            }
            pipeline(Tokenizer::new(model), settings, None, false)
        }
        None if build.kind() == Some(Kind::Bpe) => {
            let settings = Settings::new(files, build, None)?;
            let model = merges_model(files, &settings)?;
            pipeline(Tokenizer::new(model), settings, None, false)
        }
        None => from_sentencepiece(files, build),
    }
}

/// A file that the class of a tokenizer needs is not there.
fn missing(files: &TokenizerFiles, file: &'static str) -> TextError {
    let others = files.sentencepiece.keys().copied();
    let others = others.chain(files.vocabulary.as_ref().map(|_| VOCABULARY));
    let others: Vec<&str> = others
        .chain(files.ids.as_ref().map(|_| "vocab.json"))
        .collect();
    if others.is_empty() {
        let others = match file {
            JSON => "are vocab.txt, vocab.json and any SentencePiece model",
            _ => &format!("is {file}"),
        };
        let reason = format!("is missing, and so {others}; a text model needs one of them");
        return invalid(JSON, reason);
    }
    let reason = format!(
        "is missing, and so is {JSON}; {} belongs to another class of tokenizers, which tokenizer_class of \
         {CONFIG} would have to name",
        others.join(", ")
    );
    invalid(file, reason)
}

/// What `tokenizer.json` holds, with the pipeline of its class.
fn from_json(
    json: &[u8],
    files: &TokenizerFiles,
    build: Build,
) -> Result<(Tokenizer, Settings), TextError> {
    const CHARSMAP: &[u8] = b"precompiled_charsmap";
    let has_charsmap = json.windows(CHARSMAP.len()).any(|part| part == CHARSMAP);
    let header: Header = match has_charsmap || build.kind() == Some(Kind::Unigram) {
        true => serde_json::from_slice(json).map_err(|error| invalid(JSON, error))?,
        false => Header::default(),
    };
    if let Some(map) = header.charsmap() {
        check_charsmap(map)?;
    }
    let tokenizer = Tokenizer::from_bytes(json).map_err(|error| invalid(JSON, error))?;
    let mut in_file: Vec<(u32, AddedToken)> =
        tokenizer.get_added_tokens_decoder().into_iter().collect();
    in_file.sort_by_key(|(id, _)| *id);
    let model = tokenizer.get_model();
    let kind = match model {
        ModelWrapper::WordPiece(_) => Some(Kind::WordPiece),
        ModelWrapper::BPE(_) => Some(Kind::Bpe),
        ModelWrapper::Unigram(_) => Some(Kind::Unigram),
        ModelWrapper::WordLevel(_) => None,
    };
    let build = match build.kind() == kind || build == Build::File {
        true => build,
        false => {
            // No class makes a list of words, so whoever wrote one meant the file.
            if build != Build::File && kind.is_some() {
                tracing::warn!(
                    "{JSON} holds another kind of vocabulary than the class of the tokenizer has; it is read as it is"
                );
            }
            Build::File
        }
    };
    let settings = Settings::new(files, build, Some(in_file.clone()))?;
    if build == Build::File {
        return finish(tokenizer, settings, true);
    }
    let model = conform(model, &settings, &header)?;
    let listed = settings.to_add(|_| false);
    let listed: BTreeSet<&str> = listed.iter().map(|token| &token.content[..]).collect();
    let stays = in_file
        .iter()
        .all(|(_, token)| listed.contains(&token.content[..]));
    let tokenizer = match model {
        Some(model) => fresh(&tokenizer, model),
        None if stays => tokenizer,
        None => fresh(&tokenizer, tokenizer.get_model().clone()),
    };
    pipeline(tokenizer, settings, header.charsmap(), true)
}

/// A tokenizer without added tokens, which keeps what surrounds a text.
fn fresh(tokenizer: &Tokenizer, model: ModelWrapper) -> Tokenizer {
    let mut made = Tokenizer::new(model);
    made.with_post_processor(tokenizer.get_post_processor().cloned());
    if let Some(truncation) = tokenizer.get_truncation() {
        // It fails where the stride is too large; only its direction is of use.
        let _ = made.with_truncation(Some(TruncationParams {
            direction: truncation.direction,
            ..TruncationParams::default()
        }));
    }
    made
}

/// The model of a class with the vocabulary of `model`, if it is not `model` itself.
fn conform(
    model: &ModelWrapper,
    settings: &Settings,
    header: &Header,
) -> Result<Option<ModelWrapper>, TextError> {
    let content = |name: &str| settings.content(name).unwrap_or_default();
    match model {
        ModelWrapper::WordPiece(model) => {
            let unknown = content("unk_token");
            let fits = model.unk_token == unknown
                && model.continuing_subword_prefix == "##"
                && model.max_input_chars_per_word == 100;
            let mut made = model.clone();
            made.unk_token = unknown.to_owned();
            made.continuing_subword_prefix = "##".to_owned();
            made.max_input_chars_per_word = 100;
            Ok((!fits).then(|| made.into()))
        }
        ModelWrapper::BPE(model) => {
            let clip = settings.build == Build::Clip;
            let unknown = clip.then(|| content("unk_token").to_owned());
            let suffix = if clip { "</w>" } else { "" };
            let fits = model.unk_token == unknown
                && model.dropout.is_none()
                && model
                    .continuing_subword_prefix
                    .as_deref()
                    .unwrap_or_default()
                    .is_empty()
                && model.end_of_word_suffix.as_deref().unwrap_or_default() == suffix
                && !(model.fuse_unk || model.byte_fallback || model.ignore_merges);
            if fits {
                return Ok(None);
            }
            let mut made = model.clone();
            made.unk_token = unknown;
            made.dropout = None;
            made.continuing_subword_prefix = Some(String::new());
            made.end_of_word_suffix = Some(suffix.to_owned());
            (made.fuse_unk, made.byte_fallback, made.ignore_merges) = (false, false, false);
            Ok(Some(made.into()))
        }
        ModelWrapper::Unigram(model) => {
            let unknown = unknown_of(settings, model.iter());
            if header.model.unk_id == Some(unknown) && !model.byte_fallback() {
                return Ok(None);
            }
            let pieces = model.iter().cloned().collect();
            let made = Unigram::from(pieces, Some(unknown), false);
            Ok(Some(made.map_err(|error| invalid(JSON, error))?.into()))
        }
        ModelWrapper::WordLevel(_) => Ok(None),
    }
}

/// The id that a class of unigrams has for what is unknown.
fn unknown_of<'a>(
    settings: &Settings,
    mut pieces: impl Iterator<Item = &'a (String, f64)>,
) -> usize {
    let token = settings.content("unk_token").unwrap_or("<unk>");
    let mut find = |score: Option<f64>| {
        let same = |known: &f64| score.is_none_or(|score| score == *known);
        pieces.position(|(piece, score)| piece == token && same(score))
    };
    match settings.build {
        Build::T5 => 2,
        Build::Albert => 1,
        Build::Camembert => find(None).unwrap_or(0),
        Build::DebertaV2 => {
            let given = settings.fields.get("unk_id").and_then(Value::as_u64);
            find(Some(0.0)).unwrap_or(given.map_or(1, |id| id as usize))
        }
        _ => 3,
    }
}

/// The BPE of `vocab.json` and `merges.txt`.
fn merges_model(files: &TokenizerFiles, settings: &Settings) -> Result<BPE, TextError> {
    const IDS: &str = "vocab.json";
    const MERGES: &str = "merges.txt";
    let (Some(ids), Some(merges)) = (&files.ids, &files.merges) else {
        return Err(missing(
            files,
            if files.ids.is_some() { MERGES } else { IDS },
        ));
    };
    let ids: AHashMap<String, u32> =
        serde_json::from_slice(ids).map_err(|error| invalid(IDS, error))?;
    let merges = str::from_utf8(merges).map_err(|error| invalid(MERGES, error))?;
    let lines = merges.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let merges = lines.map(|(number, line)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => {
            for part in [left, right] {
                if !ids.contains_key(part) {
                    let reason = format!("line {}: `{part}` is not in {IDS}", number + 1);
                    return Err(invalid(MERGES, reason));
                }
            }
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(invalid(
            MERGES,
            format!("line {}: is not two tokens", number + 1),
        )),
    });
    let merges: Vec<(String, String)> = merges.collect::<Result<_, _>>()?;
    let clip = settings.build == Build::Clip;
    let mut builder = BPE::builder()
        .vocab_and_merges(ids, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(if clip { "</w>" } else { "" }.to_owned());
    if let Some(unknown) = settings.content("unk_token").filter(|_| clip) {
        builder = builder.unk_token(unknown.to_owned());
    }
    builder.build().map_err(|error| invalid(MERGES, error))
}

/// The tokenizer of a SentencePiece model.
fn from_sentencepiece(
    files: &TokenizerFiles,
    build: Build,
) -> Result<(Tokenizer, Settings), TextError> {
    let wanted = build.sentencepiece();
    let all = &files.sentencepiece;
    let found = all
        .get_key_value(wanted)
        .or_else(|| all.get_key_value("tokenizer.model"))
        .or_else(|| all.first_key_value().filter(|_| all.len() == 1));
    let Some((&file, bytes)) = found else {
        let file = if build == Build::File { JSON } else { wanted };
        return Err(missing(files, file));
    };
    let mut model = SentencePieceModel::parse(bytes).map_err(|error| invalid(file, error))?;
    if let Some(flaw) = charsmap::flaw(&model.charsmap).filter(|_| !model.charsmap.is_empty()) {
        return Err(invalid(file, flaw));
    }
    if model.space_as_suffix {
        return Err(invalid(
            file,
            "treats spaces as suffixes, which is not supported",
        ));
    }
    let mut settings = Settings::new(files, build, None)?;
    let symbols = model.pieces.iter();
    let symbols = symbols.filter_map(|piece| {
        let special = match piece.kind {
            PieceKind::Control => true,
            // Without a class the pipeline isolates them itself.
            PieceKind::UserDefined if build != Build::File => false,
            _ => return None,
        };
        Some(AddedToken::from(&piece.text[..], special).normalized(false))
    });
    let sentinels = match build {
        Build::T5 => sentinels(&settings),
        _ => Vec::new(),
    };
    let sentinels = sentinels
        .iter()
        .map(|token| AddedToken::from(&token[..], true));
    settings.extra_or(symbols.chain(sentinels));
    if build == Build::File {
        for (name, token) in [("bos_token", &model.begin), ("eos_token", &model.end)] {
            if let Some((_, text)) = token {
                settings.name(name, text);
            }
        }
        settings.name("unk_token", &model.unknown_text);
        rename(&mut model, &mut settings);
        let legacy = settings.flag("legacy").unwrap_or(true);
        let json =
            sentencepiece_tokenizer(&model, legacy).map_err(|reason| invalid(file, reason))?;
        let tokenizer =
            Tokenizer::from_bytes(json.to_string()).map_err(|error| invalid(file, error))?;
        return finish(tokenizer, settings, false);
    }
    if model.algorithm != Algorithm::Unigram {
        let reason = format!(
            "holds {:?}, not the unigrams of the tokenizer's class",
            model.algorithm
        );
        return Err(invalid(file, reason));
    }
    let pieces = unigrams(&model, &settings);
    let unknown = match build {
        Build::DebertaV2 if !settings.fields.contains_key("unk_id") => {
            settings
                .fields
                .insert("unk_id".to_owned(), model.unknown.into());
            unknown_of(&settings, pieces.iter())
        }
        _ => unknown_of(&settings, pieces.iter()),
    };
    let unigram = Unigram::from(pieces, Some(unknown), false);
    let unigram = unigram.map_err(|error| invalid(file, error))?;
    let map = (!model.charsmap.is_empty()).then(|| base64(&model.charsmap));
    pipeline(Tokenizer::new(unigram), settings, map.as_ref(), false)
}

/// Calls the pieces of a BPE as the added tokens of their ids, and lets those match the text as it stands.
fn rename(model: &mut SentencePieceModel, settings: &mut Settings) {
    if model.algorithm == Algorithm::Bpe {
        let names: BTreeMap<usize, &str> = settings
            .added
            .iter()
            .map(|(id, token)| (*id as usize, &token.content[..]))
            .collect();
        let others = model.pieces.iter().enumerate();
        let others = others.filter(|(id, _)| !names.contains_key(id));
        let kept: Vec<String> = others
            .filter(|(_, piece)| names.values().any(|name| *name == piece.text))
            .map(|(_, piece)| piece.text.clone())
            .collect();
        for (id, name) in &names {
            if let Some(piece) = model.pieces.get_mut(*id)
                && !kept.iter().any(|kept| kept == name)
            {
                (*name).clone_into(&mut piece.text);
            }
        }
    }
    if model.add_dummy_prefix {
        for (_, token) in &mut settings.added {
            token.normalized = false;
        }
    }
}

/// The vocabulary of a class: SentencePiece's pieces, with what fairseq or the class had around them.
fn unigrams(model: &SentencePieceModel, settings: &Settings) -> Vec<(String, f64)> {
    let content = |name: &str| settings.content(name).unwrap_or_default().to_owned();
    let pieces = model.pieces.iter();
    let pieces = pieces.map(|piece| (piece.text.clone(), f64::from(piece.score)));
    let mask = (content("mask_token"), 0.0);
    match settings.build {
        Build::XlmRoberta => {
            let first = ["bos_token", "pad_token", "eos_token", "unk_token"];
            let first = first.map(|name| (content(name), 0.0));
            first
                .into_iter()
                .chain(pieces.skip(3))
                .chain([mask])
                .collect()
        }
        Build::Camembert => {
            let first = [
                ("<s>NOTUSED".to_owned(), 0.0),
                (content("pad_token"), 0.0),
                ("</s>NOTUSED".to_owned(), 0.0),
                (content("unk_token"), 0.0),
                ("<unk>NOTUSED".to_owned(), -100.0),
            ];
            first
                .into_iter()
                .chain(pieces.skip(1))
                .chain([mask])
                .collect()
        }
        Build::T5 => {
            let extra = sentinels(settings).into_iter().rev();
            pieces.chain(extra.map(|token| (token, 0.0))).collect()
        }
        _ => pieces.collect(),
    }
}

/// The tokens that T5 has beside those of its SentencePiece model.
fn sentinels(settings: &Settings) -> Vec<String> {
    /// More than any model has; each takes memory.
    const MOST: u64 = 1 << 12;
    let count = settings.fields.get("extra_ids").and_then(Value::as_u64);
    let count = count.unwrap_or(100).min(MOST);
    (0..count).map(|id| format!("<extra_id_{id}>")).collect()
}

fn check_charsmap(map: &Value) -> Result<(), TextError> {
    let bytes = map.as_str().and_then(from_base64);
    let flaw = match &bytes {
        Some(bytes) => charsmap::flaw(bytes),
        None => Some("the precompiled_charsmap is not base64"),
    };
    match flaw {
        Some(flaw) => Err(invalid(JSON, flaw)),
        None => Ok(()),
    }
}

/// Gives a tokenizer the pipeline of its class.
fn pipeline(
    mut tokenizer: Tokenizer,
    mut settings: Settings,
    charsmap: Option<&Value>,
    has_json: bool,
) -> Result<(Tokenizer, Settings), TextError> {
    let own: Vec<String> = match settings.build {
        Build::Camembert => ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]
            .map(str::to_owned)
            .to_vec(),
        Build::T5 => sentinels(&settings),
        _ => Vec::new(),
    };
    let own = own.into_iter().map(|token| AddedToken::from(token, true));
    settings.extra_or(own);
    let normalizer: Option<NormalizerWrapper> = part(settings.normalizer(charsmap))?;
    let pre_tokenizer: Option<PreTokenizerWrapper> = part(settings.pre_tokenizer())?;
    let decoder: Option<DecoderWrapper> = part(settings.decoder())?;
    tokenizer
        .with_normalizer(normalizer)
        .map_err(|error| invalid(CONFIG, error))?
        .with_pre_tokenizer(pre_tokenizer)
        .with_decoder(decoder);
    finish(tokenizer, settings, has_json)
}

/// Adds the added tokens, and what stands around a text.
fn finish(
    mut tokenizer: Tokenizer,
    settings: Settings,
    has_json: bool,
) -> Result<(Tokenizer, Settings), TextError> {
    let added = tokenizer.get_added_tokens_decoder();
    // A class that builds its pipeline begins without added tokens.
    let keeps = settings.build == Build::File;
    let tokens =
        settings.to_add(|content| keeps && added.values().any(|token| token.content == content));
    tokenizer
        .add_tokens(tokens)
        .map_err(|error| invalid(CONFIG, error))?;
    for (id, token) in &settings.added {
        let found = tokenizer.token_to_id(&token.content);
        if found != Some(*id) {
            tracing::warn!(
                "the added token `{}` has the id {}, as in the reference, and not {id}, as the file says",
                token.content,
                found.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            );
        }
    }
    let processor = settings.post_processor(|token| tokenizer.token_to_id(token), has_json)?;
    if let Some(processor) = processor {
        tokenizer.with_post_processor(part::<PostProcessorWrapper>(processor)?);
    }
    Ok((tokenizer, settings))
}

/// A part of a pipeline, of what `tokenizer.json` would say.
fn part<T: DeserializeOwned>(json: Value) -> Result<Option<T>, TextError> {
    match json {
        Value::Null => Ok(None),
        json => serde_json::from_value(json)
            .map(Some)
            .map_err(|error| invalid(CONFIG, error)),
    }
}
