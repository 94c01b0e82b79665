//! Pictures to tensors.

/// The `image_processor_type` of a preset whose pictures go through torchvision's own transforms.
pub const TORCHVISION_TRANSFORMS: &str = "ImageClassificationPreset";
