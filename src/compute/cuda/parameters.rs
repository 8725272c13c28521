//! Parameters and the optimiser's moments of one map on the GPU, and their interchange form.
//!
//! A map has two pieces, one behind the other: weights, `[block][row][column]`, and biases, `[position][column]`, columns in fours, each padded
//! to equal parts for all ranks. They are divided one by one because the last ranks would else own all biases, whose gradients read as many
//! errors as those of far more weights do. Moments exist for this rank's parts alone, and only those that the map's optimiser needs; the
//! others are zeros in checkpoints.

use std::ops::Range;

use anyhow::Result;

use super::kernels::launches::in_fours;
use super::pool::{Place, Pool};
use crate::compute::cpu::uniforms;
use crate::compute::{Buffer, Part};
use crate::network::Map;

/// Parts begin on whole lines of memory.
const ALIGNMENT: usize = 64;

/// The weights of a map, or its biases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they begin and end among the map's elements, without padding.
    pub used: Range<usize>,
    /// Those of this rank, one of equal parts; the last ones have padding.
    pub owned: Range<usize>,
}

impl Piece {
    fn new(start: usize, len: usize, part: usize, parts: usize) -> Piece {
        let each = len.div_ceil(parts * ALIGNMENT) * ALIGNMENT;
        Piece { used: start..start + len, owned: start + part * each..start + (part + 1) * each }
    }

    /// This rank's elements without padding, counted from the piece's first.
    pub fn own(&self) -> Range<usize> {
        let from_first = |element: usize| element.min(self.used.end) - self.used.start;
        from_first(self.owned.start)..from_first(self.owned.end)
    }
}

pub struct Parameters {
    pub values: Place,
    /// Of this rank's parts, one behind the other; empty where the optimiser needs none, or the map is not trained.
    pub first: Place,
    pub second: Place,
    /// Weights and biases.
    pub pieces: [Piece; 2],
    /// Elements before the biases.
    pub weights: usize,
    /// Elements with padding.
    pub padded: usize,
    /// Places that have a bias of their own: 0 without bias, 1 where all share it.
    pub bias_positions: usize,
}

impl Parameters {
    /// Room for `map`, of whose `parts` equal parts this rank owns number `part`, with so many moments of each.
    pub fn new(map: &Map, moments: usize, part: usize, parts: usize, pool: &mut Pool) -> Parameters {
        let connectivity = &map.connectivity;
        let columns = in_fours(connectivity.columns);
        let bias_positions = map.bias_positions();
        let weights = if connectivity.weighted { connectivity.blocks * connectivity.rows * columns } else { 0 };
        let piece = |start, len| Piece::new(start, len, part, parts);
        let of_weights = piece(0, weights);
        let before = parts * of_weights.owned.len();
        let pieces = [of_weights, piece(before, bias_positions * columns)];
        let own: usize = pieces.iter().map(|piece| piece.owned.len()).sum();
        let mut moment = |number: usize| pool.reserve(if map.trained() && number < moments { 4 * own } else { 0 });
        let (first, second) = (moment(0), moment(1));
        Parameters { values: pool.reserve(4 * own * parts), first, second, pieces, weights: before, padded: own * parts, bias_positions }
    }

    /// Elements of this rank's parts.
    pub fn owned(&self) -> usize {
        self.pieces.iter().map(|piece| piece.owned.len()).sum()
    }

    /// This rank's parts among all elements, and where one behind the other, as moments lie.
    pub fn parts(&self) -> [(Range<usize>, Range<usize>); 2] {
        let [weights, biases] = self.pieces.each_ref().map(|piece| piece.owned.clone());
        let (first, all) = (weights.len(), weights.len() + biases.len());
        [(weights, 0..first), (biases, first..all)]
    }

    /// How many moments a parameter has.
    pub fn moments(&self) -> usize {
        [self.first, self.second].iter().filter(|place| place.bytes > 0).count()
    }

    /// The moment that `buffer` names, or the parameters.
    pub fn buffer(&self, buffer: Buffer) -> Place {
        match buffer {
            Buffer::Weights => self.values,
            Buffer::FirstMoment => self.first,
            Buffer::SecondMoment => self.second,
        }
    }

    /// Glorot uniform weights and zero biases, padded: the numbers that the CPU draws for map number `index` at time `draw`.
    pub fn initial(&self, map: &Map, index: usize, seed: u64, draw: u64) -> Vec<f32> {
        let connectivity = &map.connectivity;
        let columns = connectivity.columns;
        let drawn = uniforms(connectivity.weights(), map.bound() as f32, seed, index, draw);
        let mut values = vec![0.0; self.padded];
        for (to, from) in values.chunks_exact_mut(in_fours(columns)).zip(drawn.chunks_exact(columns)) {
            to[..columns].copy_from_slice(from);
        }
        values
    }

    /// A tensor in its interchange layout, of the whole buffer.
    pub fn read(&self, map: &Map, part: Part, whole: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; map.elements(part)];
        self.each(map, part, |ours, theirs| out[theirs] = whole[ours]);
        out
    }

    /// Replaces a tensor of the whole buffer by `values` in interchange layout.
    pub fn write(&self, map: &Map, part: Part, whole: &mut [f32], values: &[f32]) -> Result<()> {
        map.check(part, values)?;
        self.each(map, part, |ours, theirs| whole[ours] = values[theirs]);
        Ok(())
    }

    /// Calls `f(element here, index in the interchange tensor)` for every element.
    fn each(&self, map: &Map, part: Part, mut f: impl FnMut(usize, usize)) {
        let connectivity = &map.connectivity;
        let (rows, columns, pitch) = (connectivity.rows, connectivity.columns, in_fours(connectivity.columns));
        match part {
            Part::Bias => {
                for position in 0..self.bias_positions {
                    (0..columns).for_each(|column| f(self.weights + position * pitch + column, position * columns + column));
                }
            }
            Part::Weight => {
                for block in 0..connectivity.blocks {
                    for row in 0..rows {
                        (0..columns).for_each(|column| f((block * rows + row) * pitch + column, map.weight.index(block, row, column)));
                    }
                }
            }
        }
    }
}

/// Bytes of the parameters of `map`, and of its so many moments where ranks have one of `parts` parts each.
pub fn bytes(map: &Map, moments: usize, parts: usize) -> [u64; 2] {
    let parameters = Parameters::new(map, moments, 0, parts, &mut Pool::default());
    [parameters.values.bytes, parameters.first.bytes + parameters.second.bytes].map(|bytes| bytes as u64)
}
