//! Gradients from factors, and the optimiser: the third loop nest.
//!
//! The gradient of a block is the product of its presynaptic activities and postsynaptic errors summed over links and the global batch. It
//! is made tile by tile in registers, and the optimiser is applied there and then; only `exchange = "gradients"` stores it. A sum runs over links,
//! then updates, then ranks, then samples, so one rank's sum has the order of many.

use std::ops::Range;

use super::elementwise::Values;
use super::memory::{ParameterSpan, row_stride};
use super::simd::{Kernel, LANES, Near, Simd, prefetch};
use super::tile::{Scalars, Vectors, accumulate};
use crate::compute::{Method, OptimizerStep};
use crate::network::Connectivity;

/// Weight rows of an item; a multiple of every variant's tile height.
const ITEM_ROWS: usize = 48;

/// One rank's factors of a map, each [positions, batch, stride].
#[derive(Clone, Copy)]
pub struct Factors {
    pub pre: *const f32,
    pub post: *const f32,
}

// Plain addresses; whoever uses them answers for the memory.
unsafe impl Send for Factors {}
unsafe impl Sync for Factors {}

/// What becomes of a gradient.
#[derive(Clone, Copy)]
pub enum Use {
    /// The optimiser, on parameters and moments, arenas of the same layout.
    Optimize { weights: *mut f32, first: *mut f32, second: *mut f32, step: OptimizerStep },
    /// Written to an arena of the same layout, scaled.
    Store { gradients: *mut f32, scale: f32 },
}

/// The update of one map.
pub struct Update<'a> {
    pub connectivity: &'a Connectivity,
    pub span: ParameterSpan,
    /// By rank, in the order of the global batch; where a map has several updates, one after the other.
    pub factors: &'a [Factors],
    /// Samples of each rank.
    pub batch: usize,
    pub pre_stride: usize,
    pub post_stride: usize,
    pub purpose: Use,
}

unsafe impl Sync for Update<'_> {}

/// Items of an update, in the order of memory: weights first, then biases.
pub fn items(span: &ParameterSpan) -> usize {
    span.blocks * span.panels * span.rows.div_ceil(ITEM_ROWS) + span.bias_positions * span.panels
}

/// The first element of item `item`, or the end of the span.
pub fn item_start(span: &ParameterSpan, item: usize) -> usize {
    let per_panel = span.rows.div_ceil(ITEM_ROWS);
    let weight_items = span.blocks * span.panels * per_panel;
    if item < weight_items {
        let panel = item / per_panel;
        span.weights + (panel * span.rows + item % per_panel * ITEM_ROWS) * LANES
    } else {
        span.bias + (item - weight_items) * LANES
    }
}

/// Samples whose product with a row takes as long as Adam on that row, which waits for memory.
const OPTIMIZER: usize = 64;
/// Rows whose product with a sample takes as long as one addition to a bias, which waits for the one before.
const ADDITION: usize = 4;

/// How long item `item` takes where the global batch has `samples`, in products of a sample with one row of a panel.
pub fn work(connectivity: &Connectivity, span: &ParameterSpan, item: usize, samples: usize) -> u64 {
    let per_panel = span.rows.div_ceil(ITEM_ROWS);
    let weight_items = span.blocks * span.panels * per_panel;
    let work = if item < weight_items {
        let rows = ITEM_ROWS.min(span.rows - item % per_panel * ITEM_ROWS);
        let links = connectivity.by_block.of(item / per_panel / span.panels).len();
        // One without links is passed over.
        if links == 0 { 0 } else { rows * (links * samples + OPTIMIZER) }
    } else {
        let positions = if span.bias_positions == 1 { connectivity.destinations } else { 1 };
        ADDITION * positions * samples + OPTIMIZER
    };
    work as u64
}

/// Some items of an update, as a kernel.
pub struct Items<'a> {
    pub update: &'a Update<'a>,
    pub items: Range<usize>,
}

impl Kernel for Items<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let span = &self.update.span;
        let per_panel = span.rows.div_ceil(ITEM_ROWS);
        let weight_items = span.blocks * span.panels * per_panel;
        unsafe {
            let mut waiting = Waiting { sums: [S::splat(0.0); MOST_ROWS], at: 0, next: 0, rows: 0 };
            for item in self.items.start..self.items.end.min(weight_items) {
                let panel = item / per_panel;
                let mut row = item % per_panel * ITEM_ROWS;
                let end = (row + ITEM_ROWS).min(span.rows);
                let (block, panel) = (panel / span.panels, panel % span.panels);
                // A block in the padding has no link, no gradient, and no moments: it stays, but for what decays.
                if self.update.connectivity.by_block.of(block).is_empty()
                    && matches!(self.update.purpose, Use::Optimize { step, .. } if step.keep == 1.0)
                {
                    continue;
                }
                while row < end {
                    let left = end - row;
                    row += if S::GRADIENT_ROWS >= 16 && left >= 16 {
                        self.tile::<S, 16>(block, panel, row, &mut waiting)
                    } else if S::GRADIENT_ROWS >= 8 && left >= 8 {
                        self.tile::<S, 8>(block, panel, row, &mut waiting)
                    } else if S::GRADIENT_ROWS == 6 && left >= 6 {
                        self.tile::<S, 6>(block, panel, row, &mut waiting)
                    } else if S::GRADIENT_ROWS >= 4 && left >= 4 {
                        self.tile::<S, 4>(block, panel, row, &mut waiting)
                    } else if left >= 2 {
                        self.tile::<S, 2>(block, panel, row, &mut waiting)
                    } else {
                        self.tile::<S, 1>(block, panel, row, &mut waiting)
                    };
                }
            }
            waiting.take(&self.update.purpose, MOST_ROWS);
            for item in self.items.start.max(weight_items)..self.items.end {
                self.bias::<S>(item - weight_items);
            }
        }
    }
}

/// Rows of the highest tile.
const MOST_ROWS: usize = 16;

/// A tile's sums, which the optimiser takes row by row while the next tile's products are made: its root and its division occupy a unit of their
/// own for as long as some dozen products take, and its parameters have time to arrive.
struct Waiting<S> {
    sums: [S; MOST_ROWS],
    /// Where the first row's parameters are.
    at: usize,
    /// Of `rows`, the first that has not been taken.
    next: usize,
    rows: usize,
}

impl<S: Simd> Waiting<S> {
    /// Takes the next `rows` rows, or as many as there are.
    #[inline(always)]
    unsafe fn take(&mut self, purpose: &Use, rows: usize) {
        let end = self.rows.min(self.next + rows);
        while self.next < end {
            unsafe { purpose.take::<S>(self.sums[self.next], self.at + self.next * LANES) };
            self.next += 1;
        }
    }
}

impl Items<'_> {
    /// R rows of one panel of a block. Returns R.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize>(&self, block: usize, panel: usize, row: usize, waiting: &mut Waiting<S>) -> usize {
        let update = self.update;
        let at = update.span.row(block, panel, row);
        let links = update.connectivity.by_block.of(block);
        // After so many samples one row is taken of the tile before, and one of this tile asked for.
        let some = if S::OVERLAPS { (links.len() * update.factors.len() * update.batch / R).max(1) } else { update.batch };
        let mut asked = if S::OVERLAPS { 0 } else { R };
        unsafe {
            for row in 0..asked {
                update.purpose.ask(at + row * LANES);
            }
            let mut sums = [[S::splat(0.0); 1]; R];
            for link in links {
                let pre = link.source as usize * update.batch * update.pre_stride + row;
                let post = link.destination as usize * update.batch * update.post_stride + panel * LANES;
                for factors in update.factors {
                    let mut sample = 0;
                    while sample < update.batch {
                        let samples = some.min(update.batch - sample);
                        let (pre, post) = (pre + sample * update.pre_stride, post + sample * update.post_stride);
                        let scalars = Scalars { at: factors.pre.add(pre), row: 1, depth: update.pre_stride };
                        let vectors = Vectors { at: factors.post.add(post), vector: 0, depth: update.post_stride };
                        if S::OVERLAPS {
                            if asked < R {
                                update.purpose.ask(at + asked * LANES);
                                asked += 1;
                            }
                            waiting.take(&update.purpose, 1);
                            // What the next tile reads of these samples.
                            for sample in 0..samples {
                                prefetch(Near::First, scalars.at.wrapping_add(R + sample * scalars.depth));
                            }
                        }
                        accumulate::<S, R, 1>(&mut sums, samples, scalars, vectors);
                        sample += samples;
                    }
                }
            }
            if !S::OVERLAPS {
                for r in 0..R {
                    update.purpose.take::<S>(sums[r][0], at + r * LANES);
                }
                return R;
            }
            waiting.take(&update.purpose, MOST_ROWS);
            for r in 0..R {
                waiting.sums[r] = sums[r][0];
            }
        }
        (waiting.at, waiting.next, waiting.rows) = (at, 0, R);
        R
    }

    /// One vector of biases: the errors of its position, or of all positions where they share it, summed over the global batch.
    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, index: usize) {
        let update = self.update;
        let (position, panel) = (index / update.span.panels, index % update.span.panels);
        let positions = match update.span.bias_positions {
            1 => 0..update.connectivity.destinations,
            _ => position..position + 1,
        };
        unsafe {
            let mut sum = S::splat(0.0);
            for position in positions {
                for factors in update.factors {
                    let errors = factors.post.add(position * update.batch * update.post_stride + panel * LANES);
                    for sample in 0..update.batch {
                        sum = sum.add(S::load(errors.add(sample * update.post_stride)));
                    }
                }
            }
            update.purpose.take::<S>(sum, update.span.bias + index * LANES);
        }
    }
}

impl Use {
    /// Asks for the parameters at element `at`, and their moments.
    #[inline(always)]
    fn ask(&self, at: usize) {
        if let Use::Optimize { weights, first, second, step } = *self {
            prefetch(Near::First, weights.wrapping_add(at));
            prefetch(Near::First, first.wrapping_add(at));
            if matches!(step.method, Method::Adam { .. }) {
                prefetch(Near::First, second.wrapping_add(at));
            }
        }
    }

    /// Uses the gradient `sum` (not yet divided by the batch) of the parameters at element `at`.
    #[inline(always)]
    unsafe fn take<S: Simd>(&self, sum: S, at: usize) {
        unsafe {
            match *self {
                Use::Optimize { weights, first, second, step } => {
                    optimize::<S>(sum.mul(S::splat(step.scale)), weights.add(at), first.add(at), second.add(at), &step)
                }
                Use::Store { gradients, scale } => sum.mul(S::splat(scale)).store(gradients.add(at)),
            }
        }
    }
}

/// The optimiser on sixteen parameters.
#[inline(always)]
unsafe fn optimize<S: Simd>(gradient: S, weight: *mut f32, first: *mut f32, second: *mut f32, step: &OptimizerStep) {
    unsafe {
        let change = match step.method {
            Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => {
                let m = S::load(first).mul(S::splat(beta1)).add(gradient.mul(S::splat(1.0 - beta1)));
                let v = S::load(second).mul(S::splat(beta2)).add(gradient.mul(gradient).mul(S::splat(1.0 - beta2)));
                m.store(first);
                v.store(second);
                let divisor = v.sqrt().mul(S::splat(deviation_scale)).add(S::splat(epsilon));
                m.mul(S::splat(size)).div(divisor)
            }
            Method::Sgd { size, momentum, nesterov } => {
                let m = S::load(first).mul(S::splat(momentum)).add(gradient);
                m.store(first);
                let direction = if nesterov { gradient.add(m.mul(S::splat(momentum))) } else { m };
                direction.mul(S::splat(size))
            }
        };
        // Times 1 is the same number.
        S::load(weight).mul(S::splat(step.keep)).sub(change).store(weight);
    }
}

/// The optimiser on a sum of gradients (already scaled), elements `begin..end` of all that it is given. The sum runs in the order of its parts, and is
/// made here since a store of its own would cost memory bandwidth, which is what this is bound by.
pub struct OptimizeRange<'a> {
    pub begin: usize,
    pub end: usize,
    pub parts: &'a [Values],
    pub weights: *mut f32,
    pub first: *mut f32,
    pub second: *mut f32,
    pub step: OptimizerStep,
}

impl Kernel for OptimizeRange<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for at in (self.begin..self.end).step_by(LANES) {
            unsafe {
                let mut gradient = S::load(self.parts[0].at(at));
                for part in &self.parts[1..] {
                    gradient = gradient.add(S::load(part.at(at)));
                }
                optimize::<S>(gradient, self.weights.add(at), self.first.add(at), self.second.add(at), &self.step);
            }
        }
    }
}

/// Bytes that a fused update must move at least: weights and moments in and out, or a gradient out; factors once.
pub fn bytes(connectivity: &Connectivity, global_batch: usize, purpose: &Use) -> f64 {
    let factors = connectivity.sources * row_stride(connectivity.rows) + connectivity.destinations * row_stride(connectivity.columns);
    let each = match purpose {
        Use::Optimize { step, .. } => 8 * (1 + step.method.moments()),
        Use::Store { .. } => 4,
    };
    (each * connectivity.weights()) as f64 + 4.0 * (global_batch * factors) as f64
}
