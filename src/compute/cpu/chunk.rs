//! The weights of one destination position and one strip of panels, in chunks that fit the first-level cache.
//!
//! A forward chunk points into the parameters. A transposed one is transposed here, and in bf16 either is packed into pairs of rows, so that
//! the tile routine meets the same arrangement in every case.

use std::mem::MaybeUninit;

use super::apply::Pass;
use super::simd::{LANES, Simd};
use crate::network::Link;

/// Weight rows of a chunk times vectors of a strip: 24 KiB of weights.
pub const VECTORS: usize = 384;

/// A run of weight rows and the channels of one source position that meet them.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Elements from an activity's start to the first channel, for sample 0.
    pub source: usize,
    pub weights: *const f32,
    /// Elements from one panel of the strip to the next.
    pub panel: usize,
    pub depth: usize,
}

/// Room for one chunk. Left uninitialised: clearing 60 KiB for every item would cost as much as a small item's products.
#[repr(C, align(64))]
pub struct Room {
    transposed: MaybeUninit<[f32; VECTORS * LANES]>,
    paired: MaybeUninit<[f32; (VECTORS / 2 + 4) * LANES]>,
    pieces: [MaybeUninit<Piece>; VECTORS],
}

impl Room {
    #[inline(always)]
    pub fn new() -> MaybeUninit<Room> {
        MaybeUninit::uninit()
    }
}

/// Walks the links of a position, `V` panels from `panel` on.
pub struct Chunks<'a> {
    pass: &'a Pass<'a>,
    panel: usize,
    links: &'a [Link],
    depth_per_link: usize,
    /// Rows of the first link that earlier chunks had.
    done: usize,
}

/// One chunk: `pieces`, and with bf16 the same rows as pairs, [V][`pair_stride`][LANES].
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub pieces: &'a [Piece],
    pub pairs: *const f32,
    pub last: bool,
}

/// Pairs of rows that a strip of `V` panels has room for.
pub const fn pair_stride(v: usize) -> usize {
    VECTORS / v / 2 + 1
}

impl<'a> Chunks<'a> {
    #[inline(always)]
    pub fn new(pass: &'a Pass<'a>, position: usize, panel: usize) -> Chunks<'a> {
        let connectivity = pass.connectivity;
        let (links, depth_per_link) = if pass.transposed {
            (connectivity.by_source.of(position), connectivity.columns)
        } else {
            (connectivity.by_destination.of(position), connectivity.rows)
        };
        Chunks { pass, panel, links, depth_per_link, done: 0 }
    }

    /// The next chunk, in `room`. A position without links has one empty chunk.
    ///
    /// # Safety
    /// The pass must be valid; S inside its kernel.
    #[inline(always)]
    pub unsafe fn next<'r, S: Simd, const V: usize>(&mut self, room: &'r mut MaybeUninit<Room>) -> Chunk<'r> {
        let limit = VECTORS / V;
        // No reference to a whole room: its parts are uninitialised.
        let room = room.as_mut_ptr();
        unsafe {
            let transposed = (&raw mut (*room).transposed).cast::<f32>();
            let pieces = (&raw mut (*room).pieces).cast::<Piece>();
            let (mut count, mut rows) = (0, 0);
            while rows < limit && !self.links.is_empty() {
                let link = &self.links[0];
                let left = self.depth_per_link - self.done;
                let (piece, used) = if self.pass.transposed {
                    // Whole vectors of columns, so that a block is transposed in one go.
                    let take = left.min((limit - rows) / LANES * LANES);
                    if take == 0 {
                        break;
                    }
                    (self.transpose::<S, V>(link, take, transposed.add(rows * V * LANES)), take.next_multiple_of(LANES))
                } else {
                    let take = left.min(limit - rows);
                    (self.point(link, take), take)
                };
                pieces.add(count).write(piece);
                count += 1;
                rows += used;
                self.done += piece.depth;
                if self.done == self.depth_per_link {
                    self.done = 0;
                    self.links = &self.links[1..];
                }
            }
            let pieces = std::slice::from_raw_parts(pieces, count);
            let pairs = (&raw mut (*room).paired).cast::<f32>();
            if S::PAIRS {
                pack_pairs::<S, V>(pieces, pairs);
            }
            Chunk { pieces, pairs, last: self.links.is_empty() }
        }
    }

    /// `take` rows of a link's block, where they are.
    #[inline(always)]
    fn point(&self, link: &Link, take: usize) -> Piece {
        let pass = self.pass;
        let weights = pass.span.row(link.block as usize, self.panel, self.done);
        Piece {
            source: link.source as usize * pass.batch * pass.source_stride + self.done,
            weights: unsafe { pass.parameters.add(weights) },
            panel: pass.span.rows * LANES,
            depth: take,
        }
    }

    /// `take` columns of a link's block, transposed to `to`: [V][columns][LANES].
    #[inline(always)]
    unsafe fn transpose<S: Simd, const V: usize>(&self, link: &Link, take: usize, to: *mut f32) -> Piece {
        let pass = self.pass;
        let height = take.next_multiple_of(LANES);
        unsafe {
            for v in 0..V {
                let row = (self.panel + v) * LANES;
                let rows = pass.span.rows - row;
                for column in (0..take).step_by(LANES) {
                    let block = pass.parameters.add(pass.span.row(link.block as usize, (self.done + column) / LANES, row));
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
            source: link.destination as usize * pass.batch * pass.source_stride + self.done,
            weights: to,
            panel: height * LANES,
            depth: take,
        }
    }
}

/// The rows of all pieces in order, two by two; an odd last row meets zeros.
#[inline(always)]
unsafe fn pack_pairs<S: Simd, const V: usize>(pieces: &[Piece], to: *mut f32) {
    unsafe {
        for v in 0..V {
            let mut place = to.add(v * pair_stride(V) * LANES);
            let mut waiting = None;
            for piece in pieces {
                let weights = piece.weights.add(v * piece.panel);
                for d in 0..piece.depth {
                    let row = S::load(weights.add(d * LANES));
                    waiting = match waiting {
                        None => Some(row),
                        Some(earlier) => {
                            S::pair(earlier, row).store(place);
                            place = place.add(LANES);
                            None
                        }
                    };
                }
            }
            if let Some(row) = waiting {
                S::pair(row, S::splat(0.0)).store(place);
            }
        }
    }
}

/// A tile's activities in bf16: for each of R samples the channels that meet a chunk's rows, as pairs.
#[repr(C, align(64))]
pub struct Activities<const R: usize> {
    pairs: MaybeUninit<[[f32; VECTORS / 2 + LANES]; R]>,
}

impl<const R: usize> Activities<R> {
    /// Elements between samples.
    pub const ROW: usize = VECTORS / 2 + LANES;

    /// Packs the channels of `pieces` for the R samples from `source` on; returns their start and the number of pairs.
    ///
    /// # Safety
    /// The samples must be readable; S inside its kernel.
    #[inline(always)]
    pub unsafe fn pack<S: Simd>(
        room: &mut MaybeUninit<Activities<R>>,
        pieces: &[Piece],
        source: *const f32,
        stride: usize,
    ) -> (*const f32, usize) {
        let pairs = room.as_mut_ptr().cast::<f32>();
        let mut row = MaybeUninit::<[f32; VECTORS + 2 * LANES]>::uninit();
        let row = row.as_mut_ptr().cast::<f32>();
        let mut depth = 0;
        unsafe {
            for r in 0..R {
                depth = 0;
                for piece in pieces {
                    let from = source.add(r * stride + piece.source);
                    if piece.depth < LANES {
                        for d in 0..piece.depth {
                            *row.add(depth + d) = *from.add(d);
                        }
                    } else {
                        std::ptr::copy_nonoverlapping(from, row.add(depth), piece.depth);
                    }
                    depth += piece.depth;
                }
                let end = depth.next_multiple_of(2 * LANES);
                std::ptr::write_bytes(row.add(depth), 0, end - depth);
                for i in (0..end).step_by(2 * LANES) {
                    let both = S::load(row.add(i)).pair_neighbours(S::load(row.add(i + LANES)));
                    both.store(pairs.add(r * Self::ROW + i / 2));
                }
            }
        }
        (pairs, depth.div_ceil(2))
    }
}
