//! Memory of tensors that are gone, for those to come.
//!
//! Fresh memory costs a page fault every 4 KiB, which is a tenth of the time of a small network. A
//! network asks for the same sizes at every run.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{AllocationProperty, Bytes};
use burn_flex::FlexTensor;
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Below this many floats the allocator is as good.
const LEAST: usize = 1 << 12;
/// How many floats are kept at most.
const MOST: usize = 1 << 25;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    floats: 0,
});

struct Pool {
    free: Vec<Vec<f32>>,
    floats: usize,
}

/// `count` floats of any value.
pub(crate) fn take(count: usize) -> Vec<f32> {
    if count >= LEAST {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = pool.free.iter().enumerate();
        let fitting = fitting.filter(|(_, free)| (count..=count + count / 4).contains(&free.len()));
        let best = fitting.min_by_key(|(_, free)| free.len());
        if let Some((index, _)) = best {
            let mut found = pool.free.swap_remove(index);
            pool.floats -= found.len();
            drop(pool);
            found.truncate(count);
            return found;
        }
    }
    vec![0.0; count]
}

/// Floats as the data of a tensor, which come back when the last tensor of them goes.
pub(crate) fn bytes(floats: Vec<f32>) -> Bytes {
    let length = size_of_val(&floats[..]);
    // SAFETY: the controller's memory is `length` bytes, all of them initialised floats.
    unsafe { Bytes::from_controller(Box::new(Pooled(floats)), length) }
}

/// A contiguous tensor of the floats.
pub(crate) fn tensor(floats: Vec<f32>, shape: burn::tensor::Shape) -> FlexTensor {
    let layout = burn_flex::Layout::contiguous(shape);
    FlexTensor::new(bytes(floats), layout, burn::tensor::DType::F32)
}

struct Pooled(Vec<f32>);

impl Drop for Pooled {
    fn drop(&mut self) {
        let floats = std::mem::take(&mut self.0);
        if floats.len() < LEAST {
            return;
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.floats += floats.len();
        pool.free.push(floats);
        while pool.floats > MOST {
            let oldest = pool.free.remove(0);
            pool.floats -= oldest.len();
        }
    }
}

impl AllocationController for Pooled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let length = size_of_val(&self.0[..]);
        // SAFETY: the floats are borrowed for as long as the slice, and any bytes are floats; that only
        // initialised ones are written is the caller's duty.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let length = size_of_val(&self.0[..]);
        // SAFETY: the floats are borrowed for as long as the slice.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), length) })
    }
}
