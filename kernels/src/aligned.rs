//! Memory that begins at a cache line, so that no vector lies across two, and in large pages where there is
//! much of it: weights are read from end to end, and looking up small pages takes a part of the time.

use std::ops::{Deref, DerefMut};

/// A line of a cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// Lines, zero at first.
#[derive(Debug)]
pub(crate) struct Lines(Memory);

#[derive(Debug)]
enum Memory {
    Heap(Vec<Line>),
    #[cfg(unix)]
    Pages(memmap2::MmapMut),
}

/// From so many lines on, large pages are asked for.
#[cfg(unix)]
const LARGE: usize = (2 << 20) / 64;

impl Lines {
    pub(crate) fn zeros(count: usize) -> Self {
        #[cfg(unix)]
        if count >= LARGE
            && let Ok(pages) = memmap2::MmapMut::map_anon(count * size_of::<Line>())
        {
            // Small pages do as well.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Self(Memory::Pages(pages));
        }
        Self(Memory::Heap(vec![Line([0; 64]); count]))
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self(Memory::Heap(Vec::new()))
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match &self.0 {
            Memory::Heap(lines) => lines,
            // SAFETY: pages are aligned to more than a line, and any bytes are lines.
            #[cfg(unix)]
            Memory::Pages(pages) => unsafe {
                std::slice::from_raw_parts(pages.as_ptr().cast(), pages.len() / size_of::<Line>())
            },
        }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        match &mut self.0 {
            Memory::Heap(lines) => lines,
            // SAFETY: as above.
            #[cfg(unix)]
            Memory::Pages(pages) => unsafe {
                let count = pages.len() / size_of::<Line>();
                std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), count)
            },
        }
    }
}

/// A slice of floats in lines of its own.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    lines: Lines,
    count: usize,
}

impl Aligned {
    pub(crate) fn zeros(count: usize) -> Self {
        Self {
            lines: Lines::zeros(count.div_ceil(16)),
            count,
        }
    }

    /// Makes them at least `count`, of any values.
    pub(crate) fn reserve(&mut self, count: usize) {
        if count > self.count {
            *self = Self::zeros(count);
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen floats, of which any bytes are some, and there are `count` in the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.count) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.count) }
    }
}
