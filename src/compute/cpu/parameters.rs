//! Parameters and the optimisers' moments of all maps: where they are, how they begin, and their interchange form.

use std::ops::Range;

use anyhow::Result;

use super::memory::{Arena, ParameterSpan};
use super::noise::Uniform;
use super::pool::Pool;
use super::simd::{Isa, LANES};
use crate::compute::{Buffer, Part, checksum};
use crate::network::{Magnitude, MapId, Maps, Plasticity};

/// The arenas of one replica. Moments have the layout of the weights of trained maps, which come first.
pub struct Parameters {
    pub spans: Vec<ParameterSpan>,
    pub weights: Arena,
    pub first: Arena,
    pub second: Arena,
}

impl Parameters {
    /// Moves to memory of this process alone, where nothing is set yet.
    pub fn make_private(&mut self) -> std::io::Result<()> {
        for arena in [&mut self.weights, &mut self.first, &mut self.second] {
            *arena = Arena::new(arena.len())?;
        }
        Ok(())
    }
}

/// Elements of the arenas of weights and of each moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub weights: usize,
    pub moments: usize,
}

/// Spans of `maps` and the sizes of the arenas that hold them.
pub fn spans(maps: &Maps) -> (Vec<ParameterSpan>, Sizes) {
    let mut end = 0;
    let mut moments = 0;
    let mut spans = Vec::with_capacity(maps.all.len());
    for map in &maps.all {
        let span = ParameterSpan::new(map, end);
        end = span.end;
        if map.trained() {
            assert_eq!(moments, span.weights, "trained maps come first");
            moments = end;
        }
        spans.push(span);
    }
    (spans, Sizes { weights: end, moments })
}

/// Uniform numbers are drawn in whole groups.
const GROUP: usize = 4 * LANES;

impl Parameters {
    /// The first elements of weights and both moments.
    pub fn at(&self) -> [*mut f32; 3] {
        [&self.weights, &self.first, &self.second].map(|arena| arena.at(0))
    }

    pub fn arena(&self, buffer: Buffer) -> &Arena {
        match buffer {
            Buffer::Weights => &self.weights,
            Buffer::FirstMoment => &self.first,
            Buffer::SecondMoment => &self.second,
        }
    }

    /// Glorot uniform weights, zero biases. Weight (block, row, column) is number (block * rows + row) * columns + column of its map's
    /// stream, so it depends neither on the layout nor on the ranks.
    pub fn initialize(&self, maps: &Maps, seed: u64, isa: Isa, pool: &Pool) {
        for index in 0..maps.all.len() {
            self.draw(maps, MapId(index), 0, seed, isa, pool, 0..self.spans[index].blocks);
        }
    }

    /// The weights of some blocks of a map, drawn for the time `draw`.
    #[allow(clippy::too_many_arguments)]
    fn draw(&self, maps: &Maps, id: MapId, draw: u64, seed: u64, isa: Isa, pool: &Pool, some: Range<usize>) {
        let (map, span) = (maps.get(id), self.spans[id.0]);
        let (rows, columns) = (map.connectivity.rows, map.connectivity.columns);
        let weights = Shared(self.weights.at(0));
        let bound = map.bound() as f32;
        pool.run_ranges(some.len(), 8 * pool.threads(), |blocks| {
            let mut drawn = vec![0.0f32; (rows * columns + 2 * GROUP).next_multiple_of(GROUP)];
            for block in blocks.start + some.start..blocks.end + some.start {
                let from = block * rows * columns;
                let begin = from / GROUP * GROUP;
                let kernel = Uniform { out: &mut drawn, begin: begin as u64, bound, seed, map: id.0, draw };
                // SAFETY: `drawn` is of this thread.
                unsafe { isa.run(kernel) };
                let drawn = &drawn[from - begin..];
                for row in 0..rows {
                    for column in 0..columns {
                        let at = span.row(block, column / LANES, row) + column % LANES;
                        // SAFETY: the span's rows lie in the arena, and this thread alone has the block.
                        unsafe { *weights.at(at) = drawn[row * columns + column] };
                    }
                }
            }
        });
    }

    /// Gives the weights of a map whose signs are its layer's these signs, the part `part.0` of `part.1` of it; `draw` is the number of steps
    /// before, for magnitudes that are drawn again.
    #[allow(clippy::too_many_arguments)]
    pub fn follow_signs(&self, maps: &Maps, id: MapId, draw: u64, seed: u64, isa: Isa, pool: &Pool, part: (usize, usize)) {
        let map = maps.get(id);
        let Plasticity::Signs(magnitude) = map.plasticity else { return };
        let (span, of) = (self.spans[id.0], self.spans[maps.forward[map.layer].0]);
        let some = span.blocks * part.0 / part.1..span.blocks * (part.0 + 1) / part.1;
        if magnitude == Magnitude::Redrawn {
            self.draw(maps, id, draw, seed, isa, pool, some.clone());
        }
        let (rows, columns) = (map.connectivity.rows, map.connectivity.columns);
        let weights = Shared(self.weights.at(0));
        let equal = map.deviation() as f32;
        pool.run_ranges(some.len(), 8 * pool.threads(), |blocks| {
            for block in blocks.start + some.start..blocks.end + some.start {
                // A block has the layer's rows as its columns.
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                    let at = weights.at(span.row(block, column / LANES, row) + column % LANES);
                    // SAFETY: both are rows of the arena; nobody writes to the layer's, and this thread alone to this block.
                    unsafe {
                        let sign = *weights.at(of.row(block, row / LANES, column) + row % LANES);
                        let size = if magnitude == Magnitude::Uniform { equal } else { *at };
                        *at = size.copysign(sign);
                    }
                }
            }
        });
    }

    /// A tensor in its interchange layout.
    pub fn read(&self, maps: &Maps, id: MapId, part: Part, buffer: Buffer, pool: &Pool) -> Vec<f32> {
        let mut out = vec![0.0f32; maps.get(id).elements(part)];
        let to = Shared(out.as_mut_ptr());
        let arena = Shared(self.arena(buffer).at(0));
        // SAFETY: `each` gives places of the arena and of a tensor of this length, every one once.
        self.each(maps, id, part, pool, |ours, theirs| unsafe { *to.at(theirs) = *arena.at(ours) });
        out
    }

    /// Replaces a tensor by `values` in its interchange layout.
    pub fn write(&self, maps: &Maps, id: MapId, part: Part, buffer: Buffer, values: &[f32], pool: &Pool) -> Result<()> {
        maps.get(id).check(part, values)?;
        let arena = Shared(self.arena(buffer).at(0));
        // SAFETY: `each` gives places of the arena, every one once.
        self.each(maps, id, part, pool, |ours, theirs| unsafe { *arena.at(ours) = values[theirs] });
        Ok(())
    }

    /// Calls `f(element of the arena, index in the interchange tensor)` for every element.
    fn each(&self, maps: &Maps, id: MapId, part: Part, pool: &Pool, f: impl Fn(usize, usize) + Sync) {
        let (map, span) = (maps.get(id), self.spans[id.0]);
        let columns = map.connectivity.columns;
        match part {
            Part::Bias => {
                for position in 0..span.bias_positions {
                    for column in 0..columns {
                        let row = span.bias_row(position, column / LANES).expect("the map has a bias");
                        f(row + column % LANES, position * columns + column);
                    }
                }
            }
            // Columns of a dense weight are far apart in a checkpoint: rows go to threads, so that neighbours are written together.
            Part::Weight if span.blocks == 1 => pool.run_ranges(columns, 4 * pool.threads(), |range| {
                for column in range {
                    for row in 0..span.rows {
                        f(span.row(0, column / LANES, row) + column % LANES, map.weight.index(0, row, column));
                    }
                }
            }),
            Part::Weight => pool.run_ranges(span.blocks, 8 * pool.threads(), |blocks| {
                for block in blocks {
                    for row in 0..span.rows {
                        for column in 0..columns {
                            f(span.row(block, column / LANES, row) + column % LANES, map.weight.index(block, row, column));
                        }
                    }
                }
            }),
        }
    }

    /// A checksum of all weights, the same for equal parameters on every rank.
    pub fn checksum(&self, pool: &Pool) -> u64 {
        const PART: usize = 1 << 20;
        let len = self.weights.len();
        let parts: Vec<std::sync::atomic::AtomicU32> = (0..len.div_ceil(PART)).map(|_| 0.into()).collect();
        let weights = Shared(self.weights.at(0));
        pool.run(parts.len(), |part| {
            let from = part * PART;
            // SAFETY: a part of the arena, which nobody writes to meanwhile.
            let values = unsafe { std::slice::from_raw_parts(weights.at(from), PART.min(len - from)) };
            parts[part].store(crc32fast::hash(bytemuck::cast_slice(values)), std::sync::atomic::Ordering::Relaxed);
        });
        checksum(parts.into_iter().map(|part| part.into_inner()))
    }
}

/// A pointer that threads share; each writes its own elements.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: see above; what it points to outlives the pass of those that share it.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self, element: usize) -> *mut f32 {
        self.0.wrapping_add(element)
    }
}
