//! The memory map: the one place outside the kernels that needs `unsafe`.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::FormatError;

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
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(FormatError::io(path))?;
    Ok(Bytes::from_owner(map))
}
