//! Products of activities with a map, and with a map's transpose: two of the three loop nests round the tile.
//!
//! Order: destination position, strip of weight panels, chunk of weight rows that fits the first-level cache, use of the weights (several
//! activities may go through one map together), tile of samples. A weight is read from memory once, then from the cache. Everything is
//! gathered at the destination, so nothing is scattered and no two threads write one place.

use super::chunk::{Ahead, Chunk, Chunks, Room};
use super::elementary::tanh;
use super::memory::{ParameterSpan, row_stride};
use super::nonlinearity::{Gelu, LeakyRelu, Relu, Through};
use super::simd::{Isa, Kernel, LANES, Simd};
use super::tile::{Scalars, Vectors, accumulate};
use crate::compute::Nonlinearity;
use crate::network::Connectivity;

/// One activity on its way through a map: [positions, batch, stride] on both sides.
#[derive(Clone, Copy)]
pub struct Job {
    pub source: *const f32,
    pub destination: *mut f32,
    /// For the pre-activations, where slopes come from them.
    pub pre_activation: *mut f32,
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
    threads: usize,
    pub items: usize,
}

impl Cut {
    /// Position and first panel of item `item`.
    fn place(&self, item: usize) -> (usize, usize) {
        let strip = item / self.batch_parts;
        (strip / self.strips, strip % self.strips * self.vectors)
    }
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
        let vectors = isa.tile_vectors();
        let strips = self.panels().div_ceil(vectors);
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        let batch_parts = wanted.div_ceil(self.positions() * strips).min(self.batch.div_ceil(16));
        Cut { strips, vectors, batch_parts, threads, items: self.positions() * strips * batch_parts }
    }

    /// Computes item `item` of `cut`.
    ///
    /// # Safety
    /// The pointers must be valid for the shapes given; an item must not run twice at a time.
    pub unsafe fn run(&self, isa: Isa, cut: Cut, item: usize) {
        let part = item % cut.batch_parts;
        // The last has none to come.
        let [(position, panel), next] = [item, (item + cut.threads).min(cut.items - 1)].map(|item| cut.place(item));
        let item = Item {
            pass: self,
            position,
            panel,
            next,
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
    /// Position and panel of the item that this thread is likely to have next.
    next: (usize, usize),
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

impl Item<'_> {
    #[inline(always)]
    unsafe fn strip<S: Simd, const V: usize>(&self) {
        let mut room = Room::new();
        let mut chunks = Chunks::new(self.pass, self.position, self.panel);
        let mut first = true;
        loop {
            let chunk = unsafe { chunks.next::<S, V>(&mut room) };
            let coming = if chunk.last { Chunks::new(self.pass, self.next.0, self.next.1) } else { chunks };
            // It is asked for in as many parts as this one has pieces, in all tiles.
            let tiles = self.pass.jobs.len() * (self.end - self.begin).div_ceil(S::TILE_ROWS);
            let mut ahead = Ahead::new::<V>(coming, tiles * chunk.pieces.len());
            for job in self.pass.jobs {
                unsafe { self.samples::<S, V>(job, chunk, first, &mut ahead) };
            }
            if chunk.last {
                break;
            }
            first = false;
        }
        unsafe {
            match self.pass.nonlinearity {
                // While sums were in registers: it is what the kernels are fast for.
                Nonlinearity::Tanh | Nonlinearity::Identity => {}
                Nonlinearity::Relu => self.through::<S, V, Relu>(),
                Nonlinearity::LeakyRelu => self.through::<S, V, LeakyRelu>(),
                Nonlinearity::Gelu => self.through::<S, V, Gelu>(),
            }
        }
    }

    /// Takes the sums of all samples, which are in the cache, through a nonlinearity.
    #[inline(always)]
    unsafe fn through<S: Simd, const V: usize, N: Through>(&self) {
        let pass = self.pass;
        for job in pass.jobs {
            for sample in self.begin..self.end {
                let start = (self.position * pass.batch + sample) * pass.destination_stride + self.panel * LANES;
                for v in 0..V {
                    unsafe {
                        let at = start + v * LANES;
                        let sum = S::load(job.destination.add(at));
                        if !N::NONLINEARITY.slope_follows_from_value() {
                            sum.store(job.pre_activation.add(at));
                        }
                        N::value(sum).store(job.destination.add(at));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn samples<S: Simd, const V: usize>(&self, job: &Job, chunk: Chunk, first: bool, ahead: &mut Ahead) {
        let mut sample = self.begin;
        while sample < self.end {
            let left = self.end - sample;
            unsafe {
                sample += if S::TILE_ROWS >= 8 && left >= 8 {
                    self.tile::<S, 8, V>(job, chunk, sample, first, ahead)
                } else if S::TILE_ROWS >= 6 && left >= 6 {
                    self.tile::<S, 6, V>(job, chunk, sample, first, ahead)
                } else if S::TILE_ROWS >= 4 && left >= 4 {
                    self.tile::<S, 4, V>(job, chunk, sample, first, ahead)
                } else if left >= 2 {
                    self.tile::<S, 2, V>(job, chunk, sample, first, ahead)
                } else {
                    self.tile::<S, 1, V>(job, chunk, sample, first, ahead)
                };
            }
        }
    }

    /// R samples by V panels over one chunk; partial sums of earlier chunks wait in the destination. Returns R.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(
        &self,
        job: &Job,
        chunk: Chunk,
        sample: usize,
        first: bool,
        ahead: &mut Ahead,
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
            for piece in chunk.pieces {
                let scalars = Scalars { at: source.add(piece.source), row: pass.source_stride, depth: 1 };
                let vectors = Vectors { at: piece.weights, vector: piece.panel, depth: LANES };
                ahead.fetch::<V>();
                accumulate::<S, R, V>(&mut sums, piece.depth, scalars, vectors);
            }
            for r in 0..R {
                for v in 0..V {
                    let value = match (chunk.last, pass.nonlinearity) {
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

/// Bytes that a pass must move at least: weights once, every activity once.
pub fn bytes(connectivity: &Connectivity, batch: usize, jobs: usize) -> usize {
    let activities = connectivity.sources * row_stride(connectivity.rows) + connectivity.destinations * row_stride(connectivity.columns);
    4 * (connectivity.weights() + jobs * batch * activities)
}
