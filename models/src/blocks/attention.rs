use burn::tensor::module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor};
use salamander_kernels as kernels;

/// `softmax(query · keyᵀ / √d + bias) · value` by head, where the mask, `true` for what is not seen, lets.
///
/// A causal query sees no key after its own, the last query's being the last key.
///
/// # Shapes
/// `[b, h, q, d]`, `[b, h, k, d]` twice, mask and bias broadcast to `[b, h, q, k]` → `[b, h, q, d]`
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    bias: Option<Tensor<4>>,
    causal: bool,
) -> Tensor<4> {
    let (seen, added) = (mask.as_ref(), bias.as_ref());
    let fast = kernels::attention(&query, &key, &value, seen, added, None, causal);
    fast.unwrap_or_else(|| {
        let options = AttentionModuleOptions {
            is_causal: causal,
            ..AttentionModuleOptions::default()
        };
        module::attention(query, key, value, mask, bias, options)
    })
}
