//! The models that timm and torchvision know by name.

use serde_json::{Value, json};

use super::keys::CLASSIFIERS;
use crate::Preset;
use crate::preset::{IMAGENET_CLASSES, IMAGENET_MEAN, IMAGENET_STD, cropped, resized};

const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;
const HALF: [f64; 3] = [0.5; 3];

/// Name, width, layers, heads.
const TINY: (&str, u64, u64, u64) = ("tiny", 192, 12, 3);
const SMALL: (&str, u64, u64, u64) = ("small", 384, 12, 6);
const BASE: (&str, u64, u64, u64) = ("base", 768, 12, 12);
const LARGE: (&str, u64, u64, u64) = ("large", 1024, 24, 16);
const HUGE: (&str, u64, u64, u64) = ("huge", 1280, 32, 16);

type Size = (&'static str, u64, u64, u64);

/// Size, patch, pictures.
const TIMM: &[(Size, u64, &[u64])] = &[
    (TINY, 16, &[224, 384]),
    (SMALL, 8, &[224]),
    (SMALL, 16, &[224, 384]),
    (SMALL, 32, &[224, 384]),
    (BASE, 8, &[224]),
    (BASE, 16, &[224, 384]),
    (BASE, 32, &[224, 384]),
    (LARGE, 14, &[224]),
    (LARGE, 16, &[224, 384]),
    (LARGE, 32, &[224, 384]),
    (HUGE, 14, &[224]),
];

/// Name, size, patch, the shorter side before the crop.
const TORCHVISION: &[(&str, Size, u64, u64)] = &[
    ("vit_b_16", BASE, 16, 256),
    ("vit_b_32", BASE, 32, 256),
    ("vit_l_16", LARGE, 16, 242),
    ("vit_l_32", LARGE, 32, 256),
];

pub(super) fn presets() -> Vec<Preset> {
    let mut presets = Vec::new();
    let mut add = |name: String, config: Value, processor: Value| {
        presets.push(Preset {
            name,
            config,
            processor,
            classifiers: CLASSIFIERS,
        });
    };
    // The constants of each name's default weights in timm 1.0.31.
    let timm = |side: u64, mean, std| {
        let percent = if side == 224 { 0.9 } else { 1.0 };
        cropped(side, percent, BICUBIC, mean, std)
    };
    for &(size, patch, sides) in TIMM {
        for &side in sides {
            let (mean, std) = if (size.0, patch) == ("small", 8) {
                (IMAGENET_MEAN, IMAGENET_STD)
            } else {
                (HALF, HALF)
            };
            add(
                format!("timm/vit_{}_patch{patch}_{side}", size.0),
                config(size, patch, side, false),
                timm(side, mean, std),
            );
        }
    }
    for (size, sides) in [(TINY, &[224][..]), (SMALL, &[224]), (BASE, &[224, 384])] {
        for &side in sides {
            for (infix, distilled) in [("", false), ("_distilled", true)] {
                add(
                    format!("timm/deit_{}{infix}_patch16_{side}", size.0),
                    config(size, 16, side, distilled),
                    timm(side, IMAGENET_MEAN, IMAGENET_STD),
                );
            }
        }
    }
    for &(name, size, patch, edge) in TORCHVISION {
        add(
            format!("torchvision/{name}"),
            config(size, patch, 224, false),
            resized(edge, 224, BILINEAR, IMAGENET_MEAN, IMAGENET_STD),
        );
    }
    // The larger weights of torchvision, which were trained as SWAG.
    for (name, size, patch, side) in [
        ("vit_b_16.swag_e2e", BASE, 16, 384),
        ("vit_l_16.swag_e2e", LARGE, 16, 512),
        ("vit_h_14", HUGE, 14, 518),
        ("vit_h_14.swag_linear", HUGE, 14, 224),
    ] {
        add(
            format!("torchvision/{name}"),
            config(size, patch, side, false),
            resized(side, side, BICUBIC, IMAGENET_MEAN, IMAGENET_STD),
        );
    }
    presets
}

fn config((_, width, layers, heads): Size, patch: u64, side: u64, distilled: bool) -> Value {
    let (model, class) = if distilled {
        ("deit", "DeiTForImageClassificationWithTeacher")
    } else {
        ("vit", "ViTForImageClassification")
    };
    json!({
        "model_type": model,
        "architectures": [class],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-6,
        "image_size": side,
        "patch_size": patch,
        "num_labels": IMAGENET_CLASSES,
    })
}
