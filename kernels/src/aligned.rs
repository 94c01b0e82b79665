//! Floats that begin at a cache line, so that no vector of them lies across two.

use std::ops::{Deref, DerefMut};

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A slice of floats in memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    count: usize,
}

impl Aligned {
    pub(crate) fn zeros(count: usize) -> Self {
        let mut floats = Self::default();
        floats.reserve(count);
        floats
    }

    /// Makes them at least `count`; those there are stay.
    pub(crate) fn reserve(&mut self, count: usize) {
        if count > self.count {
            self.lines.resize(count.div_ceil(16), Line([0.0; 16]));
            self.count = count;
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen floats without padding, and there are `count` floats in the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.count) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.count) }
    }
}
