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
    // SAFETY: the map is read-only and private. What remains is that another process truncates or
    // rewrites the file while it is mapped; writers that rename a finished file into place (ours, the
    // hub's, safetensors' own) never do, and reading a copy instead would double the memory of a model.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(FormatError::io(path))?;
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|(_, map)| map.strong_count() > 0);
    maps.push((path.to_owned(), Arc::downgrade(&map)));
    Ok(Bytes::from_owner(Owner(map)))
}

/// Lets go of the pages of a mapped file that have been read, which otherwise count as this process's
/// memory for as long as the map lives.
pub(crate) fn release(path: &Path) {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, map) in maps.iter().filter(|(mapped, _)| mapped == path) {
        if let Some(map) = map.upgrade() {
            drop_pages(&map);
        }
    }
}

#[cfg(unix)]
fn drop_pages(map: &Mmap) {
    // SAFETY: the pages of a read-only map of a file hold nothing but the file, from which they come back.
    // The advice is no more than that: where it fails, memory stays taken.
    #[allow(unsafe_code)]
    let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
}

#[cfg(not(unix))]
fn drop_pages(_map: &Mmap) {}
