//! Products of activities with a map, and with a map's transpose: two of the three loop nests round the tile.
//!
//! Order: destination position, strip of weight panels, chunk of weight rows that fits the first-level cache, use of the weights (several
//! activities may go through one map together), tile of samples. A weight is read from memory once, then from the cache. Everything is
//! gathered at the destination, so nothing is scattered and no two threads write one place.

use std::mem::MaybeUninit;

use super::elementary::tanh;
use super::memory::{ParameterSpan, row_stride};
use super::simd::{Isa, Kernel, LANES, Simd};
use super::tile::{Scalars, Vectors, accumulate};
use crate::compute::Nonlinearity;
use crate::network::{Connectivity, Link};

/// Weight rows of a chunk times vectors of a strip: 24 KiB of weights.
const CHUNK_VECTORS: usize = 384;

/// One activity on its way through a map: [positions, batch, stride] on both sides.
#[derive(Clone, Copy)]
pub struct Job {
    pub source: *const f32,
    pub destination: *mut f32,
}

/// A pass over a map.
pub struct Pass<'a> {
    pub connectivity: &'a Connectivity,
    pub parameters: *const f32,
    pub span: ParameterSpan,
    pub jobs: &'a [Job],
    pub batch: usize,
    pub source_stride: usize,
    pub destination_stride: usize,
    pub nonlinearity: Nonlinearity,
    pub transposed: bool,
}

// The pointers are to buffers that the pass alone writes, at places that its items do not share.
unsafe impl Sync for Pass<'_> {}

/// How a pass is cut into items for threads.
#[derive(Clone, Copy)]
pub struct Cut {
    strips: usize,
    vectors: usize,
    batch_parts: usize,
    pub items: usize,
}

impl Pass<'_> {
    fn panels(&self) -> usize {
        let channels = if self.transposed { self.connectivity.rows } else { self.connectivity.columns };
        channels.div_ceil(LANES)
    }

    fn positions(&self) -> usize {
        if self.transposed { self.connectivity.sources } else { self.connectivity.destinations }
    }

    /// Small maps are cut along the batch too, so that every thread has work.
    pub fn cut(&self, isa: Isa, threads: usize) -> Cut {
        let vectors = if isa == Isa::Avx512 { 3 } else { 1 };
        let strips = self.panels().div_ceil(vectors);
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        let batch_parts = wanted.div_ceil(self.positions() * strips).min(self.batch.div_ceil(16));
        Cut { strips, vectors, batch_parts, items: self.positions() * strips * batch_parts }
    }

    /// Computes item `item` of `cut`.
    ///
    /// # Safety
    /// The pointers must be valid for the shapes given; an item must not run twice at a time.
    pub unsafe fn run(&self, isa: Isa, cut: Cut, item: usize) {
        let part = item % cut.batch_parts;
        let strip = item / cut.batch_parts % cut.strips;
        let item = Item {
            pass: self,
            position: item / (cut.batch_parts * cut.strips),
            panel: strip * cut.vectors,
            // Parts begin at multiples of 8 samples, so that tiles stay whole.
            begin: (self.batch * part / cut.batch_parts).next_multiple_of(8).min(self.batch),
            end: (self.batch * (part + 1) / cut.batch_parts).next_multiple_of(8).min(self.batch),
        };
        unsafe { isa.run(item) }
    }
}

struct Item<'a> {
    pass: &'a Pass<'a>,
    position: usize,
    panel: usize,
    begin: usize,
    end: usize,
}

impl Kernel for Item<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe {
            match (self.pass.panels() - self.panel).min(S::TILE_VECTORS) {
                3 if S::TILE_VECTORS >= 3 => self.strip::<S, 3>(),
                2 if S::TILE_VECTORS >= 2 => self.strip::<S, 2>(),
                _ => self.strip::<S, 1>(),
            }
        }
    }
}

/// A run of weight rows and the channels of one source position that meet them.
#[derive(Clone, Copy)]
struct Piece {
    /// Elements from an activity's start to the first channel, for sample 0.
    source: usize,
    weights: *const f32,
    /// Elements from one panel of the strip to the next.
    panel: usize,
    depth: usize,
}

/// Walks the rows of a position's links in chunks.
struct Chunks<'a> {
    links: &'a [Link],
    depth_per_link: usize,
    done: usize,
}

impl Item<'_> {
    #[inline(always)]
    unsafe fn strip<S: Simd, const V: usize>(&self) {
        let pass = self.pass;
        let connectivity = pass.connectivity;
        let (links, depth) = if pass.transposed {
            (connectivity.by_source.of(self.position), connectivity.columns)
        } else {
            (connectivity.by_destination.of(self.position), connectivity.rows)
        };
        let limit = CHUNK_VECTORS / V;
        let mut chunks = Chunks { links, depth_per_link: depth, done: 0 };
        // Uninitialised: clearing 36 KiB for every item would cost as much as a small item's products.
        let mut pieces = [const { MaybeUninit::<Piece>::uninit() }; CHUNK_VECTORS];
        let mut packed = MaybeUninit::<Packed>::uninit();
        let mut first = true;
        loop {
            let mut count = 0;
            let mut rows = 0;
            while rows < limit && !chunks.links.is_empty() {
                let link = &chunks.links[0];
                let mut take = (chunks.depth_per_link - chunks.done).min(limit - rows);
                let piece = if pass.transposed {
                    // Whole vectors of columns, so that a block is transposed in one go.
                    take = (chunks.depth_per_link - chunks.done).min((limit - rows) / LANES * LANES);
                    if take == 0 {
                        break;
                    }
                    let room = packed.as_mut_ptr().cast::<f32>();
                    unsafe { self.pack::<S, V>(link, chunks.done, take, room.add(rows * V * LANES)) }
                } else {
                    let weights = pass.span.row(link.block as usize, self.panel, chunks.done);
                    Piece {
                        source: link.source as usize * pass.batch * pass.source_stride + chunks.done,
                        weights: unsafe { pass.parameters.add(weights) },
                        panel: pass.span.rows * LANES,
                        depth: take,
                    }
                };
                pieces[count].write(piece);
                count += 1;
                rows += if pass.transposed { take.next_multiple_of(LANES) } else { take };
                chunks.done += take;
                if chunks.done == chunks.depth_per_link {
                    chunks.done = 0;
                    chunks.links = &chunks.links[1..];
                }
            }
            let last = chunks.links.is_empty();
            let filled = unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast::<Piece>(), count) };
            for job in pass.jobs {
                unsafe { self.samples::<S, V>(job, filled, first, last) };
            }
            if last {
                return;
            }
            first = false;
        }
    }

    /// Transposes columns `from..from + take` of a link's block, for the rows of this strip, into `to`: [V][columns][LANES].
    #[inline(always)]
    unsafe fn pack<S: Simd, const V: usize>(&self, link: &Link, from: usize, take: usize, to: *mut f32) -> Piece {
        let pass = self.pass;
        let height = take.next_multiple_of(LANES);
        unsafe {
            for v in 0..V {
                let row = (self.panel + v) * LANES;
                let rows = pass.span.rows - row;
                for column in (0..take).step_by(LANES) {
                    let block = pass.parameters.add(pass.span.row(link.block as usize, (from + column) / LANES, row));
                    let place = to.add((v * height + column) * LANES);
                    if rows >= LANES {
                        S::transpose(block, LANES, place);
                    } else {
                        let mut edge = [0.0; LANES * LANES];
                        std::ptr::copy_nonoverlapping(block, edge.as_mut_ptr(), rows * LANES);
                        S::transpose(edge.as_ptr(), LANES, place);
                    }
                }
            }
        }
        Piece {
            source: link.destination as usize * pass.batch * pass.source_stride + from,
            weights: to,
            panel: height * LANES,
            depth: take,
        }
    }

    #[inline(always)]
    unsafe fn samples<S: Simd, const V: usize>(&self, job: &Job, pieces: &[Piece], first: bool, last: bool) {
        let mut sample = self.begin;
        while sample < self.end {
            let left = self.end - sample;
            unsafe {
                sample += if S::TILE_ROWS >= 8 && left >= 8 {
                    self.tile::<S, 8, V>(job, pieces, sample, first, last)
                } else if S::TILE_ROWS >= 6 && left >= 6 {
                    self.tile::<S, 6, V>(job, pieces, sample, first, last)
                } else if S::TILE_ROWS >= 4 && left >= 4 {
                    self.tile::<S, 4, V>(job, pieces, sample, first, last)
                } else if left >= 2 {
                    self.tile::<S, 2, V>(job, pieces, sample, first, last)
                } else {
                    self.tile::<S, 1, V>(job, pieces, sample, first, last)
                };
            }
        }
    }

    /// R samples by V panels over one chunk; partial sums of earlier chunks wait in the destination. Returns R.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(
        &self,
        job: &Job,
        pieces: &[Piece],
        sample: usize,
        first: bool,
        last: bool,
    ) -> usize {
        let pass = self.pass;
        unsafe {
            let start = (self.position * pass.batch + sample) * pass.destination_stride + self.panel * LANES;
            let destination = job.destination.add(start);
            let mut sums = [[S::splat(0.0); V]; R];
            if !first {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = S::load(destination.add(r * pass.destination_stride + v * LANES));
                    }
                }
            } else if let (Some(bias), false) = (pass.span.bias_row(self.position, self.panel), pass.transposed) {
                for v in 0..V {
                    let bias = S::load(pass.parameters.add(bias + v * LANES));
                    for r in 0..R {
                        sums[r][v] = bias;
                    }
                }
            }
            let source = job.source.add(sample * pass.source_stride);
            for piece in pieces {
                accumulate::<S, R, V>(
                    &mut sums,
                    piece.depth,
                    Scalars { at: source.add(piece.source), row: pass.source_stride, depth: 1 },
                    Vectors { at: piece.weights, vector: piece.panel, depth: LANES },
                );
            }
            for r in 0..R {
                for v in 0..V {
                    let value = match (last, pass.nonlinearity) {
                        (true, Nonlinearity::Tanh) => tanh(sums[r][v]),
                        _ => sums[r][v],
                    };
                    value.store(destination.add(r * pass.destination_stride + v * LANES));
                }
            }
        }
        R
    }
}

/// A chunk of transposed weights, on a cache line.
#[repr(align(64))]
#[repr(C)]
struct Packed {
    _rows: [f32; CHUNK_VECTORS * LANES],
}

/// Bytes that a pass must move at least: weights once, every activity once.
pub fn bytes(connectivity: &Connectivity, batch: usize, jobs: usize) -> f64 {
    let activities = connectivity.sources * row_stride(connectivity.rows) + connectivity.destinations * row_stride(connectivity.columns);
    4.0 * (connectivity.weights() as f64 + (jobs * batch * activities) as f64)
}
