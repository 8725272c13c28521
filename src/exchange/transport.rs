//! How ranks reach each other: the few collectives that training needs, over MPI or within one process.

use std::ops::Range;

use anyhow::Result;

use crate::compute::cpu::Arena;

/// Collective operations among all ranks. Every rank must make the same calls in the same order.
///
/// Buffers are float32; a rank's part of a buffer is a range of elements, the ranges of the ranks being in order and without gaps or overlap
/// only where a method says so.
pub trait Transport: Send + Sync {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Rank and number of ranks on this host.
    fn local(&self) -> (usize, usize);

    fn barrier(&self);

    /// Every rank's `own` (of equal length), in the order of ranks.
    fn all_gather(&self, own: &[f32], all: &mut [f32]);

    /// The same for whole numbers.
    fn all_gather_words(&self, own: &[u64]) -> Vec<u64>;

    /// Every rank's range of `buffer` to all ranks, in place.
    ///
    /// # Safety
    /// `buffer` must hold all ranges.
    unsafe fn all_gather_ranges(&self, buffer: *mut f32, ranges: &[Range<usize>]);

    /// Every rank's range of `buffer` to rank 0, in place.
    ///
    /// # Safety
    /// `buffer` must hold all ranges on rank 0, and its own range on the others.
    unsafe fn gather_ranges(&self, buffer: *mut f32, ranges: &[Range<usize>]);

    /// The sum over ranks of `buffer`, of which each rank gets its range, in place. Ranges cover the buffer in order.
    ///
    /// # Safety
    /// `buffer` must hold all ranges.
    unsafe fn reduce_scatter_ranges(&self, buffer: *mut f32, ranges: &[Range<usize>]);

    /// Rank 0's bytes to all.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// `elements[r]` zeroed elements of rank r in memory that all ranks see, in the order of ranks; `None` where the ranks are on several hosts.
    fn shared(&self, elements: &[usize]) -> Result<Option<Vec<Arena>>>;

    /// Gives the memory of all [`Transport::shared`] arenas back. Collective.
    ///
    /// # Safety
    /// No such arena is used any more.
    unsafe fn release_shared(&self);

    /// `bytes` zeroed bytes that the ranks of this host share, for as long as the process lives; `None` where they share none. Collective.
    fn host_memory(&self, _bytes: usize) -> Result<Option<*mut u8>> {
        Ok(None)
    }

    /// Takes leave in good order, with any exit code; launchers take a process that ends without it for a failed one. Collective, and the last
    /// call of all.
    fn finish(&self);

    /// Ends the whole job at once, with this rank's `code`.
    fn abort(&self, code: i32) -> !;
}

/// One process alone.
pub struct Single;

impl Transport for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> (usize, usize) {
        (0, 1)
    }

    fn barrier(&self) {}

    fn all_gather(&self, own: &[f32], all: &mut [f32]) {
        all.copy_from_slice(own);
    }

    fn all_gather_words(&self, own: &[u64]) -> Vec<u64> {
        own.to_vec()
    }

    unsafe fn all_gather_ranges(&self, _buffer: *mut f32, _ranges: &[Range<usize>]) {}

    unsafe fn gather_ranges(&self, _buffer: *mut f32, _ranges: &[Range<usize>]) {}

    unsafe fn reduce_scatter_ranges(&self, _buffer: *mut f32, _ranges: &[Range<usize>]) {}

    fn broadcast(&self, _bytes: &mut Vec<u8>) {}

    fn shared(&self, _elements: &[usize]) -> Result<Option<Vec<Arena>>> {
        Ok(None)
    }

    unsafe fn release_shared(&self) {}

    fn finish(&self) {}

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
