//! An allocator for tests of code that computes addresses: what is read or written beyond an allocation ends the
//! process, and what was never written is no number.
//!
//! Each allocation has pages of its own between two that may not be touched. It ends at the one behind it or begins at
//! the one before it, by turns.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Guarded;

/// Smaller ones are the harness's own.
const LEAST: usize = 64;
/// Of f32 and bf16 a NaN, of bytes what hardly is right.
const UNWRITTEN: u8 = 0xff;

fn page() -> usize {
    // SAFETY: it asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn is_small(layout: Layout) -> bool {
    layout.size() < LEAST || layout.align() > page()
}

fn guarded(layout: Layout) -> *mut u8 {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let page = page();
    let pages = layout.size().next_multiple_of(page);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory, wherever the system likes; the part of it that becomes accessible is inside.
    unsafe {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let all = libc::mmap(null_mut(), pages + 2 * page, libc::PROT_NONE, kind, -1, 0);
        if all == libc::MAP_FAILED {
            return null_mut();
        }
        let inside = all.cast::<u8>().add(page);
        if libc::mprotect(inside.cast(), pages, protection) != 0 {
            return null_mut();
        }
        let behind = TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let free = if behind { pages - layout.size() } else { 0 };
        inside.add(free / layout.align() * layout.align())
    }
}

// SAFETY: what it gives is as large and as aligned as it is asked for, and no one else's until it is given back.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's; the memory has the size.
        unsafe {
            if is_small(layout) {
                return System.alloc(layout);
            }
            let memory = guarded(layout);
            if !memory.is_null() {
                memory.write_bytes(UNWRITTEN, layout.size());
            }
            memory
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            // SAFETY: the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        guarded(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's; the memory begins in the first of its pages.
        unsafe {
            if is_small(layout) {
                return System.dealloc(memory, layout);
            }
            let page = page();
            let pages = layout.size().next_multiple_of(page);
            let before = memory.addr() % page + page;
            libc::munmap(memory.sub(before).cast(), pages + 2 * page);
        }
    }
}
