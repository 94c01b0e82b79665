//! Which files of a repository an inference needs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Error;
use crate::files::{is_plain, leaves};

const MODULES: &str = "modules.json";
pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const SIGNATURE: &str = "SHA256SUMS.sig";

/// The files beside the weights.
const SETTINGS: [&str; 27] = [
    "config.json",
    "bert_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "chat_template.json",
    "chat_template.jinja",
    MODULES,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
    SUMS,
    SIGNATURE,
];

/// A kind of weights: how the files are usually named and how their names end.
struct Kind {
    usual: &'static [&'static str],
    endings: &'static [&'static str],
}

const fn kind(usual: &'static [&'static str], endings: &'static [&'static str]) -> Kind {
    Kind { usual, endings }
}

/// The best first, in the order in which a directory's weights are looked for.
const KINDS: [Kind; 12] = [
    kind(
        &["model.safetensors", "model.safetensors.index.json"],
        &[".safetensors"],
    ),
    kind(
        &["pytorch_model.bin", "pytorch_model.bin.index.json"],
        &[".bin", ".pt", ".pth", ".th", ".ckpt"],
    ),
    kind(&[], &[".gguf"]),
    kind(&["weights.npz", "model.npz"], &[".npz"]),
    kind(&[], &[".npy"]),
    kind(&["saved_model.pb"], &[".index"]),
    kind(
        &["tf_model.h5", "tf_model.h5.index.json"],
        &[".keras", ".h5", ".hdf5"],
    ),
    kind(&[], &[".pb"]),
    kind(&[], &[".tflite"]),
    kind(&["model.onnx", "encoder_model.onnx"], &[".onnx"]),
    kind(
        &["flax_model.msgpack", "flax_model.msgpack.index.json"],
        &[".msgpack"],
    ),
    kind(&["model.bpk"], &[".bpk"]),
];

/// What trainers leave beside the weights, under the same endings.
const BESIDE: [&str; 5] = [
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
];

/// Where a repository has exports for ONNX Runtime, and nothing else than those in some.
const EXPORTS: &str = "onnx/";

fn is_export(directory: &str, name: &str) -> bool {
    let export = name
        .strip_prefix(directory)
        .and_then(|name| name.strip_prefix(EXPORTS));
    export.is_some_and(|name| name.ends_with(".onnx"))
}

/// How many of a repository's files an error names.
const SHOWN: usize = 12;

/// How weight files end that are not read, to name them when there are no others.
const OTHER_WEIGHTS: [&str; 3] = [".mlmodel", ".ot", ".params"];

/// The files that an inference needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Configuration, tokenizer, processor.
    pub(crate) settings: Vec<String>,
    /// The weights, which come last, so that a snapshot that has them has all.
    pub(crate) weights: Vec<String>,
}

impl Needed {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &String> {
        self.settings.iter().chain(&self.weights)
    }
}

/// The files that are needed of those that a repository has.
///
/// `read` gives a file's content; it is asked for those that name other files.
pub(crate) fn needed(
    id: &str,
    names: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Result<Vec<u8>, Error>,
) -> Result<Needed, Error> {
    // Other directories have checkpoints, exports to other formats and the like, which nothing would read.
    let mut directories = vec![String::new()];
    if names.contains(MODULES) {
        directories = module_directories(id, &read(MODULES)?)?;
    }
    // The first module is the encoder; in most repositories it is in the root.
    let encoder = directories.first().cloned().unwrap_or_default();
    let mut weights = match weights(id, &encoder, names, &mut read) {
        Err(Error::NoWeights { .. }) if names.iter().any(|name| is_export(&encoder, name)) => {
            weights(id, &format!("{encoder}{EXPORTS}"), names, &mut read)?
        }
        other => other?,
    };

    let roots = directories.iter().map(String::as_str);
    let mut settings = BTreeSet::new();
    for directory in roots.clone().chain([""]) {
        let named = SETTINGS.iter().map(|name| format!("{directory}{name}"));
        settings.extend(named.filter(|name| names.contains(name)));
    }
    for directory in roots.filter(|directory| !directory.is_empty() && **directory != *encoder) {
        let usual = KINDS.iter().flat_map(|kind| kind.usual);
        let mut usual = usual.map(|name| format!("{directory}{name}"));
        if let Some(name) = usual.find(|name| names.contains(name)) {
            weights.insert(0, name);
        }
    }
    let needed = Needed {
        settings: settings.into_iter().collect(),
        weights,
    };
    for name in needed.iter() {
        if !is_plain(name) {
            return Err(unsafe_name(id, name));
        }
    }
    Ok(needed)
}

/// The files that match one of the patterns, in which `*` stands for any letters, and `?` for one.
pub(crate) fn matching(
    id: &str,
    names: &BTreeSet<String>,
    patterns: &[&str],
) -> Result<Needed, Error> {
    let is_asked = |name: &&String| patterns.iter().any(|pattern| matches(pattern, name));
    let settings: Vec<_> = names.iter().filter(is_asked).cloned().collect();
    if settings.is_empty() {
        return Err(Error::NoMatch {
            id: id.to_owned(),
            patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            files: names.iter().take(SHOWN).cloned().collect(),
        });
    }
    if let Some(name) = settings.iter().find(|name| !is_plain(name)) {
        return Err(unsafe_name(id, name));
    }
    Ok(Needed {
        settings,
        weights: Vec::new(),
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` is, and how far it reaches.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, n) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The directories of the modules in their order, with a `/` at the end unless it is the root.
fn module_directories(id: &str, json: &[u8]) -> Result<Vec<String>, Error> {
    let malformed = |reason: String| Error::Malformed {
        id: id.to_owned(),
        file: MODULES.to_owned(),
        reason,
    };
    let modules: Value = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
    let modules = modules
        .as_array()
        .ok_or_else(|| malformed("not a list of modules".to_owned()))?;
    let mut directories = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let path = module["path"]
            .as_str()
            .ok_or_else(|| malformed(format!("module {index} has no `path`")))?;
        let words = path.split('/').filter(|word| !matches!(*word, "" | "."));
        // A root directory is not this one.
        let root = if path.starts_with('/') { "/" } else { "" };
        let path = &format!("{root}{}", words.collect::<Vec<_>>().join("/"));
        if path.is_empty() {
            directories.push(String::new());
        } else if leaves(path) || !is_plain(path) {
            return Err(unsafe_name(id, path));
        } else {
            directories.push(format!("{path}/"));
        }
    }
    Ok(directories)
}

/// The weight files in a directory, those that name others first.
fn weights(
    id: &str,
    directory: &str,
    names: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Result<Vec<u8>, Error>,
) -> Result<Vec<String>, Error> {
    let here = |name: &&String| {
        name.strip_prefix(directory)
            .is_some_and(|name| !name.contains('/'))
    };
    let ends = |name: &str, endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    for kind in KINDS {
        let mut usual = kind.usual.iter().map(|name| format!("{directory}{name}"));
        if let Some(name) = usual.find(|name| names.contains(name)) {
            if !name.ends_with(".json") {
                return Ok(with_data(directory, name, names));
            }
            let shards = shards(id, directory, &name, &read(&name)?)?;
            if let Some(missing) = shards.iter().find(|shard| !names.contains(*shard)) {
                return Err(Error::Malformed {
                    id: id.to_owned(),
                    file: name,
                    reason: format!(
                        "the shard `{missing}` that it names is not in the repository; choose another revision, or tell the model's authors"
                    ),
                });
            }
            return Ok([name].into_iter().chain(shards).collect());
        }
        let is_weights = |name: &&String| {
            let plain = name.strip_prefix(directory).unwrap_or(name);
            ends(plain, kind.endings) && !BESIDE.contains(&plain)
        };
        let others: Vec<_> = names
            .iter()
            .filter(here)
            .filter(is_weights)
            .cloned()
            .collect();
        match others.as_slice() {
            [] => {}
            // Several files without an index are one model only if they are all of its parts.
            found if found.iter().all(|name| is_part(name)) => {
                return if is_whole(found) {
                    Ok(others)
                } else {
                    Err(ambiguous(id, others))
                };
            }
            [only] => return Ok(with_data(directory, only.clone(), names)),
            _ => return Err(ambiguous(id, others)),
        }
    }
    let is_known = |name: &str| KINDS.iter().any(|kind| ends(name, kind.endings));
    let is_other = |name: &&String| {
        let plain = name.rsplit('/').next().unwrap_or(name);
        !BESIDE.contains(&plain) && (ends(name, &OTHER_WEIGHTS) || is_known(name))
    };
    Err(Error::NoWeights {
        id: id.to_owned(),
        others: names.iter().filter(is_other).take(SHOWN).cloned().collect(),
    })
}

/// A file of weights, and those beside it that hold its data: shards of TensorFlow's, external data of ONNX's,
/// and the decoder of an exported encoder.
fn with_data(directory: &str, name: String, names: &BTreeSet<String>) -> Vec<String> {
    let plain = name.strip_prefix(directory).unwrap_or(&name);
    let stem = name.strip_suffix(".index");
    let belongs = |other: &str| match plain {
        "saved_model.pb" => other
            .strip_prefix(directory)
            .is_some_and(|other| other.starts_with("variables/variables.")),
        "encoder_model.onnx" if other.strip_prefix(directory) == Some("decoder_model.onnx") => true,
        _ if plain.ends_with(".onnx") => {
            let rest = other.strip_prefix(&name[..]);
            rest.is_some_and(|rest| rest.starts_with("_data") || rest == ".data")
        }
        _ => stem.is_some_and(|stem| {
            let rest = other.strip_prefix(stem);
            rest.is_some_and(|rest| rest.starts_with(".data-"))
        }),
    };
    let data: Vec<String> = names.iter().filter(|o| belongs(o)).cloned().collect();
    [name].into_iter().chain(data).collect()
}

fn ambiguous(id: &str, candidates: Vec<String>) -> Error {
    Error::AmbiguousWeights {
        id: id.to_owned(),
        candidates,
    }
}

/// The number of a part and how many there are, of a name such as `model-00001-of-00003.gguf`.
fn part(name: &str) -> Option<(&str, usize, usize)> {
    let (stem, _) = name.rsplit_once('.')?;
    let (stem, of) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    Some((stem, number.parse().ok()?, of.parse().ok()?))
}

fn is_part(name: &str) -> bool {
    part(name).is_some()
}

/// Whether the names are all parts of one GGUF; safetensors and PyTorch need an index.
fn is_whole(names: &[String]) -> bool {
    let parts: Vec<_> = names.iter().filter_map(|name| part(name)).collect();
    let Some(&(stem, _, count)) = parts.first() else {
        return false;
    };
    names.iter().all(|name| name.ends_with(".gguf"))
        && parts.len() == count
        && parts.iter().all(|&(s, _, c)| s == stem && c == count)
}

/// The shards that an index names.
fn shards(id: &str, directory: &str, index: &str, json: &[u8]) -> Result<BTreeSet<String>, Error> {
    let malformed = |reason: String| Error::Malformed {
        id: id.to_owned(),
        file: index.to_owned(),
        reason,
    };
    let json: Value = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
    let map = json["weight_map"]
        .as_object()
        .filter(|map| !map.is_empty())
        .ok_or_else(|| malformed("there is no `weight_map`, or it is empty".to_owned()))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map {
        let shard = shard
            .as_str()
            .ok_or_else(|| malformed(format!("the shard of `{tensor}` is no file name")))?;
        if leaves(shard) || !is_plain(shard) {
            return Err(unsafe_name(id, shard));
        }
        shards.insert(format!("{directory}{shard}"));
    }
    Ok(shards)
}

fn unsafe_name(id: &str, name: &str) -> Error {
    Error::UnsafeName {
        id: id.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::needed;
    use crate::Error;

    fn select(files: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let needed = needed("o/n", &names, |name| {
            let (_, content) = files.iter().find(|(key, _)| *key == name).unwrap();
            Ok(content.as_bytes().to_vec())
        })?;
        Ok(needed.iter().cloned().collect())
    }

    #[test]
    fn only_what_is_read_is_taken() {
        let files = select(&[
            ("README.md", ""),
            ("checkpoint-5/config.json", ""),
            ("checkpoint-5/model.safetensors", ""),
            ("config.json", ""),
            ("model.safetensors", ""),
            ("onnx/model.onnx", ""),
            ("other.safetensors", ""),
            ("pytorch_model.bin", ""),
            ("vocab.txt", ""),
        ]);
        let expected = ["config.json", "vocab.txt", "model.safetensors"];
        assert_eq!(files.unwrap(), expected);
    }

    #[test]
    fn modules_bring_their_directories() {
        let modules = r#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]"#;
        let files = select(&[
            ("1_Pooling/config.json", ""),
            ("2_Dense/config.json", ""),
            ("2_Dense/model.safetensors", ""),
            ("model.safetensors", ""),
            ("modules.json", modules),
            ("openvino/config.json", ""),
        ]);
        let expected = [
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "modules.json",
            "2_Dense/model.safetensors",
            "model.safetensors",
        ];
        assert_eq!(files.unwrap(), expected);
    }

    #[test]
    fn the_encoder_may_have_its_own_directory() {
        let modules = r#"[{"path": "0_Transformer"}, {"path": "1_Pooling"}]"#;
        let files = select(&[
            ("0_Transformer/config.json", ""),
            ("0_Transformer/model.safetensors", ""),
            ("0_Transformer/vocab.txt", ""),
            ("1_Pooling/config.json", ""),
            ("config_sentence_transformers.json", ""),
            ("modules.json", modules),
        ]);
        assert_eq!(files.unwrap().len(), 6);
    }

    #[test]
    fn a_single_other_file_is_taken_and_several_are_named() {
        let one = select(&[("weights.safetensors", "")]).unwrap();
        assert_eq!(one, ["weights.safetensors"]);
        let error = select(&[("a.safetensors", ""), ("b.safetensors", "")]).unwrap_err();
        assert!(
            error.to_string().contains("a.safetensors, b.safetensors"),
            "{error}"
        );
        let error = select(&[("model-00001-of-00002.safetensors", "")]).unwrap_err();
        assert!(matches!(error, Error::AmbiguousWeights { .. }), "{error}");
    }

    #[test]
    fn the_best_format_is_taken() {
        let files = |names: &[&str]| {
            let files: Vec<_> = names.iter().map(|name| (*name, "")).collect();
            select(&files)
        };
        let taken = |names: &[&str]| files(names).unwrap();
        assert_eq!(
            taken(&["a.gguf", "pytorch_model.bin", "training_args.bin"]),
            ["pytorch_model.bin"]
        );
        assert_eq!(taken(&["a.gguf", "model.onnx", "w.npy"]), ["a.gguf"]);
        assert_eq!(
            taken(&["optimizer.pt", "weights.npz", "x.npz"]),
            ["weights.npz"]
        );
        let parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(taken(&parts), parts);
        assert!(matches!(
            files(&parts[..1]),
            Err(Error::AmbiguousWeights { .. })
        ));
        assert_eq!(
            taken(&["flax_model.msgpack", "rust_model.ot", "tf_model.h5"]),
            ["tf_model.h5"]
        );
        let error = files(&["rust_model.ot", "training_args.bin"]).unwrap_err();
        let Error::NoWeights { others, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(others, &["rust_model.ot"]);
        assert!(error.to_string().contains("rust_model.ot"), "{error}");
    }

    #[test]
    fn weights_bring_the_files_of_their_data() {
        let taken = |names: &[&str]| {
            let files: Vec<_> = names.iter().map(|name| (*name, "")).collect();
            select(&files).unwrap()
        };
        let onnx = ["model.onnx", "model.onnx_data"];
        assert_eq!(
            taken(&["model.onnx", "model.onnx_data", "other.onnx"]),
            onnx
        );
        let bert = [
            "bert_model.ckpt.index",
            "bert_model.ckpt.data-00000-of-00001",
        ];
        assert_eq!(taken(&["bert_model.ckpt.meta", bert[0], bert[1]]), bert);
        let saved = [
            "saved_model.pb",
            "variables/variables.data-00000-of-00001",
            "variables/variables.index",
        ];
        assert_eq!(taken(&[saved[0], saved[1], saved[2], "assets/x"]), saved);
        let pair = ["encoder_model.onnx", "decoder_model.onnx"];
        assert_eq!(
            taken(&[pair[0], pair[1], "decoder_with_past_model.onnx"]),
            pair
        );
    }

    #[test]
    fn exports_are_taken_where_there_is_nothing_else() {
        let taken = |names: &[&str]| {
            let files: Vec<_> = names.iter().map(|name| (*name, "")).collect();
            select(&files)
        };
        let exports = ["onnx/model.onnx", "onnx/model.onnx_data"];
        let quantized = "onnx/model_quantized.onnx";
        assert_eq!(
            taken(&[exports[0], exports[1], quantized]).unwrap(),
            exports
        );
        assert_eq!(taken(&[quantized]).unwrap(), [quantized]);
        assert_eq!(
            taken(&["model.safetensors", exports[0]]).unwrap(),
            ["model.safetensors"]
        );
        assert!(matches!(
            taken(&[quantized, "onnx/model_fp16.onnx"]),
            Err(Error::AmbiguousWeights { candidates, .. }) if candidates.len() == 2
        ));
        let error = taken(&[
            "a/model.safetensors",
            "coreml/model.mlmodel",
            "a/training_args.bin",
        ]);
        let Error::NoWeights { others, .. } = error.unwrap_err() else {
            panic!("weights of another folder were taken");
        };
        assert_eq!(others, ["a/model.safetensors", "coreml/model.mlmodel"]);
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("*.json", "a/b.json", true),
            ("*.json", "a.jsonl", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ab.ba", false),
            ("ä*", "äö", true),
            ("", "a", false),
        ] {
            assert_eq!(super::matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn an_index_must_name_shards_that_are_there() {
        let index = |json| select(&[("model.safetensors.index.json", json)]);
        for (json, said) in [
            ("{", "EOF"),
            ("{}", "weight_map"),
            (r#"{"weight_map": {"w": 1}}"#, "`w`"),
            (
                r#"{"weight_map": {"w": "a.safetensors"}}"#,
                "`a.safetensors`",
            ),
            (
                r#"{"weight_map": {"w": "../a.safetensors"}}"#,
                "leave its directory",
            ),
            (
                r#"{"weight_map": {"w": "/a.safetensors"}}"#,
                "leave its directory",
            ),
            (
                r#"{"weight_map": {"w": "C:\\a.safetensors"}}"#,
                "leave its directory",
            ),
        ] {
            let error = index(json).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for path in ["../x", "/x", "a\\\\b"] {
            let modules = format!(r#"[{{"path": "{path}"}}]"#);
            let error = select(&[("modules.json", &modules)]).unwrap_err();
            assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
        }
        let error = select(&[("a\\b.safetensors", "")]).unwrap_err();
        assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
    }
}
