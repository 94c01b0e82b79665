//! What several architectures share.

mod activation;
mod attention;
mod linear;
mod mlp;
pub mod pooling;

pub use activation::Activation;
pub use attention::{Attention, Mask};
pub use linear::linear_rows;
pub use mlp::Mlp;
pub use pooling::Pooling;
