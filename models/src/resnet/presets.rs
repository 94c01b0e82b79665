//! The models that torchvision, timm and the CIFAR repository know by name.

use serde_json::{Value, json};

use super::keys::CLASSIFIERS;
use crate::Preset;
use crate::preset::{IMAGENET_CLASSES, IMAGENET_MEAN, IMAGENET_STD, cropped, numbered, resized};

/// Depth, blocks a stage, whether they are bottlenecks.
const SIZES: &[(usize, [usize; 4], bool)] = &[
    (18, [2, 2, 2, 2], false),
    (26, [2, 2, 2, 2], true),
    (34, [3, 4, 6, 3], false),
    (50, [3, 4, 6, 3], true),
    (101, [3, 4, 23, 3], true),
    (152, [3, 8, 36, 3], true),
    (200, [3, 24, 36, 3], true),
];

const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

pub(super) fn presets() -> Vec<Preset> {
    let mut presets = Vec::new();
    for &(depth, depths, bottleneck) in SIZES {
        let plain = config(&depths, bottleneck);
        let mut add = |name: String, config: &Value, processor: Value| {
            presets.push(Preset {
                name,
                config: config.clone(),
                processor,
                classifiers: CLASSIFIERS,
            });
        };
        let torchvision = |edge| resized(edge, 224, BILINEAR, IMAGENET_MEAN, IMAGENET_STD);
        match depth {
            18 | 34 => add(
                format!("torchvision/resnet{depth}"),
                &plain,
                torchvision(256),
            ),
            // The library's default weights are its second, which want a smaller margin.
            50 | 101 | 152 => {
                let name = format!("torchvision/resnet{depth}");
                add(format!("{name}.imagenet1k_v1"), &plain, torchvision(256));
                add(name, &plain, torchvision(232));
            }
            _ => {}
        }
        // The constants of each name's default weights in timm 1.0.31.
        let timm = |side, percent| cropped(side, percent, BICUBIC, IMAGENET_MEAN, IMAGENET_STD);
        let percent = if matches!(depth, 26 | 200) {
            0.875
        } else {
            0.95
        };
        add(format!("timm/resnet{depth}"), &plain, timm(224, percent));
        for (letter, width, averages) in [("c", 32, false), ("s", 64, false), ("d", 32, true)] {
            let in_timm = match letter {
                "d" => true,
                _ => matches!(depth, 50 | 101 | 152),
            };
            if !in_timm {
                continue;
            }
            let mut config = plain.clone();
            config["stem_type"] = json!("deep");
            config["stem_width"] = json!(width);
            config["embedding_size"] = json!(2 * width);
            config["avg_down"] = json!(averages);
            let (side, percent) = match (letter, depth) {
                ("d", 101 | 152 | 200) => (256, 0.95),
                _ => (224, 0.875),
            };
            add(
                format!("timm/resnet{depth}{letter}"),
                &config,
                timm(side, percent),
            );
        }
    }
    for depth in [20, 32, 44, 56, 110, 1202] {
        let blocks = (depth - 2) / 6;
        presets.push(Preset {
            name: format!("cifar/resnet{depth}"),
            config: json!({
                "model_type": "resnet",
                "architectures": ["ResNetForImageClassification"],
                "embedding_size": 16,
                "hidden_sizes": [16, 32, 64],
                "depths": [blocks, blocks, blocks],
                "layer_type": "basic",
                "stem_type": "cifar",
                "zero_padded_shortcut": true,
                "id2label": cifar_classes(),
            }),
            processor: json!({
                "image_processor_type": crate::processing::image::TORCHVISION_TRANSFORMS,
                "size": {"height": 32, "width": 32},
                "resample": BILINEAR,
                "image_mean": IMAGENET_MEAN,
                "image_std": IMAGENET_STD,
            }),
            classifiers: CLASSIFIERS,
        });
    }
    presets
}

/// The classes of CIFAR-10.
fn cifar_classes() -> Value {
    const NAMES: [&str; 10] = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ];
    numbered(NAMES.into_iter())
}

fn config(depths: &[usize], bottleneck: bool) -> Value {
    let expansion = if bottleneck { 4 } else { 1 };
    json!({
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "embedding_size": 64,
        "hidden_sizes": [64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion],
        "depths": depths,
        "layer_type": if bottleneck { "bottleneck" } else { "basic" },
        "num_labels": IMAGENET_CLASSES,
    })
}
