//! Memory of tensors that are gone, for those to come.
//!
//! Fresh memory costs a page fault every 4 KiB, which is a tenth of the time of a small network. A
//! network asks for the same sizes at every run.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{AllocationProperty, Bytes};
use burn_flex::FlexTensor;
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Below this many floats the allocator is as good.
const LEAST: usize = 1 << 12;
/// How many floats are kept at most.
const MOST: usize = 1 << 25;
/// A tensor is at least one of so many parts of the memory that it gets: one that is kept shall not keep far more.
const PARTS: usize = 4;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    floats: 0,
});

struct Pool {
    free: Vec<Vec<f32>>,
    floats: usize,
}

/// Floats of any value, which come back to the pool when they go.
pub(crate) struct Floats {
    memory: Vec<f32>,
    /// How many of them are meant.
    count: usize,
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.count]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.count]
    }
}

/// `count` floats.
pub(crate) fn take(count: usize) -> Floats {
    if count >= LEAST {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = pool.free.iter().enumerate();
        let fits = count..=count.saturating_mul(PARTS);
        let fitting = fitting.filter(|(_, free)| fits.contains(&free.len()));
        let best = fitting.min_by_key(|(_, free)| free.len());
        if let Some((index, _)) = best {
            let memory = pool.free.swap_remove(index);
            pool.floats -= memory.len();
            return Floats { memory, count };
        }
    }
    Floats {
        memory: vec![0.0; count],
        count,
    }
}

/// Floats as the data of a tensor.
pub(crate) fn bytes(floats: Floats) -> Bytes {
    let length = size_of_val(&floats[..]);
    // SAFETY: the controller's memory is `length` bytes, all of them initialised floats.
    unsafe { Bytes::from_controller(Box::new(floats), length) }
}

/// A contiguous tensor of the floats.
pub(crate) fn tensor(floats: Floats, shape: burn::tensor::Shape) -> FlexTensor {
    let layout = burn_flex::Layout::contiguous(shape);
    FlexTensor::new(bytes(floats), layout, burn::tensor::DType::F32)
}

impl Drop for Floats {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() < LEAST {
            return;
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.floats += memory.len();
        pool.free.push(memory);
        while pool.floats > MOST {
            let oldest = pool.free.remove(0);
            pool.floats -= oldest.len();
        }
    }
}

impl AllocationController for Floats {
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
        let length = size_of_val(&self[..]);
        // SAFETY: the floats are borrowed for as long as the slice, and any bytes are floats; that only
        // initialised ones are written is the caller's duty.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), length) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let length = size_of_val(&self[..]);
        // SAFETY: the floats are borrowed for as long as the slice.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), length) })
    }
}
