//! Batch normalisation (Ioffe & Szegedy 2015), as rules ask for it; and its arithmetic where the host makes the numbers of each channel.
//!
//! A channel of `a` becomes `y = scale x + shift` with `x = (a - mean) / sqrt(variance + 1e-5)`. A backend sums up each sample, ranks
//! bring all samples' sums together, and the backend goes on from there: from numbers of the host, or, where a step is a graph, from what
//! lies on its device.

use std::cell::RefCell;

use super::{Activity, Backend, Buffer, Part};
use crate::network::{MapId, Shape};

/// What keeps a channel that is the same everywhere from being divided by 0.
pub const EPSILON: f64 = 1e-5;

/// A normalised layer: its maps and activities.
#[derive(Clone)]
pub struct Normalized {
    /// Scale and shift of each channel, then its running mean and variance: one vector each.
    pub affine: MapId,
    pub statistics: MapId,
    output: Shape,
    /// What the weights yield, and its error.
    pub sums: Activity,
    pub error: Activity,
    /// 1: the presynaptic factor of both maps.
    pub one: Activity,
    /// Of each sample, over its positions: sums of squares and values on the way up, of products with x and values of the error on the way down.
    pub moments: Activity,
    pub products: Activity,
    /// Running statistics less the batch's.
    pub drift: Activity,
    /// Running mean and variance, where the host has them.
    running: RefCell<[Vec<f32>; 2]>,
    /// Mean and `1 / sqrt(variance + 1e-5)` that x was made by, and the scale; likewise.
    made_by: RefCell<[Vec<f32>; 3]>,
}

impl Normalized {
    pub fn new([affine, statistics]: [MapId; 2], output: Shape, backend: &mut dyn Backend) -> Normalized {
        let [sums, error] = [(); 2].map(|()| backend.activity(output));
        let [moments, products, drift] = [(); 3].map(|()| backend.activity(Shape::flat(2 * output.channels)));
        let one = backend.activity(Shape::flat(1));
        let (running, made_by) = Default::default();
        Normalized { affine, statistics, output, sums, error, one, moments, products, drift, running, made_by }
    }

    /// The same layer for another rule on the same batch, which leads errors to places of its own.
    pub fn with_own_errors(&self, backend: &mut dyn Backend) -> Normalized {
        let error = backend.activity(self.output);
        let products = backend.activity(Shape::flat(2 * self.output.channels));
        Normalized { error, products, ..self.clone() }
    }

    /// Both vectors of `all` samples' sums, summed, and how many numbers of a channel that is.
    fn totals(&self, all: &[f32]) -> ([Vec<f64>; 2], f64) {
        let mut totals = vec![0.0; 2 * self.output.channels];
        for sample in all.chunks_exact(2 * self.output.channels) {
            totals.iter_mut().zip(sample).for_each(|(total, value)| *total += f64::from(*value));
        }
        let second = totals.split_off(self.output.channels);
        ([totals, second], (all.len() / (2 * self.output.channels) * self.output.positions()) as f64)
    }
}

/// What a backend does for normalised layers. `all` are the sums of the samples of all ranks, in the order of the global batch: what
/// [`Step::gather`](crate::rules::Step::gather) has returned.
pub trait Normalizes {
    /// `destination = s(y)` by running statistics, s the destination's nonlinearity.
    fn normalize_by_running(&mut self, layer: &Normalized, destination: Activity);

    /// The layer's `moments`: `[sum a'^2, sum a']` over the positions of each sample, `a' = a - running mean`.
    fn sum_moments(&mut self, layer: &Normalized);

    /// `destination = s(y)` by the statistics of the batch, and the layer's `one` and `drift`.
    fn normalize(&mut self, layer: &Normalized, all: &[f32], destination: Activity);

    /// The layer's `products`: `[sum delta x, sum delta]` over the positions of each sample, delta the error of y.
    fn sum_products(&mut self, layer: &Normalized, delta: Activity);

    /// The layer's `error`, from that of y, through the statistics of the batch.
    fn through_normalization(&mut self, layer: &Normalized, delta: Activity, all: &[f32]);
}

/// A backend that takes the numbers of channels from the host.
pub trait ByChannel: Backend {
    /// `destination = values` in every sample: as many as a position has channels.
    fn fill(&mut self, destination: Activity, values: &[f32]);

    /// `destination = [sum a' b', sum a']` over the positions of each sample, channel by channel; `destination` is dense, of twice the
    /// channels. `a' = a - around`, and `b' = (b - subtract) scale`, or a' where there is no `(b, [subtract, scale])`.
    fn channel_sums(&mut self, a: Activity, around: &[f32], b: Option<(Activity, [&[f32]; 2])>, destination: Activity);

    /// `destination = s((a - subtract) scale + shift)`, with [subtract, scale, shift] of each channel and the destination's nonlinearity s.
    fn map_channels(&mut self, a: Activity, of_channels: [&[f32]; 3], destination: Activity);

    /// `destination = factor (delta - mean - (a - around) slope)`, with [factor, mean, around, slope] of each channel.
    fn through_channels(&mut self, delta: Activity, a: Activity, of_channels: [&[f32]; 4], destination: Activity);
}

impl<T: ByChannel> Normalizes for T {
    fn normalize_by_running(&mut self, layer: &Normalized, destination: Activity) {
        let [mean, variance] = halves_of(self, layer.statistics);
        normalize_by(self, layer, mean, &variance, destination);
    }

    fn sum_moments(&mut self, layer: &Normalized) {
        let [mean, variance] = halves_of(self, layer.statistics);
        // Round the running mean, so that little is lost where squares are taken from each other.
        self.channel_sums(layer.sums, &mean, None, layer.moments);
        layer.running.replace([mean, variance]);
    }

    fn normalize(&mut self, layer: &Normalized, all: &[f32], destination: Activity) {
        let [mean, variance] = &*layer.running.borrow();
        let ([squares, values], count) = layer.totals(all);
        let means = values.iter().zip(mean).map(|(sum, mean)| (f64::from(*mean) + sum / count) as f32).collect::<Vec<_>>();
        let variances = squares.iter().zip(&values).map(|(squares, sum)| (squares / count - (sum / count).powi(2)).max(0.0));
        let variances: Vec<f32> = variances.map(|variance| variance as f32).collect();
        let unbiased = (count / (count - 1.0).max(1.0)) as f32;
        let drifts = mean.iter().zip(&means).map(|(running, own)| running - own);
        let drifts = drifts.chain(variance.iter().zip(&variances).map(|(running, own)| running - own * unbiased));
        self.fill(layer.one, &[1.0]);
        self.fill(layer.drift, &drifts.collect::<Vec<_>>());
        normalize_by(self, layer, means, &variances, destination);
    }

    fn sum_products(&mut self, layer: &Normalized, delta: Activity) {
        let [mean, inverses, _] = &*layer.made_by.borrow();
        self.channel_sums(delta, &vec![0.0; layer.output.channels], Some((layer.sums, [mean, inverses])), layer.products);
    }

    fn through_normalization(&mut self, layer: &Normalized, delta: Activity, all: &[f32]) {
        let [mean, inverses, scale] = &*layer.made_by.borrow();
        let (totals, count) = layer.totals(all);
        let [with_x, alone] = totals.map(|sums| sums.iter().map(|sum| (sum / count) as f32).collect::<Vec<_>>());
        let of_channels = [&products(scale, inverses)[..], &alone, mean, &products(&with_x, inverses)];
        self.through_channels(delta, layer.sums, of_channels, layer.error);
    }
}

fn normalize_by(backend: &mut dyn ByChannel, layer: &Normalized, mean: Vec<f32>, variance: &[f32], destination: Activity) {
    let inverse = |variance: &f32| (1.0 / (f64::from(*variance) + EPSILON).sqrt()) as f32;
    let inverses: Vec<f32> = variance.iter().map(inverse).collect();
    let [scale, shift] = halves_of(backend, layer.affine);
    backend.map_channels(layer.sums, [&mean, &products(&scale, &inverses), &shift], destination);
    layer.made_by.replace([mean, inverses, scale]);
}

/// The two vectors of a map.
fn halves_of(backend: &dyn ByChannel, map: MapId) -> [Vec<f32>; 2] {
    let values = backend.read_parameter(map, Part::Weight, Buffer::Weights);
    let (first, second) = values.split_at(values.len() / 2);
    [first.to_vec(), second.to_vec()]
}

fn products(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}
