//! What several architectures share.

mod activation;
mod linear;
pub mod pooling;

pub use activation::Activation;
pub use linear::linear_rows;
pub use pooling::Pooling;
