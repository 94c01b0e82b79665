//! Pictures and image models that are not as they should be: each is an error that says what is wrong;
//! none is a panic, and none takes the memory that it claims.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::models::processing::image::{Filter, Image, ImageProcessor};
use salamander::tasks::{ImageClassification, ImageEmbedding, TextClassification};
use salamander::{Device, Error, Network};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn device() -> Device {
    Device::from_env().unwrap()
}

fn files() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(fixture("images/files")).unwrap();
    let files = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}

#[test]
fn truncated_pictures_are_errors() {
    for (name, bytes) in files() {
        for length in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let result = Image::decode(&bytes[..length]);
            // The last bytes may be metadata, and those of an animation other frames.
            if length < bytes.len() / 2 && name != "animated.gif" {
                assert!(result.is_err(), "{name} of {length} bytes");
            }
        }
    }
}

#[test]
fn flipped_bits_are_no_panic() {
    for (_, bytes) in files() {
        for at in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            for mask in [0x01, 0x80, 0xff] {
                let mut spoiled = bytes.clone();
                spoiled[at] ^= mask;
                let _ = Image::decode(&spoiled);
            }
        }
    }
}

/// A file that begins like `name` and claims a size.
fn claiming(name: &str, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = fs::read(fixture("images/files").join(name)).unwrap();
    let find =
        |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    match name.rsplit('.').next().unwrap() {
        "png" => {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let checksum = crc32(&bytes[12..29]).to_be_bytes();
            bytes[29..33].copy_from_slice(&checksum);
        }
        "bmp" => {
            bytes[18..22].copy_from_slice(&width.to_le_bytes());
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
        }
        "gif" => {
            bytes[6..8].copy_from_slice(&(width as u16).to_le_bytes());
            bytes[8..10].copy_from_slice(&(height as u16).to_le_bytes());
        }
        _ => {
            let frame = find(&bytes, &[0xff, 0xc0]);
            bytes[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
        }
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn claimed_sizes_are_not_allocated() {
    for name in ["rgb.png", "rgb.bmp", "palette.gif", "444.jpg"] {
        let error = Image::decode(&claiming(name, 60_000, 60_000)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("60000 × 60000 pixels are more"),
            "{name}: {text}"
        );
        // Few enough for Pillow, but more than so few bytes can hold.
        let error = Image::decode(&claiming(name, 12_000, 12_000)).unwrap_err();
        assert!(
            error.to_string().contains("bytes can hold"),
            "{name}: {error}"
        );
    }
    for name in ["rgb.png", "rgb.bmp", "444.jpg"] {
        assert!(Image::decode(&claiming(name, 0, 7)).is_err(), "{name}");
    }
}

#[test]
fn what_is_no_picture_is_named() {
    let text = Image::decode(b"not a picture").unwrap_err().to_string();
    assert!(text.contains("PNG, JPEG, WebP"), "{text}");
    assert!(Image::decode(b"").is_err());
    assert!(Image::new(0, 3, Vec::new()).is_err());
    assert!(Image::new(2, 2, vec![0; 11]).is_err());
    let image = Image::new(1, 1, vec![1, 2, 3]).unwrap();
    assert!(image.resize(0, 1, Filter::Bilinear).is_err());
    let error = image.resize(1 << 20, 1 << 20, Filter::Box).unwrap_err();
    assert!(error.to_string().contains("1048576 × 1048576"), "{error}");
    let sliver = Image::new(1, 60_000, vec![0; 180_000]).unwrap();
    for size in [
        json!({"shortest_edge": 256}),
        json!({"shortest_edge": 256, "longest_edge": 512}),
        json!({"max_height": 512, "max_width": 512}),
    ] {
        let processor = json!({"image_processor_type": "ViTImageProcessor", "size": size});
        let processor = ImageProcessor::parse(&processor).unwrap();
        assert!(processor.process(&sliver).is_err());
    }
    let processor = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": false,
        "do_pad": true,
        "pad_size": {"height": 9, "width": 8},
    });
    let processor = ImageProcessor::parse(&processor).unwrap();
    let error = processor.process(&sliver).unwrap_err().to_string();
    assert!(error.contains("8 × 9 of `pad_size`"), "{error}");
}

#[test]
fn processors_are_refused_by_field_and_value() {
    for (changes, says) in [
        (
            json!({"image_processor_type": "DonutImageProcessor"}),
            "\"DonutImageProcessor\"",
        ),
        (
            json!({"image_processor_type": null}),
            "`image_processor_type`: is missing",
        ),
        (json!({"size": {"height": 0, "width": 3}}), "`size`: 0"),
        (json!({"size": {"height": 3}}), "`size`"),
        (json!({"size": {"longest_edge": 9}}), "`size`"),
        (json!({"size": {"max_height": 9}}), "`size`"),
        (
            json!({"size": {"shortest_edge": 3, "longest_edge": 0}}),
            "`size`: 0",
        ),
        (json!({"size": 1_u64 << 40}), "`size`"),
        (json!({"size": "large"}), "`size`: \"large\""),
        (json!({"resample": 17}), "`resample`: 17"),
        (json!({"resample": 5}), "`resample`: box and hamming"),
        (json!({"image_mean": [0.5, 0.5]}), "`image_mean`: [0.5,0.5]"),
        (
            json!({"image_std": [0.5, 0.0, 0.5]}),
            "`image_std`: holds 0",
        ),
        (json!({"do_resize": "yes"}), "`do_resize`: \"yes\""),
        (json!({"do_center_crop": true}), "`crop_size`: is missing"),
        (
            json!({"do_pad": true, "pad_size": {"shortest_edge": 9}}),
            "`pad_size`: has no height and width",
        ),
        (
            json!({"do_center_crop": true, "crop_size": {"max_height": 9, "max_width": 9}}),
            "`crop_size`: has no height and width",
        ),
    ] {
        let mut processor = json!({"image_processor_type": "ViTImageProcessor"});
        for (field, value) in changes.as_object().unwrap() {
            processor[field] = value.clone();
        }
        let error = ImageProcessor::parse(&processor).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
        assert!(error.starts_with("preprocessor_config.json: "), "{error}");
    }
}

/// A copy of a model with a processor, and with fields of its configuration changed.
fn spoiled(name: &str, changes: &Value) -> TempDir {
    let directory = TempDir::new().unwrap();
    let path = |file: &str| directory.path().join(file);
    fs::copy(
        fixture(name).join("model.safetensors"),
        path("model.safetensors"),
    )
    .unwrap();
    let text = fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    fs::write(path("config.json"), config.to_string()).unwrap();
    let processor = json!({"image_processor_type": "ViTImageProcessor", "size": 24});
    fs::write(path("preprocessor_config.json"), processor.to_string()).unwrap();
    directory
}

#[test]
fn configurations_are_refused_by_field_and_value() {
    for (model, changes, says) in [
        (
            "resnet/image-classification",
            json!({"depths": [1, 2]}),
            "`depths`: 2 stages",
        ),
        (
            "resnet/image-classification",
            json!({"depths": [1, 0, 1]}),
            "`depths`: 0",
        ),
        (
            "resnet/image-classification",
            json!({"depths": [1, 1 << 20, 1]}),
            "`depths`: 1048578 cannot come",
        ),
        (
            "resnet/image-classification",
            json!({"hidden_sizes": [1_u64 << 40, 2, 3]}),
            "`hidden_sizes`",
        ),
        (
            "resnet/image-classification",
            json!({"layer_type": "inverted"}),
            "`layer_type`: \"inverted\"",
        ),
        (
            "resnet/image-classification",
            json!({"hidden_act": "sine"}),
            "`hidden_act`: \"sine\"",
        ),
        (
            "resnet/image-classification",
            json!({"stem_type": "tiered"}),
            "`stem_type`: \"tiered\"",
        ),
        (
            "resnet/image-classification",
            json!({"out_features": ["stage9"]}),
            "`out_features`: \"stage9\"",
        ),
        (
            "resnet/image-classification",
            json!({"out_features": null, "out_indices": [4]}),
            "`out_indices`: 4",
        ),
        (
            "vit/image-classification",
            json!({"num_attention_heads": 5}),
            "`num_attention_heads`: 5 heads",
        ),
        (
            "vit/image-classification",
            json!({"patch_size": 0}),
            "`patch_size`: 0",
        ),
        (
            "vit/image-classification",
            json!({"patch_size": 25}),
            "`image_size`: 24 × 24 has no room",
        ),
        (
            "vit/image-classification",
            json!({"image_size": [1, 2, 3]}),
            "`image_size`",
        ),
        (
            "vit/image-classification",
            json!({"head_dim": 5}),
            "`head_dim`: 5",
        ),
        (
            "vit/image-classification",
            json!({"num_hidden_layers": 1 << 30}),
            "`num_hidden_layers`",
        ),
        (
            "vit/image-classification",
            json!({"layer_norm_eps": -1.0}),
            "`layer_norm_eps`: -1",
        ),
    ] {
        let directory = spoiled(model, &changes);
        let error = ImageClassification::open(directory.path(), &device()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Config { .. }) && text.contains(says),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_count_of_classes_is_the_configurations_fault() {
    for (model, changes, says) in [
        (
            "resnet/image-classification",
            json!({"id2label": {"0": "A"}}),
            "`id2label`: names 1 classes, but classifier.1.",
        ),
        (
            "vit/image-classification",
            json!({"id2label": {"0": "A"}}),
            "`id2label`: names 1 classes, but classifier.",
        ),
        (
            "vit/image-classification",
            json!({"id2label": null}),
            "model.safetensors has 5; add the names of all classes, or `\"num_labels\": 5`",
        ),
        (
            "vit/deit-with-teacher",
            json!({"id2label": null, "num_labels": 7}),
            "`num_labels`: is 7, but",
        ),
        (
            "resnet/torchvision-basic",
            json!({"num_labels": 6}),
            "`num_labels`: is 6, but fc.",
        ),
    ] {
        let directory = spoiled(model, &changes);
        let error = ImageClassification::open(directory.path(), &device()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Config { .. }) && text.contains(says),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_variant_is_one_report() {
    for (model, changes) in [
        ("resnet/image-classification", json!({"depths": [1, 1, 1]})),
        ("resnet/image-classification", json!({"depths": [2, 2, 1]})),
        (
            "resnet/image-classification",
            json!({"layer_type": "bottleneck"}),
        ),
        (
            "resnet/image-classification",
            json!({"hidden_sizes": [4, 8, 1 << 20]}),
        ),
        ("vit/image-classification", json!({"model_type": "deit"})),
        ("vit/image-classification", json!({"image_size": 32})),
        ("vit/image-classification", json!({"qkv_bias": false})),
        ("vit/timm", json!({"hidden_size": 15})),
        ("vit/torchvision", json!({"num_hidden_layers": 1})),
    ] {
        let directory = spoiled(model, &changes);
        let error = ImageClassification::open(directory.path(), &device()).unwrap_err();
        assert!(
            matches!(error, Error::Keys(_)),
            "{model} with {changes}: {error}"
        );
    }
    let directory = spoiled("resnet/image-classification", &json!({}));
    let error = TextClassification::open(directory.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("resnet has no head for text-classification"),
        "{error}"
    );
    let error = ImageClassification::open_as(directory.path(), "torchvision/resnet51", &device());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("the nearest is torchvision/resnet"),
        "{error}"
    );
    let error = ImageClassification::open_as(directory.path(), "torchvision/resnet50", &device());
    assert!(matches!(error.unwrap_err(), Error::Keys(_)));
    fs::remove_file(directory.path().join("preprocessor_config.json")).unwrap();
    let error = ImageClassification::open(directory.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(error.contains("has no preprocessor_config.json"), "{error}");
}

#[test]
fn a_batch_names_the_picture_that_fails() {
    let directory = spoiled("vit/image-classification", &json!({}));
    let task = ImageEmbedding::open(directory.path(), &device()).unwrap();
    let good = fs::read(fixture("images/files/rgb.png")).unwrap();
    let error = task
        .run_batch([&good, &b"nothing".to_vec()])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("picture 1: not a picture"), "{error}");
    let each = task.run_each([&good, &b"nothing".to_vec(), &good]).unwrap();
    let alone = task.run(&good).unwrap();
    assert!(matches!(&each[0], Ok(vector) if *vector == alone));
    assert!(matches!(&each[1], Err(Error::Image { name, .. }) if name == "picture 1"));
    assert!(matches!(&each[2], Ok(vector) if *vector == alone));
    let error = task.run("/no/such/file.png").unwrap_err().to_string();
    assert!(error.contains("/no/such/file.png"), "{error}");
    let path = directory.path().join("config.json");
    let error = task.run(&path).unwrap_err().to_string();
    assert!(error.contains("config.json: not a picture"), "{error}");
    // Pictures of another size than the network's are the processor's fault, and said so.
    let processor = json!({"image_processor_type": "ViTImageProcessor", "size": 25});
    fs::write(
        directory.path().join("preprocessor_config.json"),
        processor.to_string(),
    )
    .unwrap();
    let task = ImageEmbedding::open(directory.path(), &device()).unwrap();
    let error = task.run(&good).unwrap_err().to_string();
    assert!(
        error.contains("`pixel_values`: is 25 × 25, this model takes 24 × 24"),
        "{error}"
    );
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    use burn::tensor::TensorData;
    use salamander::models::Inputs;
    let floats =
        |shape: &[usize]| TensorData::new(vec![0.5_f32; shape.iter().product()], shape.to_vec());
    let pixels = |shape: &[usize]| Inputs::new().with("pixel_values", floats(shape));
    let refused = |model: &str, inputs: Inputs| {
        let network = Network::open(fixture(model), None, &device()).unwrap();
        network.forward(inputs).unwrap_err().to_string()
    };
    for (model, inputs, says) in [
        ("resnet/model", Inputs::new(), "`pixel_values`: is missing"),
        (
            "resnet/model",
            pixels(&[1, 1, 8, 8]),
            "[batch, 3, height, width] is needed",
        ),
        (
            "resnet/model",
            pixels(&[1, 3, 0, 8]),
            "[batch, 3, height, width] is needed",
        ),
        ("resnet/model", pixels(&[3, 8, 8]), "`pixel_values`"),
        (
            "vit/model",
            pixels(&[1, 3, 8, 8]),
            "is 8 × 8, this model takes 24 × 24",
        ),
        (
            "vit/model",
            pixels(&[1, 3, 24, 24]).with("bool_masked_pos", TensorData::new(vec![true; 9], [1, 9])),
            "no token for hidden patches",
        ),
        (
            "vit/masked-image-modeling",
            pixels(&[1, 3, 24, 24]).with("bool_masked_pos", TensorData::new(vec![true; 8], [1, 8])),
            "not [1, 9]",
        ),
        (
            "vit/model",
            pixels(&[1, 3, 7, 40])
                .with("interpolate_pos_encoding", TensorData::new(vec![true], [1])),
            "smaller than a patch",
        ),
        (
            "vit/masked-image-modeling",
            pixels(&[1, 3, 16, 40])
                .with("interpolate_pos_encoding", TensorData::new(vec![true], [1])),
            "takes squares",
        ),
    ] {
        let error = refused(model, inputs);
        assert!(error.contains(says), "{model}: {error} does not say {says}");
    }
}
