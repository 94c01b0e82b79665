//! Weights that have been laid out for the kernels, found by the tensor they come from.
//!
//! A tensor's storage is known by its address, which no other can take as long as a weak reference is
//! kept. What was laid out goes when the storage has gone.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use burn::tensor::Bytes;
use burn_flex::FlexTensor;

use crate::narrow::Precision;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    weight: View,
    scale: Option<View>,
    variant: Variant,
}

/// Which elements of a storage a tensor is.
#[derive(PartialEq, Eq, Hash)]
struct View {
    storage: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<isize>,
}

impl View {
    fn of(tensor: &FlexTensor) -> Self {
        let layout = tensor.layout();
        Self {
            storage: Arc::as_ptr(&tensor.data_arc()) as usize,
            offset: layout.start_offset(),
            shape: layout.shape().to_vec(),
            strides: layout.strides().to_vec(),
        }
    }
}

/// How a weight was laid out, and in what.
pub(crate) type Variant = ([usize; 3], Precision);

static AFTER: OnceLock<fn(&[u8])> = OnceLock::new();

/// Sets what to do with the bytes of weights that have been packed, and so are hardly read again, or that are large
/// and have been used once.
///
/// Only the first call counts.
pub fn after_packing(f: fn(&[u8])) {
    // A second one would be the same.
    let _ = AFTER.set(f);
}

/// What products with weights are computed in, by storage; f32 where nothing is said.
static PRECISIONS: RwLock<Option<HashMap<usize, (Weak<Bytes>, Precision)>>> = RwLock::new(None);

/// Sets it for all views of a tensor's storage.
pub(crate) fn set_precision(tensor: &FlexTensor, precision: Precision) {
    let storage = tensor.data_arc();
    let mut known = PRECISIONS.write().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    known.retain(|_, (storage, _)| storage.strong_count() > 0);
    known.insert(
        Arc::as_ptr(&storage) as usize,
        (Arc::downgrade(&storage), precision),
    );
}

pub(crate) fn precision(tensor: &FlexTensor) -> Precision {
    let known = PRECISIONS.read().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = &*known else {
        return Precision::F32;
    };
    let storage = tensor.data_arc();
    let found = known.get(&(Arc::as_ptr(&storage) as usize));
    found.map_or(Precision::F32, |(_, precision)| *precision)
}

/// What is kept of weights: `T`, by storage, view and variant, or that they have been used.
pub(crate) struct Packs<T>(RwLock<HashMap<Key, Kept<T>>>);

struct Kept<T> {
    storages: Vec<Weak<Bytes>>,
    made: Option<Arc<T>>,
}

impl<T> Default for Packs<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Packs<T> {
    /// What `make` makes of the weight, and of what it is multiplied by; at the first call for them, that is.
    pub(crate) fn get(
        &self,
        weight: &FlexTensor,
        scale: Option<&FlexTensor>,
        variant: Variant,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let key = Key {
            weight: View::of(weight),
            scale: scale.map(View::of),
            variant,
        };
        if let Some(Some(made)) = self.known(&key) {
            return made;
        }
        self.make(key, weight, scale, make)
    }

    /// The same from the second call on. At the first, which may be the last, there is nothing.
    pub(crate) fn get_again(
        &self,
        weight: &FlexTensor,
        variant: Variant,
        make: impl FnOnce() -> T,
    ) -> Option<Arc<T>> {
        let key = Key {
            weight: View::of(weight),
            scale: None,
            variant,
        };
        match self.known(&key) {
            Some(Some(made)) => Some(made),
            Some(None) => Some(self.make(key, weight, None, make)),
            None => {
                self.keep(key, weight, None, None);
                None
            }
        }
    }

    fn known(&self, key: &Key) -> Option<Option<Arc<T>>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(key).map(|kept| kept.made.clone())
    }

    fn make(
        &self,
        key: Key,
        weight: &FlexTensor,
        scale: Option<&FlexTensor>,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let made = Arc::new(make());
        let_go(weight, 0);
        self.keep(key, weight, scale, Some(Arc::clone(&made)));
        made
    }

    fn keep(
        &self,
        key: Key,
        weight: &FlexTensor,
        scale: Option<&FlexTensor>,
        made: Option<Arc<T>>,
    ) {
        let storages = std::iter::once(weight).chain(scale);
        let storages = storages.map(|tensor| Arc::downgrade(&tensor.data_arc()));
        let kept = Kept {
            storages: storages.collect(),
            made,
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, kept| kept.storages.iter().all(|one| one.strong_count() > 0));
        known.insert(key, kept);
    }
}

/// Lets go of the bytes of a weight, if there are at least so many.
pub(crate) fn let_go(weight: &FlexTensor, least: usize) {
    if let (Some(after), Some(bytes)) = (AFTER.get(), own_bytes(weight))
        && bytes.len() >= least
    {
        after(bytes);
    }
}

/// The bytes of a tensor, when it is all of a storage's stretch in some order.
fn own_bytes(tensor: &FlexTensor) -> Option<&[u8]> {
    let layout = tensor.layout();
    let mut sides: Vec<(isize, usize)> = layout
        .strides()
        .iter()
        .copied()
        .zip(layout.shape().to_vec())
        .collect();
    sides.retain(|(_, side)| *side != 1);
    sides.sort_unstable();
    let mut expected = 1;
    let dense = sides.iter().all(|(stride, side)| {
        let fits = *stride == expected;
        expected *= *side as isize;
        fits
    });
    let size = tensor.dtype().size();
    let start = layout.start_offset() * size;
    let end = start + layout.num_elements() * size;
    tensor.bytes().get(start..end).filter(|_| dense)
}
