//! Memory that begins at a cache line, so that no vector lies across two, and in large pages where there is
//! much of it: weights are read from end to end, and looking up small pages takes a part of the time.

#[cfg(unix)]
use std::ops::Range;
use std::ops::{Deref, DerefMut};
#[cfg(unix)]
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Those lines of pages that are shared with others.
    #[cfg(unix)]
    Part(Arc<memmap2::MmapRaw>, Range<usize>),
}

/// From so many lines on, they get large pages of their own.
#[cfg(unix)]
const LARGE: usize = (2 << 20) / 64;
/// From so many lines on, those that stay share large pages with others.
#[cfg(unix)]
const SHARED: usize = (256 << 10) / 64;
/// How many lines share pages.
#[cfg(unix)]
const TOGETHER: usize = 4 * LARGE;

/// The pages that the next lines share, and how many lines are taken.
#[cfg(unix)]
static SHARING: Mutex<Option<(Arc<memmap2::MmapRaw>, usize)>> = Mutex::new(None);

/// Pages of zeros, large ones where the system has them.
#[cfg(unix)]
fn pages(count: usize) -> Option<memmap2::MmapMut> {
    let pages = memmap2::MmapMut::map_anon(count * size_of::<Line>()).ok()?;
    // Small pages do as well.
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage);
    Some(pages)
}

/// Lines that were nobody's yet, and so are zero.
#[cfg(unix)]
fn part(count: usize) -> Option<Memory> {
    let mut sharing = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |(_, taken): &&mut (_, usize)| *taken + count <= TOGETHER;
    if sharing.as_mut().filter(fits).is_none() {
        *sharing = Some((Arc::new(pages(TOGETHER)?.into()), 0));
    }
    let (pages, taken) = sharing.as_mut()?;
    let lines = *taken..*taken + count;
    *taken += count;
    Some(Memory::Part(Arc::clone(pages), lines))
}

impl Lines {
    /// Lines that are kept, such as those of weights.
    pub(crate) fn zeros(count: usize) -> Self {
        #[cfg(unix)]
        if (SHARED..LARGE).contains(&count)
            && let Some(part) = part(count)
        {
            return Self(part);
        }
        Self::apart(count)
    }

    /// Lines that share no pages, which would stay when they go.
    fn apart(count: usize) -> Self {
        #[cfg(unix)]
        if count >= LARGE
            && let Some(pages) = pages(count)
        {
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
            // SAFETY: as above; the lines are within the pages, which live as long as any of their parts.
            #[cfg(unix)]
            Memory::Part(pages, lines) => unsafe {
                let first = pages.as_ptr().cast::<Line>().add(lines.start);
                std::slice::from_raw_parts(first, lines.len())
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
            // SAFETY: as above; no two parts have a line in common.
            #[cfg(unix)]
            Memory::Part(pages, lines) => unsafe {
                let first = pages.as_mut_ptr().cast::<Line>().add(lines.start);
                std::slice::from_raw_parts_mut(first, lines.len())
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
            self.lines = Lines::apart(count.div_ceil(16));
            self.count = count;
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
