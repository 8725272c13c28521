//! How activities and parameters lie in memory.
//!
//! Activities are [positions, batch, stride]: what one position holds for all samples is contiguous. Weights are
//! `[block][panel][row][16 columns]`: what a tile reads, or updates, is contiguous too. Interchange layouts are made when a checkpoint is
//! read or written.

use std::ptr::NonNull;

use super::simd::LANES;
use crate::network::Map;

/// Elements between the samples of an activity with `channels` channels: whole vectors, and not a power of two of cache lines, whose rows
/// would all fall into a few sets of the cache.
pub fn row_stride(channels: usize) -> usize {
    let lines = channels.div_ceil(LANES);
    LANES * if lines.is_multiple_of(8) { lines + 1 } else { lines }
}

/// Where the parameters of a map lie in the arenas of weights and moments.
#[derive(Clone, Copy, Debug)]
pub struct ParameterSpan {
    pub weights: usize,
    pub bias: usize,
    /// Ends after the bias.
    pub end: usize,
    pub blocks: usize,
    pub panels: usize,
    pub rows: usize,
    /// Positions that have a bias of their own: 0 without bias, 1 where all share it.
    pub bias_positions: usize,
}

impl ParameterSpan {
    /// The span of `map`, from element `start` on.
    pub fn new(map: &Map, start: usize) -> ParameterSpan {
        let connectivity = &map.connectivity;
        let panels = connectivity.columns.div_ceil(LANES);
        let bias_positions = map.bias_positions();
        let blocks = if connectivity.weighted { connectivity.blocks } else { 0 };
        let bias = start + blocks * panels * connectivity.rows * LANES;
        ParameterSpan {
            weights: start,
            bias,
            end: bias + bias_positions * panels * LANES,
            blocks,
            panels,
            rows: connectivity.rows,
            bias_positions,
        }
    }

    /// Element of row `row` of `panel` of `block`.
    #[inline(always)]
    pub fn row(&self, block: usize, panel: usize, row: usize) -> usize {
        self.weights + ((block * self.panels + panel) * self.rows + row) * LANES
    }

    /// Element of the bias of `panel` at `position`, where the map has a bias.
    #[inline(always)]
    pub fn bias_row(&self, position: usize, panel: usize) -> Option<usize> {
        match self.bias_positions {
            0 => None,
            1 => Some(self.bias + panel * LANES),
            _ => Some(self.bias + (position * self.panels + panel) * LANES),
        }
    }
}

/// A large buffer of float32, zero at first, on a page boundary.
pub struct Arena {
    at: NonNull<f32>,
    len: usize,
    owned: bool,
}

// SAFETY: an arena is plain memory; who writes where is the passes' affair.
unsafe impl Send for Arena {}
// SAFETY: the same.
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` elements of this process alone. Memory is taken page by page, when first touched.
    pub fn new(len: usize) -> std::io::Result<Arena> {
        let bytes = (len * 4).max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, at an address that the system chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the memory that was just mapped, of which it says how to make pages.
        unsafe { libc::madvise(at, bytes, libc::MADV_HUGEPAGE) };
        Ok(Arena { at: NonNull::new(at.cast()).expect("mmap does not return null"), len, owned: true })
    }

    /// `len` elements of a window that ranks share; `at` must outlive the arena.
    ///
    /// # Safety
    /// `at` must be valid for `len` elements, zeroed.
    pub unsafe fn shared(at: *mut f32, len: usize) -> Arena {
        Arena { at: NonNull::new(at).expect("a window has an address"), len, owned: false }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn at(&self, element: usize) -> *mut f32 {
        debug_assert!(element <= self.len);
        // SAFETY: an arena has `len` elements, and callers ask for no later one.
        unsafe { self.at.as_ptr().add(element) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: mapped by `new` with this length, and dropped once.
            unsafe { libc::munmap(self.at.as_ptr().cast(), (self.len * 4).max(1)) };
        }
    }
}
