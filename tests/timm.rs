//! What timm's `save_for_hf` writes, against timm: pictures as its transforms prepare them, and logits.
//!
//! `tools/fixtures/timm_models.py` makes the fixtures.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::Device;
use salamander::importers::Checkpoint;
use salamander::models::processing::image::{Image, ImageProcessor};
use salamander::models::timm_preset;
use salamander::tasks::{
    ClassificationFunction, ImageClassification, ImageClassificationOptions, ImageEmbedding,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/timm");
    let cases = fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = cases.map(|case| case.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 10);
    cases
}

fn device() -> Device {
    Device::from_env().unwrap()
}

fn config(case: &Path) -> Value {
    serde_json::from_slice(&fs::read(case.join("config.json")).unwrap()).unwrap()
}

fn floats(golden: &Checkpoint, name: &str) -> Vec<f32> {
    let data = golden.get(name).unwrap().read().unwrap();
    data.as_slice::<f32>().unwrap().to_vec()
}

fn picture(golden: &Checkpoint, name: &str) -> Image {
    let data = golden.get(name).unwrap().read().unwrap();
    let shape = data.shape().to_vec();
    Image::new(shape[1], shape[0], data.as_slice::<u8>().unwrap().to_vec()).unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], most: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = found.iter().zip(expected);
    let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest <= most, "{what}: differs by {largest}");
}

#[test]
fn saved_models_answer_as_in_timm() {
    let pictures = ["wide", "tall", "small"];
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let golden = Checkpoint::open(case.join("golden.safetensors")).unwrap();
        let weights = Checkpoint::open(case.join("model.safetensors")).unwrap();
        let preset = timm_preset(&config(&case), &weights).unwrap().unwrap();
        let processor = ImageProcessor::of_model(&preset.processor, "config.json", &preset.config);
        let processor = processor.unwrap();
        // The golden file beside the weights would be taken for more of them.
        let directory = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(case.join(file), directory.path().join(file)).unwrap();
        }
        let task = ImageClassification::open(directory.path(), &device()).unwrap();
        let task = task.with_options(ImageClassificationOptions {
            function: Some(ClassificationFunction::None),
            ..ImageClassificationOptions::default()
        });
        for key in pictures {
            let what = format!("{name}, {key}");
            let image = picture(&golden, &format!("picture.{key}"));
            let pixels = processor.process(&image).unwrap();
            let shape = &golden.get(&format!("pixels.{key}")).unwrap().shape;
            assert_eq!(
                shape[..],
                [processor.channels(), pixels.height, pixels.width],
                "{what}"
            );
            let expected = floats(&golden, &format!("pixels.{key}"));
            assert_close(&pixels.values, &expected, 1e-6, &what);
            let labels = task.run(&image).unwrap();
            let logit = |label: &String| labels.iter().find(|found| found.name == *label).unwrap();
            let logits: Vec<f32> = task
                .labels()
                .iter()
                .map(|label| logit(label).score)
                .collect();
            assert_close(
                &logits,
                &floats(&golden, &format!("logits.{key}")),
                1e-4,
                &what,
            );
        }
        match &name[..] {
            "resnet" => assert_eq!(task.labels(), ["a", "b", "c", "d", "e"]),
            "vit" => assert_eq!(
                task.labels(),
                ["n0", "LABEL_1", "LABEL_2", "a newt", "LABEL_4"]
            ),
            _ => {}
        }
        ImageEmbedding::open(directory.path(), &device()).unwrap();
    }
}

#[test]
fn arguments_that_are_not_supported_are_named() {
    let fixture = |case: &str| {
        let found = cases()
            .into_iter()
            .find(|path| path.ends_with(case))
            .unwrap();
        (config(&found), found.join("model.safetensors"))
    };
    for (case, argument, value, says) in [
        (
            "vit",
            "reg_tokens",
            json!(4),
            "`model_args.reg_tokens`: 4 is not supported; 0 is",
        ),
        (
            "vit",
            "global_pool",
            json!("avg"),
            "`model_args.global_pool`: \"avg\" is not supported; \"token\" is",
        ),
        (
            "vit",
            "init_values",
            json!(1e-5),
            "`model_args.init_values`",
        ),
        (
            "vit",
            "class_token",
            json!(false),
            "`model_args.class_token`",
        ),
        ("vit", "qk_norm", json!(true), "`model_args.qk_norm`: true"),
        (
            "vit",
            "act_layer",
            json!("prelu"),
            "`model_args.act_layer`: \"prelu\"",
        ),
        (
            "vit",
            "unheard_of",
            json!([1]),
            "`model_args.unheard_of`: [1] is not supported",
        ),
        (
            "vit",
            "img_size",
            json!("big"),
            "`model_args.img_size`: \"big\" is not a size",
        ),
        ("vit", "depth", json!(0), "`model_args.depth`: 0"),
        (
            "vit",
            "num_classes",
            json!(9),
            "`model_args.num_classes`: is 9, but head.weight",
        ),
        (
            "vit-dynamic",
            "img_size",
            json!(40),
            "`model_args.img_size`: [40, 40] is not the height and width",
        ),
        (
            "vit",
            "in_chans",
            json!(4),
            "`num_channels`: 4 is not supported",
        ),
        (
            "resnet",
            "global_pool",
            json!("max"),
            "`model_args.global_pool`: \"max\"",
        ),
        (
            "resnet",
            "act_layer",
            json!("silu"),
            "`model_args.act_layer`: \"silu\"",
        ),
        (
            "resnet",
            "output_stride",
            json!(16),
            "`model_args.output_stride`: 16",
        ),
        (
            "resnet",
            "stem_type",
            json!("deep_tiered"),
            "`model_args.stem_type`",
        ),
        (
            "resnet",
            "cardinality",
            json!(32),
            "`model_args.cardinality`: 32",
        ),
        (
            "resnet",
            "block_args",
            json!({"attn_layer": "se"}),
            "`model_args.block_args`",
        ),
        (
            "resnet",
            "layers",
            json!(3),
            "`model_args.layers`: 3 is not a list",
        ),
    ] {
        let (mut config, weights) = fixture(case);
        config["model_args"][argument] = value;
        if argument == "in_chans" {
            config["pretrained_cfg"]["mean"] = json!([0.5, 0.5, 0.5, 0.5]);
            config["pretrained_cfg"]["std"] = json!([0.5, 0.5, 0.5, 0.5]);
        }
        let directory = TempDir::new().unwrap();
        fs::copy(weights, directory.path().join("model.safetensors")).unwrap();
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let error = ImageClassification::open(directory.path(), &device())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    for (field, value, says) in [
        (
            "crop_mode",
            json!("random"),
            "`pretrained_cfg.crop_mode`: \"random\" is not one of",
        ),
        (
            "interpolation",
            json!("cubic"),
            "`pretrained_cfg.interpolation`",
        ),
        (
            "mean",
            json!([0.5]),
            "`pretrained_cfg.mean`: [0.5] is not a number for each of 3 channels",
        ),
        ("input_size", json!([3, 32]), "`pretrained_cfg.input_size`"),
        (
            "crop_pct",
            json!("most"),
            "`pretrained_cfg.crop_pct`: \"most\"",
        ),
        ("std", json!([0.5, 0.0, 0.5]), "config.json: `image_std`"),
    ] {
        let (mut config, weights) = fixture("resnet");
        config["pretrained_cfg"][field] = value;
        let directory = TempDir::new().unwrap();
        fs::copy(weights, directory.path().join("model.safetensors")).unwrap();
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let error = ImageClassification::open(directory.path(), &device())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn arguments_that_change_nothing_are_taken() {
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let mut config = config(&case);
        let neutral = if name.starts_with("resnet") {
            json!({"output_stride": 32, "cardinality": 1, "base_width": 64, "replace_stem_pool": false,
                "block_reduce_first": 1, "down_kernel_size": 1, "act_layer": "relu", "norm_layer": "batchnorm2d",
                "aa_layer": null, "drop_rate": 0.3, "drop_path_rate": 0.1, "drop_block_rate": 0.1,
                "zero_init_last": true, "block_args": {}, "pretrained": false})
        } else {
            json!({"qk_norm": false, "scale_attn_norm": false, "scale_mlp_norm": false, "proj_bias": true,
                "init_values": null, "class_token": true, "pos_embed": "learn", "no_embed_class": false,
                "reg_tokens": 0, "pre_norm": false, "final_norm": true, "fc_norm": null,
                "pool_include_prefix": false, "dynamic_img_pad": false, "drop_rate": 0.1, "pos_drop_rate": 0.1,
                "patch_drop_rate": 0.5, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2,
                "weight_init": "", "fix_init": false, "norm_layer": "layernorm", "embed_norm_layer": null})
        };
        for (argument, value) in neutral.as_object().unwrap() {
            config["model_args"][argument] = value.clone();
        }
        let weights = Checkpoint::open(case.join("model.safetensors")).unwrap();
        let before = timm_preset(&self::config(&case), &weights)
            .unwrap()
            .unwrap();
        assert_eq!(
            timm_preset(&config, &weights).unwrap().unwrap(),
            before,
            "{name}"
        );
    }
}
