//! The weights of one destination position and one strip of panels, in chunks that fit the first-level cache.
//!
//! A forward chunk points into the parameters. A transposed one is transposed here, so that the tile routine meets the same arrangement in
//! either case. A chunk is read from memory once, in less time than its products take; that they need not wait for it, it is asked for while
//! those of the chunk before are made.

use std::mem::MaybeUninit;

use super::apply::Pass;
use super::simd::{LANES, Near, Simd, prefetch};
use crate::network::Link;

/// Weight rows of a chunk times vectors of a strip: 24 KiB of weights.
const VECTORS: usize = 384;

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

/// Room for one chunk. Left uninitialised: clearing it for every item would cost as much as a small item's products.
#[repr(C, align(64))]
pub struct Room {
    transposed: MaybeUninit<[f32; VECTORS * LANES]>,
    pieces: [MaybeUninit<Piece>; VECTORS],
}

impl Room {
    #[inline(always)]
    pub fn new() -> MaybeUninit<Room> {
        MaybeUninit::uninit()
    }
}

/// Walks the links of a position, `V` panels from `panel` on.
#[derive(Clone, Copy)]
pub struct Chunks<'a> {
    pass: &'a Pass<'a>,
    panel: usize,
    links: &'a [Link],
    depth_per_link: usize,
    /// Rows of the first link that earlier chunks had.
    done: usize,
}

/// One chunk; after the last, sums are complete.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub pieces: &'a [Piece],
    pub last: bool,
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
                let take = self.fitting(limit - rows);
                if take == 0 {
                    break;
                }
                let mut piece = if self.pass.transposed {
                    self.transpose::<S, V>(link, take, transposed.add(rows * V * LANES))
                } else {
                    self.point(link, take)
                };
                piece.source += self.done;
                pieces.add(count).write(piece);
                count += 1;
                rows += self.advance(take);
            }
            Chunk { pieces: std::slice::from_raw_parts(pieces, count), last: self.links.is_empty() }
        }
    }

    /// Rows of the first link that a chunk takes which has room for `room`.
    #[inline(always)]
    fn fitting(&self, room: usize) -> usize {
        // Transposed blocks are cut at whole ones.
        (self.depth_per_link - self.done).min(if self.pass.transposed { room / LANES * LANES } else { room })
    }

    /// Goes on by so many rows. Returns those of a chunk that they fill.
    #[inline(always)]
    fn advance(&mut self, take: usize) -> usize {
        self.done += take;
        if self.done == self.depth_per_link {
            self.done = 0;
            self.links = &self.links[1..];
        }
        if self.pass.transposed { take.next_multiple_of(LANES) } else { take }
    }

    /// `take` rows of a link's block, where they are; as below, the source is that of the position's first channel.
    #[inline(always)]
    fn point(&self, link: &Link, take: usize) -> Piece {
        let pass = self.pass;
        let weights = pass.span.row(link.block as usize, self.panel, self.done);
        Piece {
            source: link.source as usize * pass.batch * pass.source_stride,
            weights: unsafe { pass.parameters.add(weights) },
            panel: pass.span.rows * LANES,
            depth: take,
        }
    }

    /// `take` columns of a link's block, transposed to `to`: `[V][columns][LANES]`.
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
        Piece { source: link.destination as usize * pass.batch * pass.source_stride, weights: to, panel: height * LANES, depth: take }
    }
}

/// The weights of a chunk to come.
pub struct Ahead<'a> {
    chunks: Chunks<'a>,
    /// Rows for which the chunk has room.
    room: usize,
    /// The first of `lines` lines in a row, and so many more `runs` of `length` lines, each a panel's rows further on.
    at: *const f32,
    lines: usize,
    runs: usize,
    length: usize,
    /// Lines that are asked for at a time.
    share: usize,
}

impl<'a> Ahead<'a> {
    /// Of the first chunk of `chunks`, by strips of `V` panels, to be asked for in `parts` parts.
    #[inline(always)]
    pub fn new<const V: usize>(chunks: Chunks<'a>, parts: usize) -> Ahead<'a> {
        Ahead { chunks, room: VECTORS / V, at: std::ptr::null(), lines: 0, runs: 0, length: 0, share: VECTORS.div_ceil(parts.max(1)) }
    }

    /// Asks for the next part.
    #[inline(always)]
    pub fn fetch<const V: usize>(&mut self) {
        let mut count = self.share;
        while count > 0 && (self.lines > 0 || self.run::<V>()) {
            let some = count.min(self.lines);
            for line in 0..some {
                prefetch(Near::Second, self.at.wrapping_add(line * LANES));
            }
            self.at = self.at.wrapping_add(some * LANES);
            self.lines -= some;
            count -= some;
        }
    }

    /// Goes to the next run of lines; false where there is none. A call would put the sums of the tile into memory, and take them back.
    #[inline(always)]
    fn run<const V: usize>(&mut self) -> bool {
        let Chunks { pass, panel, links, done, .. } = self.chunks;
        let span = &pass.span;
        if self.runs == 0 {
            let take = self.chunks.fitting(self.room);
            let (Some(link), 1..) = (links.first(), take) else { return false };
            let start;
            (start, self.runs, self.length) = if pass.transposed {
                let row = panel * LANES;
                ((done / LANES, row), take.div_ceil(LANES), (V * LANES).min(span.rows - row))
            } else {
                ((panel, done), V.min(span.panels - panel), take)
            };
            self.at = pass.parameters.wrapping_add(span.row(link.block as usize, start.0, start.1));
            self.room = self.room.saturating_sub(self.chunks.advance(take));
        } else {
            self.at = self.at.wrapping_add((span.rows - self.length) * LANES);
        }
        self.runs -= 1;
        self.lines = self.length;
        true
    }
}
