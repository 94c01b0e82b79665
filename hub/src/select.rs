//! Which files of a repository an inference needs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Error;

const MODULES: &str = "modules.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files beside the weights.
const SETTINGS: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    MODULES,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// How weight files of other formats end, to name them when there are no others.
const OTHER_WEIGHTS: [&str; 11] = [
    ".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx", ".ot", ".pb", ".pt", ".pth",
];

/// The files that are needed of those that a repository has, the weights last, so that a snapshot
/// that has them has all.
///
/// `read` gives a file's content; it is asked for those that name other files.
pub(crate) fn needed(
    id: &str,
    names: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Result<Vec<u8>, Error>,
) -> Result<Vec<String>, Error> {
    for name in names {
        if leaves(name) {
            return Err(unsafe_name(id, name));
        }
    }

    // Other directories have checkpoints, exports to other formats and the like, which nothing
    // would read.
    let mut directories = vec![String::new()];
    if names.contains(MODULES) {
        directories = module_directories(id, &read(MODULES)?)?;
    }
    // The first module is the encoder; in most repositories it is in the root.
    let encoder = directories.first().cloned().unwrap_or_default();
    let weights = weights(id, &encoder, names, &mut read)?;

    let roots = directories.iter().map(String::as_str);
    let mut files = BTreeSet::new();
    for directory in roots.clone().chain([""]) {
        let settings = SETTINGS.iter().map(|name| format!("{directory}{name}"));
        files.extend(settings.filter(|name| names.contains(name)));
    }
    let mut files: Vec<_> = files.into_iter().collect();
    for directory in roots.filter(|directory| !directory.is_empty() && **directory != *encoder) {
        let name = format!("{directory}{WEIGHTS}");
        if names.contains(&name) {
            files.push(name);
        }
    }
    files.extend(weights);
    for name in &files {
        if !is_plain(name) {
            return Err(unsafe_name(id, name));
        }
    }
    Ok(files)
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
        let path = path.trim_end_matches('/');
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
    let single = format!("{directory}{WEIGHTS}");
    if names.contains(&single) {
        return Ok(vec![single]);
    }
    let index = format!("{directory}{INDEX}");
    if names.contains(&index) {
        let shards = shards(id, directory, &index, &read(&index)?)?;
        if let Some(missing) = shards.iter().find(|shard| !names.contains(*shard)) {
            return Err(Error::Malformed {
                id: id.to_owned(),
                file: index,
                reason: format!("the shard `{missing}` that it names is not in the repository"),
            });
        }
        return Ok([index].into_iter().chain(shards).collect());
    }
    let others: Vec<_> = names
        .iter()
        .filter(|name| {
            name.strip_prefix(directory)
                .is_some_and(|name| !name.contains('/') && name.ends_with(".safetensors"))
        })
        .cloned()
        .collect();
    match others.as_slice() {
        // A shard of several is not the whole, as in a snapshot that was not fetched completely.
        [name] if !name.contains("-of-") || name.ends_with("-00001-of-00001.safetensors") => {
            Ok(others)
        }
        [] => Err(Error::NoSafetensors {
            id: id.to_owned(),
            others: names
                .iter()
                .filter(|name| OTHER_WEIGHTS.iter().any(|end| name.ends_with(end)))
                .filter(|name| !name.ends_with("training_args.bin"))
                .cloned()
                .collect(),
        }),
        _ => Err(Error::AmbiguousWeights {
            id: id.to_owned(),
            candidates: others,
        }),
    }
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

/// Whether a name points out of its directory. No commit can have such a name, so a listing with
/// one is forged.
fn leaves(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.split(['/', '\\']).any(|part| part == "..")
}

/// Whether a name is the same path on every system. A commit can have others, which matters only if
/// they are to be written.
fn is_plain(name: &str) -> bool {
    !name.contains(|c: char| c == '\\' || c == ':' || c.is_control())
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::needed;
    use crate::Error;

    fn select(files: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        needed("o/n", &names, |name| {
            let (_, content) = files.iter().find(|(key, _)| *key == name).unwrap();
            Ok(content.as_bytes().to_vec())
        })
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
    fn weights_of_other_formats_are_named() {
        let error = select(&[("pytorch_model.bin", ""), ("training_args.bin", "")]).unwrap_err();
        let Error::NoSafetensors { others, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(others, &["pytorch_model.bin"]);
        assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
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
                "leave the cache",
            ),
            (
                r#"{"weight_map": {"w": "/a.safetensors"}}"#,
                "leave the cache",
            ),
            (
                r#"{"weight_map": {"w": "C:\\a.safetensors"}}"#,
                "leave the cache",
            ),
        ] {
            let error = index(json).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in [
            "../config.json",
            "/config.json",
            "a/../../x",
            "..\\x.safetensors",
            "\\x",
        ] {
            let error = select(&[(name, ""), ("model.safetensors", "")]).unwrap_err();
            assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
        }
        for path in ["../x", "/x", "a\\\\b"] {
            let modules = format!(r#"[{{"path": "{path}"}}]"#);
            let error = select(&[("modules.json", &modules)]).unwrap_err();
            assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
        }
        let error = select(&[("a\\b.safetensors", "")]).unwrap_err();
        assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
    }
}
