//! `update` in all its forms, biases, and the optimiser.

use std::ops::Range;

use super::memory::{Buffer, distance, padded, random, unpadded};
use super::products::{Described, maps, shape, weights};
use super::{emulation, launch, run};
use crate::compute::cuda::kernels::arguments::{Bias, Factors, Optimize, Optimizer, Update};
use crate::compute::cuda::kernels::launches::{self, in_fours};
use crate::compute::cuda::kernels::tables::{Grouping, Tables};
use crate::compute::settings::Precision::{self, Bf16, F32, Tf32};
use crate::network::Connectivity;

pub const ADAM: Optimizer =
    Optimizer { method: 0, scale: 0.125, keep: 0.75, beta1: 0.9, beta2: 0.99, size: 0.01, deviation_scale: 1.5, epsilon: 1e-4 };
const MOMENTUM: Optimizer = Optimizer { method: 1, ..ADAM };
const NESTEROV: Optimizer = Optimizer { method: 2, ..ADAM };

/// An activity of all samples, [position][sample][channel], as ranks hold it, one after the other; and floats from one to the next.
fn by_rank(values: &[f32], channels: usize, samples: usize, ranks: usize) -> (Buffer, i64) {
    let positions = values.len() / channels / samples;
    let each = samples / ranks;
    let mut all = Vec::new();
    for rank in 0..ranks {
        for position in 0..positions {
            let at = (position * samples + rank * each) * channels;
            all.extend(padded(&values[at..at + each * channels], channels));
        }
    }
    (Buffer::of(&all), (positions * each * in_fours(channels)) as i64)
}

/// An update's factors, and what it works on.
pub struct Given<'a> {
    pub map: &'a Connectivity,
    pub grouping: Grouping,
    pub pre: Vec<f32>,
    pub post: Vec<f32>,
    pub samples: usize,
}

impl Given<'_> {
    pub fn new(map: &Connectivity, samples: usize, seed: u64) -> Given<'_> {
        let (pre, post) = (random(seed, map.sources * samples * map.rows), random(seed + 1, map.destinations * samples * map.columns));
        Given { map, grouping: Grouping::choose(map), pre, post, samples }
    }

    /// The gradient in float64, not scaled.
    pub fn reference(&self) -> Vec<f64> {
        let (map, samples) = (self.map, self.samples);
        let mut gradient = vec![0.0; map.weights()];
        for (block, out) in gradient.chunks_exact_mut(map.rows * map.columns).enumerate() {
            for link in map.by_block.of(block) {
                for sample in 0..samples {
                    let pre = &self.pre[(link.source as usize * samples + sample) * map.rows..][..map.rows];
                    let post = &self.post[(link.destination as usize * samples + sample) * map.columns..][..map.columns];
                    for (row, out) in out.chunks_exact_mut(map.columns).enumerate() {
                        out.iter_mut().zip(post).for_each(|(out, post)| *out += f64::from(pre[row]) * f64::from(*post));
                    }
                }
            }
        }
        gradient
    }

    /// Runs the update; `parameters` are weights and moments in the kernels' layout. Gives the gradient, where it is stored.
    pub fn run(&self, precision: Precision, ranks: usize, optimizer: &Optimizer, parameters: &[Buffer; 3], store: bool) -> Vec<f32> {
        self.run_share(precision, ranks, optimizer, parameters, store, None).0
    }

    /// The same of some weights, of which alone there are moments; and how many blocks did it.
    pub fn run_share(
        &self,
        precision: Precision,
        ranks: usize,
        optimizer: &Optimizer,
        parameters: &[Buffer; 3],
        store: bool,
        owned: Option<&Range<usize>>,
    ) -> (Vec<f32>, u32) {
        let map = self.map;
        let mut tables = match self.grouping {
            Grouping::Destination => Tables::by_destination(map),
            Grouping::Source => Tables::by_source(map),
            Grouping::Block => Tables::by_block(map),
        };
        if !store && self.grouping != Grouping::Block {
            tables = tables.decaying(map.blocks_per_position);
        }
        let described = Described::new(&tables);
        let (pre, pre_rank) = by_rank(&self.pre, map.rows, self.samples, ranks);
        let (post, post_rank) = by_rank(&self.post, map.columns, self.samples, ranks);
        let optimizer = Buffer::of(&[*optimizer]);
        let gradients = Buffer::new(if store { map.blocks * map.rows * in_fours(map.columns) } else { 0 });
        let share = owned.map(|owned| tables.share(self.grouping, [map.rows, in_fours(map.columns)], owned));
        let [weights, first, second] = parameters.each_ref().map(Buffer::address);
        let [first, second] = [first, second].map(|at| at - 4 * owned.map_or(0, |owned| owned.start as u64));
        let mut update = Update {
            map: described.map(map, map.rows),
            factors: Factors {
                pre: pre.address(),
                post: post.address(),
                pre_rank,
                post_rank,
                samples: self.samples as i32,
                per_rank: (self.samples / ranks) as i32,
                ..Factors::default()
            },
            weights,
            first,
            second,
            gradients: if store { gradients.address() } else { 0 },
            optimizer: optimizer.address(),
            by_source: i32::from(self.grouping == Grouping::Source),
            groups: tables.groups() as i32,
            ..Update::default()
        };
        let mut list = Vec::new();
        let shared = self.grouping == Grouping::Block;
        let partial = Buffer::new(if shared { launches::shared_partial(precision, tables.most, &update) } else { 0 });
        update.partial = partial.address();
        if share.as_ref().is_some_and(|share| share.elements.is_empty()) {
            return (gradients.floats(), 0);
        }
        let make = if shared { launches::update_shared } else { launches::update };
        make(&mut list, precision, tables.most, share.as_ref(), &update);
        let [weights, first, second] = parameters;
        run(&list, &[&pre, &post, &gradients, &partial, weights, first, second]);
        (gradients.floats(), list[0].grid[0])
    }

    /// The gradient as it is stored, without padding, zero where no link is.
    fn gradient(&self, precision: Precision, ranks: usize) -> Vec<f32> {
        let map = self.map;
        let nothing = [Buffer::new(0), Buffer::new(0), Buffer::new(0)];
        let mut gradient = self.run(precision, ranks, &ADAM, &nothing, true);
        for (block, values) in gradient.chunks_exact_mut(map.rows * in_fours(map.columns)).enumerate() {
            if map.by_block.of(block).is_empty() && self.grouping != Grouping::Block {
                assert!(values.iter().all(|x| x.is_nan()), "the gradient of a block without links was written");
                values.fill(0.0);
            }
        }
        unpadded(&gradient, map.columns)
    }
}

/// Samples of the test of map number `number`.
pub fn samples(number: usize) -> usize {
    [37, 3, 16, 1, 20, 9, 130, 2, 65, 33][number]
}

#[test]
fn gradients_agree_with_float64() {
    let Some(_) = emulation() else { return };
    let mut seen = Vec::new();
    for (number, (name, map)) in maps().into_iter().enumerate() {
        let given = Given::new(&map, samples(number), number as u64);
        if !seen.contains(&given.grouping) {
            seen.push(given.grouping);
        }
        let wanted: Vec<f64> = given.reference().iter().map(|sum| sum * f64::from(ADAM.scale)).collect();
        for (precision, tolerance) in [(F32, 1e-6), (Tf32, 6e-4), (Bf16, 5e-3)] {
            let off = distance(&given.gradient(precision, 1), &wanted);
            assert!(off < tolerance, "{name}, {precision:?}: off by {off:.1e}");
        }
    }
    assert_eq!(seen.len(), 3, "every grouping is used: {seen:?}");
}

#[test]
fn either_grouping_gives_the_same_bits() {
    let Some(_) = emulation() else { return };
    for (name, map) in maps() {
        let given = Given::new(&map, 5, 3);
        let other = match given.grouping {
            Grouping::Block => continue,
            Grouping::Destination => Grouping::Source,
            Grouping::Source => Grouping::Destination,
        };
        let other = Given { grouping: other, ..Given::new(&map, 5, 3) };
        assert_eq!(given.gradient(F32, 1), other.gradient(F32, 1), "{name}");
    }
}

#[test]
fn one_ranks_sums_have_the_bits_of_many() {
    let Some(_) = emulation() else { return };
    let maps = maps();
    for (number, samples) in [(0, 12), (2, 6), (4, 72), (6, 8)] {
        let given = Given::new(&maps[number].1, samples, 9);
        let (one, shared) = (given.gradient(F32, 1), number == 2);
        let (errors, channels) = (&given.post, given.map.columns);
        let sums = biases(errors, channels, samples, 1, shared);
        for ranks in [2, samples / 2, samples] {
            assert_eq!(given.gradient(F32, ranks), one, "{}, {ranks} ranks", maps[number].0);
            assert_eq!(biases(errors, channels, samples, ranks, shared), sums, "biases of {}, {ranks} ranks", maps[number].0);
        }
    }
}

#[test]
fn float32_keeps_its_accuracy_in_long_sums_over_samples() {
    let Some(_) = emulation() else { return };
    let map = Connectivity::dense(shape(1, 1, 4), 4);
    let positive = |values: Vec<f32>| values.into_iter().map(f32::abs).collect::<Vec<f32>>();
    let given = Given::new(&map, 3000, 1);
    let given = Given { pre: positive(given.pre), post: positive(given.post), ..Given::new(&map, 3000, 1) };
    let wanted: Vec<f64> = given.reference().iter().map(|sum| sum * f64::from(ADAM.scale)).collect();
    let off = distance(&given.gradient(F32, 1), &wanted);
    assert!(off < 1e-6, "{off:.1e}");
}

/// One step in float64.
fn step(o: &Optimizer, gradient: f64, [w, m, v]: [f64; 3]) -> [f64; 3] {
    let [keep, beta1, beta2, size, deviation_scale, epsilon] =
        [o.keep, o.beta1, o.beta2, o.size, o.deviation_scale, o.epsilon].map(f64::from);
    if o.method == 0 {
        let (m, v) = (beta1 * m + (1.0 - beta1) * gradient, beta2 * v + (1.0 - beta2) * gradient * gradient);
        return [keep * w - size * m / (v.sqrt() * deviation_scale + epsilon), m, v];
    }
    let m = beta1 * m + gradient;
    [keep * w - size * if o.method == 2 { gradient + beta1 * m } else { m }, m, v]
}

#[test]
fn the_optimizer_takes_its_step_in_the_update() {
    let Some(_) = emulation() else { return };
    for (number, (name, map)) in maps().into_iter().enumerate() {
        let given = Given::new(&map, samples(number), number as u64);
        let gradient = given.gradient(F32, 1);
        let start = [weights(&map, 20), random(21, map.weights()), random(22, map.weights()).into_iter().map(f32::abs).collect()];
        for optimizer in [ADAM, MOMENTUM, NESTEROV] {
            let parameters = start.each_ref().map(|values| Buffer::of(&padded(values, map.columns)));
            given.run(F32, 1, &optimizer, &parameters, false);
            let got = parameters.each_ref().map(|buffer| unpadded(&buffer.floats(), map.columns));
            for (i, gradient) in gradient.iter().enumerate() {
                let before = start.each_ref().map(|values| f64::from(values[i]));
                // The gradient of a block without links is zero.
                let wanted = step(&optimizer, f64::from(*gradient), before);
                let got = got.each_ref().map(|values| f64::from(values[i]));
                let off = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < 1e-5, "{name}, method {}: {got:?} for {wanted:?}", optimizer.method);
            }
        }
    }
}

/// What a map's biases sum up to, stored.
fn biases(errors: &[f32], channels: usize, samples: usize, ranks: usize, shared: bool) -> Vec<f32> {
    let positions = errors.len() / channels / samples;
    unpadded(&some_biases(errors, channels, samples, ranks, shared, 0..if shared { 1 } else { positions } * in_fours(channels)), channels)
}

/// The same of some elements, padded; the others are NaN.
pub fn some_biases(errors: &[f32], channels: usize, samples: usize, ranks: usize, shared: bool, elements: Range<usize>) -> Vec<f32> {
    let positions = errors.len() / channels / samples;
    let (post, post_rank) = by_rank(errors, channels, samples, ranks);
    let (optimizer, gradients) = (Buffer::of(&[ADAM]), Buffer::new(if shared { 1 } else { positions } * in_fours(channels)));
    let (samples, per_rank) = (samples as i32, (samples / ranks) as i32);
    let mut bias = Bias {
        factors: Factors { post: post.address(), post_rank, samples, per_rank, ..Factors::default() },
        gradients: gradients.address(),
        optimizer: optimizer.address(),
        begin: elements.start as i64,
        end: elements.end as i64,
        positions: positions as i32,
        columns: in_fours(channels) as i32,
        shared: i32::from(shared),
        ..Bias::default()
    };
    let partial = Buffer::new(launches::bias_partial(&bias));
    bias.partial = partial.address();
    launch(&[&post, &gradients, &partial], |list| launches::bias(list, &bias));
    gradients.floats()
}

#[test]
fn biases_sum_their_errors() {
    let Some(_) = emulation() else { return };
    for (positions, channels, samples) in [(1, 1000, 3), (6, 20, 37), (90, 5, 4), (1, 3, 1), (70, 65, 2)] {
        let errors = random(4, positions * channels * samples);
        for shared in [false, true] {
            let mut wanted = vec![0.0; if shared { channels } else { positions * channels }];
            for (i, error) in errors.iter().enumerate() {
                let at = if shared { 0 } else { i / channels / samples * channels } + i % channels;
                wanted[at] += f64::from(*error) * f64::from(ADAM.scale);
            }
            let off = distance(&biases(&errors, channels, samples, 1, shared), &wanted);
            assert!(off < 1e-6, "{positions} positions, {channels} channels, shared {shared}: off by {off:.1e}");
        }
    }
}

#[test]
fn the_optimizer_takes_its_step_by_a_stored_gradient() {
    let Some(_) = emulation() else { return };
    let (count, parts) = (1036, 3);
    let sums = random(1, count * parts);
    let start = [random(2, count), random(3, count), random(4, count).into_iter().map(f32::abs).collect()];
    for (optimizer, scaled) in [(ADAM, true), (ADAM, false), (MOMENTUM, true), (NESTEROV, false)] {
        let [weights, first, second] = start.each_ref().map(|values| Buffer::of(values));
        let (sums_buffer, constants) = (Buffer::of(&sums), Buffer::of(&[optimizer]));
        let optimize = Optimize {
            sums: sums_buffer.address(),
            stride: count as i64,
            weights: weights.address(),
            first: first.address(),
            second: second.address(),
            optimizer: constants.address(),
            count: count as i64,
            parts: parts as i32,
            scaled: i32::from(scaled),
            ..Optimize::default()
        };
        launch(&[&weights, &first, &second], |list| launches::optimize(list, &optimize));
        let got = [&weights, &first, &second].map(Buffer::floats);
        for i in 0..count {
            let sum: f64 = (0..parts).map(|part| f64::from(sums[part * count + i])).sum();
            let gradient = if scaled { sum } else { sum * f64::from(optimizer.scale) };
            let wanted = step(&optimizer, gradient, start.each_ref().map(|values| f64::from(values[i])));
            let got = got.each_ref().map(|values| f64::from(values[i]));
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} for {wanted:?}");
        }
    }
}
