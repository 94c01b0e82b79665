//! Memory for a large tensor that is computed: in large pages where the system gives them, since taking it page
//! by page costs more than computing what goes into it.

use burn::tensor::Bytes as BurnBytes;
use bytes::Bytes;
use memmap2::MmapMut;

use crate::data;

/// Smaller ones are the allocator's.
const LARGE: usize = 4 << 20;

/// So many numbers, zero until `fill` has set them.
pub(crate) fn floats(count: usize, fill: impl FnOnce(&mut [f32])) -> BurnBytes {
    let bytes = count.saturating_mul(size_of::<f32>());
    if bytes >= LARGE
        && let Ok(mut map) = MmapMut::map_anon(bytes)
    {
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        // A map begins at a page, which aligns it for any number.
        if let Ok(values) = bytemuck::try_cast_slice_mut(&mut map) {
            fill(values);
            return data::shared(Bytes::from_owner(map));
        }
    }
    let mut values = vec![0.0; count];
    fill(&mut values);
    BurnBytes::from_elems(values)
}
