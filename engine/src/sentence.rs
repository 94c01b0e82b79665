//! The configuration of a sentence-transformers model: which modules it consists of, and how it prepares texts.
//!
//! Reference: `base/model.py`, `base/modules/transformer.py` and `sentence_transformer/modules/*.py` of
//! sentence-transformers 6.2. A field is honoured, known to change nothing, or refused.

use std::collections::{BTreeMap, BTreeSet};

use salamander_models::ConfigError;
use salamander_models::blocks::Pooling;
use salamander_models::blocks::pooling::check_names;
use serde_json::{Map, Value};

use crate::{Error, ModelDir};

const MODULES: &str = "modules.json";
const CONFIG: &str = "config_sentence_transformers.json";

/// The names under which sentence-transformers has saved the settings of its `Transformer`; the first that says
/// anything counts.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Which class of sentence-transformers a model belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentenceClass {
    /// Makes vectors of texts.
    SentenceTransformer,
    /// Scores pairs of texts.
    CrossEncoder,
}

impl SentenceClass {
    /// Its name in `model_type`, and the `transformer_task`, output of the network and feature of its transformer.
    fn names(self) -> [&'static str; 4] {
        match self {
            Self::SentenceTransformer => [
                "SentenceTransformer",
                "feature-extraction",
                "last_hidden_state",
                "token_embeddings",
            ],
            Self::CrossEncoder => [
                "CrossEncoder",
                "sequence-classification",
                "logits",
                "scores",
            ],
        }
    }
}

/// A model as its `modules.json` describes it.
#[derive(Debug)]
pub(crate) struct SentenceModel {
    /// Where the transformer's own files are.
    pub(crate) transformer: ModelDir,
    /// How the transformer is loaded and called.
    pub(crate) settings: TransformerSettings,
    /// The modules behind the transformer, in order.
    pub(crate) modules: Vec<Module>,
    /// Texts that may be put before every text, by name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// The name of the prompt that is put there by default; one of `prompts`.
    pub(crate) default_prompt: Option<String>,
    /// How many values of a vector are kept, after all modules.
    pub(crate) truncate_dim: Option<usize>,
    /// The activation of a cross-encoder, as a class of PyTorch.
    pub(crate) activation: Option<String>,
}

/// A module behind the transformer.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its folder in the model's directory.
    pub(crate) folder: String,
    pub(crate) kind: ModuleKind,
}

/// What a module is, with its parsed configuration.
#[derive(Debug)]
pub(crate) enum ModuleKind {
    Pooling(Pooling),
    Dense(Value),
    LayerNorm(Value),
    Normalize,
}

impl SentenceModel {
    /// Reads what the directory says; `None` where there is no `modules.json`, without which the reference does not
    /// look at the other files either.
    ///
    /// # Errors
    /// A file is not valid, or says what cannot be honoured.
    pub(crate) fn read(directory: &ModelDir, class: SentenceClass) -> Result<Option<Self>, Error> {
        let refuse = |file, field: &str, reason: String| {
            Error::config(directory.folder())(ConfigError::within(file, field, reason))
        };
        let config = directory.json(CONFIG)?;
        let Some(listed) = directory.json(MODULES)? else {
            if config.is_some() && class == SentenceClass::SentenceTransformer {
                tracing::warn!(
                    "{}: {CONFIG} has no effect without {MODULES}; the vector is the mean of the tokens'",
                    directory.path().display()
                );
            }
            return Ok(None);
        };
        let config = config.unwrap_or(Value::Null);
        let listed = listed
            .as_array()
            .ok_or_else(|| refuse(MODULES, "[]", "is not a list of modules".to_owned()))?;
        let mut model = Self {
            transformer: directory.clone(),
            settings: TransformerSettings::default(),
            modules: Vec::new(),
            prompts: BTreeMap::new(),
            default_prompt: None,
            truncate_dim: None,
            activation: None,
        };
        model
            .general(&config, class)
            .map_err(Error::config(directory.folder()))?;
        if listed.is_empty() {
            return Err(refuse(MODULES, "[]", "lists no module".to_owned()));
        }
        let mut names = BTreeSet::new();
        for (place, module) in listed.iter().enumerate() {
            let text = |name: &str| module.get(name).and_then(Value::as_str);
            let field = |name: &str| format!("[{place}].{name}");
            let missing = |name: &str| refuse(MODULES, &field(name), "is missing".to_owned());
            if let Some(name) = text("name").filter(|name| !names.insert(name.to_string())) {
                let reason = format!("\"{name}\" is the name of another module too");
                return Err(refuse(MODULES, &field("name"), reason));
            }
            let kind = text("type").ok_or_else(|| missing("type"))?;
            let path = text("path").ok_or_else(|| missing("path"))?;
            let folder =
                relative_folder(path).map_err(|reason| refuse(MODULES, &field("path"), reason))?;
            let unsupported = |reason: String| refuse(MODULES, &field("type"), reason);
            let Some(kind) = kind
                .strip_prefix("sentence_transformers.")
                .and_then(|path| path.rsplit('.').next())
            else {
                return Err(unsupported(format!(
                    "\"{kind}\" is code of the model's own, which is not run; only modules of sentence_transformers are"
                )));
            };
            if (kind == "Transformer") != (place == 0) {
                return Err(unsupported(format!(
                    "\"{kind}\" is not supported {}",
                    if place == 0 {
                        "as the first module; a Transformer is"
                    } else {
                        "behind another module"
                    }
                )));
            }
            let sentence = class == SentenceClass::SentenceTransformer;
            let kind = match kind {
                "Transformer" => {
                    model.transformer = directory.subfolder(&folder)?;
                    model.settings = TransformerSettings::read(&model.transformer, class)?;
                    continue;
                }
                // Dropout acts only in training.
                "Dropout" => continue,
                "Pooling" if sentence => {
                    // It pools the tokens anew, whatever was made of the vector of a pooling before it.
                    model.modules.clear();
                    let config = directory.module_config(&folder)?;
                    let pooling = Pooling::parse(&config);
                    let path = directory.folder().join(&folder);
                    ModuleKind::Pooling(pooling.map_err(Error::config(&path))?)
                }
                "Dense" if !model.modules.is_empty() => {
                    ModuleKind::Dense(directory.module_config(&folder)?)
                }
                "LayerNorm" if !model.modules.is_empty() => {
                    ModuleKind::LayerNorm(directory.module_config(&folder)?)
                }
                // It has no weights, so that Git keeps no folder of it.
                "Normalize" if !model.modules.is_empty() => {
                    let config = directory.json(&format!("{folder}/config.json"))?;
                    check_names(&config.unwrap_or(Value::Null))
                        .map_err(Error::config(&directory.folder().join(&folder)))?;
                    ModuleKind::Normalize
                }
                other => {
                    let supported = if sentence {
                        "a Transformer, a Pooling, then Dense, LayerNorm, Normalize and Dropout are"
                    } else {
                        "a cross-encoder is a Transformer alone"
                    };
                    let reason = format!("\"{other}\" is not supported here; {supported}");
                    return Err(unsupported(reason));
                }
            };
            model.modules.push(Module { folder, kind });
        }
        if class == SentenceClass::SentenceTransformer && model.modules.is_empty() {
            let reason = "has no Pooling, so that there is no vector of a text".to_owned();
            return Err(refuse(MODULES, "[]", reason));
        }
        Ok(Some(model))
    }

    /// The fields of `config_sentence_transformers.json`. The versions of packages, `similarity_fn_name` and
    /// `keep_in_fp32_modules` change no vector.
    fn general(&mut self, config: &Value, class: SentenceClass) -> Result<(), ConfigError> {
        let refuse = |field: &str, reason: String| Err(ConfigError::within(CONFIG, field, reason));
        let [wanted, ..] = class.names();
        let found = field(config, "model_type");
        // Files of before version 5 do not say it.
        if !found.is_null() && found != wanted {
            let task = match found.as_str() {
                Some("CrossEncoder") => "; text-classification runs it",
                Some("SentenceTransformer") => "; text-embedding runs it",
                _ => ", which no task runs",
            };
            return refuse("model_type", format!("is {found}, not \"{wanted}\"{task}"));
        }
        match field(config, "prompts") {
            Value::Null => {}
            Value::Object(prompts) => {
                for (name, text) in prompts {
                    let text = match text {
                        Value::Null => String::new(),
                        Value::String(text) => text.clone(),
                        other => return refuse("prompts", format!("{other} is not a text")),
                    };
                    self.prompts.insert(name.clone(), text);
                }
            }
            other => return refuse("prompts", format!("{other} is not an object of texts")),
        }
        match field(config, "default_prompt_name") {
            Value::Null => {}
            Value::String(name) => {
                // These two are there, and empty, where a file does not say them.
                let usual = class == SentenceClass::SentenceTransformer
                    && ["query", "document"].contains(&&name[..]);
                if usual {
                    self.prompts.entry(name.clone()).or_default();
                }
                if !self.prompts.contains_key(name) {
                    let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
                    let reason =
                        format!("\"{name}\" is not one of the prompts: {}", known.join(", "));
                    return refuse("default_prompt_name", reason);
                }
                self.default_prompt = Some(name.clone());
            }
            other => return refuse("default_prompt_name", format!("{other} is not a name")),
        }
        if class == SentenceClass::SentenceTransformer {
            self.truncate_dim = count(config, "truncate_dim")
                .map_err(|reason| ConfigError::within(CONFIG, "truncate_dim", reason))?;
        } else {
            match field(config, "activation_fn") {
                Value::Null => {}
                Value::String(class) => self.activation = Some(class.clone()),
                other => return refuse("activation_fn", format!("{other} is not a class")),
            }
        }
        Ok(())
    }
}

/// A field, `null` where there is none.
fn field<'a>(json: &'a Value, name: &str) -> &'a Value {
    json.get(name).unwrap_or(&Value::Null)
}

/// A positive number, if the field has one.
fn count(json: &Value, name: &str) -> Result<Option<usize>, String> {
    match field(json, name) {
        Value::Null => Ok(None),
        value => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count > 0 => Ok(Some(count)),
            _ => Err(format!("{value} is not a positive whole number")),
        },
    }
}

/// The folder that a path of `modules.json` names, without `.` and doubled slashes; empty for the directory itself.
pub(crate) fn relative_folder(path: &str) -> Result<String, String> {
    // Of Windows' syntax too, as the reference refuses it.
    let rooted = path.starts_with(['/', '\\']) || path.as_bytes().get(1) == Some(&b':');
    if rooted || path.contains('\0') || path.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("\"{path}\" leads out of the model's directory"));
    }
    let parts = path.split('/').filter(|part| !["", "."].contains(part));
    Ok(parts.collect::<Vec<_>>().join("/"))
}

impl ModelDir {
    /// The model in a folder of this directory, or this one where there is no name.
    fn subfolder(&self, folder: &str) -> Result<Self, Error> {
        if folder.is_empty() {
            return Ok(self.clone());
        }
        let path = self.folder().join(folder);
        if !path.is_dir() {
            return Err(self.named_and_missing(folder, "no such folder"));
        }
        Self::find(path)
    }

    /// The `config.json` of a module's folder.
    fn module_config(&self, folder: &str) -> Result<Value, Error> {
        let name = [folder, "config.json"].join("/");
        let config = self.json(name.trim_start_matches('/'))?;
        config.ok_or_else(|| self.named_and_missing(folder, "no config.json in it"))
    }

    fn named_and_missing(&self, folder: &str, what: &str) -> Error {
        Error::NotFound {
            model: self.folder().join(folder).display().to_string(),
            reason: format!("{what}, though {MODULES} names it; fetch or copy the whole model"),
        }
    }
}

/// How the transformer is loaded and called.
#[derive(Debug, Clone, Default)]
pub(crate) struct TransformerSettings {
    /// The most tokens of a text, where it is not the tokenizer's own limit.
    pub(crate) max_length: Option<usize>,
    /// Whether texts are lowercased before the tokenizer's own rules.
    pub(crate) lower_case: bool,
    /// Fields that replace those of `config.json`.
    pub(crate) config: Map<String, Value>,
    /// Fields that replace those of `tokenizer_config.json`.
    pub(crate) tokenizer: Map<String, Value>,
}

/// What locates files, which the reference replaces by its own.
const OF_LOADING: [&str; 6] = [
    "cache_dir",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
];

/// Arguments of a model that change where and how exactly it is computed.
const OF_COMPUTING: [&str; 9] = [
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "dtype",
    "export",
    "low_cpu_mem_usage",
    "provider",
    "torch_dtype",
    "use_safetensors",
];

/// Arguments of a tokenizer that act on the other side of it, or not on one text.
const OF_TOKENIZING: [&str; 4] = [
    "clean_up_tokenization_spaces",
    "legacy",
    "padding_side",
    "use_fast",
];

/// Arguments of a tokenizer that [`ModelDir::tokenizer_with`] follows.
const TOKENIZER_FIELDS: [&str; 10] = [
    "cls_token",
    "do_lower_case",
    "mask_token",
    "model_max_length",
    "pad_token",
    "sep_token",
    "strip_accents",
    "tokenize_chinese_chars",
    "truncation_side",
    "unk_token",
];

impl TransformerSettings {
    fn read(transformer: &ModelDir, class: SentenceClass) -> Result<Self, Error> {
        for name in TRANSFORMER_CONFIGS {
            let config = transformer.json(name)?;
            let config =
                config.filter(|config| config.as_object().is_none_or(|map| !map.is_empty()));
            if let Some(config) = config {
                let parsed = Self::parse(name, &config, class);
                return parsed.map_err(Error::config(transformer.folder()));
            }
        }
        Ok(Self::default())
    }

    fn parse(file: &'static str, json: &Value, class: SentenceClass) -> Result<Self, ConfigError> {
        let refuse = |field: &str, reason: String| Err(ConfigError::within(file, field, reason));
        let mut settings = Self::default();
        let Some(fields) = json.as_object() else {
            return refuse("{}", "is not an object".to_owned());
        };
        let [_, task, output, feature] = class.names();
        let (mut limit, mut call_limit) = (None, None);
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            let unlike =
                |wanted: &str| refuse(name, format!("{value} is not supported; \"{wanted}\" is"));
            match &name[..] {
                "max_seq_length" => {
                    let wrong = |reason| ConfigError::within(file, name, reason);
                    limit = limit.or(count(json, name).map_err(wrong)?);
                }
                "do_lower_case" => match value {
                    Value::Bool(lower_case) => settings.lower_case = *lower_case,
                    _ => return refuse(name, format!("{value} is neither true nor false")),
                },
                "transformer_task" if value != task => return unlike(task),
                "module_output_name" if value != feature => return unlike(feature),
                "modality_config" => {
                    if value.get("message").is_some() {
                        let reason = "texts as messages of a chat are not supported";
                        return refuse(name, reason.to_owned());
                    }
                    let text = field(value, "text");
                    let given = field(text, "method_output_name");
                    let same = given == output || *given == serde_json::json!([output]);
                    if field(text, "method") != "forward" || !same {
                        let reason =
                            format!("{text} is not supported; \"forward\" and \"{output}\" are");
                        return refuse("modality_config.text", reason);
                    }
                }
                // A form of the same computation, what the caller replaces, and lengths and changes of texts that
                // the caller calls queries, as the reference's `encode` does not.
                "transformer_task" | "module_output_name" | "unpad_inputs" | "backend"
                | "query_length" | "document_length" | "query_expansion" => {}
                "processing_kwargs" => call_limit = call(file, value)?,
                "model_args" | "model_kwargs" => {
                    each(file, name, value, |key, _| {
                        Ok([&OF_LOADING[..], &OF_COMPUTING[..]].concat().contains(&key))
                    })?;
                }
                "config_args" | "config_kwargs" => each(file, name, value, |key, value| {
                    if !OF_LOADING.contains(&key) {
                        settings.config.insert(key.to_owned(), value.clone());
                    }
                    Ok(true)
                })?,
                "tokenizer_args" | "processor_kwargs" => each(file, name, value, |key, value| {
                    if key == "model_max_length" {
                        limit = count(&serde_json::json!({key: value}), key)?;
                    }
                    let followed = TOKENIZER_FIELDS.contains(&key);
                    if followed {
                        settings.tokenizer.insert(key.to_owned(), value.clone());
                    }
                    Ok(followed || OF_LOADING.contains(&key) || OF_TOKENIZING.contains(&key))
                })?,
                _ => return refuse(name, format!("{value} is not supported")),
            }
        }
        settings.max_length = call_limit.or(limit);
        Ok(settings)
    }
}

/// Looks at each field of an object of arguments, and refuses those that `known` does not know.
fn each(
    file: &'static str,
    name: &str,
    arguments: &Value,
    mut known: impl FnMut(&str, &Value) -> Result<bool, String>,
) -> Result<(), ConfigError> {
    let refuse = |field: &str, reason: String| ConfigError::within(file, field, reason);
    let arguments = arguments
        .as_object()
        .ok_or_else(|| refuse(name, format!("{arguments} is not an object")))?;
    for (key, value) in arguments.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("{name}.{key}");
        match known(key, value) {
            Ok(true) => {}
            Ok(false) => return Err(refuse(&field, format!("{value} is not supported"))),
            Err(reason) => return Err(refuse(&field, reason)),
        }
    }
    Ok(())
}

/// The most tokens by the arguments with which the tokenizer is called, `processing_kwargs`.
fn call(file: &'static str, arguments: &Value) -> Result<Option<usize>, ConfigError> {
    let mut limit = None;
    let mut truncates = true;
    // What is common to all kinds of input wins over what is the text's.
    for kind in ["text", "common"] {
        let given = field(arguments, kind);
        if given.is_null() {
            continue;
        }
        each(
            file,
            &format!("processing_kwargs.{kind}"),
            given,
            |key, value| {
                match key {
                    "max_length" => limit = count(given, key)?,
                    "truncation" => match value {
                        Value::Bool(on) => truncates = *on,
                        Value::String(how) if how == "do_not_truncate" => truncates = false,
                        // Of a single text they are the same.
                        Value::String(how)
                            if ["longest_first", "only_first"].contains(&&how[..]) =>
                        {
                            truncates = true;
                        }
                        _ => return Ok(false),
                    },
                    // Padding is masked, and the network is asked for what it needs.
                    "padding" | "pad_to_multiple_of" | "return_tensors" | "verbose" => {}
                    "padding_side" => return Ok(value == "right"),
                    "add_special_tokens" | "return_attention_mask" | "return_token_type_ids" => {
                        return Ok(*value == true);
                    }
                    _ => return Ok(false),
                }
                Ok(true)
            },
        )?;
    }
    let others = ["text", "common", "audio", "image", "video", "chat_template"];
    let keys = arguments.as_object().into_iter().flat_map(Map::keys);
    for key in keys.filter(|key| !others.contains(&&key[..])) {
        tracing::warn!(
            "{file}: `processing_kwargs.{key}` has no effect; arguments stand under \"text\" or \"common\""
        );
    }
    // The network's own limit is left.
    Ok(if truncates { limit } else { Some(usize::MAX) })
}

#[cfg(test)]
mod tests {
    use super::relative_folder;

    #[test]
    fn paths_name_folders_within() {
        for (path, folder) in [
            ("", ""),
            (".", ""),
            ("./", ""),
            ("1_Pooling", "1_Pooling"),
            ("./1_Pooling/", "1_Pooling"),
            ("modules//2_Dense/.", "modules/2_Dense"),
        ] {
            assert_eq!(relative_folder(path), Ok(folder.to_owned()), "{path}");
        }
        for path in [
            "..",
            "a/../..",
            "/etc",
            "a\\..\\b",
            "\\\\host\\share",
            "C:\\x",
            "a\0b",
        ] {
            assert!(relative_folder(path).is_err(), "{path}");
        }
    }
}
