//! What a GPU can do, measured on it: what `bench step` holds its phases against.

use anyhow::Result;

use super::gpu::{Gpu, Stream};

/// The best of so many tries counts.
const TRIES: usize = 20;

/// Bytes a second that the GPU reads and writes when it copies `bytes`, which should be more than caches hold. It takes that memory twice, for as
/// long as the process lives.
pub fn memory_rate(gpu: &dyn Gpu, stream: Stream, bytes: usize) -> Result<f64> {
    let (from, to) = (gpu.allocate(bytes)?, gpu.allocate(bytes)?);
    let (before, after) = (gpu.event()?, gpu.event()?);
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        gpu.record(before, stream)?;
        // SAFETY: both were just taken, for as many.
        unsafe { gpu.copy(to, from, bytes, stream)? };
        gpu.record(after, stream)?;
        gpu.synchronize(after)?;
        best = best.min(gpu.seconds(before, after)?);
    }
    Ok((2 * bytes) as f64 / best)
}
