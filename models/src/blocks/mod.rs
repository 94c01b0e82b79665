//! What several architectures share.

mod activation;
mod attention;
mod convolution;
mod embedding;
mod linear;
mod mlp;
mod norm;
pub mod pooling;

pub use activation::Activation;
pub use attention::{Attention, Mask};
pub use convolution::{conv1d, conv2d, max_pool2d, scaled, widened};
pub use embedding::embed;
pub use linear::{linear, linear_rows, matmul_rows};
pub use mlp::Mlp;
pub use norm::{LayerNorm, scale_shift};
pub use pooling::Pooling;
