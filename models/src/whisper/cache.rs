//! The keys and values that a decoder need not compute again.

use burn::tensor::{Device, Int, Tensor};

/// Keys and values of a decoder's attentions, for decoding step by step.
///
/// The tokens' own are written into tensors that are allocated once; the recording's are computed once and
/// shared by its beams.
#[derive(Debug, Clone)]
pub struct Cache {
    layers: Vec<LayerCache>,
    beams: usize,
    length: usize,
    capacity: usize,
}

impl Cache {
    pub(super) fn new(layers: Vec<LayerCache>, beams: usize, capacity: usize) -> Self {
        Self {
            layers,
            beams,
            length: 0,
            capacity,
        }
    }

    /// The number of tokens in it.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many tokens it can still take.
    pub fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// The number of rows a recording.
    pub fn beams(&self) -> usize {
        self.beams
    }

    /// Row `i` becomes what row `rows[i]` was, as a beam search chooses.
    ///
    /// A row may come from its own recording only, since the recording's keys stay where they are.
    pub fn reorder(&mut self, rows: &Tensor<1, Int>) {
        for layer in &mut self.layers {
            layer.own.reorder(rows);
        }
    }

    pub(super) fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    pub(super) own: OwnKeys,
    pub(super) cross: CrossKeys,
}

/// What the recording answers, `[b, h, s, d]`.
#[derive(Debug, Clone)]
pub(super) struct CrossKeys {
    pub(super) key: Tensor<4>,
    pub(super) value: Tensor<4>,
}

/// What the tokens answer each other, `[r, h, capacity, d]`.
#[derive(Debug, Clone)]
pub(super) struct OwnKeys {
    key: Tensor<4>,
    value: Tensor<4>,
}

impl OwnKeys {
    pub(super) fn new(shape: [usize; 4], device: &Device) -> Self {
        Self {
            key: Tensor::zeros(shape, device),
            value: Tensor::zeros(shape, device),
        }
    }

    /// Writes the keys and values of new tokens from `start` on, and gives all up to their end.
    ///
    /// # Shapes
    /// twice `[r, h, t, d]` → twice `[r, h, start + t, d]`
    pub(super) fn append(
        &mut self,
        start: usize,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        (
            write(&mut self.key, start, key),
            write(&mut self.value, start, value),
        )
    }

    fn reorder(&mut self, rows: &Tensor<1, Int>) {
        self.key = self.key.clone().select(0, rows.clone());
        self.value = self.value.clone().select(0, rows.clone());
    }
}

fn write(store: &mut Tensor<4>, start: usize, new: Tensor<4>) -> Tensor<4> {
    let [rows, heads, count, width] = new.dims();
    let end = start + count;
    // Only a tensor that nobody else holds is written in place, so it is taken out first.
    let empty = Tensor::empty([0, 0, 0, 0], &new.device());
    let full = std::mem::replace(store, empty)
        .slice_assign([0..rows, 0..heads, start..end, 0..width], new);
    let used = full.clone().slice([0..rows, 0..heads, 0..end, 0..width]);
    *store = full;
    used
}
