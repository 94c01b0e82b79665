//! Files that exporters and other frameworks wrote — ONNX, Flax, GGML before GGUF, MLX — held against what the
//! reference libraries read in them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander_importers::{Checkpoint, Dtype, Format, Layout};

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

/// Holds the tensors of a safetensors file against those of the same names, to the bit; gives their number.
fn same(found: &Checkpoint, expected: &Path) -> usize {
    let expected = Checkpoint::open(expected).unwrap();
    let file = found.files[0].display();
    for (name, expected) in expected.iter() {
        let entry = found.get(name).unwrap_or_else(|| {
            let names: Vec<&str> = found.iter().map(|(name, _)| name).collect();
            unreachable!("{file} has no {name}, only {names:?}")
        });
        assert_eq!(entry.shape, expected.shape, "{file}: {name}");
        if matches!(entry.dtype, Dtype::Other(_)) {
            let error = entry.read().unwrap_err().to_string();
            assert!(error.contains(&entry.dtype.to_string()), "{error}");
            continue;
        }
        let (data, expected) = (entry.read().unwrap(), expected.read().unwrap());
        assert_eq!(data.dtype(), expected.dtype(), "{file}: {name}");
        let same = if matches!(entry.dtype, Dtype::Quantized(_)) {
            // A NaN has no one pattern of bits.
            let pairs = data.iter::<f32>().zip(expected.iter::<f32>());
            let mut pairs =
                pairs.map(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            pairs.all(|same| same)
        } else {
            data.as_bytes() == expected.as_bytes()
        };
        assert!(same, "{file}: {name}: {data} is not {expected}");
    }
    expected.len()
}

#[test]
fn every_onnx_type_is_what_onnx_reads() {
    let checkpoint = Checkpoint::open(fixtures("onnx/types.onnx")).unwrap();
    assert_eq!(checkpoint.format, Format::Onnx);
    assert_eq!(
        same(&checkpoint, &fixtures("onnx/types.safetensors")),
        2 * 23
    );
    let small = checkpoint.get("raw.FLOAT8E5M2").unwrap();
    assert_eq!(small.dtype.to_string(), "FLOAT8E5M2");
}

#[test]
fn quantized_onnx_weights_are_what_onnx_runtime_reads() {
    let mut count = 0;
    for item in fs::read_dir(fixtures("onnx/quantized")).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "onnx") {
            continue;
        }
        let checkpoint = Checkpoint::open(&path).unwrap();
        let expected = Checkpoint::open(path.with_extension("safetensors")).unwrap();
        let quantized: Vec<_> = checkpoint
            .iter()
            .filter(|(_, entry)| matches!(entry.dtype, Dtype::Quantized(_)))
            .map(|(name, entry)| (name, entry, entry.read().unwrap()))
            .collect();
        assert!(expected.len() >= 12);
        for (stored, expected) in expected.iter() {
            let values = expected.read().unwrap();
            let mut found = quantized.iter().filter(|(_, entry, data)| {
                // A product with the identity turns a negative zero into a positive one.
                entry.shape == expected.shape && data.iter::<f32>().eq(values.iter::<f32>())
            });
            let found = found.next().map(|(name, ..)| *name);
            let file = path.display();
            let name = found.unwrap_or_else(|| unreachable!("{file}: nothing is {stored}"));
            assert!(
                !name.contains("::") && !name.contains("quantized"),
                "{name}"
            );
            count += 1;
        }
        // What the scales and zeros belong to has used them up.
        let left = checkpoint.iter().find(|(name, _)| {
            name.starts_with("onnx::")
                && (name.ends_with("_scale") || name.ends_with("_zero_point"))
        });
        assert!(left.is_none(), "{}: {left:?}", path.display());
    }
    println!("{count} quantized weights");
    assert!(count > 100);
}

#[test]
fn an_onnx_name_is_the_modules() {
    let checkpoint = Checkpoint::open(fixtures("onnx/bert/masked-lm.torchscript.onnx")).unwrap();
    let query = checkpoint
        .get("bert.encoder.layer.1.attention.self.query.weight")
        .unwrap();
    assert_eq!((query.layout, query.generated), (Layout::InOut, false));
    let pooled = checkpoint.get("bert.embeddings.LayerNorm.weight").unwrap();
    assert_eq!(pooled.layout, Layout::OutIn);
    assert!(checkpoint.metadata["onnx.producer"].starts_with("pytorch"));
    let named: usize = checkpoint.metadata["onnx.named_by_place"].parse().unwrap();
    assert!(named >= 12, "{named}");
}

#[test]
fn external_data_is_a_file_beside() {
    let folder = fixtures("onnx/external");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.files.len(), 2);
    assert!(checkpoint.files[1].ends_with("model.onnx_data"));
    let whole = fixtures("onnx/bert/sequence-classification-single-label.dynamo.onnx");
    let whole = Checkpoint::open(whole).unwrap();
    for (name, entry) in whole.iter() {
        let found = checkpoint.get(name).unwrap().read().unwrap();
        assert_eq!(found, entry.read().unwrap(), "{name}");
    }
}

#[test]
fn real_onnx_files_are_read() {
    let Some(folder) = real("onnx") else {
        return;
    };
    let mut folders = vec![folder, real("ultraface").unwrap()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "onnx") {
                let checkpoint = match Checkpoint::open(&path) {
                    Ok(checkpoint) => checkpoint,
                    Err(error) => {
                        println!("{error}");
                        continue;
                    }
                };
                let mut read = 0;
                for (_, entry) in checkpoint.iter() {
                    read += usize::from(entry.read().is_ok());
                }
                println!("{}: {read} of {}", path.display(), checkpoint.len());
                assert_eq!(read, checkpoint.len());
                count += 1;
            }
        }
    }
    assert!(count > 0);
}

#[test]
fn one_detector_is_the_same_in_onnx_and_pytorch() {
    let Some(folder) = real("ultraface") else {
        return;
    };
    let onnx = Checkpoint::open(folder.join("version-RFB-320.onnx")).unwrap();
    let torch = Checkpoint::open(folder.join("version-RFB-320.pth")).unwrap();
    let mut equal = 0;
    for (name, entry) in torch.iter() {
        if let Some(found) = onnx.get(name) {
            assert_eq!(found.read().unwrap(), entry.read().unwrap(), "{name}");
            equal += 1;
        }
    }
    println!("{equal} of {} tensors by the same name", torch.len());
    assert!(equal > 0);
}

#[test]
fn every_flax_type_is_what_flax_wrote() {
    let checkpoint = Checkpoint::open(fixtures("flax/types.msgpack")).unwrap();
    assert_eq!(checkpoint.format, Format::Flax);
    let count = same(&checkpoint, &fixtures("flax/types.safetensors"));
    assert_eq!(checkpoint.len(), count);
    for (name, text) in [
        ("step", "12"),
        ("rate", "0.5"),
        ("name", "tiny"),
        ("flag", "true"),
    ] {
        assert_eq!(checkpoint.metadata[name], text);
    }
}

#[test]
fn flax_collections_are_taken_off_and_kernels_have_their_layout() {
    let checkpoint = Checkpoint::open(fixtures("flax/resnet/bottleneck.msgpack")).unwrap();
    let name = "resnet.embedder.embedder.convolution.kernel";
    let kernel = checkpoint.get(name).unwrap();
    assert_eq!(kernel.layout, Layout::InOut);
    assert_eq!(kernel.out_in_shape()[2..], kernel.shape[..2]);
    let mean = "resnet.embedder.embedder.normalization.mean";
    assert!(checkpoint.get(mean).is_some());
}

#[test]
fn sharded_flax_weights_are_one_checkpoint() {
    let checkpoint = Checkpoint::open(fixtures("flax/sharded")).unwrap();
    assert_eq!(
        (checkpoint.format, checkpoint.files.len()),
        (Format::ShardedFlax, 3)
    );
    let whole = fixtures("flax/bert/sequence-classification-single-label.msgpack");
    let whole = Checkpoint::open(whole).unwrap();
    assert_eq!(checkpoint.len(), whole.len());
    for (name, entry) in whole.iter() {
        let found = checkpoint.get(name).unwrap();
        assert_eq!(found.layout, entry.layout);
        assert_eq!(found.read().unwrap(), entry.read().unwrap(), "{name}");
    }
}

#[test]
fn whisper_cpp_files_are_what_was_written() {
    for kind in ["f32", "f16", "q8_0", "q5_0"] {
        let path = fixtures("ggml").join(format!("whisper-{kind}.bin"));
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.format, Format::Ggml);
        let count = same(&checkpoint, &path.with_extension("safetensors"));
        assert_eq!(checkpoint.len(), count);
        assert_eq!(checkpoint.metadata["ggml.model"], "whisper");
        assert_eq!(checkpoint.metadata["n_text_ctx"], "60");
        let tokens = &checkpoint.metadata["tokenizer.ggml.tokens"];
        let tokens: Vec<String> = serde_json::from_str(tokens).unwrap();
        assert_eq!((tokens.len(), &tokens[256 + 3][..]), (268, "Ġthe"));
    }
}

#[test]
fn a_ggml_tensor_may_have_no_dimension() {
    let checkpoint = Checkpoint::open(fixtures("ggml/silero.bin")).unwrap();
    assert_eq!(same(&checkpoint, &fixtures("ggml/silero.safetensors")), 2);
    assert_eq!(checkpoint.metadata["ggml.model"], "silero-vad");
    let bias = checkpoint.get("_model.decoder.decoder.2.bias").unwrap();
    assert!(bias.shape.is_empty() && bias.elements() == 1);
}

#[test]
fn real_ggml_files_are_read() {
    let Some(folder) = real("ggml") else {
        return;
    };
    let whisper = Checkpoint::open(folder.join("for-tests-ggml-tiny.bin")).unwrap();
    assert_eq!(whisper.metadata["n_vocab"], "51865");
    assert_eq!(whisper.get("mel_filters").unwrap().shape, [80, 201]);
    let tokens: Vec<String> =
        serde_json::from_str(&whisper.metadata["tokenizer.ggml.tokens"]).unwrap();
    assert_eq!(tokens.len(), 50257);
    let silero = Checkpoint::open(folder.join("for-tests-silero-v6.2.0-ggml.bin")).unwrap();
    assert_eq!(silero.metadata["ggml.name"], "silero-16k");
    for (name, entry) in silero.iter() {
        let data = entry.read().unwrap();
        assert!(data.iter::<f32>().all(f32::is_finite), "{name}");
    }
    println!("Silero: {} tensors", silero.len());
    assert!(silero.len() > 5);
}

#[test]
fn mlx_weights_are_what_mlx_dequantizes() {
    for bits in ["2", "3", "4", "5", "6", "8"] {
        let checkpoint = Checkpoint::open(fixtures("mlx").join(bits)).unwrap();
        let expected = fixtures("mlx").join(format!("{bits}.safetensors"));
        assert_eq!(same(&checkpoint, &expected), 3);
        assert_eq!(checkpoint.len(), 6);
        let dtype = &checkpoint.get("layers.0.weight").unwrap().dtype;
        assert_eq!(dtype.to_string(), format!("MLX Q{bits}"));
    }
    for folder in ["overrides", "archive", "convolution"] {
        let checkpoint = Checkpoint::open(fixtures("mlx").join(folder)).unwrap();
        same(
            &checkpoint,
            &fixtures("mlx").join(format!("{folder}.safetensors")),
        );
    }
    let convolution = Checkpoint::open(fixtures("mlx/convolution")).unwrap();
    let kernel = convolution.get("conv.weight").unwrap();
    assert_eq!(kernel.out_in_shape(), [2, 4, 5, 3]);
}

#[test]
fn mlx_weights_without_their_settings_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    fs::copy(fixtures("mlx/4/model.safetensors"), &path).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("layers.") && error.contains("config.json"),
        "{error}"
    );
    for (settings, says) in [
        (
            r#"{"quantization": {"bits": 7, "group_size": 64}}"#,
            "7 bits",
        ),
        (
            r#"{"quantization": {"bits": 4, "group_size": 32}}"#,
            "groups of 32",
        ),
        (r#"{"quantization": {"bits": 4, "mode": "mxfp4"}}"#, "mxfp4"),
        (r#"{"quantization": {"bits": "four"}}"#, "four"),
        (r#"{"quantization": "#, "config.json"),
    ] {
        fs::write(directory.path().join("config.json"), settings).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
