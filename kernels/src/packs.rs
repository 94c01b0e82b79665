//! Weights that have been laid out for the kernels, found by the tensor they come from.
//!
//! A tensor's storage is known by its address, which no other can take as long as a weak reference is
//! kept. What was laid out goes when the storage has gone.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use burn::tensor::Bytes;
use burn_flex::FlexTensor;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    storage: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<isize>,
    variant: usize,
}

/// What is kept of weights: `T`, by storage, view and variant.
pub(crate) struct Packs<T>(RwLock<HashMap<Key, (Weak<Bytes>, Arc<T>)>>);

impl<T> Default for Packs<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Packs<T> {
    /// What `make` makes of the tensor; at the first call for it, that is.
    pub(crate) fn get(
        &self,
        tensor: &FlexTensor,
        variant: usize,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let storage = tensor.data_arc();
        let layout = tensor.layout();
        let key = Key {
            storage: Arc::as_ptr(&storage) as usize,
            offset: layout.start_offset(),
            shape: layout.shape().to_vec(),
            strides: layout.strides().to_vec(),
            variant,
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = known.get(&key) {
            return Arc::clone(made);
        }
        drop(known);
        let made = Arc::new(make());
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (storage, _)| storage.strong_count() > 0);
        known.insert(key, (Arc::downgrade(&storage), Arc::clone(&made)));
        made
    }
}
