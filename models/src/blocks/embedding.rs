//! Tables of vectors.

use burn::nn::Embedding;
use burn::tensor::{Int, Tensor};

use super::widened;

/// The vectors of a table for some ids, in f32; the table may be of f16 or bf16.
///
/// # Shapes
/// `[b, s]` → `[b, s, width]`
pub fn embed(table: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
    widened(table.forward(ids))
}
