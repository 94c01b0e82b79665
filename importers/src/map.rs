//! The memory map: the one place outside the kernels that needs `unsafe`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

use crate::FormatError;

/// The maps that are in use, by the paths of their files.
static MAPS: Mutex<Vec<(PathBuf, Weak<Mmap>)>> = Mutex::new(Vec::new());

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps a file read-only. An empty file gives empty bytes.
///
/// # Errors
/// The file is absent, not a regular file, or cannot be mapped.
pub(crate) fn map_file(path: &Path) -> Result<Bytes, FormatError> {
    let file = File::open(path).map_err(FormatError::io(path))?;
    let metadata = file.metadata().map_err(FormatError::io(path))?;
    if !metadata.is_file() {
        return Err(FormatError::NoWeights {
            path: path.to_owned(),
            reason: "not a regular file".to_owned(),
        });
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    map(path, &file)
}

/// Maps an open file that is not empty, which may have lost its name since; `path` is what it is known by.
///
/// # Errors
/// The file cannot be mapped.
pub(crate) fn map(path: &Path, file: &File) -> Result<Bytes, FormatError> {
    // SAFETY: the map is read-only and private. What remains is that another process truncates or
    // rewrites the file while it is mapped; writers that rename a finished file into place (ours, the
    // hub's, safetensors' own) never do, and reading a copy instead would double the memory of a model.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(file) }.map_err(FormatError::io(path))?;
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|(_, map)| map.strong_count() > 0);
    maps.push((path.to_owned(), Arc::downgrade(&map)));
    Ok(Bytes::from_owner(Owner(map)))
}

/// Lets go of the pages of a mapped file that have been read, which otherwise count as this process's
/// memory for as long as the map lives.
pub(crate) fn release_file(path: &Path) {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, map) in maps.iter().filter(|(mapped, _)| mapped == path) {
        if let Some(map) = map.upgrade() {
            drop_pages(&map, 0, map.len());
        }
    }
}

/// Says that bytes will hardly be read again, such as weights that have been packed elsewhere.
///
/// Where they are of a mapped file, their memory becomes free; reading them again reads the file. Other
/// bytes are left alone.
pub fn release(bytes: &[u8]) {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let start = bytes.as_ptr() as usize;
    for map in maps.iter().filter_map(|(_, map)| map.upgrade()) {
        let first = map.as_ptr() as usize;
        if start < first || start + bytes.len() > first + map.len() {
            continue;
        }
        // Whole pages alone: the others hold neighbours, which may be in use.
        const PAGE: usize = 1 << 16;
        let from = (start - first).next_multiple_of(PAGE);
        let to = (start - first + bytes.len()) / PAGE * PAGE;
        if from < to {
            drop_pages(&map, from, to - from);
        }
    }
}

#[cfg(unix)]
fn drop_pages(map: &Mmap, from: usize, count: usize) {
    // SAFETY: the map is of a file and was never written to, so that its pages come back as they were.
    #[allow(unsafe_code)]
    let done =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, count) };
    // Advice that was not taken changes nothing.
    drop(done);
}

#[cfg(not(unix))]
fn drop_pages(_: &Mmap, _: usize, _: usize) {}
