use std::path::Path;

use crate::error::FormatError;
use crate::{Checkpoint, data};

/// Opens a weight file and reads every tensor whose type can be read, one at a time, as it is stored and as
/// PyTorch would have it; gives their number.
///
/// Beyond what opening proves, this proves the data: checksums, compressed members, values of a type. The tests
/// and fuzz targets hold every reader against hostile files by it.
///
/// # Errors
/// The file cannot be opened, or a tensor's data cannot be read or is not what the file lists.
pub fn verify(path: impl AsRef<Path>) -> Result<usize, FormatError> {
    let path = path.as_ref();
    let checkpoint = Checkpoint::open(path)?;
    let mut read = 0;
    for checkpoint in [&checkpoint, &checkpoint.clone().in_pytorch_layout()] {
        for (name, entry) in checkpoint.iter() {
            let refuse = |reason: String| FormatError::Tensor {
                path: path.to_owned(),
                tensor: data::clip(name),
                offset: None,
                reason,
            };
            let Some(dtype) = entry.dtype.to_burn() else {
                continue;
            };
            let data = entry.read_out_in()?;
            if data.shape()[..] != entry.out_in_shape() || data.dtype() != dtype {
                let found = format!("{:?} {:?}", data.dtype(), data.shape());
                return Err(refuse(format!(
                    "it is listed as {entry:?} and read as {found}"
                )));
            }
            drop(data);
            if entry.is_stored() && entry.stored()?.len() != entry.bytes {
                return Err(refuse(format!(
                    "it has not the {} bytes listed",
                    entry.bytes
                )));
            }
            read += 1;
        }
        checkpoint.release();
    }
    Ok(read / 2)
}
