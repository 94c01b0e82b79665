//! Tokenizers by the name of the class that saved them.
//!
//! The reference is transformers 5.24: `AutoTokenizer` finds the class, and most classes build their pipeline
//! anew from the vocabulary and the settings, whatever else `tokenizer.json` says.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::text::{TextError, TokenizerFiles};

/// How the tokenizer of a class is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    /// As `tokenizer.json`, or else a SentencePiece model, describes it.
    File,
    Bert,
    MpNet,
    Roberta,
    Gpt2,
    Whisper,
    Clip,
    XlmRoberta,
    Camembert,
    T5,
    Albert,
    DebertaV2,
}

/// What a class's vocabulary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    WordPiece,
    Bpe,
    Unigram,
}

/// The classes whose pipeline is built here. Names end in `Fast` as well.
const BUILT: [(&str, Build); 23] = [
    ("AlbertTokenizer", Build::Albert),
    ("BartTokenizer", Build::Roberta),
    ("BertTokenizer", Build::Bert),
    ("CLIPTokenizer", Build::Clip),
    ("CamembertTokenizer", Build::Camembert),
    ("ConvBertTokenizer", Build::Bert),
    ("DPRContextEncoderTokenizer", Build::Bert),
    ("DPRQuestionEncoderTokenizer", Build::Bert),
    ("DebertaV2Tokenizer", Build::DebertaV2),
    ("DistilBertTokenizer", Build::Bert),
    ("ElectraTokenizer", Build::Bert),
    ("GPT2Tokenizer", Build::Gpt2),
    ("LEDTokenizer", Build::Roberta),
    ("LongformerTokenizer", Build::Roberta),
    ("LxmertTokenizer", Build::Bert),
    ("MPNetTokenizer", Build::MpNet),
    ("MobileBertTokenizer", Build::Bert),
    ("MvpTokenizer", Build::Roberta),
    ("RobertaTokenizer", Build::Roberta),
    ("SqueezeBertTokenizer", Build::Bert),
    ("T5Tokenizer", Build::T5),
    ("WhisperTokenizer", Build::Whisper),
    ("XLMRobertaTokenizer", Build::XlmRoberta),
];

/// The classes that are read from a `tokenizer.json`. Any other name is, too, with a warning.
const FROM_FILE: [&str; 47] = [
    "BarthezTokenizer",
    "BigBirdTokenizer",
    "BlenderbotTokenizer",
    "BloomTokenizer",
    "CodeGenTokenizer",
    "CodeLlamaTokenizer",
    "CohereTokenizer",
    "DPRReaderTokenizer",
    "DebertaTokenizer",
    "EsmcTokenizer",
    "FNetTokenizer",
    "FunnelTokenizer",
    "GPTNeoXTokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LasrTokenizer",
    "LayoutLMTokenizer",
    "LayoutLMv2Tokenizer",
    "LayoutLMv3Tokenizer",
    "LayoutXLMTokenizer",
    "LlamaTokenizer",
    "LukeTokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MarkupLMTokenizer",
    "NllbTokenizer",
    "NougatTokenizer",
    "OpenAIGPTTokenizer",
    "ParakeetTokenizer",
    "PegasusTokenizer",
    "PreTrainedTokenizer",
    "PythonBackend",
    "Qwen2Tokenizer",
    "Qwen3_5Tokenizer",
    "RealmTokenizer",
    "ReformerTokenizer",
    "RemBertTokenizer",
    "RetriBertTokenizer",
    "SeamlessM4TTokenizer",
    "Siglip2Tokenizer",
    "SplinterTokenizer",
    "Tipsv2Tokenizer",
    "TokenizersBackend",
    "UdopTokenizer",
    "VideoPrismTokenizer",
    "XGLMTokenizer",
    "XLNetTokenizer",
];

/// The classes that split a text by code of their own, also beside a `tokenizer.json`.
const REFUSED: [&str; 39] = [
    "BartphoTokenizer",
    "BertGenerationTokenizer",
    "BertJapaneseTokenizer",
    "BertweetTokenizer",
    "BioGptTokenizer",
    "BlenderbotSmallTokenizer",
    "ByT5Tokenizer",
    "CTRLTokenizer",
    "CanineTokenizer",
    "ClvpTokenizer",
    "CpmAntTokenizer",
    "CpmTokenizer",
    "DiaTokenizer",
    "EsmTokenizer",
    "FSMTTokenizer",
    "FastSpeech2ConformerTokenizer",
    "FlaubertTokenizer",
    "GPTNeoXJapaneseTokenizer",
    "GPTSw3Tokenizer",
    "M2M100Tokenizer",
    "MLukeTokenizer",
    "MarianTokenizer",
    "MgpstrTokenizer",
    "MyT5Tokenizer",
    "PLBartTokenizer",
    "PerceiverTokenizer",
    "PhobertTokenizer",
    "ProphetNetTokenizer",
    "RagTokenizer",
    "RoCBertTokenizer",
    "RoFormerTokenizer",
    "SiglipTokenizer",
    "Speech2TextTokenizer",
    "SpeechT5Tokenizer",
    "TapasTokenizer",
    "VitsTokenizer",
    "Wav2Vec2CTCTokenizer",
    "Wav2Vec2PhonemeCTCTokenizer",
    "XLMTokenizer",
];

/// The class of a model type's tokenizer, where no file names one.
const OF_MODELS: [(&str, Build); 18] = [
    ("albert", Build::Albert),
    ("bart", Build::Roberta),
    ("bert", Build::Bert),
    ("camembert", Build::Camembert),
    ("clip", Build::Clip),
    ("convbert", Build::Bert),
    ("deberta-v2", Build::DebertaV2),
    ("distilbert", Build::Bert),
    ("electra", Build::Bert),
    ("gpt2", Build::Gpt2),
    ("longformer", Build::Roberta),
    ("mobilebert", Build::Bert),
    ("mpnet", Build::MpNet),
    ("mt5", Build::T5),
    ("roberta", Build::Roberta),
    ("t5", Build::T5),
    ("whisper", Build::Whisper),
    ("xlm-roberta", Build::XlmRoberta),
];

/// A class's name, if a file says one, and how it is built.
pub(super) fn resolve(files: &TokenizerFiles) -> Result<(Option<String>, Build), TextError> {
    let says = |config: &Option<Value>, key: &str| {
        let name = config.as_ref()?.get(key)?.as_str()?;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    };
    let own = says(&files.config, "tokenizer_class").map(|name| (name, "tokenizer_config.json"));
    let named = own
        .or_else(|| says(&files.model_config, "tokenizer_class").map(|name| (name, "config.json")));
    let Some((name, file)) = named else {
        let model = says(&files.model_config, "model_type");
        let build = model.and_then(|model| find(&OF_MODELS, &model));
        return Ok((None, build.unwrap_or_else(|| of_files(files))));
    };
    let short = name.strip_suffix("Fast").unwrap_or(&name);
    if REFUSED.contains(&short) {
        let reason = format!(
            "the tokenizer_class `{name}` splits texts by code of its own, which is not supported"
        );
        return Err(TextError::File { file, reason });
    }
    if let Some(build) = find(&BUILT, short) {
        return Ok((Some(name), build));
    }
    if files.tokenizer.is_none() && (!FROM_FILE.contains(&short) || files.sentencepiece.is_empty())
    {
        let reason = format!(
            "the tokenizer_class `{name}` is supported with a tokenizer.json only, and there is none; \
             make one with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        );
        return Err(TextError::File { file, reason });
    }
    if !FROM_FILE.contains(&short) {
        tracing::warn!(
            "{file}: the tokenizer_class `{name}` is not known; the tokenizer is what tokenizer.json says"
        );
    }
    Ok((Some(name), Build::File))
}

fn find(table: &[(&str, Build)], name: &str) -> Option<Build> {
    let row = table.iter().find(|(known, _)| *known == name)?;
    Some(row.1)
}

/// The class that nothing names, by the files that are there.
fn of_files(files: &TokenizerFiles) -> Build {
    if files.tokenizer.is_none() && files.vocabulary.is_some() {
        Build::Bert
    } else if files.tokenizer.is_none() && files.merges.is_some() {
        Build::Gpt2
    } else {
        Build::File
    }
}

impl Build {
    pub(super) fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::File => return None,
            Self::Bert | Self::MpNet => Kind::WordPiece,
            Self::Roberta | Self::Gpt2 | Self::Whisper | Self::Clip => Kind::Bpe,
            Self::XlmRoberta | Self::Camembert | Self::T5 | Self::Albert | Self::DebertaV2 => {
                Kind::Unigram
            }
        })
    }

    /// The SentencePiece model that the class looks for.
    pub(super) fn sentencepiece(self) -> &'static str {
        match self {
            Self::XlmRoberta | Self::Camembert => "sentencepiece.bpe.model",
            Self::T5 | Self::Albert => "spiece.model",
            Self::DebertaV2 => "spm.model",
            _ => "tokenizer.model",
        }
    }

    /// Whether the class hands the segments of a pair to the network; `name` is the class's own.
    pub(super) fn has_segments(self, name: Option<&str>) -> bool {
        match self {
            Self::DebertaV2 => true,
            // A tokenizer that no class is named for has what its file says.
            Self::File => name.is_none(),
            Self::Bert => !name.is_some_and(|name| name.starts_with("DistilBert")),
            _ => false,
        }
    }

    /// The special tokens that a class has where nothing names others, in the order of [`NAMES`].
    fn defaults(self) -> [Option<&'static str>; 7] {
        const END: Option<&str> = Some("<|endoftext|>");
        match self {
            Self::File => [None; 7],
            Self::Bert => [
                None,
                None,
                Some("[UNK]"),
                Some("[SEP]"),
                Some("[PAD]"),
                Some("[CLS]"),
                Some("[MASK]"),
            ],
            Self::MpNet => [
                Some("<s>"),
                Some("</s>"),
                Some("[UNK]"),
                Some("</s>"),
                Some("<pad>"),
                Some("<s>"),
                Some("<mask>"),
            ],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => [
                Some("<s>"),
                Some("</s>"),
                Some("<unk>"),
                Some("</s>"),
                Some("<pad>"),
                Some("<s>"),
                Some("<mask>"),
            ],
            Self::Gpt2 | Self::Whisper => [END, END, END, None, None, None, None],
            Self::Clip => [Some("<|startoftext|>"), END, END, None, END, None, None],
            Self::T5 => [
                None,
                Some("</s>"),
                Some("<unk>"),
                None,
                Some("<pad>"),
                None,
                None,
            ],
            Self::Albert => [
                Some("[CLS]"),
                Some("[SEP]"),
                Some("<unk>"),
                Some("[SEP]"),
                Some("<pad>"),
                Some("[CLS]"),
                Some("[MASK]"),
            ],
            Self::DebertaV2 => [
                Some("[CLS]"),
                Some("[SEP]"),
                Some("[UNK]"),
                Some("[SEP]"),
                Some("[PAD]"),
                Some("[CLS]"),
                Some("[MASK]"),
            ],
        }
    }

    /// A special token that is named by its text alone.
    fn special(self, name: &str, content: &str) -> AddedToken {
        let token = AddedToken::from(content, true);
        match self {
            Self::MpNet | Self::Camembert => token.lstrip(name == "mask_token"),
            _ => token,
        }
    }
}

/// The special tokens that have a role.
pub(super) const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// What the files beside the vocabulary say, in the reference's precedence.
pub(super) struct Settings {
    pub(super) build: Build,
    /// `tokenizer_config.json`, with the special tokens of `special_tokens_map.json` where those hold.
    pub(super) fields: Map<String, Value>,
    /// Special tokens with a role, in their order.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without one.
    extra: Option<Vec<AddedToken>>,
    /// Added tokens by the ids that they should have.
    pub(super) added: Vec<(u32, AddedToken)>,
}

impl Settings {
    /// `in_file` are the added tokens of `tokenizer.json`, if there is one.
    pub(super) fn new(
        files: &TokenizerFiles,
        build: Build,
        in_file: Option<Vec<(u32, AddedToken)>>,
    ) -> Result<Self, TextError> {
        const CONFIG: &str = "tokenizer_config.json";
        let object = |value: &Option<Value>| value.as_ref().and_then(Value::as_object).cloned();
        let mut fields = object(&files.config).unwrap_or_default();
        if in_file.is_some() {
            fields.remove("add_bos_token");
            fields.remove("add_eos_token");
        }
        let is_filled = |value: Option<&Value>| match value {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            _ => false,
        };
        if !is_filled(fields.get("extra_special_tokens"))
            && let Some(tokens) = fields.remove("additional_special_tokens")
        {
            fields.insert("extra_special_tokens".to_owned(), tokens);
        }
        let mut added = Vec::new();
        if let Some(decoder) = fields.get("added_tokens_decoder") {
            let decoder = decoder
                .as_object()
                .ok_or_else(|| invalid(CONFIG, "added_tokens_decoder is not an object"))?;
            for (id, token) in decoder {
                let place = format!("added_tokens_decoder, `{id}`");
                let number = id
                    .parse()
                    .map_err(|_| invalid(CONFIG, format!("{place} is not an id")))?;
                let token = token.as_object().and_then(|map| added_token(map, false));
                let token = token
                    .ok_or_else(|| invalid(CONFIG, format!("{place} has no text `content`")))?;
                added.push((number, token));
            }
        } else {
            for (key, value) in object(&files.special_tokens).unwrap_or_default() {
                if key == "extra_special_tokens" && value.is_array() {
                    let known = fields.get(&key).and_then(Value::as_array).cloned();
                    let mut all = known.unwrap_or_default();
                    for token in value.as_array().into_iter().flatten() {
                        if !all.contains(token) {
                            all.push(token.clone());
                        }
                    }
                    fields.insert(key, all.into());
                } else {
                    fields.insert(key, value);
                }
            }
            if let Some(json) = &files.added_tokens {
                const FILE: &str = "added_tokens.json";
                let special = |content: &str| {
                    let named = NAMES.iter().filter_map(|name| fields.get(*name)?.content());
                    let extra = fields.get("extra_special_tokens").and_then(Value::as_array);
                    let extra = extra.into_iter().flatten().filter_map(Content::content);
                    named.chain(extra).any(|known| known == content)
                };
                let tokens = json.as_object();
                let tokens = tokens.ok_or_else(|| invalid(FILE, "is not an object"))?;
                for (content, id) in tokens {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id = id.ok_or_else(|| {
                        invalid(FILE, format!("the id of `{content}` is not a number"))
                    })?;
                    added.push((id, AddedToken::from(&content[..], special(content))));
                }
            }
            for (id, token) in in_file.into_iter().flatten() {
                added.retain(|(known, _)| *known != id);
                added.push((id, token));
            }
        }
        added.sort_by_key(|(id, _)| *id);
        let mut settings = Self {
            build,
            fields,
            named: Vec::new(),
            extra: None,
            added,
        };
        settings.read_special();
        Ok(settings)
    }

    fn read_special(&mut self) {
        let of = |name: &str, value: &Value| {
            let token = match value {
                Value::String(content) => self.build.special(name, content),
                Value::Object(map) => added_token(map, true)?,
                _ => return None,
            };
            // What the files of added tokens say of it goes first.
            let known = self.added.iter().rev();
            let mut known = known.filter(|(_, known)| known.content == token.content);
            Some(known.next().map_or(token, |(_, known)| known.clone()))
        };
        let mut named = Vec::new();
        for (name, default) in NAMES.iter().zip(self.build.defaults()) {
            let token = match (self.fields.get(*name), default) {
                (Some(value), _) => of(name, value),
                (None, Some(default)) => of(name, &Value::from(default)),
                (None, None) => None,
            };
            named.extend(token.map(|token| ((*name).to_owned(), token)));
        }
        let own = self.fields.get("extra_special_tokens");
        let roles = self.fields.iter().filter(|(name, value)| {
            name.ends_with("_token")
                && !NAMES.contains(&&name[..])
                && (value.is_string() || value.get("content").is_some())
        });
        let roles = roles.chain(own.and_then(Value::as_object).into_iter().flatten());
        for (name, value) in roles {
            named.extend(of(name, value).map(|token| (name.clone(), token)));
        }
        let list = own.and_then(Value::as_array);
        let older = self.fields.get("additional_special_tokens");
        let list = list.or_else(|| older.and_then(Value::as_array));
        self.extra = list.map(|list| {
            let tokens = list.iter().filter_map(|value| match value {
                Value::String(content) => Some(AddedToken::from(&content[..], true)),
                Value::Object(map) => added_token(map, true),
                _ => None,
            });
            tokens.collect()
        });
        self.named = named;
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.fields.get(name)?.as_bool()
    }

    /// The text of the special token with a role.
    pub(super) fn content(&self, name: &str) -> Option<&str> {
        let mut named = self.named.iter().filter(|(known, _)| known == name);
        Some(&named.next()?.1.content)
    }

    /// Names a special token where nothing else does.
    pub(super) fn name(&mut self, name: &str, content: &str) {
        if self.content(name).is_none() && !self.fields.contains_key(name) {
            let token = AddedToken::from(content, true);
            self.named.push((name.to_owned(), token));
        }
    }

    /// Special tokens without a role, where no file names any.
    pub(super) fn extra_or(&mut self, tokens: impl IntoIterator<Item = AddedToken>) {
        let tokens = tokens.into_iter();
        self.extra.get_or_insert_with(|| tokens.collect());
    }

    /// The tokens that are added to a tokenizer that has those for which `has` holds, in their order.
    pub(super) fn to_add(&self, has: impl Fn(&str) -> bool) -> Vec<AddedToken> {
        let is_named = |content: &str| self.named.iter().any(|(_, token)| token.content == content);
        let mut tokens: Vec<AddedToken> =
            self.added.iter().map(|(_, token)| token.clone()).collect();
        let mut known: BTreeSet<&str> = self
            .added
            .iter()
            .map(|(_, token)| &token.content[..])
            .collect();
        let named = self.named.iter().map(|(_, token)| token);
        for token in named.chain(self.extra.iter().flatten()) {
            if !has(&token.content) && known.insert(&token.content) {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= is_named(&token.content);
        }
        tokens
    }

    /// The normalizer of a class, as `tokenizer.json` would have it.
    pub(super) fn normalizer(&self, charsmap: Option<&Value>) -> Value {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let precompiled = |map: &Value| json!({"type": "Precompiled", "precompiled_charsmap": map});
        match self.build {
            Build::Bert | Build::MpNet => json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": self.flag("tokenize_chinese_chars").unwrap_or(true),
                "strip_accents": self.flag("strip_accents"),
                "lowercase": self.flag("do_lower_case").unwrap_or(true),
            }),
            Build::Clip => json!({"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                replace(json!({"Regex": r"\s+"}), " "),
                {"type": "Lowercase"},
            ]}),
            Build::XlmRoberta | Build::Camembert | Build::T5 => {
                charsmap.map_or(Value::Null, precompiled)
            }
            Build::Albert => {
                let mut steps = vec![
                    replace(json!({"String": "``"}), "\""),
                    replace(json!({"String": "''"}), "\""),
                ];
                if !self.flag("keep_accents").unwrap_or(false) {
                    steps.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
                }
                if self.flag("do_lower_case").unwrap_or(true) {
                    steps.push(json!({"type": "Lowercase"}));
                }
                steps.extend(charsmap.map(precompiled));
                json!({"type": "Sequence", "normalizers": steps})
            }
            Build::DebertaV2 => {
                let mut steps = Vec::new();
                if self.flag("do_lower_case").unwrap_or(false) {
                    steps.push(json!({"type": "Lowercase"}));
                }
                steps.extend([
                    replace(json!({"Regex": r"\s{2,}|[\n\r\t]"}), " "),
                    json!({"type": "NFC"}),
                    json!({"type": "Strip", "strip_left": false, "strip_right": true}),
                ]);
                json!({"type": "Sequence", "normalizers": steps})
            }
            Build::File | Build::Roberta | Build::Gpt2 | Build::Whisper => Value::Null,
        }
    }

    /// How a class splits a text before its vocabulary does.
    pub(super) fn pre_tokenizer(&self) -> Value {
        match self.build {
            Build::File => Value::Null,
            Build::Bert | Build::MpNet => json!({"type": "BertPreTokenizer"}),
            Build::Roberta | Build::Gpt2 | Build::Whisper => {
                byte_level(self.flag("add_prefix_space").unwrap_or(false))
            }
            Build::Clip => json!({"type": "Sequence", "pretokenizers": [
                {
                    "type": "Split", "behavior": "Removed", "invert": true,
                    "pattern": {"Regex": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"},
                },
                byte_level(false),
            ]}),
            Build::XlmRoberta | Build::Camembert | Build::T5 | Build::Albert => {
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, self.metaspace()]})
            }
            Build::DebertaV2 => {
                let mut steps = Vec::new();
                if self.flag("split_by_punct").unwrap_or(false) {
                    steps.push(json!({"type": "Punctuation", "behavior": "Isolated"}));
                }
                steps.push(self.metaspace());
                json!({"type": "Sequence", "pretokenizers": steps})
            }
        }
    }

    pub(super) fn decoder(&self) -> Value {
        match self.build {
            Build::File => Value::Null,
            Build::Bert | Build::MpNet => {
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true})
            }
            Build::Roberta | Build::Gpt2 | Build::Whisper | Build::Clip => byte_level(true),
            _ => self.metaspace(),
        }
    }

    fn metaspace(&self) -> Value {
        let prefix = self.flag("add_prefix_space").unwrap_or(true);
        let scheme = match self.build {
            Build::T5 => "always",
            _ if prefix => "always",
            Build::DebertaV2 => "first",
            _ => "never",
        };
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true})
    }

    /// What a class puts around a text or a pair; nothing where it leaves what `tokenizer.json` has.
    ///
    /// `id` finds tokens in the finished vocabulary, and `has_json` says whether there is a `tokenizer.json`.
    pub(super) fn post_processor(
        &self,
        id: impl Fn(&str) -> Option<u32>,
        has_json: bool,
    ) -> Result<Option<Value>, TextError> {
        let token = |name: &str| {
            let content = self.content(name).unwrap_or_default();
            let id = id(content).ok_or_else(|| {
                invalid(
                    "tokenizer_config.json",
                    format!("the vocabulary has no `{content}`, which {name} names"),
                )
            })?;
            Ok::<_, TextError>((content.to_owned(), id))
        };
        let roberta = |sep: &str, cls: &str, trim: bool, prefix: bool| {
            let (sep, cls) = (token(sep)?, token(cls)?);
            Ok(Some(
                json!({"type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": trim, "add_prefix_space": prefix}),
            ))
        };
        let flag = |name: &str, default: bool| self.flag(name).unwrap_or(default);
        match self.build {
            Build::Bert | Build::DebertaV2 | Build::Albert => {
                let (cls, sep) = (token("cls_token")?, token("sep_token")?);
                let single = [Part::Token(&cls, 0), Part::A, Part::Token(&sep, 0)];
                let pair = [
                    Part::Token(&cls, 0),
                    Part::A,
                    Part::Token(&sep, 0),
                    Part::B(1),
                    Part::Token(&sep, 1),
                ];
                Ok(Some(template(&single, &pair)))
            }
            Build::XlmRoberta | Build::Camembert => {
                let (begin, end) = (token("bos_token")?, token("eos_token")?);
                let (begin, end) = (Part::Token(&begin, 0), Part::Token(&end, 0));
                let pair = [begin, Part::A, end, end, Part::B(0), end];
                Ok(Some(template(&[begin, Part::A, end], &pair)))
            }
            Build::T5 => {
                let end = token("eos_token")?;
                let end = Part::Token(&end, 0);
                let pair = [Part::A, end, Part::B(0), end];
                Ok(Some(template(&[Part::A, end], &pair)))
            }
            Build::Roberta => roberta(
                "sep_token",
                "cls_token",
                flag("trim_offsets", true),
                flag("add_prefix_space", false),
            ),
            Build::MpNet => roberta("sep_token", "cls_token", true, false),
            Build::Clip => roberta("eos_token", "bos_token", false, false),
            Build::Gpt2 | Build::Whisper | Build::File if has_json => Ok(None),
            Build::Gpt2 | Build::Whisper | Build::File => {
                let role = |name: &str, wanted: bool| match wanted && self.content(name).is_some() {
                    true => token(name).map(Some),
                    false => Ok(None),
                };
                let begin = role("bos_token", flag("add_bos_token", false))?;
                let end = role("eos_token", flag("add_eos_token", false))?;
                Ok(around(begin.as_ref(), end.as_ref(), None, 1))
            }
        }
    }
}

/// A part of a template: a token or a text, and its segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    Token(&'a (String, u32), u32),
    A,
    B(u32),
}

/// The processor that puts tokens around a text and a pair.
pub(crate) fn template(single: &[Part], pair: &[Part]) -> Value {
    let part = |part: &Part| match part {
        Part::Token((content, _), segment) => {
            json!({"SpecialToken": {"id": content, "type_id": segment}})
        }
        Part::A => json!({"Sequence": {"id": "A", "type_id": 0}}),
        Part::B(segment) => json!({"Sequence": {"id": "B", "type_id": segment}}),
    };
    let tokens = single.iter().chain(pair).filter_map(|part| match part {
        Part::Token((content, id), _) => Some((
            content.clone(),
            json!({"id": content, "ids": [id], "tokens": [content]}),
        )),
        _ => None,
    });
    json!({
        "type": "TemplateProcessing",
        "single": single.iter().map(part).collect::<Vec<_>>(),
        "pair": pair.iter().map(part).collect::<Vec<_>>(),
        "special_tokens": tokens.collect::<Map<_, _>>(),
    })
}

/// The processor that begins and ends each text of a pair, or, with a separator, the pair as a whole.
pub(crate) fn around(
    begin: Option<&(String, u32)>,
    end: Option<&(String, u32)>,
    separator: Option<&(String, u32)>,
    second: u32,
) -> Option<Value> {
    begin.or(end).or(separator)?;
    let at = |segment: u32| move |token| Part::Token(token, segment);
    let mut single: Vec<Part> = begin.map(at(0)).into_iter().collect();
    single.push(Part::A);
    single.extend(end.map(at(0)));
    let mut pair = single.clone();
    pair.extend(separator.or(begin).map(at(second)));
    pair.push(Part::B(second));
    pair.extend(end.map(at(second)));
    Some(template(&single, &pair))
}

pub(crate) fn byte_level(add_prefix_space: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true})
}

/// The text of a token, by itself or as an object says it.
trait Content {
    fn content(&self) -> Option<&str>;
}

impl Content for Value {
    fn content(&self) -> Option<&str> {
        self.as_str().or_else(|| self.get("content")?.as_str())
    }
}

/// An added token as an object; special ones are `special`, whatever it says.
fn added_token(map: &Map<String, Value>, special: bool) -> Option<AddedToken> {
    let flag = |name: &str| map.get(name).and_then(Value::as_bool);
    let content = map.get("content")?.as_str()?;
    let special = special || flag("special").unwrap_or(false);
    let token = AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(match flag("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}

pub(super) fn invalid(file: &'static str, reason: impl ToString) -> TextError {
    TextError::File {
        file,
        reason: reason.to_string(),
    }
}
