//! The entry points of published repositories that are models of ours: which preset they are, and where their
//! weights are.
//!
//! Addresses as in torchvision 0.29 (`torchvision/models/resnet.py`, `vision_transformer.py`) and timm 1.0.31
//! (`timm/models/deit.py`, which has those of facebookresearch/deit), and in `hubconf.py` of
//! facebookresearch/semi-supervised-ImageNet1K-models at a189fd0ab046bc0eb13c7a24098be8367d3da2f1. Each has the first
//! digits of its SHA-256 in its name.

/// Published weights of an entry point.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) repository: &'static str,
    pub(super) entry: &'static str,
    /// The weights' name; the entry point's first are its default.
    pub(super) weights: &'static str,
    /// The preset of the architecture.
    pub(super) preset: &'static str,
    pub(super) url: &'static str,
}

const fn vision(
    entry: &'static str,
    weights: &'static str,
    preset: &'static str,
    url: &'static str,
) -> Published {
    Published {
        repository: "pytorch/vision",
        entry,
        weights,
        preset,
        url,
    }
}

const fn deit(entry: &'static str, preset: &'static str, url: &'static str) -> Published {
    Published {
        repository: "facebookresearch/deit",
        entry,
        weights: "DEFAULT",
        preset,
        url,
    }
}

const fn semi_supervised(
    entry: &'static str,
    preset: &'static str,
    url: &'static str,
) -> Published {
    Published {
        repository: "facebookresearch/semi-supervised-ImageNet1K-models",
        entry,
        weights: "DEFAULT",
        preset,
        url,
    }
}

const V1: &str = "IMAGENET1K_V1";
const V2: &str = "IMAGENET1K_V2";
const SWAG: &str = "IMAGENET1K_SWAG_E2E_V1";

#[rustfmt::skip]
pub(super) const PUBLISHED: &[Published] = &[
    vision("resnet18", V1, "torchvision/resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    vision("resnet34", V1, "torchvision/resnet34", "https://download.pytorch.org/models/resnet34-b627a593.pth"),
    vision("resnet50", V2, "torchvision/resnet50", "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"),
    vision("resnet50", V1, "torchvision/resnet50.imagenet1k_v1", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    vision("resnet101", V2, "torchvision/resnet101", "https://download.pytorch.org/models/resnet101-cd907fc2.pth"),
    vision("resnet101", V1, "torchvision/resnet101.imagenet1k_v1", "https://download.pytorch.org/models/resnet101-63fe2227.pth"),
    vision("resnet152", V2, "torchvision/resnet152", "https://download.pytorch.org/models/resnet152-f82ba261.pth"),
    vision("resnet152", V1, "torchvision/resnet152.imagenet1k_v1", "https://download.pytorch.org/models/resnet152-394f9c45.pth"),
    vision("vit_b_16", V1, "torchvision/vit_b_16", "https://download.pytorch.org/models/vit_b_16-c867db91.pth"),
    vision("vit_b_16", SWAG, "torchvision/vit_b_16.swag_e2e", "https://download.pytorch.org/models/vit_b_16_swag-9ac1b537.pth"),
    vision("vit_b_32", V1, "torchvision/vit_b_32", "https://download.pytorch.org/models/vit_b_32-d86f8d99.pth"),
    vision("vit_l_16", V1, "torchvision/vit_l_16", "https://download.pytorch.org/models/vit_l_16-852ce7e3.pth"),
    vision("vit_l_16", SWAG, "torchvision/vit_l_16.swag_e2e", "https://download.pytorch.org/models/vit_l_16_swag-4f3808c9.pth"),
    vision("vit_l_32", V1, "torchvision/vit_l_32", "https://download.pytorch.org/models/vit_l_32-c7638314.pth"),
    vision("vit_h_14", SWAG, "torchvision/vit_h_14", "https://download.pytorch.org/models/vit_h_14_swag-80465313.pth"),
    vision("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1", "torchvision/vit_h_14.swag_linear", "https://download.pytorch.org/models/vit_h_14_lc_swag-c1eb923e.pth"),
    deit("deit_tiny_patch16_224", "timm/deit_tiny_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth"),
    deit("deit_small_patch16_224", "timm/deit_small_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth"),
    deit("deit_base_patch16_224", "timm/deit_base_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"),
    deit("deit_base_patch16_384", "timm/deit_base_patch16_384", "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_384-8de9b5d1.pth"),
    deit("deit_tiny_distilled_patch16_224", "timm/deit_tiny_distilled_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_tiny_distilled_patch16_224-b40b3cf7.pth"),
    deit("deit_small_distilled_patch16_224", "timm/deit_small_distilled_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_small_distilled_patch16_224-649709d9.pth"),
    deit("deit_base_distilled_patch16_224", "timm/deit_base_distilled_patch16_224", "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_224-df68dfff.pth"),
    deit("deit_base_distilled_patch16_384", "timm/deit_base_distilled_patch16_384", "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_384-d0272ac0.pth"),
    semi_supervised("resnet18_ssl", "torchvision/resnet18", "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_supervised_resnet18-d92f0530.pth"),
    semi_supervised("resnet50_ssl", "torchvision/resnet50.imagenet1k_v1", "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_supervised_resnet50-08389792.pth"),
    semi_supervised("resnet18_swsl", "torchvision/resnet18", "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_weakly_supervised_resnet18-118f1556.pth"),
    semi_supervised("resnet50_swsl", "torchvision/resnet50.imagenet1k_v1", "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_weakly_supervised_resnet50-16a12f1b.pth"),
];

/// The weights of an entry point that the zoo knows, the default first.
pub(super) fn published<'a>(
    repository: &'a str,
    entry: &'a str,
) -> impl Iterator<Item = &'static Published> + 'a {
    let is_it = move |p: &&Published| p.repository == repository && p.entry == entry;
    PUBLISHED.iter().filter(is_it)
}
