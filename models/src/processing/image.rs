//! tmp
pub const TORCHVISION_TRANSFORMS: &str = "ImageClassificationPreset";
