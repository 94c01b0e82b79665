//! Files that the reference libraries wrote, held against what those libraries read in them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{Checkpoint, Dtype, Format};

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/formats")
        .join(folder)
}

/// The folder of real files, if this machine has it.
fn real(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SALAMANDER_DATA");
    if root.is_none() {
        println!("skipped: SALAMANDER_DATA does not name the folder of real files ({folder})");
    }
    root.map(|root| Path::new(&root).join(folder))
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Holds names, types, shapes and bytes against those of a safetensors file.
fn same(found: &Checkpoint, expected: &Path) {
    same_but(found, expected, &[]);
}

/// The same but for some names that safetensors' file lacks.
fn same_but(found: &Checkpoint, expected: &Path, more: &[&str]) {
    let expected = Checkpoint::open(expected).unwrap();
    let file = found.files[0].display();
    let names = |checkpoint: &Checkpoint| -> BTreeSet<String> {
        checkpoint.iter().map(|(name, _)| name.to_owned()).collect()
    };
    let mut wanted = names(&expected);
    wanted.extend(more.iter().map(|name| (*name).to_owned()));
    assert_eq!(names(found), wanted, "{file}");
    for (name, expected) in expected.iter() {
        let entry = found.get(name).unwrap();
        assert_eq!(entry.shape, expected.shape, "{file}: {name}");
        if !matches!(entry.dtype, Dtype::Quantized(_)) {
            assert_eq!(entry.dtype, expected.dtype, "{file}: {name}");
        }
        if matches!(entry.dtype, Dtype::Other(_)) {
            let error = entry.read().unwrap_err().to_string();
            assert!(error.contains(&entry.dtype.to_string()), "{error}");
            continue;
        }
        let (data, expected) = (entry.read().unwrap(), expected.read().unwrap());
        assert_eq!(data.dtype(), expected.dtype(), "{file}: {name}");
        assert!(
            data.as_bytes() == expected.as_bytes(),
            "{file}: {name}: {data} is not {expected}"
        );
    }
}

/// Every file of a folder that has its expected values beside it.
fn all_same(folder: &str, ending: &str) -> usize {
    let mut count = 0;
    for path in files(&fixtures(folder)) {
        let expected = path.with_extension("safetensors");
        if path.extension().is_some_and(|found| found == ending) && expected.is_file() {
            same(&Checkpoint::open(&path).unwrap(), &expected);
            count += 1;
        }
    }
    count
}

/// Opens and reads all that can be read; gives the number of tensors.
fn read(path: &Path) -> usize {
    let checkpoint = Checkpoint::open(path).unwrap();
    for (name, entry) in checkpoint.iter() {
        if entry.dtype.to_burn().is_some() {
            let data = entry.read().unwrap();
            assert_eq!(
                data.shape().to_vec(),
                entry.shape,
                "{}: {name}",
                path.display()
            );
        }
    }
    checkpoint.len()
}

#[test]
fn pytorch_files_of_every_container_are_what_torch_reads() {
    assert_eq!(all_same("pytorch", "pt"), 20);
}

#[test]
fn a_pytorch_file_in_every_container_says_what_it_is() {
    for (name, format, container) in [
        ("state_dict", Format::PyTorch, "zip"),
        ("legacy", Format::PyTorch, "legacy"),
        ("tar", Format::PyTorch, "tar"),
        ("script", Format::TorchScript, "zip"),
    ] {
        let checkpoint = Checkpoint::open(fixtures("pytorch").join(format!("{name}.pt"))).unwrap();
        assert_eq!(checkpoint.format, format);
        assert_eq!(checkpoint.metadata["pytorch.container"], container);
    }
}

#[test]
fn what_is_taken_off_and_left_out_of_a_training_checkpoint_is_said() {
    let checkpoint = Checkpoint::open(fixtures("pytorch/training.pt")).unwrap();
    let metadata = &checkpoint.metadata;
    assert_eq!(metadata["pytorch.wrapper"], "state_dict");
    assert_eq!(metadata["names.wrapper"], "module.");
    assert_eq!(
        metadata["pytorch.left_out"],
        "optimizer (18 tensors), best_acc1 (1 tensors)"
    );
    assert_eq!(metadata["epoch"], "3");
    assert_eq!(metadata["optimizer.param_groups.0.lr"], "0.01");
}

#[test]
fn what_stands_beside_the_tensors_is_kept_as_text() {
    let metadata = Checkpoint::open(fixtures("pytorch/nested.pt"))
        .unwrap()
        .metadata;
    for (name, text) in [
        ("args.lr", "0.5"),
        ("args.name", "tiny"),
        ("args.layers", "[1, 2]"),
        ("size", "[2, 3]"),
        ("device", "cuda:1"),
        ("dtype", "torch.bfloat16"),
        ("best", "0.25"),
        ("best32", "-1.5"),
        ("step", "-12"),
        ("flag", "True"),
        ("counter.a", "2"),
        ("labels", "[a]"),
        ("epoch", "3"),
        ("loss", "0.125"),
        ("none", "None"),
    ] {
        assert_eq!(
            metadata.get(name).map(|text| &text[..]),
            Some(text),
            "{name}"
        );
    }
    assert!(!metadata.contains_key("long"));
    for says in [
        "large (an integer beyond 64 bits)",
        "raw (2 bytes)",
        "long (a text of 5000 bytes)",
    ] {
        assert!(
            metadata["pytorch.unread"].contains(says),
            "{}",
            metadata["pytorch.unread"]
        );
    }
}

#[test]
fn a_stored_tensor_stays_in_the_file() {
    let checkpoint = Checkpoint::open(fixtures("pytorch/views.pt")).unwrap();
    let data = |name: &str| checkpoint.get(name).unwrap().read().unwrap();
    let (base, rows) = (data("base"), data("rows"));
    let begin = base.as_bytes().as_ptr() as usize;
    assert_eq!(rows.as_bytes().as_ptr() as usize, begin + 6 * 4);
}

#[test]
fn sharded_pytorch_weights_are_one_checkpoint() {
    let checkpoint = Checkpoint::open(fixtures("pytorch/sharded")).unwrap();
    assert_eq!(checkpoint.format, Format::ShardedPyTorch);
    assert_eq!(checkpoint.files.len(), 3);
    assert_eq!(checkpoint.metadata["total_size"], "36");
    same(&checkpoint, &fixtures("pytorch/sharded.safetensors"));
}

#[test]
fn pickles_of_arrays_modules_and_odd_tensors_are_what_torch_and_numpy_read() {
    assert_eq!(all_same("pickles", "pt") + all_same("pickles", "pkl"), 16);
    let mut complex = 0;
    for path in files(&fixtures("pickles")) {
        let expected = path.with_extension("safetensors");
        if path
            .extension()
            .is_some_and(|ending| ending == "safetensors")
            || !expected.is_file()
        {
            continue;
        }
        let (found, expected) = (
            Checkpoint::open(&path).unwrap(),
            Checkpoint::open(&expected).unwrap(),
        );
        for (name, entry) in found
            .iter()
            .filter(|(_, entry)| entry.dtype.to_string() == "C64")
        {
            let expected = expected.get(name).unwrap().stored().unwrap();
            assert!(
                entry.stored().unwrap()[..] == expected[..],
                "{}: {name}",
                path.display()
            );
            complex += 1;
        }
    }
    assert!(complex > 8, "{complex}");
}

/// Random files of the same kinds: `SALAMANDER_PICKLES` is a folder that `tools/fixtures/pickles.py` has filled.
#[test]
fn random_pickles_are_what_torch_and_numpy_read() {
    let Some(folder) = std::env::var_os("SALAMANDER_PICKLES") else {
        println!("skipped: SALAMANDER_PICKLES is not set");
        return;
    };
    let mut count = 0;
    for path in files(Path::new(&folder)) {
        let expected = path.with_extension("safetensors");
        if path != expected {
            same(&Checkpoint::open(&path).unwrap(), &expected);
            let (found, expected) = (
                Checkpoint::open(&path).unwrap(),
                Checkpoint::open(&expected).unwrap(),
            );
            for (name, entry) in found
                .iter()
                .filter(|(_, entry)| entry.dtype.to_string() == "C64")
            {
                let expected = expected.get(name).unwrap().stored().unwrap();
                assert!(
                    entry.stored().unwrap()[..] == expected[..],
                    "{}: {name}",
                    path.display()
                );
            }
            count += 1;
        }
    }
    println!("{count} random files are the same");
}

#[test]
fn what_stands_beside_weights_stays_unread_and_is_named() {
    let metadata = Checkpoint::open(fixtures("pickles/beside.pt"))
        .unwrap()
        .metadata;
    let unread = &metadata["pytorch.unread"];
    for says in [
        "args.path (`pathlib.PurePosixPath`)",
        "partial (`functools.partial`)",
        "phase (`training_code.Phase`)",
        "settings (`training_code.Settings`)",
        "when (`datetime.datetime`)",
        "complex (`__builtin__.complex`)",
        "labels (`NumPy array of texts`)",
        "objects (`NumPy array of Python objects`)",
        "losses (a list of 3000 items)",
    ] {
        assert!(unread.contains(says), "{unread} does not say {says}");
    }
    assert_eq!(metadata["counts.a"], "2");
    assert_eq!(metadata["registry.rate"], "0.5");
    assert_eq!(metadata["recent"], "[1, 2, 3]");
    let whole = Checkpoint::open(fixtures("pickles/module.pt")).unwrap();
    assert_eq!(whole.metadata["pytorch.class"], "training_code.Whole");
}

#[test]
fn names_that_meet_are_refused_with_both() {
    for (name, says) in [
        ("keys.pt", ["keys 0 and '0'", "`0`"]),
        ("dots.pt", ["two tensors", "`a.b`"]),
        ("print.pt", ["__builtin__.print", "state_dict"]),
        ("lost.pt", ["functools.partial", "state_dict()"]),
    ] {
        let error = Checkpoint::open(fixtures("pickles/refused").join(name)).unwrap_err();
        let error = error.to_string();
        for says in [says[0], says[1], name] {
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }
}

#[test]
fn tensors_that_cannot_be_read_are_listed_and_say_why() {
    for (name, tensor, says) in [
        ("meta.pt", "w", ["meta F32", "has no data"]),
        ("nested.pt", "n", ["nested", "unbind"]),
        ("records.pt", "r", ["record", "each of its fields"]),
        ("packed.pt", "q", ["quint4x2", "dequantize"]),
    ] {
        let checkpoint = Checkpoint::open(fixtures("pickles/refused").join(name)).unwrap();
        let entry = checkpoint.get(tensor).unwrap();
        assert_eq!(entry.dtype.to_string(), says[0]);
        let error = entry.read().unwrap_err().to_string();
        assert!(error.contains(says[1]) && error.contains(name), "{error}");
    }
}

#[test]
fn what_torch_alone_reads_is_read_too() {
    let folder = fixtures("pytorch/refused");
    let open = |name: &str| Checkpoint::open(folder.join(name)).unwrap();
    let names: Vec<String> = open("module.pt")
        .iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(names, ["weight", "bias"]);
    let values = |name: &str, tensor: &str| open(name).get(tensor).unwrap().read().unwrap();
    assert_eq!(values("sparse.pt", "f").try_to_vec::<f32>().unwrap(), [1.0]);
    let tenths = values("quantized.pt", "q").try_to_vec::<f32>().unwrap();
    assert!(
        tenths.iter().all(|value| (value - 1.0).abs() < 1e-6),
        "{tenths:?}"
    );
}

#[test]
fn a_directory_is_resolved_in_the_documented_order() {
    let directory = tempfile::TempDir::new().unwrap();
    let put = |name: &str| {
        let source = fixtures("pytorch").join("tensor.pt");
        fs::copy(source, directory.path().join(name)).unwrap();
    };
    let opened = || {
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        checkpoint.files[0]
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    put("optimizer.pt");
    put("training_args.bin");
    put("epoch_3.pth");
    assert_eq!(opened(), "epoch_3.pth");
    put("epoch_4.pth");
    let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("epoch_3.pth, epoch_4.pth"), "{error}");
    put("pytorch_model.bin");
    assert_eq!(opened(), "pytorch_model.bin");
    fs::copy(
        fixtures("pytorch/tensor.safetensors"),
        directory.path().join("only.safetensors"),
    )
    .unwrap();
    assert_eq!(opened(), "only.safetensors");
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let others = ["epoch_3.pth", "epoch_4.pth", "pytorch_model.bin"];
    assert_eq!(checkpoint.passed_over, others);
    let file = directory.path().join("only.safetensors");
    assert!(Checkpoint::open(file).unwrap().passed_over.is_empty());
    let set = fixtures("pytorch/sharded");
    assert!(Checkpoint::open(set).unwrap().passed_over.is_empty());
}

#[test]
fn content_comes_before_the_name() {
    let directory = tempfile::TempDir::new().unwrap();
    for (fixture, name, format) in [
        ("pytorch/tensor.pt", "a.safetensors", Format::PyTorch),
        ("pytorch/tensor.safetensors", "a.bin", Format::Safetensors),
        ("pytorch/legacy.pt", "weights", Format::PyTorch),
    ] {
        let path = directory.path().join(name);
        fs::copy(fixtures(fixture), &path).unwrap();
        assert_eq!(Checkpoint::open(path).unwrap().format, format);
    }
}

#[test]
fn gguf_files_are_what_the_gguf_package_reads() {
    for (name, format, files) in [
        ("aligned", Format::Gguf, 1),
        ("big_endian", Format::Gguf, 1),
        ("v1", Format::Gguf, 1),
        ("v2", Format::Gguf, 1),
        ("split-00001-of-00002", Format::SplitGguf, 2),
        ("split-00002-of-00002", Format::SplitGguf, 2),
    ] {
        let checkpoint = Checkpoint::open(fixtures("gguf").join(format!("{name}.gguf"))).unwrap();
        assert_eq!(checkpoint.format, format);
        assert_eq!(checkpoint.files.len(), files);
        let expected = name.split('-').next().unwrap();
        same(
            &checkpoint,
            &fixtures("gguf").join(format!("{expected}.safetensors")),
        );
    }
}

#[test]
fn every_gguf_type_is_dequantized_to_the_bit() {
    let checkpoint = Checkpoint::open(fixtures("gguf/types.gguf")).unwrap();
    same_but(
        &checkpoint,
        &fixtures("gguf/types.safetensors"),
        &["bfloat16", "listed"],
    );
    let blocks = checkpoint
        .iter()
        .filter(|(_, entry)| matches!(entry.dtype, Dtype::Quantized(_)));
    assert_eq!(blocks.count(), 17 + 6);
    assert_eq!(
        checkpoint.get("blk.Q4_K").unwrap().dtype.to_string(),
        "Q4_K"
    );
    let brain = checkpoint.get("bfloat16").unwrap();
    assert_eq!(
        (&brain.dtype, &brain.shape[..]),
        (&Dtype::BF16, &[1, 4][..])
    );
    let brain = brain.read().unwrap().convert::<f32>();
    assert_eq!(brain.as_slice::<f32>().unwrap()[..2], [1.0, -2.5]);
    let listed = checkpoint.get("listed").unwrap();
    assert_eq!(listed.shape, [1, 256]);
    assert!(listed.read().unwrap_err().to_string().contains("IQ2_XXS"));
}

#[test]
fn gguf_metadata_is_whole() {
    let checkpoint = Checkpoint::open(fixtures("gguf/types.gguf")).unwrap();
    let text = fs::read(fixtures("gguf/types.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (key, expected) in expected.as_object().unwrap() {
        let found = &checkpoint.metadata[key];
        match expected {
            serde_json::Value::String(expected) => assert_eq!(found, expected, "{key}"),
            // JSON has the single as a double; ours is the shortest that gives the single again.
            serde_json::Value::Number(expected) if key == "t.float32" => {
                let expected = expected.as_f64().unwrap();
                assert_eq!(f64::from(found.parse::<f32>().unwrap()), expected);
            }
            expected => assert_eq!(
                found.parse::<serde_json::Value>().unwrap(),
                *expected,
                "{key}"
            ),
        }
    }
    assert_eq!(checkpoint.metadata["t.nested"], "[[1,2],[3]]");
}

#[test]
fn a_directory_of_gguf_parts_is_one_checkpoint() {
    let directory = tempfile::TempDir::new().unwrap();
    let part = |number: u32| format!("split-{number:05}-of-00002.gguf");
    let put = |number: u32| {
        let source = fixtures("gguf").join(part(number));
        fs::copy(source, directory.path().join(part(number))).unwrap();
    };
    put(1);
    let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains(&part(2)), "{error}");
    put(2);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(
        (checkpoint.format, checkpoint.len()),
        (Format::SplitGguf, 2)
    );
    let renamed = directory.path().join("renamed.gguf");
    fs::copy(directory.path().join(part(1)), &renamed).unwrap();
    let error = Checkpoint::open(renamed).unwrap_err().to_string();
    assert!(error.contains("NAME-00001-of-00002.gguf"), "{error}");
}

#[test]
fn numpy_files_are_what_numpy_reads() {
    assert_eq!(all_same("numpy", "npz") + all_same("numpy", "npy"), 5);
    let open = |name: &str| Checkpoint::open(fixtures("numpy").join(name)).unwrap();
    assert_eq!(open("stored.npz").format, Format::Npz);
    assert_eq!(open("v1.npy").format, Format::Npy);
}

#[test]
fn numpy_types_that_burn_lacks_are_listed_and_objects_refused() {
    let checkpoint = Checkpoint::open(fixtures("numpy/others.npz")).unwrap();
    for (name, dtype) in [
        ("c64", "C64"),
        ("c128", "C128"),
        ("text", "<U2"),
        ("raw", "|S2"),
        ("date", "<M8[D]"),
        ("record", "record"),
        ("brain", "|V2"),
    ] {
        let entry = checkpoint.get(name).unwrap();
        assert_eq!(entry.dtype.to_string(), dtype);
        assert!(entry.read().unwrap_err().to_string().contains(dtype));
    }
    let error = Checkpoint::open(fixtures("numpy/objects.npy"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Python objects") && error.contains("objects.npy"),
        "{error}"
    );
}

#[test]
fn real_gguf_files_are_read() {
    let Some(folder) = real("gguf") else {
        return;
    };
    for path in files(&folder) {
        if path.extension().is_some_and(|ending| ending == "gguf") && !went_through_text(&path) {
            let tensors = read(&path);
            println!("{}: {tensors} tensors", path.file_name().unwrap().display());
        }
    }
    let checkpoint = Checkpoint::open(folder.join("stories260K/stories260K.gguf")).unwrap();
    assert_eq!(
        checkpoint.get("token_embd.weight").unwrap().shape,
        [512, 64]
    );
    let vocabulary = folder.join("ggml-vocab-bert-bge.gguf");
    if went_through_text(&vocabulary) {
        let error = Checkpoint::open(&vocabulary).unwrap_err().to_string();
        assert!(error.contains("ggml-vocab-bert-bge.gguf"), "{error}");
        return;
    }
    let vocabulary = Checkpoint::open(vocabulary).unwrap();
    let tokens: Vec<String> =
        serde_json::from_str(&vocabulary.metadata["tokenizer.ggml.tokens"]).unwrap();
    assert_eq!(tokens.len(), 30522);
}

/// Whether some tool took the file for text, and wrote U+FFFD for a byte of a number in its first keys.
fn went_through_text(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    let head = &bytes[..bytes.len().min(512)];
    let damaged = head.windows(3).any(|window| window == [0xef, 0xbf, 0xbd]);
    if damaged {
        println!("skipped: {} has U+FFFD for a byte", path.display());
    }
    damaged
}

#[test]
fn real_pytorch_files_are_read() {
    let mut count = 0;
    for folder in ["pickle", "resnet_cifar", "patchtst", "ultraface"] {
        let Some(folder) = real(folder) else {
            return;
        };
        for path in files(&folder) {
            let ending = path
                .extension()
                .and_then(|ending| ending.to_str())
                .unwrap_or_default();
            if !["pt", "pth", "th", "tar", "npy", "npz"].contains(&ending) {
                continue;
            }
            if path.ends_with("broken.pt") {
                let error = Checkpoint::open(&path).unwrap_err().to_string();
                assert!(error.contains("broken.pt"), "{error}");
                continue;
            }
            let tensors = read(&path);
            println!("{}: {tensors} tensors", path.file_name().unwrap().display());
            count += 1;
        }
    }
    println!("{count} real files read");
    assert!(count > 55, "{count}");
}

#[test]
fn wrappers_are_seen_through_in_any_order() {
    const NAMES: [&str; 7] = [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ];
    let folder = fixtures("pytorch_wrapped");
    for (name, wrapper) in [
        ("net", None),
        ("deepspeed", None),
        ("ema", None),
        ("params", None),
        ("lightning_compiled", Some("_orig_mod.")),
        ("compiled_parallel", Some("module._orig_mod.")),
        ("parallel_compiled", Some("module.module._orig_mod.")),
        ("averaged", Some("module.")),
        ("fsdp", Some("_fsdp_wrapped_module.")),
    ] {
        let checkpoint = Checkpoint::open(folder.join(format!("{name}.pt"))).unwrap();
        let inside = checkpoint.iter().filter(|(_, entry)| !entry.is_outside());
        let names: Vec<&str> = inside.map(|(name, _)| name).collect();
        assert_eq!(names, NAMES, "{name}");
        let noted = checkpoint.metadata.get("names.wrapper");
        assert_eq!(noted.map(|noted| &noted[..]), wrapper, "{name}");
        if let Some((_, entry)) = checkpoint.iter().find(|(name, _)| *name == "0.weight") {
            assert_eq!(entry.shape, [2, 3], "{name}");
            assert_eq!(entry.own_name().is_some(), wrapper.is_some(), "{name}");
        }
    }
    let averaged = Checkpoint::open(folder.join("averaged.pt")).unwrap();
    assert!(averaged.get("n_averaged").unwrap().is_outside());
    let two = Checkpoint::open(folder.join("two.pt")).unwrap();
    assert!(two.get("net.0.weight").is_some() && two.get("head.weight").is_some());
}

#[test]
fn a_prefix_is_found_where_it_is_the_only_one() {
    let file = fixtures("pytorch_wrapped/two.pt");
    let checkpoint = Checkpoint::open(&file).unwrap();
    let fits = |seen: &Checkpoint| seen.get("0.weight").is_some();
    let seen = checkpoint.seen_through(0.0, fits).unwrap();
    assert_eq!(seen.prefix(), Some("net."));
    assert_eq!(
        seen.get("0.weight").unwrap().own_name(),
        Some("net.0.weight")
    );
    assert!(seen.get("head.weight").unwrap().is_outside());
    // Under one that has fewer of the tensors than were asked for, there is nothing.
    let seen = checkpoint.seen_through(0.99, fits).unwrap();
    assert_eq!(seen.prefix(), None);
    let doubled: Vec<_> = ["a.", "b."]
        .iter()
        .flat_map(|prefix| {
            let entries = checkpoint.iter();
            entries.map(move |(name, entry)| (format!("{prefix}{name}"), entry.clone()))
        })
        .collect();
    let doubled = checkpoint.with_entries(doubled);
    let error = doubled.seen_through(0.0, fits).unwrap_err().to_string();
    assert!(error.contains("`a.net.`, `b.net.`"), "{error}");
    assert!(doubled.under("b.net.").get("1.bias").is_some());
}

#[test]
fn messages_name_the_shard_that_holds_what_they_are_about() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |name: &str, tensors: &[&str]| {
        let data = [0_u8; 8];
        let view = |_: &&str| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &data).unwrap()
        };
        let views: Vec<_> = tensors.iter().map(|name| (*name, view(name))).collect();
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    shard("a.safetensors", &["one.x", "one.y"]);
    shard("b.safetensors", &["two.x", "two.y", "three.lora_A.weight"]);
    let index = folder.path().join("model.safetensors.index.json");
    let map = r#"{"weight_map": {"one.x": "a.safetensors", "one.y": "a.safetensors", "two.x": "b.safetensors",
        "two.y": "b.safetensors", "three.lora_A.weight": "b.safetensors"}}"#;
    fs::write(&index, map).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let said = checkpoint.refuse_parts().unwrap_err().to_string();
    assert!(
        said.starts_with(&*folder.path().join("b.safetensors").to_string_lossy()),
        "{said}"
    );
    let fits = |seen: &Checkpoint| seen.get("x").is_some();
    let said = checkpoint.seen_through(0.0, fits).unwrap_err().to_string();
    assert!(said.starts_with(&*index.to_string_lossy()), "{said}");
}
