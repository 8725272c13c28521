//! What a GPU can do, measured on it: what `bench step` holds its phases against.

use std::collections::BTreeSet;

use anyhow::Result;

use super::gpu::{Gpu, Stream};
use super::kernels::arguments::Peak;
use super::kernels::launches;
use crate::compute::settings::Precision;

/// Blocks of products: a whole number for each multiprocessor of common GPUs, and many.
const BLOCKS: usize = 4 * 132;
/// Bytes that each of their threads writes at the end.
const WRITTEN: usize = 4 * 256;

/// The best of so many tries counts.
const TRIES: usize = 20;

/// Bytes a second that the GPU reads and writes when it copies `bytes`, which should be more than caches hold. It takes that memory twice,
/// for as long as the process lives.
pub fn memory_rate(gpu: &dyn Gpu, stream: Stream, bytes: usize) -> Result<f64> {
    let (from, to) = (gpu.allocate(bytes)?, gpu.allocate(bytes)?);
    // SAFETY: both were just taken, for as many.
    let seconds = best(gpu, stream, || unsafe { gpu.copy(to, from, bytes, stream) })?;
    Ok((2 * bytes) as f64 / seconds)
}

/// Floating-point operations a second of products in `precision` whose factors are in registers, `times` chunks of them a warp.
pub fn product_rate(gpu: &dyn Gpu, stream: Stream, precision: Precision, times: i32) -> Result<f64> {
    let out = gpu.allocate(BLOCKS * WRITTEN)?.0;
    let mut launches = Vec::new();
    let operations = launches::peak(&mut launches, precision, BLOCKS, &Peak { out, times, padding: 0 });
    gpu.load(&launches.iter().map(|launch| launch.kernel).collect::<BTreeSet<_>>())?;
    // SAFETY: each of the blocks' threads has room for what it writes.
    let seconds = best(gpu, stream, || launches.iter().try_for_each(|launch| unsafe { gpu.start(launch, stream) }))?;
    Ok(operations / seconds)
}

/// Seconds of the best try.
fn best(gpu: &dyn Gpu, stream: Stream, work: impl Fn() -> Result<()>) -> Result<f64> {
    let (before, after) = (gpu.event()?, gpu.event()?);
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        gpu.record(before, stream)?;
        work()?;
        gpu.record(after, stream)?;
        gpu.synchronize(after)?;
        best = best.min(gpu.seconds(before, after)?);
    }
    Ok(best)
}
