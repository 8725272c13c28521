//! Launches of the kernels: which instance, how many blocks, how much shared memory.
//!
//! Work is divided by shapes alone, never by the number of samples, so that a value has the same bits in every batch. (The tile of `apply`
//! does depend on the samples; all tiles add up the same chunks of K in the same order.)

use std::ops::Range;

use super::arguments::{
    Address, Apply, Bias, ChannelNumbers, ChannelSums, Concatenate, Elementwise, Factors, MapChannels, MeasuredError, Noise, OneHot,
    Optimize, Output, Peak, Pixels, Pool, Signs, SumMeasure, Update, Wire,
};
use super::tables::Share;
use super::{Kernel, Tile};
use crate::compute::settings::Precision;

/// Floats of an activity's sample, or of a weight's row, of `channels` channels.
pub fn in_fours(channels: usize) -> usize {
    channels.next_multiple_of(4)
}

/// A kernel with its argument.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: Kernel,
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    argument: Vec<u64>,
}

impl Launch {
    fn new<T: bytemuck::Pod>(kernel: Kernel, blocks: usize, argument: &T) -> Launch {
        let grid = [u32::try_from(blocks).expect("a kernel has fewer blocks than 2^32"), 1, 1];
        Launch { kernel, grid, block: BLOCK as u32, shared: 0, argument: bytemuck::cast_slice(std::slice::from_ref(argument)).to_vec() }
    }

    fn tiled<T: bytemuck::Pod>(kernel: Kernel, blocks: usize, slices: usize, shared: usize, argument: &T) -> Launch {
        let launch = Launch::new(kernel, blocks, argument);
        let block = kernel.tile().threads() as u32;
        Launch { grid: [launch.grid[0], slices as u32, 1], block, shared: shared as u32, ..launch }
    }

    /// Where the kernel's one parameter lies.
    pub fn argument(&self) -> *const std::ffi::c_void {
        self.argument.as_ptr().cast()
    }
}

/// Threads of a block of a kernel that is not tiled.
const BLOCK: usize = 256;
/// Of K that a chunk holds.
const DEPTH: usize = 16;
/// Columns of a warp.
const WARP_COLUMNS: usize = 48;
/// Blocks that keep a large GPU busy.
const ENOUGH: usize = 256;

const fn tile(wm: usize, wn: usize, mt: usize, stages: usize, blocks: usize) -> Tile {
    Tile { wm, wn, mt, stages, blocks }
}

/// The tile of `apply` for outputs of `wide` floats, and `rows` samples of all jobs together.
fn apply_tile(precision: Precision, wide: usize, rows: usize) -> Tile {
    let (narrow, few) = (wide <= WARP_COLUMNS, rows <= 64);
    match (precision, narrow, few) {
        (Precision::F32, true, true) => tile(2, 1, 2, 4, 4),
        (Precision::F32, true, false) => tile(4, 1, 2, 4, 2),
        (Precision::F32, false, true) => tile(2, 2, 2, 4, 2),
        (Precision::F32, false, false) => tile(4, 2, 2, 4, 1),
        (_, true, true) => tile(2, 1, 2, 4, 6),
        (_, true, false) => tile(4, 1, 2, 4, 3),
        (_, false, true) => tile(2, 2, 2, 4, 4),
        (_, false, false) => tile(2, 2, 4, 4, 3),
    }
}

/// How `apply` is divided: its kernel, and slices of K so that maps of few positions have work for a whole GPU.
fn divide(precision: Precision, transposed: bool, most: usize, apply: &Apply) -> (Kernel, Apply, usize) {
    let (deep, wide) = if transposed { (apply.map.columns, apply.map.rows) } else { (apply.map.rows, apply.map.columns) };
    let (deep, wide, rows) = (deep as usize, in_fours(wide as usize), (apply.jobs * apply.samples) as usize);
    let tile = apply_tile(precision, wide, rows);
    let (m_tiles, n_tiles) = (rows.div_ceil(16 * tile.mt * tile.wm), wide.div_ceil(tile.columns()));
    let chunks = most * deep.div_ceil(DEPTH);
    let slices = ENOUGH.div_ceil(n_tiles * apply.positions as usize).min(chunks / 8).clamp(1, 16);
    let apply = Apply { m_tiles: m_tiles as i32, n_tiles: n_tiles as i32, slices: slices as i32, ..*apply };
    (Kernel::Apply { precision, transposed, tile }, apply, wide)
}

/// Floats of `partial` that [`apply`] needs; it may be used again by the next kernel.
pub fn apply_partial(precision: Precision, transposed: bool, most: usize, apply: &Apply) -> usize {
    let (_, apply, wide) = divide(precision, transposed, most, apply);
    let all = (apply.positions * apply.jobs * apply.samples) as usize * wide * apply.slices as usize;
    if apply.slices > 1 { all } else { 0 }
}

/// `destination = f(map(source))` of up to three activities. `most`: links of a group at most.
pub fn apply(out: &mut Vec<Launch>, precision: Precision, transposed: bool, most: usize, apply: &Apply) {
    let (kernel, apply, wide) = divide(precision, transposed, most, apply);
    let tile = kernel.tile();
    let (bm, bn) = (16 * tile.mt * tile.wm, tile.columns());
    let b = if transposed { bn * (DEPTH + 8) } else { DEPTH * (bn + 4) };
    let shared = tile.stages * (bm * (DEPTH + 8) + b) * 4;
    let blocks = (apply.m_tiles * apply.n_tiles) as usize * apply.positions as usize;
    out.push(Launch::tiled(kernel, blocks, apply.slices as usize, shared, &apply));
    if apply.slices > 1 {
        let quads = (apply.jobs * apply.samples) as usize * wide / 4;
        let mut add = apply;
        add.map.columns = wide as i32;
        out.push(Launch::new(Kernel::Plain("add_slices"), quads.div_ceil(BLOCK) * apply.positions as usize, &add));
    }
}

fn with_reciprocal(factors: &Factors) -> Factors {
    let reciprocal = if factors.per_rank == 1 { 0 } else { ((1u64 << 32) / factors.per_rank as u64) as u32 + 1 };
    Factors { reciprocal, ..*factors }
}

fn update_kernel(precision: Precision, shared: bool, columns: usize) -> Kernel {
    let tile = match (precision, shared, columns <= WARP_COLUMNS) {
        (Precision::F32, true, true) => tile(2, 1, 2, 3, 6),
        (_, true, true) => tile(2, 1, 2, 3, 8),
        (Precision::F32, false, true) => tile(4, 1, 2, 3, 3),
        (_, false, true) => tile(4, 1, 2, 3, 4),
        (Precision::F32, _, false) => tile(2, 2, 2, 3, 3),
        (_, true, false) => tile(2, 2, 2, 3, 4),
        (_, false, false) => tile(3, 2, 2, 3, 3),
    };
    Kernel::Update { precision, shared, tile }
}

/// Rows and columns of tiles of an update whose groups have `rows` x `columns` weights at most: those that make `share`, or all.
fn push_update(out: &mut Vec<Launch>, kernel: Kernel, [rows, columns]: [usize; 2], slices: usize, share: Option<&Share>, update: &Update) {
    let tile = kernel.tile();
    let (bm, bn) = (16 * tile.mt * tile.wm, tile.columns());
    let (row_tiles, column_tiles) = (rows.div_ceil(bm), columns.div_ceil(bn));
    let shared = (tile.stages * DEPTH * (bm + 4 + bn + 4)).max(bm * (bn + 4)) * 4;
    // In the order of blocks: those before a group's row, or column, and how many have it.
    let tiles = row_tiles * column_tiles;
    let (size, along) = if update.by_source != 0 { (bn, row_tiles) } else { (bm, column_tiles) };
    let before = |(group, place): (usize, usize), slice: usize| (group * slices + slice) * tiles + place / size * along;
    let blocks =
        share.map_or(0..update.groups as usize * slices * tiles, |share| before(share.first, 0)..before(share.last, slices - 1) + along);
    let elements = share.map_or(0..0, |share| share.elements.clone());
    let update = Update {
        begin: elements.start as i64,
        end: elements.end as i64,
        row_tiles: row_tiles as i32,
        column_tiles: column_tiles as i32,
        slices: slices as i32,
        skipped: blocks.start as u32,
        factors: with_reciprocal(&update.factors),
        ..*update
    };
    out.push(Launch::tiled(kernel, blocks.len(), 1, shared, &update));
}

/// The update of a map whose blocks have one link each, or a share of it. `most`: links of a group at most.
pub fn update(out: &mut Vec<Launch>, precision: Precision, most: usize, share: Option<&Share>, update: &Update) {
    let (rows, columns) = (update.map.rows as usize, update.map.columns as usize);
    let (rows, columns) = if update.by_source != 0 { (rows, most * columns) } else { (most * in_fours(rows), columns) };
    let update = Update { partial: 0, ..*update };
    push_update(out, update_kernel(precision, false, columns), [rows, columns], 1, share, &update);
}

/// Slices of the links of a shared block.
fn shared_slices(precision: Precision, most: usize, update: &Update) -> usize {
    let (rows, columns) = (update.map.rows as usize, update.map.columns as usize);
    let tile = update_kernel(precision, true, columns).tile();
    let blocks = rows.div_ceil(16 * tile.mt * tile.wm) * columns.div_ceil(tile.columns()) * update.groups as usize;
    (2 * ENOUGH).div_ceil(blocks).min(most).clamp(1, 64)
}

/// Floats of `partial` that [`update_shared`] needs.
pub fn shared_partial(precision: Precision, most: usize, update: &Update) -> usize {
    let slices = shared_slices(precision, most, update);
    if slices > 1 { slices * block(update) * update.groups as usize } else { 0 }
}

fn block(update: &Update) -> usize {
    (update.map.rows * update.map.columns) as usize
}

/// The update of a map whose blocks are shared by positions, or a share of it. `most`: links of a block at most.
pub fn update_shared(out: &mut Vec<Launch>, precision: Precision, most: usize, share: Option<&Share>, update: &Update) {
    let (rows, columns) = (update.map.rows as usize, update.map.columns as usize);
    let slices = shared_slices(precision, most, update);
    let count = (block(update) * update.groups as usize) as i64;
    let partial = if slices > 1 { update.partial } else { 0 };
    push_update(out, update_kernel(precision, true, columns), [rows, columns], slices, share, &Update { partial, ..*update });
    if slices > 1 {
        let Update { weights, first, second, gradients, optimizer, .. } = *update;
        let (parts, scaled) = (slices as i32, 0);
        let all = Optimize { sums: partial, stride: count, weights, first, second, gradients, optimizer, count, parts, scaled };
        optimize(out, &share.map_or(all, |share| of_elements(&all, &share.elements)));
    }
}

/// The same of some elements.
fn of_elements(all: &Optimize, elements: &Range<usize>) -> Optimize {
    let from = |at: Address| if at == 0 { 0 } else { at + 4 * elements.start as u64 };
    let Optimize { sums, weights, first, second, gradients, .. } = *all;
    let [sums, weights, first, second, gradients] = [sums, weights, first, second, gradients].map(from);
    Optimize { sums, weights, first, second, gradients, count: elements.len() as i64, ..*all }
}

/// The optimiser on a stored gradient, which may be in parts.
pub fn optimize(out: &mut Vec<Launch>, optimize: &Optimize) {
    out.push(Launch::new(Kernel::Plain("optimize"), (optimize.count as usize).div_ceil(4 * BLOCK), optimize));
}

/// Slices of the positions that share a bias.
fn bias_slices(bias: &Bias) -> usize {
    if bias.shared != 0 { (bias.positions as usize).min(64) } else { 1 }
}

/// Floats of `partial` that [`bias`] needs.
pub fn bias_partial(bias: &Bias) -> usize {
    let slices = bias_slices(bias);
    if slices > 1 { slices * bias.columns as usize } else { 0 }
}

/// The update of some of a map's biases.
pub fn bias(out: &mut Vec<Launch>, bias: &Bias) {
    let (slices, columns) = (bias_slices(bias), bias.columns as usize);
    let elements = bias.begin as usize..bias.end as usize;
    let units = if bias.shared != 0 { 0..slices } else { elements.start / columns..elements.end.div_ceil(columns) };
    let partial = if slices > 1 { bias.partial } else { 0 };
    let skipped = units.start as i32;
    let whole = Bias { partial, slices: slices as i32, skipped, factors: with_reciprocal(&bias.factors), ..*bias };
    out.push(Launch::new(Kernel::Plain("bias"), units.len() * (columns / 4).div_ceil(16), &whole));
    if slices > 1 {
        let Bias { bias: weights, first, second, gradients, optimizer, columns, .. } = *bias;
        let count = i64::from(columns);
        let (sums, parts, scaled) = (partial, slices as i32, 0);
        let all = Optimize { sums, stride: count, weights, first, second, gradients, optimizer, count, parts, scaled };
        optimize(out, &of_elements(&all, &elements));
    }
}

pub fn elementwise(out: &mut Vec<Launch>, elementwise: &Elementwise) {
    out.push(Launch::new(Kernel::Plain("elementwise"), (elementwise.count as usize).div_ceil(4 * BLOCK), elementwise));
}

/// Parts in which a sample's squared error over `positions` of `pitch` floats is measured.
pub fn measure_parts(positions: usize, pitch: usize) -> usize {
    (positions * pitch).div_ceil(1 << 13).min(positions)
}

pub fn measured_error(out: &mut Vec<Launch>, error: &MeasuredError) {
    let parts = measure_parts(error.positions as usize, error.pitch as usize);
    let error = MeasuredError { parts: parts as i32, ..*error };
    out.push(Launch::new(Kernel::Plain("measured_error"), parts * error.samples as usize, &error));
}

pub fn sum_measure(out: &mut Vec<Launch>, sum: &SumMeasure) {
    out.push(Launch::new(Kernel::Plain("sum_measure"), (sum.samples as usize).div_ceil(BLOCK), sum));
}

pub fn noise(out: &mut Vec<Launch>, noise: &Noise) {
    const LANES: usize = 16;
    let counters = (noise.positions as usize * (noise.channels as usize).div_ceil(LANES)).div_ceil(4) * LANES;
    out.push(Launch::new(Kernel::Plain("noise"), counters.div_ceil(BLOCK) * noise.samples as usize, noise));
}

pub fn output(out: &mut Vec<Launch>, output: &Output) {
    out.push(Launch::new(Kernel::Plain("output"), output.samples as usize, output));
}

pub fn one_hot(out: &mut Vec<Launch>, one_hot: &OneHot) {
    let floats = one_hot.samples as usize * in_fours(one_hot.classes as usize);
    out.push(Launch::new(Kernel::Plain("one_hot"), floats.div_ceil(BLOCK), one_hot));
}

pub fn concatenate(out: &mut Vec<Launch>, concatenate: &Concatenate) {
    let floats = concatenate.samples as usize * in_fours((concatenate.a_channels + concatenate.b_channels) as usize);
    out.push(Launch::new(Kernel::Plain("concatenate"), floats.div_ceil(BLOCK), concatenate));
}

pub fn pool(out: &mut Vec<Launch>, pool: &Pool) {
    let quads = pool.samples as usize * pool.pitch as usize / 4;
    out.push(Launch::new(Kernel::Plain("pool"), quads.div_ceil(BLOCK) * pool.positions as usize, pool));
}

/// Slices of a sample's positions.
fn channel_slices(sums: &ChannelSums) -> usize {
    (sums.positions as usize / 64).clamp(1, 32)
}

/// Floats of `partial` that [`channel_sums`] needs.
pub fn channel_partial(sums: &ChannelSums) -> usize {
    let slices = channel_slices(sums);
    if slices > 1 { 2 * slices * sums.samples as usize * in_fours(sums.channels as usize) } else { 0 }
}

pub fn channel_sums(out: &mut Vec<Launch>, sums: &ChannelSums) {
    let slices = channel_slices(sums);
    let sums = ChannelSums { slices: slices as i32, ..*sums };
    let quads = sums.samples as usize * in_fours(sums.channels as usize) / 4;
    out.push(Launch::new(Kernel::Plain("channel_sums"), quads.div_ceil(32) * slices, &sums));
    if slices > 1 {
        out.push(Launch::new(Kernel::Plain("add_channel_slices"), quads.div_ceil(BLOCK), &sums));
    }
}

/// The numbers of the way up, or `down`.
pub fn channel_numbers(out: &mut Vec<Launch>, numbers: &ChannelNumbers, down: bool) {
    let kernel = Kernel::Plain(if down { "channel_slopes" } else { "channel_numbers" });
    let numbers = ChannelNumbers { all: with_reciprocal(&numbers.all), ..*numbers };
    out.push(Launch::new(kernel, in_fours(numbers.channels as usize).div_ceil(32), &numbers));
}

pub fn map_channels(out: &mut Vec<Launch>, map: &MapChannels) {
    out.push(Launch::new(Kernel::Plain("map_channels"), (map.quads as usize).div_ceil(BLOCK), map));
}

/// `times` chunks of products in each of `blocks` blocks, which write [`BLOCK`] floats each; and how many operations these are.
pub fn peak(out: &mut Vec<Launch>, precision: Precision, blocks: usize, peak: &Peak) -> f64 {
    out.push(Launch::new(Kernel::Peak { precision }, blocks, peak));
    let warps = (blocks * BLOCK / 32) as f64;
    warps * f64::from(peak.times) * (2 * 32 * WARP_COLUMNS * DEPTH) as f64
}

pub fn wire(out: &mut Vec<Launch>, wire: &Wire) {
    out.push(Launch::new(Kernel::Plain("wire"), (wire.count as usize).div_ceil(4 * BLOCK), wire));
}

pub fn signs(out: &mut Vec<Launch>, signs: &Signs) {
    let weights = signs.blocks as usize * signs.rows as usize * in_fours(signs.columns as usize);
    out.push(Launch::new(Kernel::Plain("signs"), weights.div_ceil(BLOCK), signs));
}

pub fn pixels(out: &mut Vec<Launch>, pixels: &Pixels) {
    let floats = match pixels.rows {
        0 => (pixels.height * pixels.width) as usize * in_fours(pixels.colours as usize),
        _ => (pixels.shifts * pixels.lines * pixels.line) as usize,
    };
    out.push(Launch::new(Kernel::Plain("pixels"), (floats / 4).div_ceil(BLOCK) * pixels.samples as usize, pixels));
}

/// Every product's kernel, and one that brings those that are no product.
#[cfg(test)]
pub fn all() -> std::collections::BTreeSet<Kernel> {
    let mut all = std::collections::BTreeSet::from([Kernel::Plain("noise")]);
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for flag in [false, true] {
            for columns in [WARP_COLUMNS, 2 * WARP_COLUMNS] {
                let kernels = [64, 65].map(|rows| apply_tile(precision, columns, rows));
                all.extend(kernels.map(|tile| Kernel::Apply { precision, transposed: flag, tile }));
                all.insert(update_kernel(precision, flag, columns));
            }
        }
        all.insert(Kernel::Peak { precision });
    }
    all
}
